"""The GNN on its whole way: bound to a market's training rows, trained, exported, carried to other assets."""

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from envs import make
from envs.errors import ConfigError
from rlplatform.experiments.collecting import CollectConfig, collect_dataset
from rlplatform.experiments.config import load_config
from rlplatform.experiments.evaluating import evaluate_run
from rlplatform.experiments.experiment import new_job, train_and_judge
from rlplatform.experiments.judging import backtest
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.experiments.trainers import bound_model
from rlplatform.experiments.training import train
from rlplatform.models.heads import head_for
from rlplatform.models.layout import ObservationLayout
from rlplatform.models.policy import Policy
from rlplatform.models.transfer import for_assets

MARKET = """\
name: small
data: {{source: synthetic, market: lead_lag, bars: 1200, parameters: {{assets: {assets}, sectors: 2}}}}
split: {{train: [2000-06-01, 2002-12-31], validation: [2003-01-01, 2003-06-30], test: [2003-07-01, 2004-06-30]}}
features: {{groups: [returns], return_windows: [1]}}
env: {{id: {env}, costs: {{proportional_bps: 2}}, episode: {{length_bars: 60}}}}
"""
MODEL = "model: {kind: gnn, hidden_size: 8, neighbours: 2, max_seq_len: 16}\n"
SETTINGS = """\
training: {{total_env_steps: 1024, num_envs_per_env_runner: 16, rollout_length: 32, minibatch_size: 256, num_epochs: 2}}
evaluation: {{interval_iterations: 2, bootstrap: {{resamples: 200}}}}
results_dir: {results}
"""


def small(tmp_path, *overrides, assets=6, env="Portfolio-v0"):
    path = tmp_path / "small.yaml"
    path.write_text(
        MARKET.format(assets=assets, env=env) + MODEL + SETTINGS.format(results=tmp_path / "results"), encoding="utf-8"
    )
    return load_config(path, overrides)


def test_the_graph_is_the_planted_one_and_no_row_after_training_has_a_part_in_it(tmp_path):
    config = small(tmp_path)
    tape = prepare_market(config).tape
    model = bound_model(config, tape)
    assert {"*.log_return_1", "weight_*"} < set(model.layout.asset_entries)
    assert {(to, source) for to, source, _ in model.edges} == {
        (i, j) for i in range(6) for j in range(6) if i != j and i % 2 == j % 2
    }
    gross = tape.gross.copy()
    last = tape.row_range(None, str(config.split.train[1]))[1]
    gross[last + 1 :] *= np.random.default_rng(0).uniform(0.9, 1.1, gross[last + 1 :].shape)
    assert bound_model(config, dataclasses.replace(tape, gross=gross)).edges == model.edges
    gross[last] *= np.linspace(0.8, 1.2, 6)
    assert bound_model(config, dataclasses.replace(tape, gross=gross)).edges != model.edges


def test_the_graph_does_not_see_days_that_a_combinatorial_fold_leaves_out(tmp_path):
    gap = ["split.validation=null", "split.test=[2001-04-02, 2001-06-29]", "split.left_out=[[2001-04-02, 2001-06-29]]"]
    config = small(tmp_path, *gap)
    tape = prepare_market(config).tape
    gross, (first, end) = tape.gross.copy(), tape.row_range("2001-04-02", "2001-06-29")
    gross[first:end] *= np.random.default_rng(0).uniform(0.9, 1.1, gross[first:end].shape)
    assert bound_model(config, dataclasses.replace(tape, gross=gross)).edges == bound_model(config, tape).edges


def test_a_trained_gnn_is_saved_and_carried_to_8_assets(tmp_path, ray_session):
    config = small(tmp_path, "model.memory=gru")
    run = RunDirectory.create(config)
    train(config, prepare_market(config).tape, run)
    policy, config = Policy.load(run.checkpoint("last") / "policy"), small(tmp_path, "model.memory=gru", assets=8)
    assert policy.normalizer.groups == policy.config.layout.groups
    market = prepare_market(config)
    env = make(config.env, market.tape)
    layout = ObservationLayout(market.tape.symbols, env.task.observation_names)
    end = market.tape.row_range(None, str(config.split.train[1]))[1]
    carried = for_assets(policy, layout, head_for(env.action_space), market.tape.gross[:end] - 1)
    track = backtest(config, market.tape, carried, *config.split.test)
    assert track.weights.shape[1] == 8
    assert np.isfinite(track.wealth).all()
    obs = np.random.default_rng(0).normal(size=(4, len(layout.names))).astype(np.float32)
    again = Policy.load(carried.save(tmp_path / "carried"))
    assert_array_equal(again.act(obs, again.initial_state(4))[0], carried.act(obs, carried.initial_state(4))[0])


def test_evaluate_takes_a_gnn_to_other_assets_and_refuses_to_take_another_model(tmp_path, ray_session):
    bundled = {"source": "bundled", "dataset": "sp500", "symbols": ["AAPL", "AMD", "BAC", "BBY"]}
    days = "{train: [1991-01-02, 1993-12-31], test: [1994-01-03, 1994-12-30]}"
    jobs = {}
    for kind, model in (("gnn", "{kind: gnn, hidden_size: 8, graph: full}"), ("mlp", "{kind: mlp, layers: [8]}")):
        jobs[kind] = new_job(small(tmp_path, f"data={bundled}", f"split={days}", f"model={model}", f"name={kind}"))
        train_and_judge(jobs[kind])
    run = jobs["gnn"].run
    verdict = evaluate_run(run, symbols=("CVX", "GE", "HD", "JNJ", "JPM", "KO"))
    assert verdict.policy.weights.shape[1] == 6
    assert verdict.sentence.startswith("Out of sample, 1994-01-03 to 1994-12-30, PPO_GNN")
    assert np.isfinite(verdict.policy.wealth).all()
    shuffled = evaluate_run(run, symbols=("AMD", "AAPL", "BBY", "BAC"))  # its own assets in another order
    assert_allclose(shuffled.policy.wealth, evaluate_run(run).policy.wealth, rtol=1e-5)
    with pytest.raises(ConfigError, match="knows its own assets only; expected gnn"):
        evaluate_run(jobs["mlp"].run, symbols=("CVX", "GE"))


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["none", "gru"])
def test_stock_rllib_and_the_fast_path_start_from_the_same_gnn(tmp_path, memory, ray_session):
    for fast in ("true", "false"):
        job = new_job(small(tmp_path, f"model.memory={memory}", f"training.fast={fast}"))
        train_and_judge(job)
        assert job.run.manifest()["status"] == "finished"
        assert Policy.load(job.run.policy).normalizer.groups is not None


@pytest.fixture(scope="module")
def weights_dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    collect_dataset(small(folder), CollectConfig(policy="momentum+noise:0.4", episodes=8), folder / "set")
    return folder / "set"


def logged(tmp_path, dataset, algorithm, memory):
    training = f"training: {{algorithm: {algorithm}, gradient_steps: 8, steps_per_iteration: 4, batch_size: 128}}\n"
    rest = "evaluation: {interval_iterations: 1, bootstrap: {resamples: 200}}\n"
    text = f"name: logged\ndataset: {{paths: [{dataset}]}}\nresults_dir: {tmp_path}\n" + MODEL + training + rest
    (tmp_path / "logged.yaml").write_text(text, encoding="utf-8")
    return load_config(tmp_path / "logged.yaml", [f"model.memory={memory}"])


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["none", "gru"])
@pytest.mark.parametrize("algorithm", ["bc", "marwil"])
def test_logged_weights_train_a_gnn(tmp_path, weights_dataset, algorithm, memory, ray_session):
    job = new_job(logged(tmp_path, weights_dataset, algorithm, memory))
    verdict = train_and_judge(job)
    assert verdict.policy.name == f"{algorithm.upper()}_GNN"
    policy = Policy.load(job.run.policy)
    assert_allclose(policy.normalizer.centre[0], policy.normalizer.centre[1 * len(("log_return_1",))], atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["cql", "iql"])
def test_action_values_of_a_gnn_come_from_logged_weights(tmp_path, weights_dataset, algorithm, ray_session):
    job = new_job(logged(tmp_path, weights_dataset, algorithm, "none"))
    assert train_and_judge(job).policy.name == f"{algorithm.upper()}_GNN"
    assert Policy.load(job.run.policy).normalizer.groups is not None


@pytest.mark.parametrize("algorithm", ["cql", "iql"])
def test_cql_and_iql_refuse_a_gnn_with_memory_before_there_is_a_run(tmp_path, weights_dataset, algorithm, ray_session):
    with pytest.raises(ConfigError, match=r"model.kind = 'gnn' has memory. Use mlp, or gnn with model.memory: none"):
        new_job(logged(tmp_path, weights_dataset, algorithm, "gru"))
    assert not list(tmp_path.glob("logged-*"))


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["none", "gru"])
def test_a_gnn_chooses_among_numbered_regimes_online_and_from_logged_actions(tmp_path, memory, ray_session):
    config = small(tmp_path, f"model.memory={memory}", "data.parameters={assets: 3, sectors: 1}", env="MultiAssetRegime-v0")
    job = new_job(config)
    assert train_and_judge(job).policy.name == "PPO_GNN"
    collect_dataset(config, CollectConfig(policy="uniform", episodes=8), tmp_path / "set")
    job = new_job(logged(tmp_path, tmp_path / "set", "discrete_cql", memory))
    assert train_and_judge(job).policy.name == "DISCRETE_CQL_GNN"
