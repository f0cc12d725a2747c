"""PPO's Learner, with what RLlib forgets in a checkpoint."""

from __future__ import annotations

from typing import Any

from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.rllib.utils.numpy import convert_to_numpy

KL_COEFFS = "kl_coeffs"


class ResumablePPOLearner(PPOTorchLearner):
    """Stock PPO, whose adaptive KL coefficient and entropy schedule survive a restore.

    RLlib 2.60 saves neither: the coefficient would return to its first value, and the first update after a restore would
    use the entropy coefficient of step 0.
    """

    def before_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        super().before_gradient_based_update(timesteps=timesteps)
        steps = timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0)
        for module_id in self.module.keys():  # noqa: SIM118 (a MultiRLModule, not a mapping)
            self.entropy_coeff_schedulers_per_module[module_id].update(timestep=steps)

    def get_state(self, *args, **kwargs) -> dict[str, Any]:
        state = super().get_state(*args, **kwargs)
        state[KL_COEFFS] = {
            module_id: float(convert_to_numpy(coeff)) for module_id, coeff in self.curr_kl_coeffs_per_module.items()
        }
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        for module_id, coeff in state.get(KL_COEFFS, {}).items():
            self.curr_kl_coeffs_per_module[module_id].data.fill_(coeff)
