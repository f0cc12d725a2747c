"""A market where relations matter: the GNN uses them, with fewer env steps than models that read all assets as one row."""

from dataclasses import replace

import numpy as np
import pytest

from envs import make
from rlplatform.data import make_market
from rlplatform.data.log_optimal import Forecast, log_optimal_weights
from rlplatform.experiments.ablation_config import load_ablation
from rlplatform.experiments.config import ExperimentConfig, load_config
from rlplatform.experiments.judging import backtest
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.experiments.training import judged_checkpoint, train
from rlplatform.models.heads import head_for
from rlplatform.models.layout import ObservationLayout
from rlplatform.models.policy import Policy
from rlplatform.models.transfer import for_assets
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow


def config_of(tmp_path, *overrides) -> ExperimentConfig:
    return load_config(REPOSITORY / "tune_configs" / "planted_lead_lag.yaml", [f"results_dir={tmp_path}", *overrides])


def trained(config) -> Policy:
    run = RunDirectory.create(config)
    standing = train(config, prepare_market(config).tape, run)
    return Policy.load(run.checkpoint(judged_checkpoint(config, standing)) / "policy")


def share_of_optimum(config, policy) -> float:
    """Log growth on the test period, as a share of the log-optimal policy's that knows the law."""
    tape, market = prepare_market(config).tape, make_market(config.data)
    rows = slice(*tape.row_range(*map(str, config.split.test)))
    forecast = market.forecast
    known = Forecast(returns=forecast.returns[rows], probability=forecast.probability)
    weights = log_optimal_weights(known, market.caps)[:-1]
    optimum = np.log1p((weights * (tape.gross[rows][1:] - 1)).sum(-1)).sum()
    return float(np.log(backtest(config, tape, policy, *config.split.test).wealth[-1]) / optimum)


def on_other_assets(policy, config) -> Policy:
    tape = prepare_market(config).tape
    env = make(config.env, tape)
    past = tape.gross[: tape.row_range(None, str(config.split.train[1]))[1]] - 1
    return for_assets(policy, ObservationLayout(tape.symbols, env.task.observation_names), head_for(env.action_space), past)


def test_a_gnn_uses_relations_and_takes_them_along_to_30_assets(tmp_path, ray_session):
    config = config_of(tmp_path)
    policy = trained(config)
    assert share_of_optimum(config, policy) >= 0.82
    more = replace(config, data=replace(config.data, seed=7, parameters={"assets": 30, "sectors": 10}))
    assert share_of_optimum(more, on_other_assets(policy, more)) >= 0.75


def test_an_mlp_has_learnt_less_after_as_many_env_steps(tmp_path, ray_session):
    config = config_of(tmp_path, "model.kind=mlp")
    assert share_of_optimum(config, trained(config)) <= 0.80


@pytest.mark.nightly
@pytest.mark.parametrize(("arm", "least"), [("tqc_gnn", 0.94), ("differentiable_gnn", 0.94)])
def test_replay_and_gradients_bring_a_gnn_nearer_to_the_optimum_than_ppo_comes(tmp_path, ray_session, arm, least):
    """PPO's GNN reaches 0.89 in 200k env steps; these are the file's own arms, 0.97 to 0.99 over three seeds."""
    path = REPOSITORY / "tune_configs" / "planted_lead_lag.yaml"
    config = load_ablation(path, [f"results_dir={tmp_path}"]).config_for(arm, 0)
    assert share_of_optimum(config, trained(config)) >= least
