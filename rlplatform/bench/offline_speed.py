"""Offline learning: MARWIL over arrays in memory against RLlib's own path through Ray Data, on the same rows."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rlplatform.bench.figures import ratio, spread_of
from rlplatform.bench.stopwatch import timed
from rlplatform.bench.task import NUM_ACTIONS, OBS_SIZE, BenchTask

EPISODES, EPISODE_LENGTH = 400, 256  # 102,400 rows of 64 observations: 26 MiB
LEARNING, FIRST_UPDATE = "learning", "first_update_s"
WALL = "steps_per_s"
CONTENDERS = {"offline_ours": "MARWIL, ours (arrays in memory)", "offline_stock": "MARWIL, RLlib default (Ray Data)"}

Result = dict[str, Any]
Say = Callable[[str], None]


def offline_section(quick: bool, say: Say, **sizes: Any) -> dict[str, Any]:
    """Both in turn, each in a process of its own; transitions learnt from per wall second, all processes together."""
    from rlplatform.bench.process import run_alone

    task, rounds = BenchTask(seconds=1.0 if quick else 4.0), []
    for i in range(1 if quick else 3):
        say(f"offline, round {i + 1}")
        rounds.append({name: run_alone(name, task, sizes) for name in CONTENDERS})
    return {"offline": [_row(name, [one[name] for one in rounds]) for name in CONTENDERS], "ratios": offline_ratios(rounds)}


def offline_ratios(rounds: list[dict[str, Result]]) -> dict[str, float | None]:
    """How many times faster ours learns, and how many times sooner its first update is done."""
    rates = {name: [_rate(one[name]) for one in rounds] for name in CONTENDERS}
    starts = {name: [one[name].get(FIRST_UPDATE) for one in rounds] for name in CONTENDERS}
    return {
        "offline_vs_rllib_default": ratio(rates["offline_ours"], rates["offline_stock"]),
        "offline_first_update": ratio(starts["offline_stock"], starts["offline_ours"]),
    }


def offline_ours(task: BenchTask, **sizes: int) -> Result:
    """`EpisodesData` and `MonteCarloMARWILLearner`."""
    from rlplatform.algorithms.offline_data import register_episodes

    def build(folder: Path) -> Any:
        from gymnasium.spaces import Discrete

        data = register_episodes(bench_episodes(task.seed, **sizes), Discrete(NUM_ACTIONS))
        return _our_marwil(task, data)

    return _measured(build, task)


def offline_stock(task: BenchTask, **sizes: int) -> Result:
    """RLlib's MARWIL with its defaults, over Parquet columns; our module, so that the arithmetic is the same."""
    from rlplatform.offline.parquet_columns import ParquetColumns

    def build(folder: Path) -> Any:
        ParquetColumns().write(folder / "part-0.parquet", bench_episodes(task.seed, **sizes), 0)
        return _stock_marwil(task, folder)

    return _measured(build, task)


def bench_episodes(seed: int, episodes: int = EPISODES, length: int = EPISODE_LENGTH) -> Any:
    """Random episodes in the shape of the benchmark's task."""
    from rlplatform.offline.episodes import Episodes

    rng, rows = np.random.default_rng(seed), episodes * length
    return Episodes(
        lengths=np.full(episodes, length),
        obs=rng.standard_normal((rows, OBS_SIZE), dtype=np.float32),
        last_obs=rng.standard_normal((episodes, OBS_SIZE), dtype=np.float32),
        actions=rng.integers(0, NUM_ACTIONS, rows),
        rewards=rng.standard_normal(rows, dtype=np.float32),
        terminated=np.zeros(episodes, bool),
        log_prob=np.full(rows, np.nan, np.float32),
    )


def _our_marwil(task: BenchTask, data: Any) -> Any:
    from rlplatform.algorithms.imitation import MARWILTrainingConfig, build_marwil
    from rlplatform.models.mlp import MLPConfig

    training = MARWILTrainingConfig(batch_size=task.minibatch_size, steps_per_iteration=task.num_epochs)
    return build_marwil(training, MLPConfig(), data, task.seed)


def _stock_marwil(task: BenchTask, folder: Path) -> Any:
    from gymnasium.spaces import Box, Discrete
    from ray.rllib.algorithms.marwil import MARWILConfig

    from rlplatform.models.mlp import MLPConfig
    from rlplatform.models.rl_module import module_settings, module_spec

    model = MLPConfig()
    return (
        MARWILConfig()
        .environment(observation_space=Box(-np.inf, np.inf, (OBS_SIZE,)), action_space=Discrete(NUM_ACTIONS))
        .rl_module(rl_module_spec=module_spec(model), model_config=module_settings(model))
        .training(train_batch_size_per_learner=task.minibatch_size, lr=1e-3)
        .offline_data(input_=[str(folder)], dataset_num_iters_per_learner=task.num_epochs)
        .debugging(seed=task.seed, log_level="ERROR")
    )


def _measured(build: Callable[[Path], Any], task: BenchTask) -> Result:
    """Seconds from the data to the end of the first iteration of `num_epochs` gradient steps, then iterations."""
    steps = task.minibatch_size * task.num_epochs
    with _session() as folder:
        started = time.perf_counter()
        algorithm = build(folder).build_algo()
        algorithm.train()
        first = time.perf_counter() - started
        lap = timed(lambda: algorithm.train() and steps, task.seconds, warm_up=1)
        parameters = sum(p.numel() for p in algorithm.learner_group._learner.module["default_policy"].parameters())
        algorithm.stop()
    return {LEARNING: lap.to_dict(), FIRST_UPDATE: first, "parameters": parameters}


@contextmanager
def _session() -> Iterator[Path]:
    """A Ray session of its own, and a folder for what RLlib reads."""
    import ray

    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    logging.getLogger("ray").setLevel(logging.ERROR)
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    finally:
        ray.shutdown()


def _row(name: str, results: list[Result]) -> dict[str, Any]:
    rates = spread_of([rate for one in results if (rate := _rate(one)) is not None])
    starts = spread_of([one[FIRST_UPDATE] for one in results if FIRST_UPDATE in one])
    return {
        "name": name,
        "label": CONTENDERS[name],
        "learning_steps_per_s": None if rates is None else rates.to_dict(),
        FIRST_UPDATE: None if starts is None else starts.to_dict(),
        "error": next((one["error"] for one in results if "error" in one), ""),
    }


def _rate(result: Result) -> float | None:
    return result.get(LEARNING, {}).get(WALL)
