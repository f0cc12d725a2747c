"""Each work-around is needed: without it RLlib does what the docstring says. When one of these fails, Ray has mended it."""

import gymnasium as gym
import msgpack
import msgpack_numpy
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.bc import BC, BCConfig
from ray.rllib.algorithms.cql import CQLConfig
from ray.rllib.algorithms.cql.torch.cql_torch_learner import CQLTorchLearner
from ray.rllib.algorithms.dqn import dqn_learner
from ray.rllib.algorithms.iql.iql import IQLConfig
from ray.rllib.algorithms.marwil import MARWILConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.env import INPUT_ENV_SPACES
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.offline.offline_prelearner import OfflinePreLearner
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import ALL_MODULES
from ray.tune.result import TRAINING_ITERATION

from rlplatform.algorithms.imitation import BCTrainingConfig, MARWILTrainingConfig, build_bc, build_marwil
from rlplatform.algorithms.offline_data import register_episodes
from rlplatform.algorithms.offline_defects import ADVANTAGE_NORMS, RestorableOffline, ResumableAdvantageNorm
from rlplatform.models.mlp import MLPConfig
from rlplatform.models.rl_module import module_settings, module_spec
from tests.algorithms.bandits import BOX, transitions
from tests.algorithms.test_offline_data import numbered

MODEL = MLPConfig(layers=(4,))


@pytest.fixture(scope="module")
def data(ray_session):
    return register_episodes(numbered([20, 30]), gym.spaces.Discrete(50))


class PlainBC(BC):
    """Without RestorableOffline."""

    def training_step(self) -> None:
        """Nothing is learnt here."""


@pytest.mark.parametrize("how", ["restore", "from_checkpoint"])
def test_rllib_cannot_restore_an_offline_algorithm_and_ours_can(data, tmp_path, how):
    config = build_bc(BCTrainingConfig(batch_size=16, steps_per_iteration=1), MODEL, data)
    for algo_class, works in ((PlainBC, False), (type("Mended", (RestorableOffline, PlainBC), {}), True)):
        algorithm = algo_class(config.copy(copy_frozen=False))
        path = algorithm.save_to_path(tmp_path / algo_class.__name__)
        restore = algorithm.restore_from_path if how == "restore" else algo_class.from_checkpoint
        if works:
            restored = restore(path) or algorithm
            assert restored.env_runner_group is None
            restored.stop()
        else:
            with pytest.raises(AttributeError, match="NoneType"):
                restore(path)
        algorithm.stop()


def test_marwils_advantage_norm_is_in_no_checkpoint_of_rllib_and_is_in_ours(data, tmp_path):
    training = MARWILTrainingConfig(batch_size=16, steps_per_iteration=3, norm_update_rate=0.5)
    algorithm = build_marwil(training, MODEL, data).build_algo()
    algorithm.train()
    learner = algorithm.learner_group._learner
    norm = float(learner.moving_avg_sqd_adv_norms_per_module[DEFAULT_MODULE_ID])
    state = learner.get_state()
    assert state[ADVANTAGE_NORMS] == {DEFAULT_MODULE_ID: norm}
    stock = super(ResumableAdvantageNorm, learner).get_state()
    assert not [value for value in _leaves(stock) if np.isscalar(value) and value == norm]
    restored = type(algorithm).from_checkpoint(algorithm.save_to_path(tmp_path / "checkpoint"))
    norms = restored.learner_group._learner.moving_avg_sqd_adv_norms_per_module
    assert float(norms[DEFAULT_MODULE_ID]) == norm != pytest.approx(100.0)
    algorithm.stop()
    restored.stop()


def _leaves(tree):
    if isinstance(tree, dict):
        for value in tree.values():
            yield from _leaves(value)
    else:
        yield tree


# --- action values: CQL, IQL ---


class WatchedCQL(CQLTorchLearner):
    """Stock CQL that notes the count which it compares with `bc_iters`."""

    def compute_loss_for_module(self, **kwargs):
        loss = super().compute_loss_for_module(**kwargs)
        self.counts = [*getattr(self, "counts", []), self.metrics.peek((ALL_MODULES, TRAINING_ITERATION))]
        return loss


@pytest.fixture
def stock_cql(ray_session):
    """A Learner of RLlib's own CQL, and a batch of 32 transitions for it."""
    spaces = {DEFAULT_MODULE_ID: (gym.spaces.Box(-9, 9, (2,), np.float32), BOX)}
    config = CQLConfig().training(learner_class=WatchedCQL, num_actions=3, lr=None)
    columns = transitions(BOX)
    return config, spaces, columns, MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(columns)}, env_steps=32)


def test_rllib_moves_slow_copies_once_a_call(stock_cql, monkeypatch):
    """Ours: test_cql.py, test_slow_copies_go_a_share_of_the_way_in_every_gradient_step."""
    config, spaces, _, batch = stock_cql
    learner, moves = config.build_learner(spaces=spaces), []
    monkeypatch.setattr(dqn_learner, "update_target_network", lambda **kwargs: moves.append(kwargs))
    learner.update(batch=batch, minibatch_size=8)
    assert len(learner.counts) == 4  # gradient steps
    assert len(moves) == len(learner.module[DEFAULT_MODULE_ID].get_target_network_pairs())


def test_rllibs_count_of_cloning_steps_starts_anew_in_each_call(stock_cql):
    config, spaces, _, batch = stock_cql
    learner = config.build_learner(spaces=spaces)
    for _ in range(3):
        learner.update(batch=batch)
    assert learner.counts == [1, 1, 1]


def test_rllibs_entropy_temperature_is_in_no_state(stock_cql):
    config, spaces, _, batch = stock_cql
    learner, restored = (config.build_learner(spaces=spaces) for _ in range(2))
    learner.update(batch=batch)
    restored.set_state(learner.get_state())
    learnt, brought_back = (float(x.curr_log_alpha[DEFAULT_MODULE_ID].detach()) for x in (learner, restored))
    assert learnt != brought_back == 0.0


def test_rllib_values_what_the_policy_would_do_next_where_it_comes_next(stock_cql):
    """Ours: test_cql.py, test_proposals_from_what_follows_are_valued_where_the_decision_is_made."""
    config, spaces, columns, _ = stock_cql
    module = config.build_learner(spaces=spaces).module[DEFAULT_MODULE_ID]
    valued, original = [], module._qf_forward_train_helper

    def spy(batch, *args, **kwargs):
        valued.append(batch[Columns.OBS])
        return original(batch, *args, **kwargs)

    module._qf_forward_train_helper = spy
    module.forward_train(columns)
    repeated = [obs for obs in valued if len(obs) == 3 * 32]
    elsewhere = [obs for obs in repeated if torch.equal(obs, columns[Columns.NEXT_OBS].repeat_interleave(3, 0))]
    assert len(elsewhere) == 2  # both critics; a mended RLlib values all proposals at OBS


def test_rllibs_iql_refuses_beta_above_one():
    """Ours: test_iql.py learns with 4."""
    config = IQLConfig().training(beta=3.0).environment(observation_space=BOX, action_space=BOX)
    config.offline_data(input_=["x"], dataset_num_iters_per_learner=1)
    with pytest.raises(ValueError, match="`beta` must be within"):
        config.validate()


# --- Ray Data's path: BC, MARWIL ---


def read_by_rllib(config, num_episodes=6, length=20) -> dict[str, np.ndarray]:
    """What RLlib's reader makes of one block of terminated episodes whose rows are numbered and earn 1 each."""
    spaces = (gym.spaces.Box(-np.inf, np.inf, (1,)), gym.spaces.Discrete(4))
    config.environment(observation_space=spaces[0], action_space=spaces[1])
    config.rl_module(rl_module_spec=module_spec(MODEL), model_config=module_settings(MODEL))
    config.training(train_batch_size_per_learner=16).offline_data(input_read_episodes=True)
    spec = config.get_multi_rl_module_spec(spaces={INPUT_ENV_SPACES: spaces, DEFAULT_MODULE_ID: spaces})
    items = []
    for number in range(num_episodes):
        rows = np.arange(length + 1, dtype=np.float32)[:, None] + number * length
        episode = SingleAgentEpisode(
            observations=list(rows), actions=[0] * length, rewards=[1.0] * length, terminated=True, len_lookback_buffer=0
        )
        items.append(msgpack.packb(episode.get_state(), default=msgpack_numpy.encode))
    reader = OfflinePreLearner(config=config, spaces=spaces, module_spec=spec)
    batch = reader({"item": np.array(items, dtype=object)})
    return {name.removeprefix(DEFAULT_MODULE_ID + "/"): np.asarray(column) for name, column in batch.items()}


def test_rllibs_reader_keeps_one_train_batch_of_each_block_and_drops_the_other_rows():
    """Ours: test_offline_data.py, test_an_epoch_uses_every_row_exactly_once."""
    batch = read_by_rllib(BCConfig())
    assert len(np.unique(batch[Columns.OBS])) <= 16 < 120


def test_rllibs_marwil_learns_from_single_steps_instead_of_returns():
    """Ours: test_imitation.py, test_value_targets_are_discounted_sums_to_the_real_end_and_the_value_behind_it."""
    batch = read_by_rllib(MARWILConfig().training(gamma=1.0))
    real = 20 - batch[Columns.OBS][:, 0] % 20  # steps to the end, each earns 1
    decided = batch[Columns.LOSS_MASK].astype(bool)
    targets = batch[Columns.VALUE_TARGETS][decided]
    assert np.abs(targets - real[decided]).max() > 5
