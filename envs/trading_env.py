"""The Gymnasium faces of `Accounts`: `TradingEnv` is one account, `TradingVectorEnv` is any number."""

from __future__ import annotations

from math import isfinite
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from envs.accounts import OBS_LIMIT, Accounts, StepRecord, TradingTask
from envs.backend import Array, Backend
from envs.errors import ConfigError, ShapeError


def observation_space(task: TradingTask) -> Box:
    return Box(-OBS_LIMIT, OBS_LIMIT, shape=(len(task.observation_names),), dtype=np.float32)


def _check_actions(actions: Array, space: gym.Space, num_accounts: int) -> None:
    shape = (num_accounts, *space.shape)
    if tuple(actions.shape) != shape:
        raise ShapeError(f"actions have shape {tuple(actions.shape)}; expected {shape} for {space}.")
    if isinstance(space, Box):
        if not isfinite(actions.sum()):
            raise ShapeError("an action is NaN or infinite; the policy has diverged. Look at its loss and gradients.")
    elif actions.min() < 0 or actions.max() >= space.n:
        found = f"{int(actions.min())} … {int(actions.max())}"
        raise ShapeError(f"an action lies outside {space}: found {found}; expected 0 … {space.n - 1}.")


class TradingEnv(gym.Env):
    """One account. `reset(options={"start_row": r})` fixes the first decision's row."""

    metadata: ClassVar[dict] = {"render_modes": []}

    def __init__(self, task: TradingTask, window: tuple[int, int]) -> None:
        self.task = task
        self.action_space = task.action_space
        self.observation_space = observation_space(task)
        self.accounts = Accounts(task, 1, window, Backend("numpy", "float64"))
        self._everyone = np.ones(1, bool)
        self._ended = True

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self.accounts.reset(self._everyone, _start_rows(self.accounts, self.np_random, 1, options))
        self._ended = False
        return self.accounts.observe()[0], self._market_info()

    def step(self, action):
        if self._ended:
            raise ResetNeeded("step() on an episode that has ended, or has not begun. Call reset() first.")
        actions = np.asarray(action)[None]
        _check_actions(actions, self.action_space, 1)
        record = self.accounts.advance(actions)
        info = self._market_info() | _step_info(record)
        terminated, truncated = bool(record.terminated[0]), bool(record.truncated[0])
        self._ended = terminated or truncated
        if self._ended:
            info["episode"] = {name: float(value[0]) for name, value in self.accounts.summary().items()}
        return self.accounts.observe()[0], float(record.reward[0]), terminated, truncated, info

    def _market_info(self) -> dict[str, Any]:
        return {"date": self.task.tape.dates[self.accounts.row[0]], "wealth": float(self.accounts.wealth[0])}


def _step_info(record: StepRecord) -> dict[str, Any]:
    step = record.step
    info: dict[str, Any] = {
        "weights": step.target[0],
        "turnover": float(step.turnover[0]),
        "cost": float(step.cost[0]),
        "financing": float(step.financing[0]),
        "interest": float(step.interest[0]),
        "borrow_fee": float(step.borrow_fee[0]),
        "portfolio_return": float(step.portfolio_return[0]),
        "reward_terms": {name: float(value[0]) for name, value in record.terms.items()},
    }
    if record.closed_trades is not None:
        info["trade_closed"] = record.closed_trades.closed[0]
        info["trade_profit"] = record.closed_trades.profit[0]
    return info


class Transition(NamedTuple):
    """One step of B accounts as tensors on their device, for a learner that lives there too."""

    obs: Array  # (B, D) after the step, of the next episode where one ended
    reward: Array  # (B,)
    terminated: Array  # (B,) bool
    truncated: Array  # (B,) bool
    final_obs: Array  # (B, D) after the step, before any restart
    summary: dict[str, Array]  # (B,) each; an episode's sums where it ended


def _start_rows(accounts: Accounts, rng: np.random.Generator, count: int, options: dict | None) -> np.ndarray:
    """First decision rows (B,): given by the caller, drawn, or the window's first."""
    latest = accounts.last - accounts.length
    if options and "start_row" in options:
        rows = np.broadcast_to(np.asarray(options["start_row"], dtype=np.int64), count)
        if rows.min() < accounts.first or rows.max() > latest:
            raise ConfigError(f"start_row {rows.min()} … {rows.max()} lies outside [{accounts.first}, {latest}].")
        segment = accounts.task.tape.segment
        crossing = rows[segment[rows] != segment[rows + accounts.length]]
        if len(crossing):
            raise ConfigError(
                f"start_row {crossing[0]}: an episode of {accounts.length} bars would cross into another segment of the tape."
            )
        return rows
    drawn = rng.integers(0, len(accounts.starts), size=count) if accounts.config.episode.random_start else np.zeros(count, int)
    return accounts.starts[accounts.backend.array(drawn, "int64")]


class TradingVectorEnv(gym.vector.VectorEnv):
    """B accounts in one batch, on numpy or torch.

    With autoreset "next_step" (what RLlib's stock runner and gymnasium's default expect) the step after an episode's end
    ignores the action and returns the first observation of the next episode with reward 0. With "same_step" the new
    observation comes at once and the last one stands in `infos["final_obs"]` (B, D). In both, `infos["episode"]` holds the
    ended episodes' sums where `infos["_episode"]` is true. A task that keeps a trade book also gives
    `infos["trade_closed"]` and `infos["trade_profit"]` (B, N) on every step.

    Observations and rewards are numpy arrays, or tensors on `backend.device`.
    """

    def __init__(
        self,
        task: TradingTask,
        window: tuple[int, int],
        num_envs: int,
        backend: Backend | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
    ) -> None:
        if num_envs < 1:
            raise ConfigError(f"num_envs = {num_envs}; expected at least 1.")
        self.task, self.num_envs = task, num_envs
        self.backend = backend or Backend("numpy", "float32")
        self.accounts = Accounts(task, num_envs, window, self.backend)
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        self.metadata = {"autoreset_mode": self.autoreset_mode, "render_modes": []}
        self.single_action_space = task.action_space
        self.single_observation_space = observation_space(task)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._nobody = self.backend.array(np.zeros(num_envs, bool), "bool")
        self._ended = self._nobody
        self._unused = True

    def reset(self, *, seed: int | list[int] | None = None, options: dict | None = None):
        super().reset(seed=seed[0] if isinstance(seed, list) else seed)
        self.accounts.reset(~self._nobody, _start_rows(self.accounts, self.np_random, self.num_envs, options))
        if options and options.get("stagger"):
            self.accounts.shorten(self.np_random.integers(1, self.accounts.length + 1, size=self.num_envs))
        self._ended, self._unused = self._nobody, False
        return self.accounts.observe(), {}

    def step(self, actions):
        if self._unused:
            raise ResetNeeded("step() before the first reset(). Call reset() first.")
        actions = actions.detach() if isinstance(actions, torch.Tensor) else np.asarray(actions)
        _check_actions(actions, self.single_action_space, self.num_envs)
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            return self._step_same(actions)
        return self._step_next(actions)

    def state(self) -> dict[str, Any]:
        """All that the next steps depend on beside settings and tape: accounts, who ended, and the state of the draws."""
        return {
            "accounts": self.accounts.state(),
            "ended": self.backend.numpy(self._ended),
            "unused": self._unused,
            "draws": self.np_random.bit_generator.state,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on as the environment whose `state()` this was, to the bit; made with the same settings on the same tape.

        Raises:
            ShapeError: it had other settings.
        """
        self.accounts.set_state(state["accounts"])
        self._ended = self.backend.array(state["ended"].copy(), "bool")
        self._unused = state["unused"]
        self.np_random.bit_generator.state = state["draws"]

    def advance(self, actions: Array, generator: torch.Generator) -> Transition:
        """`step` in SAME_STEP mode without checks, infos and branches: on a GPU nothing crosses to the host. Torch only.

        Args:
            actions: (B, …) inside the action space, on `backend.device`.
            generator: on the same device; draws the first rows of new episodes.
        """
        record = self.accounts.advance(actions)
        ended = record.terminated | record.truncated
        final_obs, summary = self.accounts.observe(), self.accounts.summary()
        accounts = self.accounts
        many = len(accounts.starts) if accounts.config.episode.random_start else 1
        drawn = torch.randint(0, many, (self.num_envs,), generator=generator, device=self.backend.device)
        accounts.reset(ended, accounts.starts[drawn])
        return Transition(accounts.observe(), record.reward, record.terminated, record.truncated, final_obs, summary)

    def _step_same(self, actions):
        record = self.accounts.advance(actions)
        ended = record.terminated | record.truncated
        infos = _trade_infos(record)
        if bool(ended.any()):
            infos |= self._episode_infos(ended) | {"final_obs": self.accounts.observe(), "_final_obs": ended}
            self._restart(ended)
        return self.accounts.observe(), record.reward, record.terminated, record.truncated, infos

    def _step_next(self, actions):
        restarting = self._ended
        if bool(restarting.any()):
            self._restart(restarting)
            record = self._advance_others(actions, restarting)
        else:
            record = self.accounts.advance(actions)
        self._ended = record.terminated | record.truncated
        infos = _trade_infos(record)
        if bool(self._ended.any()):
            infos |= self._episode_infos(self._ended)
        return self.accounts.observe(), record.reward, record.terminated, record.truncated, infos

    def _advance_others(self, actions, restarting) -> StepRecord:
        """Step everyone, then put the just restarted accounts back on their first row: nothing happened to them."""
        record = self.accounts.advance(actions)
        self.accounts.reset(restarting, self.accounts.end_row - self.accounts.length)
        return record._replace(
            reward=self.backend.select(restarting, 0.0, record.reward),
            terminated=record.terminated & ~restarting,
            truncated=record.truncated & ~restarting,
        )

    def _restart(self, mask) -> None:
        self.accounts.reset(mask, _start_rows(self.accounts, self.np_random, self.num_envs, None))

    def _episode_infos(self, ended) -> dict[str, Any]:
        summary = {name: self.backend.numpy(value) for name, value in self.accounts.summary().items()}
        return {"episode": summary, "_episode": self.backend.numpy(ended)}


def _trade_infos(record: StepRecord) -> dict[str, Any]:
    trades = record.closed_trades
    return {} if trades is None else {"trade_closed": trades.closed, "trade_profit": trades.profit}


def _autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    named = {"next_step": AutoresetMode.NEXT_STEP, "same_step": AutoresetMode.SAME_STEP}
    if isinstance(mode, AutoresetMode) and mode in named.values():
        return mode
    if mode in named:
        return named[mode]
    raise ConfigError(f"autoreset_mode = {mode!r}; expected 'next_step' or 'same_step'.")
