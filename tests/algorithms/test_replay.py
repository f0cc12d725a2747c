"""What runners bring to the replay buffer, and what lies in it: read off an environment that says where it stands."""

import pickle
from dataclasses import fields

import pytest
import torch
from torch.testing import assert_close

from rlplatform.algorithms.replay_buffer import ReplayBuffer
from rlplatform.algorithms.tqc import TQCTrainingConfig, build_tqc
from rlplatform.algorithms.transitions import ReplayEnvRunner, Transitions
from rlplatform.models.gru import GRUConfig
from rlplatform.models.mlp import MLPConfig
from tests.algorithms.counting import Schedule, register

TRAINING = TQCTrainingConfig(
    num_envs_per_env_runner=5, rollout_length=12, batch_size=24, learning_starts=60, buffer_size=120, gradient_steps=3
)
GRU = GRUConfig(embedding_size=8, hidden_size=8, max_seq_len=6)
MLP = MLPConfig(layers=(8,), normalize_observations=False)
models = pytest.mark.parametrize("model", [GRU, MLP], ids=lambda m: m.kind)


@pytest.fixture(scope="module")
def names(ray_session):
    return register()


def runner(name, model=GRU) -> ReplayEnvRunner:
    return ReplayEnvRunner(config=build_tqc(TRAINING, model, name, {"actions": "simplex"}), worker_index=0)


def standing(obs) -> tuple[int, int, int]:
    """(account, episode, step) of an observation of CountingEnv."""
    return tuple((obs * 4).int().tolist())


@pytest.mark.parametrize("kind", ["native", "sync"])
@models
def test_transitions_say_what_happened_and_how_episodes_ended(names, kind, model):
    source, schedule = runner(names[kind], model), Schedule()
    for rollout in (source.sample()[0] for _ in range(2)):
        assert rollout.obs.shape == (13, 5, 3)
        for b in range(5):
            for t in range(12):
                account, episode, step = standing(rollout.obs[t, b])
                ended, ruined = step + 1 == schedule.length(account, episode), schedule.terminates(account, episode)
                assert rollout.first[t, b] == (step == 0)
                assert rollout.rewards[t, b] == step + 1
                assert rollout.terminated[t, b] == (ended and ruined)
                assert rollout.truncated[t, b] == (ended and not ruined)
                following = (account, episode + 1, 0) if ended else (account, episode, step + 1)
                assert standing(rollout.obs[t + 1, b]) == following
                assert rollout.first[t + 1, b] == ended
    assert rollout.terminated.any()
    assert rollout.truncated.any()


def test_the_statistics_that_travel_normalise_as_the_policy_s_do(names):
    source = runner(names["native"])
    rollout = source.sample()[0]
    expected = torch.from_numpy(source._normalizer().normalized(rollout.obs[3].numpy()))
    assert_close((rollout.obs[3] - rollout.centre) * rollout.factors, expected)


def test_transitions_travel(names):
    rollout = runner(names["native"]).sample()[0]
    again = pickle.loads(pickle.dumps(rollout))
    assert all(torch.equal(getattr(rollout, f.name), getattr(again, f.name)) for f in fields(Transitions))


@models
def test_a_drawn_sequence_is_one_of_an_account_with_the_state_before_it(names, model):
    source, buffer = runner(names["native"], model), ReplayBuffer(120)
    rollout = source.sample()[0]
    buffer.add(rollout)
    length = rollout.segment_length
    assert (length, len(buffer)) == ((6, 60) if model is GRU else (1, 60))
    drawn = buffer.sample(48)
    assert drawn["obs"].shape == (48 // length, length + 1, 3)
    starts = {tuple(rollout.obs[k * length, b].tolist()): (k, b) for k in range(12 // length) for b in range(5)}
    for u in range(len(drawn["obs"])):
        k, b = starts[tuple(drawn["obs"][u, 0].tolist())]
        rows = slice(k * length, (k + 1) * length)
        assert torch.equal(drawn["obs"][u], rollout.obs[k * length : (k + 1) * length + 1, b])
        assert torch.equal(drawn["first"][u], rollout.first[k * length : (k + 1) * length + 1, b])
        for name in ("actions", "rewards", "terminated", "truncated"):
            assert torch.equal(drawn[name][u], getattr(rollout, name)[rows, b])
        assert torch.equal(drawn["states"][u], rollout.states[k, b])


def test_the_oldest_make_way(names):
    source, buffer = runner(names["native"]), ReplayBuffer(90)  # 15 sequences of 6; a rollout has 10
    rollouts = [source.sample()[0] for _ in range(3)]
    for rollout in rollouts:
        buffer.add(rollout)
    assert len(buffer) == 90
    held = {tuple(row) for row in buffer.sample(6_000)["obs"][:, 0].tolist()}
    starts = [{tuple(row) for k in (0, 6) for row in r.obs[k].tolist()} for r in rollouts]
    assert starts[2] <= held
    assert len(held & starts[1]) == 5
    assert not held & starts[0]


def test_a_rollout_larger_than_the_buffer_leaves_its_end(names):
    source, buffer = runner(names["native"]), ReplayBuffer(30)
    rollout = source.sample()[0]
    buffer.add(rollout)
    assert {tuple(row) for row in buffer.sample(3_000)["obs"][:, 0].tolist()} == {tuple(r) for r in rollout.obs[6].tolist()}


@models
def test_a_buffer_goes_on_from_the_state_of_another(names, model):
    source, buffer, other = runner(names["native"], model), ReplayBuffer(90), ReplayBuffer(90)
    for _ in range(2):
        buffer.add(source.sample()[0])
    other.set_state(pickle.loads(pickle.dumps(buffer.state())))
    after = source.sample()[0]
    for each in (buffer, other):
        each.add(after)
    assert len(buffer) == len(other)
    drawn = []
    for each in (buffer, other):
        torch.manual_seed(3)
        drawn.append(each.sample(36))
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
