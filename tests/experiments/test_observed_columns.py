"""`env.observe` from one end to the other: collecting, offline training, estimates, PPO and judging see the same numbers."""

import dataclasses
import re

import numpy as np
import pytest
import yaml

from envs import observation
from envs.errors import ConfigError
from rlplatform.algorithms.ppo import PPOTrainingConfig
from rlplatform.experiments.collecting import CollectConfig, collect_dataset
from rlplatform.experiments.config import load_config
from rlplatform.experiments.experiment import checked_market, new_job, train_and_judge
from rlplatform.experiments.loading import structure
from rlplatform.experiments.logged_data import logged_episodes
from rlplatform.experiments.lookahead import prove
from rlplatform.experiments.off_policy import evaluate_off_policy
from rlplatform.experiments.pretraining import pretrain_overrides
from rlplatform.models.policy import Policy
from tests.conftest import REPOSITORY

OBSERVE = "env.observe=[regime_label, risk_budget]"
OFFLINE = """\
name: logged
dataset: {{paths: [{dataset}]}}
model: {{kind: gru, embedding_size: 16, hidden_size: 16, max_seq_len: 16}}
training: {{algorithm: bc, gradient_steps: 4, steps_per_iteration: 4, batch_size: 256}}
evaluation: {{interval_iterations: 1, bootstrap: {{resamples: 200}}}}
results_dir: {results}
"""


@pytest.fixture(scope="module")
def narrow(small_yaml, tmp_path_factory):
    """Logged without `env.observe`; its columns hold the same numbers."""
    directory = tmp_path_factory.mktemp("narrow") / "set"
    collect_dataset(load_config(small_yaml), CollectConfig(policy="momentum+noise:0.4", episodes=12), directory)
    return directory


@pytest.fixture(scope="module")
def offline_yaml(narrow):
    path = narrow.parent / "logged.yaml"
    path.write_text(OFFLINE.format(dataset=narrow, results=narrow.parent / "results"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(offline_yaml, ray_session):
    job = new_job(load_config(offline_yaml, [OBSERVE]))
    train_and_judge(job)
    return job


def test_a_dataset_logged_without_them_serves_with_its_columns(finished, narrow):
    plain, manifest = logged_episodes(finished.config.dataset)
    wide, named = logged_episodes(finished.config.dataset, finished.config.env.observe)
    assert named.observation_names == (*manifest.observation_names, "regime_label", "risk_budget")
    assert wide.obs.shape[1] == plain.obs.shape[1] + 2 == Policy.load(finished.run.policy).obs_size
    report = evaluate_off_policy(finished.run, gamma=0.9, truth_episodes=20, estimators=("wis",))
    assert report.estimates[0].name == "wis"


def test_one_logged_with_them_holds_the_same_observation_and_adds_nothing(finished, small_yaml, narrow, tmp_path):
    collect_dataset(
        load_config(small_yaml, [OBSERVE]), CollectConfig(policy="momentum+noise:0.4", episodes=12), tmp_path / "wide"
    )
    logged = dataclasses.replace(finished.config.dataset, paths=(str(tmp_path / "wide"),))
    episodes, manifest = logged_episodes(logged, ("regime_label", "risk_budget"))
    same, names = logged_episodes(finished.config.dataset, ("regime_label", "risk_budget"))
    assert manifest.observation_names == names.observation_names
    assert (episodes.obs == same.obs).all()


@pytest.mark.parametrize(
    ("observe", "message"),
    [
        ("[kill_switch]", r"env\.observe: 'kill_switch' is no column of .*set; it has date, .*or collect with env\.observe"),
        ("[regime_lable]", r"env\.observe: no column 'regime_lable' here; choose from .* Did you mean regime_label\?"),
    ],
)
def test_what_the_dataset_or_the_environment_does_not_have_is_one_clear_line(offline_yaml, observe, message, ray_session):
    with pytest.raises(ConfigError, match=message):
        checked_market(load_config(offline_yaml, [f"env.observe={observe}"]))


def test_ppo_goes_on_with_the_same_columns_and_refuses_others(finished, small_yaml, tmp_path, ray_session):
    overrides = [*pretrain_overrides(finished.run.path), "training.total_env_steps=512", f"results_dir={tmp_path}"]
    with pytest.raises(ConfigError, match=r"its env\.observe is \('regime_label', 'risk_budget'\), here it is \(\)"):
        new_job(load_config(small_yaml, overrides))
    job = new_job(load_config(small_yaml, [*overrides, OBSERVE]))
    verdict = train_and_judge(job)
    assert 0 <= job.run.metrics()[0]["kl_to_pretrained"] < 0.1
    assert Policy.load(job.run.policy).obs_size == Policy.load(finished.run.policy).obs_size
    assert verdict.policy.name.startswith("PPO")


def test_the_proof_covers_what_the_environment_observes(small_yaml, monkeypatch):
    """A label of tomorrow's market behind `env.observe` is found."""
    config = load_config(small_yaml, ["env.observe=[regime_label, spread_bps, risk_budget]"])
    assert prove(config, cuts=3).clean
    honest = observation.MARKET_COLUMNS["regime_label"]
    peeking = {"regime_label": lambda tape: np.append(honest(tape)[1:], 0) + 100.0 * np.append(tape.gross[1:, 0], 1.0)}
    monkeypatch.setattr(observation, "MARKET_COLUMNS", observation.MARKET_COLUMNS | peeking)
    findings = prove(config, cuts=3).findings
    assert any("regime_label" in str(finding) for finding in findings)


def test_the_manual_names_every_column_and_its_yaml_loads():
    text = (REPOSITORY / "docs" / "OFFLINE.md").read_text(encoding="utf-8")
    section = text[text.index("## Columns as observations") : text.index("## PPO that goes on")]
    for name in (*observation.MARKET_COLUMNS, *observation.ACCOUNT_COLUMNS, *observation.FORECAST_COLUMNS):
        assert name in section
    block = re.search(r"## PPO that goes on.*?```yaml\n(.*?)```", text, re.S).group(1)
    training = structure(PPOTrainingConfig, yaml.safe_load(block)["training"], where="docs/OFFLINE.md")
    assert (training.exploration.floor, training.pretrain.kl_coeff) == (0.25, 0.1)
