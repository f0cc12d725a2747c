"""`rlplatform explain` and `rlplatform stress` as a user types them."""

import json

import pytest

from tests.experiments.untrained import untrained_run


@pytest.fixture(scope="module")
def path(small_yaml, tmp_path_factory):
    return untrained_run(small_yaml, tmp_path_factory.mktemp("results"), judged=False).path


def test_explain_prints_effects_and_contributions_or_json(typed, path):
    code, out, err = typed("explain", path, "--permutations", "4")
    assert code == 0, err
    for part in ("own weights", "moves its weights most", "Where return and risk came from", "2003", "of the risk"):
        assert part in out
    code, out, _ = typed("explain", path, "--permutations", "4", "--json")
    assert code == 0
    assert set(json.loads(out)) == {"run", "decisions", "result"}


def test_stress_prints_losses_or_json(typed, path):
    code, out, err = typed("stress", path, "--paths", "1", "--bars", "30")
    assert code == 0, err
    assert "shock_2008" in out
    assert "On the worst of" in out
    assert "A scenario is a question, not a forecast" in err
    code, out, _ = typed("stress", path, "--paths", "1", "--bars", "30", "--json")
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
def test_mistakes_are_one_line(typed, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = typed(*words)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_bad_numbers_are_refused_before_any_work(typed, path):
    for words in (("explain", path, "--permutations", "5"), ("stress", path, "--paths", "0")):
        code, _, err = typed(*words)
        assert code == 2
        assert "expected" in err
