"""Snapshots: an environment that takes over the state of another goes on as that one does, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from envs import make_vec
from envs.backend import Backend
from envs.errors import ShapeError
from envs.snapshot import Stateful
from tests.envs.markets import CASES, random_actions, random_tape

EVERY_CASE = pytest.mark.parametrize("case", CASES)
BACKENDS = pytest.mark.parametrize("library", ["numpy", "torch"])
COUNT = 3


def made(case, library, mode="same_step", count=COUNT):
    config, assets = CASES[case]
    return make_vec(config, random_tape(0, assets, volatility=0.1), count, backend=Backend(library), autoreset_mode=mode)


def played(env, steps, seed):
    """What `steps` random actions bring: everything an environment returns."""
    seen = []
    for actions in random_actions(env.single_action_space, steps, env.num_envs, seed):
        *values, infos = env.step(actions)
        seen += [np.asarray(value) for value in values] + [np.asarray(value) for _, value in sorted(flat(infos).items())]
    return seen


def flat(infos):
    return {
        f"{name}/{inner}": value
        for name, each in infos.items()
        for inner, value in (each if isinstance(each, dict) else {"": each}).items()
    }


@EVERY_CASE
@BACKENDS
@pytest.mark.parametrize("mode", ["same_step", "next_step"])
def test_an_environment_goes_on_from_the_state_of_another(case, library, mode):
    """Through ends of episodes, and so through draws of first rows; the one that gives the state is not disturbed."""
    first, other = made(case, library, mode), made(case, library, mode)
    first.reset(seed=1, options={"stagger": True})
    other.reset(seed=2)
    played(first, 9, 0), played(other, 4, 1)
    state = first.state()
    copies = {name: array.copy() for name, array in state["accounts"].items()}
    other.set_state(state)
    assert_array_equal(other.accounts.observe(), first.accounts.observe())
    for ours, theirs in zip(played(other, 20, 2), played(first, 20, 2), strict=True):
        assert_array_equal(ours, theirs)
    for name, array in state["accounts"].items():
        assert_array_equal(array, copies[name])  # what was taken never changes later


@EVERY_CASE
def test_the_state_names_every_array_that_a_step_or_a_reset_changes(case):
    """A guard with a memory of its own that nobody names would be lost by a resumed run."""
    env = made(case, "numpy")
    env.reset(seed=1)
    before = {name: array.tobytes() for name, array in arrays_of(env.accounts).items()}
    played(env, 12, 0)
    changed = {name for name, array in arrays_of(env.accounts).items() if array.tobytes() != before.get(name)}
    assert changed >= {"row", "wealth"}
    forgotten = changed - set(env.accounts.state())
    assert not {name for name in forgotten if not any(part in WITHIN_A_STEP for part in name.split("/"))}


WITHIN_A_STEP = {"_asked", "hits"}  # written by the decision and read when the same step is marked to market


def arrays_of(value, name=""):
    """Every array below an object, by the way to it; the tape and the settings left out."""
    if isinstance(value, np.ndarray | torch.Tensor):
        return {name: np.array(value)}
    if isinstance(value, Stateful):
        value = {key: each for key, each in vars(value).items() if key not in ("task", "config", "backend", "constants")}
        value.pop("regime", None)  # the same object stands among the parts
    if isinstance(value, list | tuple):
        value = {str(i): each for i, each in enumerate(value)}
    if not isinstance(value, dict):
        return {}
    return {key: a for n, each in value.items() for key, a in arrays_of(each, f"{name}/{n}".strip("/")).items()}


def test_the_names_say_where_an_array_stands():
    env = made("portfolio, long/short, guarded", "numpy")
    env.reset(seed=1)
    played(env, 3, 0)
    state = env.state()["accounts"]
    assert state["row"].tolist() == env.accounts.row.tolist()
    assert state["sums/turnover_paid"].tolist() == env.accounts.sums["turnover_paid"].tolist()
    assert state["shutdown/loss/0"].tolist() == env.accounts.shutdown.loss[0].tolist()
    assert state["guards/parts/1/past_wealth"].shape == (COUNT, 3)
    assert state["row"] is not env.accounts.row


def test_a_state_of_other_settings_is_refused():
    env, more = made("portfolio", "numpy"), made("portfolio", "numpy", count=4)
    env.reset(seed=0), more.reset(seed=0)
    with pytest.raises(ShapeError, match=r"row is shape \(4,\); expected shape \(3,\)\. It is of other settings"):
        env.set_state(more.state())
    guarded = made("regime, guarded", "numpy")
    guarded.reset(seed=0)
    with pytest.raises(ShapeError, match="is nothing; expected shape"):
        guarded.set_state(made_and_reset("regime").state())


def made_and_reset(case):
    env = made(case, "numpy")
    env.reset(seed=0)
    return env
