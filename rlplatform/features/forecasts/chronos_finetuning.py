"""Specialists: the training of a small Chronos-2 goes on with the rows of one symbol."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from envs.errors import ConfigError, MarketDataError
from rlplatform.features.forecasts.chronos import FIXED_NORM, load_pipeline, without_bars
from rlplatform.features.forecasts.chronos_training import (
    ForecasterError,
    ForecasterTrainingConfig,
    fit,
    libraries,
    training_series,
)
from rlplatform.features.forecasts.forecast import LEVELS
from rlplatform.features.forecasts.learned import SIDECAR
from rlplatform.features.forecasts.scoring import crps
from rlplatform.files import directory_sha256, replaced_directory, write_json

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """How a generic forecaster becomes one of a single symbol.

    Attributes:
        steps, batch_size, learning_rate, warmup_steps: of AdamW with a cosine schedule; few and small, or it forgets.
        looks: how often on the way the weights are tried on the rows that choose.
        choice_bars: last training rows; they choose among the looks and the generic weights, and teach nothing.
        seed: of the windows.
    """

    steps: int = 200
    batch_size: int = 32
    learning_rate: float = 1e-4
    warmup_steps: int = 20
    looks: int = 10
    choice_bars: int = 250
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "looks", "choice_bars"):
            if getattr(self, name) < 1:
                raise ConfigError(f"forecast.finetune.{name} = {getattr(self, name)}; expected at least 1.")
        if not self.learning_rate > 0:
            raise ConfigError(f"forecast.finetune.learning_rate = {self.learning_rate}; expected above 0, such as 1e-4.")
        if self.warmup_steps < 0:
            raise ConfigError(f"forecast.finetune.warmup_steps = {self.warmup_steps}; expected at least 0.")


@dataclass(frozen=True, kw_only=True)
class Specialist:
    """What a fine-tuning left.

    Attributes:
        symbol: whose it is.
        path: folder that `from_pretrained` reads.
        sha256: of that folder.
        chosen_step: whose weights were kept; 0 for those of the generic forecaster.
        looks: (step, CRPS of the rows that choose, in units of σ); the first is the generic forecaster's.
        losses: (step, mean quantile loss since the entry before).
    """

    symbol: str
    path: str
    sha256: str
    chosen_step: int
    looks: tuple[tuple[int, float], ...]
    losses: tuple[tuple[int, float], ...]

    @property
    def gain_percent(self) -> float:
        """How much lower the CRPS of the choosing rows is than the generic one's [% of it]; 0 where that was kept."""
        before, kept = self.looks[0][1], dict(self.looks)[self.chosen_step]
        return 100 * (before - kept) / before


def parent_sidecar(parent: Path) -> dict[str, Any]:
    """What a generic forecaster's folder says of it.

    Raises:
        ConfigError: no folder that `rlplatform forecast train` wrote.
    """
    file = Path(parent) / SIDECAR
    if not file.is_file():
        raise ConfigError(
            f"{parent} is no forecaster of `rlplatform forecast train`: it has no {SIDECAR}. Give the directory of one, or its "
            "model folder."
        )
    return json.loads(file.read_text(encoding="utf-8"))


def finetune_forecaster(
    dates: Array, log_returns: Array, symbol: str, train_end: str, parent: Path, path: Path, config: FinetuneConfig
) -> Specialist:
    """Go on with the training of `parent` on one symbol's rows up to `train_end` and save it at `path`, whole or not at all.

    The last `choice_bars` of those rows are left out of the training. At each look the CRPS there is taken (mean over all
    windows and the next `horizon` bars, in σ); the weights with the lowest are kept, the parent's own among them.

    Args:
        log_returns: (T,) of the symbol.
        train_end: last day that may be learnt from. Where the parent has read further, its own `train_end` stays.

    Raises:
        ConfigError: the package is not installed, or `parent` is no forecaster of ours.
        MarketDataError: too few rows to learn and to choose.
        ForecasterError: a loss or a weight that is not finite.
    """
    torch, pipeline_class = libraries("forecast finetune")
    about = parent_sidecar(parent)
    training = _training(about, config)
    (z,) = training_series(dates, log_returns[:, None], train_end, training, about["decay"])
    windows, targets = choice_windows(z, training, config.choice_bars)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = load_pipeline(str(parent), about.get("norm")).model
        choice = Choice(pipeline_class, windows, targets, every=max(1, config.steps // config.looks))
        choice.look(model, 0)
        with replaced_directory(Path(path)) as folder, without_bars():
            losses = fit(pipeline_class, model, [z[: -config.choice_bars]], training, folder, choice.callback())
            own = {
                "symbol": symbol,
                "train_end": max(str(train_end), about["train_end"]),
                "parent_sha256": directory_sha256(Path(parent)),
                "finetuning": {name: getattr(config, name) for name in config.__dataclass_fields__},
                "chosen_step": choice.step,
                "looks": [list(look) for look in choice.looks],
            }
            write_json(folder / SIDECAR, about | {"norm": about.get("norm", FIXED_NORM)} | own)
    return Specialist(
        symbol=symbol,
        path=str(path),
        sha256=directory_sha256(Path(path)),
        chosen_step=choice.step,
        looks=tuple(choice.looks),
        losses=losses,
    )


def _training(about: dict[str, Any], config: FinetuneConfig) -> ForecasterTrainingConfig:
    """The parent's network and windows, with the steps of the fine-tuning."""
    same = ("steps", "batch_size", "learning_rate", "warmup_steps", "seed")
    return replace(ForecasterTrainingConfig(**about["training"]), **{name: getattr(config, name) for name in same})


def choice_windows(z: Array, training: ForecasterTrainingConfig, choice_bars: int) -> tuple[Array, Array]:
    """(B, context) windows that end at, and (B, horizon) values that follow, each of the last `choice_bars` rows' origins.

    Every value that follows is one of those rows; the windows reach further back.

    Raises:
        MarketDataError: nothing would be left to learn from, or fewer rows than one forecast needs.
    """
    horizon, context = training.horizon, training.context
    first = len(z) - choice_bars  # the first row that must not be learnt from
    if choice_bars < horizon or first < max(context, training.min_past + horizon):
        raise MarketDataError(
            f"forecast finetune: {len(z)} rows, {choice_bars} of them to choose; windows of {context} bars, {horizon} ahead, "
            f"need {max(context, training.min_past + horizon)} before them. Begin the prices earlier, or lower "
            "forecast.finetune.choice_bars."
        )
    origins = np.arange(first - 1, len(z) - horizon)
    windows = np.stack([z[t - context + 1 : t + 1] for t in origins])
    return windows, np.stack([z[t + 1 : t + 1 + horizon] for t in origins])


class Choice:
    """Tries the weights on the choosing rows at each look, remembers the best, and puts them back at the end."""

    def __init__(self, pipeline_class: Any, windows: Array, targets: Array, every: int) -> None:
        self._pipeline_class, self._windows, self._targets, self.every = pipeline_class, windows, targets, every
        self.looks: list[tuple[int, float]] = []
        self.step, self._best = 0, None

    def look(self, model: Any, step: int) -> None:
        """Take the CRPS of the weights after `step` steps.

        Raises:
            ForecasterError: it is no number.
        """
        training = model.training
        model.eval()
        score = self._crps(model)
        model.train(training)
        if not math.isfinite(score):
            raise ForecasterError(
                f"forecast finetune: at step {step} the forecasts of the rows that choose are not finite numbers; nothing is "
                "saved. Lower forecast.finetune.learning_rate."
            )
        self.looks.append((step, score))
        if self._best is None or score < dict(self.looks)[self.step]:
            self.step = step
            self._best = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def restore(self, model: Any) -> None:
        """Put the best weights back."""
        model.load_state_dict(self._best)

    def _crps(self, model: Any) -> float:
        import torch

        inputs = torch.from_numpy(self._windows[:, None])
        with torch.inference_mode():
            quantiles, _ = self._pipeline_class(model).predict_quantiles(
                inputs,
                prediction_length=self._targets.shape[1],
                quantile_levels=list(LEVELS),
                batch_size=len(inputs),
            )
        answer = np.sort(torch.stack([one[0] for one in quantiles]).float().numpy().astype(np.float64), axis=-1)
        return float(crps(answer, self._targets).mean())

    def callback(self) -> Any:
        from transformers import TrainerCallback

        choice = self

        class Look(TrainerCallback):
            """Looks while the trainer steps."""

            def on_step_end(self, args, state, control, model=None, **kwargs):
                if state.global_step % choice.every == 0:
                    choice.look(model, state.global_step)

            def on_train_end(self, args, state, control, model=None, **kwargs):
                choice.restore(model)

        return Look()
