"""ReplayBuffer: the last transitions, as whole sequences with the recurrent state before each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlplatform.algorithms.rollout import segments
from rlplatform.algorithms.transitions import Transitions

OBS, FIRST, STATES = "obs", "first", "states"
_STEPS = ("actions", "rewards", "terminated", "truncated")


class ReplayBuffer:
    """A ring of sequences of L transitions; the oldest make way. Memory is taken once, with the first rollout.

    Minibatches of whole sequences are drawn uniformly, with replacement, from torch's global generator. Without memory L is
    1 and a sequence is a transition.

    Args:
        capacity: transitions at most.
        device: where everything lies.

    Attributes:
        length: L, of the rollouts that come; 0 before the first.
    """

    def __init__(self, capacity: int, device: torch.device | str = "cpu") -> None:
        self._capacity, self._device = capacity, device
        self._columns: dict[str, Tensor] = {}
        self._units = self._next = self.length = 0

    def __len__(self) -> int:
        """Transitions that lie here."""
        return self._units * self.length

    def add(self, rollout: Transitions) -> None:
        """Take in a rollout, sequence by sequence; all rollouts have sequences of one length."""
        new = _sequences(rollout)
        if not self._columns:
            self.length = rollout.segment_length
            slots = max(1, self._capacity // self.length)
            self._columns = {n: torch.empty((slots, *v.shape[1:]), dtype=v.dtype, device=self._device) for n, v in new.items()}
        slots = self._slots
        new = {name: values[-slots:] for name, values in new.items()}
        count = len(new[STATES])
        places = (self._next + torch.arange(count)) % slots
        for name, values in new.items():
            self._columns[name][places] = values.to(self._device)
        self._next = (self._next + count) % slots
        self._units = min(slots, self._units + count)

    def sample(self, transitions: int) -> dict[str, Tensor]:
        """A minibatch of about so many transitions, U sequences of L.

        Returns:
            `obs` (U, L + 1, D) raw, `first` (U, L + 1), `actions` (U, L, A), `rewards`, `terminated`, `truncated` (U, L),
            `states` (U, H) before each.
        """
        rows = torch.randint(self._units, (max(1, transitions // self.length),), device=self._device)
        return {name: column[rows] for name, column in self._columns.items()}

    def reward_std(self) -> float:
        """Of the rewards that lie here."""
        return float(self._columns["rewards"][: self._units].double().std(correction=0))

    def state(self) -> dict[str, Any]:
        """All that lies here, as arrays, and where the next comes."""
        arrays = {name: column[: self._units].cpu().numpy() for name, column in self._columns.items()}
        return {"columns": arrays, "next": self._next, "slots": self._slots, "length": self.length}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Hold what the buffer held whose `state()` this was."""
        self._columns, self._units, self.length = {}, 0, state["length"]
        for name, array in state["columns"].items():
            stored = torch.from_numpy(np.array(array)).to(self._device)
            self._units = len(stored)
            column = torch.empty((state["slots"], *stored.shape[1:]), dtype=stored.dtype, device=self._device)
            column[: self._units] = stored
            self._columns[name] = column
        self._next = state["next"]

    @property
    def _slots(self) -> int:
        return len(self._columns[STATES]) if self._columns else 0


def _sequences(rollout: Transitions) -> dict[str, Tensor]:
    """(S, L, …) columns of the rollout's sequences, S = K·B; of observations L + 1 rows, the last that of the next sequence."""
    length = rollout.segment_length
    made = {name: segments(getattr(rollout, name), length) for name in _STEPS}
    for name in (OBS, FIRST):
        rows = getattr(rollout, name)
        after = rows[length::length].flatten(0, 1)[:, None]
        made[name] = torch.cat([segments(rows[:-1], length), after], 1)
    return {**made, STATES: rollout.states.flatten(0, 1)}
