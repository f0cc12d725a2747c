"""The ratios of the training table, from rates that a reader can divide by hand."""

import pytest

from rlplatform.bench import train_speed
from rlplatform.bench.contenders import SAMPLING, TRAINING, WORK
from rlplatform.bench.train_speed import CPU, WALL, Rounds, limit_of, train_ratios

LIMIT = {
    "env": 1e6,
    "forward/float32/GRUSequence": 200e3,
    "forward/float32/torch.nn.GRU": 250e3,
    "forward/bfloat16/GRUSequence": 500e3,
    "forward_backward/float32/GRUSequence": 80e3,
    "forward_backward/float32/torch.nn.GRU": 60e3,
    "forward_backward/bfloat16/GRUSequence": 100e3,
}


def laps(training, sampling):
    return {part: {CPU: rate, WALL: rate / 2} for part, rate in ((TRAINING, training), (SAMPLING, sampling))}


ROUND = {
    "ours_float32": laps(15e3, 150e3),
    "ours_bfloat16": laps(20e3, 150e3),
    "rllib_default": laps(1e3, 1e3),
    "rllib_best": laps(7.5e3, 10e3),
    "rllib_best_sampling": laps(5e3, 15e3),
    "sb3_recurrent": laps(6e3, 70e3),
    "runners_1": laps(1e3, 100e3),
    "runners_2": laps(1e3, 180e3),
    "limit": LIMIT,
}


def test_the_limit_takes_the_fastest_network_in_the_same_precision():
    assert limit_of(LIMIT, "float32", 4) == pytest.approx(1 / (1 / 250e3 + 4 / 80e3 + 1 / 1e6))
    assert limit_of(LIMIT, "bfloat16", 4) == pytest.approx(1 / (1 / 500e3 + 4 / 100e3 + 1 / 1e6))


def test_without_its_parts_there_is_no_limit():
    assert limit_of({"env": 1e6, "forward/float32/GRUSequence": 1.0}, "float32", 4) is None
    assert limit_of({"error": "killed"}, "float32", 4) is None


def test_ratios_compare_whole_training_and_the_best_of_stock_sampling():
    ratios = train_ratios(Rounds((ROUND,)), 4, "float32")
    assert ratios["vs_rllib_default"] == 15
    assert ratios["vs_rllib_best"] == 2
    assert ratios["vs_sb3_recurrent"] == 2.5
    assert ratios["of_limit"] == pytest.approx(15e3 * (4e-6 + 50e-6 + 1e-6))
    assert ratios["sampling_vs_rllib_best"] == 10
    assert ratios["two_runners_vs_one"] == 1.8
    assert ratios["vs_pufferlib"] is None


def test_a_contender_that_failed_or_is_not_installed_has_no_ratio():
    failed = ROUND | {"rllib_best": {"error": "killed"}, "rllib_best_sampling": {"error": "killed"}}
    del failed["sb3_recurrent"]
    ratios = train_ratios(Rounds((failed,)), 4, "bfloat16")
    assert ratios["vs_rllib_best"] is ratios["vs_sb3_recurrent"] is ratios["sampling_vs_rllib_best"] is None
    assert ratios["vs_rllib_default"] == 20


@pytest.fixture
def fake_contenders(monkeypatch):
    """Every process answers at once; the log of who was asked, in order."""
    asked = []

    def answer(work, task, settings=None):
        asked.append((work, task.num_envs, task.minibatch_size, settings or {}))
        if work == "limit":
            return LIMIT
        if work == "sb3_mlp":
            return {"error": "MemoryError"}
        # Best trained with 64 environments, best sampled with 256.
        return laps(1e6 / task.num_envs + task.minibatch_size, 100.0 * task.num_envs) | {"parameters": 109_841}

    monkeypatch.setattr(train_speed, "run_alone", answer)
    monkeypatch.setattr(train_speed, "has_bfloat16", lambda: True)
    monkeypatch.setattr(
        train_speed.Contender, "missing", property(lambda self: "not installed" if self.name == "sb3_recurrent" else None)
    )
    return asked


def test_contenders_take_turns_and_the_best_stock_settings_are_searched_first(fake_contenders):
    section = train_speed.train_section(quick=False, say=lambda text: None)
    search, rest = fake_contenders[:6], fake_contenders[6:]
    assert {call[0] for call in search} == {"stock_rllib"}
    assert len(rest) % 3 == 0
    assert rest[: len(rest) // 3] * 3 == rest
    assert ("stock_rllib", 64, 4_096, {}) in rest
    assert ("stock_rllib", 256, 2_048, {}) in rest
    rows = {row["name"]: row for row in section["train"]}
    assert rows["ours_float32"]["training_steps_per_cpu_s"]["count"] == 3
    assert rows["sb3_mlp"]["error"] == "MemoryError"
    assert rows["sb3_recurrent"]["error"] == "not installed"
    assert rows["sb3_recurrent"]["training_steps_per_cpu_s"] is None
    assert section["limit"]["float32"]["median"] == pytest.approx(limit_of(LIMIT, "float32", 4))


def test_quick_searches_nothing_and_goes_round_once(fake_contenders):
    section = train_speed.train_section(quick=True, say=lambda text: None)
    assert section["search"] == []
    assert len(fake_contenders) == len(set(map(str, fake_contenders)))


def test_every_contender_names_work_that_exists():
    names = [contender.work for contender in train_speed._contenders([])]
    assert set(names) <= set(WORK)
