"""Who chooses the best checkpoint, when looking for a better one is over, and that held-out episodes do it well."""

import dataclasses
import logging
import math

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from ray.rllib.core.columns import Columns

from envs.errors import ConfigError
from rlplatform.data import make_market
from rlplatform.experiments.collecting import CollectConfig, collect_dataset
from rlplatform.experiments.config import load_config
from rlplatform.experiments.experiment import new_job
from rlplatform.experiments.judging import backtest
from rlplatform.experiments.selection import FEWEST, HeldOutJudge, off_policy_judge
from rlplatform.experiments.standing import VALIDATION, Standing
from rlplatform.experiments.trainers import make_trainer
from rlplatform.experiments.training import ends_early, judged_checkpoint, train
from rlplatform.models.policy import Policy
from rlplatform.offline.held_out import HoldOut
from rlplatform.offline.manifest import read_manifest
from rlplatform.offline.reading import read_dataset

MARKET = """\
name: {name}
seed: 0
data: {{source: synthetic, market: momentum, bars: 12000}}
features: {{groups: [returns], return_windows: [1]}}
split: {{train: [2000-06-01, 2020-12-31], test: [2021-01-04, 2045-06-30]}}
env:
  id: Portfolio-v0
  costs: {{proportional_bps: 0}}
  reward: {{excess_log_growth: 1.0}}
  observe_forecasts: false
  episode: {{length_bars: 60}}
evaluation: {{interval_iterations: 1, bootstrap: {{resamples: 200}}}}
results_dir: {results}
"""
OFFLINE = """
name: chosen
dataset: {{paths: [{dataset}]}}
model: {{kind: mlp, layers: [64, 64]}}
training: {{algorithm: marwil, gamma: 0.0, batch_size: 512, gradient_steps: 400, steps_per_iteration: 100}}
evaluation: {{interval_iterations: 1, select_by: wis, bootstrap: {{resamples: 200}}}}
results_dir: {results}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("selection")


@pytest.fixture(scope="module")
def dataset(folder):
    """Sixty episodes of random trades on a market whose optimum is known; no validation period."""
    path = folder / "market.yaml"
    path.write_text(MARKET.format(name="market", results=folder / "results"), encoding="utf-8")
    collect_dataset(load_config(path), CollectConfig(policy="uniform", episodes=60), folder / "set")
    return folder / "set"


@pytest.fixture(scope="module")
def offline_yaml(folder, dataset):
    path = folder / "chosen.yaml"
    path.write_text(OFFLINE.format(dataset=dataset, results=folder / "results"), encoding="utf-8")
    return path


def scored(standing, iteration, **scores):
    standing.iteration = iteration
    return standing.remember(scores)


def test_the_best_is_remembered_and_looks_without_a_better_one_are_counted():
    standing = Standing()
    assert [scored(standing, i, validation=score) for i, score in enumerate([1.0, 0.5, math.nan, 1.5, 1.5], 1)] == [
        True, False, False, True, False,
    ]  # fmt: skip
    assert (standing.best_score, standing.best_iteration, standing.best_by) == (1.5, 4, VALIDATION)
    assert standing.looks_since_best == 1


def test_a_look_that_nobody_can_judge_is_no_reason_to_stop():
    standing = Standing()
    for iteration in range(1, 9):
        assert not scored(standing, iteration, wis=math.nan)
    assert (standing.looks_since_best, standing.best_iteration) == (0, None)


def test_validation_stands_in_until_the_estimate_is_believed_and_the_two_are_never_compared():
    standing = Standing()
    assert scored(standing, 1, validation=2.0, wis=math.nan)
    assert scored(standing, 2, validation=0.1, wis=0.3)  # the first estimate that is believed
    assert standing.best_by == "wis"
    assert not scored(standing, 3, validation=9.0, wis=math.nan)
    assert not scored(standing, 4, validation=9.0, wis=0.2)
    assert scored(standing, 5, validation=0.0, wis=0.4)
    assert (standing.best_score, standing.best_iteration) == (0.4, 5)


def test_a_run_of_an_earlier_version_was_chosen_by_validation():
    standing = Standing(best_score=1.0, best_iteration=3, iteration=3)
    assert not scored(standing, 4, validation=0.5)
    assert scored(standing, 5, validation=1.1)


def test_patience_ends_a_training_that_finds_nothing_better(small_yaml):
    config = load_config(small_yaml, ["evaluation.patience=2"])
    assert not ends_early(config, Standing(looks_since_best=1))
    assert ends_early(config, Standing(looks_since_best=2))
    assert not ends_early(load_config(small_yaml), Standing(looks_since_best=99))


def test_auto_takes_the_validation_period_where_there_is_one(offline_yaml, small_yaml):
    judge = {
        name: off_policy_judge(load_config(offline_yaml, [f"evaluation.select_by={name}", *extra]))
        for name, extra in {"auto": [], "validation": [], "dr": []}.items()
    }
    assert judge == {"auto": None, "validation": None, "dr": "dr"}  # 12 of 60 episodes cannot be 30
    much = ["evaluation.select_by=auto", "evaluation.held_out=0.6"]
    assert off_policy_judge(load_config(offline_yaml, [*much, "evaluation.policy=last"])) is None
    assert off_policy_judge(load_config(offline_yaml, ["evaluation.select_by=auto", "evaluation.held_out=0.999"])) is None
    assert off_policy_judge(load_config(small_yaml)) is None


def test_auto_estimates_where_there_is_no_validation_period_and_enough_is_logged(offline_yaml, dataset, tmp_path):
    config = load_config(offline_yaml, ["evaluation.select_by=auto"])
    twice = dataclasses.replace(config.dataset, paths=(*config.dataset.paths,) * 6)
    assert off_policy_judge(dataclasses.replace(config, dataset=twice)) == "wis"  # 72 of 360


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluation.held_out=1", "expected a share in"),
        ("evaluation.patience=0", "expected at least 1 look"),
        ("evaluation.select_by=fqe", "select_by = 'fqe'; expected one of"),
    ],
)
def test_a_setting_without_meaning_is_refused(offline_yaml, override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(offline_yaml, [override])


def test_logged_episodes_judge_no_online_training(small_yaml):
    with pytest.raises(ConfigError, match=r"training\.algorithm = ppo has none\. Use validation"):
        load_config(small_yaml, ["evaluation.select_by=wis"])


def test_what_has_no_probabilities_cannot_judge(folder, offline_yaml, tmp_path):
    collect_dataset(load_config(folder / "market.yaml"), CollectConfig(policy="momentum", episodes=2), tmp_path / "certain")
    overrides = [f"dataset.paths=[{tmp_path / 'certain'}]", f"results_dir={tmp_path / 'none'}"]
    with pytest.raises(ConfigError, match=r"divides by the behaviour's probabilities; .* has none"):
        new_job(load_config(offline_yaml, overrides))


@pytest.mark.parametrize("in_memory", [True, False])
def test_held_out_episodes_are_in_no_minibatch(offline_yaml, dataset, in_memory, ray_session):
    overrides = [f"dataset.in_memory={str(in_memory).lower()}", "dataset.buffer_rows=1000"]
    config = load_config(offline_yaml, overrides)
    trainer = make_trainer(config, new_tape(config), 0)
    source = trainer.algorithm.offline_data.sample(512)[0].open()
    episodes = read_dataset(dataset)[0]
    learnt, judged = HoldOut.of([read_manifest(dataset)], 0.2, config.seed).split(episodes)
    drawn, number = set(), 0
    while source.turn_to(number)[0] == 0:
        batch = source.columns(source.rows(number), (Columns.OBS, Columns.ACTIONS))
        drawn |= {action.tobytes() for action in batch[Columns.ACTIONS].numpy()}
        number += 1
    trainer.algorithm.stop()
    assert drawn == {action.tobytes() for action in episodes.select(learnt).actions}
    assert_array_equal(trainer.judge.held_out.actions, episodes.select(judged).actions)
    assert not drawn & {action.tobytes() for action in trainer.judge.held_out.actions}
    assert trainer.algorithm.offline_data.normalizer.count == episodes.select(learnt).num_rows


def new_tape(config):
    from rlplatform.experiments.market import prepare_market

    return prepare_market(config).tape


def test_an_estimate_of_few_effective_episodes_chooses_nothing_and_says_so_once(offline_yaml, dataset):
    """A policy that always does what uniform trades hardly ever do."""
    config, told = load_config(offline_yaml), []
    episodes = read_dataset(dataset)[0].select(np.arange(3))
    policy = untrained(config, episodes)
    judge = HeldOutJudge("wis", episodes, config, told.append)
    rows = [{"iteration": 7}, {"iteration": 8}]
    sizes = [judge.score(policy, row) for row in rows]
    assert rows[0]["held_out_effective"] > FEWEST  # an untrained policy is not far from uniform
    assert all(map(math.isfinite, sizes))
    with np.errstate(all="ignore"):
        policy.actor_critic.policy.bias.data[:] += 40.0
    assert math.isnan(judge.score(policy, rows[0]))
    assert math.isnan(judge.score(policy, rows[1]))
    assert rows[1]["held_out_effective"] < FEWEST
    (line,) = told
    assert "effective pieces of 3 held-out episodes at iteration 7; below 30 it chooses no checkpoint" in line
    assert "the last weights are judged" in line


def untrained(config, episodes):
    import torch

    from envs.spaces import Simplex
    from rlplatform.models.actor_critic import ActorCritic
    from rlplatform.models.heads import head_for

    torch.manual_seed(0)
    return Policy(ActorCritic(config.model, episodes.obs.shape[1], head_for(Simplex(2))), None, "Portfolio-v0")


def growth(config, policy):
    """Realised log growth on the test rows, as a share of the known optimum's."""
    tape = new_tape(config)
    track = backtest(config, tape, policy, *config.split.test)
    first, last = tape.row_range(*map(str, config.split.test))
    return float(np.log(track.wealth[-1]) / make_market(config.data).realised_log_growth()[first:last].sum())


@pytest.mark.slow
def test_held_out_episodes_choose_a_checkpoint_no_worse_than_the_last_by_truth(offline_yaml, ray_session, caplog):
    """Measured: the second look, 0.82 of the optimum; the last of fourteen has 0.73, for it has learnt the noise."""
    overrides = ["training.gradient_steps=1500", "dataset.in_memory=false", "evaluation.patience=12"]
    job = new_job(load_config(offline_yaml, overrides))
    with caplog.at_level(logging.WARNING):
        standing = train(job.config, job.market.tape, job.run)
    rows = job.run.metrics()
    assert (judged_checkpoint(job.config, standing), standing.best_by) == ("best", "wis")
    best = max(rows, key=lambda row: row["held_out_wis"])["iteration"]
    assert standing.best_iteration == best < standing.iteration == min(15, best + 12)
    chosen, last = (growth(job.config, Policy.load(job.run.checkpoint(which) / "policy")) for which in ("best", "last"))
    assert chosen > last + 0.02
    assert chosen > 0.75
    assert f"no better checkpoint in 12 looks: ended after iteration {standing.iteration}" in caplog.text
    assert "read from its files while it is learnt from" in caplog.text
    # Taken up again it is over, and stays so.
    assert train(job.config, job.market.tape, job.run, resume=True) == standing
