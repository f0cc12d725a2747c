"""A small Chronos-2 of one's own, trained from scratch on devolatilised returns and saved as `from_pretrained` reads it."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from envs.errors import ConfigError, MarketDataError, PlatformError
from rlplatform.features.forecasts.chronos import FIXED_NORM, fix_norm, without_bars
from rlplatform.features.forecasts.forecast import LEVELS, check_returns
from rlplatform.features.forecasts.learned import SIDECAR
from rlplatform.features.forecasts.volatility import WARM_UP, devolatilised, floored_volatility
from rlplatform.files import replaced_directory, write_json

Array = np.ndarray

MOST_PARAMETERS = 2_000_000


class ForecasterError(PlatformError):
    """A forecaster that did not come out of its training as numbers."""


@dataclass(frozen=True, kw_only=True)
class ForecasterTrainingConfig:
    """A Chronos-2 of the given size, and how it learns.

    Attributes:
        d_model, num_layers, num_heads, d_ff: of the encoder; d_model is shared out to the heads.
        context: past bars of a window.
        patch: bars that enter, and leave, as one token.
        horizon: bars ahead that it learns to forecast, at most `patch`.
        min_past: fewest past bars of a training window.
        steps, batch_size, learning_rate, warmup_steps: of AdamW with a cosine schedule.
        seed: of weights and windows.
    """

    d_model: int = 64
    num_layers: int = 2
    num_heads: int = 4
    d_ff: int = 256
    context: int = 128
    patch: int = 16
    horizon: int = 5
    min_past: int = 64
    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("d_model", "num_layers", "num_heads", "d_ff", "patch", "horizon", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"forecast.train.{name} = {getattr(self, name)}; expected at least 1.")
        if self.d_model % self.num_heads:
            raise ConfigError(
                f"forecast.train.d_model = {self.d_model} cannot be shared out to {self.num_heads} heads; choose a multiple."
            )
        if self.context % self.patch:
            raise ConfigError(f"forecast.train.context = {self.context} is no multiple of patch = {self.patch}; choose one.")
        if self.horizon > self.patch:
            raise ConfigError(f"forecast.train.horizon = {self.horizon}; expected at most patch = {self.patch}.")
        if not 1 <= self.min_past <= self.context:
            raise ConfigError(f"forecast.train.min_past = {self.min_past}; expected in [1, context = {self.context}].")
        if not self.learning_rate > 0:
            raise ConfigError(f"forecast.train.learning_rate = {self.learning_rate}; expected above 0, such as 1e-3.")


@dataclass(frozen=True, kw_only=True)
class TrainedForecaster:
    """What a training left.

    Attributes:
        path: folder that `from_pretrained` reads.
        parameters: of the network.
        series, values: that it learnt from.
        losses: (step, mean quantile loss since the entry before).
    """

    path: str
    parameters: int
    series: int
    values: int
    losses: tuple[tuple[int, float], ...]


def training_series(
    dates: Array, log_returns: Array, train_end: str, config: ForecasterTrainingConfig, decay: float
) -> list[Array]:
    """Devolatilised returns (L,) float32 of every symbol up to the end of day `train_end`. Nothing later is looked at.

    Raises:
        MarketDataError: too few rows to learn from, or values that are not finite.
    """
    rows = int(np.searchsorted(dates.astype("datetime64[D]"), np.datetime64(train_end, "D"), side="right"))
    check_returns(dates[:rows], log_returns[:rows])
    if rows < WARM_UP + config.min_past + config.horizon + 1:
        raise MarketDataError(
            f"forecast train: {rows} rows up to {train_end}; windows of {config.min_past} bars, {config.horizon} ahead, need "
            f"{WARM_UP + config.min_past + config.horizon + 1}. Begin the prices earlier, or choose shorter windows."
        )
    past = log_returns[:rows]
    z = devolatilised(past, floored_volatility(past, decay))[WARM_UP:]
    return [np.ascontiguousarray(z[:, column], dtype=np.float32) for column in range(z.shape[1])]


def train_forecaster(
    dates: Array, log_returns: Array, train_end: str, path: Path, config: ForecasterTrainingConfig, decay: float = 0.94
) -> TrainedForecaster:
    """Train it by the package's own `Chronos2Pipeline.fit` and save it at `path`, whole or not at all.

    Each window's own normalisation is left out (see `fix_norm`). LayerNorms start at 1 and the output layer at a tenth, without
    which nothing is learnt from scratch. torch's global generator is seeded, and left as it was found.

    Args:
        log_returns: (T, N).
        train_end: last day that may be learnt from.

    Raises:
        ConfigError: the package is not installed, or a network of two million parameters or more.
        ForecasterError: a loss or a weight that is not finite.
    """
    torch, pipeline_class = libraries("forecast train")
    series = training_series(dates, log_returns, train_end, config, decay)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = _new_model(config)
        parameters = sum(p.numel() for p in model.parameters())
        if parameters >= MOST_PARAMETERS:
            raise ConfigError(f"forecast.train: {parameters:,} parameters; a small one has less than {MOST_PARAMETERS:,}.")
        with replaced_directory(Path(path)) as folder, without_bars():
            losses = fit(pipeline_class, model, series, config, folder)
            about = {
                "transform": "devol",
                "norm": FIXED_NORM,
                "train_end": str(train_end),
                "decay": decay,
                "parameters": parameters,
                "training": {name: getattr(config, name) for name in config.__dataclass_fields__},
            }
            write_json(folder / SIDECAR, about)
    values = sum(len(one) for one in series)
    return TrainedForecaster(path=str(path), parameters=parameters, series=len(series), values=values, losses=losses)


def libraries(command: str) -> tuple[Any, Any]:
    """torch and `Chronos2Pipeline`.

    Raises:
        ConfigError: chronos-forecasting is not installed.
    """
    try:
        import torch
        from chronos import Chronos2Pipeline
    except ImportError:
        raise ConfigError(
            f"{command} needs chronos-forecasting, which is not installed. pip install 'rlplatform[forecast]'"
        ) from None
    return torch, Chronos2Pipeline


def _new_model(config: ForecasterTrainingConfig) -> Any:
    import torch
    from chronos.chronos2.config import Chronos2CoreConfig
    from chronos.chronos2.model import Chronos2Model

    model = Chronos2Model(
        Chronos2CoreConfig(
            d_model=config.d_model,
            d_kv=config.d_model // config.num_heads,
            num_heads=config.num_heads,
            d_ff=config.d_ff,
            num_layers=config.num_layers,
            architectures=["Chronos2Model"],
            chronos_pipeline_class="Chronos2Pipeline",
            chronos_config={
                "context_length": config.context,
                "input_patch_size": config.patch,
                "input_patch_stride": config.patch,
                "output_patch_size": config.patch,
                "quantiles": list(LEVELS),
                "use_reg_token": True,
                "use_arcsinh": True,
                "max_output_patches": 1,
            },
        )
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm" in name and name.endswith("weight"):
                parameter.fill_(1.0)
            elif "output_patch_embedding.output_layer" in name:
                parameter.mul_(0.1)
    return model


def fit(
    pipeline_class: Any,
    model: Any,
    series: list[Array],
    config: ForecasterTrainingConfig,
    folder: Path,
    *callbacks: Any,
) -> tuple[tuple[int, float], ...]:
    """Train a copy of the model and leave its files in `folder`.

    Args:
        callbacks: further ones of transformers, called before ours.

    Returns:
        (step, mean quantile loss since the entry before).

    Raises:
        ForecasterError: a loss or a weight that is not finite.
    """
    from transformers import TrainerCallback

    losses: list[tuple[int, float]] = []

    class Watch(TrainerCallback):
        """Keeps the losses, and fixes the normalisation of the copy that `fit` makes."""

        def on_train_begin(self, args, state, control, model=None, **kwargs):
            fix_norm(model)

        def on_log(self, args, state, control, logs=None, **kwargs):
            if "loss" in (logs or {}):
                losses.append((state.global_step, float(logs["loss"])))

    pipeline = pipeline_class(model).fit(
        series,
        prediction_length=config.horizon,
        context_length=config.context,
        min_past=config.min_past,
        learning_rate=config.learning_rate,
        num_steps=config.steps,
        batch_size=config.batch_size,
        lr_scheduler_type="cosine",
        warmup_steps=min(config.warmup_steps, config.steps // 2),
        output_dir=folder / "work",
        callbacks=[*callbacks, Watch()],
        remove_printer_callback=True,
        disable_tqdm=True,
        seed=config.seed,
        logging_steps=max(1, config.steps // 20),
    )
    finite = all(bool(p.isfinite().all()) for p in pipeline.model.parameters()) and all(math.isfinite(v) for _, v in losses)
    if not finite or not losses or losses[-1][1] == 0:
        raise ForecasterError(
            f"forecast train: after {losses[-1][0] if losses else 0} steps loss or weights are not finite numbers; nothing is "
            "saved. Lower forecast.train.learning_rate."
        )
    for file in (folder / "work" / "finetuned-ckpt").iterdir():
        file.replace(folder / file.name)
    shutil.rmtree(folder / "work")
    return tuple(losses)
