"""Which pairs are chosen, and that only the given rows choose."""

import numpy as np
import pytest

from envs.errors import ConfigError, MarketDataError
from rlplatform.evaluation.pair_choice import choose_pairs

SYMBOLS = ("A", "B", "C", "D")


def market(seed=0, rows=600):
    """(T, 4) prices: B is A with small noise around it (cointegrated), C and D share returns without being tied."""
    rng = np.random.default_rng(seed)
    walk = np.cumsum(0.01 * rng.standard_normal((rows, 3)), axis=0)
    shared = np.cumsum(0.02 * rng.standard_normal(rows))
    spread = np.zeros(rows)
    for t in range(1, rows):
        spread[t] = 0.5 * spread[t - 1] + 0.02 * rng.standard_normal()
    logs = np.stack([walk[:, 0], walk[:, 0] + spread, shared + 0.3 * walk[:, 1], shared + 0.3 * walk[:, 2]], axis=1)
    return 100 * np.exp(logs)


def test_adjacent_pairs_are_each_with_the_next_in_the_list():
    found = choose_pairs("adjacent", 3, SYMBOLS, market())
    assert [pair.symbols for pair in found] == [("A", "B"), ("B", "C"), ("C", "D")]
    assert found[0].name == "A-B"


def test_clustering_takes_the_closest_merge_first_and_then_across_it():
    first, second, third = choose_pairs("clustering", 3, SYMBOLS, market())
    assert first.symbols == ("C", "D")  # the shared returns are most of theirs
    assert first.correlation > 0.8 > second.correlation
    assert second.symbols == ("A", "B")
    correlations = np.corrcoef(np.diff(np.log(market()), axis=0), rowvar=False)
    across = {(a, b): correlations[a, b] for a in (0, 1) for b in (2, 3)}
    assert third.symbols == tuple(SYMBOLS[i] for i in max(across, key=across.get))


def test_cointegration_finds_the_tied_pair_and_counts_its_tests():
    found = choose_pairs("cointegration", 6, SYMBOLS, market())
    assert found[0].symbols == ("A", "B")
    assert found[0].p_value < 0.01 < found[1].p_value
    for pair in found:
        assert pair.p_adjusted == pytest.approx(min(1.0, 12 * pair.p_value))  # six pairs, each in both directions


@pytest.mark.parametrize(
    ("symbols", "count", "method", "message"),
    [
        (("A",), 1, "adjacent", r"1 symbols \(A\); a pair needs two"),
        (SYMBOLS, 4, "adjacent", "count = 4; 4 symbols have 1 to 3 pairs by adjacent"),
        (SYMBOLS, 7, "cointegration", "count = 7; 4 symbols have 1 to 6"),
    ],
)
def test_more_pairs_than_there_are_is_one_line(symbols, count, method, message):
    with pytest.raises(ConfigError, match=message):
        choose_pairs(method, count, symbols, market()[:, : len(symbols)])


def test_too_few_rows_to_measure_are_refused():
    with pytest.raises(MarketDataError, match="100 training rows; expected at least 250"):
        choose_pairs("clustering", 1, SYMBOLS, market(rows=100))
