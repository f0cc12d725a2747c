"""Validation: an episode from a file against what the dataset says it is. Nothing passes that training would choke on."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np

from envs.spaces import Simplex
from rlplatform.offline.columns import column
from rlplatform.offline.errors import DatasetError
from rlplatform.offline.manifest import DatasetManifest
from rlplatform.offline.raw_episode import RawEpisode

Array = np.ndarray

SUM_TOLERANCE = 1e-4  # float32 weights of hundreds of assets sum to one within this
BOUND_TOLERANCE = 1e-6
KINDS = {"number": "iuf", "whole number": "iu", "truth value": "b"}


class EpisodeCheck:
    """Checks the episodes of one dataset; made once, for the space is not read from the manifest each time."""

    def __init__(self, manifest: DatasetManifest) -> None:
        self.manifest, self.space = manifest, manifest.space
        self.is_discrete = isinstance(self.space, gym.spaces.Discrete)

    def __call__(self, raw: RawEpisode) -> RawEpisode:
        """The episode with its columns in their own dtypes.

        Raises:
            DatasetError: what is wrong, and at which step of the episode; the caller adds file and line.
        """
        steps, manifest = len(raw), self.manifest
        width = (manifest.obs_size,)
        obs = _column("obs", raw.obs, (steps, *width), "number", np.float32)
        last_obs = _column("new_obs", raw.last_obs[None], (1, *width), "number", np.float32)[0]
        rewards = _column("rewards", raw.rewards, (steps,), "number", np.float32)
        kind, dtype = ("whole number", np.int64) if self.is_discrete else ("number", np.float32)
        actions = _column("actions", raw.actions, (steps, *self.space.shape), kind, dtype)
        self._check_actions(actions)
        self._check_rewards(rewards)
        flags = {name: _column(name, getattr(raw, name), (steps,), "truth value", bool) for name in ("terminated", "truncated")}
        _check_end(flags["terminated"], flags["truncated"])
        return replace(
            raw,
            obs=obs,
            last_obs=last_obs,
            actions=actions,
            rewards=rewards,
            **flags,
            log_prob=self._log_prob(raw, steps),
            extras={name: self._extra(name, raw, steps) for name in manifest.columns},
        )

    def _check_actions(self, actions: Array) -> None:
        space = self.space
        low, high = (0, space.n - 1) if self.is_discrete else (space.low - BOUND_TOLERANCE, space.high + BOUND_TOLERANCE)
        outside = ((actions < low) | (actions > high)).reshape(len(actions), -1).any(1)
        if outside.any():
            step = int(outside.argmax())
            raise DatasetError(
                f"actions at step {step} are {actions[step].tolist()}, outside {space}. Were they scaled or unscaled?"
            )
        if isinstance(space, Simplex):
            sums = actions[:, : space.num_weights].sum(1, dtype=np.float64)
            step = int(np.abs(sums - 1).argmax())
            if abs(sums[step] - 1) > SUM_TOLERANCE:
                raise DatasetError(f"actions at step {step} are weights that sum to {sums[step]:g}; expected 1, cash first")

    def _check_rewards(self, rewards: Array) -> None:
        """Outside the range that dataset.json gives, the rewards are of another scale."""
        known = self.manifest.rewards
        if not known:
            return
        slack = 1e-5 * (known["max"] - known["min"]) + 1e-9
        outside = (rewards < known["min"] - slack) | (rewards > known["max"] + slack)
        if outside.any():
            step = int(outside.argmax())
            raise DatasetError(
                f"rewards at step {step} is {rewards[step]:g}; dataset.json says {known['min']:g} to {known['max']:g}. "
                "Another scale (fraction or percent), or other reward weights?"
            )

    def _log_prob(self, raw: RawEpisode, steps: int) -> Array | None:
        if self.manifest.has_log_prob and raw.log_prob is None:
            raise DatasetError("has no column 'action_logp', which dataset.json promises")
        return None if raw.log_prob is None else _column("action_logp", raw.log_prob, (steps,), "number", np.float32)

    def _extra(self, name: str, raw: RawEpisode, steps: int) -> Array:
        if name not in raw.extras:
            raise DatasetError(f"has no column {name!r}, which dataset.json promises")
        known = column(name)
        values = np.asarray(raw.extras[name])
        shape = (steps, *values.shape[1:])
        if known.per_asset and values.ndim != 2:
            raise DatasetError(f"column {name!r} has shape {values.shape}; expected (steps, assets)")
        values = _column(name, values, shape, "number", np.dtype(known.dtype))
        slack = BOUND_TOLERANCE * max(1.0, *(abs(b) for b in (known.lowest, known.highest) if np.isfinite(b)), 0.0)
        outside = (values < known.lowest - slack) | (values > known.highest + slack)
        if outside.any():
            step = int(outside.reshape(steps, -1).any(1).argmax())
            raise DatasetError(
                f"{name} at step {step} is {values[step].tolist()} [{known.unit}]; "
                f"expected {known.lowest:g} to {known.highest:g}"
            )
        return values


def _column(name: str, values: Array, shape: tuple[int, ...], kind: str, dtype: np.dtype | type) -> Array:
    values = np.asarray(values)
    if values.shape != shape:
        raise DatasetError(f"column {name!r} has shape {values.shape}; expected {shape}")
    if values.dtype.kind not in KINDS[kind]:
        raise DatasetError(f"column {name!r} is {values.dtype}; expected a {kind} in each row")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        step = int((~np.isfinite(values)).reshape(len(values), -1).any(1).argmax())
        raise DatasetError(f"column {name!r} at step {step} is NaN or infinite. Drop the episode, or mend its source")
    return values.astype(dtype)


def _check_end(terminated: Array, truncated: Array) -> None:
    ended = terminated.astype(int) + truncated
    if ended[-1] != 1:
        found = "neither terminateds nor truncateds" if ended[-1] == 0 else "both terminateds and truncateds"
        raise DatasetError(f"ends with {found} set; expected one complete episode, of which exactly one holds at its last step")
    if ended[:-1].any():
        raise DatasetError(f"ends at step {int(ended.argmax())} and goes on; expected one episode")
