"""The `search:` block of a sweep file: what is varied, how, and by which figure trials are compared.

A sweep file is a complete training config plus this block:

```yaml
search:
  parameters:
    env.reward.turnover: {grid: [0.0, 0.1, 0.3]}
    training.learning_rate: {loguniform: [1.0e-4, 1.0e-3]}
  algorithm: random
  num_samples: 8
  seeds: [0, 1, 2]
```
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from envs.errors import ConfigError
from rlplatform.evaluation.metrics import Metrics
from rlplatform.experiments.blocks import BlockFile, check_seeds
from rlplatform.experiments.config import SEARCH, ExperimentConfig
from rlplatform.experiments.loading import plain, structure
from rlplatform.experiments.search_domain import Domain

METRICS = tuple(f"validation_{f.name}" for f in dataclasses.fields(Metrics) if f.name != "bars")
SAME_FOR_ALL = {  # sections that a sweep may not vary, and why
    "name": "it names the sweep",
    "results_dir": "it is where the sweep stands",
    "seed": "give search.seeds",
    "data": "trials would not be judged on the same prices",
    "split": "trials would not be judged on the same days",
    "evaluation": "trials would not be judged alike",
    "tracking": "it is for the sweep as a whole",
}
WHILE_TRAINING = ("training.", "env.reward.")  # what PBT may change in a policy that is being trained

Settings = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How a sweep searches.

    Attributes:
        parameters: dotted key of a setting → its values, see `Domain`.
        algorithm: "grid" runs every combination; "random" draws `num_samples` settings and crosses them with the grids;
            "optuna" lets a tree-structured Parzen estimator propose; "pbt" trains a population of `num_samples` whose
            worst members take over weights and settings of the best.
        scheduler: "asha" stops the worse two thirds of the trials at each of a few looks.
        metric: of the validation period, after costs and without penalties; "validation_" and a field of `Metrics`.
        mode: whether more or less of it is better.
        num_samples: settings drawn; of PBT the size of the population.
        max_concurrent: trials at the same time.
        time_budget_s: no trial goes on after so many seconds.
        seeds: each setting is trained once with each; the config's own if none is given. PBT counts on from the first.
        seed: of the draws themselves.
        grace_looks: looks at the validation period before ASHA may stop a trial, and between two exploits of PBT.
    """

    parameters: Mapping[str, Domain]
    algorithm: Literal["grid", "random", "optuna", "pbt"] = "grid"
    scheduler: Literal["none", "asha"] = "none"
    metric: str = "validation_sharpe"
    mode: Literal["max", "min"] = "max"
    num_samples: int = 1
    max_concurrent: int = 1
    time_budget_s: float | None = None
    seeds: tuple[int, ...] = ()
    seed: int = 0
    grace_looks: int = 1

    def __post_init__(self) -> None:
        if not self.parameters:
            raise ConfigError("parameters is empty. Name at least one setting to vary.")
        for name in ("num_samples", "max_concurrent", "grace_looks"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}; expected at least 1.")
        if self.time_budget_s is not None and not self.time_budget_s > 0:
            raise ConfigError(f"time_budget_s = {self.time_budget_s}; expected seconds above 0, or nothing for no limit.")
        check_seeds(self.seeds)
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"seed = {self.seed}; expected 0 ≤ seed < 2^31.")
        self._check_metric()
        self._check_algorithm()

    def _check_metric(self) -> None:
        if self.metric in METRICS:
            return
        close = difflib.get_close_matches(self.metric, METRICS, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ConfigError(
            f"metric = {self.metric!r}; no run reports it. Trials are compared on the validation period, by one of "
            f"{', '.join(METRICS)}.{hint}"
        )

    def _check_algorithm(self) -> None:
        for key, domain in self.parameters.items():
            if self.algorithm == "grid" and domain.kind != "grid":
                raise ConfigError(
                    f"parameters.{key} has a {domain.kind}; algorithm = 'grid' runs grids only. "
                    "List its values as a grid, or choose 'random' or 'optuna'."
                )
            if self.algorithm in ("optuna", "pbt") and domain.kind == "grid":
                raise ConfigError(f"parameters.{key} has a grid; algorithm = {self.algorithm!r} needs a choice.")
            if self.algorithm == "pbt" and not key.startswith(WHILE_TRAINING):
                raise ConfigError(
                    f"parameters.{key}: PBT changes settings of a policy while it is trained, "
                    f"so only {' and '.join(f'{start}*' for start in WHILE_TRAINING)}."
                )
        if self.algorithm == "grid" and self.num_samples > 1:
            raise ConfigError(f"num_samples = {self.num_samples}; a grid runs each setting once. Repeat it with seeds.")
        if self.algorithm == "pbt" and (self.scheduler != "none" or self.num_samples < 4 or len(self.seeds) > 1):
            raise ConfigError("algorithm = 'pbt' needs num_samples of at least 4, scheduler none and one seed at most.")
        if self.algorithm == "optuna" and self.scheduler == "asha" and len(self.seeds) > 1:
            raise ConfigError("Optuna judges a setting by all its seeds, which ASHA would cut. Use one seed or no ASHA.")

    def draws(self) -> list[Settings]:
        """Every setting of a grid or random search, in order; the same at each call.

        Random draws are shared by all combinations of the grids, so that those are compared like with like.
        """
        grids = {key: domain.grid for key, domain in self.parameters.items() if domain.grid is not None}
        ranges = {key: domain for key, domain in self.parameters.items() if domain.grid is None}
        rng = np.random.default_rng(self.seed)
        drawn = [{key: domain.sample(rng) for key, domain in ranges.items()} for _ in range(self.num_samples)]
        combined = [dict(zip(grids, values, strict=True)) for values in itertools.product(*grids.values())]
        return [{key: (grid | one)[key] for key in self.parameters} for grid in combined for one in drawn]


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A training config, and the search around it.

    Attributes:
        base: the config without the search; what is not varied.
        search: see `SearchConfig`.
        content: the file's mapping with overrides applied, and the sections that a dataset gives.
    """

    base: ExperimentConfig
    search: SearchConfig
    content: Mapping[str, Any]

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.search.seeds or (self.base.seed,)

    def config_for(self, settings: Settings, seed: int) -> ExperimentConfig:
        """The config of one trial.

        Raises:
            ConfigError: the settings do not suit each other.
        """
        said = ", ".join(f"{key} = {value}" for key, value in settings.items())
        base = plain(self.base)
        if "model.kind" in settings:  # another kind has other keys: of the file's own words, not of this kind's defaults
            base["model"] = dict(self.content.get("model", {}))
        return structure(ExperimentConfig, with_settings(base, settings | {"seed": seed}), where=said)


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """The sweep file, with every value that can be known tried in the config.

    Args:
        overrides: "key=value", of the config or of the search ("search.num_samples=20").

    Raises:
        ConfigError: names the file, the key and the value.
    """
    file = BlockFile.read(path, SEARCH, "tune_configs/turnover_penalty.yaml", overrides)
    where, base = file.where, file.base
    if base.split.validation is None:
        raise ConfigError(f"{where}: split.validation is missing; trials are compared on it. Give it two days.")
    search = _structure_search(file.block, where)
    sweep = SweepConfig(base=base, search=search, content=file.content)
    _check_keys(search, where)
    _try_values(sweep, where)
    return sweep


def _structure_search(content: Mapping[str, Any], where: str) -> SearchConfig:
    """Parameters one by one, so that a mistake names its own."""
    found = content.get("parameters")
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"{where}: search.parameters = {found!r}; expected keys such as env.reward.turnover with their values."
        )
    domains = {}
    for key, value in found.items():
        name = f"{where}: search.parameters.{key}"
        if not isinstance(value, Mapping):
            raise ConfigError(
                f"{name} = {value!r}; expected one of grid, choice, uniform, loguniform, quniform with its values."
            )
        domains[key] = structure(Domain, value, name)
    return structure(SearchConfig, dict(content) | {"parameters": domains}, f"{where}: {SEARCH}")


def _check_keys(search: SearchConfig, where: str) -> None:
    for key in search.parameters:
        section = key.partition(".")[0]
        if section in SAME_FOR_ALL:
            raise ConfigError(f"{where}: search.parameters.{key} cannot be varied: {SAME_FOR_ALL[section]}.")
        for other in search.parameters:
            if other.startswith(f"{key}."):
                raise ConfigError(f"{where}: search.parameters.{key} and .{other} set the same thing. Keep one.")


def _try_values(sweep: SweepConfig, where: str) -> None:
    """Every setting of a pure grid; else every value by itself, the rest as in the file."""
    search = sweep.search
    if search.algorithm == "grid":
        tried = search.draws()
    else:
        tried = [{key: value} for key, domain in search.parameters.items() for value in domain.probes()]
    for settings in tried:
        try:
            sweep.config_for(settings, sweep.seeds[0])
        except ConfigError as error:
            ranges = any(search.parameters[key].uniform or search.parameters[key].loguniform for key in settings)
            hint = " Whole numbers are drawn with quniform: [lo, hi, 1]." if ranges and "whole number" in str(error) else ""
            raise ConfigError(f"{where}: search.parameters: {error}{hint}") from None


def with_settings(content: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """`content` with each dotted key set.

    Raises:
        ConfigError: a part of a key is no section.
    """
    made = dict(content)
    for key, value in settings.items():
        *parents, last = key.split(".")
        place = made
        for parent in parents:
            below = place.get(parent)
            if below is not None and not isinstance(below, Mapping):
                raise ConfigError(f"{key}: {parent} is not a section. Vary the whole of {parent} instead.")
            place[parent] = dict(below or {})
            place = place[parent]
        place[last] = value
    return made
