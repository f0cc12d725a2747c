"""The GRU encoder: memory of one episode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from envs.errors import ConfigError
from rlplatform.models.encoder import Encoder, EncoderConfig, activation_layer, dense_layer
from rlplatform.models.gru_compiled import CompiledGRUSequence
from rlplatform.models.gru_kernel import gru_kernel
from rlplatform.models.gru_sequence import GRUSequence


@dataclass(frozen=True, kw_only=True)
class GRUConfig(EncoderConfig):
    """Size of the recurrent model; the defaults make about 110k parameters for 64 observations and 16 actions.

    Attributes:
        embedding_size: width of the dense layer before the GRU.
        hidden_size: width of the GRU.
        max_seq_len: steps through which gradients flow in training.
    """

    kind: Literal["gru"] = "gru"
    embedding_size: int = 128
    hidden_size: int = 128
    max_seq_len: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, most in (("embedding_size", 8_192), ("hidden_size", 8_192), ("max_seq_len", 4_096)):
            if not 1 <= getattr(self, name) <= most:
                raise ConfigError(f"model.{name} = {getattr(self, name)}; expected 1 to {most}.")

    @property
    def sequence_length(self) -> int:
        return self.max_seq_len

    def encoder(self, obs_size: int) -> GRUEncoder:
        return GRUEncoder(self, obs_size)


class GRUEncoder(Encoder):
    """Linear → activation → LayerNorm → GRU, with resets inside a sequence.

        r = σ(W_r x + U_r h),  z = σ(W_z x + U_z h),  n = tanh(W_n x + r ∘ U_n h),  h' = (1 − z) ∘ n + z ∘ h

    (biases left out; Cho et al. 2014, in the form of `torch.nn.GRU`). One step is torch's own cell; a sequence is
    `GRUSequence`, on the CPU its compiled form where the installation could build one.
    """

    def __init__(self, config: GRUConfig, obs_size: int) -> None:
        super().__init__()
        self.config = config
        self.feature_size = self.state_size = config.hidden_size
        self.embed = dense_layer(obs_size, config.embedding_size, activation=config.activation)
        self.activation = activation_layer(config.activation)
        self.norm = nn.LayerNorm(config.embedding_size)
        self.gru = initialised_gru(config.embedding_size, config.hidden_size)

    def forward_sequence(self, obs: Tensor, first: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        return run_gru(self.gru, self.norm(self.activation(self.embed(obs))), first, state)


def initialised_gru(inputs: int, hidden: int) -> nn.GRU:
    """One layer with orthogonal recurrent weights, Xavier input weights gate by gate, and zero biases."""
    gru = nn.GRU(inputs, hidden)
    w_input, w_hidden, b_input, b_hidden = _weights(gru)
    for gate in range(3):
        rows = slice(gate * hidden, (gate + 1) * hidden)
        nn.init.xavier_uniform_(w_input.data[rows])
        nn.init.orthogonal_(w_hidden.data[rows])
    nn.init.zeros_(b_input)
    nn.init.zeros_(b_hidden)
    return gru


def run_gru(gru: nn.GRU, x: Tensor, first: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """States after every step (T, B, H), and the last.

    Args:
        gru: one layer; only its weights are used.
        x: (T, B, E).
        first: (T, B) bool, the state is zeroed before that step; or None.
        state: (B, H) before the first step.
    """
    if first is not None:
        state = _keep(state, first[0])
    if len(x) == 1:
        state = torch.gru_cell(x[0], state, *_weights(gru))
        return state[None], state
    keep = None if first is None or not first[1:].any() else (~first.bool()).to(state.dtype)[..., None]
    compiled = state.device.type == "cpu" and state.dtype == torch.float32 and gru_kernel() is not None
    sequence = CompiledGRUSequence if compiled else GRUSequence
    features = sequence.apply(x, keep, state, *_weights(gru))
    return features, features[-1]


def _weights(gru: nn.GRU) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return gru.weight_ih_l0, gru.weight_hh_l0, gru.bias_ih_l0, gru.bias_hh_l0


def _keep(state: Tensor, first: Tensor) -> Tensor:
    """The state where an episode goes on, zero where one begins."""
    return torch.where(first.bool()[:, None], torch.zeros_like(state), state)
