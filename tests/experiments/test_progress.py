"""One line says how far a training is."""

import io

import pytest
from rich.console import Console

from rlplatform.experiments.progress import TrainingProgress, describe

ROW = {"iteration": 12, "env_steps": 96_768, "env_steps_per_second": 4_126.4, "episode_return_mean": -1.234}


def row(**given):
    return ROW | given


def test_the_line_says_iteration_steps_pace_reward_validation_and_time_left():
    line = describe(row(), validation=1.5, left_s=150)
    assert line == "iteration 12 · 96,768 env steps · 4,126/s · reward −1.23 · validation 1.50 · 2:30 left"


def test_what_is_not_known_yet_is_a_dash_or_left_out():
    line = describe(row(episode_return_mean=None), left_s=3_661)
    assert line == "iteration 12 · 96,768 env steps · 4,126/s · reward – · 1:01:01 left"


def test_the_narrow_line_fits_eighty_columns_and_the_wide_one_a_hundred_with_its_bar():
    usual = row(iteration=75, env_steps=604_800, episode_return_mean=-12.34)
    assert len(describe(usual, -1.54, 150, wide=False)) <= 80
    assert len(describe(usual, -1.54, 150)) + 11 <= 100
    assert "1.20M env steps" in describe(row(env_steps=1_200_000))


def shown(width, terminal, rows, total=100_000):
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    with TrainingProgress(console, plain_interval_s=0) as progress:
        progress.phase("starting Ray")
        progress.begin(total)
        for each in rows:
            progress.update(each)
        progress.phase("judging")
    return console.file.getvalue()


def test_without_a_terminal_lines_are_plain():
    text = shown(40, False, [row(), row(iteration=13, env_steps=100_000, validation_sharpe=0.5)])
    assert text.splitlines()[0] == "starting Ray …"
    assert "\x1b" not in text
    assert "training 100% · iteration 13 · 100,000 env steps · 4,126/s · reward −1.23 · validation 0.50 · 0:00 left" in text
    assert text.splitlines()[-1] == "judging …"


def test_without_a_terminal_lines_come_now_and_then_only_and_the_last_always():
    console = Console(file=io.StringIO(), width=100)
    with TrainingProgress(console, plain_interval_s=60) as progress:
        progress.begin(10)
        for i in range(1, 11):
            progress.update(row(iteration=i, env_steps=i))
    lines = console.file.getvalue().splitlines()
    assert [line.split("·")[1].strip() for line in lines] == ["iteration 1", "iteration 10"]


@pytest.mark.parametrize("width", [80, 100, 140])
def test_on_a_terminal_one_live_line_is_no_wider_than_the_screen(width):
    text = shown(width, True, [row(validation_sharpe=1.25), row(iteration=13, env_steps=98_000)])
    lines = [line for part in text.split("\n") for line in part.split("\r") if "iteration" in line]
    assert lines
    assert all(len(line.split("\x1b[2K")[-1].rstrip()) <= width for line in lines)
    assert "validation 1.25" in lines[-1] or "val. 1.25" in lines[-1]  # the last figure stays
    assert "left" in lines[-1]
    assert "iteration 13" in lines[-1]  # and is what remains on the screen


def test_the_time_left_follows_the_pace_seen(monkeypatch):
    clock = iter([0.0, 10.0])
    progress = TrainingProgress(Console(file=io.StringIO()))
    progress.begin(400)
    monkeypatch.setattr("rlplatform.experiments.progress.time.monotonic", lambda: next(clock))
    assert progress._seconds_left(row(env_steps=100, env_steps_per_second=100.0)) == 3.0  # only the row's own pace is known
    assert progress._seconds_left(row(env_steps=200, env_steps_per_second=100.0)) == 20.0  # 100 steps took 10 s
