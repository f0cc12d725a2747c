from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.evaluation.postprocessing import Postprocessing
from torch.testing import assert_close

from rlplatform.algorithms.ppo import PPOTrainingConfig, build_ppo
from rlplatform.algorithms.rollout import Rollout, standardised
from rlplatform.algorithms.vector_env_runner import VectorEnvRunner
from rlplatform.algorithms.vector_learner import VectorPPOLearner, training_columns
from rlplatform.models.gru import GRUConfig
from rlplatform.models.mlp import MLPConfig
from tests.algorithms.counting import ACTIONS, OBS, register

# Some squared value errors are above the clip, some below.
TRAINING = PPOTrainingConfig(
    num_envs_per_env_runner=5,
    rollout_length=12,
    minibatch_size=24,
    gamma=0.9,
    gae_lambda=0.8,
    use_kl_loss=True,
    value_clip=20.0,
)
GRU = GRUConfig(embedding_size=8, hidden_size=8, max_seq_len=6, normalize_observations=False)
LONG = replace(GRU, max_seq_len=13)  # one sequence a fragment: RLlib's learner appends a row for the bootstrap
MLP = MLPConfig(layers=(8,), normalize_observations=False)


@dataclass(frozen=True)
class Workplace:
    """A local runner and a learner of the same weights, for one env and model."""

    runner: VectorEnvRunner
    learner: VectorPPOLearner

    @property
    def module(self):
        return self.learner.module[DEFAULT_MODULE_ID]


@pytest.fixture(scope="module")
def name(ray_session):
    return register()["native"]


def workplace(name, model=GRU, training=TRAINING, seed=0, **settings) -> Workplace:
    config = build_ppo(training, model, name, settings, seed=seed)
    source = VectorEnvRunner(config=build_ppo(replace(training, fast=True), model, name, settings), worker_index=0)
    learner = config.build_learner(env=source.env)
    learner.module[DEFAULT_MODULE_ID].load_state_dict(source.module.state_dict())
    return Workplace(source, learner)


def minibatches(place, rollouts, minibatch_size=None, num_epochs=1):
    batches = place.learner._create_iterator_if_necessary(
        training_data=TrainingData(episodes=rollouts), num_epochs=num_epochs, minibatch_size=minibatch_size
    )
    return [batch.policy_batches[DEFAULT_MODULE_ID] for batch in batches]


def rows(batches) -> list[tuple]:
    """(account, episode, step) of every observation."""
    return sorted(tuple((obs * 4).int().tolist()) for batch in batches for obs in batch[Columns.OBS].flatten(0, 1))


# --- minibatches -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [GRU, MLP], ids=lambda m: m.kind)
@pytest.mark.parametrize("minibatch_size", [6, 24, 25, 47, 60, 1_000, 3, None])
def test_an_epoch_uses_every_transition_once_in_equal_minibatches(name, model, minibatch_size):
    place = workplace(name, model)
    (rollout,) = place.runner.sample()
    batches = minibatches(place, [rollout], minibatch_size)
    length = rollout.segment_length
    assert rows(batches) == sorted(tuple((o * 4).int().tolist()) for o in rollout.obs.flatten(0, 1))
    sizes = [len(batch[Columns.OBS]) for batch in batches]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) * length <= max(minibatch_size or 60, length)  # at least one sequence
    assert [batch.count for batch in batches] == [size * length for size in sizes]


def test_each_epoch_shuffles_anew(name):
    place = workplace(name)
    batches = minibatches(place, place.runner.sample(), minibatch_size=30, num_epochs=2)
    assert len(batches) == 4
    assert rows(batches[:2]) == rows(batches[2:])
    assert rows(batches[:1]) != rows(batches[2:3])


def test_rollouts_of_several_runners_lie_side_by_side(name):
    place = workplace(name)
    rollouts = [place.runner.sample()[0] for _ in range(2)]
    (batch,) = minibatches(place, rollouts)
    assert rows([batch]) == sorted(tuple((o * 4).int().tolist()) for r in rollouts for o in r.obs.flatten(0, 1))


@pytest.mark.parametrize("action_space", ACTIONS)
def test_a_sequence_and_its_state_give_what_the_policy_said(name, action_space):
    place = workplace(name, actions=action_space)
    for _ in range(2):
        (rollout,) = place.runner.sample()
    for batch in minibatches(place, [rollout], minibatch_size=12):
        out = place.module.forward_train(batch)
        assert_close(out[Columns.ACTION_DIST_INPUTS], batch[Columns.ACTION_DIST_INPUTS])
        distribution = place.module.get_train_action_dist_cls().from_logits(out[Columns.ACTION_DIST_INPUTS])
        assert_close(distribution.logp(batch[Columns.ACTIONS]), batch[Columns.ACTION_LOGP])


# --- the stock learner on the same data ------------------------------------------------------------------------------------


def episodes(rollout: Rollout, following: np.ndarray) -> list[SingleAgentEpisode]:
    """The rollout as RLlib's runner would have brought it: each episode's piece with its last observation."""
    pieces = []
    for b in range(rollout.reward.shape[1]):
        ends = sorted({*torch.nonzero(rollout.done[:, b])[:, 0].tolist(), len(rollout.reward) - 1})
        for start, end in zip([0, *(e + 1 for e in ends[:-1])], ends, strict=True):
            pieces.append(episode(rollout, b, slice(start, end + 1), following[b]))
    return pieces


def episode(rollout: Rollout, b: int, rows: slice, following: np.ndarray) -> SingleAgentEpisode:
    obs, end = rollout.obs[rows, b].numpy(), rows.stop - 1
    done = bool(rollout.done[end, b])
    last = obs[-1] + np.float32([0, 0, 0.25]) if done else following  # CountingEnv: the step goes up by a quarter
    terminated = done and bool(rollout.next_value[end, b] == 0)
    extra = {
        Columns.ACTION_DIST_INPUTS: list(rollout.params[rows, b].numpy()),
        Columns.ACTION_LOGP: list(rollout.log_prob[rows, b].numpy()),
    }
    if width := rollout.states.shape[-1]:
        extra[Columns.STATE_OUT] = [{"h": np.zeros(width, np.float32)} for _ in obs]  # read where sequences are cut: nowhere
    return SingleAgentEpisode(
        observation_space=OBS,
        observations=[*obs, last],
        actions=list(rollout.actions[rows, b].numpy()),
        rewards=rollout.reward[rows, b].tolist(),
        terminated=terminated,
        truncated=done and not terminated,
        extra_model_outputs=extra,
        len_lookback_buffer=0,
    )


def stock_batch(place: Workplace, pieces: list[SingleAgentEpisode]):
    """What RLlib's own connectors make of these episodes; standardised over real rows only.

    RLlib takes mean and deviation over the rows it appended for the bootstrap as well, whose advantages mean nothing; any
    other standardisation is an affine map of it, so that this loses nothing of the comparison.
    """
    batch = place.learner._make_batch_if_necessary(TrainingData(episodes=pieces)).policy_batches[DEFAULT_MODULE_ID]
    mask = batch[Columns.LOSS_MASK]
    batch[Postprocessing.ADVANTAGES][mask] = standardised(batch[Postprocessing.ADVANTAGES][mask])
    return batch


def loss_and_gradients(place: Workplace, batch):
    """After the weights have moved a little, or every ratio would be 1."""
    torch.manual_seed(3)
    for parameter in place.module.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    loss = place.learner.compute_loss_for_module(
        module_id=DEFAULT_MODULE_ID,
        config=place.learner.config.get_config_for_module(DEFAULT_MODULE_ID),
        batch=batch,
        fwd_out=place.module.forward_train(batch),
    )
    return loss, torch.autograd.grad(loss, list(place.module.parameters()))


CASES = {"no_ends": {"base": 100}, "ends_inside": {}}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("action_space", ACTIONS)
@pytest.mark.parametrize("model", [LONG, MLP], ids=lambda m: m.kind)
def test_advantages_loss_and_gradients_are_those_of_the_stock_learner(name, model, action_space, case):
    settings = {"actions": action_space, **CASES[case]}
    fast = workplace(name, model, **settings)
    stock = workplace(name, model, replace(TRAINING, fast=False), **settings)
    (rollout,) = fast.runner.sample()
    stock.module.load_state_dict(fast.module.state_dict())
    assert rollout.done.any() == (case == "ends_inside")
    (ours,) = minibatches(fast, [rollout])
    theirs = stock_batch(stock, episodes(rollout, fast.runner._obs))

    mask = theirs[Columns.LOSS_MASK]
    assert int(mask.sum()) == len(rollout) == 60
    our_order, their_order = _by_standing(ours[Columns.OBS].flatten(0, 1)), _by_standing(theirs[Columns.OBS][mask])
    for column in (Postprocessing.ADVANTAGES, Postprocessing.VALUE_TARGETS):
        assert_close(ours[column].flatten()[our_order], theirs[column][mask][their_order], atol=1e-5, rtol=1e-5)

    loss, gradients = loss_and_gradients(fast, ours)
    stock_loss, stock_gradients = loss_and_gradients(stock, theirs)
    assert_close(loss, stock_loss, atol=1e-5, rtol=1e-5)
    for left, right in zip(gradients, stock_gradients, strict=True):
        assert_close(left, right, atol=1e-5, rtol=1e-5)
    assert max(g.abs().max() for g in gradients) > 0.01


def _by_standing(obs: torch.Tensor) -> np.ndarray:
    """Indices that sort rows by (account, episode, step), which tells each from all others."""
    return np.lexsort(obs.numpy().T[::-1])


# --- columns and weights ---------------------------------------------------------------------------------------------------


def test_value_targets_are_advantages_plus_values(name):
    (rollout,) = workplace(name).runner.sample()
    columns = training_columns(rollout, gamma=0.9, gae_lambda=0.0)
    # λ = 0: the target is the one-step one.
    flat = columns[Postprocessing.VALUE_TARGETS].reshape(2, 5, 6).transpose(1, 2).reshape(12, 5)
    assert_close(flat, rollout.reward + 0.9 * rollout.next_value)
    assert columns[Columns.STATE_IN].shape == (10, 8)


def test_an_update_moves_every_weight_and_counts_transitions(name):
    place = workplace(name, training=replace(TRAINING, value_clip=None))
    before = {key: value.clone() for key, value in place.module.state_dict().items()}
    metrics = place.learner.update(episodes=place.runner.sample(), num_epochs=2, minibatch_size=24)
    for key, value in place.module.state_dict().items():
        assert not torch.equal(value, before[key]), key
    assert metrics[DEFAULT_MODULE_ID]["num_module_steps_trained"].peek() == 2 * 60
    assert np.isfinite(metrics[DEFAULT_MODULE_ID]["total_loss"].peek())


def test_denormals_count_as_zero_only_during_an_update(name, monkeypatch):
    tiny, seen = torch.tensor(1e-40), []
    place = workplace(name)
    loss = place.learner.compute_loss_for_module
    monkeypatch.setattr(
        place.learner, "compute_loss_for_module", lambda **kwargs: (seen.append(float(tiny * 1.0)), loss(**kwargs))[1]
    )
    place.learner.update(episodes=place.runner.sample(), num_epochs=1, minibatch_size=60)
    assert seen == [0.0]
    assert float(tiny * 1.0) > 0.0


def test_the_same_seed_gives_the_same_update(name):
    weights = []
    for _ in range(2):
        place = workplace(name, seed=4)
        place.learner.update(episodes=place.runner.sample(), num_epochs=2, minibatch_size=24)
        weights.append(np.concatenate([p.detach().numpy().ravel() for p in place.module.parameters()]))
    assert_array_equal(*weights)


def test_bfloat16_products_move_the_loss_by_less_than_a_hundredth(name):
    losses = {}
    for precision in ("float32", "bfloat16"):
        place = workplace(name, LONG, replace(TRAINING, precision=precision))
        (batch,) = minibatches(place, place.runner.sample())
        losses[precision], gradients = loss_and_gradients(place, batch)
        assert all(g.dtype == torch.float32 for g in gradients)
    assert losses["bfloat16"] != losses["float32"]
    assert_close(losses["bfloat16"], losses["float32"], rtol=0.01, atol=0.01)
