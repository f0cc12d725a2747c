"""Ray for one command: its own, unless one was named."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conftest import REPOSITORY

OWN = """
import ray
from rlplatform.experiments.ray_session import ray_session
with ray_session(1):
    print(ray.get_runtime_context().gcs_address)
"""


def test_a_cluster_that_somebody_started_on_this_machine_is_left_alone():
    """`ray start` leaves its address in Ray's directory; Ray would join it, and refuse to, since we say how many cores."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as directory:  # short: Ray's sockets lie below it
        (Path(directory) / "ray").mkdir()
        (Path(directory) / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
        environment = os.environ | {"RAY_TMPDIR": directory, "PYTHONPATH": str(REPOSITORY)}
        environment.pop("RAY_ADDRESS", None)
        done = subprocess.run([sys.executable, "-c", OWN], env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() not in ("", "127.0.0.1:1")
