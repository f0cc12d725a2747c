"""The registry: one row for every run ever judged, fed by manifests, kept when a run's directory is gone."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from envs.errors import ConfigError, PlatformError
from rlplatform.evaluation.deflated import Trials
from rlplatform.evaluation.metrics import Metrics
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.loading import plain, structure
from rlplatform.experiments.yaml_text import read_yaml
from rlplatform.files import replaced_file

REGISTRY_FILE = "registry.parquet"
FIGURES = tuple(Metrics.__dataclass_fields__)
FOUND = ("*/manifest.json", "*/winner/manifest.json", "*/arms/*/manifest.json", "*/pairs/*/*/manifest.json")
TRIED = ("sweep.yaml", "ablation.yaml", "pipeline.yaml")  # what runs of one directory were chosen from
RUN, WALK = "run", "walk-forward"  # kinds of rows
TEXTS = ("run", "path", "manifest_sha256", "registered", "status", "started", "finished", "kind", "name", "setting")
TEXTS += ("algorithm", "model", "env", "symbols", "start", "end", "terms", "data_sha256", "code_commit", "verdict")


def update_registry(results: Path, now: datetime.datetime | None = None) -> pd.DataFrame:
    """Read every manifest under `results` and write registry.parquet there.

    A run is a row; of a walk-forward each seed's path is. A manifest that has changed adds a row; the older one stays with
    `current` false. A run whose directory is gone stays with `present` false.

    Returns:
        All rows, oldest first.

    Raises:
        ConfigError: no such directory.
    """
    results = Path(results)
    if not results.is_dir():
        raise ConfigError(f"{results} is not a directory. Give the one that runs are written to, such as results.")
    known = read_registry(results)
    seen = set(zip(known["path"], known["manifest_sha256"], strict=True))
    stamp = (now or datetime.datetime.now().astimezone()).isoformat(timespec="seconds")
    rows = [row | {"registered": stamp} for row in _rows(results) if (row["path"], row["manifest_sha256"]) not in seen]
    table = _typed(pd.concat([known, pd.DataFrame(rows)], ignore_index=True) if rows else known)
    table["present"] = [(results / path.partition("#")[0] / "manifest.json").is_file() for path in table["path"]]
    table["current"] = ~table.duplicated("path", keep="last")
    table = _typed(table)
    with replaced_file(results / REGISTRY_FILE) as path:
        table.to_parquet(path, index=False)
    return table


def read_registry(results: Path) -> pd.DataFrame:
    """The rows on disk; none before the first `update_registry`."""
    path = Path(results) / REGISTRY_FILE
    return _typed(pd.read_parquet(path) if path.is_file() else pd.DataFrame())


def setting_of(run: Path) -> str:
    """Hash of all that a run's config says but its seed, its name and its place: what several seeds share. 0 and 0.0 are the
    same, and so are a default and its absence, for the config is read before it is hashed.

    An ensemble's is that of its members' settings: it is no further seed of theirs.
    """
    run = Path(run)
    return _setting(_with_members(_complete(read_yaml(run / "config.yaml")), _manifest(run / "manifest.json")))


def trials_of(run: Path, bars_per_year: int = 252) -> Trials:
    """What a run was chosen from: the trials of its sweep, ablation or pipeline, by that manifest; 1 for a run by itself; of an
    ensemble all that its members were chosen from. A student counts its teachers' trials instead of itself.

    The spread of the trials' Sharpe ratios is that of the validation period, where the choice was made.
    """
    run = Path(run).resolve()
    if (whole := choice_of(run)) is not None:
        count = max(1, _manifest(whole / "manifest.json").get("num_trials") or 1)
        returns = whole / "trial_returns.parquet"
        measured = Trials.of_returns(pd.read_parquet(returns).to_numpy(), bars_per_year) if returns.is_file() else Trials()
        return Trials(count=max(count, measured.count) + _taught(run) - 1, deviation=measured.deviation)
    manifest = _manifest(run / "manifest.json")
    chosen = manifest.get("sweep") or manifest.get("ensemble") or {}
    return Trials(count=max(1, chosen.get("num_trials") or 1) + _taught(run) - 1)


def _taught(run: Path) -> int:
    """Trials of the policies that it learnt from; 1 where there are none."""
    return max(1, (_manifest(run / "manifest.json").get("teachers") or {}).get("num_trials") or 1)


def choice_of(run: Path) -> Path | None:
    """The directory of the sweep, ablation or pipeline that a run was chosen in; None for a run by itself."""
    for whole in Path(run).resolve().parents[:3]:
        if (whole / "manifest.json").is_file() and any((whole / name).is_file() for name in TRIED):
            return whole
    return None


def _rows(results: Path) -> Iterator[dict[str, Any]]:
    for pattern in FOUND:
        for path in sorted(results.glob(pattern)):
            if path.parent.name.startswith("."):
                continue
            if (path.parent / "config.yaml").is_file():
                yield _run_row(results, path)
            elif (path.parent / "walkforward.yaml").is_file():
                yield from _walk_rows(results, path)


def _run_row(results: Path, path: Path) -> dict[str, Any]:
    """From the manifest and, for what it does not say, from config.yaml as it stands: an older version's is read too."""
    run, text = path.parent, path.read_text(encoding="utf-8")
    manifest, config = json.loads(text), read_yaml(run / "config.yaml")
    return _row(manifest, config, text, trials_of(run)) | {
        "run": _name_of(run),
        "path": str(run.relative_to(results)),
        "kind": RUN,
        "setting": _setting(_with_members(_complete(config), manifest)),
        "seed": int(config.get("seed", 0)),
        "start": str(config["split"]["test"][0]),
        "end": str(config["split"]["test"][1]),
        **_figures(manifest.get("test")),
    }


def _complete(config: dict[str, Any]) -> dict[str, Any]:
    """With every default, numbers of their own kind; as it stands where another version wrote what this one cannot read."""
    try:
        return plain(structure(ExperimentConfig, config, "config.yaml"))
    except PlatformError:
        return config


def _with_members(config: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    """The config with what only the manifest says: whose mean the run is."""
    members = (manifest.get("ensemble") or {}).get("members")
    return config | {"ensemble": sorted(member["setting"] for member in members)} if members else config


def _name_of(run: Path) -> str:
    """The directory's, with that of the sweep, ablation or pipeline it belongs to."""
    if run.parent.name == "arms":
        return f"{run.parent.parent.name}/{run.name}"
    if run.parent.parent.name == "pairs":
        return f"{run.parents[2].name}/{run.parent.name}/{run.name}"
    return f"{run.parent.name}/winner" if run.name == "winner" else run.name


def _walk_rows(results: Path, path: Path) -> Iterator[dict[str, Any]]:
    """One for each seed, all with the days of the joined path; one without figures while there is no path."""
    walk, text = path.parent, path.read_text(encoding="utf-8")
    manifest = json.loads(text)
    config, block = manifest.get("config"), manifest.get("settings") or {}
    if config is None:  # begun by a version that did not say what it ran on
        return
    own = {key: value for key, value in block.items() if key not in ("seeds", "max_concurrent", "configs_tried")}
    shared = _row(manifest, config, text, Trials(count=max(1, block.get("configs_tried") or 1))) | {
        "kind": WALK,
        "setting": _setting(_complete(config) | {"walkforward": own}),
    }
    start, end = manifest.get("period") or (None, None)
    tests = manifest.get("tests") or {}
    for seed in manifest["seeds"]:
        name = f"{_name_of(walk)}#seed{seed}"
        place = {"run": name, "path": f"{walk.relative_to(results)}#seed{seed}", "seed": int(seed)}
        yield shared | place | {"start": start, "end": end} | _figures(tests.get(str(seed)))


def _row(manifest: dict[str, Any], config: dict[str, Any], text: str, trials: Trials) -> dict[str, Any]:
    """What runs and walk-forwards say alike."""
    env = config["env"]
    financing = env.get("financing") or {}
    return {
        "manifest_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "status": manifest.get("status", "unknown"),
        "started": manifest.get("started"),
        "finished": manifest.get("finished"),
        "name": config.get("name"),
        "algorithm": config.get("training", {}).get("algorithm"),
        "model": config.get("model", {}).get("kind"),
        "env": env.get("id"),
        "symbols": ", ".join(manifest.get("data", {}).get("symbols", [])),
        "terms": json.dumps({"costs": env.get("costs") or {}, "financing": financing}, sort_keys=True),
        "bars_per_year": int(financing.get("bars_per_year", 252)),
        "data_sha256": manifest.get("data", {}).get("sha256"),
        "code_commit": manifest.get("code_commit"),
        "trials": trials.count,
        "trials_deviation": trials.deviation,
        "verdict": manifest.get("verdict"),
    }


def _figures(test: dict[str, Any] | None) -> dict[str, Any]:
    return {name: (test or {}).get(name) for name in FIGURES}


def _setting(config: dict[str, Any]) -> str:
    shared = {key: value for key, value in config.items() if key not in ("seed", "name", "results_dir")}
    return hashlib.sha256(json.dumps(shared, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _manifest(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """All columns, in order, each of its own type, whatever an older registry lacks."""
    numbers = {"seed": "Int64", "bars_per_year": "Int64", "trials": "Int64", "trials_deviation": "float64"}
    kinds = dict.fromkeys(TEXTS, "string") | numbers | dict.fromkeys(FIGURES, "float64")
    kinds |= {"present": "boolean", "current": "boolean"}
    columns = {
        name: table[name].astype(kind)
        if name in table
        else pd.Series(pd.NA if kind != "float64" else float("nan"), table.index, kind)
        for name, kind in kinds.items()
    }
    return pd.DataFrame(columns)
