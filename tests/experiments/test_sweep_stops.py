"""Sweeps that are stopped: by Ctrl-C, by their time budget, and a population whose driver is killed."""

import json
import os
import signal

import pandas as pd
import pytest

from rlplatform.experiments.search import load_sweep
from rlplatform.experiments.sweep_directory import FINISHED, STOPPED, SweepDirectory
from tests.experiments.test_sweep import POPULATION, command, sweep_yaml, until  # noqa: F401 (a fixture)

pytestmark = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(400)]


def longer(path, env_steps):
    path.write_text(path.read_text().replace("total_env_steps: 2000", f"total_env_steps: {env_steps}"))
    return path


def begun(process, path, trial, file):
    """Waits until a trial of a running sweep has left a file; the sweep's directory."""

    def there():
        assert process.poll() is None, process.stderr.read()
        return any((path.parent / "results").glob(f"*/trials/{trial}/{file}"))

    until(there)
    return SweepDirectory(next((path.parent / "results").iterdir()))


def statuses(directory):
    return {trial.name: trial.record()["status"] for trial in directory.trials()}


def test_ctrl_c_stops_a_sweep_which_goes_on_with_the_trial_that_was_under_way(sweep_yaml):  # noqa: F811
    """As a terminal sends it: to every process of the group."""
    path = longer(sweep_yaml("  parameters: {env.reward.turnover: {grid: [0.0, 0.3]}}\n"), 6000)
    first = command("sweep", path, cwd=path.parent)
    directory = begun(first, path, "0000", "checkpoints/last/standing.json")
    os.killpg(first.pid, signal.SIGINT)
    _, errors = first.communicate(timeout=120)
    assert first.returncode == 130, errors
    assert "--resume" in errors
    assert directory.manifest()["status"] == "interrupted"
    assert FINISHED not in statuses(directory).values()
    rows = len(directory.trial("0000").run.metrics())

    second = command("sweep", path, "--resume", "--json", cwd=path.parent)
    output, errors = second.communicate(timeout=240)
    assert second.returncode == 0, errors
    assert json.loads(output)["trials"] == {"finished": 2}
    assert pd.read_parquet(directory.path / "results.parquet")["env_steps"].tolist() == [6144] * 2
    assert rows >= 2
    for trial in directory.trials():
        assert [row["iteration"] for row in trial.run.metrics()] == list(range(1, 13))


def test_a_time_budget_ends_a_sweep_with_what_it_has(sweep_yaml):  # noqa: F811
    """The trial under way counts as stopped, with the figures of its last look; the rest was never begun."""
    search = "  parameters: {env.reward.turnover: {grid: [0.0, 0.1, 0.2, 0.3]}}\n  time_budget_s: 35\n"
    path = longer(sweep_yaml(search), 1_000_000)
    process = command("sweep", path, "--json", cwd=path.parent)
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert json.loads(output)["trials"] == {"stopped": 1}
    directory = SweepDirectory(next((path.parent / "results").iterdir()))
    assert statuses(directory) == {"0000": STOPPED}
    assert (directory.manifest()["status"], directory.manifest()["winner"]["trial"]) == ("finished", "0000")


def test_a_killed_population_goes_on_with_every_member_and_still_answers(sweep_yaml):  # noqa: F811
    path = longer(sweep_yaml(POPULATION + "  max_concurrent: 4\n"), 3000)
    first = command("sweep", path, cwd=path.parent)
    directory = begun(first, path, "0002", "checkpoints/last/standing.json")
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    until(lambda: not _alive(directory))

    second = command("sweep", path, "--resume", "--json", cwd=path.parent)
    output, errors = second.communicate(timeout=240)
    assert second.returncode == 0, errors
    assert json.loads(output)["trials"] == {"finished": 4}
    table = pd.read_parquet(directory.path / "results.parquet")
    assert table["env_steps"].tolist() == [3072] * 4
    assert table["seed"].tolist() == [3, 4, 5, 6]
    assert table["training.learning_rate"].between(1e-4, 1e-2).all()
    assert directory.manifest()["winner"]["test"]["bars"] > 200
    for trial in directory.trials():
        iterations = [row["iteration"] for row in trial.run.metrics()]
        assert iterations == sorted(set(iterations))  # with a gap where it took over the checkpoint of one that was ahead
        assert iterations[-1] == 6
        rate = trial.record()["settings"]["training.learning_rate"]  # what is written down is what was used last
        assert trial.run.metrics()[-1]["learning_rate"] == pytest.approx(rate, rel=1e-4)
        assert load_sweep(path).search.parameters.keys() == trial.record()["settings"].keys()


def _alive(directory):
    from tests.experiments.test_sweep import _writes

    return _writes(directory.path / "trials")
