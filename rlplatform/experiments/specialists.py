"""Specialists: a generic forecaster's training goes on with one symbol's rows; `rlplatform forecast finetune`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from envs.errors import ConfigError
from rlplatform.data import Prices, load_prices
from rlplatform.data.request import did_you_mean
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.forecasting import ForecasterDirectory, Forecasting
from rlplatform.experiments.provenance import describe_environment, timestamp
from rlplatform.experiments.results_directory import FAILED, FINISHED, INTERRUPTED, RUNNING, ResultsDirectory
from rlplatform.experiments.yaml_text import dump_yaml
from rlplatform.features.forecasts.chronos_finetuning import FinetuneConfig, Specialist, finetune_forecaster
from rlplatform.features.forecasts.panel import log_returns_of
from rlplatform.features.forecasts.specialists import generic_model
from rlplatform.files import directory_sha256, write_text


class SpecialistsDirectory(ResultsDirectory):
    """What a fine-tuning leaves: specialists.yaml, manifest.json and models/<SYMBOL>/."""

    KIND, CONTENT, SUFFIX = "set of specialists", "specialists.yaml", "-specialists"

    @classmethod
    def create(cls, forecasting: Forecasting, out: Path | None = None) -> SpecialistsDirectory:
        """A new one, at `out` if given, with the file's settings in it.

        Raises:
            ConfigError: it cannot be made, or `out` holds something else.
        """
        content = dump_yaml(forecasting.content)
        if out is None:
            return cls._make(forecasting.experiment, content, None)
        made = cls(Path(out).resolve())
        if made.path.exists() and not (made.path / cls.CONTENT).is_file() and (made.path.is_file() or any(made.path.iterdir())):
            raise ConfigError(f"--out {out} is there and holds something else. Give an empty or a new directory.")
        made.path.mkdir(parents=True, exist_ok=True)
        write_text(made.path / cls.CONTENT, content)
        return made

    def model(self, symbol: str) -> Path:
        return self.path / "models" / quote(symbol, safe="")


def finetune(
    forecasting: Forecasting,
    parent: Path | None = None,
    symbols: Sequence[str] = (),
    out: Path | None = None,
    on_specialist: Callable[[Specialist], None] = lambda specialist: None,
) -> tuple[SpecialistsDirectory, list[Specialist]]:
    """A specialist for each symbol, from rows up to the end of `split.train` and no later.

    Args:
        parent: directory or model folder of the generic forecaster; the newest of this name if not given.
        symbols: whose; all of the file's if empty.
        out: where to; a new directory in `results_dir` if not given.
        on_specialist: is told of each as it is done.

    Raises:
        ConfigError, MarketDataError, ForecasterError: no such symbol or forecaster, prices or a loss that will not do.
    """
    experiment, began = forecasting.experiment, time.monotonic()
    folder = ForecasterDirectory.newest(experiment).model if parent is None else generic_model(parent)
    prices = load_prices(experiment.data)
    wanted = check_symbols("--symbols", symbols or prices.symbols, prices)
    directory = SpecialistsDirectory.create(forecasting, out)
    about = {"parent": {"path": str(folder), "sha256": directory_sha256(folder)}, "train_end": str(experiment.split.train[1])}
    data = {"source": prices.source, "sha256": prices.sha256, "symbols": list(wanted)}
    directory.write_manifest({"status": RUNNING, "started": timestamp(), "data": data, **about, **describe_environment()})
    made: list[Specialist] = []
    try:
        for symbol in wanted:
            made.append(
                specialist_of(
                    prices, symbol, experiment, forecasting.block.finetune, folder, directory.model(symbol), about["train_end"]
                )
            )
            on_specialist(made[-1])
    except BaseException as error:
        status = INTERRUPTED if isinstance(error, KeyboardInterrupt | SystemExit) else FAILED
        directory.update_manifest(status=status, error=f"{type(error).__name__}: {error}")
        raise
    rows = [dataclasses.asdict(one) for one in made]
    directory.update_manifest(status=FINISHED, wall_seconds=round(time.monotonic() - began, 1), specialists=rows)
    return directory, made


def check_symbols(where: str, symbols: Sequence[str], prices: Prices) -> tuple[str, ...]:
    """The symbols, once each.

    Raises:
        ConfigError: the prices lack one.
    """
    for symbol in symbols:
        if symbol not in prices.symbols:
            hint = did_you_mean(symbol, prices.symbols)
            raise ConfigError(f"{where} names {symbol!r}; the prices have {', '.join(prices.symbols)}.{hint}")
    return tuple(dict.fromkeys(symbols))


def specialist_of(
    prices: Prices,
    symbol: str,
    experiment: ExperimentConfig,
    config: FinetuneConfig,
    parent: Path,
    path: Path,
    train_end: str,
) -> Specialist:
    """Fine-tune the parent on one symbol; see `finetune_forecaster`. Its seed is that of the config and the experiment's."""
    returns = log_returns_of(prices)[:, prices.symbols.index(symbol)]
    path.parent.mkdir(parents=True, exist_ok=True)
    seeded = dataclasses.replace(config, seed=config.seed + experiment.seed)
    return finetune_forecaster(prices.dates, returns, symbol, train_end, parent, path, seeded)
