"""VectorEnvRunner: RLlib's runner without episode objects and per-step connectors."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.env_runner import NUM_ENV_STEP_FAILURES_LIFETIME
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.metrics import EPISODE_LEN_MEAN, EPISODE_RETURN_MEAN
from ray.tune.registry import ENV_CREATOR, _global_registry
from torch import Tensor

from envs.trading_env import TradingVectorEnv
from rlplatform.algorithms.callbacks import EPISODE
from rlplatform.algorithms.connectors import NormalizeObservations
from rlplatform.algorithms.exploration import EXPLORATION, drawdown_entry
from rlplatform.algorithms.process_random import random_state, set_random_state
from rlplatform.algorithms.rollout import Rollout, critic_columns, following, segment_length
from rlplatform.algorithms.sampling_state import episodes_of, like, on_host, table_of
from rlplatform.models.actor_critic import ActorCriticOutput
from rlplatform.models.distributions import ActionDistribution

logger = logging.getLogger(__name__)


class EnvStepFailed(Exception):
    """An environment raised; the cause says what."""


class VectorEnvRunner(SingleAgentEnvRunner):
    """Steps B environments with one batched forward a step and returns one `Rollout`.

    Chosen by `config.env_runners(env_runner_cls=VectorEnvRunner)`; local or remote, weight sync, restarts, evaluation and
    checkpoints are inherited. Environments autoreset SAME_STEP. The recurrent state lives on between calls. Observation
    statistics move after a call, and in the very first one before each step, so that the learner and the policy see the same
    numbers. RLlib's callbacks on episodes and samples are not called: there are no episodes.
    """

    def make_env(self) -> None:
        if self.env is not None:
            self.env.close()
        self.num_envs = self.config.num_envs_per_env_runner
        self.env = _make_vector_env(self.config.env, self._env_settings(), self.num_envs)
        explores = EXPLORATION in self.config.learner_config_dict
        self._drawdown_entry = drawdown_entry(self.env) if explores else None
        self._needs_initial_reset = True
        self._times_made = getattr(self, "_times_made", 0) + 1

    def _env_settings(self) -> dict[str, Any]:
        return dict(EnvContext(self.config.env_config, worker_index=self.worker_index, num_workers=self.num_workers))

    def make_module(self) -> None:
        super().make_module()
        self._window = max(1, -(-self.config.metrics_num_episodes_for_smoothing // (self.config.num_env_runners or 1)))
        self._ended: deque[dict[str, float]] = deque(maxlen=self._window)
        self._num_ended = 0
        self._must_reset = False

    def sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool | None = None,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[Rollout]:
        """One rollout of `num_timesteps` (rounded up to whole steps of all environments), or until `num_episodes` ended."""
        explore = self.config.explore if explore is None else explore
        stagger = explore and num_episodes is None
        if self._needs_initial_reset or self._must_reset or force_reset or num_episodes is not None:
            self._reset(stagger)
        ended_before = self._num_ended
        if num_episodes is None:
            wanted = num_timesteps or self._fragment * self.num_envs
            rollouts = [self._roll_or_restart(-(-wanted // self.num_envs), explore, random_actions, stagger)]
        else:
            rollouts, self._ended = [], deque()  # an evaluation is the mean of all its episodes
            while self._num_ended - ended_before < num_episodes:
                rollouts.append(self._roll_or_restart(self._fragment, explore, random_actions, stagger))
            self._must_reset = True  # training does not go on with what an evaluation left behind
        steps = sum(map(len, rollouts))
        self._log_env_steps(metric=self._metrics_num_env_steps_sampled, num_steps=steps)
        self._increase_sampled_metrics(steps, self._num_ended - ended_before)
        return rollouts

    def sampling_state(self) -> dict[str, Any] | None:
        """All that the next rollout depends on and RLlib does not save, as arrays and plain values.

        Accounts, observations, recurrent state, the statistics as this runner added them up, the window of ended episodes, and
        the process's random numbers. None before the first rollout, and with environments other than ours.
        """
        if self._needs_initial_reset or not isinstance(self.env, TradingVectorEnv):
            return None
        normalizer = self._normalizer()
        return {
            "env": self.env.state(),
            **{name: on_host(getattr(self, f"_{name}")) for name in _BETWEEN_ROLLOUTS},
            "ended": table_of(self._ended),
            "counts": {"ended": self._num_ended, "made": self._times_made, "must_reset": self._must_reset},
            "normalizer": None if normalizer is None else normalizer.exact_state(),
            "random": random_state(),
        }

    def set_sampling_state(self, state: dict[str, Any]) -> None:
        """Go on as the runner whose `sampling_state()` this was, to the bit.

        Raises:
            ShapeError: its environments had other settings.
        """
        self._reset(stagger=False)
        self.env.set_state(state["env"])
        for name in _BETWEEN_ROLLOUTS:
            setattr(self, f"_{name}", like(getattr(self, f"_{name}"), state[name]))
        self._ended = deque(episodes_of(state["ended"]), maxlen=self._window)
        counts = state["counts"]
        self._num_ended, self._times_made, self._must_reset = counts["ended"], counts["made"], counts["must_reset"]
        if state["normalizer"] is not None and self._normalizer() is not None:
            self._normalizer().set_exact_state(state["normalizer"])
        set_random_state(state["random"])

    @property
    def _fragment(self) -> int:
        return self.config.get_rollout_fragment_length(self.worker_index)

    def _reset(self, stagger: bool) -> None:
        seed = self._env_seed() if self._needs_initial_reset else None
        # Episodes of one length that begin together would end together for ever: spread the first ends.
        options = {"stagger": True} if stagger else None
        self._obs, _ = self.env.reset(seed=seed, options=options)
        if seed is not None:
            self.env.single_action_space.seed(seed)
        self._first = torch.ones(self.num_envs, dtype=torch.bool)
        self._state = self.module.actor_critic.initial_state(self.num_envs)
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, dtype=np.int64)
        self._ended = deque(maxlen=self._window)
        self._needs_initial_reset = self._must_reset = False

    def _env_seed(self) -> int | None:
        """One for each runner, for training and evaluation, and for environments made anew after a failure."""
        if self.config.seed is None:
            return None
        origin = [self.config.seed, self.worker_index or 0, int(self.config.in_evaluation), self._times_made]
        return int(np.random.SeedSequence(origin).generate_state(1)[0])

    def _roll_or_restart(self, steps: int, explore: bool, random_actions: bool, stagger: bool) -> Rollout:
        """A rollout. Where an environment fails it is lost, and begins again in new environments if the config says so."""
        while True:
            try:
                return self._roll(steps, explore, random_actions)
            except EnvStepFailed as failure:
                self._must_reset = True
                self.metrics.log_value(NUM_ENV_STEP_FAILURES_LIFETIME, 1, reduce="lifetime_sum")
                if not self.config.restart_failed_sub_environments:
                    raise failure.__cause__ from None
                logger.exception("An environment failed; all of this runner are made anew and the rollout begins again.")
                self.make_env()
                self._reset(stagger)

    @torch.no_grad()  # not inference_mode: its tensors may not be saved for the learner's backward pass
    def _roll(self, steps: int, explore: bool, random_actions: bool) -> Rollout:
        network, normalizer = self.module.actor_critic, self._normalizer()
        learn = explore and normalizer is not None
        warm_up = learn and normalizer.count == 0
        length = segment_length(steps, network.config.sequence_length)
        columns: dict[str, list[Tensor]] = {name: [] for name in _STEP_COLUMNS}
        if self._drawdown_entry is not None:
            columns["drawdown"] = []
        if network.config.critic is not None:
            columns["quantiles"] = []
        states, raw, cut = [], [], []
        for t in range(steps):
            if t % length == 0:
                states.append(self._state)
            if warm_up:
                normalizer.learn(self._obs)
            elif learn:
                raw.append(self._obs)
            if self._drawdown_entry is not None:
                columns["drawdown"].append(torch.from_numpy(self._obs[:, self._drawdown_entry]))
            obs = _normalized(self._obs, normalizer)
            out, distribution, actions = self._act(obs, explore, random_actions)
            self._obs, reward, terminated, truncated, infos = self._step(actions.numpy())
            done = terminated | truncated
            columns["obs"].append(obs)
            columns["first"].append(self._first)
            columns["actions"].append(actions)
            columns["params"].append(out.params)
            columns["log_prob"].append(distribution.log_prob(actions))
            for name in critic_columns(network):
                columns[name].append(getattr(out, name))
            columns["reward"].append(torch.from_numpy(reward.astype(np.float32)))
            columns["done"].append(torch.from_numpy(done))
            self._first, self._state = columns["done"][-1], out.state
            rows = np.flatnonzero(truncated & ~terminated)
            if len(rows):
                final_obs = _normalized(np.stack(list(infos["final_obs"][rows])), normalizer)
                cut.append((t, torch.from_numpy(rows), final_obs, out.state[rows]))
            self._count(reward, done, infos)
        after = network(_normalized(self._obs, normalizer), self._state, self._first)
        last = self._last_outputs(cut, steps)
        if raw:
            normalizer.learn(np.concatenate(raw))
        return _rollout(columns, after, last, torch.stack(states))

    def _act(self, obs: Tensor, explore: bool, random_actions: bool) -> tuple[ActorCriticOutput, ActionDistribution, Tensor]:
        """What the network says of (B, D), the distribution it means, and the actions taken."""
        network = self.module.actor_critic
        out = network(obs, self._state, self._first)
        distribution = network.head.distribution(out.params)
        if random_actions:
            return out, distribution, self._random_actions().to(obs.device)
        return out, distribution, distribution.sample() if explore else distribution.mode()

    def _step(self, actions: np.ndarray) -> tuple:
        try:
            return self.env.step(actions)
        except Exception as error:
            raise EnvStepFailed from error

    def _random_actions(self) -> Tensor:
        # One by one: gymnasium's batch of a Simplex is a plain Box, which knows nothing of sums.
        return torch.as_tensor(np.stack([self.env.single_action_space.sample() for _ in range(self.num_envs)]))

    def _last_outputs(self, cut: list[tuple[int, Tensor, Tensor, Tensor]], steps: int) -> dict[str, Tensor]:
        """(T, B, …) what the critic says of the last observation of truncated episodes, 0 elsewhere.

        Args:
            cut: step, rows, observations and states.
        """
        network = self.module.actor_critic
        sizes = {"value": (), "quantiles": (0 if network.config.critic is None else network.config.critic.quantiles,)}
        last = {name: torch.zeros(steps, self.num_envs, *sizes[name]) for name in critic_columns(network)}
        if cut:
            at, rows, obs, states = zip(*cut, strict=True)
            step = torch.repeat_interleave(torch.tensor(at), torch.tensor([len(r) for r in rows]))
            out = network(torch.cat(obs), torch.cat(states))
            for name, values in last.items():
                values[step, torch.cat(rows)] = getattr(out, name)
        return last

    def _count(self, reward, done, infos: dict[str, Any]) -> None:
        self._returns += reward
        self._lengths += 1
        terms = infos.get("final_info", infos).get(EPISODE, {})  # gymnasium's own vector envs nest the last info
        terms = {name: values for name, values in terms.items() if not name.startswith("_")}  # and mask each entry
        for row in np.flatnonzero(done):
            summary = {name: float(values[row]) for name, values in terms.items()}
            self._ended.append({**summary, EPISODE_RETURN_MEAN: self._returns[row], EPISODE_LEN_MEAN: self._lengths[row]})
            self._num_ended += 1
        self._returns[done] = 0.0
        self._lengths[done] = 0

    def _normalizer(self) -> NormalizeObservations | None:
        found = self._env_to_module[NormalizeObservations]
        return found[0] if found else None

    def get_metrics(self) -> dict[str, Any]:
        """Means over the last episodes that ended, whenever that was."""
        for name in {name: None for episode in self._ended for name in episode}:
            key = name if name in (EPISODE_RETURN_MEAN, EPISODE_LEN_MEAN) else (EPISODE, name)
            values = [episode[name] for episode in self._ended if name in episode]
            self.metrics.log_value(key, float(np.mean(values)), window=1)
        return self.metrics.reduce()


_STEP_COLUMNS = ("obs", "first", "actions", "params", "log_prob", "value", "reward", "done")
_BETWEEN_ROLLOUTS = ("obs", "first", "state", "returns", "lengths")  # attributes, without their underscore


def _rollout(columns: dict[str, list[Tensor]], after: ActorCriticOutput, last: dict[str, Tensor], states: Tensor) -> Rollout:
    stacked = {name: torch.stack(rows) for name, rows in columns.items()}
    return Rollout(**stacked, **following(stacked, after, last), states=states)


def _normalized(obs: np.ndarray, normalizer: NormalizeObservations | None) -> Tensor:
    if normalizer is not None:
        obs = normalizer.normalized(obs)
    return torch.from_numpy(np.asarray(obs, dtype=np.float32))


def _make_vector_env(name: str, settings: dict[str, Any], num_envs: int) -> gym.vector.VectorEnv:
    """What the registered creator makes; a creator of single environments is put into a SyncVectorEnv."""
    creator = _global_registry.get(ENV_CREATOR, name)
    env = creator({**settings, "num_envs": num_envs, "autoreset_mode": "same_step"})
    if isinstance(env, gym.vector.VectorEnv):
        return env
    return SyncVectorEnv([lambda: creator(settings)] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)
