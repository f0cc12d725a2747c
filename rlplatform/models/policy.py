"""Policy: what training leaves behind and judging needs. Loads without Ray and without pickle."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from envs.errors import ConfigError, ShapeError
from envs.normalizer import ObservationNormalizer
from rlplatform.files import replaced_file, write_text
from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.config import ModelConfig, model_config_dict, model_config_from
from rlplatform.models.distributions import ActionDistribution
from rlplatform.models.heads import ActionHead, head_from

Array = np.ndarray

FORMAT = 1
WEIGHTS_FILE, CONFIG_FILE = "policy.safetensors", "policy.json"
ENSEMBLE_DIRECTORY = "members"  # of a policy directory in which several policies decide together
_NETWORK, _NORMALIZER = "actor_critic.", "normalizer."


class Policy:
    """A network and the frozen normalizer of its observations.

    Attributes:
        actor_critic: the network, in evaluation mode on the CPU.
        normalizer: frozen statistics of training, or None when observations go in as they are.
        env_id: the environment it was trained for, such as "Portfolio-v0".
    """

    def __init__(self, actor_critic: ActorCritic, normalizer: ObservationNormalizer | None, env_id: str) -> None:
        self.actor_critic = actor_critic.cpu().eval()
        self.normalizer = None if normalizer is None else normalizer.copy().freeze()
        self.env_id = env_id

    @property
    def config(self) -> ModelConfig:
        return self.actor_critic.config

    @property
    def head(self) -> ActionHead:
        return self.actor_critic.head

    @property
    def mode_names(self) -> tuple[str, ...]:
        """Of the modes among which its gate chooses; empty without a gate."""
        return self.head.mode_names

    @property
    def obs_size(self) -> int:
        return self.actor_critic.obs_size

    def initial_state(self, batch_size: int) -> torch.Tensor:
        """The recurrent state at the start of B episodes; pass it to `act` and keep what comes back."""
        return self.actor_critic.initial_state(batch_size)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.actor_critic.parameters())

    @torch.no_grad()
    def distribution(self, obs: Array, state: torch.Tensor) -> tuple[ActionDistribution, torch.Tensor, torch.Tensor]:
        """Of B accounts' actions, with the next state and the values (B,). Args as `act`.

        Raises:
            ShapeError: obs is not (B, D).
        """
        if obs.ndim != 2 or obs.shape[1] != self.obs_size:
            raise ShapeError(f"Policy.act got observations of shape {obs.shape}; expected (B, {self.obs_size}).")
        obs = obs if self.normalizer is None else self.normalizer.normalize(obs)
        out = self.actor_critic(torch.from_numpy(np.ascontiguousarray(obs, dtype=np.float32)), state)
        return self.head.distribution(out.params), out.state, out.value

    @torch.no_grad()
    def act(
        self,
        obs: Array,
        state: torch.Tensor,
        deterministic: bool = True,
        generator: torch.Generator | None = None,
    ) -> tuple[Array, torch.Tensor, dict[str, Array]]:
        """Decide for B accounts.

        Args:
            obs: (B, D) as the environment gives them, not normalised.
            state: from `initial_state` or the last call.
            deterministic: the mode of the distribution; else a sample.
            generator: of the samples; torch's global one if not given.

        Returns:
            Actions (B, ...), the next state, and `{"entropy": (B,) [nats], "value": (B,)}`; of a policy with modes also
            `"gate"` (B, M), the probability of each. Without a sample the most probable one acts.

        Raises:
            ShapeError: obs is not (B, D).
        """
        distribution, state, value = self.distribution(obs, state)
        action = distribution.mode() if deterministic else distribution.sample(generator)
        gate = {} if distribution.mode_probs is None else {"gate": distribution.mode_probs.numpy()}
        return action.numpy(), state, {"entropy": distribution.entropy().numpy(), "value": value.numpy(), **gate}

    def describe(self) -> dict[str, Any]:
        """All but the arrays, as plain values."""
        return {
            "format": FORMAT,
            "env_id": self.env_id,
            "obs_size": self.obs_size,
            "action_head": self.head.plain.describe(),  # its modes are the model's
            "model": model_config_dict(self.config),
            "normalizer": None if self.normalizer is None else _settings(self.normalizer),
        }

    def save(self, directory: str | os.PathLike) -> Path:
        """Write policy.safetensors, then policy.json, each by rename.

        The description also sits in the header of policy.safetensors, and loading reads it there: weights and config
        are one file, so an interrupted save leaves the policy before it whole. policy.json is its copy for readers.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.describe(), indent=2, sort_keys=True)
        tensors = {_NETWORK + name: tensor.contiguous() for name, tensor in self.actor_critic.state_dict().items()}
        if self.normalizer is not None:
            tensors[_NORMALIZER + "mean"] = torch.from_numpy(self.normalizer.mean)
            tensors[_NORMALIZER + "m2"] = torch.from_numpy(self.normalizer.m2)
        with replaced_file(directory / WEIGHTS_FILE) as draft:
            save_file(tensors, draft, metadata={"policy": text})
        write_text(directory / CONFIG_FILE, text + "\n")
        return directory

    @classmethod
    def load(cls, directory: str | os.PathLike) -> Policy:
        """The policy that `save` wrote there.

        Raises:
            ConfigError: no policy there, an ensemble of several, or one that is damaged or of another format.
        """
        path = Path(directory) / WEIGHTS_FILE
        if (Path(directory) / ENSEMBLE_DIRECTORY).is_dir():
            raise ConfigError(
                f"{directory} holds an ensemble; one network is expected here. Distil it into one first: docs/ENSEMBLES.md."
            )
        if not path.is_file():
            raise ConfigError(
                f"{path} does not exist. Give the directory that holds {WEIGHTS_FILE}, such as results/<run>/policy."
            )
        description, tensors = _read(path)
        config = model_config_from(description["model"], imports=False)
        network = ActorCritic(config, description["obs_size"], head_from(description["action_head"]))
        weights = {name.removeprefix(_NETWORK): t for name, t in tensors.items() if name.startswith(_NETWORK)}
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise ConfigError(f"{path}: weights do not fit the model that the file describes: {error}") from error
        return cls(network, _normalizer(description, tensors), description["env_id"])


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("policy")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        description = json.loads(text or "{}")
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path} is damaged: {error}. Save the policy again from its checkpoint.") from error
    if description.get("format") != FORMAT:
        raise ConfigError(f"{path} has policy format {description.get('format')}; this version reads {FORMAT}.")
    return description, tensors


def _settings(normalizer: ObservationNormalizer) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in normalizer.settings().items()}


def _normalizer(description: dict[str, Any], tensors: dict[str, torch.Tensor]) -> ObservationNormalizer | None:
    settings = description["normalizer"]
    if settings is None:
        return None
    moments = {name: tensors[_NORMALIZER + name].numpy() for name in ("mean", "m2")}
    return ObservationNormalizer.from_state({**settings, **moments})
