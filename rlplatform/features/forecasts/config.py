"""ForecastConfig: which forecaster speaks about the next bars, over which horizons, and what of it becomes a feature."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from envs.errors import ConfigError
from rlplatform.data.request import check_choice, clean_date
from rlplatform.features.forecasts.schema import CALIBRATION_FEATURES, FEATURE_STATISTICS

BACKENDS = ("core", "bootstrap", "iid", "garch", "chronos", "toto", "auto")
CANDIDATES = ("toto", "chronos", "core", "bootstrap")


@dataclass(frozen=True, kw_only=True)
class HistoricalConfig:
    """Filtered historical simulation (`bootstrap`) and its unfiltered baseline (`iid`).

    Attributes:
        window: past bars that are drawn from.
        min_history: fewest past bars; rows with fewer get no forecast.
    """

    window: int = 500
    min_history: int = 100

    def __post_init__(self) -> None:
        _at_least("bootstrap.min_history", self.min_history, 20)
        _at_least("bootstrap.window", self.window, self.min_history)


@dataclass(frozen=True, kw_only=True)
class GarchConfig:
    """GJR-GARCH(1,1) with Student t innovations.

    Attributes:
        window: past bars that a fit reads.
        min_history: fewest past bars for a fit.
        refit_bars: bars between two fits; between them the variance is filtered with the last parameters.
    """

    window: int = 1000
    min_history: int = 250
    refit_bars: int = 63

    def __post_init__(self) -> None:
        _at_least("garch.min_history", self.min_history, 100)
        _at_least("garch.window", self.window, self.min_history)
        _at_least("garch.refit_bars", self.refit_bars, 1)


@dataclass(frozen=True, kw_only=True)
class ChronosConfig:
    """A Chronos-Bolt or Chronos-2 model (optional extra `forecast`).

    Attributes:
        path: folder of `save_pretrained`, such as `rlplatform forecast train` writes, or an id on the Hugging Face hub.
        paths: symbol → folder of its own model, such as `rlplatform forecast finetune` writes; `path` speaks of the others.
        context: past bars the model reads.
        min_history: fewest past bars; rows with fewer get no forecast.
        transform: "devol" feeds returns over their EWMA volatility and multiplies back; "none" feeds returns.
        batch_size: forecasts in one pass; the group attention of Chronos-2 is quadratic in it.
        train_end: last day that the model learnt from; earlier rows get no forecast. That of the folder's own manifest if it
            has one. Of a model from the hub give what its authors say; nothing can be checked.
    """

    path: str | None = None
    paths: Mapping[str, str] = field(default_factory=dict)
    context: int = 128
    min_history: int = 64
    transform: Literal["devol", "none"] = "devol"
    batch_size: int = 256
    train_end: str | datetime.date | None = None

    def __post_init__(self) -> None:
        check_choice("features.forecasts.chronos.transform", self.transform, ("devol", "none"))
        _at_least("chronos.min_history", self.min_history, 20)
        _at_least("chronos.context", self.context, self.min_history)
        _at_least("chronos.batch_size", self.batch_size, 1)
        object.__setattr__(self, "train_end", clean_date("features.forecasts.chronos.train_end", self.train_end))


@dataclass(frozen=True, kw_only=True)
class TotoConfig:
    """A Toto model (toto-ts, which pip cannot install beside this package: `pip install --no-deps toto-ts`).

    Attributes:
        path: folder of the checkpoint.
        context, min_history, transform, batch_size, train_end: as of `ChronosConfig`.
    """

    path: str | None = None
    context: int = 256
    min_history: int = 64
    transform: Literal["devol", "none"] = "devol"
    batch_size: int = 64
    train_end: str | datetime.date | None = None

    def __post_init__(self) -> None:
        check_choice("features.forecasts.toto.transform", self.transform, ("devol", "none"))
        _at_least("toto.min_history", self.min_history, 20)
        _at_least("toto.context", self.context, self.min_history)
        _at_least("toto.batch_size", self.batch_size, 1)
        object.__setattr__(self, "train_end", clean_date("features.forecasts.toto.train_end", self.train_end))


@dataclass(frozen=True, kw_only=True)
class AutoConfig:
    """How `auto` chooses, row by row.

    Attributes:
        candidates: in order of preference; those that cannot be had are left out, and the rows say so.
        window: past rows with a known outcome whose CRPS is compared with bootstrap's.
        min_rows: fewest of them before a candidate may be taken.
        t_statistic: of the mean difference of CRPS in the window (Diebold-Mariano) that a candidate must reach.
    """

    candidates: tuple[str, ...] = CANDIDATES
    window: int = 250
    min_rows: int = 125
    t_statistic: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "candidates", tuple(self.candidates))
        for name in self.candidates:
            check_choice("features.forecasts.auto.candidates", name, ("toto", "chronos", "core", "garch", "iid", "bootstrap"))
        _at_least("auto.min_rows", self.min_rows, 20)
        _at_least("auto.window", self.window, self.min_rows)


@dataclass(frozen=True, kw_only=True)
class ForecastGateConfig:
    """When a forecast counts as trustworthy: the column `gate`.

    Attributes:
        min_rows: outcomes that must be known in the calibration window.
        pit_tolerance: largest |mean PIT − 0.5|, times √horizon.
        crps_slack: largest share by which its CRPS may exceed that of a normal with EWMA volatility.
    """

    min_rows: int = 42
    pit_tolerance: float = 0.1
    crps_slack: float = 0.02

    def __post_init__(self) -> None:
        _at_least("gate.min_rows", self.min_rows, 1)
        for name in ("pit_tolerance", "crps_slack"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"features.forecasts.gate.{name} = {getattr(self, name)}; expected at least 0.")


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """Meta-calibration of what the backend says, see `calibration.calibrate`.

    Attributes:
        method: "isotonic" maps probabilities by the PITs of past forecasts, "conformal" shifts quantiles by past errors.
        by_regime: one map for each volatility regime of the symbol that has `min_rows` outcomes; else one for all.
        window: past forecasts with known outcomes that a map is made from.
        min_rows: fewest of them for a map.
        refit_bars: bars between two fits, and between two decisions.
        validation: trailing outcomes by which recalibration is judged: it is used only while it lowers their CRPS.
        min_validation: fewest of them for a decision; without one the forecast stays as it is.
        t_statistic: that the mean fall of CRPS over them must reach (horizons overlap: of h outcomes one counts).
    """

    method: Literal["none", "isotonic", "conformal"] = "none"
    by_regime: bool = False
    window: int = 1500
    min_rows: int = 250
    refit_bars: int = 21
    validation: int = 500
    min_validation: int = 125
    t_statistic: float = 1.0

    def __post_init__(self) -> None:
        check_choice("features.forecasts.calibration.method", self.method, ("none", "isotonic", "conformal"))
        _at_least("calibration.min_rows", self.min_rows, 50)
        _at_least("calibration.window", self.window, self.min_rows)
        _at_least("calibration.refit_bars", self.refit_bars, 1)
        _at_least("calibration.min_validation", self.min_validation, 20)
        _at_least("calibration.validation", self.validation, self.min_validation)
        if not self.t_statistic >= 0:
            raise ConfigError(f"features.forecasts.calibration.t_statistic = {self.t_statistic}; expected at least 0.")


@dataclass(frozen=True, kw_only=True)
class ForecastConfig:
    """Forecasts as features: `features: {forecasts: {backend: core}}`.

    Attributes:
        backend: "core" averages the quantiles of bootstrap and garch; see each backend's config; "auto" chooses row by row.
        horizons: bars ahead; the return of horizon h is that from t to t + h. 1 must be among them: it becomes the tape's
            `forecast_cvar` and `forecast_uncertainty`.
        columns: statistics that become features, one column for each horizon (`forecast_<name>_<horizon>`).
        cost_bps: what a trade costs [bp of traded value]; the edge is net of it.
        calibration_window: rows of the rolling PIT and CRPS.
        ewma_decay: of the variance by which returns are devolatilised, per bar.
        draws: simulated paths of each forecast.
        seed: of the draws; every row uses the same ones.
        store: folder of the feature store.
        calibration: whether what the backend says is recalibrated by past outcomes.
    """

    backend: Literal["core", "bootstrap", "iid", "garch", "chronos", "toto", "auto"] = "core"
    horizons: tuple[int, ...] = (1, 5)
    columns: tuple[str, ...] = ("std", "skew", "p_up", "edge_bp", "pit_mean", "dispersion", "fallback", "gate")
    cost_bps: float = 5.0
    calibration_window: int = 63
    ewma_decay: float = 0.94
    draws: int = 1000
    seed: int = 0
    store: str = "results/feature_store"
    bootstrap: HistoricalConfig = field(default_factory=HistoricalConfig)
    garch: GarchConfig = field(default_factory=GarchConfig)
    chronos: ChronosConfig = field(default_factory=ChronosConfig)
    toto: TotoConfig = field(default_factory=TotoConfig)
    auto: AutoConfig = field(default_factory=AutoConfig)
    gate: ForecastGateConfig = field(default_factory=ForecastGateConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)

    def __post_init__(self) -> None:
        check_choice("features.forecasts.backend", self.backend, BACKENDS)
        object.__setattr__(self, "horizons", tuple(self.horizons))
        object.__setattr__(self, "columns", tuple(self.columns))
        self._check_horizons()
        for name in self.columns:
            check_choice("features.forecasts.columns", name, (*FEATURE_STATISTICS, *CALIBRATION_FEATURES))
            if name in CALIBRATION_FEATURES and self.calibration.method == "none":
                raise ConfigError(
                    f"features.forecasts.columns names {name}, but calibration.method is none. Set it, or leave {name} out."
                )
        if len(set(self.columns)) < len(self.columns):
            raise ConfigError(f"features.forecasts.columns = {list(self.columns)} names a column twice; name it once.")
        if not 0 <= self.cost_bps < 10_000:
            raise ConfigError(f"features.forecasts.cost_bps = {self.cost_bps}; expected in [0, 10000), in basis points.")
        if not 0 < self.ewma_decay < 1:
            raise ConfigError(f"features.forecasts.ewma_decay = {self.ewma_decay}; expected in (0, 1), such as 0.94.")
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"features.forecasts.seed = {self.seed}; expected 0 ≤ seed < 2^31.")
        _at_least("calibration_window", self.calibration_window, self.gate.min_rows)
        _at_least("draws", self.draws, 100)

    def _check_horizons(self) -> None:
        for horizon in self.horizons:
            _at_least("horizons", horizon, 1)
        if list(self.horizons) != sorted(set(self.horizons)) or self.horizons[:1] != (1,):
            raise ConfigError(
                f"features.forecasts.horizons = {list(self.horizons)}; expected increasing numbers of bars that begin with 1, "
                "such as [1, 5]."
            )


def _at_least(name: str, value: object, lowest: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
        raise ConfigError(f"features.forecasts.{name} = {value!r}; expected a whole number, at least {lowest}.")
