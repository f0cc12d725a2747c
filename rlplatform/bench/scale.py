"""How training scales: measured with runners on loopback nodes, and a paper model of 10, 100 and 1,000 runners.

python -m rlplatform.bench.scale        # writes results/bench/scale.json; needs ray[default] for the object stores' counters

Loopback nodes share this machine's cores, so more of them are not faster here: what they show is what each runner costs the
driver, and what crosses to each node. The model puts those costs together for machines that share nothing.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlplatform.bench.machine import machine
from rlplatform.bench.task import ENV_ID, BenchTask, bench_tape, make_single, make_vector
from rlplatform.files import write_json

STORE_BYTES = 200_000_000
GRID = ((1, 1), (2, 1), (2, 2), (4, 2))  # runners, nodes
PREDICTED = (10, 100, 1_000)
TEN_GIGABIT = 1.25e9  # [bytes/s], assumed of the learner's network


@dataclass(frozen=True, kw_only=True)
class ScaleRow:
    """One measurement; medians over iterations.

    Attributes:
        runners, nodes: remote sampling processes, and loopback nodes that they are spread over.
        steps: env steps of an iteration.
        iteration_s, sample_s, sync_s: wall seconds of a whole iteration, of sampling alone, of a weight broadcast.
        driver_cpu_s: CPU seconds of the driver while it samples.
        runner_cpu_s: of one runner in one iteration.
        tape_copies: nodes whose object store holds the tape, the driver's own included.
        tape_mapped: every runner's tape lies in shared memory.
        weights_objects: objects that a broadcast makes in each worker node's store.
        weights_bytes: size of one.
    """

    runners: int
    nodes: int
    steps: int
    iteration_s: float
    sample_s: float
    sync_s: float
    driver_cpu_s: float
    runner_cpu_s: float
    tape_copies: int
    tape_mapped: bool
    weights_objects: float
    weights_bytes: float

    @property
    def steps_per_s(self) -> float:
        return self.steps / self.iteration_s


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What one runner, one transition and one broadcast cost.

    Attributes:
        steps_per_runner: of one iteration.
        sampling_rate: env steps a CPU second of one runner.
        driver_s_per_runner: of the driver for each runner's rollout: call, transfer, unpacking.
        learning_rate: transitions a second of one learner, all epochs.
        sync_s_per_runner: of a weight broadcast for each runner.
        rollout_bytes: of one transition on its way to the learner.
        weights_bytes: of one broadcast to one node.
    """

    steps_per_runner: int
    sampling_rate: float
    driver_s_per_runner: float
    learning_rate: float
    sync_s_per_runner: float
    rollout_bytes: float
    weights_bytes: float

    @classmethod
    def of(cls, rows: list[ScaleRow], rollout_bytes: float) -> Calibration:
        """From measurements; slopes over the number of runners, by least squares."""
        per_runner = rows[0].steps // rows[0].runners
        learning = [row.steps / max(row.iteration_s - row.sample_s - row.sync_s, 1e-9) for row in rows]
        return cls(
            steps_per_runner=per_runner,
            sampling_rate=statistics.median(per_runner / row.runner_cpu_s for row in rows),
            driver_s_per_runner=_slope([(row.runners, row.driver_cpu_s) for row in rows]),
            learning_rate=statistics.median(learning),
            sync_s_per_runner=_slope([(row.runners, row.sync_s) for row in rows]),
            rollout_bytes=rollout_bytes,
            weights_bytes=rows[0].weights_bytes,
        )


def predict(
    costs: Calibration, runners: int, learner_speedup: float = 1.0, runners_per_node: int = 8, cores: int | None = None
) -> dict[str, Any]:
    """Seconds of each part of an iteration with `runners`, each with its own accounts: the batch grows with them.

        T = S/r + n·c + n·S·b/B + n·S/(L·k) + n·w + m·W/B

    S steps of a runner at rate r, c driver's cost of a rollout, b bytes of a transition, B bandwidth of the learner's machine,
    L transitions a second of one learner made k times as fast, w cost of a broadcast's call, W bytes of weights to m nodes.
    The parts follow one another, as they do in synchronous PPO.

    Args:
        learner_speedup: k; several learners, or a GPU.
        cores: that all runners share (loopback); None for a core of each one's own.

    Returns:
        steps_per_s, seconds (by part) and bottleneck (the longest part).
    """
    steps = runners * costs.steps_per_runner
    nodes = -(-runners // runners_per_node)
    crowding = 1.0 if cores is None else max(1.0, runners / cores)
    seconds = {
        "sampling": costs.steps_per_runner / costs.sampling_rate * crowding,
        "driver": runners * costs.driver_s_per_runner,
        "network": (steps * costs.rollout_bytes + nodes * costs.weights_bytes) / TEN_GIGABIT,
        "learner": steps / (costs.learning_rate * learner_speedup),
        "broadcast": runners * costs.sync_s_per_runner,
    }
    if cores is not None:
        seconds["network"] = 0.0  # loopback
    return {
        "runners": runners,
        "learner_speedup": learner_speedup,
        "steps_per_s": steps / sum(seconds.values()),
        "seconds": seconds,
        "bottleneck": max(seconds, key=seconds.__getitem__),
    }


def _slope(points: list[tuple[float, float]]) -> float:
    """Of the line through the points, at least 0."""
    if len({x for x, _ in points}) < 2:
        return points[0][1] / points[0][0]
    return max(0.0, statistics.linear_regression(*zip(*points, strict=True)).slope)


def measure(grid: tuple[tuple[int, int], ...] = GRID, iterations: int = 5, task: BenchTask | None = None) -> dict[str, Any]:
    """Measure every (runners, nodes) of the grid, calibrate, predict."""
    task = task or BenchTask(num_envs=128, batch_size=4_096)
    rows, rollout_bytes = [], 0.0
    for runners, nodes in grid:
        with _loopback_nodes(runners, nodes):
            row, rollout_bytes = _row(runners, nodes, iterations, task)
            rows.append(row)
    costs = Calibration.of(rows, rollout_bytes)
    here = os.cpu_count() or 1
    return {
        "machine": machine(),
        "rows": [asdict(row) | {"steps_per_s": row.steps_per_s} for row in rows],
        "calibration": asdict(costs),
        "model_over_measured": [predict(costs, row.runners, cores=here)["steps_per_s"] / row.steps_per_s for row in rows],
        "predictions": [predict(costs, n, speedup) for speedup in (1.0, 100.0) for n in PREDICTED],
    }


@contextmanager
def _loopback_nodes(runners: int, nodes: int) -> Iterator[None]:
    """A Ray cluster of a head that computes nothing and nodes with just enough room, so that runners spread over all."""
    import ray
    from ray.cluster_utils import Cluster

    for name, value in {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_AUTH_MODE": "disabled"}.items():
        os.environ.setdefault(name, value)
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=-(-runners // nodes), object_store_memory=STORE_BYTES)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


def _row(runners: int, nodes: int, iterations: int, task: BenchTask) -> tuple[ScaleRow, float]:
    import ray
    from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
    from ray.tune.registry import ENV_CREATOR, _global_registry

    from rlplatform.algorithms.ppo import build_ppo
    from rlplatform.algorithms.registration import register_trading_env
    from rlplatform.bench.task import MODEL

    name = register_trading_env(ENV_ID, bench_tape(), make_single, make_vector)
    tape = _global_registry.get(ENV_CREATOR, name).shared
    algorithm = build_ppo(_training(task, runners), MODEL, name, seed=task.seed).build_algo()
    try:
        group, steps = algorithm.env_runner_group, runners * task.batch_size
        rollouts: list[Any] = []

        def sample() -> None:
            rollouts[:], _ = synchronous_parallel_sample(
                worker_set=group, max_env_steps=steps, _uses_new_env_runners=True, _return_metrics=True
            )

        def sync() -> None:
            group.sync_weights(
                from_worker_or_learner_group=algorithm.learner_group, policies=["default_policy"], inference_only=True
            )
            group.foreach_env_runner(lambda runner: 0, local_env_runner=False)  # all have them

        for work in (sample, algorithm.train, sync):  # warm up
            work()
        driver, used = time.process_time(), sum(_cpu_of(group))
        sample_s = _median_s(sample, iterations)
        driver_cpu_s = (time.process_time() - driver) / iterations
        runner_cpu_s = (sum(_cpu_of(group)) - used) / iterations / runners
        before = _created()
        sync_s = _median_s(sync, iterations)
        made = [(after[0] - b[0], after[1] - b[1]) for b, after in zip(before, _created(), strict=True)]
        row = ScaleRow(
            runners=runners,
            nodes=nodes,
            steps=steps,
            iteration_s=_median_s(algorithm.train, iterations),
            sample_s=sample_s,
            sync_s=sync_s,
            driver_cpu_s=driver_cpu_s,
            runner_cpu_s=runner_cpu_s,
            tape_copies=len(ray.experimental.get_object_locations([tape])[tape]["node_ids"]),
            tape_mapped=all(group.foreach_env_runner(_tape_is_mapped, local_env_runner=False)),
            weights_objects=max(count for count, _ in made[1:]) / iterations,
            weights_bytes=max(size for _, size in made[1:]) / iterations,
        )
        return row, len(ray.cloudpickle.dumps(rollouts)) / steps
    finally:
        algorithm.stop()


def _training(task: BenchTask, runners: int) -> Any:
    from rlplatform.algorithms.ppo import PPOTrainingConfig

    return PPOTrainingConfig(
        num_env_runners=runners,
        num_envs_per_env_runner=task.num_envs,
        rollout_length=task.rollout_length,
        minibatch_size=task.minibatch_size,
        num_epochs=task.num_epochs,
        device="cpu",
    )


def _cpu_of(group: Any) -> list[float]:
    return group.foreach_env_runner(lambda runner: time.process_time(), local_env_runner=False)


def _median_s(work: Callable[[], Any], times: int) -> float:
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _created() -> list[tuple[int, int]]:
    """Objects and bytes that each node's store has ever made, the head's first."""
    import ray
    from ray._private.internal_api import node_stats

    nodes = sorted(
        (node for node in ray.nodes() if node["Alive"]), key=lambda n: (n["Resources"].get("CPU", 0) > 0, n["NodeID"])
    )
    found = [node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], include_memory_info=False) for node in nodes]
    return [(each.store_stats.cumulative_created_objects, each.store_stats.cumulative_created_bytes) for each in found]


def _tape_is_mapped(runner: Any) -> bool:
    """In a runner: the tape's returns lie in the object store's memory file, whose name Ray has deleted."""
    address = runner.env.unwrapped.task.tape.gross.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(part, 16) for part in line.split()[0].split("-"))
        if low <= address < high:
            return line.endswith("(deleted)") and "/plasma" in line
    return False


def main() -> None:
    """Measure, write results/bench/scale.json, print it."""
    result = measure()
    write_json(Path("results") / "bench" / "scale.json", result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
