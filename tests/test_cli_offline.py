"""`rlplatform offline …` as a user types it."""

import json

import pytest

from rlplatform.offline.reading import read_dataset
from tests.offline.datasets import edit_line
from tests.test_cli import words_of


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, small_yaml):
    from typer.testing import CliRunner

    from rlplatform.cli_offline import offline_app

    directory = tmp_path_factory.mktemp("offline") / "set"
    words = ["collect", "--config", small_yaml, "--policy", "momentum+noise:0.3", "--episodes", "3", "--out", directory]
    result = CliRunner().invoke(offline_app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return directory


def test_collecting_says_what_it_made_and_where(typed, dataset, small_yaml):
    words = ["offline", "collect", "--config", small_yaml, "--policy", "momentum+noise:0.3", "--episodes", 3, "--out", dataset]
    code, out, err = typed(*words)
    assert code == 0
    assert "3 of 60 decisions" in out
    assert f"rlplatform offline check {dataset}" in out.replace("\n", "")
    assert "reading prices" in err
    code, out, _ = typed(*words, "--json")
    facts = json.loads(out)
    assert (code, facts["rows"], facts["log_prob"]) == (0, 180, True)


def test_check_prints_a_table_and_json_and_exit_code_1_on_problems(typed, dataset, tmp_path):
    code, out, _ = typed("offline", "check", dataset)
    assert code == 0
    for said in ("action coverage", "behaviour entropy", "market states", "days decided on", "discrete_cql", "cash"):
        assert said in words_of(out)
    code, out, _ = typed("offline", "check", dataset, "--json")
    assert json.loads(out)["ok"] is True
    import shutil

    shutil.copytree(dataset, tmp_path / "bad")
    edit_line(tmp_path / "bad" / "shards" / "shard-00000.json", 2, lambda content: content.pop("rewards"))
    code, out, _ = typed("offline", "check", tmp_path / "bad")
    assert code == 1
    assert "line 2: has no column 'rewards'" in words_of(out)


def test_import_replays_a_file(typed, small_yaml, tmp_path):
    (tmp_path / "w.csv").write_text("date,MOM\n2001-01-02,0.5\n2001-02-01,0.75\n")
    words = ["offline", "import", tmp_path / "w.csv", "--config", small_yaml, "--format", "parquet", "--out", tmp_path / "set"]
    code, out, _ = typed(*words)
    assert (code, "1 of 23 decisions" in out) == (0, True)
    assert read_dataset(tmp_path / "set")[1].behaviours[0]["source"] == "w.csv"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "{here}"], "DatasetError: {here}/dataset.json does not exist. Give a dataset's directory."),
        (["collect", "--policy", "momentun", "--env", "Portfolio-v0", "--out", "{here}/x"], "Did you mean momentum?"),
        (["collect", "--policy", "momentum", "--env", "Portfolio-v9", "--out", "{here}/x"], "Did you mean Portfolio-v0?"),
        (
            ["collect", "--policy", "momentum", "--config", "{small}", "--format", "csv", "--out", "{here}/x"],
            "expected one of json",
        ),
        (["import", "{here}/none.csv", "--config", "{small}", "--out", "{here}/x"], "none.csv does not exist"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(typed, small_yaml, tmp_path, words, message):
    code, out, err = typed("offline", *(word.format(small=small_yaml, here=tmp_path) for word in words))
    assert (code, out) == (2, "")
    assert message.format(here=tmp_path) in err
    assert "Traceback" not in err
    assert not (tmp_path / "x").exists()


def test_environment_or_config_must_be_given(typed, tmp_path):
    code, _, err = typed("offline", "collect", "--policy", "momentum", "--out", tmp_path / "x")
    assert (code, "give --env ID or --config CONFIG.yaml" in words_of(err)) == (2, True)
