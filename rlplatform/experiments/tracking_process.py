"""A tracker in a process of its own: it may fail, hang or be killed, and the training beside it loses no second.

The training writes JSON lines into the process's standard input, without ever waiting, and reads lines from its output
when it writes the next. Nothing of W&B or TensorBoard is imported into the training process, and a process can be ended,
which no thread can. It ends by itself when the training does, however that came about.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TextIO

Message = dict[str, Any]
MOST_PENDING = 4 * 2**20  # bytes that a process may lie behind
MOST_QUEUED = 1_000  # rows that a backend may lie behind
LONGEST_EXIT_S = 5.0
STEPS = ("env_steps", "gradient_steps")  # what a row's length is counted in


class Backend(ABC):
    """What the process does with the messages."""

    @abstractmethod
    def start(self, run: Message) -> Mapping[str, str]:
        """Begin.

        Returns:
            "say": a line for the user; "rescue": how to save what was logged if it ends badly.
        """

    @abstractmethod
    def log(self, row: Mapping[str, float], step: int) -> None:
        """One row of metrics."""

    @abstractmethod
    def finish(self, outcome: Message) -> None:
        """End; `outcome` is empty when the training ended without saying so."""


class TrackingProcess:
    """The training's end of it.

    Args:
        module: to run with `python -m`; it calls `serve`.
        label: what the user's lines call it.
        say: is told where the run is tracked, and at most once that it is not any more.
        limit_s: the longest that `finish` waits.

    Attributes:
        on: whether rows still go anywhere.
    """

    def __init__(self, module: str, label: str, say: Callable[[str], None], limit_s: float) -> None:
        self._label, self._say, self._limit_s = label, say, limit_s
        self._pending, self._unread, self._rescue = bytearray(), b"", ""
        self.on, self._done = True, False
        # A worker of a Ray job may find the package only on its own sys.path.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(limit_s)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env=environment,
                start_new_session=True,  # Ctrl-C in the terminal is for the training
            )
        except OSError as error:
            self._process = None
            self._turn_off(f"cannot be started ({error.strerror})")
            return
        os.set_blocking(self._process.stdin.fileno(), False)
        os.set_blocking(self._process.stdout.fileno(), False)

    def send(self, call: str, **arguments: Any) -> None:
        """Pass a call on, now or with the next one; never waits."""
        if not self.on:
            return
        self._pending += json.dumps({"call": call, **arguments}, default=str).encode() + b"\n"
        self._exchange()
        if self.on and len(self._pending) > MOST_PENDING:
            self._turn_off("takes no rows any more")

    def finish(self, outcome: Message) -> None:
        """Send the last message and wait, at most `limit_s`, until all is done."""
        self.send("finish", outcome=outcome)
        end = time.monotonic() + self._limit_s
        while self.on and not self._done and time.monotonic() < end:
            writing = [self._process.stdin] if self._pending else []
            select.select([self._process.stdout], writing, [], max(0.0, min(0.5, end - time.monotonic())))
            self._exchange()
        if self.on and not self._done:
            self._turn_off(f"did not finish within {self._limit_s:g} s")
        self.on = False
        self._end(patience_s=LONGEST_EXIT_S)

    def _exchange(self) -> None:
        broken = False
        try:
            while self._pending:
                written = os.write(self._process.stdin.fileno(), self._pending[:65_536])
                del self._pending[:written]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            broken = True
        ended = self._read()  # first: the process may have said why it ended
        if self.on and not self._done and (broken or ended):
            self._turn_off("has ended unexpectedly")

    def _read(self) -> bool:
        """Take its lines; True when there will be no more."""
        while self.on:
            try:
                piece = os.read(self._process.stdout.fileno(), 65_536)
            except BlockingIOError:
                return False
            if not piece:
                return True
            *lines, self._unread = (self._unread + piece).split(b"\n")
            for line in lines:
                self._heed(json.loads(line))
        return False

    def _heed(self, reply: Message) -> None:
        self._rescue = reply.get("rescue", self._rescue)
        self._done = self._done or reply.get("done", False)
        if "say" in reply:
            self._say(f"{self._label}: {reply['say']}")
        if "failed" in reply and self.on:
            self._turn_off(reply["failed"])

    def _turn_off(self, reason: str) -> None:
        self.on = False
        rescue = f" What it has lies on disk: {self._rescue}." if self._rescue else ""
        self._say(f"{self._label}: {reason}; the run goes on without it.{rescue}")
        self._end(patience_s=0.0)

    def _end(self, patience_s: float) -> None:
        if self._process is None:
            return
        for pipe in (self._process.stdin, self._process.stdout):
            pipe.close()
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def step_axis(row: Mapping[str, float]) -> str:
    """The name of the row's counter of steps, the axis of plots."""
    return next((name for name in STEPS if name in row), "iteration")


def serve(backend: Backend) -> None:
    """The process's end: messages from standard input to `backend`, until there are no more. Does not outlive its limit."""
    limit_s, replies, messages = float(sys.argv[1]), _own_output(), queue.Queue(MOST_QUEUED)
    threading.Thread(target=_receive, args=(messages, replies, limit_s), daemon=True).start()
    outcome: Message = {}
    try:
        for message in iter(messages.get, None):
            match message.pop("call"):
                case "start":
                    _reply(replies, **backend.start(message["run"]))
                case "log":
                    backend.log(message["row"], message["step"])
                case "finish":
                    outcome = message["outcome"]
                    break
        backend.finish(outcome)
    except Exception as error:
        _reply(replies, failed=f"failed ({_first_line(error)})")
        raise SystemExit(1) from error
    _reply(replies, done=True)


def _receive(messages: queue.Queue, replies: TextIO, limit_s: float) -> None:
    """Fill the queue; when the training is gone, give the backend its time to end and then end it."""
    try:
        for line in sys.stdin.buffer:
            messages.put(json.loads(line), timeout=limit_s)
    except queue.Full:
        _reply(replies, failed="takes no rows any more")
        os._exit(1)
    with contextlib.suppress(queue.Full):
        messages.put(None, timeout=limit_s)
    time.sleep(limit_s)
    os._exit(1)


def _own_output() -> TextIO:
    """Standard output for replies alone; whatever libraries print goes nowhere."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    return replies


def _reply(replies: TextIO, **content: Any) -> None:
    with contextlib.suppress(BrokenPipeError):  # the training is gone; nobody listens
        replies.write(json.dumps(content) + "\n")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
