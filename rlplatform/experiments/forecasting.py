"""Forecasters of one's own: train a small Chronos on `split.train`, judge it beside the others on `split.test`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from envs.errors import ConfigError
from rlplatform.data import Prices, load_prices
from rlplatform.data.prices import rows_between
from rlplatform.data.request import check_choice
from rlplatform.experiments.blocks import BlockFile
from rlplatform.experiments.config import FORECAST, ExperimentConfig
from rlplatform.experiments.loading import structure
from rlplatform.experiments.provenance import describe_environment, timestamp
from rlplatform.experiments.results_directory import FAILED, FINISHED, INTERRUPTED, RUNNING, ResultsDirectory
from rlplatform.experiments.storage import local_results_dir
from rlplatform.experiments.yaml_text import dump_yaml
from rlplatform.features.forecasts import Forecast, ForecastConfig, make_backend
from rlplatform.features.forecasts.calibration import Calibration
from rlplatform.features.forecasts.calibration_score import (
    CalibrationScore,
    calibrated_at,
    compare_calibration,
    rows_with_lead,
)
from rlplatform.features.forecasts.chronos_finetuning import FinetuneConfig
from rlplatform.features.forecasts.chronos_training import (
    ForecasterTrainingConfig,
    TrainedForecaster,
    train_forecaster,
)
from rlplatform.features.forecasts.comparison import ForecastDifference, ForecastScore, compare_forecasts, difference
from rlplatform.features.forecasts.learned import SIDECAR
from rlplatform.features.forecasts.panel import log_returns_of
from rlplatform.features.forecasts.registry import LEARNED, leaf
from rlplatform.features.forecasts.scoring import outcomes
from rlplatform.features.forecasts.specialists import specialists_at, specialists_forecast
from rlplatform.files import write_json

EXAMPLE = "tune_configs/forecast_features.yaml"
JUDGED = ("iid", "gaussian", "bootstrap", "garch", "core", "chronos")


@dataclass(frozen=True, kw_only=True)
class ForecastBlock:
    """The `forecast:` block of a file.

    Attributes:
        train: the network, and how it learns from `split.train`.
        finetune: how it becomes a specialist of one symbol.
        backends: who is judged on `split.test`; bootstrap is what the others are held against.
    """

    train: ForecasterTrainingConfig = field(default_factory=ForecasterTrainingConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    backends: tuple[str, ...] = JUDGED

    def __post_init__(self) -> None:
        for name in self.backends:
            check_choice("forecast.backends", name, (*JUDGED, "toto"))
        if "bootstrap" not in self.backends:
            raise ConfigError(f"forecast.backends = {list(self.backends)}; expected bootstrap among them.")


@dataclass(frozen=True, kw_only=True)
class Forecasting:
    """A file with a forecast block.

    Attributes:
        experiment: its market, split and features.
        block: see `ForecastBlock`.
        content: the file's mapping with overrides applied.
    """

    experiment: ExperimentConfig
    block: ForecastBlock
    content: dict[str, Any]

    @property
    def forecasts(self) -> ForecastConfig:
        """The file's forecasts, or the defaults."""
        return self.experiment.features.forecasts or ForecastConfig()


def load_forecasting(path: Path, overrides: Sequence[str] = ()) -> Forecasting:
    """Raises ConfigError: names the file, the key and the value."""
    file = BlockFile.read(path, FORECAST, EXAMPLE, overrides)
    block = structure(ForecastBlock, file.block, f"{file.where}: {FORECAST}")
    return Forecasting(experiment=file.base, block=block, content=dict(file.content))


class ForecasterDirectory(ResultsDirectory):
    """What a training of a forecaster leaves: forecast.yaml, manifest.json, model/ and evaluation.json."""

    KIND, CONTENT, SUFFIX = "forecaster", "forecast.yaml", "-forecaster"

    @classmethod
    def create(cls, forecasting: Forecasting) -> ForecasterDirectory:
        """A new one, with the file's settings in it."""
        return cls._make(forecasting.experiment, dump_yaml(forecasting.content), None)

    @classmethod
    def newest(cls, experiment: ExperimentConfig) -> ForecasterDirectory:
        """The last finished one of that name.

        Raises:
            ConfigError: there is none.
        """
        found = local_results_dir(experiment.results_dir).glob(f"{experiment.name}{cls.SUFFIX}-*/model/{SIDECAR}")
        newest = max(found, key=lambda path: path.stat().st_mtime, default=None)
        if newest is None:
            raise ConfigError(
                f"{experiment.results_dir} has no forecaster of {experiment.name}. Train one (rlplatform forecast train), "
                "give --model DIR, or leave chronos out of forecast.backends."
            )
        return cls(newest.parent.parent.resolve())

    @property
    def model(self) -> Path:
        return self.path / "model"


def train(forecasting: Forecasting) -> tuple[ForecasterDirectory, TrainedForecaster]:
    """Train on every symbol's rows up to the end of `split.train`; the model's folder says how far it has read.

    Raises:
        ConfigError, MarketDataError, ForecasterError: settings, prices or a loss that will not do; no model is left then.
    """
    experiment, began = forecasting.experiment, time.monotonic()
    prices = load_prices(experiment.data)
    directory = ForecasterDirectory.create(forecasting)
    directory.write_manifest(
        {"status": RUNNING, "started": timestamp(), **_about(prices, experiment), **describe_environment()}
    )
    try:
        trained = train_forecaster(
            prices.dates,
            log_returns_of(prices),
            str(experiment.split.train[1]),
            directory.model,
            forecasting.block.train,
            forecasting.forecasts.ewma_decay,
        )
    except BaseException as error:
        status = INTERRUPTED if isinstance(error, KeyboardInterrupt | SystemExit) else FAILED
        directory.update_manifest(status=status, error=f"{type(error).__name__}: {error}")
        raise
    directory.update_manifest(
        status=FINISHED,
        wall_seconds=round(time.monotonic() - began, 1),
        parameters=trained.parameters,
        series=trained.series,
        values=trained.values,
        losses=[list(entry) for entry in trained.losses],
    )
    return directory, trained


def _about(prices: Prices, experiment: ExperimentConfig) -> dict[str, Any]:
    return {
        "data": {"source": prices.source, "sha256": prices.sha256, "symbols": list(prices.symbols)},
        "train_end": str(experiment.split.train[1]),
        "seeds": [experiment.seed],
    }


@dataclass(frozen=True, kw_only=True)
class ForecastEvaluation:
    """Scores of forecasters on the same later days.

    Attributes:
        scores: one for each backend and horizon.
        seconds: each backend took.
        period: first and last day at which a forecast was made.
        model: folder of the Chronos that was judged, if any.
        differences: of the specialists against that Chronos, over all their symbols and one by one.
        calibration: of each backend and horizon, how often recalibration was kept and what it gained.
    """

    scores: tuple[ForecastScore, ...]
    seconds: dict[str, float]
    period: tuple[str, str]
    model: str | None
    differences: tuple[ForecastDifference, ...] = ()
    calibration: tuple[CalibrationScore, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        rows, against = [score.to_dict() for score in self.scores], [each.to_dict() for each in self.differences]
        content = {"period": list(self.period), "model": self.model, "seconds": self.seconds, "scores": rows}
        if self.calibration:
            content["calibration"] = [each.to_dict() for each in self.calibration]
        return content | ({"specialists_against_generic": against} if against else {})

    @property
    def sentence(self) -> str:
        """The verdict on the learned one, or on the best."""
        first = [score for score in self.scores if score.horizon == 1]
        best = min(first, key=lambda score: score.crps_bp)
        learned = next((score for score in first if score.backend in LEARNED), None)
        words = f"Lowest CRPS at one bar: {best.backend} ({best.gain_percent:+.2f} % against bootstrap)."
        if learned is None:
            return words
        proof = (
            "more than luck"
            if learned.dm_t > 2
            else "no more than luck"
            if abs(learned.dm_t) <= 2
            else "worse, and not by chance"
        )
        return f"{words} {learned.backend}: {learned.gain_percent:+.2f} %, Diebold-Mariano t {learned.dm_t:+.1f}: {proof}."


def evaluate(
    forecasting: Forecasting,
    model: Path | None = None,
    on_phase: Callable[[str], None] = lambda text: None,
    specialists: Path | None = None,
) -> ForecastEvaluation:
    """Judge the block's backends at every close of `split.test`, all on the same (symbol, day) pairs.

    With `features.forecasts.calibration` each is judged without and with recalibration (`<name>+<method>`).

    Args:
        model: a forecaster's directory, or the folder of any Chronos model; the newest of this name if not given.
        on_phase: is told who forecasts.
        specialists: directory of `forecast finetune`; they are one row more, and are held against the generic Chronos.

    Raises:
        ConfigError: no such model, or one that has learnt from the days it is judged on.
    """
    experiment, names = forecasting.experiment, forecasting.block.backends
    models = {} if specialists is None else specialists_at(specialists)
    if models and "chronos" not in names:
        names = (*names, "chronos")  # what the specialists are held against
    folder = _model_folder(experiment, model) if "chronos" in names else None
    config = _with_model(forecasting.forecasts, folder)
    prices = load_prices(experiment.data)
    log_returns = log_returns_of(prices)
    start, end = map(str, experiment.split.test)
    rows = np.flatnonzero(rows_between(prices.dates, start, end))
    if not len(rows):
        raise ConfigError(f"split.test = [{start}, {end}] holds none of the prices' days.")
    forecasts: dict[str, Forecast] = {}
    seconds: dict[str, float] = {}
    calibrations: dict[str, Calibration] = {}
    calibrating, lead = config.calibration.method != "none", rows_with_lead(rows, config.calibration, config.horizons)
    for name in names:
        on_phase(f"{name}: {len(rows) * prices.num_assets:,} forecasts")
        began = time.process_time()
        backend = make_backend(dataclasses.replace(config, backend=name)) if name == "core" else leaf(name, config)
        made = backend.forecast(prices.dates, log_returns, lead)
        forecasts[name] = made.rows(np.isin(lead, rows))
        if calibrating:
            calibrations[name] = calibrated_at(rows, made, lead, log_returns, config.calibration)
        seconds[name] = round(time.process_time() - began, 2)
    outcome = outcomes(log_returns, config.horizons)[rows]
    calibrated: list[CalibrationScore] = []
    for name, calibration in calibrations.items():
        method = config.calibration.method
        calibrated += compare_calibration(name, forecasts[name], calibration, outcome, method)
        forecasts[f"{name}+{method}"] = calibration.forecast
    differences: list[ForecastDifference] = []
    if models:
        on_phase(f"specialists: {len(rows) * prices.num_assets:,} forecasts")
        began = time.process_time()
        forecasts["specialists"] = specialists_forecast(config, models, prices, log_returns, rows)
        seconds["specialists"] = round(time.process_time() - began, 2)
        columns = [column for column, symbol in enumerate(prices.symbols) if symbol in models]
        differences = difference(forecasts["specialists"], forecasts["chronos"], outcome, prices.symbols, columns)
    scores = compare_forecasts(forecasts, outcome)
    days = (str(prices.dates[rows[0]])[:10], str(prices.dates[rows[-1]])[:10])
    result = ForecastEvaluation(
        scores=tuple(scores),
        seconds=seconds,
        period=days,
        model=None if folder is None else str(folder),
        differences=tuple(differences),
        calibration=tuple(calibrated),
    )
    if folder is not None and folder.name == "model" and (folder.parent / ForecasterDirectory.CONTENT).is_file():
        write_json(folder.parent / "evaluation.json", result.to_dict())
    return result


def _model_folder(experiment: ExperimentConfig, model: Path | None) -> Path:
    if model is None:
        return ForecasterDirectory.newest(experiment).model
    folder = Path(model).resolve()
    return folder / "model" if (folder / ForecasterDirectory.CONTENT).is_file() else folder


def _with_model(config: ForecastConfig, folder: Path | None) -> ForecastConfig:
    if folder is None:
        return config
    return dataclasses.replace(config, chronos=dataclasses.replace(config.chronos, path=str(folder), paths={}))
