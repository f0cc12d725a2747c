"""VectorPPOLearner: PPO's loss on whole sequences, without connectors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from torch import Tensor

from rlplatform.algorithms.exploration import EXPLORATION, ExplorationConfig
from rlplatform.algorithms.learner import ResumablePPOLearner
from rlplatform.algorithms.offline_rows import LOGGED_ROWS, OfflineRows
from rlplatform.algorithms.pretraining import PRETRAINED, Anchor
from rlplatform.algorithms.process_memory import keep_freed_memory
from rlplatform.algorithms.rollout import Rollout, generalised_advantages, joined, segments, standardised
from rlplatform.algorithms.tail_risk import RETURN_SAMPLES, TAIL_RISK, TailRisk, return_samples
from rlplatform.models.hierarchical_head import gate_figures
from rlplatform.models.rl_module import HIDDEN, ActorCriticModule

ANCHOR_PARAMS = "anchor_params"


class VectorPPOLearner(ResumablePPOLearner):
    """Takes Rollouts instead of episodes: advantages in one pass, minibatches of whole sequences with their states.

    The loss is stock PPO's. Sequences may hold the end of one episode and the beginning of the next; the recurrent state
    is reset there. Each epoch shuffles the sequences anew and uses every one of them, in the fewest minibatches of at most
    `minibatch_size` transitions, all of the same size or one sequence less. With
    `training.pretrain` an `Anchor` and `OfflineRows` add to the loss; with `training.exploration` the entropy of each
    transition and the anchor's pull on it are weighted by the account's drawdown; with a quantile critic its loss takes the
    place of the squared errors, and `TailRisk` mixes the advantages.
    """

    _exploration: ExplorationConfig | None = None
    _anchor: Anchor | None = None
    _logged: OfflineRows | None = None
    _tail_risk: TailRisk | None = None

    def build(self) -> None:
        keep_freed_memory()
        super().build()
        settings = self.config.learner_config_dict.get(EXPLORATION)
        if settings is not None:
            self._exploration = ExplorationConfig(**settings)
        settings = self.config.learner_config_dict.get(PRETRAINED)
        if settings is not None:
            self._anchor = Anchor(settings, self.module[DEFAULT_MODULE_ID].unwrapped().actor_critic, self._device)
        settings = self.config.learner_config_dict.get(LOGGED_ROWS)
        if settings is not None:
            self._logged = OfflineRows(settings, self.config.model_config, self._device)
        settings = self.config.learner_config_dict.get(TAIL_RISK)
        if settings is not None:
            self._tail_risk = TailRisk(**settings)

    def get_state(self, *args, **kwargs) -> dict[str, Any]:
        state = super().get_state(*args, **kwargs)
        return state if self._logged is None else state | {LOGGED_ROWS: self._logged.taken}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        if self._logged is not None:
            self._logged.taken = state.get(LOGGED_ROWS, 0)

    def before_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        super().before_gradient_based_update(timesteps=timesteps)
        for part in (self._anchor, self._logged):
            if part is not None:
                part.at(timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0))

    def compute_loss_for_module(self, **kwargs: Any) -> Tensor:
        loss, batch, module_id = super().compute_loss_for_module(**kwargs), kwargs["batch"], kwargs["module_id"]
        params, pull = kwargs["fwd_out"][Columns.ACTION_DIST_INPUTS], None
        head = self.module[module_id].unwrapped().actor_critic.head
        if head.mode_names:
            self.metrics.log_dict(gate_figures(head, params.detach()), key=module_id, window=1)
        if RETURN_SAMPLES in batch:
            features = kwargs["fwd_out"][Columns.EMBEDDINGS]
            loss = loss + self._tail_risk.value_coeff * self._quantile_loss(features, batch[RETURN_SAMPLES], module_id)
        if EXPLORATION in batch:
            loss = loss + self._entropy_withheld(batch[EXPLORATION], params, module_id)
            pull = self._exploration.anchor_weight(batch[EXPLORATION])
        if ANCHOR_PARAMS in batch:
            divergence = self._anchor.divergence(batch[ANCHOR_PARAMS], params, pull)
            self.metrics.log_value((module_id, "kl_to_pretrained"), divergence.detach(), window=1)
            loss = loss + self._anchor.coeff * divergence
        if self._logged is not None and self._logged.coeff > 0:
            imitation = self._logged.loss(self.module[module_id].unwrapped())
            self.metrics.log_value((module_id, "imitation_loss"), imitation.detach(), window=1)
            loss = loss + self._logged.coeff * imitation
        return loss

    def _quantile_loss(self, features: Tensor, samples: Tensor, module_id: str) -> Tensor:
        outputs = self.module[module_id].unwrapped().actor_critic.value(features)
        loss = self._tail_risk.loss(outputs, samples)
        figures = self._tail_risk.figures(outputs.detach(), samples)
        self.metrics.log_dict({"quantile_loss": loss.detach(), **figures}, key=module_id, window=1)
        return loss

    def _entropy_withheld(self, weight: Tensor, params: Tensor, module_id: str) -> Tensor:
        """c · mean (1 − e) H: the part of stock's entropy bonus that drawdowns take back; exactly 0 without any."""
        entropy = self.module[module_id].unwrapped().actor_critic.head.distribution(params).entropy()
        withheld = 1.0 - weight
        self.metrics.log_value((module_id, "exploration_weight"), weight.mean(), window=1)
        in_drawdown = (withheld * entropy).sum() / withheld.sum()  # no number where no account is in one
        self.metrics.log_value((module_id, "entropy_in_drawdown"), in_drawdown.detach(), window=1)
        coeff = self.entropy_coeff_schedulers_per_module[module_id].get_current_value()
        return coeff * (withheld * entropy).mean()

    def update(self, *args: Any, **kwargs: Any) -> Any:
        with denormals_flushed():
            return super().update(*args, **kwargs)

    def _create_iterator_if_necessary(
        self,
        *,
        training_data: TrainingData,
        num_epochs: int = 1,
        minibatch_size: int | None = None,
        **kwargs: Any,
    ) -> Iterator[MultiAgentBatch]:
        rollout = joined(training_data.episodes, self._device)
        columns = training_columns(rollout, self.config.gamma, self.config.lambda_, self._tail_risk)
        if self._exploration is not None:
            columns[EXPLORATION] = segments(self._exploration.weight(rollout.drawdown), rollout.segment_length)
        if self._anchor is not None and self._anchor.coeff > 0:
            columns[ANCHOR_PARAMS] = segments(self._anchor.params(rollout), rollout.segment_length)
        sequences, length = columns[Columns.OBS].shape[:2]
        size = sequences if minibatch_size is None else max(1, minibatch_size // length)
        return self._minibatches(columns, length, size, num_epochs)

    def _minibatches(self, columns: dict[str, Tensor], length: int, size: int, num_epochs: int) -> Iterator[MultiAgentBatch]:
        sequences = len(columns[Columns.OBS])
        for _ in range(num_epochs):
            order = torch.randperm(sequences, device=columns[Columns.OBS].device)
            for rows in order.tensor_split(-(-sequences // size)):
                yield _minibatch({name: column[rows] for name, column in columns.items()}, length)


def training_columns(rollout: Rollout, gamma: float, gae_lambda: float, tail_risk: TailRisk | None = None) -> dict[str, Tensor]:
    """What PPO's loss reads, as (sequences, L, …), and the state before each sequence (sequences, H)."""
    advantages = generalised_advantages(rollout, gamma, gae_lambda)
    targets, sampled = advantages + rollout.value, {}
    if tail_risk is not None:
        sampled = {RETURN_SAMPLES: return_samples(rollout, gamma, gae_lambda)}
        advantages = tail_risk.advantages(advantages, rollout.quantiles, sampled[RETURN_SAMPLES])
    time_major = {
        Columns.OBS: rollout.obs,
        ActorCriticModule.IS_FIRST: rollout.first,
        Columns.ACTIONS: rollout.actions,
        Columns.ACTION_DIST_INPUTS: rollout.params,
        Columns.ACTION_LOGP: rollout.log_prob,
        Postprocessing.ADVANTAGES: standardised(advantages),
        Postprocessing.VALUE_TARGETS: targets,
        **sampled,
    }
    columns = {name: segments(values, rollout.segment_length) for name, values in time_major.items()}
    return columns | {Columns.STATE_IN: rollout.states.flatten(0, 1)}


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Numbers too small for full precision count as zero inside; the processor's setting is as before afterwards.

    Gradients through saturated gates fade into denormals, on which products crawl (docs/LOG.md, 2026-11-21).
    """
    was_flushed = float(torch.tensor(1e-40) * 1.0) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_flushed)


class SharedBatch(SampleBatch):
    """A SampleBatch that counts transitions, not sequences, and leaves its tensors where they are."""

    def __init__(self, columns: dict[str, Any], count: int) -> None:
        super().__init__(columns)
        self.count = count


def _minibatch(columns: dict[str, Any], length: int) -> MultiAgentBatch:
    count = len(columns[Columns.OBS]) * length
    columns[Columns.STATE_IN] = {HIDDEN: columns[Columns.STATE_IN]}
    return MultiAgentBatch({DEFAULT_MODULE_ID: SharedBatch(columns, count)}, env_steps=count)
