"""What every room's tests share: quiet processes, real prices where they are at hand, one small trained run."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: few cores, many processes
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items):
    """Files with long tests first: what comes last should be short, or one worker waits for the other."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session")
def shared_equities() -> Path:
    """Folder of real prices (SPY, QQQ, IWM and others), which are not part of the project."""
    path = Path(os.environ.get("RLPLATFORM_SHARED_DATA", REPOSITORY.parent / "shared" / "data")) / "equities"
    if not path.is_dir():
        pytest.skip(f"real prices are not at {path}; set RLPLATFORM_SHARED_DATA to the folder above it")
    return path


@pytest.fixture(scope="session")
def small_yaml(tmp_path_factory) -> Path:
    """Settings of a training that takes seconds: one momentum asset, a small GRU, four iterations."""
    folder = tmp_path_factory.mktemp("small")
    path = folder / "small.yaml"
    path.write_text(SMALL.format(results=folder / "results"), encoding="utf-8")
    return path


SMALL = """\
name: small
seed: 3
data: {{source: synthetic, market: momentum, bars: 1200}}
split:
  train: [2000-06-01, 2002-12-31]
  validation: [2003-01-01, 2003-06-30]
  test: [2003-07-01, 2004-06-30]
env: {{id: Portfolio-v0, costs: {{proportional_bps: 2}}, episode: {{length_bars: 60}}}}
model: {{kind: gru, embedding_size: 16, hidden_size: 16, max_seq_len: 16}}
training: {{total_env_steps: 2000, num_envs_per_env_runner: 16, rollout_length: 32, minibatch_size: 256, num_epochs: 2}}
evaluation: {{interval_iterations: 2, bootstrap: {{resamples: 200}}}}
results_dir: {results}
"""


@dataclass
class TrainedRun:
    """A finished run and what was seen while it trained."""

    job: object
    verdict: object
    rows: list[dict] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.job.run.path


@pytest.fixture(scope="session")
def ray_session():
    """One private Ray for all trainings of a test session."""
    import ray

    if not ray.is_initialized():
        ray.init(address="local", num_cpus=4, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def trained(small_yaml, ray_session) -> TrainedRun:
    """The small run, trained and judged once for all tests. Read only."""
    from rlplatform.experiments.config import load_config
    from rlplatform.experiments.experiment import new_job, train_and_judge

    run = TrainedRun(new_job(load_config(small_yaml)), None)
    run.verdict = train_and_judge(run.job, run.rows.append, run.phases.append)
    return run


@pytest.fixture
def typed(monkeypatch, capsys):
    """Type a command; exit code, standard output and standard error."""
    from rlplatform import cli

    before = signal.getsignal(signal.SIGTERM)

    def typed(*words):
        monkeypatch.setattr(sys, "argv", ["rlplatform", *map(str, words)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    yield typed
    signal.signal(signal.SIGTERM, before)
