"""Pipelines: what they make, in which order, and that nothing finished is made twice. Stages stand in by small folders."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from envs.errors import ConfigError, MarketDataError
from rlplatform.data import load_prices
from rlplatform.evaluation.pair_choice import ChosenPair
from rlplatform.experiments import pipeline as pipelines
from rlplatform.experiments import pipeline_plan
from rlplatform.experiments.config import load_config
from rlplatform.experiments.pipeline import PipelineFailedError, PipelineRun, new_pipeline, run_pipeline
from rlplatform.experiments.pipeline_config import load_pipeline
from rlplatform.experiments.pipeline_directory import PipelineDirectory
from rlplatform.experiments.walkforward_directory import load_walk
from rlplatform.experiments.yaml_text import dump_yaml
from rlplatform.features.forecasts.learned import SIDECAR
from rlplatform.files import write_text
from tests.conftest import REPOSITORY

SYMBOLS = ("KO", "PEP", "XOM")
SETTINGS = """\
name: stocks
seed: 3
data: {{source: folder, path: {prices}, symbols: [KO, PEP, XOM], calendar: null}}
features:
  forecasts:
    horizons: [1, 3]
    columns: [std, fallback]
    draws: 100
    store: {folder}/store
    bootstrap: {{window: 100, min_history: 60}}
    garch: {{window: 200, min_history: 100, refit_bars: 250}}
    chronos: {{context: 32, min_history: 24}}
split: {{train: [2000-06-01, 2002-03-31], validation: [2002-04-01, 2002-06-30], test: [2002-07-01, 2002-12-31]}}
env: {{id: PairLeverage-v0, episode: {{length_bars: 60}}}}
model: {{kind: mlp, layers: [8]}}
training: {{total_env_steps: 512, num_envs_per_env_runner: 16, rollout_length: 32, minibatch_size: 256, num_epochs: 1}}
evaluation: {{interval_iterations: 1, bootstrap: {{resamples: 100}}}}
results_dir: {folder}/results
forecast:
  train:
    {{d_model: 8, num_layers: 1, num_heads: 2, d_ff: 16, context: 32, patch: 8, horizon: 3, min_past: 24, steps: 10}}
  finetune: {{steps: 4, looks: 2, choice_bars: 40, batch_size: 8}}
  backends: [gaussian, bootstrap, chronos]
pipeline: {{{block}}}
"""
BLOCK = "forecasters_until: 2001-06-30, specialists: [KO, PEP], max_concurrent: 1"
PAIR = ChosenPair(symbols=("KO", "PEP"), method="given")


@pytest.fixture(scope="module")
def prices(tmp_path_factory) -> Path:
    """Three stocks over 800 days, each its own file."""
    folder, rng = tmp_path_factory.mktemp("prices"), np.random.default_rng(0)
    dates = pd.date_range("2000-01-03", periods=800, freq="B").append(pd.DatetimeIndex(["2003-06-30"]))
    for symbol in SYMBOLS:
        close = 50 * np.exp(np.cumsum(0.01 * rng.standard_normal(len(dates))))
        pd.DataFrame({"date": dates, "close": close}).to_csv(folder / f"{symbol}.csv", index=False)
    return folder


@pytest.fixture
def settings(tmp_path, prices):
    def write(block: str = BLOCK) -> Path:
        path = tmp_path / "stocks.yaml"
        path.write_text(SETTINGS.format(prices=prices, folder=tmp_path, block=block), encoding="utf-8")
        return path

    return write


# The file


def test_the_block_is_no_part_of_a_training_and_the_forecast_block_may_stand_beside_it(settings):
    assert load_config(settings()).name == "stocks"
    assert load_pipeline(settings()).forecast.finetune.choice_bars == 40


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("specialist: [KO]", r"stocks.yaml: pipeline: unknown key specialist\. Did you mean specialists"),
        ("pairs: {choose: clusters}", r"pairs\.choose = 'clusters'; expected one of .* Did you mean 'clustering'|clustering"),
        ("pairs: {given: [[KO, KO]]}", r"given names \[KO, KO\]; a pair is two different"),
        ("pairs: {given: [[KO, PEP], [PEP, KO]]}", "names a pair twice"),
        ("skip: [genric]", r"pipeline\.skip = 'genric'; .* Did you mean generic"),
        ("skip: [generic, specialists, pairs]", "leaves nothing to do"),
        ("skip: [generic], stages: {generic: X}", "both name generic"),
        ("forecasters_until: 2005-01-01", r"forecasters_until = 2005-01-01 is not inside split\.train"),
        ("allocation: {ppo: {data.symbols: [KO]}}", r"allocation\.ppo\.data\.symbols cannot be changed"),
        ("allocation: {ppo: {training.learing_rate: 1}}", r"allocation\.ppo: unknown key training\.learing_rate"),
        ("allocation: {'a b': {}}", "becomes a folder's name"),
        ("seeds: [1, 1]", "expected different whole numbers"),
    ],
)
def test_a_mistake_in_the_block_is_one_line(settings, block, message):
    with pytest.raises(ConfigError, match=message):
        load_pipeline(settings(block))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["pipeline.pairs.given=[[KO, PEPP]]"], r"pipeline\.pairs\.given names 'PEPP'; the prices have .* Did you mean PEP\?"),
        (["pipeline.specialists=[KOO, PEP]"], r"pipeline\.specialists names 'KOO'.* Did you mean KO\?"),
        (["data.symbols=[KO]", "pipeline.specialists=[]"], r"data\.symbols has 1; a pair needs two"),
        (["pipeline.specialists=[KO]"], r"1 symbols \(KO\); a pair needs two"),
        (["pipeline.skip=[generic]"], r"specialists go on from a generic forecaster, and that stage is left out"),
        (["pipeline.stages.generic=nowhere"], r"nowhere is no forecaster"),
        (["pipeline.stages.specialists=nowhere"], "nowhere holds no specialists"),
        (["forecast.train.horizon=2"], r"horizons reach 3 bars; forecast\.train\.horizon = 2"),
        (["env={id: MultiAssetRegime-v0}"], "three|3"),
    ],
)
def test_what_does_not_suit_the_prices_is_said_before_anything_starts(settings, tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        new_pipeline(load_pipeline(settings(), overrides))
    assert not (tmp_path / "results").exists()


def test_without_the_extra_the_message_says_how_to_get_it_or_to_do_without(settings, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'rlplatform\[forecast\]', or leave them out: --skip generic"):
        new_pipeline(load_pipeline(settings()))


# What is trained


def test_policies_learn_from_the_days_after_those_the_forecasters_learnt_from(settings):
    pipeline = load_pipeline(settings())
    config = pipeline.pair_config(PAIR, "ppo", 7, pipeline.forecasts, Path("runs"))
    assert (str(config.split.train[0]), str(config.split.train[1])) == ("2001-07-01", "2002-03-31")
    assert config.data.symbols == ("KO", "PEP")
    assert (config.seed, config.name, config.results_dir) == (7, "stocks-KO-PEP-ppo", "runs")
    assert config.tracking.group == "stocks"
    assert (config.env.caps.gross, config.env.financing.rate_annual) == (2.0, 0.0675)
    bare = load_pipeline(settings("skip: [generic, specialists], forecasters_until: 2001-06-30"))
    assert str(bare.pair_config(PAIR, "ppo", 7, None, Path()).split.train[0]) == "2000-06-01"  # nobody else learns from them


def test_an_allocation_replaces_settings_and_another_algorithm_begins_with_its_own(settings):
    arms = (
        "{slow: {training.learning_rate: 1e-5}, grad: {training.algorithm: differentiable}, bare: {features.forecasts: null}}"
    )
    pipeline = load_pipeline(settings(f"allocation: {arms}"))
    slow, grad, bare = (pipeline.pair_config(PAIR, arm, 0, pipeline.forecasts, Path()) for arm in ("slow", "grad", "bare"))
    assert (slow.training.learning_rate, slow.training.total_env_steps) == (1e-5, 512)
    assert grad.training.algorithm == "differentiable"
    assert bare.features.forecasts is None
    assert grad.features.forecasts == pipeline.forecasts


def test_pairs_are_chosen_on_training_rows_alone(settings):
    pipeline = load_pipeline(settings("pairs: {choose: cointegration, count: 3}"))
    prices = load_prices(pipeline.base.data)
    later = prices.dates > np.datetime64("2002-03-31")
    close = prices.close.copy()
    close[later, 0] = np.linspace(5, 500, later.sum())
    moved = dataclasses.replace(prices, close=close)
    assert pipeline.pairs(moved) == pipeline.pairs(prices)
    early = prices.close.copy()
    early[~later, 0] = np.linspace(5, 500, (~later).sum())
    assert pipeline.pairs(dataclasses.replace(prices, close=early)) != pipeline.pairs(prices)


# Order, resumption, summary: stages stand in


def test_the_walk_forward_of_a_pair_is_read_back_as_it_was_written(settings, tmp_path):
    pipeline = load_pipeline(settings(f"{BLOCK}, seeds: [4, 5], walkforward: {{train_years: 0.5, test_months: 6}}"))
    config = pipeline.pair_config(PAIR, "ppo", 4, pipeline.forecasts, tmp_path)
    write_text(tmp_path / "walkforward.yaml", dump_yaml(pipeline.walk(config).content))
    walk = load_walk(tmp_path / "walkforward.yaml")
    assert (walk.base, walk.seeds) == (config, (4, 5))
    dates = load_prices(config.data).dates
    folds = walk.folds(dates)
    assert len(folds) >= 2
    assert str(dates[folds[0].train[0]])[:10] == "2001-07-02"  # not a day of the forecasters'


class Stages:
    """Stand-ins for the stages' functions: each leaves its folder and its record, and says that it was called."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.configs: dict[str, object] = {}
        self.broken: set[str] = set()

    def _make(self, item, figures, about=None):
        self.calls.append(item.name)

        def work():
            if item.name in self.broken:
                raise MarketDataError("the cable was cut.")
            item.path.mkdir(parents=True, exist_ok=True)
            (item.path / SIDECAR).write_text(json.dumps({"train_end": "2001-06-30", "training": {"horizon": 3}}))
            return figures

        item.make(about or {}, work)

    def generic(self, pipeline, path):
        self._make(PipelineDirectory(path).generic(), {"sha256": "a" * 64, "metrics": {"loss": 1.0}})

    def specialist(self, pipeline, path, symbol, parent):
        assert (Path(parent) / SIDECAR).is_file()
        self._make(PipelineDirectory(path).specialist(symbol), {"sha256": "b" * 64, "metrics": {"chosen_step": 4}})

    def judge(self, pipeline, path, generic, models):
        self._make(PipelineDirectory(path).judgement(), {"metrics": {"scores": []}})

    def walk(self, pipeline, path, pair, config, arm):
        assert pipeline.walk(config).seeds == pipeline.seeds
        self._judged(PipelineDirectory(path).walk(pair, arm), config, {"pair": list(pair.symbols), "allocation": arm})

    def pair(self, pipeline, path, pair, config, arm):
        item = PipelineDirectory(path).training(pair, arm, config.seed)
        self.configs[item.name] = config
        self._judged(item, config, {"pair": list(pair.symbols), "allocation": arm, "seed": config.seed})

    def _judged(self, item, config, about):
        edge = {
            "baseline": "EQUAL_WEIGHT",
            "growth": -0.02,
            "growth_low": -0.05,
            "growth_high": 0.01,
            "verdict": "no edge shown",
        }
        test = {"sharpe": 0.1 * config.seed, "max_drawdown": -0.2}
        figures = {"sha256": "c" * 64, "metrics": {"test": test}, "verdict": "Nothing.", "period": ["2002-07-01", "2002-12-31"]}
        self._make(item, figures | {"baselines": {"EQUAL_WEIGHT": {"sharpe": 0.5}}, "edges": [edge]}, about)


@pytest.fixture
def stages(monkeypatch):
    """Stages in this process, without Ray and without forecasters."""
    made = Stages()

    def side_by_side(self, tasks):
        for task in tasks:
            try:
                task.function(self.pipeline, self.directory.path, *task.arguments)
            except MarketDataError:
                self._told(task.item)

    names = {"make_generic": "generic", "make_specialist": "specialist", "judge_forecasters": "judge", "train_pair": "pair"}
    names["walk_pair"] = "walk"
    for theirs, ours in names.items():
        monkeypatch.setattr(pipelines, theirs, getattr(made, ours))
    monkeypatch.setattr(PipelineRun, "_side_by_side", side_by_side)
    monkeypatch.setattr(PipelineRun, "_store_forecasts", lambda self, tasks: None)
    monkeypatch.setattr(pipeline_plan, "_check_trainings", lambda pipeline, pairs: None)  # tested above, and takes its time
    monkeypatch.setattr(pipelines, "ray_session", lambda processes: contextlib.nullcontext())
    return made


def begun(settings, *overrides, block=BLOCK):
    return new_pipeline(load_pipeline(settings(block), overrides))


def test_the_stages_follow_each_other_and_the_summary_lists_all_of_it(settings, stages):
    directory = begun(settings, "pipeline.seeds=[1, 2, 4]")
    summary = run_pipeline(directory)
    trainings = [f"KO-PEP ppo seed {seed}" for seed in (1, 2, 4)]
    assert stages.calls == ["generic", "KO", "PEP", "evaluation", *trainings]
    written = json.loads(directory.summary.read_text())
    assert [item["status"] for item in written["items"]] == ["finished"] * 7
    assert [item.get("sha256", "")[:1] for item in written["items"]] == ["a", "b", "b", "", "c", "c", "c"]
    assert written["stages"] == {"generic": "finished", "specialists": "finished", "pairs": "finished"}
    assert all(item["seconds"] >= 0 for item in written["items"])
    assert written["scores"][0]["sharpe"] == pytest.approx(0.2)  # the seed in the middle
    assert (written["status"], written["config"]["name"]) == ("finished", "stocks")
    assert summary.sentence.startswith("Of 1 judged paths 0 beat EQUAL_WEIGHT, 0 lose to it, 1 show no edge")
    text = (directory.path / "pipeline_summary.md").read_text()
    assert "| KO-PEP | ppo | 0.20 (0.10 to 0.40) | 0.50 | 0.50 | −2.0 (−5.0 to +1.0) | no edge shown |" in text
    assert (directory.path / "pairs.png").stat().st_size > 10_000


def test_each_pair_and_allocation_has_its_walk_forward_where_one_is_asked_for(settings, stages):
    walk, arms = "pipeline.walkforward={train_years: 0.5, test_months: 6}", "pipeline.allocation={one: {}, two: {}}"
    directory = begun(settings, walk, arms, "pipeline.skip=[generic, specialists]")
    stages.broken = {"KO-PEP one walk-forward"}
    with pytest.raises(PipelineFailedError, match=r"pairs, KO-PEP one walk-forward: MarketDataError"):
        run_pipeline(directory)
    walks = ["KO-PEP one walk-forward", "KO-PEP two walk-forward"]
    assert stages.calls == ["KO-PEP one seed 3", "KO-PEP two seed 3", *walks]
    stages.broken, stages.calls = set(), []
    summary = run_pipeline(directory)
    assert stages.calls == walks[:1]
    assert sorted(score.what for score in summary.scores) == ["one", "one walk-forward", "two", "two walk-forward"]


def test_pairs_get_the_forecasts_of_their_specialists_and_the_generic_one_for_others(settings, stages):
    directory = begun(settings, "pipeline.pairs.given=[[KO, XOM]]")
    run_pipeline(directory)
    forecasts = stages.configs["KO-XOM ppo seed 3"].features.forecasts
    assert forecasts.backend == "chronos"
    assert forecasts.chronos.path == str(directory.generic().path)
    assert dict(forecasts.chronos.paths) == {"KO": str(directory.specialist("KO").path)}


def test_what_is_finished_is_not_made_again_and_what_failed_is(settings, stages):
    directory = begun(settings)
    stages.broken = {"KO"}
    with pytest.raises(
        PipelineFailedError, match=r"specialists, KO: MarketDataError: the cable was cut\. Once that is put right"
    ):
        run_pipeline(directory)
    assert stages.calls == ["generic", "KO", "PEP"]  # its neighbour was made all the same; later stages were not
    written = json.loads(directory.summary.read_text())
    assert (written["status"], written["stages"]["specialists"], written["stages"]["pairs"]) == ("failed", "failed", "waiting")
    stages.broken, stages.calls = set(), []
    run_pipeline(PipelineDirectory.newest_of(load_pipeline(settings())))
    assert stages.calls == ["KO", "evaluation", "KO-PEP ppo seed 3"]
    assert directory.specialist("KO").record()["attempts"] == 2
    stages.calls = []
    run_pipeline(directory)
    assert stages.calls == []
    assert directory.manifest()["status"] == "finished"


def test_one_stage_alone_needs_those_before_it(settings, stages):
    directory = begun(settings)
    with pytest.raises(ConfigError, match=r"--only pairs: the stage generic before it is not finished"):
        run_pipeline(directory, only="pairs")
    run_pipeline(directory, only="generic")
    assert stages.calls == ["generic"]
    assert directory.manifest()["status"] == "interrupted"
    run_pipeline(directory, only="specialists")
    run_pipeline(directory)
    assert stages.calls == ["generic", "KO", "PEP", "evaluation", "KO-PEP ppo seed 3"]


def test_stages_can_be_left_out_or_come_from_elsewhere(settings, stages):
    first = begun(settings)
    run_pipeline(first)
    stages.calls = []
    given = [f"pipeline.stages.generic={first.path / 'generic'}", f"pipeline.stages.specialists={first.path / 'specialists'}"]
    second = begun(settings, *given)
    summary = run_pipeline(second)
    assert stages.calls == ["KO-PEP ppo seed 3"]
    assert dict(summary.stages) == {"generic": "given", "specialists": "given", "pairs": "finished"}
    forecasts = stages.configs["KO-PEP ppo seed 3"].features.forecasts
    assert dict(forecasts.chronos.paths) == {symbol: str(first.specialist(symbol).path) for symbol in ("KO", "PEP")}
    stages.calls = []
    run_pipeline(begun(settings, "pipeline.skip=[generic, specialists]"))
    assert stages.calls == ["KO-PEP ppo seed 3"]
    assert stages.configs["KO-PEP ppo seed 3"].features.forecasts.backend == "core"
    stages.calls = []
    summary = run_pipeline(begun(settings, "pipeline.skip=[pairs]"))
    assert stages.calls == ["generic", "KO", "PEP", "evaluation"]
    assert summary.sentence == "No pair has been judged."


def test_specialists_from_elsewhere_must_know_the_pairs_where_no_generic_one_speaks(settings, stages):
    first = begun(settings)
    run_pipeline(first)
    given = [f"pipeline.stages.specialists={first.path / 'specialists'}", "pipeline.skip=[generic]"]
    with pytest.raises(ConfigError, match=r"specialists has none of XOM, and no generic forecaster speaks of it"):
        begun(settings, *given, "pipeline.pairs.given=[[KO, XOM]]")


def test_other_prices_are_not_taken_for_the_same_pipeline(settings, stages):
    directory = begun(settings)
    directory.write_manifest({"tape_sha256": "0" * 64})
    with pytest.raises(ConfigError, match="prices or features are not those it began with"):
        run_pipeline(directory)
    assert stages.calls == []


# In processes of their own


def command(*arguments, cwd):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        [sys.executable, "-m", "rlplatform.cli", "pipeline", *map(str, arguments)],
        cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.mark.nightly
@pytest.mark.slow
def test_a_killed_pipeline_goes_on_and_makes_nothing_twice(settings, tmp_path):
    """SIGKILL of the driver and its tasks while the second training is under way: two forecasters, one run are left alone."""
    pytest.importorskip("chronos")
    path = settings(f"{BLOCK}, seeds: [1, 2]")
    first, end = command(path, cwd=tmp_path), time.monotonic() + 400
    while not any(tmp_path.glob("results/*/pairs/KO-PEP/ppo-seed2/item.json")):
        assert first.poll() is None, first.stderr.read()
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    first.stdout.close(), first.stderr.close()
    directory = PipelineDirectory.newest_of(load_pipeline(path))
    items = [directory.generic(), *map(directory.specialist, ("KO", "PEP")), directory.training(PAIR, "ppo", 1)]
    before = [item.file.stat().st_mtime_ns for item in items]
    assert [item.status for item in items] == ["finished"] * 4
    assert directory.training(PAIR, "ppo", 2).status == "running"
    time.sleep(3)  # tasks that outlive their driver for a moment

    second = command("--resume", directory.path, "--json", cwd=tmp_path)
    output, errors = second.communicate(timeout=400)
    assert second.returncode == 0, errors
    answer = json.loads(output)
    assert [item.file.stat().st_mtime_ns for item in items] == before
    assert answer["status"] == "finished"
    assert directory.training(PAIR, "ppo", 2).record()["attempts"] == 2
    assert [score["pair"] for score in answer["scores"]] == ["KO-PEP"]
    generic = answer["items"][0]
    assert (Path(generic["checkpoint"]) / "model.safetensors").is_file()
    assert len(generic["sha256"]) == 64
    assert [row["symbol"] for row in answer["items"][3]["metrics"]["specialists_against_generic"]][:3] == ["all", "KO", "PEP"]
    run = directory.training(PAIR, "ppo", 1).path
    for file in ("config.yaml", "manifest.json", "policy/scaler.json", "report/report.md"):
        assert (run / file).is_file(), file
