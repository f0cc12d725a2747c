"""What a user sees while a policy trains."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

WIDE = 100  # columns from which the line carries a bar and whole words


class TrainingProgress:
    """One live line on a terminal; a plain line now and then where there is none. On standard error, unless told otherwise.

    Args:
        plain_interval_s: least time between two plain lines.
    """

    def __init__(self, console: Console | None = None, plain_interval_s: float = 10.0) -> None:
        self.console = console or Console(stderr=True)
        self.plain_interval_s = plain_interval_s
        self._total, self._unit = 0, "env_steps"
        self._first: tuple[float, int] | None = None
        self._last_line = -plain_interval_s
        self._validation: float | None = None
        self._live: Progress | None = None
        self._shown, self._done = "", 0

    def __enter__(self) -> TrainingProgress:
        if self.console.is_terminal:
            bar = [BarColumn(bar_width=10)] if self._wide else []
            self._live = Progress(*bar, TextColumn("{task.fields[state]}", markup=False), console=self.console)
            self._task = self._live.add_task("", total=None, state="")
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            if self._shown:  # what stays on the screen is how the training ended
                self._live.update(self._task, total=self._total, completed=self._done, state=self._shown)
            self._live.stop()

    @property
    def _wide(self) -> bool:
        return self.console.width >= WIDE

    def phase(self, text: str) -> None:
        """What is going on before, between and after iterations, such as "starting Ray"."""
        if self._live is not None:
            self._live.reset(self._task, total=None, state=f"{text} …")
        else:
            self.note(f"{text} …")

    def note(self, text: str) -> None:
        """A line that stays; on a terminal the live one moves on below it."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def begin(self, total: int, unit: str = "env_steps") -> None:
        """Iterations follow, until so many env steps or gradient steps."""
        self._total, self._unit, self._first = total, unit, None

    def update(self, row: Mapping[str, Any]) -> None:
        """Show a row of metrics."""
        found = [value for name, value in row.items() if name.startswith("validation_")][:1]
        self._validation = found[0] if found else self._validation
        done, left = row[self._unit], self._seconds_left(row)
        if self._live is not None:
            self._shown, self._done = describe(row, self._validation, left, self._wide), min(done, self._total)
            self._live.update(self._task, total=self._total, completed=self._done, state=self._shown)
        elif time.monotonic() - self._last_line >= self.plain_interval_s or done >= self._total:
            self._last_line = time.monotonic()
            self.note(f"training {min(1.0, done / self._total):4.0%} · {describe(row, self._validation, left)}")

    def _seconds_left(self, row: Mapping[str, Any]) -> float:
        """Steps to go over the pace so far, validation and checkpoints included."""
        now, done = time.monotonic(), row[self._unit]
        self._first = self._first or (now, done)
        elapsed, gained = now - self._first[0], done - self._first[1]
        pace = gained / elapsed if gained > 0 and elapsed > 0 else row[f"{self._unit}_per_second"]
        return max(0, self._total - done) / max(pace, 1e-9)


def describe(row: Mapping[str, Any], validation: float | None = None, left_s: float | None = None, wide: bool = True) -> str:
    """Iteration, steps, their pace, episode reward or loss, the last validation figure and the time left, in one line.

    Args:
        wide: whole words, up to about 90 characters; else up to about 80.
    """
    unit = "env_steps" if "env_steps" in row else "gradient_steps"
    name, figure = _what_moves(row)
    parts = [
        f"iteration {row['iteration']}",
        f"{_count(row[unit])} {unit.replace('_', ' ') if wide else 'steps'}",
        f"{_count(round(row[f'{unit}_per_second']))}/s",
        f"{name} {'–' if figure is None else _figure(figure)}",
    ]
    if validation is not None:
        parts.append(f"{'validation' if wide else 'val.'} {_figure(validation)}")
    if left_s is not None:
        parts.append(f"{_clock(left_s)} left")
    return " · ".join(parts)


def _what_moves(row: Mapping[str, Any]) -> tuple[str, float | None]:
    """The reward of training episodes; where there are none, a loss."""
    if "env_steps" in row:
        return "reward", row.get("episode_return_mean")
    return next(((name.replace("_", " "), row[name]) for name in ("policy_loss", "critic_loss") if name in row), ("loss", None))


def _count(number: int) -> str:
    return f"{number:,}" if number < 1_000_000 else f"{number / 1e6:,.2f}M"


def _figure(value: float) -> str:
    return f"{value:.2f}".replace("-", "−") if abs(value) < 1e4 else f"{value:.0e}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(min(seconds, 359_999)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
