"""What every contender trains: one environment, one size of batch, one model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from envs.catalog import demo_tape, make, make_vec
from envs.regime import RegimeConfig
from envs.tape import MarketTape
from envs.trading_env import TradingEnv, TradingVectorEnv
from rlplatform.models.gru import GRUConfig

ENV_ID = "MultiAssetRegime-v0"
OBS_SIZE, NUM_ACTIONS = 64, 16
MODEL = GRUConfig(embedding_size=128, hidden_size=128, max_seq_len=32)  # about 110k parameters


@dataclass(frozen=True, kw_only=True)
class BenchTask:
    """The training that is timed.

    Attributes:
        num_envs: accounts stepped together.
        batch_size: transitions between two updates; num_envs × rollout length, up to a few.
        minibatch_size: transitions in a gradient step.
        num_epochs: passes over each batch.
        seconds: that one measurement of one contender lasts, start and warm-up not counted.
        seed: of networks and environments.
    """

    num_envs: int = 256
    batch_size: int = 8_192
    minibatch_size: int = 2_048
    num_epochs: int = 4
    seconds: float = 4.0
    seed: int = 0

    @property
    def rollout_length(self) -> int:
        return self.batch_size // self.num_envs


def bench_tape() -> MarketTape:
    """Twelve years of daily bars of three assets, geometric Brownian motion."""
    return demo_tape(3, num_bars=3_000)


def make_single(tape: MarketTape, **_: Any) -> TradingEnv:
    return make(RegimeConfig(), tape)


def make_vector(tape: MarketTape, num_envs: int, **options: Any) -> TradingVectorEnv:
    return make_vec(RegimeConfig(), tape, num_envs, **options)
