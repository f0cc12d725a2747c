"""The search block: what it draws, and that every mistake is found before a trial starts."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import ConfigError
from rlplatform.experiments.search import SearchConfig, load_sweep, with_settings
from rlplatform.experiments.search_domain import Domain
from tests.conftest import REPOSITORY

GAMMA = "  parameters: {training.gamma: {grid: [0.9]}}\n"
RANDOM = "  algorithm: random\n"


@pytest.fixture
def load(small_yaml, tmp_path):
    """The small run with a search block."""

    def load(search, *overrides):
        path = tmp_path / "sweep.yaml"
        path.write_text(small_yaml.read_text() + f"search:\n{search}")
        return load_sweep(path, overrides)

    return load


# Domains


def test_a_quniform_counts_from_its_low_end_and_never_passes_its_high_one():
    domain = Domain(quniform=(16, 100, 32))
    drawn = {domain.sample(np.random.default_rng(seed)) for seed in range(50)}
    assert drawn == {16, 48, 80}
    assert all(isinstance(value, int) for value in drawn)
    assert domain.snapped(1e9) == 80
    assert domain.probes() == (16, 80, 48)
    assert Domain(quniform=(0.1, 0.4, 0.05)).snapped(0.26) == 0.25


def test_a_loguniform_draws_each_decade_equally_often():
    rng, domain = np.random.default_rng(0), Domain(loguniform=(1e-4, 1e-1))
    drawn = np.array([domain.sample(rng) for _ in range(3_000)])
    counts, _ = np.histogram(np.log10(drawn), bins=[-4, -3, -2, -1])
    assert np.allclose(counts / 3_000, 1 / 3, atol=0.03)


@given(st.floats(-1e3, 1e3), st.floats(0.01, 1e3), st.floats(0.01, 1.0), st.floats(-1e5, 1e5))
@settings(deadline=None, max_examples=60)
def test_whatever_a_population_tries_is_brought_back_into_the_range(low, width, share, value):
    for domain in (Domain(uniform=(low, low + width)), Domain(quniform=(low, low + width, width * share))):
        snapped = domain.snapped(value)
        assert low - 1e-6 <= snapped <= low + width + 1e-6
        assert math.isclose(domain.snapped(snapped), snapped, rel_tol=1e-9, abs_tol=1e-9)


def test_a_searcher_sees_the_index_of_a_choice_so_that_a_value_may_be_a_list():
    domain = Domain(choice=(0.0, [[0, 0.01], [100, 0.0]]))
    assert domain.decoded(1) == [[0, 0.01], [100, 0.0]]
    assert list(domain.to_tune().categories) == [0, 1]


# Draws


def test_a_grid_runs_every_combination_once():
    search = SearchConfig(parameters={"a": Domain(grid=(1, 2)), "b": Domain(grid=("x", "y", "z"))})
    assert search.draws() == [{"a": a, "b": b} for a in (1, 2) for b in "xyz"]


def test_random_draws_repeat_themselves_and_are_shared_by_the_sides_of_a_grid():
    parameters = {"side": Domain(grid=("a", "b")), "x": Domain(uniform=(0.0, 1.0))}
    search = SearchConfig(parameters=parameters, algorithm="random", num_samples=3)
    draws = search.draws()
    assert draws == search.draws()
    assert [draw["side"] for draw in draws] == ["a"] * 3 + ["b"] * 3
    assert [draw["x"] for draw in draws[:3]] == [draw["x"] for draw in draws[3:]]
    assert len({draw["x"] for draw in draws}) == 3
    other = SearchConfig(parameters=parameters, algorithm="random", num_samples=3, seed=1)
    assert other.draws() != draws


def test_a_trial_is_the_base_with_its_settings_and_nothing_else(load):
    sweep = load("  parameters: {env.reward.turnover: {grid: [0.0, 0.3]}, model: {grid: [{kind: mlp}]}}\n  seeds: [7]\n")
    config = sweep.config_for({"env.reward.turnover": 0.3, "model": {"kind": "mlp"}}, seed=7)
    assert (config.env.reward.turnover, config.env.reward.log_growth) == (0.3, 1.0)  # the default term stays
    assert (config.model.kind, config.seed) == ("mlp", 7)
    assert config.env.costs == sweep.base.env.costs
    assert sweep.seeds == (7,)


def test_setting_a_key_leaves_the_content_it_was_set_in_alone():
    content = {"a": {"b": 1}, "c": None}
    assert with_settings(content, {"a.b": 2, "c.d": 3}) == {"a": {"b": 2}, "c": {"d": 3}}
    assert content == {"a": {"b": 1}, "c": None}
    with pytest.raises(ConfigError, match=r"a\.b\.x: b is not a section"):
        with_settings(content, {"a.b.x": 1})


@pytest.mark.parametrize(
    "name",
    [
        "turnover_penalty",
        "drawdown_and_cvar",
        "entropy_anneal",
        "leverage_financing",
        "regime_guard_ab",
        "pbt_ppo",
        "offline_cql_alpha",
        "gru_vs_gnn",
        "drawdown_exploration",
        "observed_guards",
    ],
)
def test_every_shipped_sweep_is_accepted_value_by_value(name):
    assert load_sweep(REPOSITORY / "tune_configs" / f"{name}.yaml").base.name == name


# Mistakes


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ("  parameters: {}\n", "parameters is empty"),
        ("  parameter: {}\n", r"search.parameters = None; expected keys such as env.reward.turnover"),
        (GAMMA + "  algoritm: grid\n", "unknown key algoritm. Did you mean algorithm?"),
        ("  parameters: {training.gama: {grid: [0.9]}}\n", "unknown key training.gama. Did you mean gamma?"),
        ("  parameters: {traning.gamma: {grid: [0.9]}}\n", "unknown key traning. Did you mean training?"),
        ("  parameters: {training.gamma: {unifrm: [0.9, 1.0]}}\n", "unknown key unifrm. Did you mean uniform?"),
        ("  parameters: {training.gamma: 0.9}\n", "search.parameters.training.gamma = 0.9; expected one of grid, choice"),
        ("  parameters: {training.gamma: {grid: [0.9], choice: [1.0]}}\n", "gives grid and choice; expected one of"),
        ("  parameters: {training.gamma: {grid: []}}\n", "training.gamma: grid is empty"),
        ("  parameters: {training.gamma: {grid: [0.9, 0.90]}}\n", "grid holds 0.9 twice"),
        ("  parameters: {training.gamma: {uniform: [1.0, 0.9]}}\n" + RANDOM, r"uniform = \[1.0, 0.9\] is an empty range"),
        ("  parameters: {training.gamma: {loguniform: [0, 0.9]}}\n", "a logarithm needs lo > 0"),
        ("  parameters: {training.gamma: {quniform: [0.1, 0.9, 5]}}\n", "expected a step q with 0 < q"),
        ("  parameters: {training.gamma: {grid: [0.9, 1.5]}}\n", "training.gamma = 1.5: training.gamma = 1.5; expected a"),
        ("  parameters: {training.gamma: {uniform: [0.5, 1.5]}}\n" + RANDOM, "training.gamma = 1.5; expected a discount"),
        (
            "  parameters: {training.num_epochs: {uniform: [1, 8]}}\n" + RANDOM,
            r"expected a whole number. Whole numbers are drawn with quniform: \[lo, hi, 1\]",
        ),
        ("  parameters: {training.gamma: {uniform: [0.5, 0.9]}}\n", "algorithm = 'grid' runs grids only"),
        (GAMMA + "  algorithm: optuna\n", "algorithm = 'optuna' needs a choice"),
        ("  parameters: {model.hidden_size: {choice: [8]}}\n  algorithm: pbt\n  num_samples: 4\n", "PBT changes settings"),
        ("  parameters: {training.gamma: {choice: [0.9]}}\n  algorithm: pbt\n", "'pbt' needs num_samples of at least 4"),
        (GAMMA + "  num_samples: 3\n", "a grid runs each setting once"),
        (GAMMA + "  metric: sharpe\n", "metric = 'sharpe'; no run reports it.*Did you mean validation_sharpe?"),
        (GAMMA + "  metric: episode_return_mean\n", "no run reports it. Trials are compared on the validation"),
        (GAMMA + "  mode: maximum\n", "mode = 'maximum'; expected one of"),
        (GAMMA + "  seeds: [1, 1]\n", "seeds = .* expected different whole numbers"),
        (GAMMA + "  time_budget_s: 0\n", "expected seconds above 0"),
        ("  parameters: {seed: {grid: [1]}}\n", "search.parameters.seed cannot be varied: give search.seeds"),
        ("  parameters: {split.test: {grid: [1]}}\n", "cannot be varied: trials would not be judged on the same days"),
        ("  parameters: {model: {grid: [{kind: mlp}]}, model.kind: {grid: [mlp]}}\n", "model.kind set the same thing"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_the_file_before_anything_starts(load, search, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load(search)
    assert str(caught.value).startswith("sweep.yaml: ")
    assert "\n" not in str(caught.value)


def test_combinations_of_a_grid_are_tried_together_not_one_by_one(load):
    """Neither half of the pair suits the other's base, but together they do."""
    load("  parameters: {training.minibatch_size: {grid: [600]}, training.rollout_length: {grid: [64]}}\n")
    with pytest.raises(ConfigError, match="minibatch_size = 600 exceeds the 512 transitions"):
        load("  parameters: {training.minibatch_size: {grid: [600]}, training.rollout_length: {grid: [64, 32]}}\n")


def test_a_sweep_needs_a_search_block_and_a_validation_period(small_yaml, load):
    with pytest.raises(ConfigError, match="has no search block of keys and values"):
        load_sweep(small_yaml)
    with pytest.raises(ConfigError, match=r"split\.validation is missing; trials are compared on it"):
        load("  parameters: {training.gamma: {grid: [0.9]}}\n", "split.validation=")


def test_overrides_reach_the_search_too(load):
    text = "  parameters: {training.gamma: {uniform: [0.5, 0.9]}}\n" + RANDOM
    assert len(load(text, "search.num_samples=5").search.draws()) == 5
