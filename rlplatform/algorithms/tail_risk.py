"""PPO with a distribution of returns: what its critic learns from, and advantages that count the worst of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from envs.errors import ConfigError
from rlplatform.algorithms.rollout import Rollout
from rlplatform.models.encoder import EncoderConfig
from rlplatform.models.quantile_critic import quantile_loss, shortfall_utility, value_at_risk

TAIL_RISK = "tail_risk"
RETURN_SAMPLES = "return_samples"
SAMPLES_A_LOSS = 8  # return samples that one gradient step compares with each transition's quantiles


@dataclass(frozen=True, kw_only=True)
class TailRisk:
    """What the learner of a quantile critic is told.

    Attributes:
        alpha: share of the worst returns that CVaR is the mean of.
        weight: w of the objective (1 − w) E[G] + w CVaR_α[G].
        value_coeff: of the quantile loss in the whole.
        huber: κ of that loss.
    """

    alpha: float
    weight: float
    value_coeff: float
    huber: float

    def advantages(self, generalised: Tensor, quantiles: Tensor, samples: Tensor) -> Tensor:
        """(T, B) [units of the reward]: (1 − w) · generalised advantages + w · `tail_advantages`; the first alone at w = 0."""
        if self.weight == 0:
            return generalised
        return (1.0 - self.weight) * generalised + self.weight * tail_advantages(quantiles, samples, self.alpha)

    def loss(self, outputs: Tensor, samples: Tensor) -> Tensor:
        """The critic's loss, a number, on a minibatch: the value layer's outputs (B, L, K), samples of the returns (B, L, K).

        Each output answers for its own level, so that they come into order as they learn; readers sort them.
        """
        return quantile_loss(outputs, stratified(samples), self.huber).mean()

    def figures(self, outputs: Tensor, samples: Tensor) -> dict[str, Tensor]:
        """What tells a reader how good the critic is, on a minibatch.

        Args:
            outputs: (B, L, K) of the value layer.
            samples: (B, L, K) of the returns.

        Returns:
            Means of the critic's `value_at_risk` and `cvar` [units of the reward], `tail_share` (share of the return samples
            below the value at risk: α where the critic is calibrated), `quantile_crossings` (share of neighbours that the
            layer has in the wrong order).
        """
        quantiles = outputs.sort(-1).values
        level = value_at_risk(quantiles, self.alpha)
        return {
            "value_at_risk": level.mean(),
            "cvar": shortfall_utility(quantiles, level, self.alpha).mean(),
            "tail_share": (samples < level.unsqueeze(-1)).float().mean(),
            "quantile_crossings": (outputs.diff(dim=-1) < 0).float().mean(),
        }


def return_samples(rollout: Rollout, gamma: float, gae_lambda: float, generator: torch.Generator | None = None) -> Tensor:
    """(T, B, K) samples of the return-to-go of every step: its λ-return as a distribution, SR(λ).

        y_t,j = r_t + γ · { y_{t+1},j  with probability λ, within the episode
                          { θ_j(s_{t+1})  else

    The mean over samples is the λ-return; unlike it, the samples keep the spread of what comes after the bootstrap. Each
    j keeps to its share of probability, so that K samples hold all of the critic's quantiles.
    Source: Nam, Kim and Park (2021), GMAC: a distributional perspective on actor-critic framework, sample replacement.

    Args:
        rollout: with quantiles.
        generator: of the replacements; torch's global one if not given.
    """
    ahead = rollout.next_quantiles
    kept = torch.rand(ahead.shape, generator=generator, device=ahead.device) < gae_lambda
    kept = kept & ~rollout.done[..., None]
    samples = torch.empty_like(ahead)
    following = ahead[-1]  # what comes after the last row is the critic's word
    for t in range(len(ahead) - 1, -1, -1):
        following = rollout.reward[t, :, None] + gamma * torch.where(kept[t], following, ahead[t])
        samples[t] = following
    return samples


def tail_advantages(quantiles: Tensor, samples: Tensor, alpha: float) -> Tensor:
    """Advantages (T, B) for CVaR_α of the return-to-go, in units of the reward.

        A_t = mean_j f_t(y_t,j) − mean_i f_t(θ_i(s_t)),    f_t(g) = ν_t − (ν_t − g)⁺ / α,    ν_t = VaR_α of θ(s_t)

    At the maximising ν its derivative vanishes, so ∇ CVaR_α[G] = E[∇ log π · f(G)]: the score function estimator with ν held
    fixed. The second term is the critic's CVaR: a baseline that no action moves.
    Sources: Tamar, Glassner and Mannor (2015), Optimizing the CVaR via sampling; Chow and Ghavamzadeh (2014), Algorithms
    for CVaR optimization in MDPs; here ν and the baseline are those of each state, by its own quantiles.

    Args:
        quantiles: θ (T, B, K) of the critic that sampled, rising.
        samples: y (T, B, M) of the return-to-go.
    """
    level = value_at_risk(quantiles, alpha)
    return shortfall_utility(samples, level, alpha).mean(-1) - shortfall_utility(quantiles, level, alpha).mean(-1)


def check_tail_risk(training: Any, model: EncoderConfig) -> None:
    """Whether critic and objective suit each other.

    Args:
        training: of any algorithm.

    Raises:
        ConfigError: a CVaR objective without quantiles, or quantiles where nothing learns them.
    """
    weight, critic = getattr(training, "cvar_weight", 0.0), model.critic
    if critic is None:
        if weight > 0 and training.takes_quantile_critic:  # TQC's critics know it by themselves
            raise ConfigError(
                f"training.cvar_weight = {weight} needs the distribution of returns, and the critic knows their mean only. "
                "Set model.critic: {kind: quantile}, or training.cvar_weight to 0."
            )
        return
    if not training.takes_quantile_critic:
        raise ConfigError(f"model.critic is for PPO; training.algorithm = {training.algorithm}. Leave model.critic out.")
    if not training.fast:
        raise ConfigError(
            "model.critic needs the fast path: stock RLlib's loss knows the mean only. Leave it out, or set "
            "training.fast to true."
        )
    if training.value_clip is not None:
        raise ConfigError(
            f"training.value_clip = {training.value_clip} limits squared errors; a quantile critic has none. Set it to null."
        )
    if training.cvar_alpha * critic.quantiles < 1 and weight > 0:
        raise ConfigError(
            f"training.cvar_alpha = {training.cvar_alpha} with model.critic.quantiles = {critic.quantiles}: the worst returns "
            f"are less than one quantile. Take at least {-int(-1 // training.cvar_alpha)} quantiles."
        )


def tail_risk_settings(training: Any, model: EncoderConfig) -> dict[str, float]:
    """The fields of the learner's `TailRisk`, as plain values that travel in RLlib's config; for a quantile critic."""
    return {
        "alpha": training.cvar_alpha,
        "weight": training.cvar_weight,
        "value_coeff": training.value_coeff,
        "huber": model.critic.huber,
    }


def stratified(samples: Tensor) -> Tensor:
    """(…, M) of the (…, K) samples, M ≤ SAMPLES_A_LOSS, one drawn from each of M equal stretches of j.

    All K² pairs would take most of the learner's time; fewer samples make the gradient noisier, not biased.
    """
    count = samples.shape[-1]
    if count <= SAMPLES_A_LOSS:
        return samples
    edges = torch.linspace(0, count, SAMPLES_A_LOSS + 1, device=samples.device)
    place = edges[:-1] + torch.rand(SAMPLES_A_LOSS, device=samples.device) * edges.diff()
    return samples[..., place.long().clamp(max=count - 1)]
