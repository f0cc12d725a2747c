"""The Learners of BC and MARWIL: RLlib's losses, with true Monte-Carlo returns and masks where sequences are padded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from ray.rllib.algorithms.marwil.marwil import MARWILConfig
from ray.rllib.algorithms.marwil.marwil_learner import (
    LEARNER_RESULTS_MOVING_AVG_SQD_ADV_NORM_KEY,
    LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY,
)
from ray.rllib.algorithms.marwil.torch.marwil_torch_learner import MARWILTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from torch import Tensor

from rlplatform.algorithms.minibatches import END_ROW, RETURNS, TAIL_DISCOUNT
from rlplatform.algorithms.offline_defects import ResumableAdvantageNorm
from rlplatform.algorithms.offline_learner import MinibatchLearner

BETA, MAX_WEIGHT, ENTROPY_COEFF = "beta", "max_weight", "entropy_coeff"
BOOTSTRAP, NORM_START = "bootstrap", "norm_start"
VALUE_ROWS = 65_536  # at once; bounds the memory of a bootstrap

Mean = Callable[[Tensor], Tensor]


class AdvantageTerms(NamedTuple):
    """What advantages add to behaviour cloning's loss."""

    weight: Tensor | float  # of each transition's log-probability
    value_loss: Tensor | float
    logs: dict[str, Any]


class BCLearner(MinibatchLearner, MARWILTorchLearner):
    """Maximum likelihood of the logged actions.

    L = −E[log π(a|s)] − η E[H(π(·|s))]
    """

    def compute_loss_for_module(
        self, *, module_id: str, config: MARWILConfig, batch: dict[str, Any], fwd_out: dict[str, Tensor]
    ) -> Tensor:
        mean = _mean_over(batch.get(Columns.LOSS_MASK))
        module = self.module[module_id].unwrapped()
        distribution = module.get_train_action_dist_cls().from_logits(fwd_out[Columns.ACTION_DIST_INPUTS])
        terms = self._advantage_terms(module_id, config, batch, fwd_out, mean)
        policy_loss = -mean(terms.weight * distribution.logp(batch[Columns.ACTIONS]))
        entropy = mean(distribution.entropy())
        logs = {POLICY_LOSS_KEY: policy_loss.detach(), ENTROPY_KEY: entropy.detach(), **terms.logs}
        self.metrics.log_dict(logs, key=module_id, window=1)
        loss = policy_loss + config.vf_coeff * terms.value_loss
        # Not + 0 · entropy: a head without entropy gradient must not turn a NaN into the loss.
        coeff = config.learner_config_dict.get(ENTROPY_COEFF, 0.0)
        return loss - coeff * entropy if coeff else loss

    def _advantage_terms(
        self, module_id: str, config: MARWILConfig, batch: dict[str, Any], fwd_out: dict[str, Tensor], mean: Mean
    ) -> AdvantageTerms:
        return AdvantageTerms(1.0, 0.0, {})


class MonteCarloMARWILLearner(ResumableAdvantageNorm, BCLearner):
    """Behaviour cloning in which what turned out well counts more (Wang et al. 2018), as RLlib has it.

        A = R − V(s),    c² ← c² + ν (E[A²] − c²),    L = −E[exp(β A / c) log π(a|s)] + ½ κ E[A²] − η E[H]

    R is the discounted sum of rewards to the episode's real end, plus γᵏ V(last observation) where it was truncated and
    `bootstrap` is on; that V is the critic's at the beginning of the epoch. Weights end at `max_weight`, as in Peng et al.
    (2019), Advantage-weighted regression. RLlib's own connectors cut stateless episodes
    into single steps, so its R is r + γ V(s') with the V of the first weights.
    """

    batch_columns = (Columns.OBS, Columns.ACTIONS, Columns.VALUE_TARGETS)
    _values: Tensor | None = None

    def begin_epoch(self) -> None:
        table = self.minibatches.table
        self._start_norm()
        if not self.config.learner_config_dict.get(BOOTSTRAP, False):
            super().begin_epoch()
            table[Columns.VALUE_TARGETS] = table[RETURNS]
            return
        self._values = torch.zeros_like(table[RETURNS])
        super().begin_epoch()  # with memory, the replay fills in the values
        if self._states is None:
            self._value_last_observations(table)
        table[Columns.VALUE_TARGETS] = table[RETURNS] + table[TAIL_DISCOUNT] * self._values[table[END_ROW]]
        self._values = None

    def replayed(self, rows: Tensor, batch: dict[str, Any], outputs: dict[str, Any]) -> None:
        if self._values is not None:
            self._values[rows] = self._module_alone.compute_values(batch, outputs[Columns.EMBEDDINGS])

    @torch.no_grad()
    def _value_last_observations(self, table: dict[str, Tensor]) -> None:
        for rows in torch.unique(table[END_ROW]).split(VALUE_ROWS):
            self._values[rows] = self._module_alone.compute_values({Columns.OBS: table[Columns.OBS][rows]})

    def _start_norm(self) -> None:
        """c² of an untouched training that has no start of its own: the variance of the returns in the data."""
        norms = self.moving_avg_sqd_adv_norms_per_module
        if self.config.learner_config_dict.get(NORM_START) is None and DEFAULT_MODULE_ID not in norms:
            norms[DEFAULT_MODULE_ID] = self._get_tensor_variable(self.minibatches.returns_variance())

    def _advantage_terms(
        self, module_id: str, config: MARWILConfig, batch: dict[str, Any], fwd_out: dict[str, Tensor], mean: Mean
    ) -> AdvantageTerms:
        targets, norms = batch[Columns.VALUE_TARGETS], self.moving_avg_sqd_adv_norms_per_module
        module = self.module[module_id].unwrapped()
        advantages = targets - module.compute_values(batch, embeddings=fwd_out.get(Columns.EMBEDDINGS))
        squared = mean(advantages**2)
        known = advantages.detach()
        norms[module_id] = norms[module_id] + config.moving_average_sqd_adv_norm_update_rate * (
            squared.detach() - norms[module_id]
        )
        beta = config.learner_config_dict.get(BETA, config.beta)
        weight = torch.exp(beta * known / (1e-8 + norms[module_id].sqrt()))
        cap = config.learner_config_dict.get(MAX_WEIGHT)
        weight = weight if cap is None else weight.clamp(max=cap)
        logs = {
            VF_LOSS_KEY: 0.5 * squared.detach(),
            LEARNER_RESULTS_MOVING_AVG_SQD_ADV_NORM_KEY: norms[module_id],
            LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY: _explained(targets, known, mean),
        }
        return AdvantageTerms(weight, 0.5 * squared, logs)


def _mean_over(mask: Tensor | None) -> Mean:
    """The mean over all transitions, or over those that the mask lets through."""
    if mask is None:
        return torch.mean
    count = mask.sum()
    return lambda values: torch.where(mask, values, 0.0).sum() / count


def _explained(targets: Tensor, errors: Tensor, mean: Mean) -> Tensor:
    """1 − Var(R − V) / Var(R)."""
    unexplained, whole = (mean(x**2) - mean(x) ** 2 for x in (errors, targets))
    return 1.0 - unexplained / whole.clamp_min(torch.finfo(whole.dtype).tiny)
