"""Tapes of several histories: episodes begin as often as rows weigh, and neither they nor trailing windows cross over."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from envs.catalog import make, make_task, make_vec
from envs.errors import ConfigError, MarketDataError, ShapeError
from envs.observation import regime_label
from envs.portfolio import PortfolioConfig
from envs.regime import RegimeConfig
from envs.starts import start_rows
from envs.tape import MarketTape
from envs.trading_config import EpisodeConfig
from tests.envs.markets import random_tape, tape_of

EPISODE = PortfolioConfig(episode=EpisodeConfig(length_bars=4))


def joined(*lengths, assets=2):
    """Histories of so many rows, one after the other."""
    tapes, day = [], 0
    for seed, length in enumerate(lengths):
        dates = np.datetime64("2020-01-01") + day + np.arange(length)
        tapes.append(replace(random_tape(seed, assets, length), dates=dates))
        day += length
    return MarketTape.joined(tapes), tapes


def test_histories_are_joined_row_by_row_and_come_apart_again():
    tape, tapes = joined(10, 7)
    assert_array_equal(tape.segment, [0] * 10 + [1] * 7)
    assert_array_equal(tape.gross[10:], tapes[1].gross)
    assert [len(piece) for piece in tape.pieces()] == [10, 7]
    assert tape.pieces()[1].gross.tobytes() == tapes[1].gross.tobytes()
    assert tapes[0].pieces() == [tapes[0]]
    with pytest.raises(ShapeError, match="tapes differ in one of symbols"):
        MarketTape.joined([tapes[0], random_tape(0, 3, 5)])


def test_an_old_tape_keeps_its_hash_and_segments_change_it():
    plain = tape_of([1.0, 1.1, 0.9])
    assert replace(plain, segment=np.zeros(3, int), start_weight=np.ones(3)).sha256 == plain.sha256
    assert replace(plain, segment=np.array([0, 0, 1])).sha256 != plain.sha256
    assert replace(plain, start_weight=np.array([1.0, 1.0, 2.0])).sha256 != plain.sha256
    with pytest.raises(MarketDataError, match="segment falls or start_weight is below 0"):
        replace(plain, segment=np.array([0, 1, 0]))


def test_rows_from_which_an_episode_stays_in_its_segment_by_hand():
    tape, _ = joined(6, 5)
    assert_array_equal(start_rows(tape, (0, 10), 4), [0, 1, 6])  # 0…4, 1…5 | 6…10
    assert_array_equal(start_rows(tape, (1, 10), 4), [1, 6])
    with pytest.raises(ConfigError, match=r"no segment of the tape has 8 rows"):
        start_rows(tape, (0, 10), 7)


def test_rows_stand_in_the_table_in_proportion_to_their_weight():
    tape, _ = joined(6, 5)
    weighted = replace(tape, start_weight=np.array([1.0] * 6 + [6.0] * 5))
    table = start_rows(weighted, (0, 10), 4)
    assert_allclose([(table == row).mean() for row in (0, 1, 6)], [1 / 8, 1 / 8, 6 / 8], atol=1e-3)
    never = replace(tape, start_weight=np.array([0.0] * 6 + [1.0] * 5))
    assert set(start_rows(never, (0, 10), 4)) == {6}


def test_one_history_with_even_weights_draws_as_before():
    tape = random_tape(0, 2, 30)
    assert_array_equal(start_rows(tape, (3, 29), 4), np.arange(3, 26))
    env = make_vec(EPISODE, tape, 500)
    env.reset(seed=7)
    assert_array_equal(env.accounts.row, np.random.default_rng(7).integers(0, 26, 500))


def test_no_episode_of_any_face_crosses_from_one_history_into_another():
    tape, _ = joined(12, 9, 15)
    env = make_vec(EPISODE, tape, 64, autoreset_mode="same_step")
    env.reset(seed=0, options={"stagger": True})
    single, seen = make(EPISODE, tape), set()
    for seed in range(30):
        single.reset(seed=seed)
        row = single.accounts.row[0]
        assert tape.segment[row] == tape.segment[row + 4]
    for _ in range(40):
        before = env.accounts.row.copy()
        seen |= set(tape.segment[before])
        assert (tape.segment[before] == tape.segment[before + 1]).all()  # what is held is held within one history
        env.step(env.action_space.sample())
    assert seen == {0, 1, 2}
    with pytest.raises(ConfigError, match="start_row 10: an episode of 4 bars would cross"):
        single.reset(options={"start_row": 10})


def test_jumps_land_where_a_bar_is_left_and_never_earn_across():
    from rlplatform.algorithms.differentiable_windows import MarketWindows
    from rlplatform.models.actor_critic import ActorCritic
    from rlplatform.models.heads import head_for
    from rlplatform.models.mlp import MLPConfig

    tape, _ = joined(12, 9, 15)
    task, _ = make_task(EPISODE, tape)
    windows = MarketWindows(task, (0, 35), 64, torch.Generator().manual_seed(0), block_bars=3)
    network, segment = (
        ActorCritic(MLPConfig(layers=(4,)), len(task.observation_names), head_for(task.action_space)),
        tape.segment,
    )
    for _ in range(30):
        row = windows.accounts.row.numpy().copy()
        assert row.max() < 35
        assert (segment[row] == segment[row + 1]).all()
        windows.roll(network, None, 1)


def test_labels_and_market_columns_look_back_into_their_own_history_alone():
    tape, tapes = joined(300, 280, assets=3)
    alone = [replace(each) for each in tapes]
    assert_array_equal(regime_label(tape), np.concatenate([regime_label(each) for each in alone]))
    market = make_task(RegimeConfig(), tape)[0].market
    assert_array_equal(market, np.concatenate([make_task(RegimeConfig(), each)[0].market for each in alone]))
