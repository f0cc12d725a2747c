"""Distributions in two levels: a gate draws the mode, the mode draws the action."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from rlplatform.models.distributions import ActionDistribution, Categorical, LogisticNormal, MappedNormal, TanhNormal

EDGE = 1e-6  # cash of a shrunk simplex below this share of it is rounding


class ShrunkLogisticNormal(LogisticNormal):
    """A LogisticNormal on the corner of the simplex where at most the share e is at risk.

        w = (1 − e + e u₀, e u₁, … , e u_N),    u = softmax([0, y]),    log |det ∂w/∂y| = N log e + Σᵢ log uᵢ

    A bijection onto {w : Σᵢ₌₁ wᵢ < e}; e = 1 is the whole simplex. A leverage entry only ever scales this down.

    Args:
        mean, log_std: (..., M, K) of M modes.
        exposure: e (M,), in (0, 1].
    """

    def __init__(self, mean: Tensor, log_std: Tensor, exposure: Tensor, leverage: bool = False) -> None:
        super().__init__(mean, log_std, leverage)
        self.exposure = exposure[:, None]

    def to_action(self, y: Tensor) -> Tensor:
        inner = super().to_action(y)
        level = inner[..., -1:] if self.leverage else inner[..., :0]
        weights = inner[..., :-1] if self.leverage else inner
        cash = (1.0 - self.exposure) + self.exposure * weights[..., :1]
        return torch.cat([cash, self.exposure * weights[..., 1:], level], -1)

    def to_normal(self, action: Tensor) -> Tensor:
        cash = (action[..., :1] - (1.0 - self.exposure)) / self.exposure
        # Where 1 − e was added to it, cash has lost its small digits.
        cash = torch.where(self.exposure < 1.0, cash.clamp_min(EDGE), cash)
        last = action.shape[-1] - self.leverage
        level = action[..., last:].expand(*cash.shape[:-1], -1)
        return super().to_normal(torch.cat([cash, action[..., 1:last] / self.exposure, level], -1))

    def log_det(self, y: Tensor) -> Tensor:
        assets = y.shape[-1] - self.leverage
        return super().log_det(y) + assets * self.exposure[:, 0].log()

    def supports(self, action: Tensor) -> Tensor:
        """(..., M) whether each mode can choose these actions (..., 1, A)."""
        return 1.0 - action[..., 0] <= self.exposure[:, 0] + EDGE


class BoxedTanhNormal(TanhNormal):
    """TanhNormals in boxes of different size: `low`, `high` (M, K)."""

    def supports(self, action: Tensor) -> Tensor:
        """(..., M) whether each mode can choose these actions (..., 1, A)."""
        return ((action - self.centre).abs() <= self.half_width * (1.0 + EDGE)).all(-1)


class ModeMixture(ActionDistribution):
    """Weights by one of M modes: π(a) = Σₘ gₘ πₘ(a).

    The density is that of the mixture, so PPO's ratio is exact for both levels and nobody needs to know which mode an action
    came from. Entropy and divergence of a mixture have no closed form; these are upper bounds by the chain rule, the
    entropy and divergence of mode and action together:

        H ≤ H(g) + Σₘ gₘ Hₘ,    KL(π ‖ π') ≤ KL(g ‖ g') + Σₘ gₘ KL(πₘ ‖ π'ₘ)

    Σ g H passes gradients into the modes only: an entropy bonus asks the gate to be undecided and each mode to be wide, and
    not the gate to prefer the widest mode.

    Args:
        gate: (..., M) logits.
        modes: one distribution of all modes, (..., M, K), with `supports`.
        plain: (mean, log_std) → a distribution of a policy without modes.
    """

    def __init__(self, gate: Tensor, modes: ShrunkLogisticNormal | BoxedTanhNormal, plain) -> None:
        self.log_gate, self.modes, self._plain = F.log_softmax(gate, -1), modes, plain

    @property
    def mode_probs(self) -> Tensor:
        return self.log_gate.exp()

    def sample(self, generator: Generator | None = None) -> Tensor:
        mode = Categorical(self.log_gate).sample(generator)
        return _chosen(self.modes.sample(generator), mode)

    def mode(self) -> Tensor:
        """What the most probable mode prefers, with the gradient of Σ g a, which reaches the gate (straight-through)."""
        actions = self.modes.mode()
        preferred = _chosen(actions, self.log_gate.argmax(-1))
        if not (actions.requires_grad or self.log_gate.requires_grad):
            return preferred
        blend = (self.mode_probs[..., None] * actions).sum(-2)
        return preferred.detach() + (blend - blend.detach())

    def log_prob(self, action: Tensor) -> Tensor:
        action = action[..., None, :]
        density = torch.where(self.modes.supports(action), self.modes.log_prob(action), -torch.inf)
        return torch.logsumexp(self.log_gate + density, -1)

    def entropy(self) -> Tensor:
        gate = self.mode_probs
        return -(gate * self.log_gate).sum(-1) + (gate.detach() * self.modes.entropy()).sum(-1)

    def kl(self, other: ModeMixture) -> Tensor:
        return (self.mode_probs * (self.log_gate - other.log_gate + self.modes.kl(other.modes))).sum(-1)

    def plain(self) -> MappedNormal:
        """Without modes: around what the most probable mode prefers, with its σ in the plain coordinates."""
        log_std = _chosen(self.modes.log_std.expand_as(self.modes.mean), self.log_gate.argmax(-1))
        around = self._plain(torch.zeros_like(log_std), log_std)
        return self._plain(around.to_normal(self.mode()), log_std)


class ModeCategorical(Categorical):
    """Numbered actions by one of M modes: P(a) = Σₘ gₘ Pₘ(a), a Categorical whose entropy and divergence are exact.

    Args:
        gate: (..., M) logits.
        masses: (..., M, n) log Pₘ(a); −∞ where a mode never chooses an action. Some mode must choose each action.
    """

    def __init__(self, gate: Tensor, masses: Tensor) -> None:
        self.log_gate, self.masses = F.log_softmax(gate, -1), masses
        self.log_probs = torch.logsumexp(self.log_gate[..., None] + masses, -2)

    @property
    def mode_probs(self) -> Tensor:
        return self.log_gate.exp()

    def mode(self) -> Tensor:
        """The likeliest action of the most probable mode."""
        return self.masses.argmax(-1).gather(-1, self.log_gate.argmax(-1, keepdim=True))[..., 0]


def _chosen(values: Tensor, mode: Tensor) -> Tensor:
    """(..., A) of the modes (...) among values (..., M, A)."""
    index = mode[..., None, None].expand(*mode.shape, 1, values.shape[-1])
    return values.gather(-2, index)[..., 0, :]
