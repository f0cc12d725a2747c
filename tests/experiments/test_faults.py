"""Faults: processes killed and a loss that is no number; what is lost is the work since the last checkpoint, no more.

Elsewhere: disk full (test_training.py, test_checkpoints.py), newest checkpoint damaged (test_training.py,
test_checkpoints.py), W&B unreachable, hanging or killed (test_tracking.py), driver of a sweep killed (test_sweep.py), a
node killed under a job (test_jobs.py).
"""

import contextlib
import dataclasses
import json
import math
import os
import signal
import sys
import time
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from safetensors.numpy import load_file

from rlplatform.algorithms import vector_learner
from rlplatform.experiments import training
from rlplatform.experiments.checkpoints import defect
from rlplatform.experiments.config import load_config
from rlplatform.experiments.experiment import new_job, resumed_job, train_and_judge
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.experiments.standing import Standing
from rlplatform.experiments.sweep_directory import FAILED, FINISHED
from rlplatform.experiments.trainers import ProcessLostError, TrainingDivergedError
from rlplatform.experiments.tune_session import ATTEMPTS
from rlplatform.models.policy import Policy
from tests.cluster import Node
from tests.conftest import REPOSITORY
from tests.experiments.test_training import without_timing

pytestmark = pytest.mark.slow


@pytest.fixture
def job(small_yaml, tmp_path, ray_session):
    """Makes the small run, with some settings replaced, in a directory of its own."""

    def job(*overrides):
        config = load_config(small_yaml, overrides)
        return new_job(dataclasses.replace(config, results_dir=str(tmp_path / "results")))

    return job


@pytest.fixture
def trainers(monkeypatch):
    """Every trainer that is made, so that a test can reach its processes."""
    made, make = [], training.make_trainer

    def remembered(*arguments, **named):
        made.append(make(*arguments, **named))
        return made[-1]

    monkeypatch.setattr(training, "make_trainer", remembered)
    return made


def runners(trainer):
    """Process ids by worker index."""
    answers = trainer.algorithm.env_runner_group.foreach_env_runner(
        lambda runner: (runner.worker_index, os.getpid()), local_env_runner=False, timeout_seconds=10
    )
    return dict(answers)


@pytest.mark.parametrize("count", [1, 2])
def test_a_killed_runner_is_replaced_while_the_training_goes_on(job, trainers, count):
    """By SIGKILL of its process; where it was the only one the training waits for the new one."""
    job, seen = job(f"training.num_env_runners={count}", "training.total_env_steps=1000000"), []

    def look(row):
        seen.append(runners(trainers[0]))
        if row["iteration"] == 2:
            os.kill(seen[0][1], signal.SIGKILL)
        if len(seen) > 2 and len(seen[-1]) == count and seen[-1] != seen[0]:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(training.TrainingInterrupted):
        training.train(job.config, job.market.tape, job.run, look)
    assert seen[-1].keys() == seen[0].keys()
    assert [index for index in seen[0] if seen[-1][index] != seen[0][index]] == [1]
    rows = job.run.metrics()
    assert [row["iteration"] for row in rows] == list(range(1, len(rows) + 1))
    gained = [after["env_steps"] - before["env_steps"] for before, after in pairwise(rows)]
    assert min(gained) >= 512  # no iteration without experience
    assert all(row["policy_loss"] is not None for row in rows)


def test_where_no_runner_comes_back_the_training_ends_and_says_how_to_go_on(job, trainers, monkeypatch):
    monkeypatch.setattr(training, "PATIENCE_S", 0.0)
    job = job("training.num_env_runners=1", "training.total_env_steps=4000")

    def kill(row):
        if row["iteration"] == 3:
            os.kill(runners(trainers[0])[1], signal.SIGKILL)

    with pytest.raises(
        ProcessLostError, match=r"no env runner .* after iteration 3; .* iteration 2: rlplatform train --resume"
    ):
        train_and_judge(job, kill)
    assert job.run.manifest()["status"] == "failed"


def test_a_killed_learner_ends_the_training_which_goes_on_from_its_checkpoint(job, trainers):
    job = job("training.num_learners=1")

    def kill(row):
        if row["iteration"] == 3:
            (pid,) = [result.get() for result in trainers[0].algorithm.learner_group.foreach_learner(lambda _: os.getpid())]
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(ProcessLostError, match=r"a process died .* iteration 3; .* iteration 2: rlplatform train --resume"):
        train_and_judge(job, kill)
    assert job.run.manifest()["status"] == "failed"
    train_and_judge(resumed_job(job.run.path))
    assert job.run.manifest()["status"] == "finished"
    assert [row["env_steps"] for row in job.run.metrics()] == [512, 1024, 1536, 2048]


def test_a_loss_that_is_no_number_ends_the_training_before_a_checkpoint_holds_it(job, monkeypatch):
    """In iteration 4, which would write a checkpoint; the one of iteration 2 stays, and from it the run goes on."""
    job, advantages, batches = job(), vector_learner.standardised, []

    def spoiled(*arguments):
        batches.append(1)
        return advantages(*arguments) * (math.nan if len(batches) == 4 else 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(vector_learner, "standardised", spoiled)
        with pytest.raises(TrainingDivergedError, match="policy_loss is not finite at iteration 4"):
            train_and_judge(job)
    last = job.run.checkpoint("last")
    assert (defect(last), Standing.of(job.run).iteration) == (None, 2)
    assert all(weights.isfinite().all() for weights in Policy.load(last / "policy").actor_critic.state_dict().values())
    train_and_judge(resumed_job(job.run.path))
    assert [row["env_steps"] for row in job.run.metrics()] == [512, 1024, 1536, 2048]
    assert job.run.manifest()["status"] == "finished"


KILLED = """
import json, os, signal, sys
from pathlib import Path
from rlplatform.experiments.config import load_config
from rlplatform.experiments.experiment import new_job, train_and_judge

def kill(row):
    if row["iteration"] == 3:
        os.kill(os.getpid(), signal.SIGKILL)

def killed(overrides):
    child = os.fork()
    if child == 0:
        train_and_judge(new_job(load_config(Path(sys.argv[1]), overrides)), kill)
    return os.waitpid(child, 0)[1] == signal.SIGKILL

sys.exit(not all(killed(overrides) for overrides in json.loads(sys.argv[2])))
"""
WORLDS = {  # what is trained, beside the small run's one momentum asset and GRU
    "portfolio": [],
    "regime": [
        "data.market=regimes",
        "env={id: MultiAssetRegime-v0, episode: {length_bars: 60}, guards: {regime: {}, kill_switch: {}}}",
        "model={kind: mlp}",
    ],
    "pair": ["data.market=pair", "env={id: PairLeverage-v0, episode: {length_bars: 60}, shutdown: {}}"],
    "remote": ["training.num_env_runners=1", "training.num_learners=1"],
}


@pytest.fixture(scope="module")
def killed_runs(small_yaml, tmp_path_factory):
    """Every world's run after SIGKILL of its driver in iteration 3, with the processes that Ray had started for it."""
    folder = tmp_path_factory.mktemp("killed")
    worlds = [[*overrides, f"results_dir={folder / world}"] for world, overrides in WORLDS.items()]
    (folder / "worlds.json").write_text(json.dumps(worlds), encoding="utf-8")
    (folder / "killed.py").write_text(KILLED, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "RAY_raylet_start_wait_time_s": "120"}
    node = Node(f'{sys.executable} {folder}/killed.py {small_yaml} "$(cat {folder}/worlds.json)"', environment, folder / "log")
    node.start()
    try:
        assert node.process.wait(timeout=240) == 0, node.log.read_text()
    finally:
        node.kill()  # Ray's processes too, as the machine's end would
    return {world: RunDirectory.open(next((folder / world).iterdir())) for world in WORLDS}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("world", WORLDS)
def test_a_killed_driver_loses_nothing_for_the_resumed_run_ends_as_the_uninterrupted_one(world, killed_runs, job):
    """To the bit, from the checkpoint of iteration 2 on."""
    run, whole = killed_runs[world], job(*WORLDS[world])
    assert run.manifest()["status"] == "running"
    assert (Standing.of(run).iteration, len(run.metrics())) == (2, 3)
    resumed = resumed_job(run.path)
    training.train(resumed.config, resumed.market.tape, run, resume=True)
    training.train(whole.config, whole.market.tape, whole.run)
    assert without_timing(run.metrics()) == without_timing(whole.run.metrics())
    ours, theirs = (each.checkpoint("last") for each in (run, whole.run))
    assert (ours / "policy/policy.safetensors").read_bytes() == (theirs / "policy/policy.safetensors").read_bytes()
    ours, theirs = (load_file(each / "sampling.safetensors") for each in (ours, theirs))
    for name in ours.keys() & theirs.keys():  # contributors to the statistics have random names
        assert_array_equal(ours[name], theirs[name], err_msg=name)


GRID = """\
search:
  parameters: {env.reward.turnover: {grid: [0.0, 0.3]}}
"""


@pytest.mark.nightly
def test_a_trial_whose_process_is_killed_every_time_is_a_failed_row_and_the_sweep_goes_on(small_yaml, tmp_path):
    """As the kernel does when memory ends. The sweep runs by its command, with a mark in all of its processes."""
    config = tmp_path / "sweep.yaml"
    text = small_yaml.read_text().replace(str(small_yaml.parent / "results"), str(tmp_path / "results"))
    config.write_text(text.replace("total_env_steps: 2000", "total_env_steps: 1000") + GRID, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    node = Node(f"{sys.executable} -m rlplatform sweep {config}", environment, tmp_path / "log")
    node.start()
    killed = set()
    try:
        deadline = time.monotonic() + 120
        while node.process.poll() is None and time.monotonic() < deadline:
            if not list(tmp_path.glob("results/*/trials/0001")):  # so it is the first one that trains
                killed |= kill_trials(node)
            time.sleep(0.2)
    finally:
        node.kill()
    assert node.process.returncode == 0, node.log.read_text()
    assert len(killed) == ATTEMPTS
    (path,) = (tmp_path / "results").iterdir()
    table = pd.read_parquet(path / "results.parquet")
    assert table["status"].tolist() == [FAILED, FINISHED]
    assert table["error"][0].startswith(f"ProcessLostError: its process was killed, at the last of {ATTEMPTS} attempts")
    assert json.loads((path / "manifest.json").read_text())["winner"]["trial"] == "0001"


def kill_trials(node):
    """SIGKILL to the processes of Tune's trials that have begun to train; returns their ids."""
    killed = set()
    for pid in node.pids():
        with contextlib.suppress(OSError):  # gone meanwhile
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::ImplicitFunc.train"):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
    return killed
