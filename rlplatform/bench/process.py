"""A contender in a process of its own: a clean interpreter, its own Ray session, one JSON line on standard output.

python -m rlplatform.bench.process ours '{"num_envs": 256}' '{"precision": "bfloat16"}'
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from typing import Any

from rlplatform.bench.contenders import WORK, Result
from rlplatform.bench.task import BenchTask

TIMEOUT_S = 180.0
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def run_alone(work: str, task: BenchTask, settings: dict[str, Any] | None = None, timeout_s: float = TIMEOUT_S) -> Result:
    """What `WORK[work](task, **settings)` returns in a fresh process; `{"error": ...}` when it fails or hangs."""
    command = [sys.executable, "-m", "rlplatform.bench.process", work, json.dumps(asdict(task)), json.dumps(settings or {})]
    environment = os.environ | ONE_THREAD | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}
    environment.pop("RAY_ADDRESS", None)  # a benchmark measures this machine, never a cluster
    process = subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        _end(process)
        return {"error": f"took longer than {timeout_s:.0f} s"}
    except BaseException:
        _end(process)
        raise
    if process.returncode:
        return {"error": _last_line(err) or f"exit code {process.returncode}"}
    return json.loads(_last_line(out))


def _end(process: subprocess.Popen) -> None:
    """The process and what it started: they are one session."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def main(arguments: list[str]) -> None:
    work, task, settings = arguments
    result = WORK[work](BenchTask(**json.loads(task)), **json.loads(settings))
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
