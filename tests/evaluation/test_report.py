import json

import numpy as np
import pytest

from rlplatform.evaluation import report
from rlplatform.evaluation.significance import BootstrapConfig
from rlplatform.evaluation.verdict import judge
from tests.evaluation.conftest import track_of

RNG = np.random.default_rng(0)
MARKET = 0.01 * RNG.standard_normal(120)


def verdict(**given):
    policy = track_of(
        MARKET + 0.002 * RNG.standard_normal(120), "PPO", actions=np.arange(120) % 3, weights=np.full((120, 1), 0.5)
    )
    baselines = [track_of(MARKET, "ALL_SPY"), track_of(np.zeros(120), "CASH")]
    curve = [{"env_steps": np.int64(i), "episode_return_mean": np.float64(i), "validation_sharpe": 0.1 * i} for i in range(4)]
    return judge(policy, baselines, bootstrap=BootstrapConfig(resamples=100), **({"learning_curve": curve} | given))


def test_a_report_is_text_json_and_pictures_and_leaves_no_drafts(tmp_path):
    path = report.write_report(tmp_path / "report", verdict(action_names=["A", "B", "C"], notes=["Costs: 5 bp."]))
    assert path == tmp_path / "report" / "report.md"
    assert sorted(file.name for file in path.parent.iterdir()) == [
        *("actions.png", "drawdown.png", "equity.png", "learning_curve.png", "report.json", "report.md", "weights.png"),
    ]
    for picture in path.parent.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_first_sentence_of_the_report_is_the_verdict(tmp_path):
    found = verdict()
    text = report.write_report(tmp_path, found).read_text()
    assert text.startswith(found.sentence + "\n")
    assert "no edge shown" in found.sentence
    assert "## Regression gate" in text
    assert "![Drawdown](drawdown.png)" in text


def test_the_json_report_is_strict_json_and_equals_the_verdict(tmp_path):
    found = verdict()
    content = json.loads((report.write_report(tmp_path, found).parent / "report.json").read_text())
    assert content["verdict"] == found.sentence
    assert content["learning_curve"][2]["env_steps"] == 2
    assert {row["name"] for row in content["policies"]} == {"PPO", "ALL_SPY", "CASH"}


def test_every_row_of_a_table_in_the_report_has_the_cells_of_its_header(tmp_path):
    text = report.write_report(tmp_path, verdict()).read_text()
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1


def test_a_second_report_replaces_the_first_with_its_pictures(tmp_path):
    report.write_report(tmp_path, verdict())
    report.write_report(tmp_path, verdict(learning_curve=()))
    assert not (tmp_path / "learning_curve.png").exists()


def test_a_report_that_cannot_be_rendered_leaves_the_old_one_whole(tmp_path, monkeypatch):
    before = report.write_report(tmp_path, verdict()).read_text()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(report, "render_markdown", fail)
    with pytest.raises(OSError, match="disk full"):
        report.write_report(tmp_path, verdict())
    assert (tmp_path / "report.md").read_text() == before
    assert not list(tmp_path.glob(".*"))
