"""Imitation on a market whose optimum is known: BC repeats the behaviour policy, MARWIL beats the best of a mixture."""

import pytest

from rlplatform.algorithms.imitation import (
    BCTrainingConfig,
    MARWILTrainingConfig,
    build_bc,
    build_marwil,
    offline_policy,
)
from rlplatform.algorithms.offline_data import register_episodes
from rlplatform.models.gru import GRUConfig
from rlplatform.models.mlp import MLPConfig
from tests.algorithms.planted_offline import Behaviour, PlantedMomentum

pytestmark = pytest.mark.slow

MEDIOCRE = Behaviour(tilt=1.0)
MIXTURE = [Behaviour(tilt=0.0), Behaviour(tilt=0.5), MEDIOCRE]


@pytest.fixture(scope="module")
def market():
    return PlantedMomentum()


def trained(config):
    algorithm = config.build_algo()
    for _ in range(10):
        algorithm.train()
    policy = offline_policy(algorithm, "Portfolio-v0")
    algorithm.stop()
    return policy


def test_bc_earns_what_the_behaviour_policy_earns_within_5_percent(ray_session, market):
    data = register_episodes(market.collect(MEDIOCRE, 400), market.action_space)
    policy = trained(build_bc(BCTrainingConfig(steps_per_iteration=50), MLPConfig(layers=(64,)), data))
    behaviour = market.share(MEDIOCRE.actor(seed=1))
    assert 0.45 < behaviour < 0.55  # of the optimum
    assert market.share_of(policy) == pytest.approx(behaviour, rel=0.05)  # measured 0.3 %


def test_marwil_beats_the_best_behaviour_policy_of_a_mixture(ray_session, market):
    model = GRUConfig(embedding_size=32, hidden_size=32)
    data = register_episodes(market.mixture(MIXTURE, 200), market.action_space)
    policy = trained(build_marwil(MARWILTrainingConfig(steps_per_iteration=100, gamma=0.0), model, data))
    best = max(market.share(behaviour.actor(seed=1)) for behaviour in MIXTURE)
    assert market.share_of(policy) > best + 0.05
