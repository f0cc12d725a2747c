"""Ctrl-C and SIGTERM while a policy trains: the first lets the iteration end and a checkpoint be written."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType, TracebackType

log = logging.getLogger(__name__)
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingInterrupted(KeyboardInterrupt):
    """Someone stopped the training; its last checkpoint is whole."""


class StopRequest:
    """Inside the block the first signal only sets `requested`; a second one interrupts at once.

    Signals can be caught in the main thread only; elsewhere the block changes nothing. Enter it after `ray.init`, which
    takes SIGTERM for itself.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> StopRequest:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise TrainingInterrupted("stopped at once")
        self.requested = True
        log.warning("stopping after this iteration; once more stops at once")
