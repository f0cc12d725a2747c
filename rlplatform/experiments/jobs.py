"""Jobs: trainings and sweeps that run on a Ray cluster under its Jobs API, watched and stopped from here."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from envs.errors import ConfigError, PlatformError
from rlplatform.experiments.config import load_config
from rlplatform.experiments.storage import is_remote
from rlplatform.experiments.yaml_text import apply_overrides, read_yaml

SOURCE = Path(__file__).resolve().parents[2]
CODE = ("envs", "rlplatform")
NOT_CODE = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
OVERRIDING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # Ray's client prefers them to the address that it is given
PATH_KEYS = ("results_dir", "data.path", "dataset.paths", "training.pretrain.run", "features.context.path")
# Settings of the driver and of every worker. Never a secret: runtime_env stands in the dashboard for all to read.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
PATIENCE_S = 60.0  # of a watcher whose cluster does not answer: a dashboard may be busy, or a forwarded port down

Kind = Literal["train", "sweep"]


class JobsError(PlatformError):
    """The Jobs API cannot be reached, or does not do what it is asked for."""


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """What is to run.

    Attributes:
        config: YAML file here; it is shipped.
        kind: the command, `train` or `sweep`.
        overrides: "key=value", as of that command.
        installed: use the package that is installed on the cluster; else this one's source is shipped.
    """

    config: Path
    kind: Kind = "train"
    overrides: tuple[str, ...] = ()
    installed: bool = False

    @property
    def entrypoint(self) -> str:
        """The shell command that the cluster's head runs, in the shipped directory."""
        return shlex.join(["python", "-m", "rlplatform", self.kind, self.config.name, *self.overrides])

    def check(self) -> None:
        """Find what can be found here, not after a minute on the cluster.

        A config with a dataset is checked there: the dataset is.

        Raises:
            ConfigError: a mistake in the config, or a path that means nothing on the cluster.
        """
        content = apply_overrides(read_yaml(self.config), self.overrides)
        if self.kind == "train" and "search" in content:
            raise ConfigError(f"{self.config.name} has a search block: it is a sweep. Submit it with --sweep.")
        if self.kind == "sweep" and "search" not in content:
            raise ConfigError(f"{self.config.name} has no search block: it is one training. Leave --sweep out.")
        _check_paths(content, self.config.name)
        if "dataset" in content:
            return
        if self.kind == "train":
            load_config(self.config, self.overrides)
            return
        from rlplatform.experiments.search import load_sweep  # brings Tune and Optuna

        load_sweep(self.config, self.overrides)


def _check_paths(content: Mapping[str, Any], where: str) -> None:
    """Every path must be absolute or a URI: a job's working directory goes when its node does."""
    for key in PATH_KEYS:
        value: Any = content
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if key == "results_dir" and value is None:
            value = "results"
        for path in (value,) if isinstance(value, str) else value or ():
            if not (is_remote(path) or Path(path).is_absolute()):
                raise ConfigError(
                    f"{where}: {key} = {path!r} is relative; on the cluster that is a job's temporary directory. Give an "
                    f"absolute path that the head node has{' or s3://… or gs://…' if key == 'results_dir' else ''}, "
                    f"also as an argument: {key}=/shared/…"
                )


@contextmanager
def shipped(request: JobRequest) -> Iterator[dict[str, Any]]:
    """The runtime_env: a directory with the config, and with the code unless the installed package is used.

    The directory lives as long as the block; Ray packs and uploads it at submission, and puts it on the import path of the
    driver and of every worker, before what is installed there.
    """
    with tempfile.TemporaryDirectory(prefix="rlplatform-job-") as name:
        directory = Path(name)
        shutil.copyfile(request.config, directory / request.config.name)
        for package in () if request.installed else CODE:
            shutil.copytree(SOURCE / package, directory / package, ignore=NOT_CODE)
        yield {"working_dir": str(directory), "env_vars": dict(ENVIRONMENT)}


def connect(address: str, timeout_s: float = 5.0) -> JobSubmissionClient:
    """A client of the Jobs API at `address`, such as http://127.0.0.1:8265.

    Raises:
        ConfigError: not such an address, or an environment variable contradicts it.
        JobsError: nothing answers there, it wants a token, or it is no Jobs API.
    """
    host, port = _host_and_port(address)
    for name in OVERRIDING:
        if os.environ.get(name, address).rstrip("/") != address.rstrip("/"):
            raise ConfigError(f"{name} = {os.environ[name]} would win over --address {address}. Unset it, or give that one.")
    silent = f"nothing answers at {address}. Is the head node up, its dashboard on, and the port forwarded (docs/CLUSTER.md)?"
    try:
        socket.create_connection((host, port), timeout_s).close()  # Ray's own request knows no time limit
    except OSError as error:
        raise JobsError(f"{silent} ({error.strerror or error})") from None
    with _answers(address):
        return JobSubmissionClient(address)


@contextmanager
def _answers(address: str, job: str | None = None) -> Iterator[None]:
    """Ray's errors in our words."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError:
        raise JobsError(
            f"{address} wants a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a copy of the cluster's token file."
        ) from None
    except ConnectionError:
        raise JobsError(f"{address} has stopped answering. Is the head node still up?") from None
    except RuntimeError as error:
        if job is not None and "404" in str(error):
            raise JobsError(f"{address} knows no job {job!r}. `rlplatform jobs status` lists those it has.") from None
        raise JobsError(f"{address}: {' '.join(str(error).split())[:300]}") from None


def _host_and_port(address: str) -> tuple[str, int]:
    try:
        parts = urlsplit(address)
        if parts.scheme in ("http", "https") and parts.hostname and not parts.username:
            return parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme]
    except ValueError:
        pass  # said below, as of every other such address
    raise ConfigError(f"--address {address!r}; expected the dashboard's, such as http://127.0.0.1:8265.")


def submit(client: JobSubmissionClient, request: JobRequest) -> str:
    """Start the job; returns its id.

    Raises:
        ConfigError: see `JobRequest.check`.
        JobsError: the cluster refuses.
    """
    request.check()
    with shipped(request) as runtime_env, _answers(client.get_address()):
        return client.submit_job(entrypoint=request.entrypoint, runtime_env=runtime_env)


def job_details(client: JobSubmissionClient, job: str) -> JobDetails:
    """Status, message and exit code of a job.

    Raises:
        JobsError: no such job.
    """
    with _answers(client.get_address(), job):
        return client.get_job_info(job)


def job_rows(client: JobSubmissionClient) -> list[dict[str, Any]]:
    """Submitted jobs, the newest first; plain values."""
    with _answers(client.get_address()):
        jobs = [job for job in client.list_jobs() if job.submission_id]
    return [job_row(job) for job in sorted(jobs, key=lambda job: job.start_time or 0, reverse=True)]


def job_row(job: JobDetails) -> dict[str, Any]:
    """One job in plain values; seconds of running, up to now or its end."""
    end = job.end_time or time.time() * 1e3
    return {
        "job": job.submission_id,
        "status": str(job.status.value),
        "exit_code": job.driver_exit_code,
        "seconds": round((end - job.start_time) / 1e3) if job.start_time else None,
        "command": job.entrypoint,
    }


def job_logs(client: JobSubmissionClient, job: str) -> str:
    """What the driver has written so far."""
    with _answers(client.get_address(), job):
        return client.get_job_logs(job)


def follow(
    client: JobSubmissionClient,
    job: str,
    write: Callable[[str], None] = lambda text: None,
    interval_s: float = 2.0,
    patience_s: float = PATIENCE_S,
) -> JobDetails:
    """Wait for the job's end; `write` is handed what its log has grown by.

    Raises:
        JobsError: no such job, or the cluster has not answered for `patience_s`.
    """
    seen, heard = 0, time.monotonic()
    while True:
        try:
            details = job_details(client, job)  # before the log: what ended has written all
            text = job_logs(client, job)
        except JobsError as error:
            if "knows no job" in str(error) or time.monotonic() - heard > patience_s:
                raise
            time.sleep(interval_s)
            continue
        heard = time.monotonic()
        write(text[seen:])
        seen = len(text)
        if details.status.is_terminal():
            return details
        time.sleep(interval_s)


def stop(client: JobSubmissionClient, job: str, timeout_s: float = 60.0) -> JobDetails:
    """End a job: SIGTERM to its driver, SIGKILL three seconds later. Its last checkpoint stays, and can be resumed.

    Raises:
        JobsError: no such job, or it has not ended in time.
    """
    with _answers(client.get_address(), job):
        client.stop_job(job)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        details = job_details(client, job)
        if details.status.is_terminal():
            return details
        time.sleep(0.5)
    raise JobsError(f"{job} has not ended within {timeout_s:.0f} s. Look at `rlplatform jobs logs {job}`.")


def succeeded(details: JobDetails) -> bool:
    """Whether the driver went through to its end."""
    return details.status == JobStatus.SUCCEEDED


def parsed_overrides(overrides: Sequence[str] | None) -> tuple[str, ...]:
    """Overrides that begin with a dash would become options of the command over there.

    Raises:
        ConfigError: such a one.
    """
    for override in overrides or ():
        if override.startswith("-") or "=" not in override:
            raise ConfigError(f"{override!r}; expected KEY=VALUE, such as training.learning_rate=1e-4.")
    return tuple(overrides or ())
