"""Collecting: B accounts follow a behaviour through complete episodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from envs.trading_env import TradingVectorEnv
from rlplatform.offline.behaviour import Behaviour
from rlplatform.offline.columns import RECORDED, ColumnRecorder
from rlplatform.offline.episodes import Episodes

Array = np.ndarray


def collect(
    env: TradingVectorEnv,
    behaviour: Behaviour,
    seed: Sequence[int],
    columns: Sequence[str] = RECORDED,
    start_rows: Array | None = None,
) -> Episodes:
    """One complete episode of every account of `env`, all in step.

    Args:
        env: B accounts on numpy; its own state is reset.
        behaviour: made for the env's task.
        seed: entropy of start rows and actions; the same seed gives the same episodes.
        columns: extras to record, see `columns.py`.
        start_rows: (B,) first decisions; drawn as the env's config says if not given.
    """
    rows_seed, actions_seed = np.random.SeedSequence(seed).generate_state(2)
    generator = torch.Generator().manual_seed(int(actions_seed))
    obs, _ = env.reset(seed=int(rows_seed), options=None if start_rows is None else {"start_row": start_rows})
    accounts, recorder = env.accounts, ColumnRecorder(env.task.tape, columns)
    behaviour.begin(env.num_envs)
    first_rows = accounts.row
    steps: list[dict[str, Array]] = []
    lengths = np.zeros(env.num_envs, np.int64)
    last_obs, terminated = np.empty_like(obs), np.zeros(env.num_envs, bool)
    running = np.ones(env.num_envs, bool)
    while running.any():
        extras = recorder.before(accounts)
        actions, log_prob = behaviour.act(accounts.row, obs, generator)
        record = accounts.advance(actions)
        following = accounts.observe()
        extras |= recorder.after(record, accounts)
        steps.append({"obs": obs, "actions": actions, "rewards": np.float32(record.reward), "log_prob": log_prob, **extras})
        ended = running & (record.terminated | record.truncated)
        lengths += running
        last_obs[ended], terminated[ended] = following[ended], record.terminated[ended]
        running &= ~ended
        if ended.any() and running.any():
            # An account that ended early goes on from its first row, inside the tape; nothing of it is kept.
            accounts.reset(~running, first_rows)
            following = accounts.observe()
        obs = following
    return _episodes(steps, lengths, last_obs, terminated, recorder.names)


def _episodes(
    steps: list[dict[str, Array]], lengths: Array, last_obs: Array, terminated: Array, columns: Sequence[str]
) -> Episodes:
    """Time-major steps, (B, …) each, cut to every account's own length and laid end to end."""
    inside = np.arange(len(steps)) < lengths[:, None]

    def flat(name: str) -> Array:
        return np.stack([step[name] for step in steps], axis=1)[inside]

    return Episodes(
        lengths=lengths,
        last_obs=last_obs,
        terminated=terminated,
        **{name: flat(name) for name in ("obs", "actions", "rewards", "log_prob")},
        extras={name: flat(name) for name in columns},
    )
