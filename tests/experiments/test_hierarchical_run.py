"""`model.kind: hierarchical` as a user runs it: trained, logged, judged and explained like any model."""

import json

import numpy as np
import pytest

from envs.errors import ConfigError
from rlplatform.algorithms.cql import CQLTrainingConfig
from rlplatform.algorithms.discrete_cql import DiscreteCQLTrainingConfig
from rlplatform.algorithms.modes import check_modes
from rlplatform.data import make_market
from rlplatform.data.two_mode import CHOP, TREND
from rlplatform.experiments.collecting import CollectConfig, collect_dataset
from rlplatform.experiments.config import load_config
from rlplatform.experiments.experiment import new_job, train_and_judge
from rlplatform.experiments.explaining import explain_run
from rlplatform.experiments.judging import backtest
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.experiments.trainers import bound_model
from rlplatform.experiments.training import train
from rlplatform.experiments.walkforward_path import RelayPolicy
from rlplatform.models.hierarchical import HierarchicalConfig
from rlplatform.models.policy import Policy
from tests.conftest import REPOSITORY

GATED = "model={kind: hierarchical, embedding_size: 8, hidden_size: 8, max_seq_len: 16, gate: {columns: [%s], hidden_size: 4}}"
PATHWISE = "training={algorithm: differentiable, total_env_steps: 256, num_envs: 16, window: 16, updates_per_iteration: 1}"
MODES = ("probe", "passive", "aggressive")


def shares(row: dict) -> list[float]:
    return [row[f"mode_share_{mode}"] for mode in MODES]


def test_the_differentiable_trainer_learns_modes_and_logs_them(small_yaml, tmp_path):
    config = load_config(small_yaml, [f"results_dir={tmp_path}", GATED % "drawdown", PATHWISE])
    tape, run = prepare_market(config).tape, RunDirectory.create(config)
    train(config, tape, run)
    last = run.metrics()[-1]
    assert sum(shares(last)) == pytest.approx(1.0)
    assert 0.0 < last["gate_entropy"] <= np.log(3) + 1e-6
    policy, period = Policy.load(run.checkpoint("last") / "policy"), ("2003-07-01", "2003-07-31")
    for decides in (policy, RelayPolicy([policy, policy], [0, 5])):  # and as folds of a walk-forward
        track = backtest(config, tape, decides, *period, name="modes")
        assert track.mode_names == MODES
        assert track.gate.shape == (len(track), 3)


def test_columns_of_the_gate_are_found_in_the_environments_observation(small_yaml, tmp_path):
    observe = "env.observe=[regime_label, spread_bps]"
    config = load_config(small_yaml, [f"results_dir={tmp_path}", GATED % "regime_label, spread_bps", observe])
    model = bound_model(config, prepare_market(config).tape)
    assert model.gate_places[1] == model.gate_places[0] + 1
    with pytest.raises(ConfigError, match=r"model.gate.columns: the observation has no entry 'regime_label'"):
        new_job(load_config(small_yaml, [f"results_dir={tmp_path}", GATED % "regime_label"]))
    assert not any(path.suffix != ".yaml" for path in tmp_path.iterdir())


@pytest.mark.parametrize("training", [CQLTrainingConfig(), DiscreteCQLTrainingConfig()], ids=lambda t: t.algorithm)
def test_algorithms_that_ask_more_of_the_distribution_are_refused(training):
    with pytest.raises(ConfigError, match=rf"hierarchical with training.algorithm = {training.algorithm}: .* Use ppo"):
        check_modes(training, HierarchicalConfig())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "market"), [("Portfolio-v0", "two_mode"), ("MultiAssetRegime-v0", "regimes"), ("PairLeverage-v0", "pair")]
)
def test_every_environment_trains_a_policy_with_modes(env, market, small_yaml, tmp_path, ray_session):
    overrides = [f"results_dir={tmp_path}", GATED % "drawdown", f"env.id={env}", f"data.market={market}"]
    job = new_job(load_config(small_yaml, [*overrides, "training.total_env_steps=1024"]))
    verdict = train_and_judge(job)
    rows = job.run.metrics()
    assert all(sum(shares(row)) == pytest.approx(1.0, abs=1e-4) for row in rows)
    assert all(abs(row["kl"]) < 1.0 for row in rows)
    assert verdict.policy.mode_names == Policy.load(job.run.policy).mode_names == MODES
    modes = json.loads((job.run.report / "report.json").read_text())["modes"]
    assert sum(mode["share"] for mode in modes) == pytest.approx(1.0)
    if env == "Portfolio-v0":
        found = explain_run(job.run.path)
        assert np.isfinite(found.decisions.effects).all()


@pytest.mark.slow
def test_behaviour_is_cloned_by_a_policy_with_modes(small_yaml, tmp_path, ray_session):
    base = load_config(small_yaml, [f"results_dir={tmp_path}"])
    policy = "momentum:lookback_bars=2,every_bars=1+noise:0.5"
    collect_dataset(base, CollectConfig(policy=policy, episodes=20), tmp_path / "set")
    config = load_config(
        small_yaml,
        [
            *(f"results_dir={tmp_path}", GATED % "drawdown", f"dataset={{paths: [{tmp_path / 'set'}]}}"),
            "training={algorithm: bc, gradient_steps: 40, steps_per_iteration: 20}",
        ],
    )
    job = new_job(config)
    train_and_judge(job)
    losses = [row["policy_loss"] for row in job.run.metrics()]
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_the_gate_finds_the_two_modes_of_the_planted_market(tmp_path, ray_session):
    steps = 100_000
    overrides = [f"results_dir={tmp_path}", f"training.total_env_steps={steps}", "split.test=[2068-01-01, 2072-12-30]"]
    rate = f"training.learning_rate=[[0, 1.0e-3], [{steps}, 1.0e-4]]"
    config = load_config(REPOSITORY / "tune_configs" / "planted_two_mode.yaml", [*overrides, rate])
    tape, run = prepare_market(config).tape, RunDirectory.create(config)
    train(config, tape, run)
    track = backtest(config, tape, Policy.load(run.checkpoint("last") / "policy"), *config.split.test)
    first, last = tape.row_range(*map(str, config.split.test))
    ahead = make_market(config.data).states[first + 1 : last + 1]
    acted = track.gate.argmax(-1) == MODES.index("aggressive")
    assert acted[ahead == TREND].mean() > 0.6 > 0.4 > acted[ahead == CHOP].mean()
