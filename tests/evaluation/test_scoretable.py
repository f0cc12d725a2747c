import io
import json

import numpy as np
from rich.console import Console

from rlplatform.evaluation.scoretable import ScoreTable, percent
from tests.evaluation.conftest import track_of

NOISE = np.random.default_rng(0).standard_normal(300) * 0.01
NOISE -= NOISE.mean()


def table():
    tracks = [
        track_of(np.zeros(300), "CASH"),
        track_of(NOISE, "FLAT"),
        track_of(NOISE + 0.001, "PPO"),
        track_of(NOISE - 0.001, "BAD"),
    ]
    return ScoreTable.of(tracks, policies=["PPO"])


def test_rows_are_sorted_by_sharpe_and_those_without_one_come_last():
    assert list(table().metrics) == ["PPO", "FLAT", "BAD", "CASH"]


def test_json_has_a_policies_list_of_named_rows_without_nan():
    content = table().to_dict()
    text = json.dumps(content, allow_nan=False)
    assert [row["role"] for row in json.loads(text)["policies"]] == ["policy", "baseline", "baseline", "baseline"]
    assert content["policies"][0]["name"] == "PPO"
    assert content["policies"][3]["sharpe"] is None
    assert {
        "total_return",
        "cagr",
        "sharpe",
        "sharpe_se",
        "sortino",
        "max_drawdown",
        "cvar_5",
        "turnover_per_day",
        "cost_paid",
    } <= set(content["policies"][0])


def test_markdown_highlights_the_policy_and_has_as_many_cells_in_every_row():
    lines = table().to_markdown().splitlines()
    assert lines[2].startswith("| **PPO** | **+")
    assert len({line.count("|") for line in lines}) == 1
    assert lines[-1].startswith("| CASH | 0.0 % |")


def test_the_terminal_table_fits_eighty_columns_without_cutting_a_figure():
    tracks = [track_of(NOISE + 0.006, "REGIME_SMALLCAP_TILT"), track_of(NOISE - 0.002, "INVERSE_VOLATILITY")]
    screen = io.StringIO()
    Console(file=screen, width=80).print(ScoreTable.of(tracks, policies=["REGIME_SMALLCAP_TILT"]).to_rich("Out of sample"))
    text = screen.getvalue()
    assert "…" not in text
    assert "REGIME_SMALLCAP_TILT" in text
    assert max(map(len, text.splitlines())) <= 80


def test_percentages_carry_a_true_minus_and_no_negative_zero():
    assert percent(-0.0123) == "−1.2 %"
    assert percent(0.5, sign=True) == "+50.0 %"
    assert percent(-1e-9, sign=True) == "0.0 %"
    assert percent(float("nan")) == "–"
