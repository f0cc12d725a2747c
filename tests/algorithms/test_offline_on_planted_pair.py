"""Offline learning on signed weights: a cointegrated pair, noisy rules, and the share of its known optimum on unseen rows."""

from dataclasses import replace
from functools import cache, lru_cache

import numpy as np
import pytest
import torch

from envs import make_vec
from rlplatform.algorithms.cql import CQLTrainingConfig, build_cql
from rlplatform.algorithms.imitation import MARWILTrainingConfig, build_marwil
from rlplatform.algorithms.iql import IQLTrainingConfig, build_iql
from rlplatform.algorithms.offline_data import register_episodes
from rlplatform.algorithms.q_learner import offline_policy
from rlplatform.data import make_market
from rlplatform.models.mlp import MLPConfig
from rlplatform.offline.behaviour import make_behaviour
from rlplatform.offline.collecting import collect
from rlplatform.offline.episodes import Episodes, joined
from tests.algorithms.planted_data import planted, share_of_optimum

pytestmark = pytest.mark.slow

BEHAVIOURS = ("pair_spread+noise:0.5", "mean_reversion+noise:0.5", "uniform")
CERTAIN = "pair_spread"  # the best of them without its noise
# name → settings, builder, iterations, least share; measured after as many with seeds 0 to 2: see docs/LOG.md.
LEARNERS = {
    "marwil": (MARWILTrainingConfig(gamma=0.0), build_marwil, 1, 0.50),
    "iql": (IQLTrainingConfig(gamma=0.5, batch_size=256), build_iql, 3, 0.40),
    "cql": (CQLTrainingConfig(gamma=0.5, batch_size=256, cloning_steps=500), build_cql, 2, 0.50),
}


@lru_cache(maxsize=1)
def mixture() -> tuple[Episodes, object]:
    config, tape = planted("planted_pair")
    env = make_vec(config.env, tape, 120, *map(str, config.split.train), autoreset_mode="same_step")
    parts = [collect(env, make_behaviour(spec, env.task), (seed,)) for seed, spec in enumerate(BEHAVIOURS)]
    return joined(parts), env.single_action_space


@cache
def share_of_behaviour(spec: str, accounts: int = 4) -> float:
    """Log growth on the test rows, mean over accounts, as a share of the optimum's."""
    config, tape = planted("planted_pair")
    whole = replace(config.env, episode=replace(config.env.episode, length_bars=None, random_start=False))
    env = make_vec(whole, tape, accounts, *map(str, config.split.test), autoreset_mode="same_step")
    behaviour, generator = make_behaviour(spec, env.task), torch.Generator().manual_seed(0)
    behaviour.begin(accounts)
    (obs, _), over = env.reset(seed=0), False
    while not over:
        actions, _ = behaviour.act(env.accounts.row, obs, generator)
        obs, _, _, truncated, infos = env.step(actions)
        over = bool(truncated.all())
    first, last = tape.row_range(*map(str, config.split.test))
    optimum = make_market(config.data).realised_log_growth()[first:last].sum()
    return float(np.mean(np.log1p(infos["episode"]["total_return"])) / optimum)


@pytest.mark.parametrize("name", LEARNERS)
def test_from_noisy_pair_trades_comes_a_policy_far_better_than_the_best_of_them(ray_session, name):
    episodes, space = mixture()
    training, build, iterations, least = LEARNERS[name]
    algorithm = build(training, MLPConfig(layers=(64, 64)), register_episodes(episodes, space)).build_algo()
    for _ in range(iterations):
        algorithm.train()
    policy = offline_policy(algorithm, "PairLeverage-v0")
    algorithm.stop()
    share = share_of_optimum("planted_pair", policy)
    assert share > least
    assert share > 1.2 * share_of_behaviour(CERTAIN) > max(share_of_behaviour(spec) for spec in BEHAVIOURS[:2])
