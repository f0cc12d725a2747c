"""What scenario models keep of the training days: a table of stylised facts for each, and a figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from envs.tape import MarketTape
from rlplatform.data import load_prices
from rlplatform.evaluation.scenario_plot import plot_scenarios
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.scenario_training import fitting_rows, model_config
from rlplatform.files import replaced_file, write_json
from rlplatform.scenarios.config import KINDS
from rlplatform.scenarios.facts import FactRow, bands, check_facts
from rlplatform.scenarios.model import fit_model

FILE = "scenarios.json"


@dataclass(frozen=True, kw_only=True)
class CheckedModel:
    """One model's facts."""

    name: str
    rows: tuple[FactRow, ...]

    @property
    def sentence(self) -> str:
        """How many facts hold, and which do not."""
        failed = [row.fact for row in self.rows if not row.passed]
        lost = f"; not kept: {', '.join(failed)}" if failed else ""
        return f"{self.name} keeps {len(self.rows) - len(failed)} of {len(self.rows)} facts of the training days{lost}."

    def table(self) -> list[dict[str, str]]:
        """For print."""
        return [
            {
                "fact": row.fact,
                "real": f"{row.real:.3f}",
                "band": f"{row.low:.3f} … {row.high:.3f}",
                "generated": f"{row.generated:.3f}",
                "± between paths": f"{row.spread:.3f}",
                "": "PASS" if row.passed else "FAIL",
            }
            for row in self.rows
        ]


@dataclass(frozen=True, kw_only=True)
class CheckedScenarios:
    """What `rlplatform scenarios check` found.

    Attributes:
        models: one after the other.
        bars, paths: training days, generated histories of that length.
        directory: of figures and scenarios.json.
    """

    models: tuple[CheckedModel, ...]
    bars: int
    paths: int
    directory: Path

    def to_dict(self) -> dict[str, Any]:
        return {
            "bars": self.bars,
            "paths": self.paths,
            "models": [
                {"model": each.name, "sentence": each.sentence, "facts": [row.to_dict() for row in each.rows]}
                for each in self.models
            ],
        }


def check_scenarios(
    config: ExperimentConfig,
    model: str | None = None,
    paths: int = 12,
    seed: int = 0,
    out: Path | None = None,
    on_phase: Callable[[str], None] = lambda text: None,
) -> CheckedScenarios:
    """Fit on the training days, generate as many days, compare; writes scenarios.json and a PNG a model.

    Args:
        model: its name; that of `config.scenarios` if not given, all without such a block.

    Raises:
        ConfigError: no such model.
    """
    prices = load_prices(config.data)
    gross = fitting_rows(config, MarketTape(dates=prices.dates, symbols=prices.symbols, gross=prices.gross()))
    names = [model] if model else list(KINDS) if config.scenarios is None else [config.scenarios.model.kind]
    settings = [model_config(name, config) for name in names]
    directory = Path(config.results_dir) / f"{config.name}-scenarios" if out is None else Path(out)
    directory.mkdir(parents=True, exist_ok=True)
    known, checked = bands(gross, seed), []
    for name, each in zip(names, settings, strict=True):
        on_phase(f"fitting {name} and generating {paths} × {len(gross):,} days")
        generated = fit_model(each, gross).sample(paths, len(gross), np.random.default_rng(seed))
        checked.append(CheckedModel(name=name, rows=tuple(check_facts(generated, known))))
        figure = plot_scenarios(name, gross, generated, checked[-1].sentence)
        with replaced_file(directory / f"{name}.png") as path:
            figure.savefig(path, format="png")
    found = CheckedScenarios(models=tuple(checked), bars=len(gross), paths=paths, directory=directory)
    write_json(directory / FILE, found.to_dict())
    return found
