"""A private Ray cluster of several nodes on loopback: own ports, own temp directory, ended by process id.

Every process of a node carries a mark of its own in its environment, so what is killed is exactly what that node started,
orphans too.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

MARK = "RLPLATFORM_TEST_NODE"
REPOSITORY = Path(__file__).resolve().parents[1]


def needs_jobs_api() -> None:
    """Skip where Ray came without its dashboard, which has the Jobs API."""
    pytest.importorskip("aiohttp_cors", reason="ray[default] is not installed")


def environment(directory: Path) -> dict[str, str]:
    """Of commands: `ray`, `rlplatform` and `python` are those of this interpreter, nothing points at another cluster."""
    binaries = directory / "bin"
    binaries.mkdir(exist_ok=True)
    for name, entry in {"ray": "ray.scripts.scripts", "rlplatform": "rlplatform.cli"}.items():
        script = binaries / name
        script.write_text(f"#!{sys.executable}\nimport sys\nfrom {entry} import main\nsys.exit(main())\n")
        script.chmod(0o755)
    python = binaries / "python"
    if not python.exists():
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "COV_", "PYTEST_"))}
    quiet = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "120"}
    # A home of its own, so that the cluster's token is the cluster's alone.
    own = {"HOME": str(directory), "RAY_AUTH_MODE": "token", "PATH": f"{binaries}:{os.environ['PATH']}"}
    return kept | quiet | own


@dataclass
class Node:
    """`ray start --block …` and all that came of it."""

    command: str
    environment: dict[str, str]
    log: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def start(self) -> None:
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", f"exec {self.command}"],
                env=self.environment | {MARK: self.mark},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=REPOSITORY,
            )

    def pids(self) -> list[int]:
        """Of every living process with this node's mark."""
        mark, found = f"{MARK}={self.mark}".encode(), []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue  # gone meanwhile, or someone else's
        return found

    def kill(self) -> None:
        """As when the power goes."""
        deadline = time.monotonic() + 30
        while (pids := self.pids()) and time.monotonic() < deadline:
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self.process.poll()
            time.sleep(0.1)
        self.process.wait(timeout=10)
        assert not self.pids()


class LoopbackCluster:
    """Nodes started one by one from `ray start` commands."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = environment(directory)
        self.nodes: list[Node] = []

    def start(self, command: str) -> Node:
        node = Node(command, self.environment, self.directory / f"node-{len(self.nodes)}.log")
        self.nodes.append(node)
        node.start()
        return node

    def run(self, command: str, timeout: float = 120) -> subprocess.CompletedProcess:
        """A shell command on this cluster's machine."""
        return subprocess.run(
            ["bash", "-c", command],
            env=self.environment,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def await_nodes(self, address: str, count: int, timeout: float = 120) -> None:
        deadline, done = time.monotonic() + timeout, None
        while time.monotonic() < deadline:
            done = self.run(f"{sys.executable} -c {COUNT_NODES!r} {address}")
            if done.returncode == 0 and int(done.stdout.split()[-1]) >= count:
                return
            dead = [node for node in self.nodes if node.process.poll() is not None]
            assert not dead, dead[0].log.read_text()
            time.sleep(1)
        raise AssertionError(f"{count} nodes at {address} did not come up: {done}\n{self.nodes[0].log.read_text()}")

    def end(self) -> None:
        for node in reversed(self.nodes):
            node.kill()


COUNT_NODES = (
    "import sys; from ray._raylet import GcsClient; "
    "infos = GcsClient(address=sys.argv[1]).get_all_node_info(); "
    "print(sum(i.state == 0 for i in infos.values()))"
)


@contextmanager
def loopback_cluster():
    """An empty cluster in a short temporary directory (Ray's sockets allow 107 characters), ended whatever happens."""
    directory = Path(tempfile.mkdtemp(prefix="rlp", dir="/tmp"))
    cluster = LoopbackCluster(directory)
    try:
        yield cluster
    finally:
        cluster.end()
        shutil.rmtree(directory, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
