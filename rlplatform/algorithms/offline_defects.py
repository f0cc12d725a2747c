"""Defects of RLlib 2.60 in offline learning, each with the work-around; delete what Ray has mended.

Every class here has a test in tests/algorithms/test_offline_defects.py that fails without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ADVANTAGE_NORMS = "squared_advantage_norms"


class RestorableOffline:
    """Defect: `from_checkpoint`, `restore_from_path` and Tune's resume of BC, MARWIL and IQL raise AttributeError.

    They send weights to `env_runner_group` without asking whether there is one; an offline algorithm has None. Put this
    before the Algorithm: while it restores, a group of no runners stands there.
    """

    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        with self._some_env_runner_group():
            super().restore_from_path(path, *args, **kwargs)

    def set_state(self, state: dict[str, Any]) -> None:
        with self._some_env_runner_group():
            super().set_state(state)

    @contextmanager
    def _some_env_runner_group(self) -> Iterator[None]:
        group = self.env_runner_group
        if group is None:
            self.env_runner_group = _NoEnvRunners()
        try:
            yield
        finally:
            self.env_runner_group = group


class _NoEnvRunners:
    """An EnvRunnerGroup without runners: takes weights and does nothing."""

    local_env_runner = None

    def __bool__(self) -> bool:
        return False

    def sync_weights(self, **kwargs: Any) -> None:
        """There is nobody to send to."""

    def sync_env_runner_states(self, **kwargs: Any) -> None:
        """There is nobody to send to."""

    def num_remote_env_runners(self) -> int:
        return 0


class ResumableAdvantageNorm:
    """Defect: MARWIL's running mean of squared advantages c² is in no checkpoint, so a restored run weights anew from 100.

    Put this before the Learner.
    """

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        norms = {module_id: float(norm) for module_id, norm in self.moving_avg_sqd_adv_norms_per_module.items()}
        return super().get_state(*args, **kwargs) | {ADVANTAGE_NORMS: norms}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        for module_id, norm in state.get(ADVANTAGE_NORMS, {}).items():
            self.moving_avg_sqd_adv_norms_per_module[module_id] = self._get_tensor_variable(norm)


class SlowCopiesEachGradientStep:
    """Defect: the slow copies of CQL, IQL (and SAC, DQN) move once per `update()` call, however many gradient steps it took.

    With 500 of them the copies stand still for 499. Put this before the Learner of a `QModule`. Near it, and mended by
    where our modules keep what they learn (`rlplatform/models/q_module.py`) or by our own losses:

    - CQL compares `bc_iters` with a count that starts anew in each call: it clones for ever. Ours is a buffer of the module.
    - CQL's entropy temperature is in no checkpoint. Ours is a parameter of the module.
    - CQL values the proposals from π(s') at s'; the integral it estimates is over actions at s. Ours are valued at s.
    - IQL inherits MARWIL's check β ≤ 1. Ours has no such check.
    """

    def apply_gradients(self, gradients_dict: dict[Any, Any]) -> None:
        super().apply_gradients(gradients_dict)
        self._module_alone.after_gradient_step(self.settings["tau"])
