"""Directories of judged runs and walk-forwards, written by hand: a config and a manifest, nothing else."""

from __future__ import annotations

from pathlib import Path

from rlplatform.experiments.registry import FIGURES
from rlplatform.experiments.yaml_text import dump_yaml
from rlplatform.files import write_json, write_text


def judged_run(results: Path, name: str, *, sharpe=1.0, seed=0, costs=5.0, start="2020-01-01", sweep=None, note="x", **figures):
    """A run of 1,000 bars; `sharpe` None for one that was stopped before it was judged."""
    path = Path(results) / name
    path.mkdir(parents=True, exist_ok=True)
    config = {
        "name": name.rstrip("0123456789-"),
        "seed": seed,
        "results_dir": str(results),
        "split": {"train": ["2010-01-01", "2018-12-31"], "test": [start, "2023-12-31"]},
        "env": {"id": "Portfolio-v0", "costs": {"proportional_bps": costs}, "financing": {"bars_per_year": 252}},
        "model": {"kind": "gru"},
        "training": {"algorithm": "ppo", "note": note},
    }
    write_text(path / "config.yaml", dump_yaml(config))
    test = dict.fromkeys(FIGURES, 0.1) | {"bars": 1_000, "sharpe": sharpe, "sharpe_se": 0.5} | figures
    judged = {"status": "finished", "finished": "2026-11-20T10:00:00+00:00", "test": test}
    manifest = {"run": name, "data": {"symbols": ["SPY"], "sha256": "d"}, "seeds": [seed]} | ({"sweep": sweep} if sweep else {})
    write_json(path / "manifest.json", manifest | ({"status": "interrupted"} if sharpe is None else judged))
    return path


def judged_walk(results: Path, name: str, *, sharpes=None, costs=5.0, start="2010-01-04", tried=1, seeds=(0, 1, 2), **block):
    """A walk-forward of 3,000 bars; `sharpes` seed → Sharpe ratio, None while there is no path."""
    path = Path(results) / name
    path.mkdir(parents=True, exist_ok=True)
    write_text(path / "walkforward.yaml", "name: short\n")
    config = {
        "name": name.rstrip("0123456789-"),
        "results_dir": str(results),
        "env": {"id": "Portfolio-v0", "costs": {"proportional_bps": costs}, "financing": {"bars_per_year": 252}},
        "model": {"kind": "gru"},
        "training": {"algorithm": "ppo"},
    }
    settings = {"train_years": 5, "test_months": 12, "seeds": list(seeds), "configs_tried": tried} | block
    manifest = {"status": "running", "config": config, "settings": settings, "seeds": list(seeds)}
    if sharpes is not None:
        figures = dict.fromkeys(FIGURES, 0.1) | {"bars": 3_000, "sharpe_se": 0.3}
        tests = {str(seed): figures | {"sharpe": sharpe} for seed, sharpe in sharpes.items()}
        manifest |= {"status": "finished", "period": [start, "2023-12-29"], "tests": tests}
    write_json(path / "manifest.json", manifest)
    return path
