import json

import gymnasium as gym
import numpy as np
import pytest
import torch

from envs.errors import ConfigError
from envs.spaces import Simplex
from rlplatform.models.distributions import Categorical, LogisticNormal, TanhNormal
from rlplatform.models.heads import head_for, head_from

SPACES = [
    (gym.spaces.Discrete(16), Categorical, 16),
    (Simplex(4), LogisticNormal, 2 * 3),
    (Simplex(4, leverage=True), LogisticNormal, 2 * 4),
    (gym.spaces.Box(-2.0, 2.0, (2,), np.float32), TanhNormal, 2 * 2),
]


@pytest.mark.parametrize(("space", "distribution", "num_params"), SPACES)
def test_the_head_is_chosen_by_the_space(space, distribution, num_params):
    head = head_for(space)
    assert head.num_params == num_params
    assert isinstance(head.distribution(torch.zeros(5, num_params)), distribution)


@pytest.mark.parametrize("space", [s for s, _, _ in SPACES])
def test_samples_and_modes_lie_in_the_space(space):
    head = head_for(space)
    distribution = head.distribution(torch.randn(50, head.num_params))
    for action in torch.cat([distribution.sample(), distribution.mode()]):
        assert space.contains(action.numpy())


@pytest.mark.parametrize("space", [s for s, _, _ in SPACES])
def test_a_head_goes_through_json_and_knows_its_space(space):
    head = head_from(json.loads(json.dumps(head_for(space).describe())))
    assert head == head_for(space)
    assert head.space() == space


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Box(-np.inf, np.inf, (2,)),
        gym.spaces.Box(0, 1, (2, 2)),
        gym.spaces.MultiBinary(3),
        gym.spaces.Discrete(3, start=1),
    ],
)
def test_a_space_without_a_head_is_refused_by_name(space):
    with pytest.raises(ConfigError, match="No action head for"):
        head_for(space)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="'beta' is unknown"):
        head_from({"kind": "beta"})
