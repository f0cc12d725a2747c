"""Training: what a run leaves, that it repeats itself, and that it can be taken up again."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from envs.errors import ConfigError, PlatformError
from rlplatform.experiments import training
from rlplatform.experiments.checkpoints import CheckpointError, defect, seal
from rlplatform.experiments.config import load_config
from rlplatform.experiments.experiment import new_job, resumed_job, train_and_judge
from rlplatform.experiments.interruption import StopRequest, TrainingInterrupted
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.experiments.standing import Standing
from rlplatform.experiments.trainers import OnlineTrainer, TrainingDivergedError
from rlplatform.experiments.training import train
from rlplatform.models.policy import Policy
from tests.conftest import REPOSITORY
from tests.experiments.perturbed import PerturbedMarket

TIMING = {"seconds", "env_steps_per_second"}


def without_timing(rows):
    return [{name: value for name, value in row.items() if name not in TIMING} for row in rows]


def weights(run, which="last"):
    return (run.checkpoint(which) / "policy" / "policy.safetensors").read_bytes()


@pytest.fixture
def train_small(small_yaml, tmp_path, ray_session):
    """Train the small run again, with some settings replaced, in a directory of its own."""

    def train_small(data=None, on_row=lambda row: None, **settings):
        config = load_config(small_yaml, [f"{key.replace('__', '.')}={value}" for key, value in settings.items()])
        config = dataclasses.replace(config, results_dir=str(tmp_path / "results"))
        run = RunDirectory.create(config)
        market = prepare_market(config if data is None else dataclasses.replace(config, data=data))
        return run, train(config, market.tape, run, on_row)

    return train_small


# What a run leaves


def test_a_run_leaves_what_design_says_and_nothing_else(trained):
    found = {str(path.relative_to(trained.path)) for path in trained.path.rglob("*") if path.is_file()}
    found = {path for path in found if "/rllib/" not in path}
    policy = {"policy.json", "policy.safetensors"}
    sampling = {"sampling.json", "sampling.safetensors"}
    checkpoint = {"standing.json", "checksums.json", *sampling, *(f"policy/{name}" for name in policy)}
    kept = {path.parent.name for path in trained.path.glob("checkpoints/*/standing.json")}
    assert {"best", "last", "last.previous"} <= kept <= {"best", "best.previous", "last", "last.previous"}
    assert found == {
        *("config.yaml", "manifest.json", "metrics.jsonl", "policy/scaler.json"),
        *(f"policy/{name}" for name in policy),
        *(f"checkpoints/{which}/{name}" for which in kept for name in checkpoint),
        *(f"report/{name}" for name in ("report.md", "report.json")),
        *(f"report/{name}.png" for name in ("equity", "drawdown", "weights", "learning_curve")),
    }
    assert (trained.path / "checkpoints" / "last" / "rllib" / "learner_group").is_dir()


def test_the_manifest_says_what_ran_on_what_and_how_it_went(trained):
    manifest, job = trained.job.run.manifest(), trained.job
    assert manifest["status"] == "finished"
    assert manifest["config_sha256"] == job.config.sha256
    assert manifest["data"]["sha256"] == job.market.prices.sha256
    assert manifest["tape_sha256"] == job.market.tape.sha256
    assert manifest["seeds"] == [3]
    assert manifest["env_steps"] == 2048
    assert manifest["iterations"] == 4
    assert manifest["wall_seconds"] >= manifest["train_seconds"] > 0
    assert manifest["env_steps_per_second"] == pytest.approx(2048 / manifest["train_seconds"], rel=0.01)
    # 2 FLOPs a parameter forward for 2048 steps; 2 + 4 in each of the 2 epochs.
    assert manifest["estimated_flops"] == 2048 * manifest["parameters"] * (2 + 2 * 6)
    assert {"code_commit", "packages", "hardware", "started", "finished", "verdict"} <= set(manifest)
    assert manifest["test"] == trained.verdict.metrics["PPO_GRU"].to_dict()


def test_metrics_hold_one_row_an_iteration_and_validation_every_second(trained):
    rows = trained.job.run.metrics()
    assert rows == trained.rows
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4]
    assert [row["env_steps"] for row in rows] == [512, 1024, 1536, 2048]
    assert [("validation_sharpe" in row) for row in rows] == [False, True, False, True]
    assert {"policy_loss", "value_loss", "entropy", "learning_rate", "episode_return_mean"} <= set(rows[-1])
    assert "NaN" not in (trained.path / "metrics.jsonl").read_text()


def test_the_best_checkpoint_is_that_of_the_highest_validation_figure(trained):
    rows = [row for row in trained.rows if row.get("validation_sharpe") is not None]
    best = max(rows, key=lambda row: row["validation_sharpe"])
    standing = Standing.of(trained.job.run)
    assert (standing.best_iteration, standing.best_score) == (best["iteration"], best["validation_sharpe"])
    saved = (trained.path / "policy" / "policy.safetensors").read_bytes()
    assert saved == weights(trained.job.run, "best")


def test_the_config_in_the_run_is_the_complete_one(trained):
    assert RunDirectory.open(trained.path).config() == trained.job.config


def test_the_run_tells_its_phases(trained):
    assert trained.phases == ["starting Ray", "judging the policy and its baselines"]


def test_the_policy_directory_is_enough_to_trade_without_ray(trained):
    """Another process, in which Ray cannot be imported, finds the figure that training printed."""
    code = f"""
import sys; sys.modules["ray"] = None
import json; from pathlib import Path
from envs import make
from envs.portfolio import PortfolioConfig
from envs.trading_config import EpisodeConfig
from envs.terms import CostConfig
from rlplatform.data import SyntheticConfig
from rlplatform.evaluation.backtest import run_policy
from rlplatform.features import FeatureBuilder, FeatureConfig, FeatureScaler
from rlplatform.models.policy import Policy
folder = Path({str(trained.path / "policy")!r})
scaler = FeatureScaler.from_dict(json.loads((folder / "scaler.json").read_text()))
tape = FeatureBuilder(FeatureConfig()).build(SyntheticConfig(bars=1200).load()).scaled(scaler).to_tape()
config = PortfolioConfig(costs=CostConfig(proportional_bps=2), episode=EpisodeConfig(length_bars=None, random_start=False))
track = run_policy("policy", make(config, tape, "2003-07-01", "2004-06-30"), Policy.load(folder))
print(json.dumps(float(track.wealth[-1] - 1)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == trained.job.run.manifest()["test"]["total_return"]


# The same again


def test_the_same_config_gives_the_same_metrics_and_the_same_policy_whatever_prices_come_later(trained, train_small):
    """Bit for bit; prices after training are other ones, so nothing of them has reached the weights."""
    data = PerturbedMarket(inner=trained.job.config.data, after="2002-12-31")
    run, _ = train_small(data)
    rows = [{k: v for k, v in row.items() if not k.startswith("validation")} for row in without_timing(run.metrics())]
    ours = [{k: v for k, v in row.items() if not k.startswith("validation")} for row in without_timing(trained.rows)]
    assert rows == ours
    assert weights(run) == weights(trained.job.run)


def test_the_same_config_gives_the_same_validation_figures(trained, train_small):
    run, standing = train_small()
    assert without_timing(run.metrics()) == without_timing(trained.rows)
    assert (standing.best_iteration, standing.best_score) == (
        trained.job.run.manifest()["best_iteration"],
        trained.job.run.manifest()["best_validation"],
    )


def test_another_seed_gives_another_policy(trained, train_small):
    run, _ = train_small(seed=4, training__total_env_steps=512)
    assert run.metrics()[0]["policy_loss"] != trained.rows[0]["policy_loss"]


def test_without_validation_the_last_weights_are_kept(train_small):
    run, standing = train_small(split__validation="", training__total_env_steps=512)
    assert standing.best_iteration is None
    assert not run.checkpoint("best").exists()
    assert training.judged_checkpoint(run.config(), standing) == "last"


# Taken up again


@pytest.fixture
def interrupted(small_yaml, tmp_path, ray_session):
    """The small run, stopped by SIGINT in iteration 3, which lies between two looks."""
    job = new_job(dataclasses.replace(load_config(small_yaml), results_dir=str(tmp_path / "results")))

    def stop(row):
        if row["iteration"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(TrainingInterrupted, match="stopped after iteration 3"):
        train_and_judge(job, stop)
    return job.run


def test_an_interrupted_run_is_taken_up_where_it_stopped(interrupted, trained):
    assert interrupted.manifest()["status"] == "interrupted"
    assert without_timing(interrupted.metrics()) == without_timing(trained.rows[:3])
    assert Standing.of(interrupted).iteration == 3
    with (interrupted.path / "metrics.jsonl").open("a") as file:  # what a kill may leave behind the checkpoint
        file.write('{"iteration": 4, "env_steps": 2048}\n{"iterat')

    rows = []
    job = resumed_job(interrupted.path, ["training.total_env_steps=3000"])
    train_and_judge(job, rows.append)
    assert [row["iteration"] for row in rows] == [4, 5, 6]
    assert [row["env_steps"] for row in interrupted.metrics()] == [512, 1024, 1536, 2048, 2560, 3072]
    assert all(row["episode_return_mean"] is not None for row in rows)
    assert rows[0]["policy_loss"] != trained.rows[0]["policy_loss"]  # not the first draws over again
    assert interrupted.config().training.total_env_steps == 3000
    manifest = interrupted.manifest()
    assert manifest["status"] == "finished"
    assert manifest["config_sha256"] == interrupted.config().sha256
    assert [(each["iteration"], each["env_steps"]) for each in manifest["resumed"]] == [(3, 1536)]
    assert not [path for path in interrupted.path.rglob(".*")]


def test_a_resumed_run_ends_as_the_one_that_was_not_interrupted_bit_for_bit(interrupted, trained):
    """Accounts, recurrent state, draws and the window of episodes included."""
    train_and_judge(resumed_job(interrupted.path))
    assert without_timing(interrupted.metrics()) == without_timing(trained.rows)
    for which in ("best", "last"):
        assert weights(interrupted, which) == weights(trained.job.run, which)
    assert interrupted.manifest()["test"] == trained.job.run.manifest()["test"]


def test_what_followed_a_checkpoint_comes_again_bit_for_bit_after_a_kill(trained, tmp_path, ray_session):
    """Back to iteration 2, whose look drew random numbers too: making a network takes some."""
    run = copied(trained.job.run, tmp_path)
    shutil.rmtree(run.checkpoint("last"))
    run.checkpoint("last.previous").rename(run.checkpoint("last"))
    job = resumed_job(run.path)
    assert Standing.of(run).iteration == 2
    train(job.config, job.market.tape, run, resume=True)
    assert without_timing(run.metrics()) == without_timing(trained.rows)
    assert weights(run) == weights(trained.job.run)


def test_a_checkpoint_of_an_earlier_version_is_taken_up_with_other_draws(interrupted, trained):
    last = interrupted.checkpoint("last")
    for name in ("sampling.json", "sampling.safetensors"):
        (last / name).unlink()
    seal(last)
    train_and_judge(resumed_job(interrupted.path))
    ours, theirs = without_timing(interrupted.metrics()), without_timing(trained.rows)
    assert [row["env_steps"] for row in ours] == [row["env_steps"] for row in theirs]
    assert ours[:3] == theirs[:3]
    assert ours[3] != theirs[3]


def test_a_resumed_run_starts_from_the_weights_and_statistics_of_its_checkpoint(interrupted, monkeypatch):
    seen = []

    def look(config, tape, run, trainer, *rest):
        seen.append(trainer.policy())

    monkeypatch.setattr(training, "_loop", look)
    train(interrupted.config(), prepare_market(interrupted.config()).tape, interrupted, resume=True)
    saved = Policy.load(interrupted.checkpoint("last") / "policy")
    for (name, ours), theirs in zip(
        seen[0].actor_critic.state_dict().items(), saved.actor_critic.state_dict().values(), strict=True
    ):
        assert ours.equal(theirs), name
    assert seen[0].normalizer.count == saved.normalizer.count >= 1536
    assert (seen[0].normalizer.mean == saved.normalizer.mean).all()


def copied(run, tmp_path):
    return RunDirectory(shutil.copytree(run.path, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=1", "--resume with seed: a run goes on as it began; only training.total_env_steps may change"),
        ("training.gamma=0.5", "--resume with training.gamma"),
        ("training.total_env_steps=100", "has made 2048 env steps already. Give more"),
    ],
)
def test_a_run_goes_on_as_it_began(trained, override, message):
    with pytest.raises(ConfigError, match=message):
        resumed_job(trained.path, [override])
    assert RunDirectory.open(trained.path).config() == trained.job.config


def test_a_run_is_not_taken_up_on_other_prices(trained, tmp_path):
    run = copied(trained.job.run, tmp_path)
    run.write_config(dataclasses.replace(run.config(), data=dataclasses.replace(run.config().data, seed=9)))
    with pytest.raises(ConfigError, match="prices or features are not those it began with"):
        resumed_job(run.path)


def test_a_finished_run_is_only_judged_again(trained, tmp_path, ray_session):
    run = copied(trained.job.run, tmp_path)
    verdict = train_and_judge(resumed_job(run.path))
    assert verdict.sentence == trained.verdict.sentence
    assert run.metrics() == trained.rows


def test_a_run_without_a_checkpoint_says_so(trained, tmp_path):
    run = copied(trained.job.run, tmp_path)
    shutil.rmtree(run.path / "checkpoints")
    with pytest.raises(ConfigError, match=r"has no checkpoint to go on from. Start it anew: rlplatform train"):
        resumed_job(run.path)


def test_a_kill_between_best_and_last_does_not_make_them_disagree(trained, tmp_path):
    run = copied(trained.job.run, tmp_path)
    path = run.checkpoint("last") / "standing.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"best_score": 99.0, "best_iteration": 1}))
    assert Standing.of(run).best_score == trained.job.run.manifest()["best_validation"]


# What goes wrong


def damage(directory):
    path = directory / "rllib" / "learner_group" / "learner" / "class_and_ctor_args.pkl"
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def test_a_run_with_a_damaged_newest_checkpoint_goes_on_from_the_one_before(trained, tmp_path, ray_session, caplog):
    run = copied(trained.job.run, tmp_path)
    damage(run.checkpoint("last"))
    job = resumed_job(run.path)
    (line,) = [record.getMessage() for record in caplog.records if "checkpoint" in record.getMessage()]
    assert "class_and_ctor_args.pkl is not what was written (sha256); going on from the one before it." in line
    assert Standing.of(run).iteration == 2
    train_and_judge(job)
    assert without_timing(run.metrics())[:2] == without_timing(trained.rows)[:2]
    assert [row["env_steps"] for row in run.metrics()] == [512, 1024, 1536, 2048]
    assert run.manifest()["status"] == "finished"


def test_a_damaged_best_checkpoint_without_one_before_is_left_out(trained, tmp_path):
    run = copied(trained.job.run, tmp_path)
    shutil.rmtree(run.checkpoint("best.previous"), ignore_errors=True)
    damage(run.checkpoint("best"))
    resumed_job(run.path)
    standing = Standing.of(run)
    assert (standing.best_iteration, standing.best_score, standing.iteration) == (None, None, 4)
    assert training.judged_checkpoint(run.config(), standing) == "last"


def test_a_checkpoint_that_is_a_link_to_another_run_is_not_loaded(trained, tmp_path, ray_session):
    run = copied(trained.job.run, tmp_path)
    shutil.rmtree(run.checkpoint("last"))
    run.checkpoint("last").symlink_to(trained.job.run.checkpoint("last"))
    with pytest.raises(ConfigError, match="It holds pickle, which runs code when it is loaded"):
        train_and_judge(resumed_job(run.path))


def test_a_full_disk_leaves_the_last_checkpoint_and_says_how_to_go_on(small_yaml, tmp_path, ray_session, monkeypatch):
    job = new_job(dataclasses.replace(load_config(small_yaml), results_dir=str(tmp_path)))
    save, saved = Policy.save, []

    def until_full(self, directory):
        saved.append(directory)
        if len(saved) > 2:  # best and last of iteration 2 fit
            raise OSError(28, "No space left on device")
        return save(self, directory)

    monkeypatch.setattr(Policy, "save", until_full)
    with pytest.raises(CheckpointError, match=r"No space left on device. The one before is whole. Free some disk"):
        train_and_judge(job)
    assert defect(job.run.checkpoint("last")) is None
    assert Standing.of(job.run).iteration == 2
    assert job.run.manifest()["status"] == "failed"
    assert "--resume" in job.run.manifest()["error"]


def test_no_file_of_a_run_holds_a_key_from_the_environment(small_yaml, tmp_path, ray_session, monkeypatch):
    """Neither where all goes well nor where an error quotes it; with W&B and TensorBoard."""
    key = "hunter2hunter2hunter2"
    monkeypatch.setenv("SOME_API_KEY", key)
    overrides = ["training.total_env_steps=512", "tracking.mode=offline", "tracking.tensorboard=true"]
    job, notes = new_job(dataclasses.replace(load_config(small_yaml, overrides), results_dir=str(tmp_path))), []
    train_and_judge(job, on_note=notes.append)

    def fail(*_, **__):
        raise TrainingDivergedError(f"the server refused {key}")

    monkeypatch.setattr("rlplatform.experiments.experiment.train", fail)
    with pytest.raises(TrainingDivergedError):
        train_and_judge(dataclasses.replace(job, resume=True), on_note=notes.append)
    assert job.run.manifest()["error"] == "TrainingDivergedError: the server refused [redacted]"
    assert len(list(job.run.path.glob("wandb/offline-run-*/run-*.wandb"))) == 2
    assert [line.partition(":")[0] for line in sorted(notes)] == ["TensorBoard"] * 2 + ["W&B"] * 2
    files = [path for path in job.run.path.rglob("*") if path.is_file()]
    assert len(files) > 40
    assert [path for path in files if key.encode() in path.read_bytes()] == []


def test_what_is_tracked_has_no_part_in_the_hash_and_may_change_when_a_run_goes_on(trained, tmp_path):
    run = copied(trained.job.run, tmp_path)
    job = resumed_job(run.path, ["tracking.mode=offline"])
    assert job.config.tracking.mode == "offline"
    assert job.config.sha256 == trained.job.config.sha256


def test_settings_that_do_not_suit_the_prices_leave_no_directory(small_yaml, tmp_path):
    for override in ("env.id=PairLeverage-v0", "env.episode.length_bars=5000", "evaluation.gate.benchmark=X", "data.bars=700"):
        results = tmp_path / override.partition("=")[0]
        config = dataclasses.replace(load_config(small_yaml, [override]), results_dir=str(results))
        with pytest.raises((ConfigError, PlatformError)):
            new_job(config)
        assert not results.exists()


def test_a_training_that_fails_is_written_down_as_failed(small_yaml, tmp_path, monkeypatch):
    job = new_job(dataclasses.replace(load_config(small_yaml), results_dir=str(tmp_path)))

    def fail(*_, **__):
        raise TrainingDivergedError("policy_loss is not finite")

    monkeypatch.setattr("rlplatform.experiments.experiment.train", fail)
    with pytest.raises(TrainingDivergedError):
        train_and_judge(job)
    assert job.run.manifest()["status"] == "failed"
    assert job.run.manifest()["error"] == "TrainingDivergedError: policy_loss is not finite"


metrics_row = object.__new__(OnlineTrainer).row  # reads a result; needs no algorithm


def result(env_steps, episode_return, policy_loss=0.1, **episode):
    sampled = {"num_env_steps_sampled_lifetime": env_steps, "episode_return_mean": episode_return, "episode": episode}
    return {"env_runners": sampled, "learners": {"default_policy": {"policy_loss": policy_loss, "vf_loss": 1.0}}}


def test_episode_figures_stand_until_an_episode_ends_again():
    standing, nan = Standing(), float("nan")
    first = metrics_row(result(100, nan), standing, seconds=2.0)
    assert first["episode_return_mean"] is None
    assert (first["iteration"], first["env_steps_per_second"]) == (1, 50.0)
    second = metrics_row(result(200, 1.5, log_growth=0.5), standing, 2.0, first)
    third = metrics_row(result(300, nan, log_growth=nan), standing, 2.0, second)
    assert (third["episode_return_mean"], third["episode_log_growth"]) == (1.5, 0.5)
    fourth = metrics_row(result(400, nan), standing, 2.0, third)
    assert (fourth["episode_return_mean"], fourth["episode_log_growth"]) == (1.5, 0.5)
    assert (fourth["iteration"], fourth["seconds"]) == (4, 8.0)


def test_a_loss_that_is_no_number_stops_the_training():
    with pytest.raises(TrainingDivergedError, match=r"policy_loss is not finite at iteration 1 \(100 env steps\). Lower"):
        metrics_row(result(100, 1.0, policy_loss=float("nan")), Standing(), 1.0)


def test_the_first_signal_asks_and_the_second_interrupts():
    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        with pytest.raises(TrainingInterrupted, match="at once"):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_a_remote_runner_and_a_remote_learner_train_too(train_small):
    run, standing = train_small(training__num_env_runners=1, training__num_learners=1, training__total_env_steps=1024)
    assert standing.env_steps == 1024
    assert run.metrics()[-1]["validation_sharpe"] is not None


def test_a_run_whose_results_belong_elsewhere_is_stored_there_when_it_has_ended(small_yaml, tmp_path, ray_session, monkeypatch):
    monkeypatch.chdir(tmp_path)  # it is made in ./results
    config = load_config(small_yaml, ["training.total_env_steps=512", f"results_dir=file://{tmp_path}/bucket"])
    notes, job = [], new_job(config)
    assert job.run.path.parent == tmp_path / "results"
    train_and_judge(job, on_note=notes.append)
    assert notes == [f"stored at file://{tmp_path}/bucket/{job.run.name}"]
    there = tmp_path / "bucket" / job.run.name
    assert (there / "manifest.json").read_bytes() == (job.run.path / "manifest.json").read_bytes()
    with pytest.raises(ConfigError, match="is no storage"):
        new_job(load_config(small_yaml, ["results_dir=ftp://somewhere/x"]))
