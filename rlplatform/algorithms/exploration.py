"""Exploration tied to the account's drawdown: the deeper it is, the less a policy is paid for trying things."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from envs.errors import ConfigError

EXPLORATION = "exploration"
DRAWDOWN = "drawdown"  # the observation's entry that tells it


@dataclass(frozen=True, kw_only=True)
class ExplorationConfig:
    """How much an account may explore where it stands.

        e_t = max(floor, 1 − depth_t / drawdown_limit),    depth_t = 1 − W_t / peak_t
        loss = stock's − c · mean e_t H(π(·|s_t)) instead of − c · mean H,    and with `training.pretrain.kl_coeff`
               + k · mean (1 + anchor_gain (1 − e_t)) KL(π₀ ‖ π) instead of + k · mean KL

    At the peak e = 1 and the loss is what it was, to the bit. The depth is the account's own, known at t: it is the entry
    `drawdown` of the observation before it is normalised. It works where the policy's spread depends on the
    observation, that is with numbered actions (MultiAssetRegime-v0). Weights have one σ for all observations
    (`models/heads.py`): there e only lowers the entropy bonus as a whole, by its mean over the batch, and `anchor_gain`
    is what acts on each state by itself.

    Attributes:
        drawdown_limit: depth at which exploration would be nothing [fraction of the peak].
        floor: least e, reached at a depth of (1 − floor) · drawdown_limit.
        anchor_gain: by how much more the pull towards the earlier policy counts where e would be 0.
    """

    drawdown_limit: float = 0.1
    floor: float = 0.25
    anchor_gain: float = 0.0

    def __post_init__(self) -> None:
        for name, holds, expected in (
            ("drawdown_limit", 0 < self.drawdown_limit <= 1, "a fraction of the peak in (0, 1], such as 0.1"),
            ("floor", 0 <= self.floor <= 1, "a share in [0, 1]"),
            ("anchor_gain", 0 <= self.anchor_gain < float("inf"), "a finite number ≥ 0"),
        ):
            if not holds:
                raise ConfigError(f"training.exploration.{name} = {getattr(self, name)}; expected {expected}.")

    def weight(self, drawdown: Tensor) -> Tensor:
        """e, of the shape of `drawdown` W/peak − 1 (≤ 0)."""
        return (1.0 + drawdown / self.drawdown_limit).clamp(self.floor, 1.0)

    def anchor_weight(self, weight: Tensor) -> Tensor:
        """What the pull towards the earlier policy is multiplied by, from e."""
        return 1.0 + self.anchor_gain * (1.0 - weight)


def drawdown_entry(env: Any) -> int:
    """Where the account's drawdown stands in an environment's observation.

    Args:
        env: a TradingVectorEnv, or gymnasium's own vector of TradingEnvs.

    Raises:
        ConfigError: its observation has no such entry, or no names.
    """
    first = env.envs[0].unwrapped if getattr(env, "envs", None) else env.unwrapped
    names = tuple(getattr(getattr(first, "task", None), "observation_names", ()))
    if DRAWDOWN not in names:
        raise ConfigError(
            f"training.exploration reads the observation's entry {DRAWDOWN!r}; {type(first).__name__} names none. "
            "Leave training.exploration out."
        )
    return names.index(DRAWDOWN)
