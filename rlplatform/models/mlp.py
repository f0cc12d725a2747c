"""The MLP encoder: a policy without memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from envs.errors import ConfigError
from rlplatform.models.encoder import Activation, Encoder, EncoderConfig, hidden_layers


@dataclass(frozen=True, kw_only=True)
class MLPConfig(EncoderConfig):
    """Size of the model without memory.

    Attributes:
        layers: widths of the dense layers.
    """

    kind: Literal["mlp"] = "mlp"
    layers: tuple[int, ...] = (128, 128)
    activation: Activation = "tanh"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers or not all(1 <= width <= 8_192 for width in self.layers):
            raise ConfigError(f"model.layers = {list(self.layers)}; expected one or more widths from 1 to 8192.")

    def encoder(self, obs_size: int) -> MLPEncoder:
        return MLPEncoder(self, obs_size)


class MLPEncoder(Encoder):
    """Dense layers with an activation after each; carries no state, so resets mean nothing to it."""

    def __init__(self, config: MLPConfig, obs_size: int) -> None:
        super().__init__()
        self.config = config
        self.feature_size, self.state_size = config.layers[-1], 0
        self.layers = nn.Sequential(*hidden_layers((obs_size, *config.layers), config.activation))

    def forward_sequence(self, obs: Tensor, first: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.layers(obs), state
