"""The `pipeline:` block of a file: forecasters for all symbols and for single ones, then policies on pairs of them.

A pipeline file is a complete training config for two stocks, but that `data.symbols` names all of them; a `forecast:` block
says how the forecasters learn, and this block what is made:

```yaml
pipeline:
  forecasters_until: 2013-12-31
  specialists: [AAPL, AMZN, MSFT]
  pairs: {choose: adjacent, count: 2}
  allocation:
    ppo: {}
  seeds: [0, 1]
```
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from envs.errors import ConfigError
from rlplatform.data import Prices
from rlplatform.data.prices import rows_between
from rlplatform.data.request import check_choice
from rlplatform.evaluation.pair_choice import METHODS, ChosenPair, choose_pairs
from rlplatform.experiments.blocks import BlockFile, check_seeds
from rlplatform.experiments.config import FORECAST, PIPELINE, ExperimentConfig
from rlplatform.experiments.forecasting import ForecastBlock
from rlplatform.experiments.loading import plain, structure
from rlplatform.experiments.search import SAME_FOR_ALL, with_settings
from rlplatform.experiments.specialists import check_symbols
from rlplatform.experiments.walkforward_directory import Walk, WalkForwardConfig
from rlplatform.features.forecasts import ForecastConfig

EXAMPLE = "tune_configs/pipeline_stocks.yaml"
GENERIC, SPECIALISTS, PAIRS = STAGES = ("generic", "specialists", "pairs")


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """Which pairs are traded.

    Attributes:
        choose: how, among the specialists' symbols, on rows of `split.train` only; see `choose_pairs`.
        count: how many.
        given: pairs of one's own in their place, such as [[KO, PEP]].
    """

    choose: Literal["adjacent", "clustering", "cointegration"] = "adjacent"
    count: int = 1
    given: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        check_choice("pipeline.pairs.choose", self.choose, METHODS)
        object.__setattr__(self, "given", tuple(tuple(pair) for pair in self.given))
        for pair in self.given:
            if len(set(pair)) != 2:
                raise ConfigError(f"pipeline.pairs.given names [{', '.join(pair)}]; a pair is two different symbols.")
        if len(set(map(frozenset, self.given))) < len(self.given):
            raise ConfigError(f"pipeline.pairs.given = {[list(pair) for pair in self.given]} names a pair twice. Name it once.")


@dataclass(frozen=True, kw_only=True)
class GivenStages:
    """Stages that are not run because their outcome is there already.

    Attributes:
        generic: directory of `rlplatform forecast train`, or a pipeline's generic/.
        specialists: directory of `rlplatform forecast finetune`, or a pipeline's specialists/.
    """

    generic: str | None = None
    specialists: str | None = None


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """What a pipeline makes.

    Attributes:
        forecasters_until: last day that forecasters learn from. Policies then learn from the days after it, for which the
            forecasters may speak. Without it both learn from all of `split.train`: a forecaster may not speak of days it learnt
            from, so the policies see core's forecasts there and the learned ones later.
        specialists: whose; all of `data.symbols` if empty.
        pairs: see `PairsConfig`.
        allocation: name → settings that replace the file's, such as {training.learning_rate: 1e-3} or a whole section
            {training: {...}}; each is trained on each pair. Another `training.algorithm` begins with its own defaults.
        seeds: each is trained once with each; the file's own if none is given.
        max_concurrent: specialists, or trainings, at the same time.
        walkforward: trains and judges each pair and allocation anew, fold by fold, beside the single split.
        stages: outcomes from elsewhere.
        skip: stages that are left out. Without specialists the generic forecaster speaks of every stock; without either
            `features.forecasts` stays as the file has it.
    """

    forecasters_until: datetime.date | None = None
    specialists: tuple[str, ...] = ()
    pairs: PairsConfig = field(default_factory=PairsConfig)
    allocation: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"ppo": {}})
    seeds: tuple[int, ...] = ()
    max_concurrent: int = 2
    walkforward: WalkForwardConfig | None = None
    stages: GivenStages = field(default_factory=GivenStages)
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for stage in self.skip:
            check_choice("pipeline.skip", stage, STAGES)
            if getattr(self.stages, stage, None) is not None:
                raise ConfigError(f"pipeline.skip and pipeline.stages both name {stage}. Keep one.")
        if set(self.skip) == set(STAGES):
            raise ConfigError("pipeline.skip leaves nothing to do. Leave one stage out of it.")
        if self.max_concurrent < 1:
            raise ConfigError(f"pipeline.max_concurrent = {self.max_concurrent}; expected at least 1.")
        check_seeds(self.seeds)
        if not self.allocation:
            raise ConfigError("pipeline.allocation is empty; expected a name with settings, such as ppo: {}.")
        for name in self.allocation:
            if not name or any(c in name for c in "/\\ :#"):
                raise ConfigError(
                    f"pipeline.allocation names {name!r}; it becomes a folder's name: no spaces, colons or slashes."
                )


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A file with a pipeline block.

    Attributes:
        base: the training of a pair, but for the pair.
        block, forecast: see their configs.
        content: the file's mapping with overrides applied.
        where: the file's name.
    """

    base: ExperimentConfig
    block: PipelineConfig
    forecast: ForecastBlock
    content: Mapping[str, Any]
    where: str

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.block.seeds or (self.base.seed,)

    @property
    def forecasters_until(self) -> str:
        return str(self.block.forecasters_until or self.base.split.train[1])

    @property
    def forecasts(self) -> ForecastConfig:
        return self.base.features.forecasts or ForecastConfig()

    def is_run(self, stage: str) -> bool:
        """Neither left out nor given."""
        return stage not in self.block.skip and getattr(self.block.stages, stage, None) is None

    @property
    def has_forecasters(self) -> bool:
        """Whether there is a learned forecaster of any kind."""
        return not {GENERIC, SPECIALISTS} <= set(self.block.skip)

    def specialists(self, prices: Prices) -> tuple[str, ...]:
        """Raises ConfigError: the prices lack one."""
        return check_symbols("pipeline.specialists", self.block.specialists or prices.symbols, prices)

    def pairs(self, prices: Prices) -> tuple[ChosenPair, ...]:
        """Chosen on rows of `split.train`, which no later price moves.

        Raises:
            ConfigError, MarketDataError: an unknown symbol, or nothing to choose from.
        """
        given = self.block.pairs.given
        for pair in given:
            check_symbols("pipeline.pairs.given", pair, prices)
        if given:
            return tuple(ChosenPair(symbols=pair, method="given") for pair in given)
        symbols = self.specialists(prices)
        rows = rows_between(prices.dates, *map(str, self.base.split.train))
        close = prices.select(symbols).close[rows] if len(symbols) > 1 else prices.close[:0]
        return choose_pairs(self.block.pairs.choose, self.block.pairs.count, symbols, close)

    def with_symbols(self, symbols: Sequence[str]) -> ExperimentConfig:
        """The base on these symbols alone.

        Raises:
            ConfigError: the source cannot be asked for symbols.
        """
        if not hasattr(self.base.data, "symbols"):
            raise ConfigError(
                f"{self.where}: data.source = {self.base.data.source} has no symbols to choose; use folder or bundled."
            )
        return replace(self.base, data=replace(self.base.data, symbols=tuple(symbols)))

    def pair_config(
        self, pair: ChosenPair, arm: str, seed: int, forecasts: ForecastConfig | None, folder: Path
    ) -> ExperimentConfig:
        """The training of one pair, allocation and seed.

        Args:
            forecasts: in place of the file's.
            folder: where runs of the pair stand.

        Raises:
            ConfigError: the settings do not suit each other.
        """
        settings, base = self.block.allocation[arm], self.with_symbols(pair.symbols)
        content = plain(base)
        algorithm = settings.get("training.algorithm", base.training.algorithm)
        if algorithm != base.training.algorithm:  # its keys are others
            content["training"] = {"algorithm": algorithm}
        if "model.kind" in settings:
            content["model"] = dict(self.content.get("model", {}))
        content["features"]["forecasts"] = None if forecasts is None else plain(forecasts)
        content["split"]["train"] = self._days_of_policies()
        own = {"name": quote(f"{base.name}-{pair.name}-{arm}", safe=""), "seed": seed, "results_dir": str(folder)}
        own["tracking"] = plain(base.tracking.in_sweep(base.name))
        return structure(
            ExperimentConfig, with_settings(content, dict(settings)) | own, f"{self.where}: pipeline.allocation.{arm}"
        )

    def _days_of_policies(self) -> list[str]:
        first, last = self.base.split.train
        if self.block.forecasters_until is not None and self.has_forecasters:
            first = max(first, self.block.forecasters_until + datetime.timedelta(days=1))
        return [str(first), str(last)]

    def walk(self, config: ExperimentConfig) -> Walk:
        """The walk-forward of a pair's training."""
        settings = self.block.walkforward
        if not settings.seeds:
            settings = replace(settings, seeds=self.seeds)
        return Walk(base=config, walkforward=settings, content=plain(config) | {"walkforward": plain(settings)})


def load_pipeline(path: Path, overrides: Sequence[str] = ()) -> Pipeline:
    """A config with a pipeline block, as far as it can be checked without prices.

    Raises:
        ConfigError: names the file, the key and the value.
    """
    file = BlockFile.read(path, PIPELINE, EXAMPLE, overrides)
    where, split = file.where, file.base.split
    block = structure(PipelineConfig, file.block, f"{where}: {PIPELINE}")
    forecast = structure(ForecastBlock, file.content.get(FORECAST) or {}, f"{where}: {FORECAST}")
    until = block.forecasters_until
    if until is not None and not split.train[0] < until < split.train[1]:
        raise ConfigError(
            f"{where}: pipeline.forecasters_until = {until} is not inside split.train = [{split.train[0]}, {split.train[1]}]. "
            "Choose a day in it; policies learn from the days after."
        )
    for arm, settings in block.allocation.items():
        for key in settings:
            section = key.partition(".")[0]
            if section in SAME_FOR_ALL:
                raise ConfigError(f"{where}: pipeline.allocation.{arm}.{key} cannot be changed: {SAME_FOR_ALL[section]}.")
    pipeline = Pipeline(base=file.base, block=block, forecast=forecast, content=file.content, where=where)
    for arm in block.allocation:
        tried = ChosenPair(symbols=("A", "B"), method="given")
        if hasattr(file.base.data, "symbols"):
            pipeline.pair_config(tried, arm, pipeline.seeds[0], pipeline.base.features.forecasts, Path())
    return pipeline
