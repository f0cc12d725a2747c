"""What a run leaves behind, and how it is found again."""

import dataclasses
import datetime
import json

import pytest

from envs.errors import ConfigError
from rlplatform.experiments.config import load_config
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.provenance import describe_environment
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.experiments.sweep_directory import SweepDirectory
from rlplatform.experiments.walkforward_directory import WalkForwardDirectory

NOON = datetime.datetime(2026, 11, 21, 12, 0, 0)


@pytest.fixture
def config(small_yaml, tmp_path):
    return dataclasses.replace(load_config(small_yaml), results_dir=str(tmp_path / "results"))


def test_a_new_run_is_named_by_config_and_time_and_holds_the_complete_config(config):
    run = RunDirectory.create(config, NOON)
    assert run.name == "small-20261121-120000"
    assert [file.name for file in run.path.iterdir()] == ["config.yaml"]
    assert RunDirectory.open(run.path).config() == config


def test_two_runs_in_one_second_get_two_directories(config):
    names = [RunDirectory.create(config, NOON).name for _ in range(3)]
    assert names == ["small-20261121-120000", "small-20261121-120000-1", "small-20261121-120000-2"]


def test_a_directory_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"is not a run: it has no config.yaml. Give a directory such as results/<run>"):
        RunDirectory.open(tmp_path)


def test_results_that_cannot_be_written_are_refused(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file; expected a directory"):
        RunDirectory.create(dataclasses.replace(config, results_dir=str(tmp_path / "file")))
    with pytest.raises(ConfigError, match="cannot be written to"):
        RunDirectory.create(dataclasses.replace(config, results_dir=str(tmp_path / "file" / "deeper")))


def test_metrics_survive_a_kill_in_the_middle_of_a_line(config):
    run = RunDirectory.create(config, NOON)
    assert run.metrics() == []
    for i in (1, 2, 3):
        run.append_metrics({"iteration": i, "reward": None})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 4, "rew')
    assert [row["iteration"] for row in run.metrics()] == [1, 2, 3]
    run.keep_metrics_until(2)
    assert run.metrics() == [{"iteration": 1, "reward": None}, {"iteration": 2, "reward": None}]


def test_a_run_without_a_policy_says_how_to_get_one(config):
    run = RunDirectory.create(config, NOON)
    with pytest.raises(ConfigError, match=r"has no trained policy yet. Go on with it: rlplatform train --resume"):
        run.scaler()


def test_the_environment_names_code_packages_and_machine():
    found = describe_environment()
    assert set(found) == {"code_commit", "code_modified", "python", "packages", "hardware"}
    assert {"ray", "torch", "rlplatform"} <= set(found["packages"])
    assert found["hardware"]["cores"] >= 1
    assert json.dumps(found)


def test_an_error_s_text_loses_its_secrets_in_every_kind_of_manifest(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "abcdef123456")
    for kind in (RunDirectory, SweepDirectory, WalkForwardDirectory):
        directory = kind(tmp_path)
        directory.break_off(ValueError("the server refused abcdef123456"))
        assert directory.manifest() == {"status": "failed", "error": "ValueError: the server refused [redacted]"}
        directory.break_off(KeyboardInterrupt())
        assert directory.manifest()["status"] == "interrupted"


def test_what_began_on_other_prices_does_not_go_on_and_what_did_says_when_it_was_taken_up_again(config, tmp_path):
    market, directory = prepare_market(config), WalkForwardDirectory(tmp_path)
    directory.begin(config, market, seeds=[1])
    began = directory.manifest()
    assert (began["status"], began["seeds"], began["tape_sha256"]) == ("running", [1], market.tape.sha256)
    assert "resumed" not in began
    directory.begin(config, market)
    assert len(directory.manifest()["resumed"]) == 1
    other = dataclasses.replace(market, tape=market.tape.rows(0, 500))
    with pytest.raises(ConfigError, match=r"are not those it began with\. Start a new walk-forward"):
        directory.begin(config, other)
