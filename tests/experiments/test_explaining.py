"""A run's decisions and result explained from its directory, and what it loses under stress."""

import dataclasses
import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from envs.errors import ConfigError
from envs.normalizer import ObservationNormalizer
from rlplatform.data import load_prices
from rlplatform.evaluation.shapley import ExplainConfig
from rlplatform.evaluation.stress import SHOCKS, StressConfig, scenarios
from rlplatform.experiments.config import load_config
from rlplatform.experiments.explaining import explain_decisions, explain_run, mean_observation
from rlplatform.experiments.market import prepare_market, tape_of
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.experiments.stressing import prices_of, stress, stress_run
from rlplatform.features import FeatureBuilder
from rlplatform.models.policy import Policy
from tests.experiments.untrained import untrained_run

QUICK = StressConfig(paths=1, bars=30, shocks=SHOCKS[:1])


@pytest.fixture(scope="module")
def run(small_yaml, tmp_path_factory):
    return untrained_run(small_yaml, tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def found(run):
    return explain_run(run.path, ExplainConfig(exact_groups=3, permutations=4))


def test_the_parts_add_up_to_the_runs_own_judgement(run, found):
    own = run.manifest()["test"]
    assert_allclose(found.result.total_return, own["total_return"], rtol=1e-9)
    assert_allclose(found.result.volatility, own["volatility"], rtol=1e-6)
    assert_allclose(found.result.return_parts.sum() + found.result.cost_parts.sum(), own["total_return"], atol=1e-9)
    decisions = found.decisions
    assert_allclose(decisions.effects.sum(1), decisions.weights - decisions.base, atol=1e-9)
    assert (str(decisions.dates[0])[:10], decisions.exact) == ("2003-07-01", False)


def test_it_leaves_numbers_and_figures_in_the_report(run, found):
    written = json.loads((run.report / "explanation.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(found.to_dict()))
    assert {"effects.png", "effects_over_time.png", "contributions.png"} <= {path.name for path in run.report.iterdir()}


def test_unseen_means_the_mean_of_the_normaliser_or_of_the_training_path(run):
    config, policy = run.config(), Policy.load(run.policy)
    tape = prepare_market(config, run.scaler()).tape
    mean, origin = mean_observation(config, tape, policy)
    train = tape.between(*map(str, config.split.train))
    column = tape.feature_names.index("log_return_21")
    assert_allclose(mean[column], train.features[:-1, 0, column].mean(), atol=1e-5)  # no decision on the last row
    assert "path over the training period" in origin
    normalizer = ObservationNormalizer(policy.obs_size)
    normalizer.update(np.full((2, policy.obs_size), 0.25))
    normalised = Policy(policy.actor_critic, normalizer, policy.env_id)
    assert_allclose(mean_observation(config, tape, normalised)[0], 0.25)
    assert "normaliser" in explain_decisions(config, tape, normalised).baseline


def test_a_scenario_shows_the_policy_features_scaled_as_in_training(run):
    market = prepare_market(run.config(), run.scaler())
    again = tape_of(run.config(), market.prices, market.scaler)
    assert_allclose(again.features, market.tape.features)


def test_stress_writes_what_policy_and_rules_lose(run):
    found = stress_run(run.path, QUICK)
    assert json.loads((run.report / "stress.json").read_text(encoding="utf-8")) == json.loads(json.dumps(found.to_dict()))
    players = {row.player for row in found.rows}
    assert {found.policy, found.benchmark, "EQUAL_WEIGHT", "INVERSE_VOLATILITY"} <= players
    assert {row.scenario for row in found.rows} >= {"bootstrap", "shock_2008"}
    assert found.sentence.startswith(f"On the worst of {len(found.of(found.policy))} paths {found.policy} ends ")
    assert found.table()[0]["paths"] == "1"


def test_an_all_cash_policy_loses_nothing_under_stress(run):
    class Cash:
        def initial_state(self, batch):
            return None

        def act(self, obs, state, deterministic):
            return np.tile([1.0, 0.0], (len(obs), 1)), state, {}

    found = stress(run.config(), prepare_market(run.config(), run.scaler()), Cash(), QUICK)
    assert {(row.worst_return, row.worst_drawdown) for row in found.of(found.policy)} == {(0.0, 0.0)}
    benchmark = next(row for row in found.of(found.benchmark) if row.scenario == "shock_2008")
    assert_allclose(benchmark.median_return, (1 - 0.487) ** (1 - 0.69) - 1, atol=0.01)


def test_prices_of_a_scenario_have_its_returns(run):
    path = scenarios(prepare_market(run.config()).tape, QUICK)[0]
    assert_allclose(prices_of(path).gross()[1:], path.tape.gross[1:])


def test_volume_that_scenarios_lack_is_taken_as_constant(run):
    config, rng = run.config(), np.random.default_rng(0)
    prices = load_prices(config.data)
    traded = dataclasses.replace(prices, volume=rng.uniform(1e5, 1e6, prices.close.shape))
    scaler = FeatureBuilder(config.features).build(traded).fit_scaler("2002-12-31")
    scenario = prices_of(scenarios(prepare_market(config).tape, QUICK)[0])
    tape = tape_of(config, scenario, scaler)
    column = next(i for i, name in enumerate(tape.feature_names) if name.startswith("volume"))
    raw = tape.features[..., column] * scaler.feature_std[column] + scaler.feature_mean[column]
    assert_allclose(raw, 0.0, atol=1e-5)
    without = tape_of(config, scenario, run.scaler())
    assert not [name for name in without.feature_names if name.startswith("volume")]


def test_a_run_without_a_policy_is_refused(small_yaml, tmp_path):
    run = RunDirectory.create(load_config(small_yaml, [f"results_dir={tmp_path}"]))
    for command in (explain_run, stress_run):
        with pytest.raises(ConfigError, match="no trained policy yet"):
            command(run.path)
