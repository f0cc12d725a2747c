"""The commands as a user types them: what they print where, and how they end."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version

import pytest

from tests.conftest import REPOSITORY

COMMAND = [sys.executable, "-m", "rlplatform.cli"]


def words_of(text):
    """Without the frames and line breaks of rich."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


# Help


def test_help_names_every_command(typed):
    code, out, _ = typed("--help")
    assert code == 0
    for command in ("train", "evaluate", "baselines", "envs", "data", "--version"):
        assert command in out


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["train"], ["CONFIG.yaml", "KEY=VALUE", "--resume", "RUN_DIR", "Ctrl-C"]),
        (["evaluate"], ["RUN_DIR", "--prices", "--start", "--end", "--check", "--report", "--json"]),
        (["baselines"], ["--prices", "--symbols", "--costs-bps", "in basis points", "--calendar", "--json"]),
        (["envs"], ["--json", "observation, action, reward terms"]),
        (["data"], ["list", "check", "download"]),
        (["data", "check"], ["FOLDER", "--calendar"]),
        (["data", "download"], ["SYMBOLS", "--path"]),
    ],
)
def test_each_commands_help_says_what_it_takes(typed, command, said):
    code, out, _ = typed(*command, "--help")
    assert code == 0
    for text in said:
        assert text in words_of(out)


def test_version_is_that_of_the_package(typed):
    assert typed("--version") == (0, f"rlplatform {version('rlplatform')}\n", "")


# Mistakes: one line, exit code 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "none.yaml"], "ConfigError: none.yaml: cannot read it (No such file or directory)"),
        (["train", "{small}", "training.learing_rate=1"], "unknown key training.learing_rate. Did you mean learning_rate?"),
        (["train", "{small}", "training.num_epochs=many"], "training.num_epochs = 'many'; expected a whole number."),
        (["train", "{small}", "env.costs.proportional_bps=0.0005"], "it is in basis points. Did you mean 5?"),
        (["train", "{small}", "env.id=Portfolio-v9"], "env.id = 'Portfolio-v9'; expected one of 'Portfolio-v0'"),
        (["train", "{small}", "env.id=PairLeverage-v0"], "PairLeverage-v0 trades two stocks; data.symbols gives 1: MOM."),
        (["train", "{small}", "split.test=[2030-01-01,2031-01-01]"], "split.test = [2030-01-01, 2031-01-01] holds 0 of"),
        (["train", "{small}", "seed"], "override 'seed'; expected key=value"),
        (["train", "--resume", "{here}"], "is not a run: it has no config.yaml"),
        (["train", "--resume", "{run}", "seed=5"], "only training.total_env_steps may change"),
        (["evaluate", "{here}"], "is not a run: it has no config.yaml"),
        (["evaluate", "{run}", "--start", "soon"], "period.start = 'soon' is not a date; expected one such as 2015-01-31."),
        (["evaluate", "{run}", "--start", "2060-01-01"], "Choose dates inside"),
        (["evaluate", "{run}", "--prices", "{here}/nothing"], "nothing does not exist; expected a folder of CSV or Parquet"),
        (["baselines", "--symbols", "KO,PEPS"], "has no 'PEPS'; it has AAPL"),
        (["baselines", "--costs-bps", "0.0005"], "looks like a fraction; it is in basis points. Did you mean 5?"),
        (["baselines", "--start", "2005-01-01", "--end", "2001-01-01"], "is after end = 2001-01-01. Swap them."),
        (["data", "check", "{here}/nothing"], "nothing does not exist"),
    ],
)
def test_a_mistake_is_one_line_on_standard_error_and_exit_code_2(typed, small_yaml, trained, tmp_path, words, message):
    given = [word.format(small=small_yaml, run=trained.path, here=tmp_path) for word in words]
    runs = sorted(trained.path.parent.iterdir())
    code, out, err = typed(*given)
    assert code == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert re.match(r"\w+Error: ", err.removeprefix("reading prices …\n"))
    assert err.removeprefix("reading prices …\n").count("\n") == 1
    assert sorted(trained.path.parent.iterdir()) == runs  # and no half-made run is left behind


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "give a CONFIG.yaml, or --resume RUN_DIR"),
        (["train", "a.yaml", "--resume", "b"], "give a.yaml or --resume, not both"),
        (["nonsense"], "No such command 'nonsense'"),
        (["baselines", "--costs-bps", "cheap"], "Invalid value for '--costs-bps': Input should be a valid number"),
        (["data", "download", ",", "--path", "x"], "name at least one symbol"),
    ],
)
def test_a_command_that_cannot_be_understood_ends_with_2(typed, words, message):
    code, out, err = typed(*words)
    assert (code, out) == (2, "")
    assert message in words_of(err)


# Tables and JSON


def test_baselines_prints_a_table_and_with_json_the_same_rows(typed):
    words = ["baselines", "--symbols", "KO,PEP", "--start", "2022-06-01"]
    code, out, err = typed(*words)
    assert (code, err) == (0, "")
    assert "ALL_KO" in out
    assert max(map(len, out.splitlines())) <= 80
    code, text, err = typed(*words, "--json")
    assert (code, err) == (0, "")
    content = json.loads(text)
    assert set(content) == {"policies"}
    rows = {row["name"]: row for row in content["policies"]}
    assert {"ALL_KO", "ALL_PEP", "EQUAL_WEIGHT", "CASH", "MIN_CVAR"} <= set(rows)
    assert {"name", "total_return", "cagr", "sharpe", "sharpe_se", "sortino", "max_drawdown", "cvar_5"} <= set(rows["CASH"])
    assert rows["CASH"]["total_return"] == 0.0
    assert rows["CASH"]["sharpe"] is None
    assert all(name in out for name in rows)


def test_baselines_of_the_shared_prices_without_costs_are_designs_returns(typed, shared_equities):
    words = ["baselines", "--prices", shared_equities, "--symbols", "SPY,QQQ,IWM", "--costs-bps", "0", "--json"]
    code, out, _ = typed(*words, "--start", "2020-01-01", "--end", "2024-12-31")
    assert code == 0
    found = {row["name"]: 100 * row["total_return"] for row in json.loads(out)["policies"]}
    assert found["ALL_SPY"] == pytest.approx(94.58, abs=0.1)
    assert found["ALL_QQQ"] == pytest.approx(143.86, abs=0.1)
    assert found["ALL_IWM"] == pytest.approx(42.16, abs=0.1)


def test_envs_is_the_catalogue(typed):
    code, out, _ = typed("envs")
    content = json.loads(typed("envs", "--json")[1])
    assert code == 0
    assert [entry["id"] for entry in content["envs"]] == ["Portfolio-v0", "MultiAssetRegime-v0", "PairLeverage-v0"]
    for entry in content["envs"]:
        assert {"id", "observation", "action", "reward", "terms"} <= set(entry)
        assert entry["id"] in out
        assert all(word in out for word in entry["observation"].split())


def test_data_list_names_every_source(typed):
    _, out, _ = typed("data", "list")
    content = json.loads(typed("data", "list", "--json")[1])
    assert {source["source"] for source in content["sources"]} == {"bundled", "folder", "yahoo", "synthetic"}
    for source in content["sources"]:
        assert source["name"] in out


def write_bars(folder, close):
    rows = [f"2020-03-{day},{price}" for day, price in zip((12, 13, 16, 17), close, strict=True)]
    (folder / "SPY.csv").write_text("\n".join(["date,close", *rows]) + "\n")
    return folder


def test_data_check_ends_with_0_for_good_prices_and_1_for_bad_ones(typed, tmp_path):
    write_bars(tmp_path, [100, 101, 102, 103])
    code, out, _ = typed("data", "check", tmp_path)
    assert code == 0
    assert "SPY" in out
    write_bars(tmp_path, [100, -1, 102, 103])
    code, out, _ = typed("data", "check", tmp_path)
    assert code == 1
    assert "2020-03-13" in out
    code, out, _ = typed("data", "check", tmp_path, "--json")
    content = json.loads(out)
    assert (code, content["ok"]) == (1, False)
    assert "2020-03-13" in content["symbols"][0]["problems"][0]


def test_evaluate_shows_what_training_showed_and_the_gate(typed, trained):
    code, out, err = typed("evaluate", trained.path, "--json")
    assert (code, err) == (0, "")
    content = json.loads(out)
    assert content["policies"] == trained.verdict.table.to_dict()["policies"]
    assert content["verdict"] == trained.verdict.sentence
    assert content["gate"] == trained.verdict.gate.to_dict()
    assert content["run"] == str(trained.path)
    assert trained.verdict.sentence in typed("evaluate", trained.path)[1]


def test_check_prints_each_line_with_its_figure_and_ends_with_1_when_one_fails(typed, trained):
    code, out, _ = typed("evaluate", trained.path, "--check")
    lines = trained.verdict.gate.lines()
    assert len(lines) == 5
    assert all(line in out for line in lines)
    assert all(re.match(r"(pass|FAIL)  \w+: \S+ [≥≤] \S+  \(.+\)$", line) for line in lines)
    assert code == (0 if trained.verdict.gate.passed else 1)


def test_a_gate_that_fails_ends_with_1_also_in_json(typed, trained, tmp_path, monkeypatch):
    copy = shutil.copytree(trained.path, tmp_path / "copy")
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("min_sharpe: 0.0", "min_sharpe: 99.0"))
    code, out, _ = typed("evaluate", copy, "--check", "--json")
    assert code == 1
    assert json.loads(out)["gate"]["passed"] is False
    assert typed("evaluate", copy, "--json")[0] == 0  # only --check judges


def test_train_resume_judges_a_finished_run_again_and_prints_json_alone(typed, trained, tmp_path):
    copy = shutil.copytree(trained.path, tmp_path / "copy")
    code, out, err = typed("train", "--resume", copy, "--json")
    assert code == 0
    content = json.loads(out)
    assert content["policies"] == trained.verdict.table.to_dict()["policies"]
    assert content["report"] == str(copy / "report" / "report.md")
    assert "run directory: " in err


# In processes of their own


def start(*words, **options):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    return subprocess.Popen([*COMMAND, *map(str, words)], cwd=REPOSITORY, text=True, env=environment, **options)


def test_a_mistake_ends_the_process_with_2_and_without_a_stack_trace(small_yaml):
    process = start("train", small_yaml, "seed=x", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert (out, err) == ("", "ConfigError: small.yaml: seed = 'x'; expected a whole number.\n")


def test_sigterm_ends_a_training_with_130_and_the_way_to_go_on(small_yaml, tmp_path):
    words = ["train", small_yaml, "training.total_env_steps=10000000", f"results_dir={tmp_path}"]
    log = tmp_path / "log"
    with log.open("w") as err:
        process = start(*words, stdout=subprocess.PIPE, stderr=err)
        deadline = time.monotonic() + 60
        while "iteration 1 " not in log.read_text() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    (run,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert process.returncode == 130
    assert out == ""
    lines = log.read_text().splitlines()
    assert lines[-1] == f"stopped. Go on with: rlplatform train --resume {run}"
    # The user sees the training, not the plumbing.
    known = r"reading prices …|run directory: |starting Ray …|training +\d+% · iteration |stopping after|stopped\. Go on"
    assert [line for line in lines if not re.match(known, line)] == []
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["status"] == "interrupted"
    assert (run / "checkpoints" / "last" / "standing.json").is_file()


@pytest.mark.slow
def test_train_prints_json_alone_on_standard_output(small_yaml, tmp_path):
    process = start("train", small_yaml, f"results_dir={tmp_path}", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    content = json.loads(out)
    assert {"policies", "verdict", "gate", "run", "report"} == set(content)
    assert content["policies"][0].keys() >= {"name", "total_return"}
    assert "training 100%" in err
