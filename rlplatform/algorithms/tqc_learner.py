"""TQCLearner: a replay buffer, and the losses of critics, actor and temperature."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.policy.sample_batch import MultiAgentBatch
from torch import Tensor, nn

from rlplatform.algorithms.loss_by_part import LossByPart
from rlplatform.algorithms.offline_defects import SlowCopiesEachGradientStep
from rlplatform.algorithms.process_memory import keep_freed_memory
from rlplatform.algorithms.q_learner import policy_parameters
from rlplatform.algorithms.replay_buffer import FIRST, OBS, STATES, ReplayBuffer
from rlplatform.algorithms.tail_risk import stratified
from rlplatform.algorithms.vector_learner import SharedBatch, denormals_flushed
from rlplatform.models.heads import NormalHead
from rlplatform.models.q_critics import standard_target_entropy
from rlplatform.models.q_module import VALUE
from rlplatform.models.quantile_critic import quantile_loss
from rlplatform.models.rl_module import HIDDEN
from rlplatform.models.tqc_module import TQCModule
from rlplatform.models.truncated_critics import risk_weights, truncated

Batch = Mapping[str, Tensor]
REPLAY = "replay"
COUNTED = "counted"  # (B, L) bool: the transition has a part in the losses


class TQCLearner(SlowCopiesEachGradientStep, LossByPart, TorchLearner):
    """Puts rollouts into its buffer and takes `gradient_steps` minibatches from it; slow copies follow in each.

    Observations are normalised when they are drawn, by the statistics that the last rollout brought.
    """

    _replay: ReplayBuffer
    _statistics: tuple[Tensor, Tensor]

    def build(self) -> None:
        keep_freed_memory()
        super().build()
        self._replay = ReplayBuffer(self.settings["buffer_size"], self._device)

    @property
    def num_stored(self) -> int:
        """Transitions in the buffer."""
        return len(self._replay)

    def get_state(self, components: Any = None, **kwargs: Any) -> dict[str, Any]:
        state = super().get_state(components, **kwargs)
        if components or not self.settings["save_buffer"]:  # for weights alone
            return state
        return state | {REPLAY: self._replay.state()}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        if REPLAY in state:
            self._replay.set_state(state[REPLAY])

    def update(self, *args: Any, **kwargs: Any) -> Any:
        with denormals_flushed():
            return super().update(*args, **kwargs)

    def parts(self, module: TQCModule) -> dict[str, tuple[list[nn.Parameter], Any]]:
        slow, fast = self.settings["learning_rate"], self.settings["critic_learning_rate"]
        return {
            "policy": (policy_parameters(module), slow),
            "critic": (list(module.critics.parameters()), fast),
            "alpha": ([module.log_alpha], slow),
            "value": (list(module.actor_critic.value.parameters()), slow),
        }

    def losses(self, module: TQCModule, batch: Batch, out: Batch) -> dict[str, Tensor]:
        settings, counted = self.settings, batch[COUNTED]
        seen = counted & ~batch[Columns.TRUNCATEDS]
        target = quantile_target(batch, out[module.Q_NEXT], settings["gamma"], settings["drop_per_critic"])
        error = quantile_loss(out[module.Q], stratified(target), settings["huber"]).sum(0)
        atoms, entropy, alpha = out[module.Q_POLICY], out[module.ENTROPY], module.log_alpha.exp()
        weights = risk_weights(atoms.shape[-1], settings["cvar_alpha"], settings["cvar_weight"]).to(atoms.device)
        objective, worth = (atoms * weights).sum(-1), atoms.detach().mean(-1)
        wanted = settings["target_entropy"]
        wanted = middle_target_entropy(module.actor_critic.head) if wanted is None else wanted
        tail = risk_weights(atoms.shape[-1], settings["cvar_alpha"], 1.0).to(atoms.device)
        scale = module.reward_scale
        self.log_means(
            alpha=alpha, entropy=entropy[counted], q_policy=worth[counted] * scale, cvar=(atoms @ tail)[counted] * scale
        )
        return {
            "policy": -(objective + alpha.detach() * entropy)[counted].mean(),
            "critic": error[seen].mean(),
            "alpha": module.log_alpha * (entropy.detach()[counted].mean() - wanted),
            "value": (out[VALUE] - worth)[counted].square().mean(),
        }

    def _create_iterator_if_necessary(self, *, training_data: TrainingData, **kwargs: Any) -> Iterator[MultiAgentBatch]:
        for rollout in training_data.episodes:
            self._replay.add(rollout)
        last = training_data.episodes[-1]
        self._statistics = last.centre.to(self._device), last.factors.to(self._device)
        module = self._module_alone
        if int(module.gradient_steps) == 0:
            module.reward_scale.fill_(self._replay.reward_std() or 1.0)
        for _ in range(self.settings["gradient_steps"]):
            yield self._minibatch(self._replay.sample(self.settings["batch_size"]))

    def _minibatch(self, drawn: Batch) -> MultiAgentBatch:
        module, (centre, factors) = self._module_alone, self._statistics
        obs = (drawn[OBS] - centre) * factors
        if module.actor_critic.config.normalize_observations:
            obs = obs.clamp(-module.actor_critic.config.observation_clip, module.actor_critic.config.observation_clip)
        counted = torch.ones_like(drawn["truncated"])
        counted[:, : self.settings["burn_in"]] = False
        columns = {
            Columns.OBS: obs,
            module.IS_FIRST: drawn[FIRST],
            Columns.ACTIONS: drawn["actions"],
            Columns.REWARDS: drawn["rewards"],
            Columns.TERMINATEDS: drawn["terminated"],
            Columns.TRUNCATEDS: drawn["truncated"],
            COUNTED: counted,
            Columns.STATE_IN: {HIDDEN: drawn[STATES]},
        }
        return MultiAgentBatch({DEFAULT_MODULE_ID: SharedBatch(columns, counted.numel())}, env_steps=counted.numel())


def quantile_target(batch: Batch, q_next: Tensor, gamma: float, drop: int) -> Tensor:
    """(B, L, K) atoms of r + γ · (what follows), K = C·M − C·d; after ruin nothing does.

    Args:
        batch: `rewards` and `terminateds` (B, L).
        q_next: (C, B, L, M) of the slow critics.
        drop: d.
    """
    ahead = torch.where(batch[Columns.TERMINATEDS][..., None], 0.0, truncated(q_next, drop))
    return (batch[Columns.REWARDS][..., None] + gamma * ahead).detach()


def middle_target_entropy(head: NormalHead) -> float:
    """Entropy of the normal [nats] by which actions in the middle of the space spread as SAC's −A means.

        H = standard_target_entropy − log |det ∂a/∂y| at y = 0

    In Box(−1, 1)^A that is −A, σ = 0.089 before the squashing. Elsewhere in the space the same normal spreads the action
    less: its entropy is not asked to be the same, for a policy near a corner would then be paid for leaving it.
    """
    middle = torch.zeros(1, head.num_outputs)
    at_middle = head.distribution(torch.cat([middle, middle], -1)).log_det(middle)
    return standard_target_entropy(head) - float(at_middle)
