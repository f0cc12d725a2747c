"""A Ray session for one command: ours when there is none, the given one when there is."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

# A user's terminal shows the training, not the plumbing. Ray sets the level of these when it is imported, so a level of
# their parent "ray" says nothing to them. Errors still come through; the rest stands in Ray's session directory.
LOGGERS = ("ray", "ray.rllib", "ray.tune", "ray.train")


@contextmanager
def ray_session(num_processes: int) -> Iterator[None]:
    """Ray for the block.

    Inside a `ray job submit` (RAY_ADDRESS set) or where a session runs already, that one is used and left running.
    Otherwise a private local one is started, with room for `num_processes` processes even on fewer cores, and stopped after;
    a cluster that somebody started on this machine is left alone (RAY_ADDRESS=auto joins it).
    """
    with _only_errors():
        if ray.is_initialized():
            yield
            return
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_DISABLE_IMPORT_WARNING", "1")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if os.environ.get("RAY_ADDRESS"):
            ray.init(logging_level=logging.ERROR)
        else:
            cores = max(num_processes, os.cpu_count() or 1)
            ray.init(address="local", num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _only_errors() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
