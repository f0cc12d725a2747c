"""The hierarchical model: a gate chooses a mode, each mode has an actor of its own, all learn together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from envs.errors import ConfigError
from rlplatform.models.encoder import Activation, Encoder, EncoderConfig, dense_layer, hidden_layers
from rlplatform.models.gru import GRUConfig
from rlplatform.models.heads import ActionHead
from rlplatform.models.hierarchical_head import HierarchicalHead, ModesConfig
from rlplatform.models.layout import ObservationLayout
from rlplatform.models.mlp import MLPConfig


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """What chooses the mode.

    Attributes:
        columns: names of the observation's entries that it reads, such as regime_label from `env.observe` or
            `FEAR.volatility_5`; it then has a network (and, with memory, a recurrent state) of its own. Without any it
            reads all that the trunk has made of the whole observation.
        hidden_size: width of that network.
    """

    columns: tuple[str, ...] = ()
    hidden_size: int = 16

    def __post_init__(self) -> None:
        if isinstance(self.columns, str):
            raise ConfigError(f"model.gate.columns = {self.columns!r}; expected a list, such as [{self.columns}].")
        object.__setattr__(self, "columns", tuple(self.columns))
        repeated = [name for name in self.columns if self.columns.count(name) > 1]
        if repeated:
            raise ConfigError(
                f"model.gate.columns names {repeated[0]!r} {self.columns.count(repeated[0])} times. Name it once."
            )
        if not 1 <= self.hidden_size <= 8_192:
            raise ConfigError(f"model.gate.hidden_size = {self.hidden_size}; expected 1 to 8192.")

    def places(self, names: Sequence[str]) -> tuple[int, ...]:
        """Of the columns in an observation with these names.

        Raises:
            ConfigError: the observation has no such entry.
        """
        for name in self.columns:
            if name not in names:
                near = "".join(f" Did you mean {each}?" for each in get_close_matches(name, names, n=1))
                raise ConfigError(
                    f"model.gate.columns: the observation has no entry {name!r}.{near} "
                    f"It has {', '.join(names)}; env.observe adds more."
                )
        return tuple(names.index(name) for name in self.columns)


@dataclass(frozen=True, kw_only=True)
class HierarchicalConfig(EncoderConfig):
    """A trunk that reads the observation, a gate over modes, and an actor for each mode. See docs/HIERARCHY.md.

    Attributes:
        modes: which there are and what they may do.
        gate: what chooses among them.
        memory: trunk and gate are GRUs, or MLPs without memory.
        embedding_size, hidden_size, max_seq_len: of the GRU trunk, see GRUConfig.
        layers: of the MLP trunk.
        actor_layers: widths of each mode's own dense layers between the trunk and its action; none is a linear readout.
        gate_places: of `gate.columns` in the observation. The experiment fills them in (`bound_to`) and they travel with the
            weights; leave them out of a config.
    """

    kind: Literal["hierarchical"] = "hierarchical"
    modes: ModesConfig = field(default_factory=ModesConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    memory: Literal["gru", "none"] = "gru"
    embedding_size: int = 128
    hidden_size: int = 128
    max_seq_len: int = 32
    layers: tuple[int, ...] = (128, 128)
    actor_layers: tuple[int, ...] = ()
    gate_places: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, kind in (("modes", ModesConfig), ("gate", GateConfig)):  # as they are written beside a policy's weights
            if isinstance(getattr(self, name), Mapping):
                object.__setattr__(self, name, kind(**getattr(self, name)))
        for name in ("layers", "actor_layers", "gate_places"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.memory not in ("gru", "none"):
            raise ConfigError(f"model.memory = {self.memory!r}; expected one of gru, none.")
        if not all(1 <= width <= 8_192 for width in self.actor_layers):
            raise ConfigError(f"model.actor_layers = {list(self.actor_layers)}; expected widths from 1 to 8192.")
        self.trunk()

    @property
    def sequence_length(self) -> int:
        return self.max_seq_len if self.memory == "gru" else 1

    def trunk(self) -> EncoderConfig:
        """What reads the whole observation."""
        if self.memory == "none":
            return MLPConfig(layers=self.layers, activation=self.activation)
        sizes = {name: getattr(self, name) for name in ("embedding_size", "hidden_size", "max_seq_len")}
        return GRUConfig(activation=self.activation, **sizes)

    def gate_network(self) -> EncoderConfig:
        """What reads the gate's columns."""
        width = self.gate.hidden_size
        if self.memory == "none":
            return MLPConfig(layers=(width,), activation=self.activation)
        return GRUConfig(activation=self.activation, embedding_size=width, hidden_size=width)

    def bound_to(self, layout: ObservationLayout, returns: np.ndarray | None = None) -> HierarchicalConfig:
        """This model for an observation of that layout.

        Raises:
            ConfigError: the observation has no entry of a name in `gate.columns`.
        """
        return replace(self, gate_places=self.gate.places(layout.names))

    def action_head(self, plain: ActionHead) -> HierarchicalHead:
        return HierarchicalHead(plain.plain, self.modes)

    def encoder(self, obs_size: int) -> HierarchicalEncoder:
        if self.gate.columns and self.gate_places is None:
            raise ConfigError(
                "model.gate.columns must be found in the observation first. Give the environment's: "
                "config.bound_to(ObservationLayout(tape.symbols, task.observation_names))."
            )
        return HierarchicalEncoder(self, obs_size)


class HierarchicalEncoder(Encoder):
    """Two encoders side by side: the trunk on the whole observation, the gate's network on the gate's columns.

    Features and recurrent state are [trunk's, gate's]; without columns there is only the trunk.
    """

    def __init__(self, config: HierarchicalConfig, obs_size: int) -> None:
        super().__init__()
        self.config, places = config, config.gate_places or ()
        self.trunk = config.trunk().encoder(obs_size)
        self.gate = config.gate_network().encoder(len(places)) if places else None
        gate = (0, 0) if self.gate is None else (self.gate.feature_size, self.gate.state_size)
        self.feature_size = self.trunk.feature_size + gate[0]
        self.state_size = self.trunk.state_size + gate[1]
        self.register_buffer("gate_places", torch.tensor(places, dtype=torch.int64), persistent=False)

    def forward_sequence(self, obs: Tensor, first: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        if self.gate is None:
            return self.trunk.forward_sequence(obs, first, state)
        own, gates = state.split([self.trunk.state_size, self.gate.state_size], -1)
        features, own = self.trunk.forward_sequence(obs, first, own.contiguous())
        seen, gates = self.gate.forward_sequence(obs.index_select(-1, self.gate_places), first, gates.contiguous())
        return torch.cat([features, seen], -1), torch.cat([own, gates], -1)

    def policy_layer(self, head: ActionHead) -> nn.Module:
        return ModeActors(self.config, head, self.trunk.feature_size, self.feature_size - self.trunk.feature_size)


class ModeActors(nn.Module):
    """Features → gate logits, then each learning mode's outputs, side by side.

    Args:
        trunk_size, gate_size: widths of the features; a gate without features of its own reads the trunk's.
    """

    def __init__(self, config: HierarchicalConfig, head: HierarchicalHead, trunk_size: int, gate_size: int) -> None:
        super().__init__()
        self.sizes = (trunk_size, gate_size)
        self.gate = dense_layer(gate_size or trunk_size, len(head.mode_names), gain=0.01)
        self.actors = nn.ModuleList(
            _actor(trunk_size, config.actor_layers, head.outputs_of(mode), config.activation) for mode in head.learning
        )

    def forward(self, features: Tensor) -> Tensor:
        """(..., trunk_size + gate_size) → (..., head.num_outputs)."""
        trunk, gate = features.split(self.sizes, -1)
        logits = self.gate(gate if self.sizes[1] else trunk)
        return torch.cat([logits, *(actor(trunk) for actor in self.actors)], -1)


def _actor(inputs: int, widths: tuple[int, ...], outputs: int, activation: Activation) -> nn.Module:
    sizes = (inputs, *widths)
    return nn.Sequential(*hidden_layers(sizes, activation), dense_layer(sizes[-1], outputs, gain=0.01))
