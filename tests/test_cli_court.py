"""`rlplatform compare` and `rlplatform scoreboard` as a user types them."""

import json
import signal
import sys

import pytest

from rlplatform import cli
from tests.experiments.judged_runs import judged_run
from tests.experiments.untrained import untrained_run


@pytest.fixture
def run(monkeypatch, capsys):
    """Type a command; exit code, standard output and standard error."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["rlplatform", *map(str, words)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    yield run
    signal.signal(signal.SIGTERM, before)


def test_compare_prints_tables_and_the_sentence_or_json(run, small_yaml, tmp_path):
    paths = [untrained_run(small_yaml, tmp_path, f"name=run{seed}", seed=seed, judged=False).path for seed in (1, 2)]
    code, out, err = run("compare", *paths)
    assert code == 0, err
    assert "Each pair" in out
    assert "2003-07-01 to 2004-06-30: run" in out
    code, out, _ = run("compare", *paths, "--json")
    assert code == 0
    assert {"verdict", "pairs", "evidence", "seeds", "superiority"} <= set(json.loads(out))


def test_compare_refuses_in_one_line(run, tmp_path):
    code, out, err = run("compare", tmp_path, tmp_path)
    assert code == 2
    assert out == ""
    assert "is not a run" in err
    assert "Traceback" not in err


def test_scoreboard_prints_writes_and_refuses(run, tmp_path):
    judged_run(tmp_path, "policy", sharpe=1.25)
    judged_run(tmp_path, "stopped", sharpe=None, note="s")
    code, out, err = run("scoreboard", tmp_path)
    assert code == 0, err
    assert "policy" in out
    assert "not judged: stopped" in out
    assert "scoreboard.html" in err
    code, out, _ = run("scoreboard", tmp_path, "--metric", "cagr", "--json")
    assert json.loads(out)["metric"] == "cagr"
    assert run("scoreboard", tmp_path / "none")[0] == 2
