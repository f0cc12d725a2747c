"""`rlplatform explain` and `rlplatform stress` as a user types them."""

import json
import signal
import sys

import pytest

from rlplatform import cli
from tests.experiments.untrained import untrained_run


@pytest.fixture(scope="module")
def path(small_yaml, tmp_path_factory):
    return untrained_run(small_yaml, tmp_path_factory.mktemp("results"), judged=False).path


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


def test_explain_prints_effects_and_contributions_or_json(run, path):
    code, out, err = run("explain", path, "--permutations", "4")
    assert code == 0, err
    for part in ("own weights", "moves its weights most", "Where return and risk came from", "2003", "of the risk"):
        assert part in out
    code, out, _ = run("explain", path, "--permutations", "4", "--json")
    assert code == 0
    assert set(json.loads(out)) == {"run", "decisions", "result"}


def test_stress_prints_losses_or_json(run, path):
    code, out, err = run("stress", path, "--paths", "1", "--bars", "30")
    assert code == 0, err
    assert "shock_2008" in out
    assert "On the worst of" in out
    assert "A scenario is a question, not a forecast" in err
    code, out, _ = run("stress", path, "--paths", "1", "--bars", "30", "--json")
    assert code == 0
    assert json.loads(out)["config"]["bars"] == 30


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("explain", "."), "is not a run"),
        (("stress", "."), "is not a run"),
        (("report", "."), "is not a run"),
        (("benchmark", "none.yaml"), "none.yaml"),
    ],
)
def test_mistakes_are_one_line(run, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_bad_numbers_are_refused_before_any_work(run, path):
    for words in (("explain", path, "--permutations", "5"), ("stress", path, "--paths", "0")):
        code, _, err = run(*words)
        assert code == 2
        assert "expected" in err
