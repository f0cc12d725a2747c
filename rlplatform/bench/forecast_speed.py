"""Forecasts: the feature store of 20 symbols × 2,500 days by a tiny Chronos, through the command, with 1 and 2 actors."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlplatform.bench.figures import ratio, spread_of
from rlplatform.bench.task import BenchTask

SYMBOLS, DAYS = 20, 2_500
ALONE = 200  # forecasts that are made one by one, to be timed
LABELS = {
    "one_by_one": "tiny Chronos, one forecast at a time",
    "batches": "tiny Chronos, batches of 256",
    "actors_0": "the store (Chronos, bootstrap, GARCH), no actor",
    "actors_1": "the store, 1 actor",
    "actors_2": "the store, 2 actors",
}
TIMEOUT_S = 1_800.0
SAMPLE_S = 0.2  # between two looks at the memory

Result = dict[str, Any]
Say = Callable[[str], None]


def forecast_section(quick: bool, say: Say, **sizes: Any) -> dict[str, Any]:
    """All ways in turn, each store a fresh one; then the last store again, with nothing left to do."""
    from rlplatform.bench.process import run_alone

    rounds = []
    for i in range(1 if quick else 3):
        say(f"forecast, round {i + 1}")
        rounds.append(run_alone("forecast_grid", BenchTask(), sizes, TIMEOUT_S))
    failed = next((one["error"] for one in rounds if "error" in one), "")
    ways = [] if failed else [_row(name, [one[name] for one in rounds]) for name in LABELS if name in rounds[0]]
    again = [one["again_s"] for one in rounds if "again_s" in one]
    rates = {name: [one.get(name, {}).get("per_s") for one in rounds] for name in LABELS}
    return {
        "forecast": {"ways": ways, "again_s": None if not again else spread_of(again).to_dict(), "error": failed},
        "ratios": {
            "forecast_batched": ratio(rates["batches"], rates["one_by_one"]),
            "forecast_two_actors": ratio(rates["actors_2"], rates["actors_1"]),
        },
    }


def forecast_grid(
    task: BenchTask, symbols: int = SYMBOLS, days: int = DAYS, alone: int = ALONE, actors: Sequence[int] = (0, 1, 2)
) -> Result:
    """Forecasts a wall second of each way, and the most memory that its processes held together [MiB]."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        model = _tiny_model(home / "tiny", task.seed)
        config = _config(home, model, symbols, days, task.seed)
        result: Result = {
            "one_by_one": _alone(model, days, alone, 1, task.seed),
            "batches": _alone(model, days, days, 256, task.seed),
        }
        for count in actors:
            result[f"actors_{count}"] = _build(config, home / f"store_{count}", count)
        result["again_s"] = _build(config, home / f"store_{actors[-1]}", actors[-1])["seconds"]
    return result


def _tiny_model(path: Path, seed: int) -> Path:
    """Of the size that `forecast train` makes (0.3M parameters); how much it has learnt changes no speed."""
    from rlplatform.features.forecasts.chronos_training import ForecasterTrainingConfig, train_forecaster

    dates, log_returns = _walks(5, 400, seed)
    train_forecaster(dates, log_returns, str(dates[-1]), path, ForecasterTrainingConfig(steps=2, warmup_steps=1))
    sidecar = json.loads((path / "forecaster.json").read_text(encoding="utf-8"))
    (path / "forecaster.json").write_text(json.dumps(sidecar | {"train_end": None}), encoding="utf-8")  # speaks of all days
    return path


def _walks(symbols: int, days: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Weekdays, and log returns (days, symbols) with fat tails."""
    dates = np.busday_offset("2010-01-04", np.arange(days), roll="forward").astype("datetime64[D]")
    return dates, 0.01 * np.random.default_rng(seed).standard_t(5, (days, symbols))


def _config(home: Path, model: Path, symbols: int, days: int, seed: int) -> Path:
    """A folder of prices and the file that the command reads (JSON is YAML)."""
    dates, log_returns = _walks(symbols, days, seed)
    names = [f"S{i:02}" for i in range(symbols)]
    closes = 100 * np.exp(np.cumsum(log_returns, 0))
    (home / "prices").mkdir()
    for i, name in enumerate(names):
        rows = [f"{date},{close!r}" for date, close in zip(dates, closes[:, i].tolist(), strict=True)]
        (home / "prices" / f"{name}.csv").write_text("\n".join(["date,close", *rows]) + "\n", encoding="utf-8")
    first, middle, last = str(dates[0]), str(dates[days // 2]), str(dates[-1])
    config = {
        "name": "bench_forecast",
        "data": {"source": "folder", "path": str(home / "prices"), "symbols": names, "calendar": None},
        "features": {"forecasts": {"backend": "chronos", "horizons": [1, 5], "chronos": {"path": str(model)}}},
        "split": {"train": [first, middle], "test": [str(dates[days // 2 + 1]), last]},
        "env": {"id": "Portfolio-v0"},
        "model": {"kind": "mlp"},
        "training": {"algorithm": "ppo"},
    }  # fmt: skip
    path = home / "config.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def _alone(model: Path, days: int, count: int, batch_size: int, seed: int) -> Result:
    """The model in this process, on one symbol's last `count` days."""
    from rlplatform.features.forecasts.config import ChronosConfig, ForecastConfig
    from rlplatform.features.forecasts.registry import leaf

    settings = ForecastConfig(backend="chronos", chronos=ChronosConfig(path=str(model), batch_size=batch_size))
    backend, (dates, log_returns) = leaf("chronos", settings), _walks(1, days, seed)
    backend.forecast(dates, log_returns, np.array([days - 1]))  # loads the model
    started = time.perf_counter()
    backend.forecast(dates, log_returns, np.arange(days - count, days))
    return {"per_s": count / (time.perf_counter() - started), "seconds": None, "peak_mib": None}


def _build(config: Path, store: Path, actors: int) -> Result:
    """`rlplatform features build`, as a user types it: Chronos, and bootstrap and GARCH that stand behind it."""
    command = [sys.executable, "-m", "rlplatform", "features", "build", str(config), f"features.forecasts.store={store}"]
    started = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--workers", str(actors), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    peak = _Peak(process.pid)
    out, err = process.communicate()
    seconds = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(err.strip().splitlines()[-1] if err.strip() else f"exit code {process.returncode}")
    return {"per_s": json.loads(out)["per_second"], "seconds": seconds, "peak_mib": peak.stop()}


class _Peak:
    """The most memory that a process and its descendants held of their own (USS), looked at every fifth of a second."""

    def __init__(self, pid: int) -> None:
        import psutil

        self._root, self._gone, self._peak, self._done = psutil.Process(pid), psutil.Error, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_S):
            self._peak = max(self._peak, self._held())

    def _held(self) -> int:
        try:
            return sum(self._own(process) for process in [self._root, *self._root.children(recursive=True)])
        except self._gone:
            return 0

    def _own(self, process: Any) -> int:
        try:
            return process.memory_full_info().uss
        except self._gone:
            return 0

    def stop(self) -> float:
        """MiB."""
        self._done.set()
        self._thread.join()
        return self._peak / 2**20


def _row(name: str, results: list[Result]) -> dict[str, Any]:
    def spread(key: str) -> dict[str, Any] | None:
        values = [one[key] for one in results if one[key] is not None]
        return spread_of(values).to_dict() if values else None

    figures = {key: spread(key) for key in ("per_s", "seconds", "peak_mib")}
    return {"name": name, "label": LABELS[name], **figures}
