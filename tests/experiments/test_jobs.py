"""Jobs: what is shipped, what is refused, how a job is watched; and the commands of docs/CLUSTER.md on three real nodes."""

import json
import os
import re
import signal
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from ray.job_submission import JobStatus
from typer.testing import CliRunner

from envs.errors import ConfigError
from rlplatform.cli import app
from rlplatform.experiments import jobs
from rlplatform.experiments.jobs import JobRequest, JobsError, connect, follow, shipped, stop
from tests.cluster import free_port, loopback_cluster, needs_jobs_api
from tests.conftest import REPOSITORY, SMALL

DOC = (REPOSITORY / "docs" / "CLUSTER.md").read_text(encoding="utf-8")
GCS, DASHBOARD = "127.0.0.1:16379", "http://127.0.0.1:18265"


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL.format(results=tmp_path / "results"), encoding="utf-8")
    return path


class Cluster:
    """A Jobs API that answers from a list: (status, log so far), one entry a look; an error is raised."""

    def __init__(self, *looks):
        self.looks, self.stopped = list(looks), False

    def get_address(self):
        return DASHBOARD

    def get_job_info(self, job):
        if isinstance(self.looks[0], Exception):
            raise self.looks.pop(0)
        return SimpleNamespace(status=self.looks[0][0], submission_id=job)

    def get_job_logs(self, job):
        return self.looks.pop(0)[1] if len(self.looks) > 1 else self.looks[0][1]

    def stop_job(self, job):
        self.looks, self.stopped = [(JobStatus.STOPPED, "")], True


def test_the_entrypoint_is_the_command_of_the_same_name(config):
    request = JobRequest(config=config, kind="sweep", overrides=("results_dir=/shared/my results", "seed=1"))
    assert request.entrypoint == "python -m rlplatform sweep small.yaml 'results_dir=/shared/my results' seed=1"


def test_code_and_config_are_shipped_and_nothing_else(config):
    with shipped(JobRequest(config=config)) as runtime_env:
        directory = config.parent.__class__(runtime_env["working_dir"])
        assert sorted(path.name for path in directory.iterdir()) == ["envs", "rlplatform", "small.yaml"]
        assert (directory / "rlplatform" / "__main__.py").is_file()
        assert not list(directory.rglob("__pycache__"))
        assert sum(path.stat().st_size for path in directory.rglob("*")) < 5e6
    assert not directory.exists()


def test_with_the_installed_package_only_the_config_is_shipped(config):
    with shipped(JobRequest(config=config, installed=True)) as runtime_env:
        assert [path.name for path in config.parent.__class__(runtime_env["working_dir"]).iterdir()] == ["small.yaml"]


def test_no_variable_of_this_process_is_shipped(config, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "not-for-the-dashboard")
    with shipped(JobRequest(config=config)) as runtime_env:
        assert "not-for-the-dashboard" not in json.dumps(runtime_env)
        assert set(runtime_env["env_vars"]) == set(jobs.ENVIRONMENT)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["results_dir=results"], r"small.yaml: results_dir = 'results' is relative; .* or s3://… or gs://…"),
        (["data={source: folder, path: prices}"], r"data.path = 'prices' is relative"),
        (["training.learing_rate=1"], r"unknown key training.learing_rate. Did you mean learning_rate"),
        (["search={parameters: {seed: {grid: [0]}}}"], r"has a search block: it is a sweep. Submit it with --sweep"),
    ],
)
def test_what_cannot_work_over_there_is_refused_here(config, overrides, message):
    with pytest.raises(ConfigError, match=message):
        JobRequest(config=config, overrides=tuple(overrides)).check()


def test_results_may_go_to_an_absolute_path_or_a_bucket(config):
    for place in ("/shared/results", "s3://bucket/results"):
        JobRequest(config=config, overrides=(f"results_dir={place}",)).check()


def test_a_training_is_no_sweep(config):
    with pytest.raises(ConfigError, match=r"has no search block: it is one training. Leave --sweep out"):
        JobRequest(config=config, kind="sweep").check()


def test_where_nobody_listens_one_line_says_so(monkeypatch):
    for name in jobs.OVERRIDING:
        monkeypatch.delenv(name, raising=False)
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(JobsError, match=rf"nothing answers at {address}. Is the head node up"):
        connect(address)


def test_something_that_is_no_jobs_api_is_not_taken_for_one(monkeypatch):
    needs_jobs_api()
    for name in jobs.OVERRIDING:
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        import threading

        def answer():
            for _ in range(2):  # the first is only the look whether someone listens
                connection, _ = server.accept()
                if connection.recv(4096):
                    connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                connection.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with pytest.raises(JobsError, match="Version check returned 404"):
            connect(f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join(5)


@pytest.mark.parametrize("address", ["127.0.0.1:8265", "ray://head:10001", "http://", "http://user:secret@head:8265"])
def test_what_is_no_dashboards_address_is_refused(address):
    with pytest.raises(ConfigError, match="expected the dashboard's, such as"):
        connect(address)


def test_a_variable_that_would_win_over_the_address_is_named(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://elsewhere:8265")
    with pytest.raises(ConfigError, match=r"RAY_ADDRESS = http://elsewhere:8265 would win over --address"):
        connect("http://127.0.0.1:8265")


def test_a_log_is_shown_once_and_to_its_end():
    cluster = Cluster((JobStatus.PENDING, ""), (JobStatus.RUNNING, "one\n"), (JobStatus.SUCCEEDED, "one\ntwo\n"))
    shown = []
    assert follow(cluster, "job", shown.append, interval_s=0).status == JobStatus.SUCCEEDED
    assert "".join(shown) == "one\ntwo\n"


def test_a_watcher_outlasts_a_dashboard_that_is_gone_for_a_moment():
    cluster = Cluster((JobStatus.RUNNING, ""), ConnectionError("gone"), (JobStatus.SUCCEEDED, "done\n"))
    assert follow(cluster, "job", interval_s=0).status == JobStatus.SUCCEEDED


def test_a_watcher_gives_up_when_the_cluster_stays_silent():
    with pytest.raises(JobsError, match="has stopped answering"):
        follow(Cluster(*[ConnectionError("gone")] * 10), "job", interval_s=0.01, patience_s=0.03)


def test_a_job_that_nobody_knows_is_named_at_once():
    with pytest.raises(JobsError, match="knows no job 'job'"):
        follow(Cluster(RuntimeError("Request failed with status code 404: …")), "job")


def test_a_stopped_job_is_waited_for():
    cluster = Cluster((JobStatus.RUNNING, ""))
    assert stop(cluster, "job").status == JobStatus.STOPPED
    assert cluster.stopped


@pytest.mark.parametrize(("status", "code"), [(JobStatus.SUCCEEDED, 0), (JobStatus.FAILED, 1), (JobStatus.STOPPED, 1)])
def test_waiting_ends_with_1_unless_the_driver_went_through(config, monkeypatch, status, code):
    details = SimpleNamespace(
        status=status, submission_id="job", driver_exit_code=code, start_time=1_000, end_time=3_000, entrypoint="python"
    )
    monkeypatch.setattr(jobs, "connect", lambda address: Cluster((status, "the log\n")))
    monkeypatch.setattr(jobs, "submit", lambda client, request: "job")
    monkeypatch.setattr(jobs, "follow", lambda client, job, write: (write("the log\n"), details)[1])
    done = CliRunner().invoke(app, ["submit", str(config), "--wait", "--address", DASHBOARD])
    assert (done.exit_code, done.stdout) == (code, "the log\n")


def commands(heading):
    """Of the block in docs/CLUSTER.md whose first line is the comment `# heading…`."""
    (block,) = re.findall(rf"```sh\n# {heading}.*?\n(.*?)```", DOC, re.DOTALL)
    return block.strip().splitlines()


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_sweep_on_three_nodes_outlives_the_death_of_one_by_the_commands_of_the_documentation():
    """Eight trials submitted; a worker node killed half-way; eight rows and a winner. Then a job that fails, and one that is
    stopped.
    """
    needs_jobs_api()
    with loopback_cluster() as cluster:
        config, results = cluster.directory / "small.yaml", cluster.directory / "results"
        config.write_text(SMALL.format(results="results").replace("total_env_steps: 2000", TRIALS) + SEARCH, encoding="utf-8")
        cluster.environment |= {"TEMP": str(cluster.directory / "ray"), "CONFIG": str(config), "RESULTS": str(results)}
        (token,) = commands("the token")
        assert cluster.run(token).returncode == 0
        for count, line in enumerate(commands("nodes"), start=1):
            node = cluster.start(line)
            cluster.await_nodes(GCS, count)
        submit, status, logs, stop_job = commands("the sweep")

        without = cluster.run(f"RAY_AUTH_MODE=disabled {status}")
        assert (without.returncode, "wants a token" in without.stderr) == (2, True), without.stderr

        cluster.environment["JOB"] = submitted(cluster, submit)
        wait_for(cluster, lambda: statuses(results).count("finished") >= 2 and caught(node), status)
        assert statuses(results).count("finished") < 8
        node.kill()
        shown = cluster.run(logs, timeout=200)
        assert shown.returncode == 0, shown.stdout + shown.stderr
        assert "SUCCEEDED" in cluster.run(status).stdout
        (directory,) = results.iterdir()
        table = pd.read_parquet(directory / "results.parquet")
        assert table["status"].tolist() == ["finished"] * 8
        assert table["env_steps"].tolist() == [1024] * 8
        manifest = json.loads((directory / "manifest.json").read_text())
        assert (manifest["status"], manifest["num_trials"]) == ("finished", 8)
        assert manifest["winner"]["trial"] in set(table["trial"])
        assert (directory / "winner" / "report" / "report.md").is_file()

        failed = cluster.run(f"{submit} data.market=momentum 'split.test=[2090-01-01, 2091-01-01]' --wait")
        assert failed.returncode == 1, failed.stdout + failed.stderr
        assert "MarketDataError" in failed.stdout

        cluster.environment["JOB"] = submitted(cluster, f"{submit} training.total_env_steps=100000000")
        wait_for(cluster, lambda: "RUNNING" in cluster.run(status).stdout, status)
        stopped = cluster.run(stop_job)
        assert (stopped.returncode, "STOPPED" in stopped.stderr) == (0, True), stopped.stderr
    assert not any(node.pids() for node in cluster.nodes)


TRIALS = "total_env_steps: 1024"
SEARCH = """\
search:
  parameters: {env.reward.turnover: {grid: [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35]}}
  max_concurrent: 4
"""


def submitted(cluster, command):
    done = cluster.run(command)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def statuses(results):
    """Of every trial that has begun."""
    return [json.loads(path.read_text())["status"] for path in results.glob("*/trials/*/trial.json")]


def caught(node):
    """Whether a trial is under way on this node; it is halted, so that it cannot end before the node does."""
    for pid in node.pids():
        if in_trial(pid):
            os.kill(pid, signal.SIGSTOP)
            if in_trial(pid):  # it has not ended in between
                return True
            os.kill(pid, signal.SIGCONT)
    return False


def in_trial(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::ImplicitFunc.train")
    except OSError:  # gone meanwhile
        return False


def wait_for(cluster, condition, status, timeout=180):
    """Until it holds; a job that fails meanwhile shows its log. Asking costs seconds of the cores that the job needs."""
    deadline, ask = time.monotonic() + timeout, time.monotonic() + 20
    while not condition():
        time.sleep(0.2)
        if time.monotonic() > min(ask, deadline):
            shown, ask = cluster.run(f"{status} $JOB").stdout, time.monotonic() + 20
            if "FAILED" in shown or time.monotonic() > deadline:
                raise AssertionError(shown + cluster.run(f"rlplatform jobs logs $JOB --address {DASHBOARD}").stdout)
