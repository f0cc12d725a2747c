"""Several learners: the same step as one learner with all the accounts, and the same checkpoint."""

import numpy as np
import pytest
import ray
from numpy.testing import assert_allclose, assert_array_equal
from ray.exceptions import RayActorError

from envs.catalog import make_task
from envs.portfolio import PortfolioConfig
from envs.trading_config import EpisodeConfig
from rlplatform.algorithms.differentiable import DifferentiableTrainingConfig
from rlplatform.algorithms.differentiable_algorithm import DifferentiableAlgorithm
from rlplatform.models.gru import GRUConfig
from tests.envs.markets import random_tape

pytestmark = pytest.mark.slow


def new_algorithm(learners: int, updates: int = 1) -> DifferentiableAlgorithm:
    training = DifferentiableTrainingConfig(
        window=6, num_envs=8, updates_per_iteration=updates, num_learners=learners, block_bars=10, learning_rate=1e-2
    )
    task, _ = make_task(PortfolioConfig(episode=EpisodeConfig(length_bars=9)), random_tape(3, 2))
    return DifferentiableAlgorithm(training, GRUConfig(embedding_size=8, hidden_size=8), task, (0, 59), 1, "Portfolio-v0")


def test_two_learners_take_the_gradient_of_one_with_all_accounts_go_on_to_the_bit_and_say_when_one_is_lost(
    ray_session, tmp_path
):
    alone, two = new_algorithm(0), new_algorithm(2)
    for _ in range(3):
        ours, theirs = two.train()["learners"]["default_policy"], alone.train()["learners"]["default_policy"]
        assert ours.keys() == theirs.keys()
        assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-4, atol=1e-6)
        assert_allclose(two.gradient(), alone.gradient(), rtol=1e-3, atol=1e-5 * float(alone.gradient().abs().max()))
    assert_allclose(two.policy().normalizer.mean, alone.policy().normalizer.mean, rtol=1e-6)
    assert two.policy().normalizer.count == alone.policy().normalizer.count

    two.save_to_path(str(tmp_path / "checkpoint"))
    later = new_algorithm(2)
    later.restore_from_path(str(tmp_path / "checkpoint"))
    assert later.train() == two.train()
    weights = [[p.detach().numpy() for p in algorithm.policy().actor_critic.parameters()] for algorithm in (two, later)]
    for one, other in zip(*weights, strict=True):
        assert_array_equal(one, other)
    later.stop()

    ray.kill(two._learners[1])
    with pytest.raises(RayActorError):
        two.train()
    two.stop()
    assert np.isfinite(alone.gradient()).all()
