"""`rlplatform pipeline` and `rlplatform forecast finetune` as a user types them."""

import json
import re
from pathlib import Path

import pytest

from rlplatform.cli_pipeline import pipeline
from rlplatform.experiments.pipeline_config import load_pipeline
from rlplatform.experiments.pipeline_directory import PipelineDirectory
from tests.conftest import REPOSITORY

SETTINGS = """\
name: stocks
data: {{source: synthetic, market: pair, bars: 700}}
split: {{train: [2000-01-03, 2001-06-30], test: [2001-07-02, 2002-06-30]}}
env: {{id: PairLeverage-v0}}
results_dir: {folder}/results
forecast: {{train: {{context: 32, patch: 8, horizon: 5, min_past: 24}}}}
pipeline: {{}}
"""


@pytest.fixture
def stocks(tmp_path) -> Path:
    path = tmp_path / "stocks.yaml"
    path.write_text(SETTINGS.format(folder=tmp_path), encoding="utf-8")
    return path


def words_of(text):
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["pipeline"], ["CONFIG.yaml", "KEY=VALUE", "--resume", "--skip", "--only", "--json", "pipeline_summary.json"]),
        (["forecast", "finetune"], ["CONFIG.yaml", "--from", "--symbols", "--out", "split.train"]),
        (["forecast", "evaluate"], ["--specialists"]),
    ],
)
def test_help_says_what_each_takes(typed, command, said):
    code, out, _ = typed(*command, "--help")
    assert code == 0
    for text in said:
        assert text in words_of(out)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--only", "pears"], "--only pears: no such stage; expected one of generic, specialists, pairs."),
        (["--skip", "generic", "--skip", "pears"], "--skip pears: no such stage"),
        (["pipeline.pairs.cuont=2"], "unknown key pairs.cuont. Did you mean count?"),
        ([], "data.source = synthetic has no symbols to choose; use folder or bundled."),
        (["--resume"], "no pipeline stocks with these settings in"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(typed, stocks, tmp_path, extra, message):
    code, out, errors = typed("pipeline", stocks, *extra)
    assert (code, out) == (2, "")
    assert message in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "results").exists()


def test_a_file_without_the_block_says_where_one_is(typed, small_yaml):
    code, _, errors = typed("pipeline", small_yaml)
    assert code == 2
    assert "has no pipeline block of keys and values, see tune_configs/pipeline_stocks.yaml" in errors


def test_skip_becomes_a_setting_and_a_directory_goes_on_as_it_began(typed, stocks, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(
        "rlplatform.experiments.pipeline.new_pipeline", lambda asked: begun.append(asked) or PipelineDirectory.create(asked)
    )
    monkeypatch.setattr("rlplatform.experiments.pipeline.run_pipeline", stop)
    code, _, errors = typed("pipeline", stocks, "--skip", "generic", "--skip", "specialists", "seed=4")
    assert code == 130
    assert (begun[0].block.skip, begun[0].base.seed) == (("generic", "specialists"), 4)
    directory = next((tmp_path / "results").iterdir())
    assert f"stopped. Go on with: rlplatform pipeline --resume {directory}" in errors.replace("\n", "")
    assert load_pipeline(directory / "pipeline.yaml").block.skip == ("generic", "specialists")
    assert typed("pipeline", "--resume", directory)[0] == 130
    code, _, errors = typed("pipeline", "--resume", directory, "seed=5")
    assert code == 2
    assert "a pipeline goes on as it began" in words_of(errors)


def stop(directory, only, on_note):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--from", "."], "is no forecaster of `rlplatform forecast train`: it has no forecaster.json"),
        ([], "has no forecaster of stocks. Train one (rlplatform forecast train)"),
        (["--from", "generic", "--symbols", "A,Q"], "--symbols names 'Q'; the prices have A, B."),
        (["--from", "generic", "--out", "full"], "--out full is there and holds something else"),
        (["forecast.finetune.step=3"], "unknown key finetune.step. Did you mean steps?"),
    ],
)
def test_a_finetuning_that_cannot_be_is_one_line(typed, stocks, tmp_path, monkeypatch, extra, message):
    monkeypatch.chdir(tmp_path)
    for folder, file in (("generic", "forecaster.json"), ("full", "other.txt")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text(json.dumps({"train_end": "2001-06-30"}))
    code, _, errors = typed("forecast", "finetune", stocks, *extra)
    assert code == 2
    assert message in errors
    assert not (tmp_path / "results").exists()


def test_the_example_names_what_the_issue_asks_for():
    """Five stocks, three specialists, two pairs, twice the wealth at 6.75 %."""
    found = load_pipeline(REPOSITORY / "tune_configs" / "pipeline_stocks.yaml")
    assert found.base.data.symbols == ("AAPL", "AMZN", "MSFT", "NVDA", "GOOGL")
    assert (found.block.specialists, found.block.pairs.count) == (("AAPL", "AMZN", "MSFT"), 2)
    assert (found.base.env.caps.gross, found.base.env.financing.rate_annual) == (2.0, 0.0675)
    assert set(found.block.allocation) == {"ppo", "differentiable"}
    assert pipeline.__doc__
