"""Tracking: what arrives, and that nothing of it can stop or delay a run."""

import json
import os
import shutil
import struct
import time

import pytest

from envs.errors import ConfigError
from rlplatform.experiments.tracking import Tracker, TrackingConfig, finite_numbers, run_id
from rlplatform.experiments.tracking_process import TrackingProcess, step_axis
from rlplatform.experiments.tracking_wandb import why_offline
from tests.experiments.wandb_file import WandbFile

FAKE_KEY = "0123456789abcdef0123456789abcdef01234567"
WANDB_MODULE = "rlplatform.experiments.tracking_wandb"


@pytest.fixture(autouse=True)
def no_login(monkeypatch, tmp_path):
    """No test depends on, or writes to, whatever account this machine may have."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


@pytest.fixture
def fake_wandb(monkeypatch, tmp_path):
    """A module `wandb` of a few lines, found first by the tracker's process."""

    def fake_wandb(**functions):
        folder = tmp_path / "fake"
        folder.mkdir()
        body = {"init": "return Run()", "log": "pass", "finish": "pass"} | functions
        (folder / "wandb.py").write_text(FAKE.format(**body))
        monkeypatch.syspath_prepend(folder)

    return fake_wandb


FAKE = """\
import sys, time
class errors:
    class Error(Exception): pass
def Settings(**_): pass
def teardown(): pass
class Summary(dict): pass
class Run:
    id, url, dir, summary = "x", "https://wandb.example/x", "/somewhere/run/files", Summary()
    def define_metric(self, *_, **__): pass
    def log(self, *_, **__):
        {log}
    def finish(self, **_):
        {finish}
def init(**_):
    {init}
"""


def rows(count=3):
    return [{"iteration": i, "env_steps": 512 * i, "policy_loss": 0.1 * i, "entropy": None} for i in range(1, count + 1)]


def tracked(directory, lines, config=None, limit_s=30.0, count=3):
    """Track a short run; the seconds that starting and logging took, and those of finishing."""
    tracker = Tracker(config or TrackingConfig(mode="offline"), lines.append, limit_s)
    began = time.monotonic()
    tracker.start({"seed": 1}, directory)
    for row in rows(count):
        tracker.log(row)
    logged = time.monotonic()
    tracker.finish()
    return logged - began, time.monotonic() - logged


# What arrives


def test_an_offline_run_holds_config_rows_figures_table_plots_and_artifacts(trained, tmp_path, monkeypatch):
    """The W&B file, read back record by record."""
    monkeypatch.setenv("FAKE_API_KEY", FAKE_KEY)
    directory = shutil.copytree(trained.path, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    (directory / "config.yaml").write_text(f"password: {FAKE_KEY}\nseed: 3\n")
    config, lines = TrackingConfig(mode="offline", group="sweep-1", tags=("small",), tensorboard=True), []
    with Tracker(config, lines.append) as tracker:
        tracker.start({"seed": 3, "note": f"never {FAKE_KEY}", "api_token": "hidden"}, directory)
        for row in trained.rows:
            tracker.log(row)
        tracker.finish(trained.verdict)

    found = WandbFile(directory)
    assert (found.run.project, found.run.run_group, list(found.run.tags)) == ("rlplatform", "sweep-1", ["small"])
    assert (found.run.display_name, found.exit_code) == ("run", 0)
    assert found.config["seed"] == 3
    assert (found.config["note"], found.config["api_token"]) == ("never [redacted]", "[redacted]")
    for ours, theirs in zip(trained.rows, found.history, strict=True):
        assert finite_numbers(ours).items() <= theirs.items()
    assert {"env_steps_per_second", "policy_loss", "validation_sharpe", "validation_total_return"} <= set(found.history[3])
    figures = trained.verdict.metrics["PPO_GRU"].to_dict()
    for name in ("total_return", "sharpe", "max_drawdown", "turnover_per_day"):
        assert found.summary[name] == pytest.approx(figures[name], rel=1e-12)
    assert found.summary["verdict"] == trained.verdict.sentence
    media = {name.partition(".")[0] for name in found.history[3] if name.endswith("._type")}
    assert {"evaluation", "equity", "drawdown"} <= media
    (artifact,) = [each for each in found.artifacts if each.type == "run"]
    assert {"config.yaml", "manifest.json", "report/report.md", "report/equity.png"} <= {
        entry.path for entry in artifact.manifest.contents
    }
    assert [line for line in lines if "wandb sync" in line] == [
        f"W&B: the run is kept offline. To send it later: wandb sync {found.path.parent}"
    ]
    table = next(found.path.parent.glob("files/media/table/evaluation*.json"))
    assert [row[0] for row in json.loads(table.read_text())["data"]] == list(trained.verdict.table.metrics)
    (directory / "config.yaml").unlink()  # ours, with the key on purpose; what W&B and TensorBoard got has none
    assert files_with(directory, FAKE_KEY) == []

    scalars, tags = tensorboard(directory)
    assert [step for step, _ in scalars["policy_loss"]] == [512, 1024, 1536, 2048]
    assert [value for _, value in scalars["policy_loss"]] == pytest.approx([row["policy_loss"] for row in trained.rows])
    assert scalars["test/sharpe"][0][1] == pytest.approx(figures["sharpe"], rel=1e-6)
    assert {"equity", "verdict/text_summary", "config/text_summary"} <= tags


def files_with(directory, text):
    return [path for path in directory.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def tensorboard(directory):
    """Scalars by tag as (step, value), and all tags, of the event files (TFRecord: length, checksum, content, checksum)."""
    from tensorboardX.proto.event_pb2 import Event

    scalars, tags = {}, set()
    for path in sorted((directory / "tensorboard").iterdir()):
        content, position = path.read_bytes(), 0
        while position < len(content):
            (length,) = struct.unpack_from("<Q", content, position)
            event = Event.FromString(content[position + 12 : position + 12 + length])
            position += 12 + length + 4
            for value in event.summary.value:
                tags.add(value.tag)
                if value.WhichOneof("value") == "simple_value":
                    scalars.setdefault(value.tag, []).append((event.step, value.simple_value))
    return scalars, tags


def test_online_without_a_network_falls_back_to_offline_and_says_how_to_send_it(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", FAKE_KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    lines = []
    tracked(tmp_path / "run", lines, TrackingConfig(mode="online"))
    found = WandbFile(tmp_path / "run")
    assert [row["policy_loss"] for row in found.history] == pytest.approx([0.1, 0.2, 0.3])
    assert lines == [
        f"W&B: no answer from 127.0.0.1, so the run is kept offline. To send it later: wandb sync {found.path.parent}"
    ]
    assert files_with(tmp_path / "run", FAKE_KEY) == []


@pytest.mark.parametrize(
    ("mode", "environment", "reason"),
    [
        ("offline", {"WANDB_API_KEY": "k"}, ""),
        ("online", {"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}, ""),
        ("online", {}, "no API key (`wandb login`, or WANDB_API_KEY)"),
        ("online", {"WANDB_API_KEY": "k", "WANDB_BASE_URL": "http://127.0.0.1:9"}, "no answer from 127.0.0.1"),
        ("online", {"WANDB_API_KEY": "k", "WANDB_BASE_URL": "nonsense"}, "no answer from None"),
    ],
)
def test_why_a_run_is_not_online(mode, environment, reason, tmp_path):
    assert why_offline(mode, {"NETRC": str(tmp_path / "none"), **environment}) == reason


def test_a_login_in_netrc_is_a_key(tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1\n  login user\n  password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    environment = {"NETRC": str(tmp_path / "netrc"), "WANDB_BASE_URL": "http://127.0.0.1:9"}
    assert why_offline("online", environment) == "no answer from 127.0.0.1"


def test_disabled_starts_no_process_and_writes_nothing(tmp_path):
    lines = []
    tracked(tmp_path, lines, TrackingConfig())
    assert lines == []
    assert list(tmp_path.iterdir()) == []


def test_a_trial_belongs_to_its_sweep_unless_another_group_is_given():
    assert TrackingConfig().in_sweep("turnover").group == "turnover"
    assert TrackingConfig(group="mine").in_sweep("turnover").group == "mine"


def test_a_resumed_run_is_the_same_run_and_another_directory_another(tmp_path):
    assert run_id(tmp_path / "a") == run_id(tmp_path / "a") != run_id(tmp_path / "b")


def test_rows_keep_their_finite_numbers_under_their_own_names():
    row = {"env_steps": 5, "loss": float("nan"), "kl": None, "note": "text", "flag": True, "sharpe": 1.5}
    assert finite_numbers(row) == {"env_steps": 5.0, "sharpe": 1.5}
    assert [step_axis(row) for row in ({"env_steps": 1}, {"gradient_steps": 1}, {})] == [
        "env_steps",
        "gradient_steps",
        "iteration",
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"project": "a/b"}, r"tracking.project = 'a/b'; expected"),
        ({"tags": ("x" * 65,)}, "has 65 characters; expected 1 to 64"),
    ],
)
def test_names_that_wandb_would_refuse_are_refused_at_once(settings, message):
    with pytest.raises(ConfigError, match=message):
        TrackingConfig(**settings)


# What goes wrong


RAISE, HANG = "raise RuntimeError('server says no\\nmore')", "time.sleep(600)"


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_a_wandb_that_raises_is_turned_off_with_one_line(fake_wandb, tmp_path, where):
    fake_wandb(**{where: RAISE})
    lines = []
    logging_s, finishing_s = tracked(tmp_path, lines)
    assert logging_s < 1.0
    assert finishing_s < 15.0
    (line,) = [line for line in lines if "without it" in line]
    assert line.startswith("W&B: failed (RuntimeError: server says no); the run goes on without it.")
    assert ("wandb sync /somewhere/run" in line) == (where != "init")


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_a_wandb_that_hangs_costs_the_limit_at_the_end_and_no_more(fake_wandb, tmp_path, where):
    fake_wandb(**{where: HANG})
    lines = []
    logging_s, finishing_s = tracked(tmp_path, lines, limit_s=2.0)
    assert logging_s < 1.0
    assert 2.0 <= finishing_s < 5.0
    assert [line for line in lines if "did not finish within 2 s; the run goes on without it." in line] == lines[-1:]


def test_a_hanging_wandb_that_is_logged_to_for_long_is_given_up(fake_wandb, tmp_path):
    fake_wandb(init=HANG)
    lines = []
    tracker = Tracker(TrackingConfig(mode="offline"), lines.append, limit_s=0.5)
    tracker.start({}, tmp_path)
    began = time.monotonic()
    for row in rows(1_500):  # more than the process keeps, less than what fills the training's own memory
        tracker.log(row)
    while not lines and time.monotonic() - began < 10:
        time.sleep(0.05)
        tracker.log(rows(1)[0])
    assert "takes no rows any more; the run goes on without it" in lines[0]
    tracker.finish()
    assert len(lines) == 1


def test_without_wandb_the_run_goes_on(fake_wandb, tmp_path):
    fake_wandb()
    (tmp_path / "fake" / "wandb.py").write_text("raise ModuleNotFoundError('No module named wandb')")
    lines = []
    tracked(tmp_path, lines)
    assert lines == ["W&B: failed (ModuleNotFoundError: No module named wandb); the run goes on without it."]


def test_one_tracker_that_fails_leaves_the_other_alone(fake_wandb, tmp_path):
    fake_wandb(init=RAISE)
    lines = []
    tracked(tmp_path, lines, TrackingConfig(mode="offline", tensorboard=True))
    assert len([line for line in lines if line.startswith("W&B: failed")]) == 1
    assert [step for step, _ in tensorboard(tmp_path)[0]["policy_loss"]] == [512, 1024, 1536]


def test_a_killed_tracker_is_noticed_once(fake_wandb, tmp_path):
    fake_wandb()
    lines = []
    process = TrackingProcess(WANDB_MODULE, "W&B", lines.append, limit_s=5.0)
    process._process.kill()
    process._process.wait()
    for row in rows():
        process.send("log", row=row, step=1)
    process.finish({})
    assert lines == ["W&B: has ended unexpectedly; the run goes on without it."]


@pytest.mark.parametrize("finish", ["pass", HANG])
def test_the_process_ends_when_the_training_is_killed(fake_wandb, tmp_path, finish):
    """A kill closes the pipe; nothing else is left to tell it."""
    fake_wandb(finish=finish)
    process = TrackingProcess(WANDB_MODULE, "W&B", print, limit_s=1.0)
    run = {"directory": str(tmp_path), "config": {}, "name": "n", "id": "i"}
    process.send(
        "start", run={**run, "tracking": {"mode": "offline", "project": "p", "entity": None, "group": None, "tags": []}}
    )
    process._process.stdin.close()
    process._process.wait(timeout=20)
    process.on = False
    process._end(patience_s=0.0)


def test_a_block_that_ends_by_an_error_ends_the_run_as_failed(fake_wandb, tmp_path):
    marker = tmp_path / "exit_code"
    fake_wandb(finish=f"open({str(marker)!r}, 'w').write(str(_))")

    def interrupted():
        with Tracker(TrackingConfig(mode="offline"), print) as tracker:
            tracker.start({}, tmp_path)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert marker.read_text() == "{'exit_code': 1}"
