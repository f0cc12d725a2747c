"""Who is measured. Each contender runs alone in a process of its own and returns plain values for one JSON line."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rlplatform.bench.forecast_speed import forecast_grid
from rlplatform.bench.machine import has_bfloat16, installed_version
from rlplatform.bench.offline_speed import offline_ours, offline_stock
from rlplatform.bench.stopwatch import Lap, timed
from rlplatform.bench.task import ENV_ID, MODEL, BenchTask, bench_tape, make_single, make_vector

Result = dict[str, Any]
SAMPLING, TRAINING = "sampling", "training"


def ours(task: BenchTask, precision: str = "float32", device: str = "cpu") -> Result:
    """Our fast path, sampling and learning in one process."""
    with _algorithm(lambda name: _our_config(name, task, precision, device=device)) as algorithm:
        return _laps(algorithm, task) | {"parameters": _parameters(algorithm)}


def stock_rllib(task: BenchTask) -> Result:
    """RLlib's own runner, learner and connectors."""
    from rlplatform.bench.stock_rllib import stock_ppo

    with _algorithm(lambda name: stock_ppo(name, task)) as algorithm:
        return _laps(algorithm, task) | {"parameters": _parameters(algorithm)}


def our_runners(task: BenchTask, num_env_runners: int) -> Result:
    """Sampling by remote runners alone: wall seconds until the driver holds the rollouts, CPU seconds of all processes."""
    from ray.rllib.execution.rollout_ops import synchronous_parallel_sample

    with _algorithm(lambda name: _our_config(name, task, "float32", num_env_runners)) as algorithm:
        group, steps = algorithm.env_runner_group, num_env_runners * task.batch_size

        def sample() -> int:
            synchronous_parallel_sample(worker_set=group, max_env_steps=steps, _uses_new_env_runners=True, _return_metrics=True)
            return steps

        def clock() -> float:
            remote = group.foreach_env_runner(lambda runner: time.process_time(), local_env_runner=False)
            return time.process_time() + sum(remote)

        sampling = timed(sample, task.seconds, 2, clock).to_dict()
        return {SAMPLING: sampling, TRAINING: timed(_iteration(algorithm), task.seconds, 1, clock).to_dict()}


def sb3_recurrent(task: BenchTask) -> Result:
    """sb3-contrib RecurrentPPO on our vector env."""
    from rlplatform.bench.sb3 import recurrent_ppo

    return _sb3(recurrent_ppo, task)


def sb3_mlp(task: BenchTask) -> Result:
    """SB3 PPO without memory on our vector env."""
    from rlplatform.bench.sb3 import mlp_ppo

    return _sb3(mlp_ppo, task)


def limit(task: BenchTask) -> Result:
    """The arithmetic alone."""
    from rlplatform.bench.arithmetic import PRECISIONS, arithmetic

    return arithmetic(task, PRECISIONS if has_bfloat16() else PRECISIONS[:1])


def env_grid(task: BenchTask, keep_memory: bool = False, **sizes: Any) -> Result:
    """Our env alone in all sizes; with `keep_memory` as in a process that learns, see `keep_freed_memory`."""
    from rlplatform.algorithms.process_memory import keep_freed_memory
    from rlplatform.bench.env_speed import env_rows

    if keep_memory:
        keep_freed_memory()
    return {"rows": env_rows(task.seconds, **sizes)}


def env_memory(task: BenchTask) -> Result:
    """Peak memory of 500 assets × 1,024 accounts."""
    from rlplatform.bench.env_speed import peak_memory

    return peak_memory()


def tape_grid(task: BenchTask, **sizes: Any) -> Result:
    """A path of known targets in one pass and in a loop."""
    from rlplatform.bench.tape_speed import tape_rows

    return {"rows": tape_rows(task.seconds, **sizes)}


WORK: dict[str, Callable[..., Result]] = {
    f.__name__: f
    for f in (
        *(ours, stock_rllib, our_runners, sb3_recurrent, sb3_mlp, limit),
        *(env_grid, env_memory, tape_grid, offline_ours, offline_stock, forecast_grid),
    )
}


@dataclass(frozen=True)
class Contender:
    """One row of the training table.

    Attributes:
        name: key in the results.
        label: for people.
        work: which of `WORK`.
        settings: its keyword arguments.
        task: what differs from the common task, such as `num_envs`.
        needs: packages of the extra `bench`.
        note: what is not alike.
    """

    name: str
    label: str
    work: str
    settings: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    note: str = ""

    @property
    def missing(self) -> str | None:
        """Why it cannot run here."""
        if all(installed_version(package) for package in self.needs):
            return None
        return "not installed: pip install 'rlplatform[bench]'"


@contextmanager
def _algorithm(build: Callable[[str], Any]) -> Iterator[Any]:
    """The Algorithm of a config on the benchmark's env, in a Ray session of its own."""
    import ray

    from rlplatform.algorithms.registration import register_trading_env

    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    logging.getLogger("ray").setLevel(logging.ERROR)
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        algorithm = build(register_trading_env(ENV_ID, bench_tape(), make_single, make_vector)).build_algo()
        try:
            yield algorithm
        finally:
            algorithm.stop()
    finally:
        ray.shutdown()


def _our_config(env_name: str, task: BenchTask, precision: str, num_env_runners: int = 0, device: str = "cpu"):
    from rlplatform.algorithms.ppo import PPOTrainingConfig, build_ppo

    training = PPOTrainingConfig(
        num_env_runners=num_env_runners,
        num_envs_per_env_runner=task.num_envs,
        rollout_length=task.rollout_length,
        minibatch_size=task.minibatch_size,
        num_epochs=task.num_epochs,
        precision=precision,
        device=device,  # said outright: "auto" would take a GPU, and the table compares processors
    )
    return build_ppo(training, MODEL, env_name, seed=task.seed)


def _laps(algorithm: Any, task: BenchTask) -> Result:
    """Sampling alone, then whole iterations. Only sampled env steps count."""
    alone = task.num_envs == 1  # an iteration then lasts nine seconds: no warm-up of that length, and a shorter sample
    runner, wanted = algorithm.env_runner, 1_024 if alone else algorithm.config.train_batch_size_per_learner

    def sample() -> int:
        return sum(_num_steps(part) for part in runner.sample(num_timesteps=wanted))

    sampling = timed(sample, task.seconds / 2).to_dict()
    runner.get_metrics()  # what was sampled here belongs to no iteration
    return {SAMPLING: sampling, TRAINING: timed(_iteration(algorithm), task.seconds, 0 if alone else 1).to_dict()}


def _num_steps(part: Any) -> int:
    """Of a Rollout or of an RLlib episode."""
    return part.env_steps()


def _iteration(algorithm: Any) -> Callable[[], int]:
    def iteration() -> int:
        return int(algorithm.train()["env_runners"]["num_env_steps_sampled"])

    return iteration


def _parameters(algorithm: Any) -> int:
    module = algorithm.learner_group._learner.module["default_policy"]
    return sum(parameter.numel() for parameter in module.parameters())


def _sb3(build: Callable[..., Any], task: BenchTask) -> Result:
    from rlplatform.bench.sb3 import SB3VectorEnv

    env = make_vector(bench_tape(), task.num_envs, autoreset_mode="same_step")
    env.reset(seed=task.seed)
    model = build(SB3VectorEnv(env), task)
    collect, spans = model.collect_rollouts, []

    def timed_collect(*args: Any, **kwargs: Any) -> bool:
        cpu, wall = time.process_time(), time.perf_counter()
        goes_on = collect(*args, **kwargs)
        spans.append(Lap(steps=task.batch_size, cpu_seconds=time.process_time() - cpu, wall_seconds=time.perf_counter() - wall))
        return goes_on

    def learn() -> int:
        model.learn(task.batch_size, reset_num_timesteps=False)
        return task.batch_size

    model.collect_rollouts = timed_collect
    training = timed(learn, task.seconds)
    return {
        TRAINING: training.to_dict(),
        SAMPLING: _sum(spans[1:]).to_dict(),
        "parameters": sum(p.numel() for p in model.policy.parameters()),
    }


def _sum(laps: list[Lap]) -> Lap:
    return Lap(
        steps=sum(lap.steps for lap in laps),
        cpu_seconds=sum(lap.cpu_seconds for lap in laps),
        wall_seconds=sum(lap.wall_seconds for lap in laps),
    )
