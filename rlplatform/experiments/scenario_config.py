"""The `scenarios` block of a training: which law makes further histories, how many, and how often accounts live there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from envs.errors import ConfigError
from envs.trading_config import TradingConfig
from rlplatform.data.request import check_choice
from rlplatform.features import FeatureConfig
from rlplatform.scenarios.config import BlockBootstrapConfig, RegimeGarchConfig, TransformerConfig
from rlplatform.scenarios.shocks import SHOCKS, ShockConfig


def _named(content: Any) -> Any:
    """`model: regime_garch` is short for `model: {kind: regime_garch}`."""
    return {"kind": content} if isinstance(content, str) else content


ScenarioModel = Annotated[
    Annotated[BlockBootstrapConfig | RegimeGarchConfig | TransformerConfig, Field(discriminator="kind")],
    BeforeValidator(_named),
]


@dataclass(frozen=True, kw_only=True)
class ScenariosConfig:
    """Further histories to train on. Validation and test stay real.

    Attributes:
        model: the law; its name, or its settings with `kind`. Fitted on the training rows alone.
        paths: histories drawn.
        bars: of each, beside the bars before it that its features' windows need.
        share: of the episodes that begin in a generated history; 1 trains on nothing real.
        stress: crashes put into some of the paths, by name (2008, 2020).
        stress_share: of the paths that get one.
        antithetic: path 2k + 1 mirrors the innovations of path 2k.
        seed: of the draws.
    """

    model: ScenarioModel = field(default_factory=BlockBootstrapConfig)
    paths: int = 16
    bars: int = 756
    share: float = 0.5
    stress: tuple[str, ...] = ()
    stress_share: float = 0.25
    antithetic: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.paths < 1:
            raise ConfigError(f"scenarios.paths = {self.paths}; expected at least 1.")
        for name in ("share", "stress_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"scenarios.{name} = {getattr(self, name)}; expected a share in (0, 1].")
        if self.seed < 0:
            raise ConfigError(f"scenarios.seed = {self.seed}; expected at least 0.")
        if self.antithetic and self.paths % 2:
            raise ConfigError(f"scenarios.paths = {self.paths} with antithetic: paths come in pairs. Make it even.")
        for name in self.stress:
            check_choice("scenarios.stress", name, [shock.name for shock in SHOCKS])
        longest = max((shock.fall_bars + shock.recovery_bars for shock in self.shocks), default=0)
        if self.bars < longest:
            raise ConfigError(
                f"scenarios.bars = {self.bars}; a crash of scenarios.stress takes {longest} bars. Make it longer."
            )

    @property
    def shocks(self) -> tuple[ShockConfig, ...]:
        """Of `stress`, in its order."""
        return tuple(shock for name in self.stress for shock in SHOCKS if shock.name == name)

    def check(self, features: FeatureConfig, env: TradingConfig) -> None:
        """Whether histories can be made for these features and this environment.

        Raises:
            ConfigError: a feature that does not follow from prices; episodes that never begin in a generated history.
        """
        if features.forecasts is not None:
            raise ConfigError(
                "scenarios with features.forecasts: the store holds forecasts of real days, a generated history has none. "
                "Leave one of the two out."
            )
        if features.context is not None and features.context.series:
            names = ", ".join(features.context.series)
            raise ConfigError(
                f"scenarios with features.context.series ({names}): what was published beside prices does not follow from "
                "them. Leave one of the two out."
            )
        if env.liquidity is not None:
            raise ConfigError(
                "scenarios with env.constraints.liquidity: a generated history has no volume. Leave one of the two out."
            )
        episode = env.episode
        if episode.length_bars is None or not episode.random_start:
            raise ConfigError(
                "scenarios need episodes that begin anywhere: set env.episode.length_bars and leave random_start true; the "
                "whole window in order would never come to a generated history."
            )
        if self.bars <= episode.length_bars:
            raise ConfigError(
                f"scenarios.bars = {self.bars}; an episode of env.episode.length_bars = {episode.length_bars} does not fit. "
                "Make the histories longer or the episodes shorter."
            )
