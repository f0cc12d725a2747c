"""ExperimentConfig: everything a run depends on."""

import dataclasses
import datetime
from dataclasses import fields

import pytest

from envs.errors import ConfigError
from envs.pair_leverage import PairLeverageConfig
from envs.portfolio import PortfolioConfig
from envs.regime import RegimeConfig
from rlplatform.data import BundledConfig, FolderConfig, SyntheticConfig
from rlplatform.experiments.config import EvaluationConfig, ExperimentConfig, SplitConfig, in_one_process, load_config
from rlplatform.experiments.loading import plain, to_yaml
from rlplatform.models.mlp import MLPConfig
from tests.conftest import REPOSITORY

TUNE_CONFIGS = sorted((REPOSITORY / "tune_configs").glob("*.yaml"))


def day(text):
    return datetime.date.fromisoformat(text)


def split(train=("2000-01-01", "2000-12-31"), test=("2002-01-01", "2002-12-31"), validation=None):
    periods = {"train": train, "test": test, "validation": validation}
    return SplitConfig(**{name: period and (day(period[0]), day(period[1])) for name, period in periods.items()})


@pytest.mark.parametrize("path", TUNE_CONFIGS, ids=lambda path: path.name)
def test_every_example_loads_strictly_and_is_called_like_its_file(path):
    config = load_config(path)
    assert config.name == path.stem
    assert config.training.batch_size >= getattr(config.training, "minibatch_size", 1)


def test_there_are_examples_for_every_environment():
    assert {type(load_config(path).env) for path in TUNE_CONFIGS} >= {PortfolioConfig, RegimeConfig, PairLeverageConfig}


@pytest.mark.parametrize("path", TUNE_CONFIGS, ids=lambda path: path.name)
def test_yaml_becomes_a_config_and_the_complete_yaml_the_same_config(path, tmp_path):
    config = load_config(path)
    complete = tmp_path / "config.yaml"
    complete.write_text(to_yaml(config), encoding="utf-8")
    again = load_config(complete)
    assert again == config
    assert again.sha256 == config.sha256
    said = complete.read_text(encoding="utf-8")
    assert all(f"  {f.name}:" in said for f in fields(config.training))  # complete: what the user left out stands there too


def test_the_hash_changes_with_every_setting(small_yaml):
    config = load_config(small_yaml)
    others = ["seed=4", "training.gamma=0.98", "env.costs.proportional_bps=3", "features.clip=4", "model.hidden_size=8"]
    assert len({config.sha256, *(load_config(small_yaml, [other]).sha256 for other in others)}) == 6


def test_a_config_round_trips_whatever_its_parts(tmp_path):
    config = ExperimentConfig(
        name="all_parts",
        data=FolderConfig(path="x", symbols=("1", "ON", "2e3"), calendar=None),
        split=split(validation=("2001-01-01", "2001-12-31")),
        env=RegimeConfig(),
        model=MLPConfig(),
        evaluation=EvaluationConfig(metric="cagr"),
    )
    path = tmp_path / "c.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(path) == config


@pytest.mark.parametrize("data", [BundledConfig(), SyntheticConfig(parameters={"phi": 0.25})])
def test_each_source_is_told_by_its_own_key(tmp_path, data):
    config = ExperimentConfig(name="a", data=data, split=split(), env=PortfolioConfig())
    path = tmp_path / "c.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(path).data == data


def test_the_style_guides_two_mistakes_read_as_it_says(small_yaml):
    for override, message in [
        ("training.learing_rate=1e-4", "unknown key training.learing_rate. Did you mean learning_rate?"),
        (
            "env.costs.proportional_bps=0.0005",
            "costs.proportional_bps = 0.0005 looks like a fraction; it is in basis points. Did you mean 5?",
        ),
    ]:
        with pytest.raises(ConfigError) as caught:
            load_config(small_yaml, [override])
        assert str(caught.value) == f"small.yaml: {message}"


def test_periods_follow_each_other():
    with pytest.raises(ConfigError, match=r"split.test starts 2000-06-01, inside split.train which ends 2000-12-31"):
        split(test=("2000-06-01", "2001-12-31"))
    with pytest.raises(ConfigError, match=r"split.test starts 2002-01-01, inside split.validation"):
        split(validation=("2001-01-01", "2002-01-01"))
    with pytest.raises(ConfigError, match=r"ends before it starts. Swap the dates"):
        split(train=("2001-01-01", "2000-01-01"))


@pytest.mark.parametrize("name", ["", "a b", "a/b", "..\\x", "a:b"])
def test_a_name_that_is_no_folders_name_is_refused(small_yaml, name):
    with pytest.raises(ConfigError, match="it becomes a folder's name"):
        dataclasses.replace(load_config(small_yaml), name=name)


def test_a_seed_and_an_interval_have_bounds(small_yaml):
    with pytest.raises(ConfigError, match="seed = -1; expected 0 ≤ seed"):
        load_config(small_yaml, ["seed=-1"])
    with pytest.raises(ConfigError, match=r"evaluation.interval_iterations = 0; expected at least 1"):
        load_config(small_yaml, ["evaluation.interval_iterations=0"])


REMOTE = [
    "{algorithm: ppo, num_env_runners: 2, num_learners: 1}",
    "{algorithm: tqc, num_env_runners: 2, num_learners: 1}",
    "{algorithm: bc, num_learners: 2}",
]


@pytest.mark.parametrize("training", REMOTE)
def test_in_one_process_nothing_is_remote_and_nothing_else_changes(small_yaml, training, tmp_path):
    text = small_yaml.read_text(encoding="utf-8")
    start, end = text.index("training:"), text.index("evaluation:")
    dataset = "" if "bc" not in training else f"dataset: {{paths: [{REPOSITORY}/offline_data/planted_momentum]}}\n"
    path = tmp_path / "remote.yaml"
    path.write_text(f"{text[:start]}training: {training}\n{dataset}{text[end:]}", encoding="utf-8")
    config = load_config(path)
    here = in_one_process(config)
    assert here.training.num_processes == 0 < config.training.num_processes
    assert plain(here) | {"training": None} == plain(config) | {"training": None}
