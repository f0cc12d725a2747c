"""`rlplatform compare` and `rlplatform scoreboard` as a user types them."""

import json

from tests.experiments.judged_runs import judged_run
from tests.experiments.untrained import untrained_run


def test_compare_prints_tables_and_the_sentence_or_json(typed, small_yaml, tmp_path):
    paths = [untrained_run(small_yaml, tmp_path, f"name=run{seed}", seed=seed, judged=False).path for seed in (1, 2)]
    code, out, err = typed("compare", *paths)
    assert code == 0, err
    assert "Each pair" in out
    assert "2003-07-01 to 2004-06-30: run" in out
    code, out, _ = typed("compare", *paths, "--json")
    assert code == 0
    assert {"verdict", "pairs", "evidence", "seeds", "superiority"} <= set(json.loads(out))


def test_compare_refuses_in_one_line(typed, tmp_path):
    code, out, err = typed("compare", tmp_path, tmp_path)
    assert code == 2
    assert out == ""
    assert "is not a run" in err
    assert "Traceback" not in err


def test_scoreboard_prints_writes_and_refuses(typed, tmp_path):
    judged_run(tmp_path, "policy", sharpe=1.25)
    judged_run(tmp_path, "stopped", sharpe=None, note="s")
    code, out, err = typed("scoreboard", tmp_path)
    assert code == 0, err
    assert "policy" in out
    assert "not judged: stopped" in out
    assert "scoreboard.html" in err
    code, out, _ = typed("scoreboard", tmp_path, "--metric", "cagr", "--json")
    assert json.loads(out)["metric"] == "cagr"
    assert typed("scoreboard", tmp_path / "none")[0] == 2
