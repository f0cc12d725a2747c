"""One run of the benchmark: sections, ratios, files."""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import Any

from rlplatform.bench.figures import spread_of
from rlplatform.bench.forecast_speed import forecast_section
from rlplatform.bench.machine import load_average, machine
from rlplatform.bench.offline_speed import offline_section
from rlplatform.bench.process import run_alone
from rlplatform.bench.report import markdown
from rlplatform.bench.task import BenchTask
from rlplatform.bench.train_speed import CPU, Say, train_section
from rlplatform.files import write_json, write_text

ROUGH = "quick: one short round, rough figures; leave --quick out for medians of three"
RATIOS = (
    "vs_rllib_default",
    "vs_rllib_best",
    "vs_sb3_recurrent",
    "vs_pufferlib",
    "of_limit",
    "env_single_us",
    "env_8192_steps_per_s",
    "offline_vs_rllib_default",
    "offline_first_update",
    "forecast_batched",
    "forecast_two_actors",
)


def run_benchmark(sections: tuple[str, ...], quick: bool = False, say: Say = lambda text: None) -> dict[str, Any]:
    """Measure `sections` one after the other. Ratios of what was not measured are None."""
    before, started = machine(), time.perf_counter()
    result: dict[str, Any] = {
        "taken": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "sections": list(sections),
        "quick": quick,
        "rough": ROUGH if quick else None,
        "machine": before,
        "ratios": dict.fromkeys(RATIOS),
    }
    for section in sections:
        part = _SECTIONS[section](quick, say)
        result["ratios"] |= part.pop("ratios", {})
        result |= part
    return result | {"load_average_after": load_average(), "seconds": time.perf_counter() - started}


def write_results(result: dict[str, Any], directory: Path) -> Path:
    """`<timestamp>.json` with everything and `latest.md` with the short tables; returns the former's path."""
    directory.mkdir(parents=True, exist_ok=True)
    name = result["taken"][:19].replace("-", "").replace(":", "").replace("T", "-")
    write_json(directory / f"{name}.json", result)
    write_text(directory / "latest.md", markdown(result))
    return directory / f"{name}.json"


def env_section(quick: bool, say: Say, **sizes: Any) -> dict[str, Any]:
    """The env alone in all sizes, as any process finds it and with freed memory kept; peak memory."""
    task = BenchTask(seconds=0.1 if quick else 0.3)
    rounds: dict[bool, list[dict[str, Any]]] = {keep: [] for keep in ((False,) if quick else (False, True))}
    for i in range(1 if quick else 3):
        for keep in rounds:
            say(f"env, round {i + 1}{', freed memory kept' if keep else ''}")
            rounds[keep].append(run_alone("env_grid", task, {"keep_memory": keep, **sizes}))
    say("env, memory of 500 assets × 1,024 accounts")
    rows = [row for keep, results in rounds.items() for row in _env_rows(results, keep)]
    return {"env": rows, "memory": run_alone("env_memory", task), "ratios": env_ratios(rows)}


def _env_rows(results: list[dict[str, Any]], keep: bool) -> list[dict[str, Any]]:
    """The rounds' rows, each with the spread of its rates."""
    rows = []
    for same in zip(*(result.get("rows", []) for result in results), strict=True):
        spread = spread_of([row[CPU] for row in same if CPU in row])
        named = {key: same[0].get(key) for key in ("library", "accounts", "assets", "note")}
        rows.append(named | {"memory_kept": keep, CPU: None if spread is None else spread.to_dict()})
    return rows


def env_ratios(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """µs a step of a single account, and steps a CPU second of 8,192, both with three assets, memory as any process has it."""
    rates = {(row["library"], row["accounts"]): row[CPU]["median"] for row in rows if _counts(row)}
    single = rates.get(("numpy", 1))
    large = [rate for (_, accounts), rate in rates.items() if accounts == 8_192]
    return {"env_single_us": 1e6 / single if single else None, "env_8192_steps_per_s": max(large, default=None)}


def _counts(row: dict[str, Any]) -> bool:
    return row["assets"] == 3 and not row["memory_kept"] and row[CPU] is not None


def tape_section(quick: bool, say: Say, **sizes: Any) -> dict[str, Any]:
    """A path of known targets in one pass and in a loop."""
    task, ways = BenchTask(seconds=0.1 if quick else 0.3), ("path_steps_per_cpu_s", "loop_steps_per_cpu_s")
    results = []
    for i in range(1 if quick else 3):
        say(f"tape, round {i + 1}")
        results.append(run_alone("tape_grid", task, sizes))
    rows = []
    for same in zip(*(result.get("rows", []) for result in results), strict=True):
        spreads = {way: spread_of([row[way] for row in same]).to_dict() for way in ways}
        rows.append({key: same[0][key] for key in ("bars", "accounts", "assets")} | spreads)
    return {"tape": rows}


_SECTIONS = {
    "env": env_section,
    "tape": tape_section,
    "train": train_section,
    "offline": offline_section,
    "forecast": forecast_section,
}
