"""Ensemble: several policies that decide as one. Loads without Ray and without pickle, as each of them does."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.errors import ConfigError
from rlplatform.files import replaced_directory, write_json
from rlplatform.models.distributions import ActionDistribution, Categorical, LogisticNormal, MappedNormal
from rlplatform.models.heads import ActionHead
from rlplatform.models.policy import ENSEMBLE_DIRECTORY, Policy

Array = np.ndarray

FORMAT = 1
DESCRIPTION = "ensemble.json"


class Ensemble:
    """The mean of K policies' decisions; each reads the observation through its own normalizer and has its own memory.

    Weights: the mean of the members' modal target weights. A simplex with leverage holds ℓ w, so there

        ℓ = mean(ℓₖ),    w = Σₖ ℓₖ wₖ / Σₖ ℓₖ

    Numbered actions: the mean of the members' probabilities, of which the likeliest is preferred. A sample of weights is
    drawn around their mean with σ the geometric mean of the members' σ, in the coordinates of `models/distributions.py`.

    Attributes:
        members: K policies.
        normalizer: None, for each member has its own.
    """

    normalizer = None

    def __init__(self, members: Sequence[Policy]) -> None:
        self.members = tuple(members)
        if len(self.members) < 2:
            raise ConfigError(f"an ensemble of {len(self.members)} policies; expected at least 2.")
        first = self.members[0]
        for number, member in enumerate(self.members[1:], start=1):
            for name in ("env_id", "obs_size", "head"):
                ours, theirs = (getattr(each, name) for each in (first, member))
                if name == "head":  # modes are a member's own affair
                    ours, theirs = ours.plain, theirs.plain
                if ours != theirs:
                    raise ConfigError(
                        f"member {number} of the ensemble has {name} {theirs}; member 0 has {ours}. "
                        "Only policies that see and do the same can decide as one."
                    )
        self._sizes = [member.actor_critic.state_size for member in self.members]

    @property
    def env_id(self) -> str:
        return self.members[0].env_id

    @property
    def obs_size(self) -> int:
        return self.members[0].obs_size

    @property
    def head(self) -> ActionHead:
        return self.members[0].head.plain

    @property
    def num_parameters(self) -> int:
        return sum(member.num_parameters for member in self.members)

    def initial_state(self, batch_size: int) -> Tensor:
        """(B, S) the members' recurrent states side by side."""
        return torch.cat([member.initial_state(batch_size) for member in self.members], -1)

    def distribution(self, obs: Array, state: Tensor) -> tuple[ActionDistribution, Tensor, Tensor]:
        """As `Policy.distribution`; its mode is the mean decision, the value the mean of the members' values.

        Raises:
            ShapeError: obs is not (B, D).
        """
        parts = zip(self.members, state.split(self._sizes, -1), strict=True)
        laws, states, values = zip(*(member.distribution(obs, own) for member, own in parts), strict=True)
        return mean_law(self.head, [law.plain() for law in laws]), torch.cat(states, -1), torch.stack(values).mean(0)

    @torch.no_grad()
    def act(
        self, obs: Array, state: Tensor, deterministic: bool = True, generator: torch.Generator | None = None
    ) -> tuple[Array, Tensor, dict[str, Array]]:
        """As `Policy.act`."""
        law, state, value = self.distribution(obs, state)
        action = law.mode() if deterministic else law.sample(generator)
        return action.numpy(), state, {"entropy": law.entropy().numpy(), "value": value.numpy()}

    def describe(self) -> dict[str, Any]:
        """All but the arrays, as plain values."""
        return {"format": FORMAT, "env_id": self.env_id, "members": [member.describe() for member in self.members]}

    def save(self, directory: str | os.PathLike) -> Path:
        """Write members/0 … K − 1, each as `Policy.save` does, and members/ensemble.json; the whole by one rename."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        with replaced_directory(directory / ENSEMBLE_DIRECTORY) as draft:
            for number, member in enumerate(self.members):
                member.save(draft / str(number))
            write_json(draft / DESCRIPTION, self.describe())
        return directory

    @classmethod
    def load(cls, directory: str | os.PathLike) -> Ensemble:
        """The ensemble that `save` wrote there.

        Raises:
            ConfigError: none there, or one that is damaged or of another format.
        """
        place = Path(directory) / ENSEMBLE_DIRECTORY
        path = place / DESCRIPTION
        if not path.is_file():
            raise ConfigError(f"{path} does not exist. Make the ensemble again: rlplatform ensemble RUN_DIR RUN_DIR …")
        try:
            description = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{path} is damaged: {error}. Make the ensemble again from its runs.") from error
        if description.get("format") != FORMAT:
            raise ConfigError(f"{path} has ensemble format {description.get('format')}; this version reads {FORMAT}.")
        return cls([Policy.load(place / str(number)) for number in range(len(description["members"]))])


def load_policy(directory: str | os.PathLike) -> Policy | Ensemble:
    """What decides in a run's policy directory: one network, or an ensemble.

    Raises:
        ConfigError: nothing there, or something that is damaged.
    """
    return Ensemble.load(directory) if (Path(directory) / ENSEMBLE_DIRECTORY).is_dir() else Policy.load(directory)


def mean_law(head: ActionHead, laws: Sequence[ActionDistribution]) -> ActionDistribution:
    """The law of K members together, of their own family, see `Ensemble`. Independent of their order.

    Args:
        head: of the action space.
        laws: K distributions of B actions each.
    """
    if isinstance(laws[0], Categorical):
        mean = torch.stack([law.log_probs.exp() for law in laws]).double().mean(0)
        return head.distribution(mean.clamp_min(torch.finfo(torch.float32).tiny).log().float())
    mean = laws[0].to_normal(_mean_weights(laws))
    log_std = torch.stack([law.log_std.expand_as(law.mean) for law in laws]).double().mean(0).float()
    return head.distribution(torch.cat([mean, log_std], -1))


def _mean_weights(laws: Sequence[MappedNormal]) -> Tensor:
    modes = torch.stack([law.mode() for law in laws]).double()
    if not (isinstance(laws[0], LogisticNormal) and laws[0].leverage):
        return modes.mean(0).float()
    level = modes[..., -1:].clamp_min(torch.finfo(torch.float32).tiny)  # of all zeros the weights' mean must stay one
    weights = (modes[..., :-1] * level).sum(0) / level.sum(0)
    return torch.cat([weights, level.mean(0)], -1).float()
