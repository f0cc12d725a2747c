"""What a benchmark leaves behind: its table, its history, and a row of the scoreboard for weights of other systems.

```
results/<name>-benchmark/     benchmark.json and .md, the last time; history.jsonl, one line a time
results/<name>-<entry>/       config.yaml and manifest.json of a `weights` entry, for `rlplatform scoreboard`
```

Names are the same every night: each file is replaced whole, and the scoreboard's registry keeps the rows before.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlplatform.evaluation.benchmark_table import BenchmarkEntry, BenchmarkTable
from rlplatform.experiments.benchmarking import BenchConfig, WeightsEntry
from rlplatform.experiments.loading import plain
from rlplatform.experiments.provenance import timestamp
from rlplatform.experiments.secrets import redacted
from rlplatform.experiments.storage import local_results_dir
from rlplatform.experiments.yaml_text import dump_yaml
from rlplatform.files import write_json, write_text

EXTERNAL = "external"  # algorithm and environment of what was not trained here


def write_bench(config: BenchConfig, table: BenchmarkTable) -> Path:
    """Write the table and what the scoreboard needs.

    Returns:
        The benchmark's directory.
    """
    results, now = local_results_dir(config.results_dir), timestamp()
    directory = results / f"{config.name}-benchmark"
    directory.mkdir(parents=True, exist_ok=True)
    content = {"benchmark": config.name, "finished": now, **table.to_dict(), "config": redacted(plain(config))}
    write_json(directory / "benchmark.json", content)
    write_text(directory / "benchmark.md", table.to_markdown())
    with (directory / "history.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(_short(table, now), ensure_ascii=False) + "\n")
    for setting, entry in zip(config.policies, table.entries, strict=True):
        if isinstance(setting, WeightsEntry):
            _write_row(results / f"{config.name}-{entry.name}", config, entry, table, now)
    return directory


def _short(table: BenchmarkTable, now: str) -> dict[str, Any]:
    """One line of the history: Sharpe ratio, edge and gate of each."""
    edges = {name: edge.to_dict() for name, edge in table.edges.items()}
    policies = {
        row["name"]: {
            "sharpe": row["sharpe"],
            "total_return": row["total_return"],
            "growth_edge": edges.get(row["name"], {}).get("growth"),
            "verdict": edges.get(row["name"], {}).get("verdict"),
            "passed": table.gates[row["name"]].passed if row["name"] in table.gates else None,
        }
        for row in table.to_dict()["policies"]
    }
    return {"finished": now, "passed": table.passed, "policies": policies}


def _write_row(directory: Path, config: BenchConfig, entry: BenchmarkEntry, table: BenchmarkTable, now: str) -> None:
    """As the registry reads runs: days, costs and figures."""
    directory.mkdir(parents=True, exist_ok=True)
    terms = {"id": EXTERNAL, "costs": plain(config.costs), "financing": plain(config.financing)}
    description = {
        "name": entry.name,
        "seed": 0,
        "data": redacted(plain(config.data)),
        "split": {"test": plain(config.period)},
        "env": terms,
        "model": {"kind": entry.kind},
        "training": {"algorithm": EXTERNAL},
    }
    write_text(directory / "config.yaml", dump_yaml(description))
    edge = table.edges.get(entry.name)
    verdict = None if edge is None else f"{entry.name}: {edge.verdict} ({table.against})"
    manifest = {
        "run": entry.name,
        "status": "finished",
        "finished": now,
        "sweep": {"num_trials": entry.trials.count},
        "data": {"symbols": list(entry.track.symbols)},
        "test": table.table.metrics[entry.name].to_dict(),
        "verdict": verdict,
    }
    write_json(directory / "manifest.json", manifest)
