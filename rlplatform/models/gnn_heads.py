"""What reads a GNN's nodes: the same weights for every asset, so that assets permuted are answers permuted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlplatform.models.encoder import Activation, dense_layer, hidden_layers
from rlplatform.models.heads import ActionHead, LogisticNormalHead


class NodePolicy(nn.Module):
    """One score for each asset, by the same weights; cash has a logit of its own, from the mean of all nodes.

        y_i = w·x_i − u·x̄    long-only: yᵢ is asset i's logit against cash
        y_i = w·x_i           signed

    With `leverage` one more output, from the mean.
    """

    def __init__(self, width: int, cash: bool, leverage: bool) -> None:
        super().__init__()
        self.width = width
        self.node = dense_layer(width, 1, gain=0.01)
        self.cash = dense_layer(width, 1, gain=0.01) if cash else None
        self.leverage = dense_layer(width, 1, gain=0.01) if leverage else None

    def forward(self, features: Tensor) -> Tensor:
        """(..., N·H) → (..., N) or (..., N + 1)."""
        nodes = features.unflatten(-1, (-1, self.width))
        pooled, outputs = nodes.mean(-2), self.node(nodes)[..., 0]
        if self.cash is not None:
            outputs = outputs - self.cash(pooled)
        return outputs if self.leverage is None else torch.cat([outputs, self.leverage(pooled)], -1)


class PooledValue(nn.Module):
    """V = v·x̄ + b of the mean node."""

    def __init__(self, width: int, outputs: int = 1) -> None:
        super().__init__()
        self.width = width
        self.value = dense_layer(width, outputs, gain=1.0)

    def forward(self, features: Tensor) -> Tensor:
        """(..., N·H) → (..., outputs)."""
        return self.value(features.unflatten(-1, (-1, self.width)).mean(-2))


class NodeActionValue(nn.Module):
    """Values of (state, action) from the mean of nodes that each know their own asset's weight.

        z_i = layers(x_i, a_i, c),   value = V act(U mean_i z_i)

    a_i is asset i's weight in the action, c what belongs to no asset: weight of cash, leverage. U mixes after the mean, so
    that risk, which is no sum over assets, can be said. Source: deep sets (Zaheer et al. 2017).

    Args:
        width: of a node.
        num_assets: N.
        head: of the actions; the assets' weights are in their order, after cash on a simplex.
        layers: widths of the layers on each node; the last is U's as well.
    """

    def __init__(
        self, width: int, num_assets: int, head: ActionHead, layers: tuple[int, ...], outputs: int, activation: Activation
    ) -> None:
        super().__init__()
        first = int(isinstance(head, LogisticNormalHead))
        self.width, self.assets = width, slice(first, first + num_assets)
        sizes = (width + 1 + head.space().shape[0] - num_assets, *layers)
        self.node = nn.Sequential(*hidden_layers(sizes, activation))
        self.mix = nn.Sequential(*hidden_layers((sizes[-1], sizes[-1]), activation))
        self.value = dense_layer(sizes[-1], outputs, gain=1.0)

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        """(..., N·H) and (..., A) → (..., outputs)."""
        nodes = features.unflatten(-1, (-1, self.width))
        own = action[..., self.assets].unsqueeze(-1)
        shared = torch.cat([action[..., : self.assets.start], action[..., self.assets.stop :]], -1).unsqueeze(-2)
        together = torch.cat([nodes, own, shared.expand(*nodes.shape[:-1], -1)], -1)
        return self.value(self.mix(self.node(together).mean(-2)))
