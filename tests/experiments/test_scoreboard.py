"""The scoreboard: settings by the median of their seeds, and no rank for what was judged otherwise."""

import json
import re

import pytest
from numpy.testing import assert_allclose

from envs.errors import ConfigError
from rlplatform.evaluation.deflated import Trials, deflated_from_error
from rlplatform.experiments.scoreboard import make_scoreboard
from tests.experiments.judged_runs import judged_run, judged_walk


def ranks(board):
    return {setting.name: setting.rank for setting in board.standings}


def test_runs_are_ranked_by_sharpe_and_those_never_judged_are_named(tmp_path):
    judged_run(tmp_path, "low", sharpe=0.2, note="l")
    judged_run(tmp_path, "high", sharpe=1.2, note="h")
    judged_run(tmp_path, "stopped", sharpe=None, note="s")
    board = make_scoreboard(tmp_path)
    assert ranks(board) == {"high": 1, "low": 2}
    assert [run.row["run"] for run in board.unjudged] == ["stopped"]


def test_a_setting_is_its_median_seed_and_never_its_best(tmp_path):
    for seed, sharpe in enumerate([0.1, 0.3, 9.0]):
        judged_run(tmp_path, f"lucky-{seed}", sharpe=sharpe, seed=seed, note="l")
    judged_run(tmp_path, "steady", sharpe=0.5, note="s")
    board = make_scoreboard(tmp_path)
    assert ranks(board) == {"steady": 1, "lucky": 2}
    lucky = board.to_dict()["settings"][1]
    assert (lucky["seeds"], lucky["median"], lucky["highest"]) == (3, 0.3, 9.0)
    assert "0.30 (0.10 to 9.00)" in board.rows()[1].values()


def test_other_days_and_other_costs_are_marked_and_get_no_rank(tmp_path):
    judged_run(tmp_path, "one", sharpe=0.2, note="1")
    judged_run(tmp_path, "two", sharpe=0.3, note="2")
    judged_run(tmp_path, "cheap", sharpe=5.0, costs=0.0)
    judged_run(tmp_path, "late", sharpe=6.0, start="2023-01-01")
    board = make_scoreboard(tmp_path)
    assert ranks(board) == {"two": 1, "one": 2, "late": None, "cheap": None}
    notes = {setting.name: setting.not_comparable for setting in board.standings}
    assert notes["cheap"] == "not comparable: other costs"
    assert notes["late"] == "not comparable: other days"
    assert notes["one"] is None


def test_walk_forwards_are_ranked_among_themselves_by_the_median_of_their_seeds(tmp_path):
    judged_run(tmp_path, "one", sharpe=0.2, note="1")
    judged_run(tmp_path, "two", sharpe=0.3, note="2")
    judged_walk(tmp_path, "lucky", sharpes={0: 0.1, 1: 0.2, 2: 5.0}, train_years=3)
    judged_walk(tmp_path, "steady", sharpes={0: 0.5, 1: 0.6, 2: 0.7})
    judged_walk(tmp_path, "cheap", sharpes={0: 9.0}, seeds=[0], costs=0.0)
    judged_walk(tmp_path, "begun", seeds=[0], train_years=7)
    board = make_scoreboard(tmp_path)
    assert [(s.kind, s.name, s.rank) for s in board.standings] == [
        ("run", "two", 1), ("run", "one", 2),
        ("walk-forward", "steady", 1), ("walk-forward", "lucky", 2), ("walk-forward", "cheap", None),
    ]  # fmt: skip
    assert board.standings[-1].not_comparable == "not comparable: other costs"
    assert [run.row["run"] for run in board.unjudged] == ["begun#seed0"]
    assert "0.60 (0.50 to 0.70)" in board.rows()[2].values()
    assert board.rows()[2]["kind"] == "walk-forward"
    assert "walk-forward" in (tmp_path / "scoreboard.html").read_text()


def test_the_deflated_ratio_counts_the_settings_of_the_table(tmp_path):
    for number in range(4):
        judged_run(tmp_path, f"setting{'abcd'[number]}", sharpe=0.2 * number, note=str(number))
    best = make_scoreboard(tmp_path).standings[0].runs[0]
    assert_allclose(best.deflated, deflated_from_error(0.6, 0.5, 1_000, Trials(count=4)), rtol=1e-9)


def test_metrics_where_less_is_better_are_ranked_the_other_way(tmp_path):
    judged_run(tmp_path, "busy", turnover_per_day=0.9, note="b")
    judged_run(tmp_path, "calm", turnover_per_day=0.1, note="c")
    judged_run(tmp_path, "unknown", turnover_per_day=None, note="u")
    assert ranks(make_scoreboard(tmp_path, "turnover_per_day")) == {"calm": 1, "busy": 2, "unknown": None}
    with pytest.raises(ConfigError, match=r"metric = 'sharp'; expected one of total_return, .*deflated_sharpe"):
        make_scoreboard(tmp_path, "sharp")


def test_three_files_are_written_whole_and_say_the_same(tmp_path):
    judged_run(tmp_path, "policy", sharpe=1.25)
    board = make_scoreboard(tmp_path)
    written = json.loads((tmp_path / "scoreboard.json").read_text())
    assert written == json.loads(json.dumps(board.to_dict()))
    assert "| 1 | policy | 1.25 |" in (tmp_path / "scoreboard.md").read_text()
    assert "1.25" in (tmp_path / "scoreboard.html").read_text()
    assert not list(tmp_path.glob(".*"))


def test_the_page_needs_no_network_knows_dark_and_phones_and_escapes_names(tmp_path):
    judged_run(tmp_path, "<b>bold&", sharpe=1.0)
    make_scoreboard(tmp_path)
    page = (tmp_path / "scoreboard.html").read_text()
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    assert "prefers-color-scheme: dark" in page
    assert "max-width: 40rem" in page
    assert 'name="viewport"' in page
    assert "&lt;b&gt;bold&amp;" in page
    assert "<b>bold" not in page


def test_an_empty_folder_has_an_empty_scoreboard(tmp_path):
    assert make_scoreboard(tmp_path).standings == ()
    assert "None yet." in (tmp_path / "scoreboard.md").read_text()
