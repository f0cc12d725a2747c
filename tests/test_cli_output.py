"""Tables in terminals of any width: numbers stay whole, names can be copied."""

import io

import pytest
from rich.console import Console

from rlplatform.cli_output import print_rows, print_table
from rlplatform.evaluation.metrics import Metrics
from rlplatform.evaluation.scoretable import ScoreTable

RUN = "differentiable_etf-20261121-202104"
PAIR = {
    "policy": "trio-20261121-202958",
    "against": RUN,
    "growth a year": "−12.4 %",
    "Sharpe": "0.82 ± 0.42",
    "verdict": "no edge",
}


@pytest.fixture
def printed(monkeypatch, capsys):
    def printed(columns, print_it=print_table, **row):
        monkeypatch.setenv("COLUMNS", str(columns))
        print_it("A title", [PAIR | row, PAIR | row])
        return capsys.readouterr().out

    return printed


def test_a_wide_terminal_has_one_line_a_row(printed):
    lines = printed(120).splitlines()
    assert len(lines) == 5  # title, headings, rule and two rows
    assert lines[1].split()[:4] == ["policy", "against", "growth", "a"]
    assert all(cell in lines[3] for cell in PAIR.values())


def test_in_a_narrow_one_names_fold_and_numbers_stay_whole(printed):
    text = printed(80)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("−12.4 %") == text.count("0.82 ± 0.42") == 2
    assert RUN not in text  # in two pieces, one below the other
    assert "…" not in text


def test_of_many_texts_each_gives_way_before_a_number_does(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    texts = {name: f"{name}-0123456789-abcde" for name in ("one", "two", "six", "ten")}
    print_table("", [texts | {"Sharpe": "0.82 ± 0.42", "hurdle": "0.31 ± 0.42", "CAGR": "−12.4 %"}])
    out = capsys.readouterr().out
    assert "0.82 ± 0.42  0.31 ± 0.42  −12.4 %" in out
    assert "one-0123456789-abcde" not in out


def test_where_nothing_fits_each_row_is_a_paragraph_under_its_name(printed):
    text = printed(60, print_rows, note="a sentence that needs a good deal of room to be read")
    assert text.splitlines()[1] == "trio-20261121-202958"
    words = " ".join(text.split())
    assert f"against {RUN} · growth a year −12.4 % · Sharpe 0.82 ± 0.42 · verdict no edge · note a sentence" in words
    assert max(map(len, text.splitlines())) <= 60


def test_a_pipe_gets_whole_names_and_brackets_are_no_markup(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table("A [red]title", [PAIR | {"verdict": "[bold] edge"}])
    out = capsys.readouterr().out
    assert RUN in out
    assert "[bold] edge" in out
    assert "A [red]title" in out


def test_the_comparison_gives_names_less_room_before_it_cuts_a_figure():
    figures = dict.fromkeys(Metrics.__dataclass_fields__, 0.1234) | {"bars": 100}
    table = ScoreTable({RUN: Metrics(**figures), "ALL_SPY": Metrics(**figures)}, (RUN,))
    console = Console(width=80, file=io.StringIO())
    console.print(table.to_rich())
    text = console.file.getvalue()
    assert "…" not in text
    assert text.count("0.12±0.12") == 2
    assert "differentiable_etf" in text
