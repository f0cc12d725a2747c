"""Ablations end to end: what they leave, that finished trainings stay, that a mistake is one line before anything starts."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from envs.errors import ConfigError
from rlplatform.experiments import ablation as module
from rlplatform.experiments.ablation import AblationFailedError, new_ablation, run_ablation, run_job
from rlplatform.experiments.ablation_config import AblationDirectory, load_ablation
from rlplatform.experiments.config import load_config
from rlplatform.experiments.registry import trials_of, update_registry
from tests.conftest import REPOSITORY

EXAMPLE = REPOSITORY / "tune_configs" / "forecast_ablation.yaml"
TINY = """\
name: tiny
seed: 3
data: {{source: synthetic, market: momentum, bars: 1200}}
split:
  train: [2000-06-01, 2002-12-31]
  validation: [2003-01-01, 2003-06-30]
  test: [2003-07-01, 2004-06-30]
env: {{id: Portfolio-v0, costs: {{proportional_bps: 2}}, episode: {{length_bars: 60}}}}
model: {{kind: mlp, layers: [8]}}
training: {{total_env_steps: 512, num_envs_per_env_runner: 16, rollout_length: 32, minibatch_size: 256, num_epochs: 1}}
evaluation: {{interval_iterations: 1, bootstrap: {{resamples: 100}}}}
results_dir: {results}
forecast: {{backends: [bootstrap]}}
ablation: {{{block}}}
"""
FORECASTS = (
    "{{backend: bootstrap, horizons: [1], columns: [std], draws: 100, store: {store}, "
    "bootstrap: {{window: 100, min_history: 60}}}}"
)
ARMS = "arms: {{technical: {{}}, forecasts: {{features.forecasts: {forecasts}}}}}, seeds: [3, 4]"


def write(folder: Path, block: str | None = None) -> Path:
    path = folder / "tiny.yaml"
    block = ARMS.format(forecasts=FORECASTS.format(store=folder / "store")) if block is None else block
    path.write_text(TINY.format(results=folder / "results", block=block), encoding="utf-8")
    return path


def train_here(directory, ablation, jobs):
    """In this process, without Tune."""
    for job in (job for job in jobs if module._left(directory, job)):
        run_job(job, str(directory.path), ablation)


@pytest.fixture(scope="module")
def ablated(tmp_path_factory, ray_session):
    """Two arms with two seeds, once for all tests. Read only."""
    directory = new_ablation(load_ablation(write(tmp_path_factory.mktemp("ablation"))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_train_all", train_here)
        return directory, run_ablation(directory)


def test_it_leaves_a_run_an_arm_and_seed_tables_a_plot_and_a_verdict(ablated):
    directory, result = ablated
    found = {path.name for path in directory.path.iterdir()}
    assert found == {
        "ablation.yaml", "manifest.json", "arms", "trial_returns.parquet", "ablation.json", "ablation.md", "ablation.png",
    }  # fmt: skip
    assert [run.name for run in directory.trained()] == [
        "forecasts-seed3",
        "forecasts-seed4",
        "technical-seed3",
        "technical-seed4",
    ]
    content = json.loads((directory.path / "ablation.json").read_text())
    assert content["reference"] == "technical"
    edges = content["edges"]["test"]
    assert [edge["arm"] for edge in edges] == ["forecasts"]
    assert edges[0]["sharpe"] == pytest.approx(sum(edges[0]["differences"]) / 2)
    assert content["verdict"] == result.sentence == directory.manifest()["verdict"]
    text = (directory.path / "ablation.md").read_text()
    assert text.startswith(result.sentence)
    assert "- test: forecasts is not shown to differ from technical: Sharpe " in text
    assert len(result.rows()) == 4


def test_arms_differ_in_what_they_name_and_in_nothing_else(ablated):
    directory, result = ablated
    technical, forecasts = (directory.arm(name, 3).run.config() for name in ("technical", "forecasts"))
    assert technical.features.forecasts is None
    assert forecasts.features.forecasts.backend == "bootstrap"
    assert technical.training == forecasts.training
    tracks = [track for arms in result.tracks["test"].values() for track in arms.values()]
    assert len({track.period for track in tracks}) == 1
    assert len({len(track) for track in tracks}) == 1
    assert result.tracks["test"]["technical"][3].returns.tolist() != result.tracks["test"]["technical"][4].returns.tolist()


def test_an_arm_that_does_not_suit_the_market_is_refused_before_anything_is_trained(tmp_path):
    hidden = "{env.constraints: {turnover: 0.1}, training: {algorithm: differentiable, account: hidden}}"
    block = f"arms: {{weights: {{}}, hidden: {hidden}}}"
    with pytest.raises(ConfigError, match="account"):
        new_ablation(load_ablation(write(tmp_path, block)))
    assert not (tmp_path / "results").exists()


def test_the_forecasts_of_an_arm_lie_in_the_store_before_it_trains(ablated):
    directory, _ = ablated
    store = directory.path.parent.parent / "store"
    assert list(store.glob("forecasts/bootstrap-*/*/*/quantiles.parquet"))


def test_deflated_statistics_of_an_arm_count_every_training(ablated):
    directory, result = ablated
    assert directory.manifest()["num_trials"] == result.num_trials == 4
    trials = trials_of(directory.arm("forecasts", 3).path)
    assert trials.count == 4
    assert trials.deviation > 0
    assert list(pd.read_parquet(directory.path / "trial_returns.parquet")) == [
        "technical-seed3", "technical-seed4", "forecasts-seed3", "forecasts-seed4",
    ]  # fmt: skip
    table = update_registry(directory.path.parent)
    assert set(table["run"]) == {f"{directory.name}/{run.name}" for run in directory.trained()}
    assert set(table["trials"]) == {4}
    assert table["sharpe"].notna().all()
    assert table["setting"].nunique() == 2


@pytest.mark.slow
def test_what_was_under_way_is_trained_again_and_what_was_finished_is_not(tmp_path, monkeypatch, ray_session):
    directory = new_ablation(load_ablation(write(tmp_path, "arms: {a: {}, b: {training.gamma: 0.9}}")))
    stopped_after = []

    def stop_after_one(directory, ablation, jobs):
        train_here(directory, ablation, jobs[:1])
        directory.arm("b", 3).begin({"arm": "b"}, 3)  # killed while it trained
        stopped_after.append(jobs[0])

    monkeypatch.setattr(module, "_train_all", stop_after_one)
    with pytest.raises(KeyboardInterrupt, match="before all arms"):
        run_ablation(directory)
    assert directory.manifest()["status"] == "interrupted"
    first = (directory.arm("a", 3).path / "metrics.jsonl").stat().st_mtime_ns
    monkeypatch.setattr(module, "_train_all", train_here)
    run_ablation(directory)
    assert (directory.arm("a", 3).path / "metrics.jsonl").stat().st_mtime_ns == first
    assert directory.arm("b", 3).record()["status"] == directory.manifest()["status"] == "finished"


@pytest.mark.slow
def test_a_training_that_diverges_is_named_with_what_to_do(tmp_path, monkeypatch, ray_session):
    block = "arms: {a: {}, wild: {training.learning_rate: 1.0e+30, training.grad_clip: null}}"
    directory = new_ablation(load_ablation(write(tmp_path, block)))
    monkeypatch.setattr(module, "_train_all", train_here)
    with pytest.raises(AblationFailedError, match=r"wild, seed 3: .* rlplatform ablation --resume"):
        run_ablation(directory)
    assert directory.manifest()["status"] == "failed"


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("seeds: [0]", "ablation.arms = None; expected names with their settings"),
        ("arms: {a: {}}", "expected at least two, the first is what the others are held against"),
        ("arms: {a: {}, b: {}}", "a and b are the same training. Leave one out"),
        ("arms: {a: {}, b: {training.learing_rate: 1.0}}", r"unknown key training\.learing_rate\. Did you mean learning_rate"),
        ("arms: {a: {}, b: {split.test: null}}", r"arms\.b: split\.test cannot differ between arms: trials would not"),
        ("arms: {a: {}, b: {env.costs.proportional_bps: 0}}", "env.costs.proportional_bps cannot differ between arms"),
        ("arms: {a: {}, b: {seed: 3}}", r"seed cannot differ between arms: give ablation\.seeds"),
        ("arms: {a: {}, 'b/c': {training.gamma: 0.9}}", "becomes a folder's name"),
        ("arms: {a: {}, b: 7}", "expected dotted keys with values"),
        ("arms: {a: {}, b: {training.gamma: 0.9}}, seeds: [1, 1]", "expected different whole numbers"),
        ("arms: {a: {}, b: {features.forecasts: {backend: chronos}}}", "has no forecaster of tiny. Train one first"),
    ],
)
def test_a_block_that_cannot_be_is_one_line(tmp_path, block, message):
    with pytest.raises(ConfigError, match=message) as found:
        load_ablation(write(tmp_path, block))
    assert str(found.value).startswith("tiny.yaml: ")
    assert "\n" not in str(found.value)


def test_an_arm_with_chronos_and_no_model_takes_the_newest_of_the_file_and_keeps_it(tmp_path):
    path = write(tmp_path, "arms: {a: {}, b: {features.forecasts: {backend: chronos}}}")
    for number in (1, 2):
        model = tmp_path / "results" / f"tiny-forecaster-2026010{number}-000000" / "model"
        model.mkdir(parents=True)
        (model / "forecaster.json").write_text("{}", encoding="utf-8")
    loaded = load_ablation(path)
    assert loaded.config_for("b").features.forecasts.chronos.path == str(model)
    directory = AblationDirectory.create(loaded)
    later = tmp_path / "results" / "tiny-forecaster-20260301-000000" / "model"
    later.mkdir(parents=True)
    (later / "forecaster.json").write_text("{}", encoding="utf-8")
    assert directory.ablation().config_for("b").features.forecasts.chronos.path == str(model)


def test_the_block_is_no_part_of_a_training_and_stands_beside_a_forecast_block(tmp_path):
    assert load_config(write(tmp_path)).name == "tiny"


def test_the_example_is_sound_in_all_its_arms(tmp_path):
    with pytest.raises(ConfigError, match=r"has no forecaster of forecast_ablation\. Train one first"):
        load_ablation(EXAMPLE, [f"results_dir={tmp_path}"])
    folder = tmp_path / "forecast_ablation-forecaster-20260101-000000" / "model"
    folder.mkdir(parents=True)
    (folder / "forecaster.json").write_text("{}", encoding="utf-8")
    made = load_ablation(EXAMPLE, [f"results_dir={tmp_path}"])
    assert (made.reference, made.seeds) == ("technical", (0, 1, 2))
    chronos, calibration = (made.config_for(arm, 2).features.forecasts for arm in ("chronos", "calibration"))
    assert chronos.chronos.path == calibration.chronos.path == str(folder)
    assert (chronos.calibration.method, calibration.calibration.method) == ("none", "isotonic")


# The command


def test_a_finished_one_given_again_trains_nothing_and_prints_the_same(ablated, typed, monkeypatch):
    directory, result = ablated
    monkeypatch.setattr(module, "_train_all", None)
    before = (directory.path / "ablation.json").read_text()
    code, out, err = typed("ablation", "--resume", directory.path.parent.parent / "tiny.yaml")
    assert code == 0
    assert directory.name in err.replace("\n", "")
    assert "Sharpe ratios, arm by arm, against technical" in out
    assert f"- {result.edges['test']['forecasts'].sentence}" in out.splitlines()
    assert result.sentence in out
    assert out.strip().endswith("ablation.md")
    assert (directory.path / "ablation.json").read_text() == before


def test_a_mistake_is_exit_code_2_and_one_line(tmp_path, typed):
    code, out, err = typed("ablation", write(tmp_path, "arms: {a: {}, b: {}}"))
    assert (code, out) == (2, "")
    assert "a and b are the same training" in err
    assert "Traceback" not in err
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_trainings_run_side_by_side_under_tune_and_each_is_told(tmp_path, ray_session, capsys):
    block = "arms: {a: {}, b: {training.gamma: 0.9}}, max_concurrent: 2"
    directory = new_ablation(load_ablation(write(tmp_path, block)))
    result = run_ablation(directory)
    assert [run.record()["status"] for run in directory.trained()] == ["finished", "finished"]
    assert result.num_trials == 2
    told = [line for line in capsys.readouterr().err.splitlines() if " · " in line]
    assert sorted(line.partition(" · ")[2] for line in told) == ["a, seed 3 finished", "b, seed 3 finished"]
    # How many have finished when a line is written: where both end at once, the first line may count both.
    assert told[0].startswith(("1/2", "2/2"))
    assert told[1].startswith("2/2")
