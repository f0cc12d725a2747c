"""`training.algorithm: differentiable` as a user runs it: the same run directory, resume and judging as every training."""

from pathlib import Path

import numpy as np
import pytest
import ray

from rlplatform.data import make_market
from rlplatform.experiments.config import load_config
from rlplatform.experiments.experiment import new_job, resumed_job, train_and_judge
from rlplatform.experiments.judging import backtest
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.experiments.training import judged_checkpoint, train
from rlplatform.models.policy import Policy

CONFIGS = Path(__file__).parents[2] / "tune_configs"
SMALL = """\
name: small
seed: 3
data: {source: synthetic, market: pair, bars: 900}
split:
  train: [2000-06-01, 2002-06-30]
  validation: [2002-07-01, 2002-12-31]
  test: [2003-01-01, 2003-12-31]
env: {id: PairLeverage-v0, costs: {proportional_bps: 2}, episode: {length_bars: 60}}
model: {kind: gru, embedding_size: 16, hidden_size: 16, max_seq_len: 16}
training: {algorithm: differentiable, total_env_steps: 2048, window: 16, num_envs: 16, updates_per_iteration: 2, block_bars: 20}
evaluation: {interval_iterations: 2, bootstrap: {resamples: 100}}
"""


@pytest.fixture
def small(tmp_path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(f"{SMALL}results_dir: {tmp_path / 'results'}\n", encoding="utf-8")
    return path


def rows_of(run: RunDirectory) -> list[dict]:
    return [{name: value for name, value in row.items() if "second" not in name} for row in run.metrics()]


def test_a_run_resumes_to_the_bit_is_judged_and_needs_no_ray(small):
    had_ray = ray.is_initialized()
    whole = new_job(load_config(small))
    train(whole.config, whole.market.tape, whole.run)
    half = new_job(load_config(small, ["name=half", "training.total_env_steps=1024"]))
    train(half.config, half.market.tape, half.run)
    half.run.write_manifest({"tape_sha256": half.market.tape.sha256})
    job = resumed_job(half.run.path, ["training.total_env_steps=2048"])
    verdict = train_and_judge(job)
    assert ray.is_initialized() == had_ray
    assert rows_of(job.run) == rows_of(whole.run)
    row = job.run.metrics()[-1]
    assert (row["iteration"], row["env_steps"]) == (4, 2048)
    assert {
        "policy_loss",
        "gradient_norm",
        "learning_rate",
        "turnover",
        "episode_return_mean",
        "validation_sharpe",
    } <= row.keys()
    names = {path.name for path in job.run.checkpoint("last").iterdir()}
    assert names == {"learner", "policy", "standing.json", "checksums.json"}
    assert verdict.policy.name == "DIFFERENTIABLE_GRU"
    manifest = job.run.manifest()
    assert manifest["env_steps"] == 2048
    assert manifest["estimated_flops"] == 2 * manifest["parameters"] * 3 * 2048


def test_numbered_actions_are_refused_before_a_run_directory_is_made(typed, tmp_path):
    code, _, err = typed(
        "train", CONFIGS / "planted_regimes.yaml", "training={algorithm: differentiable}", f"results_dir={tmp_path}"
    )
    assert code == 2
    assert "chooses one of 16 numbered actions" in err
    assert len(err.strip().splitlines()) <= 2
    assert not list(tmp_path.iterdir())


def test_a_key_of_another_algorithm_is_refused_by_name(typed, tmp_path):
    code, _, err = typed("train", CONFIGS / "differentiable_momentum.yaml", "training.gamma=0.9", f"results_dir={tmp_path}")
    assert (code, "unknown key training.gamma" in err) == (2, True)


def share_of_optimum(name: str, tmp_path, *overrides: str) -> float:
    """Realised log growth on unseen rows, as a share of what the known optimum made of the same rows."""
    config = load_config(CONFIGS / f"{name}.yaml", [f"results_dir={tmp_path}", *overrides])
    tape, run = prepare_market(config).tape, RunDirectory.create(config)
    standing = train(config, tape, run)
    track = backtest(
        config, tape, Policy.load(run.checkpoint(judged_checkpoint(config, standing)) / "policy"), *config.split.test
    )
    first, last = tape.row_range(*map(str, config.split.test))
    return float(np.log(track.wealth[-1]) / make_market(config.data).realised_log_growth()[first:last].sum())


def test_the_planted_momentum_is_learnt_in_seconds(tmp_path):
    """Few bars of history, an MLP, a policy that does not see its account."""
    shorter = [
        "data.bars=12000",
        "split.train=[2000-06-01, 2035-12-30]",
        "split.validation=null",
        "split.test=[2036-01-01, 2045-12-30]",
    ]
    small = ["model={kind: mlp, layers: [32]}", "training.account=hidden", "training.learning_rate=0.01"]
    assert share_of_optimum("differentiable_momentum", tmp_path, *shorter, *small, "training.total_env_steps=65000") >= 0.85


@pytest.mark.slow
@pytest.mark.parametrize(("name", "share"), [("differentiable_momentum", 0.93), ("differentiable_pair", 0.85)])
def test_a_gru_reaches_a_stated_share_of_the_known_optimum(name, share, tmp_path):
    fewer_looks = "evaluation.interval_iterations=10"
    assert share_of_optimum(name, tmp_path, "training.account=hidden", fewer_looks) >= share
