"""Training on logged episodes, judging by them, and PPO that goes on from there: the whole way of a user."""

import dataclasses
import json

import pytest

from envs.errors import ConfigError
from rlplatform.experiments.collecting import CollectConfig, collect_dataset
from rlplatform.experiments.config import load_config
from rlplatform.experiments.experiment import new_job, resumed_job, train_and_judge
from rlplatform.experiments.off_policy import evaluate_off_policy
from rlplatform.experiments.pretraining import pretrain_overrides
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.models.policy import Policy

OFFLINE = """\
name: logged
dataset: {{paths: [{dataset}]}}
model: {{kind: gru, embedding_size: 16, hidden_size: 16, max_seq_len: 16}}
training: {{algorithm: marwil, gradient_steps: 8, steps_per_iteration: 4, batch_size: 256}}
evaluation: {{interval_iterations: 1, bootstrap: {{resamples: 200}}}}
results_dir: {results}
"""


@pytest.fixture(scope="module")
def dataset(small_yaml, tmp_path_factory):
    directory = tmp_path_factory.mktemp("data") / "set"
    collect_dataset(load_config(small_yaml), CollectConfig(policy="momentum+noise:0.4", episodes=12), directory)
    return directory


@pytest.fixture(scope="module")
def offline_yaml(dataset):
    path = dataset.parent / "logged.yaml"
    path.write_text(OFFLINE.format(dataset=dataset, results=dataset.parent / "results"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(offline_yaml, ray_session):
    job = new_job(load_config(offline_yaml))
    verdict = train_and_judge(job)
    return job, verdict


def test_market_split_and_environment_are_those_of_the_dataset(offline_yaml, small_yaml):
    offline, online = load_config(offline_yaml), load_config(small_yaml)
    for part in ("data", "split", "env", "features"):
        assert getattr(offline, part) == getattr(online, part), part
    assert offline.model != dataclasses.replace(online.model, embedding_size=8)


def test_an_offline_run_leaves_what_an_online_one_does(finished, trained):
    def names(path):
        found = {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()}
        return {name for name in found if "/rllib/" not in name and ".previous/" not in name}

    job, verdict = finished
    assert names(job.run.path) == names(trained.path)
    rows = job.run.metrics()
    assert [row["gradient_steps"] for row in rows] == [4, 8]
    assert all({"policy_loss", "value_loss", "validation_sharpe", "gradient_steps_per_second"} <= set(row) for row in rows)
    manifest = job.run.manifest()
    assert (manifest["status"], manifest["gradient_steps"], manifest["iterations"]) == ("finished", 8, 2)
    assert "env_steps" not in manifest
    assert verdict.policy.name == "MARWIL_GRU"
    # Forward and backward over 256 transitions in each of 8 steps.
    assert manifest["estimated_flops"] == 2 * manifest["parameters"] * 3 * 8 * 256


def test_an_offline_run_goes_on_where_it_stopped(finished, offline_yaml, tmp_path, ray_session):
    short = dataclasses.replace(load_config(offline_yaml), results_dir=str(tmp_path))
    short = dataclasses.replace(short, training=dataclasses.replace(short.training, gradient_steps=4))
    job = new_job(short)
    train_and_judge(job)
    with pytest.raises(ConfigError, match=r"training.gradient_steps=4: .* has made 4 gradient steps already"):
        resumed_job(job.run.path, ["training.gradient_steps=4"])
    with pytest.raises(ConfigError, match=r"only training\.gradient_steps may change"):
        resumed_job(job.run.path, ["training.total_env_steps=99"])
    train_and_judge(resumed_job(job.run.path, ["training.gradient_steps=8"]))
    rows = job.run.metrics()
    assert [row["gradient_steps"] for row in rows] == [4, 8]
    assert rows[-1]["policy_loss"] == pytest.approx(finished[0].run.metrics()[-1]["policy_loss"], rel=0.05)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.algorithm=ppo", "learns from the environment and reads no dataset"),
        ("features.groups=[returns]", "here gives .*take the dataset's"),
        ("split.train=[2000-06-01, 2002-06-28]", "What was seen in training cannot be a test"),
        ("training.algorithm=cql", r"model.kind = 'gru' has memory\. Use mlp"),
        ("training.algorithm=sarsa", "training.algorithm = 'sarsa'; expected one of"),
    ],
)
def test_what_does_not_fit_the_dataset_is_one_clear_line(offline_yaml, override, message, tmp_path, ray_session):
    overrides = [override, f"results_dir={tmp_path}"]
    if "algorithm" in override:
        content = offline_yaml.read_text(encoding="utf-8")
        training = content[content.index("training:") : content.index("evaluation:")]
        offline_yaml = tmp_path / "other.yaml"
        offline_yaml.write_text(content.replace(training, f"training: {{algorithm: {override.partition('=')[2]}}}\n"))
        overrides = overrides[1:]
    with pytest.raises(ConfigError, match=message):
        train_and_judge(new_job(load_config(offline_yaml, overrides)))


def test_an_offline_algorithm_needs_a_dataset(small_yaml, tmp_path):
    text = small_yaml.read_text(encoding="utf-8")
    start, end = text.index("training:"), text.index("evaluation:")
    path = tmp_path / "bc.yaml"
    path.write_text(text[:start] + "training: {algorithm: bc}\n" + text[end:], encoding="utf-8")
    with pytest.raises(ConfigError, match="learns from a dataset; give dataset"):
        load_config(path)


def test_estimates_stand_beside_the_truth_and_in_the_report(finished):
    run = finished[0].run
    report = evaluate_off_policy(run, gamma=0.9, truth_episodes=50, estimators=("wis", "fqe"))
    assert [estimate.name for estimate in report.estimates] == ["wis", "fqe"]
    assert (report.logged.episodes, report.truth.episodes) == (12, 50)
    assert [row["estimator"] for row in report.rows()][-2:] == ["truth, by trading", "logged behaviour"]
    written = json.loads((run.report / "off_policy.json").read_text(encoding="utf-8"))
    assert written["truth"]["value"] == report.truth.value
    assert (run.report / "off_policy.png").stat().st_size > 10_000


def test_a_run_without_a_dataset_must_be_told_one(trained, dataset):
    run = RunDirectory.open(trained.path)
    with pytest.raises(ConfigError, match="learnt from no dataset"):
        evaluate_off_policy(run)
    before = {path.name for path in run.report.iterdir()}
    assert evaluate_off_policy(run, [dataset], truth_episodes=20, estimators=("wis",)).estimates[0].name == "wis"
    for path in run.report.iterdir():  # the run belongs to other tests too
        if path.name not in before:
            path.unlink()


def test_ppo_goes_on_from_an_offline_run(finished, small_yaml, tmp_path, ray_session):
    earlier = finished[0].run
    mixing = "training.pretrain.mix_coeff=0.1"
    overrides = [*pretrain_overrides(earlier.path), mixing, "training.total_env_steps=512", f"results_dir={tmp_path}"]
    job = new_job(load_config(small_yaml, overrides))
    assert job.config.model == earlier.config().model
    train_and_judge(job)
    (row,) = job.run.metrics()
    assert 0 <= row["kl_to_pretrained"] < 0.1  # one update away from where it began
    assert row["imitation_loss"] != 0
    started = Policy.load(earlier.policy).normalizer.count
    assert Policy.load(job.run.policy).normalizer.count == started + 512


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("features.clip=4", "its features is"),
        ("split.train=[2000-07-03, 2002-12-31]", "its split.train's first day is 2000-06-01"),
        ("split.validation=[2003-01-01, 2003-03-31]", "the test would not be unseen"),
    ],
)
def test_a_policy_that_saw_other_numbers_or_later_days_is_refused(finished, small_yaml, override, message, tmp_path):
    overrides = [*pretrain_overrides(finished[0].run.path), override, f"results_dir={tmp_path / 'none'}"]
    with pytest.raises(ConfigError, match=message):
        new_job(load_config(small_yaml, overrides))
    assert not (tmp_path / "none").exists()
