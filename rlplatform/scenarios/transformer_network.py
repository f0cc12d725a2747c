"""The network of `ReturnTransformer`: past days in, a multivariate t of the next day out."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlplatform.scenarios.config import TransformerConfig
from rlplatform.scenarios.regimes import COUNT

LEAST_NU = 2.5
FEW_RATE = 10.0
WIDEST = 2.5  # |log| of a scale over that of history


class Emission(NamedTuple):
    """Of the next day: z = mean + √((ν − 2)/χ²_ν) (L f + ψ e), with f, e standard normal; covariance L Lᵀ + diag ψ²."""

    mean: Tensor  # (…, N)
    loadings: Tensor  # (…, N, K)
    own: Tensor  # (…, N) ψ
    nu: Tensor  # ()

    def log_prob(self, z: Tensor) -> Tensor:
        """(…) log density, by the matrix determinant lemma and Woodbury's identity on K × K matrices."""
        n = z.shape[-1]
        gap, weight = z - self.mean, 1.0 / self.own**2
        inner = self.loadings.mT @ (weight[..., None] * self.loadings) + torch.eye(self.loadings.shape[-1])
        root = torch.linalg.cholesky(inner)
        pull = torch.linalg.solve_triangular(root, self.loadings.mT @ (weight * gap)[..., None], upper=False)[..., 0]
        square = (weight * gap**2).sum(-1) - (pull**2).sum(-1)
        log_det = 2.0 * (self.own.log().sum(-1) + root.diagonal(dim1=-2, dim2=-1).log().sum(-1))
        nu = self.nu
        front = torch.lgamma((nu + n) / 2) - torch.lgamma(nu / 2) - 0.5 * n * torch.log(math.pi * (nu - 2))
        return front - 0.5 * log_det - (nu + n) / 2 * torch.log1p(square / (nu - 2))


class ReturnNetwork(nn.Module):
    """A causal pre-norm transformer over days that says how far the next day's scales are from what volatility says alone.

    A day is its factor scores and their sizes, log EWMA volatilities of the factors and (mean) of the assets' own parts, and
    the regime of the day that comes next; see `FactorView`. With volatilities over a slow and a fast window

        factor k:  √var = σ_slow^a σ_fast^b · exp(said_k),    own part of asset n:  ψ_n σ_slow^c σ_fast^d · exp(said)

    a … d learnt, what is said a linear function of the day plus the transformer's last layer, both begin at 0: an untrained
    network is a volatility model with the correlations of history. The mean is that of one autocorrelation for each factor,
    B (φ ∘ score): a free one would learn history's directions by heart.

    Args:
        config: sizes.
        loadings: (N, K) B to begin with.
        own: (N,) ψ to begin with.
    """

    def __init__(self, config: TransformerConfig, loadings: Tensor, own: Tensor) -> None:
        super().__init__()
        self.factors = loadings.shape[1]
        features, said = 4 * self.factors + 2 + COUNT, self.factors + 1
        self.embed = nn.Linear(features, config.width)
        self.place = nn.Parameter(0.02 * torch.randn(config.context_bars, config.width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.width, config.heads, 4 * config.width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.out, self.skip = nn.Linear(config.width, said), nn.Linear(features, said)
        for layer in (self.out, self.skip):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.loadings = nn.Parameter(loadings.clone())
        self.log_own = nn.Parameter(own.log())
        self.powers = nn.Parameter(torch.tensor([[0.6, 0.2], [0.6, 0.2]]))  # factors, own parts × slow, fast
        self.memory = nn.Parameter(torch.zeros(self.factors))  # tanh: φ
        self.raw_nu = nn.Parameter(torch.tensor(3.5))
        hide = torch.triu(torch.ones(config.context_bars, config.context_bars, dtype=torch.bool), 1)
        self.register_buffer("hide", hide, persistent=False)

    def parameter_groups(self, learning_rate: float, weight_decay: float) -> list[dict]:
        """For the optimiser: the few parameters of the volatility model ten times as fast as the transformer's, undecayed."""
        few = [self.loadings, self.log_own, self.powers, self.memory, self.raw_nu, *self.skip.parameters()]
        others = [p for p in self.parameters() if all(p is not each for each in few)]
        return [
            {"params": few, "lr": FEW_RATE * learning_rate, "weight_decay": 0.0},
            {"params": others, "lr": learning_rate, "weight_decay": weight_decay},
        ]

    def forward(self, days: Tensor, log_volatility: Tensor, last_only: bool = False) -> Emission:
        """Days (B, L, D) and log volatilities (B, L, 2, K + N) → emissions of the days after, or of the last one alone."""
        length = days.shape[1]
        hidden = self.embed(days) + self.place[-length:]
        for layer in self.layers:
            hidden = layer(hidden, src_mask=self.hide[:length, :length])
        if last_only:
            hidden, log_volatility, days = hidden[:, -1], log_volatility[:, -1], days[:, -1]
        said = self.out(self.norm(hidden)) + self.skip(days)
        own, factor = said.split([1, self.factors], dim=-1)
        by_factor, by_asset = log_volatility.split([self.factors, len(self.log_own)], dim=-1)
        factor = (self.powers[0][:, None] * by_factor).sum(-2) + factor.clamp(-WIDEST, WIDEST)
        own = (self.powers[1][:, None] * by_asset).sum(-2) + own.clamp(-WIDEST, WIDEST)
        return Emission(
            mean=(torch.tanh(self.memory) * days[..., : self.factors]) @ self.loadings.T,
            loadings=self.loadings * torch.exp(factor.clamp(-WIDEST, WIDEST))[..., None, :],
            own=torch.exp(self.log_own + own.clamp(-WIDEST, WIDEST)),
            nu=LEAST_NU + F.softplus(self.raw_nu),
        )
