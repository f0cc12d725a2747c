"""What every offline algorithm of ours adds to RLlib's: a training step and a Learner over `Minibatches`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import (
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    OFFLINE_SAMPLING_TIMER,
    TIMERS,
)
from torch import Tensor

from rlplatform.algorithms.minibatches import Minibatches
from rlplatform.algorithms.offline_defects import RestorableOffline
from rlplatform.algorithms.process_memory import keep_freed_memory
from rlplatform.algorithms.vector_learner import denormals_flushed
from rlplatform.models.rl_module import HIDDEN, ActorCriticModule

POSITION = "minibatches_taken"
REPLAY_SEQUENCES = 4_096  # at once; bounds the memory of a replay


class OfflineTraining(RestorableOffline):
    """Put before an offline Algorithm of RLlib: `class FastMARWIL(OfflineTraining, MARWIL)`.

    One `train()` is `dataset_num_iters_per_learner` gradient steps of each learner. Counted as sampled is what was used,
    where RLlib counts one minibatch however many there were.
    """

    def training_step(self) -> None:
        config = self.config
        with self.metrics.log_time((TIMERS, OFFLINE_SAMPLING_TIMER)):
            sources = self.offline_data.sample(config.train_batch_size_per_learner, num_shards=config.num_learners)
        used = config.train_batch_size_per_learner * config.dataset_num_iters_per_learner * max(1, config.num_learners)
        self.metrics.log_value(NUM_ENV_STEPS_SAMPLED_LIFETIME, used, reduce="lifetime_sum")
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            learnt = self.learner_group.update(
                training_data=TrainingData(data_iterators=sources),
                num_iters=config.dataset_num_iters_per_learner,
                timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: self.metrics.peek(NUM_ENV_STEPS_SAMPLED_LIFETIME)},
            )
            self.metrics.aggregate(learnt, key=LEARNER_RESULTS)


class MinibatchLearner:
    """Put before a TorchLearner: `class FastLearner(MinibatchLearner, MARWILTorchLearner)`.

    Takes minibatches from `Minibatches` instead of Ray Data, goes on after a restore with the next one, and gives sequences
    the recurrent state that the network has before them: at the beginning of an epoch (of a stream: of each of its tables)
    it replays every sequence, each after the one before it in its episode. RLlib starts each from zeros, which teaches a
    policy that it forgets every L steps.

    Attributes:
        batch_columns: what the loss reads; sequences also get `is_first`, `loss_mask` and `state_in`.
        minibatches: the source, from the first update on; its `table` may be given further columns in `begin_epoch`.
    """

    batch_columns: ClassVar[tuple[str, ...]] = (Columns.OBS, Columns.ACTIONS)
    minibatches: Minibatches | None = None
    _position = 0
    _begun: tuple[int, int] | None = None
    _states: Tensor | None = None

    def build(self) -> None:
        keep_freed_memory()
        super().build()

    def update(self, *args: Any, **kwargs: Any) -> Any:
        with denormals_flushed():
            return super().update(*args, **kwargs)

    def begin_epoch(self) -> None:
        """Called before the first minibatch of each epoch (of a stream: of each of its tables), and after a restore."""
        if HIDDEN in self._module_alone.get_initial_state():
            self._states = self._replay()

    def replayed(self, rows: Tensor, batch: dict[str, Any], outputs: dict[str, Any]) -> None:
        """What the network said of sequences `rows` (U, L) of the table in a replay; a subclass may keep some of it."""

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return super().get_state(*args, **kwargs) | {POSITION: self._position}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self._position = state.get(POSITION, self._position)
        self._states = self._begun = None

    @property
    def _module_alone(self) -> ActorCriticModule:
        return self.module[DEFAULT_MODULE_ID].unwrapped()

    def _create_iterator_if_necessary(
        self, *, training_data: TrainingData, num_iters: int, **kwargs: Any
    ) -> Iterator[MultiAgentBatch]:
        if self.minibatches is None:
            self.minibatches = training_data.data_iterators[0].open(self._device)
        for _ in range(num_iters):
            table = self.minibatches.turn_to(self._position)
            if self._begun != table:
                self._begun = table
                self.begin_epoch()
            yield self._minibatch(self.minibatches.rows(self._position))
            self._position += 1

    def _minibatch(self, rows: Tensor) -> MultiAgentBatch:
        columns = self.minibatches.columns(rows, self.batch_columns)
        if self._states is not None:
            columns[Columns.STATE_IN] = {HIDDEN: self._states[rows[:, 0] // self.minibatches.length]}
        count = int(columns[Columns.LOSS_MASK].sum()) if Columns.LOSS_MASK in columns else len(rows)
        return MultiAgentBatch({DEFAULT_MODULE_ID: _Transitions(columns, count)}, env_steps=count)

    @torch.no_grad()
    def _replay(self) -> Tensor:
        """(U, H) the state before each sequence.

        Sequence u needs the state after u − 1, and so on back to one in which an episode begins, whose own end needs
        nothing before it. Those go first; then all that are equally far from theirs go through the network together.
        """
        source = self.minibatches
        first = source.table[ActorCriticModule.IS_FIRST].reshape(-1, source.length).any(1)
        states = torch.zeros(len(first), self._module_alone.actor_critic.state_size, device=first.device)
        begins = torch.nonzero(first)[:, 0]
        self._pass(begins, states, final=False)
        for units in _equally_far(first):
            self._pass(units, states, final=True)
        return states

    def _pass(self, units: Tensor, states: Tensor, final: bool) -> None:
        """Send sequences through the network; the state after each goes to the one that follows."""
        for some in units.split(REPLAY_SEQUENCES):
            rows = some.cpu()[:, None] * self.minibatches.length + torch.arange(self.minibatches.length)
            batch = self.minibatches.columns(rows, (Columns.OBS,)) | {Columns.STATE_IN: {HIDDEN: states[some]}}
            outputs = self._module_alone.forward_train(batch)
            followed = some + 1 < len(states)
            states[some[followed] + 1] = outputs[Columns.STATE_OUT][HIDDEN][followed]
            if final:
                self.replayed(rows, batch, outputs)


def _equally_far(begins: Tensor) -> list[Tensor]:
    """Sequences in groups by their distance to the last one before them in which an episode begins.

    Args:
        begins: (U,) bool, an episode begins somewhere in the sequence; true in the first.
    """
    number = torch.arange(len(begins), device=begins.device)
    known = torch.zeros_like(begins)
    known[0] = True
    known[1:] = begins[:-1]
    distance = number - torch.where(known, number, 0).cummax(0).values
    return [torch.nonzero(distance == k)[:, 0] for k in range(int(distance.max()) + 1)]


class _Transitions(SampleBatch):
    """A SampleBatch that counts transitions, not sequences, and leaves its tensors where they are."""

    def __init__(self, columns: dict[str, Any], count: int) -> None:
        super().__init__(columns)
        self.count = count
