import numpy as np
import pytest
from numpy.testing import assert_allclose

from envs.errors import ConfigError
from envs.tape import MarketTape
from rlplatform.evaluation import baselines
from rlplatform.offline.behaviour_config import behaviour_config
from rlplatform.offline.target_weights import RULES, Question, target_weights
from tests.envs.markets import random_tape, tape_of, with_changed_future

SPECS = {  # a spec for each rule, its assets, signed
    "topk_equal_weight": ("topk_equal_weight:top=1,lookback_bars=5", 3, True),
    "fractional_kelly": ("fractional_kelly:lookback_bars=5", 3, True),
    "inverse_volatility": ("inverse_volatility:lookback_bars=5", 3, False),
    "risk_parity": ("risk_parity:lookback_bars=20,every_bars=15", 3, False),
    "momentum": ("momentum:lookback_bars=5", 3, True),
    "mean_reversion": ("mean_reversion", 3, True),
    "pair_spread": ("pair_spread:lookback_bars=10", 2, True),
    "regime_rotation": ("regime_rotation", 3, False),
    "blend": ("blend:momentum*0.5,mean_reversion*0.5", 3, True),
}


def asked(spec, tape, signed=False, **options):
    return target_weights(Question(tape=tape, config=behaviour_config(spec), signed=signed, **options))


def without_forecasts(seed, assets):
    tape = random_tape(seed, assets)
    return MarketTape(dates=tape.dates, symbols=tape.symbols, gross=tape.gross)


def test_the_best_of_three_is_held_and_the_worst_sold():
    tape = tape_of([1, 1.1, 1.1, 1.0], [1, 1.0, 1.0, 1.3], [1, 0.9, 0.9, 0.9])
    long = asked("topk_equal_weight:top=1,lookback_bars=2", tape)
    assert_allclose(long[2], [1, 0, 0])  # two returns are known: 1.21, 1.00, 0.81
    assert_allclose(long[3], [0, 1, 0])  # 1.10, 1.30, 0.81
    assert_allclose(long[:2], 1 / 3)  # before its window is full: equal weight
    both = asked("topk_equal_weight:top=1,lookback_bars=2,gross=2", tape, signed=True)
    assert_allclose(both[2], [1, 0, -1])
    assert_allclose(both[:2], 0)


def test_kelly_from_a_forecast_by_hand():
    tape = tape_of([1, 1, 1], [1, 1, 1])
    width = 2.563103 * 0.02  # q90 − q10 of a normal with σ = 0.02
    forecast = MarketTape(
        dates=tape.dates,
        symbols=tape.symbols,
        gross=tape.gross,
        features=np.array([[[0.0004], [-0.0002]]] * 3),
        feature_names=("mean_1",),
        forecast_uncertainty=np.full((3, 2), width),
    )
    spec = "fractional_kelly:fraction=0.5,mean_feature=mean_1"
    assert_allclose(asked(spec, forecast), [[0.5, 0.0]] * 3, rtol=1e-5)  # 0.5 · 0.0004 / 0.0004
    assert_allclose(asked(spec, forecast, signed=True), [[0.5, -0.25]] * 3, rtol=1e-5)
    assert_allclose(asked(spec + ",cap=0.2", forecast, signed=True), [[0.2, -0.2]] * 3, rtol=1e-5)


def test_kelly_without_forecasts_is_the_baseline_row_by_row():
    tape = without_forecasts(3, 3)
    weights = asked("fractional_kelly:lookback_bars=20,cap=100", tape)
    for t in (20, 41, 59):
        assert_allclose(weights[t], baselines.fractional_kelly(tape.gross[t - 19 : t + 1] - 1.0, 0.5))


def test_a_spread_two_deviations_wide_is_sold_fully():
    rises = [1.0] * 9 + [1.5]
    weights = asked("pair_spread:lookback_bars=10,gross=2", tape_of(rises, [1.0] * 10), signed=True)
    assert_allclose(weights[-1], [-1, 1])  # z = 3 of one jump in ten, clipped at 2
    assert_allclose(weights[:-1], 0)


def test_momentum_and_reversion_take_opposite_sides_of_the_same_move():
    tape = random_tape(5, 3)
    up, down = (asked(f"{kind}:lookback_bars=5", tape, signed=True) for kind in ("momentum", "mean_reversion"))
    assert_allclose(up, -down)
    assert_allclose(np.abs(up[5:]).sum(1), 1)
    assert (asked("momentum:lookback_bars=5", tape)[5:] >= 0).all()


def test_a_blend_is_the_weighted_mean():
    tape = random_tape(5, 3)
    parts = 0.7 * asked("momentum", tape) + 0.3 * asked("inverse_volatility", tape)
    assert_allclose(asked("blend:momentum*0.7,inverse_volatility*0.3", tape), parts)


def test_every_rule_is_tried_here():
    assert set(SPECS) == set(RULES)


@pytest.mark.parametrize("kind", SPECS)
def test_no_rule_looks_ahead(kind):
    spec, assets, signed = SPECS[kind]
    tape, t = random_tape(7, assets), 41
    before, after = (asked(spec, each, signed) for each in (tape, with_changed_future(tape, t, 7)))
    np.testing.assert_array_equal(before[: t + 1], after[: t + 1])
    assert not np.array_equal(before[t + 1 :], after[t + 1 :])  # the change reaches the rule, so the test can fail


@pytest.mark.parametrize(
    ("spec", "assets", "signed", "message"),
    [
        ("pair_spread", 3, True, "trades two assets with signed weights"),
        ("pair_spread", 2, False, "trades two assets with signed weights"),
        ("regime_rotation", 4, False, "trades three funds; the market has 4"),
        ("topk_equal_weight:top=2", 3, True, "the market has 3 assets for two sides"),
        ("fractional_kelly:mean_feature=onee", 3, False, "the tape has no such feature. Did you mean one"),
        ("blend:uniform*1", 3, False, "uniform has no target weights"),
    ],
)
def test_a_rule_that_makes_no_sense_here_says_so(spec, assets, signed, message):
    with pytest.raises(ConfigError, match=message):
        asked(spec, random_tape(0, assets), signed)
