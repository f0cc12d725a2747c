"""The paper model of scale, by hand; and on real loopback nodes that tape and weights cross once per node."""

import json
import os
import subprocess
import sys
from dataclasses import asdict

import pytest
from numpy.testing import assert_allclose

from rlplatform.bench.scale import Calibration, ScaleRow, predict
from rlplatform.bench.task import BenchTask
from tests.cluster import needs_jobs_api

COSTS = Calibration(
    steps_per_runner=1_000,
    sampling_rate=10_000,
    driver_s_per_runner=0.002,
    learning_rate=20_000,
    sync_s_per_runner=0.001,
    rollout_bytes=125,
    weights_bytes=1.25e6,
)


def row(runners, **changed):
    """Sampling 0.1 s, learning 0.05 s a runner, one broadcast 0.001 s a runner."""
    facts = {
        "runners": runners,
        "nodes": 1,
        "steps": 1_000 * runners,
        "sample_s": 0.1 + 0.002 * runners,
        "sync_s": 0.001 * runners,
        "iteration_s": 0.1 + 0.053 * runners,
        "driver_cpu_s": 0.01 + 0.002 * runners,
        "runner_cpu_s": 0.1,
        "tape_copies": 2,
        "tape_mapped": True,
        "weights_objects": 1.0,
        "weights_bytes": 1.25e6,
    }
    return ScaleRow(**facts | changed)


def test_ten_runners_by_hand():
    found = predict(COSTS, 10)
    # 1,000 steps at 10,000/s; 10 × 2 ms; 10,000 × 125 bytes and 2 nodes × 1.25 MB at 1.25 GB/s; 10,000 at 20,000/s; 10 × 1 ms.
    by_hand = {"sampling": 0.1, "driver": 0.02, "network": 0.003, "learner": 0.5, "broadcast": 0.01}
    assert found["seconds"] == pytest.approx(by_hand)
    assert_allclose(found["steps_per_s"], 10_000 / 0.633)
    assert found["bottleneck"] == "learner"


def test_with_a_learner_a_hundred_times_as_fast_the_driver_is_next():
    assert predict(COSTS, 10, learner_speedup=100)["bottleneck"] == "sampling"
    assert predict(COSTS, 1_000, learner_speedup=100)["bottleneck"] == "driver"


def test_runners_that_share_two_cores_wait_for_each_other():
    assert_allclose(predict(COSTS, 4, cores=2)["seconds"]["sampling"], 0.2)


def test_more_runners_never_slow_the_whole_down_and_never_pass_the_serial_limit():
    rates = [predict(COSTS, n)["steps_per_s"] for n in (1, 10, 100, 1_000, 10_000)]
    assert rates == sorted(rates)
    assert rates[-1] < 1_000 / (0.002 + 0.05 + 0.001)


def test_a_calibration_finds_the_costs_that_made_the_rows():
    found = Calibration.of([row(1), row(2), row(4)], rollout_bytes=125)
    assert_allclose(
        (found.sampling_rate, found.driver_s_per_runner, found.sync_s_per_runner, found.learning_rate),
        (10_000, 0.002, 0.001, 1_000 / 0.05),
    )


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_tape_and_weights_cross_once_per_node_not_once_per_runner():
    needs_jobs_api()  # the stores' counters come over grpc, which ray[default] brings
    task = BenchTask(num_envs=16, batch_size=512, minibatch_size=256, num_epochs=1)
    # In a process of its own: this one may already be connected to the Ray of other tests.
    code = "import json, sys; from rlplatform.bench.scale import measure; from rlplatform.bench.task import BenchTask; "
    code += "print(json.dumps(measure(((4, 2),), 3, BenchTask(**json.loads(sys.argv[1])))['rows']))"
    command = [sys.executable, "-c", code, json.dumps(asdict(task))]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment | {"RAY_AUTH_MODE": "disabled"})
    assert done.returncode == 0, done.stderr[-2000:]
    (found,) = json.loads(done.stdout.splitlines()[-1])
    assert found["tape_copies"] == 3  # two nodes and the driver's
    assert found["tape_mapped"]
    assert found["weights_objects"] == 1
    assert 4e5 < found["weights_bytes"] < 5e5  # 110k parameters of 4 bytes
