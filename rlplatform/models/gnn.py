"""The GNN encoder: one small network for every asset, and messages between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from envs.errors import ConfigError
from rlplatform.models.asset_graph import Edges, correlation_edges, edge_matrix, partial_correlation_edges, sector_edges
from rlplatform.models.encoder import Activation, Encoder, EncoderConfig, activation_layer, dense_layer
from rlplatform.models.gnn_heads import NodeActionValue, NodePolicy, PooledValue
from rlplatform.models.gru import initialised_gru, run_gru
from rlplatform.models.heads import ActionHead, CategoricalHead, LogisticNormalHead
from rlplatform.models.layout import ObservationLayout

Graph = Literal["correlation", "partial_correlation", "sectors", "attention", "full", "none"]
FITTED = ("correlation", "partial_correlation")
_GRAPHS = (*FITTED, "sectors", "attention", "full", "none")


@dataclass(frozen=True, kw_only=True)
class GNNConfig(EncoderConfig):
    """Size and graph of the model whose nodes are assets. Its weights do not depend on how many there are.

    Attributes:
        hidden_size: width H of a node.
        rounds: of messages.
        graph: who hears whom. "correlation" and "partial_correlation" (graphical lasso) are fitted on the training rows and
            stay as they are; "sectors" are given; "attention" is learnt from what nodes look like; "full" is the mean of
            all others; "none" leaves every asset alone.
        neighbours: most edges into a node, of fitted graphs; the strongest stay.
        penalty: of the graphical lasso, on the correlation matrix; more makes fewer edges.
        sectors: name of a sector → its symbols.
        attention_heads: of "attention".
        memory: "gru" gives every node a recurrent state, "none" leaves the policy without memory.
        max_seq_len: steps through which gradients flow in training, with memory.
        layout, edges: which entries belong to which asset, and the fitted graph. The experiment fills them in
            (`bound_to`) and they travel with the weights; leave them out of a config.
    """

    kind: Literal["gnn"] = "gnn"
    hidden_size: int = 32
    rounds: int = 1
    graph: Graph = "correlation"
    neighbours: int = 5
    penalty: float = 0.1
    sectors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    attention_heads: int = 2
    memory: Literal["gru", "none"] = "none"
    max_seq_len: int = 32
    layout: ObservationLayout | None = None
    edges: Edges | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, most in (
            ("hidden_size", 8_192),
            ("rounds", 16),
            ("neighbours", 10_000),
            ("attention_heads", 64),
            ("max_seq_len", 4_096),
        ):
            if not 1 <= getattr(self, name) <= most:
                raise ConfigError(f"model.{name} = {getattr(self, name)}; expected 1 to {most}.")
        for name, known in (("graph", _GRAPHS), ("memory", ("gru", "none"))):
            if getattr(self, name) not in known:
                raise ConfigError(f"model.{name} = {getattr(self, name)!r}; expected one of {', '.join(known)}.")
        if self.hidden_size % self.attention_heads and self.graph == "attention":
            raise ConfigError(
                f"model.attention_heads = {self.attention_heads} does not divide model.hidden_size = {self.hidden_size}."
            )
        if not 0 < self.penalty <= 1:
            raise ConfigError(f"model.penalty = {self.penalty}; expected in (0, 1].")
        if (self.graph == "sectors") != bool(self.sectors):
            raise ConfigError("model.graph: sectors and model.sectors go together. Give both, or neither.")
        object.__setattr__(self, "sectors", {name: tuple(members) for name, members in self.sectors.items()})
        if isinstance(self.layout, Mapping):
            object.__setattr__(self, "layout", ObservationLayout(**self.layout))
        if self.edges is not None:
            object.__setattr__(self, "edges", tuple((int(i), int(j), float(w)) for i, j, w in self.edges))

    @property
    def sequence_length(self) -> int:
        return self.max_seq_len if self.memory == "gru" else 1

    @property
    def observation_groups(self) -> tuple[int, ...] | None:
        # One mean and spread for all assets, or permuting them would change what the network sees.
        return None if self.layout is None else self.layout.groups

    def bound_to(self, layout: ObservationLayout, returns: np.ndarray | None = None) -> GNNConfig:
        """This model for these assets.

        Args:
            layout: of the observation.
            returns: (T, N) of training rows, for the fitted graphs.

        Raises:
            ConfigError: no entry that every asset has, a fitted graph without returns, or sectors that miss a symbol.
        """
        if not layout.asset_entries:
            raise ConfigError(
                f"model.kind = gnn: of {len(layout.names)} entries of the observation none belongs to each of "
                f"{layout.num_assets} assets, such as <symbol>.return_5. Use gru or mlp, which read it as a whole."
            )
        edges = None
        if self.graph in FITTED:
            if returns is None or len(returns) < 2:
                raise ConfigError(f"model.graph = {self.graph!r} is fitted on returns of training rows; there are none here.")
            fitted = (returns, self.neighbours)
            edges = (
                correlation_edges(*fitted)
                if self.graph == "correlation"
                else partial_correlation_edges(*fitted, penalty=self.penalty)
            )
        elif self.graph == "sectors":
            edges = sector_edges(layout.symbols, self.sectors)
        return replace(self, layout=layout, edges=edges)

    def reading_action(self, head: ActionHead) -> GNNConfig:
        """An asset's weight in the action is one more entry of its node; cash and leverage are shared ones."""
        if self.layout is None:
            return self
        assets, is_simplex = self.layout.symbols, isinstance(head, LogisticNormalHead)
        weights = [*(["action.cash"] if is_simplex else []), *(f"action_{symbol}" for symbol in assets)]
        leverage = ["action.leverage"] if head.num_outputs > len(assets) else []
        return replace(self, layout=replace(self.layout, names=(*self.layout.names, *weights, *leverage)))

    def encoder(self, obs_size: int) -> GNNEncoder:
        if self.layout is None:
            raise ConfigError(
                "model.kind = gnn must know which entries of the observation belong to which asset. "
                "Give it the environment's: config.bound_to(ObservationLayout(tape.symbols, task.observation_names), returns)."
            )
        if len(self.layout.names) != obs_size:
            raise ConfigError(f"model.layout names {len(self.layout.names)} entries; the observation has {obs_size}.")
        return GNNEncoder(self)


class GNNEncoder(Encoder):
    """Nodes x_i = LayerNorm(act(W f_i + V c)); rounds of messages; a GRU for each node if there is memory.

        x_i ← LayerNorm(x_i + act(S x_i + M Σⱼ a_ij x_j))

    f_i are asset i's entries of the observation (its weight among them), c the shared ones, a_ij the edges; all of W, V, S, M
    and the GRU are the same for every asset. So assets permuted are features permuted, and any number of assets will do.
    Features (and the recurrent state) are the nodes side by side, (..., N·H).

    Source: message passing as in Battaglia et al. (2018); dense, for a market is a small and well connected graph.
    """

    def __init__(self, config: GNNConfig) -> None:
        super().__init__()
        self.config, layout, width = config, config.layout, config.hidden_size
        self.num_assets = layout.num_assets
        self.feature_size = self.num_assets * width
        self.state_size = self.feature_size if config.memory == "gru" else 0
        self._keep("asset_columns", torch.tensor(layout.asset_columns).flatten())
        self._keep("shared_columns", torch.tensor(layout.shared_columns, dtype=torch.int64))
        self.embed = dense_layer(len(layout.asset_entries), width, activation=config.activation)
        self.context = dense_layer(max(1, len(layout.shared_columns)), width, activation=config.activation)
        self.activation, self.norm = activation_layer(config.activation), nn.LayerNorm(width)
        self.rounds = nn.ModuleList(Messages(config) for _ in range(config.rounds if config.graph != "none" else 0))
        if config.memory == "gru":
            self.gru = initialised_gru(width, width)

    def _keep(self, name: str, values: Tensor) -> None:
        self.register_buffer(name, values, persistent=False)  # it comes from the config, not from the weights

    def forward_sequence(self, obs: Tensor, first: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        nodes = self.nodes(obs)
        if self.config.memory == "none":
            return nodes.flatten(-2), state
        steps, batch = obs.shape[:2]
        first = None if first is None else first.repeat_interleave(self.num_assets, 1)
        rows = nodes.reshape(steps, batch * self.num_assets, -1)
        features, last = run_gru(self.gru, rows, first, state.reshape(len(rows[0]), -1))
        return features.reshape(steps, batch, -1), last.reshape(batch, -1)

    def nodes(self, obs: Tensor) -> Tensor:
        """(..., N, H) after all messages, before memory."""
        own = obs.index_select(-1, self.asset_columns).unflatten(-1, (self.num_assets, -1))
        shared = obs.index_select(-1, self.shared_columns) if len(self.shared_columns) else torch.zeros_like(obs[..., :1])
        nodes = self.norm(self.activation(self.embed(own) + self.context(shared).unsqueeze(-2)))
        for messages in self.rounds:
            nodes = messages(nodes)
        return nodes

    def policy_layer(self, head: ActionHead) -> nn.Module:
        if isinstance(head, CategoricalHead):  # numbered actions name assets, so that the readout may tell them apart
            return super().policy_layer(head)
        extra = head.num_outputs - self.num_assets
        if extra not in (0, 1):
            raise ConfigError(f"model.kind = gnn has {self.num_assets} assets; the action wants {head.num_outputs} numbers.")
        return NodePolicy(self.config.hidden_size, cash=isinstance(head, LogisticNormalHead), leverage=bool(extra))

    def value_layer(self, outputs: int = 1) -> nn.Module:
        return PooledValue(self.config.hidden_size, outputs)

    def action_value_layer(
        self, head: ActionHead, layers: tuple[int, ...], outputs: int, activation: Activation
    ) -> NodeActionValue:
        return NodeActionValue(self.config.hidden_size, self.num_assets, head, layers, outputs, activation)

    def log_std_groups(self, head: ActionHead) -> tuple[int, ...]:
        if isinstance(head, CategoricalHead):
            return super().log_std_groups(head)
        return (0,) * self.num_assets + (1,) * (head.num_outputs - self.num_assets)


class Messages(nn.Module):
    """One round: x_i ← LayerNorm(x_i + act(S x_i + M Σⱼ a_ij x_j))."""

    def __init__(self, config: GNNConfig) -> None:
        super().__init__()
        width, self.graph, self.heads = config.hidden_size, config.graph, config.attention_heads
        self.own = dense_layer(width, width, activation=config.activation)
        self.others = nn.Parameter(dense_layer(width, width, activation=config.activation).weight.detach().clone())  # Mᵀ
        self.activation, self.norm = activation_layer(config.activation), nn.LayerNorm(width)
        if config.edges is not None:
            self.register_buffer("edges", edge_matrix(config.edges, config.layout.num_assets), persistent=False)
        if self.graph == "attention":
            self.query_key = dense_layer(width, 2 * width, gain=1.0)

    def forward(self, nodes: Tensor) -> Tensor:
        """(..., N, H) → (..., N, H)."""
        heard, own = self.gather(nodes), self.own(nodes)
        both = torch.addmm(own.flatten(0, -2), heard.flatten(0, -2), self.others).view_as(own)  # one pass less than a sum
        return self.norm(nodes + self.activation(both))

    def gather(self, nodes: Tensor) -> Tensor:
        """Σⱼ a_ij x_j (..., N, H)."""
        if self.graph == "attention":
            return self._attend(nodes)
        if self.graph == "full":
            others = max(1, nodes.shape[-2] - 1)
            return (nodes.sum(-2, keepdim=True) - nodes) / others
        # Twice as fast as `@`, which copies the edges for every row.
        return torch.einsum("ij,...jh->...ih", self.edges.to(nodes.dtype), nodes)

    def _attend(self, nodes: Tensor) -> Tensor:
        """Scaled dot products (Vaswani et al. 2017), several heads side by side; a node hears itself too."""
        query, key = (part.unflatten(-1, (self.heads, -1)).transpose(-3, -2) for part in self.query_key(nodes).chunk(2, -1))
        value = nodes.to(query.dtype).unflatten(-1, (self.heads, -1)).transpose(-3, -2)
        return F.scaled_dot_product_attention(query, key, value).transpose(-3, -2).flatten(-2)
