"""The benchmark's short tables, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlplatform.bench.figures import short

BUSY_LOAD = 0.7  # runnable processes, mean of the last minute
Spread = dict[str, Any] | None  # a `figures.Spread` as it stands in the results


def markdown(result: dict[str, Any]) -> str:
    """Tables of the sections that were measured, to paste into the README."""
    parts = [_heading(result)]
    if "train" in result:
        parts += [_train_table(result), _limit_text(result["limit"]), _ratio_table(result)]
    if "env" in result:
        parts += [_env_table(result["env"]), _memory_text(result["memory"])]
    if "tape" in result:
        parts.append(_tape_table(result["tape"]))
    if "offline" in result:
        parts.append(_offline_table(result))
    if "forecast" in result:
        parts.append(_forecast_table(result))
    return "\n\n".join(parts) + "\n"


def _heading(result: dict[str, Any]) -> str:
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    load = f"load {_loads(machine['load_average'])} before, {_loads(result.get('load_average_after'))} after"
    text = (
        f"Measured {result['taken'][:10]} on {machine['processor']}, {machine['cores']} cores, one thread a process; "
        f"Python {machine['python']}, {versions}; {load}. "
        "Medians, in brackets the lowest and highest round; per CPU second unless said otherwise."
    )
    if _was_busy(machine):
        text += " Other work was on the machine: figures per second, and so two_runners_vs_one, are too low."
    return f"**{result['rough']}**\n\n{text}" if result["rough"] else text


def _was_busy(machine: dict[str, Any]) -> bool:
    """Whether something else ran when the benchmark began; what ran later cannot be told from its own load."""
    load = machine["load_average"]
    return load is not None and load[0] > BUSY_LOAD


def _loads(loads: Sequence[float] | None) -> str:
    return "unknown" if loads is None else f"{loads[0]:.1f}"


def _train_table(result: dict[str, Any]) -> str:
    rows = [
        (
            row["label"],
            f"{row['parameters'] / 1e3:.0f}k" if row["parameters"] else "–",
            _cell(row["training_steps_per_cpu_s"]),
            _cell(row["training_steps_per_s"]),
            _cell(row["sampling_steps_per_cpu_s"]),
            row["error"] or row["note"],
        )
        for row in result["train"]
        if row["name"] != "limit"
    ]
    titles = ("whole training, env steps", "parameters", "per CPU s", "per s", "sampling alone", "")
    return _table(titles, rows)


def _limit_text(limit: dict[str, Any]) -> str:
    parts = ", ".join(f"{name.replace('/', ' ')} {short(spread['median'])}" for name, spread in limit["parts"].items())
    found = ", ".join(f"{name} {_cell(limit[name])}" for name in ("float32", "bfloat16") if limit[name])
    return f"Arithmetic limit = {limit['formula']}: {found}. Parts [transitions per CPU s]: {parts}."


def _ratio_table(result: dict[str, Any]) -> str:
    low = result.get("ratios_bfloat16") or {}
    names = [name for name in result["ratios"] if not name.startswith(("env_", "offline_", "forecast_"))]
    rows = [(name, _ratio(result["ratios"][name]), _ratio(low.get(name))) for name in names]
    return _table(("ratio", "float32", "bfloat16"), rows)


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _env_table(env: list[dict[str, Any]]) -> str:
    sizes = list(dict.fromkeys((row["assets"], row["library"], row["memory_kept"]) for row in env))
    accounts = list(dict.fromkeys(row["accounts"] for row in env))
    found = {(row["assets"], row["library"], row["memory_kept"], row["accounts"]): row for row in env}
    rows = [
        (
            f"{assets} assets, {library}{', freed memory kept' if kept else ''}",
            *(_env_cell(found[assets, library, kept, b]) for b in accounts),
        )
        for assets, library, kept in sorted(sizes)
    ]
    return _table(("env alone, steps per CPU s", *(f"{b:,} account{'s' if b > 1 else ''}" for b in accounts)), rows)


def _env_cell(row: dict[str, Any]) -> str:
    return row["note"] or _cell(row["steps_per_cpu_s"])


def _memory_text(memory: dict[str, Any]) -> str:
    if "error" in memory:
        return f"Memory: {memory['error']}"
    return (
        f"500 assets × 1,024 accounts: peak {memory['peak_mib']:.0f} MiB of the whole process, "
        f"{memory['imports_mib']:.0f} MiB of it before the env was made."
    )


def _tape_table(tape: list[dict[str, Any]]) -> str:
    rows = [
        (
            f"{row['bars']:,} bars × {row['accounts']:,} accounts × {row['assets']} assets",
            _cell(row["path_steps_per_cpu_s"]),
            _cell(row["loop_steps_per_cpu_s"]),
            f"{row['path_steps_per_cpu_s']['median'] / row['loop_steps_per_cpu_s']['median']:.1f}",
        )
        for row in tape
    ]
    return _table(("known targets, steps per CPU s", "ledger.path", "ledger.step in a loop", "ratio"), rows)


def _offline_table(result: dict[str, Any]) -> str:
    rows = [
        (row["label"], _cell(row["learning_steps_per_s"]), _seconds(row["first_update_s"]), row["error"])
        for row in result["offline"]
    ]
    faster, sooner = (_ratio(result["ratios"][name]) for name in ("offline_vs_rllib_default", "offline_first_update"))
    table = _table(("offline learning, transitions", "per s, all processes", "first update after", ""), rows)
    return f"{table}\n\n{faster} times the transitions a second; the first update {sooner} times sooner."


def _forecast_table(result: dict[str, Any]) -> str:
    part = result["forecast"]
    if part["error"]:
        return f"Forecasts: {part['error']}"
    rows = [
        (
            row["label"],
            _cell(row["per_s"]),
            _seconds(row["seconds"]),
            "–" if row["peak_mib"] is None else _cell(row["peak_mib"]),
        )
        for row in part["ways"]
    ]
    batched, actors = (_ratio(result["ratios"][name]) for name in ("forecast_batched", "forecast_two_actors"))
    titles = ("forecasts, 20 symbols × 2,500 days", "per s", "whole command [s]", "peak [MiB]")
    return (
        f"{_table(titles, rows)}\n\nBatches are {batched} times as fast as one by one, two actors {actors} times as one. "
        f"The same command with nothing left to do: {_seconds(part['again_s'])}."
    )


def _seconds(spread: Spread) -> str:
    return "–" if spread is None else f"{spread['median']:.1f} s"


def _cell(spread: Spread) -> str:
    if spread is None:
        return "–"
    middle = short(spread["median"])
    return middle if spread["count"] == 1 else f"{middle} ({short(spread['low'])}–{short(spread['high'])})"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
