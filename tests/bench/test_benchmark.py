"""Real runs of tiny size, in processes of their own; nothing here looks at how long anything took."""

import json
from dataclasses import replace
from functools import partial

import pytest
from typer.testing import CliRunner

from rlplatform.bench import benchmark, gpu, process
from rlplatform.bench.arithmetic import arithmetic
from rlplatform.bench.benchmark import RATIOS, env_ratios, run_benchmark, write_results
from rlplatform.bench.contenders import WORK
from rlplatform.bench.forecast_speed import forecast_section
from rlplatform.bench.machine import installed_version
from rlplatform.bench.process import run_alone
from rlplatform.bench.report import markdown
from rlplatform.bench.stopwatch import timed
from rlplatform.bench.task import BenchTask
from rlplatform.cli import app

TINY = BenchTask(num_envs=8, batch_size=256, minibatch_size=128, num_epochs=1, seconds=0.0)


def spread(rate):
    return {"median": rate, "low": rate, "high": rate, "count": 1}


def test_a_lap_counts_what_was_done_after_the_warm_up():
    calls, cpu = [], iter([10.0, 12.0])
    lap = timed(lambda: calls.append(1) or 6, seconds=0.0, warm_up=2, clock=lambda: next(cpu))
    assert (len(calls), lap.steps, lap.steps_per_cpu_s) == (3, 6, 3.0)


def test_env_ratios_are_of_three_assets_and_plain_memory():
    def row(library, accounts, rate, assets=3, memory_kept=False):
        return {
            "library": library,
            "accounts": accounts,
            "assets": assets,
            "memory_kept": memory_kept,
            "steps_per_cpu_s": None if rate is None else spread(rate),
        }

    rows = [row("numpy", 1, 25e3), row("torch", 1, 5e3), row("numpy", 8_192, 10e6), row("torch", 8_192, 3e6)]
    rows += [
        row("numpy", 8_192, 99e6, memory_kept=True),
        row("numpy", 1, 1.0, assets=30),
        row("torch", 8_192, None, assets=500),
    ]
    assert env_ratios(rows) == {"env_single_us": 40.0, "env_8192_steps_per_s": 10e6}
    assert env_ratios([]) == {"env_single_us": None, "env_8192_steps_per_s": None}


@pytest.fixture
def tiny_sections(monkeypatch):
    def env(quick, say):
        return benchmark.env_section(quick, say, accounts=[1, 16], assets=[3], libraries=["numpy"])

    def tape(quick, say):
        return benchmark.tape_section(True, say, sizes=[[16, 2, 3]])

    monkeypatch.setattr(benchmark, "_SECTIONS", {"env": env, "tape": tape})


def test_the_command_prints_json_and_leaves_it_and_a_table_behind(tiny_sections, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["bench", "env", "--quick", "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert set(RATIOS) <= set(result["ratios"])
    assert result["ratios"]["vs_rllib_best"] is None
    assert result["ratios"]["env_single_us"] > 0
    assert {row["accounts"] for row in result["env"]} == {1, 16}
    assert not any(row["memory_kept"] for row in result["env"])
    assert 100 < result["memory"]["peak_mib"] < 1_024
    assert result["machine"]["versions"]["torch"]
    assert "rough" in result["rough"]
    written = [path for path in (tmp_path / "results" / "bench").iterdir() if path.suffix == ".json"]
    assert [json.loads(path.read_text()) for path in written] == [result]
    assert "env alone" in (tmp_path / "results" / "bench" / "latest.md").read_text()


@pytest.mark.parametrize(("load", "said"), [([2.5, 1.0, 1.0], True), ([0.1, 2.0, 2.0], False), (None, False)])
def test_a_busy_machine_is_mentioned_in_the_report(load, said):
    machine = {"load_average": load, "processor": "Z80", "cores": 1, "python": "3.11", "versions": {}}
    text = markdown({"taken": "2026-11-21T00:00:00", "rough": None, "machine": machine})
    assert ("Other work was on the machine" in text) == said


def test_the_tape_section_says_both_ways(tiny_sections, tmp_path):
    result = run_benchmark(("tape",), quick=True)
    (row,) = result["tape"]
    assert row["path_steps_per_cpu_s"]["median"] > 0 < row["loop_steps_per_cpu_s"]["median"]
    assert "16 bars × 2 accounts × 3 assets" in markdown(result)
    assert write_results(result, tmp_path).exists()


def test_what_is_too_large_is_left_out_and_says_so():
    (row,) = WORK["env_grid"](TINY, accounts=[8_192], assets=[500], libraries=["numpy"])["rows"]
    assert row["note"] == "left out: 4.1M weights a step"
    assert "steps_per_cpu_s" not in row


def test_a_contender_that_fails_is_an_error_and_not_an_exception():
    assert "unexpected keyword" in run_alone("env_memory", TINY, {"unknown": 1})["error"]


def test_the_arithmetic_names_every_part():
    parts = arithmetic(TINY, ("float32", "bfloat16"))
    assert all(rate > 0 for rate in parts.values())
    assert {"env", "forward/float32/one step at a time", "forward_backward/bfloat16/GRUSequence"} <= set(parts)


def test_every_contender_of_the_training_trains_a_little(ray_session, monkeypatch):
    import ray

    from rlplatform.bench import contenders

    monkeypatch.setattr(ray, "init", lambda **_: None)  # the tests' own session serves
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    ours = contenders.ours(TINY)
    assert ours["training"]["steps"] == 256
    stock = contenders.stock_rllib(replace(TINY, num_envs=4))
    assert stock["training"]["steps"] == 4 * 63
    assert stock["parameters"] == ours["parameters"]


@pytest.mark.skipif(installed_version("sb3-contrib") is None, reason="the extra 'bench' is not installed")
@pytest.mark.parametrize("name", ["sb3_recurrent", "sb3_mlp"])
def test_stable_baselines_trains_on_our_vector_env(name):
    result = WORK[name](TINY)
    assert result["training"]["steps"] == result["sampling"]["steps"] == 256


@pytest.mark.skipif(installed_version("stable-baselines3") is None, reason="the extra 'bench' is not installed")
def test_an_ended_episode_hands_stable_baselines_its_last_observation():
    import numpy as np

    from rlplatform.bench.sb3 import SB3VectorEnv
    from rlplatform.bench.task import bench_tape, make_vector

    env = SB3VectorEnv(make_vector(bench_tape(), 4, autoreset_mode="same_step"))
    env.reset()
    for _ in range(256):
        obs, _, done, infos = env.step(np.zeros(4, np.int64))
        for row in range(4):
            assert ("terminal_observation" in infos[row]) == done[row]
            if done[row]:
                assert infos[row]["TimeLimit.truncated"]
                assert not np.array_equal(infos[row]["terminal_observation"], obs[row])
    assert not env._no_infos[0]


def test_without_a_gpu_the_module_says_so(capsys, monkeypatch):
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    gpu.main()
    assert capsys.readouterr().out == gpu.NO_GPU + "\n"


def test_what_is_measured_on_a_gpu_also_runs_on_the_processor():
    rows = gpu.gpu_rows("cpu", seconds=0.0, accounts=(8,), batches=(64,))
    assert [row["size"] for row in rows] == [8, 8, 64, 64]
    assert all(row["steps_per_s"] > 0 for row in rows)


@pytest.mark.nightly
@pytest.mark.slow
def test_the_forecast_section_builds_a_store_by_the_command(monkeypatch):
    monkeypatch.setattr(process, "run_alone", lambda work, task, settings, timeout_s: WORK[work](task, **settings))
    sizes = {"symbols": 2, "days": 300, "alone": 2, "actors": [0]}
    monkeypatch.setattr(benchmark, "_SECTIONS", {"forecast": partial(forecast_section, **sizes)})
    result = run_benchmark(("forecast",), quick=True)
    one_by_one, batches, store = result["forecast"]["ways"]
    assert one_by_one["per_s"]["median"] > 0 < batches["per_s"]["median"]
    assert store["peak_mib"]["median"] > 100
    assert "the store (Chronos, bootstrap, GARCH), no actor" in markdown(result)
