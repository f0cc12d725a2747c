"""What every algorithm's settings answer, and that one mistake in them is one line."""

import re
from dataclasses import fields, is_dataclass
from typing import get_args

import pytest

from envs.catalog import make_task
from envs.errors import ConfigError
from envs.portfolio import PortfolioConfig
from envs.regime import RegimeConfig
from rlplatform.algorithms.cql import CQLTrainingConfig
from rlplatform.algorithms.differentiable import DifferentiableTrainingConfig
from rlplatform.algorithms.discrete_cql import DiscreteCQLTrainingConfig
from rlplatform.algorithms.imitation import BCTrainingConfig
from rlplatform.algorithms.iql import IQLTrainingConfig
from rlplatform.algorithms.ppo import PPOTrainingConfig
from rlplatform.algorithms.settings import AlgorithmSettings, OfflineSettings
from rlplatform.algorithms.tqc import TQCTrainingConfig
from rlplatform.experiments.config import OurTrainings
from rlplatform.models.gru import GRUConfig
from rlplatform.models.mlp import MLPConfig
from tests.envs.markets import random_tape

ALL = pytest.mark.parametrize("kind", get_args(OurTrainings), ids=lambda kind: kind.__name__.removesuffix("TrainingConfig"))


@ALL
def test_every_algorithm_says_how_long_it_is_and_in_what(kind):
    settings = kind()
    assert isinstance(settings, AlgorithmSettings)
    assert is_dataclass(settings)
    assert settings.unit == ("gradient_steps" if isinstance(settings, OfflineSettings) else "env_steps")
    assert settings.length == getattr(settings, "gradient_steps" if settings.unit == "gradient_steps" else "total_env_steps")
    assert settings.num_processes == 0
    assert settings.passes(1_000_000) >= 2_000_000
    assert settings.takes_pretraining == ("pretrain" in {f.name for f in fields(settings)})


@ALL
def test_every_algorithm_takes_weights_or_numbered_actions_and_names_another_for_the_rest(kind):
    settings, refused = kind(), {}
    for env in (PortfolioConfig(), RegimeConfig()):
        try:
            settings.check(MLPConfig(), make_task(env, random_tape(0, 3))[0])
        except ConfigError as error:
            refused[env.id] = str(error)
    weights_only = "differentiable", "tqc", "cql", "iql"
    expected = {"MultiAssetRegime-v0"} if settings.algorithm in weights_only else set()
    assert set(refused) == ({"Portfolio-v0"} if settings.algorithm == "discrete_cql" else expected)
    for message in refused.values():
        assert re.match(rf"training.algorithm = {settings.algorithm} needs .*\. Use ", message)


@pytest.mark.parametrize(
    ("settings", "done", "passes"),
    [
        (PPOTrainingConfig(num_epochs=2), 100, 700),  # each step sampled once and learnt from twice
        (DifferentiableTrainingConfig(), 100, 300),
        (TQCTrainingConfig(num_envs_per_env_runner=8, rollout_length=4, gradient_steps=2, batch_size=64), 100, 1_300),
        (BCTrainingConfig(batch_size=10), 100, 3_000),
    ],
    ids=lambda value: getattr(value, "algorithm", ""),
)
def test_a_backward_pass_counts_as_two_forward_passes(settings, done, passes):
    assert settings.passes(done) == passes


def test_runners_and_learners_are_processes():
    assert PPOTrainingConfig(num_env_runners=3, num_learners=2).num_processes == 5
    assert DifferentiableTrainingConfig(num_learners=2).num_processes == 2


def test_the_differentiable_trainer_needs_ray_for_learners_of_their_own_only():
    assert not DifferentiableTrainingConfig().needs_ray
    assert DifferentiableTrainingConfig(num_learners=2).needs_ray
    assert BCTrainingConfig().needs_ray


@pytest.mark.parametrize("settings", [CQLTrainingConfig(), IQLTrainingConfig()], ids=lambda s: s.algorithm)
def test_single_transitions_have_no_memory(settings):
    task = make_task(PortfolioConfig(), random_tape(0, 3))[0]
    with pytest.raises(ConfigError, match=rf"{settings.algorithm} values single transitions; model.kind = 'gru' has memory"):
        settings.check(GRUConfig(), task)
    DiscreteCQLTrainingConfig().check(GRUConfig(), make_task(RegimeConfig(), random_tape(0, 3))[0])
