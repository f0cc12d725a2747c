"""Shapley values of a policy's decisions: hand-checked games, additivity, and planted policies that read one group only."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from envs import make
from envs.errors import ConfigError, ShapeError
from envs.portfolio import PortfolioConfig
from envs.regime import ACTIONS, RegimeConfig
from envs.trading_config import EpisodeConfig
from rlplatform.evaluation.attribution_plots import plot_effects, plot_effects_over_time
from rlplatform.evaluation.backtest import run_policy
from rlplatform.evaluation.shapley import ExplainConfig, coalitions, explain, feature_groups
from tests.evaluation.conftest import random_tape

WHOLE = EpisodeConfig(length_bars=None, random_start=False)
SAMPLED = ExplainConfig(exact_groups=1, permutations=8)


def market(rows=40, features=("volatility_21", "log_return_5"), seed=0):
    tape = random_tape(rows=rows, assets=2, seed=seed)
    values = np.random.default_rng(seed).standard_normal((rows, 2, len(features)))
    context = np.random.default_rng(seed + 1).standard_normal((rows, 1))
    return dataclasses.replace(tape, features=values, feature_names=features, context=context, context_names=("vix",))


def portfolio(tape=None):
    return make(PortfolioConfig(episode=WHOLE), market() if tape is None else tape)


class Linear:
    """Weights from a linear score of what it sees now and, with `memory`, of all it has seen."""

    def __init__(self, score, memory=0.0):
        self.score, self.memory = np.asarray(score, float), memory

    def initial_state(self, batch):
        return np.zeros(batch)

    def act(self, obs, state, deterministic):
        now = obs @ self.score + self.memory * state
        share = 1.0 / (1.0 + np.exp(-now))
        return np.column_stack([0.2 * np.ones_like(share), 0.8 * share, 0.8 * (1 - share)]), now, {}


def score_on(env, name):
    return np.array([name in column for column in env.unwrapped.task.observation_names], float)


def test_a_game_of_three_has_the_values_of_the_book():
    """The glove game: a left glove and two right ones, a pair is worth 1. Shapley: 4/6, 1/6, 1/6."""
    design = coalitions(3)
    worth = np.array([float(mask[0] and (mask[1] or mask[2])) for mask in design.masks])
    assert design.exact
    assert_allclose(design.weights[0] @ worth, [4 / 6, 1 / 6, 1 / 6])


@pytest.mark.parametrize("groups", [1, 2, 5])
def test_every_coalition_gives_the_mean_over_all_orders(groups):
    worth = dict(zip(itertools.product((0, 1), repeat=groups), np.random.default_rng(0).random(2**groups), strict=True))
    design = coalitions(groups)
    values = np.array([worth[tuple(mask.astype(int))] for mask in design.masks])
    expected = np.zeros(groups)
    for order in itertools.permutations(range(groups)):
        seen = [0] * groups
        for group in order:
            before = worth[tuple(seen)]
            seen[group] = 1
            expected[group] += (worth[tuple(seen)] - before) / math.factorial(groups)
    assert_allclose(design.weights[0] @ values, expected, atol=1e-12)


def test_drawn_permutations_keep_the_sum_exactly_and_come_near_the_values():
    groups, rng = 6, np.random.default_rng(3)
    exact = coalitions(groups)
    worth = {tuple(mask): value for mask, value in zip(exact.masks, rng.random(64), strict=True)}
    true = exact.weights[0] @ np.array(list(worth.values()))
    for permutations, near in ((4, 1.0), (2_000, 0.02)):
        drawn = coalitions(groups, ExplainConfig(exact_groups=1, permutations=permutations))
        values = np.array([worth[tuple(mask)] for mask in drawn.masks])
        halves = drawn.weights @ values
        assert not drawn.exact
        assert_allclose(halves.sum(1), worth[(True,) * 6] - worth[(False,) * 6], atol=1e-12)
        assert_allclose(halves.mean(0), true, atol=near)
        assert (drawn.masks[0].sum(), drawn.masks[-1].sum()) == (0, groups)


@pytest.mark.parametrize("config", [None, SAMPLED], ids=["all coalitions", "sampled"])
@pytest.mark.parametrize("memory", [0.0, 0.7])
def test_effects_sum_to_the_difference_from_the_baseline_at_every_bar(config, memory):
    env = portfolio()
    policy = Linear(np.random.default_rng(0).standard_normal(len(env.task.observation_names)), memory)
    found = explain(env, policy, feature_groups(env.task), np.full(len(env.task.observation_names), 0.3), config)
    assert_allclose(found.effects.sum(1), found.weights - found.base, atol=1e-9)
    assert np.abs(found.effects).max() > 0.01
    track = run_policy("p", portfolio(), policy)
    assert_allclose(found.weights, track.weights, atol=1e-9)
    assert (found.dates == track.dates[:-1]).all()


@pytest.mark.parametrize("config", [None, SAMPLED], ids=["all coalitions", "sampled"])
@pytest.mark.parametrize(("name", "group"), [("volatility", "volatility"), ("vix", "market"), ("weight_A", "own weights")])
def test_a_planted_policy_that_reads_one_group_has_all_its_effects_there(name, group, config):
    env = portfolio()
    policy = Linear(3.0 * score_on(env, name), memory=0.5)
    found = explain(env, policy, feature_groups(env.task), np.zeros(len(env.task.observation_names)), config)
    sizes = dict(zip(found.groups, found.sizes, strict=True))
    assert sizes.pop(group) > 0.01
    assert max(sizes.values()) < 1e-12
    assert found.sentence.split(": ")[1].startswith(f"{group} moves its weights most, 100 %")
    assert found.rows()[0]["share"] == "100 %"


def test_a_recurrent_policy_is_asked_as_if_its_memory_had_not_seen_the_group_either():
    """All that it knows is what it saw a bar ago: of a policy with memory alone, bar 0 has no effect and bar 1 has."""

    class Remembers(Linear):
        def act(self, obs, state, deterministic):
            action, _, _ = super().act(np.zeros_like(obs), state, deterministic)
            return action, obs @ self.score / self.memory, {}

    env = portfolio()
    found = explain(env, Remembers(score_on(env, "volatility"), 1.0), feature_groups(env.task), np.zeros(14))
    assert np.abs(found.effects[0]).max() < 1e-15
    group = found.groups.index("volatility")
    assert np.abs(found.effects[1:, group]).mean(0).min() > 0.01
    assert_allclose(found.effects.sum(1), found.effects[:, group], atol=1e-12)


def test_later_prices_change_no_earlier_effect():
    tape = market()
    gross = tape.gross.copy()
    gross[30:] *= 1.01
    features = tape.features.copy()
    features[30:] += 1.0
    changed = dataclasses.replace(tape, gross=gross, features=features)
    score = np.random.default_rng(0).standard_normal(14)
    one, two = (
        explain(env, Linear(score, 0.5), feature_groups(env.task), np.zeros(14)) for env in map(portfolio, (tape, changed))
    )
    assert_allclose(one.effects[:30], two.effects[:30], atol=1e-12)
    assert np.abs(one.effects[30:] - two.effects[30:]).max() > 1e-6


class Chooses:
    """Holds on quiet days, else all in the first fund; by the sign of VIX."""

    def __init__(self, column):
        self.column = column

    def initial_state(self, batch):
        return None

    def act(self, obs, state, deterministic):
        calm = obs[:, self.column] < 0
        return np.where(calm, ACTIONS.index("HOLD"), ACTIONS.index("ALL_SPY")), state, {}


def test_a_discrete_policy_is_explained_by_the_weights_that_its_choice_means():
    tape = random_tape(rows=300, assets=3)
    env = make(RegimeConfig(episode=WHOLE), tape, str(tape.dates[250])[:10])
    groups, names = feature_groups(env.task), env.task.observation_names
    assert sum(map(len, groups.values())) == 64
    assert "other" not in groups
    column = names.index("A.return_1")
    found = explain(env, Chooses(column), groups, np.where(np.arange(64) == column, -1.0, 0.0))
    bought = np.flatnonzero(found.weights[:, 0] == 1.0)[0]
    assert_allclose(found.effects[bought, found.groups.index("returns")], [1.0, 0.0, 0.0])  # from HOLD in cash to the fund
    assert_allclose(np.delete(found.effects, found.groups.index("returns"), 1), 0.0, atol=1e-12)


def test_columns_go_to_the_groups_of_the_catalogue():
    groups = feature_groups(portfolio().task)
    assert {name: len(columns) for name, columns in groups.items()} == {
        "volatility": 2, "returns": 2, "market": 1, "forecasts": 4, "own weights": 3, "own result": 2,
    }  # fmt: skip
    named = dataclasses.replace(market(features=("mystery",)), symbols=("BRK.B", "A"))
    assert set(feature_groups(portfolio(named).task)) == {"other", "market", "forecasts", "own weights", "own result"}


def test_columns_that_a_config_adds_have_groups_too():
    config = PortfolioConfig(episode=WHOLE, observe=("regime_label", "spread_bps", "risk_budget"))
    env = make(config, market())
    before, groups = feature_groups(portfolio().task), feature_groups(env.task)
    added = {name: len(columns) - len(before.get(name, ())) for name, columns in groups.items()}
    assert {name: count for name, count in added.items() if count} == {"market": 2, "own result": 1}
    found = explain(env, Linear(score_on(env, "risk_budget")), groups, np.zeros(17))
    assert found.groups[found.order[0]] == "own result"


def test_figures_name_the_largest_group_first():
    env = portfolio()
    found = explain(env, Linear(score_on(env, "volatility")), feature_groups(env.task), np.zeros(14))
    figure = plot_effects(found)
    assert figure.axes[0].get_yticklabels()[0].get_text() == "volatility"
    assert "volatility moves the policy's weights most" in figure.texts[0].get_text()
    assert plot_effects_over_time(found).axes
    still = explain(env, Linear(np.zeros(14)), feature_groups(env.task), np.zeros(14))
    assert "nothing that it sees moves its weights" in still.sentence
    assert plot_effects(still).axes
    assert plot_effects_over_time(still).axes


def test_bad_settings_are_refused():
    env = portfolio()
    groups = feature_groups(env.task)
    with pytest.raises(ConfigError, match=r"explain\.permutations = 6; expected a multiple of 4"):
        ExplainConfig(permutations=6)
    with pytest.raises(ConfigError, match=r"explain\.exact_groups = 20; expected 1 to 12"):
        ExplainConfig(exact_groups=20)
    with pytest.raises(ShapeError, match=r"baseline has shape \(3,\); expected \(14,\)"):
        explain(env, Linear(np.zeros(14)), groups, np.zeros(3))
    groups.pop("market")
    with pytest.raises(ShapeError, match="observation 4 is in 0 groups; expected exactly one"):
        explain(env, Linear(np.zeros(14)), groups, np.zeros(14))
