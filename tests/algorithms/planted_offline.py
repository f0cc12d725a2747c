"""Datasets of known behaviour policies on the planted momentum market, and what a policy earns on unseen rows of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from envs.backend import Backend
from envs.catalog import make_vec
from envs.portfolio import PortfolioConfig
from envs.rewards import RewardConfig
from envs.terms import CostConfig
from rlplatform.data import SyntheticConfig, make_market
from rlplatform.features import FeatureBuilder, FeatureConfig
from rlplatform.models.policy import Policy
from rlplatform.offline.episodes import Episodes, joined
from tests.algorithms.planted_data import traded

LENGTH = 128
Act = Callable[[np.ndarray], np.ndarray]  # observations (B, D) → actions (B, 2)


@dataclass(frozen=True)
class Behaviour:
    """Weight of the asset 1 / (1 + exp(−y)), y ~ N(tilt × last return [standard deviations], noise²)."""

    tilt: float
    noise: float = 0.7

    def actor(self, seed: int) -> Act:
        rng = np.random.default_rng(seed)

        def act(obs: np.ndarray) -> np.ndarray:
            weight = 1 / (1 + np.exp(-self.tilt * obs[:, 0] - self.noise * rng.standard_normal(len(obs))))
            return np.stack([1 - weight, weight], -1).astype(np.float32)

        return act


class PlantedMomentum:
    """The optimum is all in after a rise and all out after a fall; a policy's share of it is known on rows never seen."""

    def __init__(self, bars: int = 20_000, train_bars: int = 12_000) -> None:
        market = make_market(SyntheticConfig(market="momentum", bars=bars))
        cube = FeatureBuilder(FeatureConfig(groups=("returns",), return_windows=(1,))).build(market.prices)
        days = [str(day)[:10] for day in market.prices.dates]
        self.train, self.test = (days[30], days[train_bars]), (days[train_bars + 1], days[-1])
        self.tape = cube.scaled(cube.fit_scaler(train_end=self.train[1], train_start=self.train[0])).to_tape()
        self.optimum = float(market.realised_log_growth()[train_bars + 1 :].sum())
        self.config = PortfolioConfig(
            costs=CostConfig(proportional_bps=0), reward=RewardConfig(excess_log_growth=1.0), observe_forecasts=False
        )

    def collect(self, behaviour: Behaviour, episodes: int, seed: int = 0) -> Episodes:
        """Windows of the training rows, traded by `behaviour`."""
        config = replace(self.config, episode=replace(self.config.episode, length_bars=LENGTH))
        env = self._env(config, episodes, self.train)
        self.action_space = env.single_action_space
        return traded(env, behaviour.actor(seed), seed)

    def mixture(self, behaviours: list[Behaviour], episodes: int, seed: int = 0) -> Episodes:
        return joined([self.collect(b, episodes, seed + i) for i, b in enumerate(behaviours)])

    def share(self, act: Act, accounts: int = 16) -> float:
        """Log growth on the test rows, mean over accounts, as a share of the optimum's."""
        config = replace(self.config, episode=replace(self.config.episode, length_bars=None, random_start=False))
        env = self._env(config, accounts, self.test)
        obs, _ = env.reset(seed=0)
        ended = False
        while not ended:
            obs, _, _, truncated, infos = env.step(act(obs))
            ended = bool(truncated.any())
        return float(np.mean(np.log1p(infos["episode"]["total_return"]))) / self.optimum

    def share_of(self, policy: Policy, deterministic: bool = False, accounts: int = 16) -> float:
        generator, state = torch.Generator().manual_seed(0), policy.initial_state(accounts)

        def act(obs: np.ndarray) -> np.ndarray:
            nonlocal state
            action, state, _ = policy.act(obs, state, deterministic, generator)
            return action

        return self.share(act, accounts)

    def _env(self, config: PortfolioConfig, accounts: int, period: tuple[str, str]):
        return make_vec(config, self.tape, accounts, *period, Backend("numpy", "float64"), "same_step")
