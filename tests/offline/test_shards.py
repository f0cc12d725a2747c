"""Episodes that stay in their files are those that reading brings into memory; held-out ones are in no shard."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from rlplatform.offline.episodes import Episodes
from rlplatform.offline.errors import DatasetError
from rlplatform.offline.held_out import HoldOut
from rlplatform.offline.manifest import read_manifest
from rlplatform.offline.reading import read_dataset
from rlplatform.offline.shards import survey_dataset
from tests.offline.datasets import edit_line, rehash, small_dataset

LEARNT = ("lengths", "obs", "last_obs", "actions", "rewards", "terminated")


def assert_learns_the_same(streamed, whole):
    for name in LEARNT:
        assert_array_equal(getattr(streamed, name), getattr(whole, name), err_msg=name)
        assert getattr(streamed, name).dtype == getattr(whole, name).dtype, name


@pytest.mark.parametrize("format", ["parquet", "json", "parquet_episodes"])
@pytest.mark.parametrize("case", ["portfolio", "regime"])
def test_the_files_hold_what_reading_brings_into_memory(tmp_path, case, format):
    small_dataset(tmp_path / "set", case, format, shards=3)
    whole, manifest = read_dataset(tmp_path / "set")
    shards = survey_dataset([tmp_path / "set"]).shards
    assert_learns_the_same(shards.read([0, 1, 2]), whole)
    assert_learns_the_same(shards.read([1]), whole.select(np.arange(4, 8)))
    assert (len(shards), shards.num_rows) == (len(whole), whole.num_rows)
    assert shards.manifest.observation_names == manifest.observation_names
    assert_allclose(shards.moments.mean, whole.obs.mean(0, dtype=np.float64), rtol=1e-6, atol=1e-9)
    assert shards.reward_std == pytest.approx(whole.rewards.std(dtype=np.float64))
    assert shards.returns_variance(0.9) == pytest.approx(whole.returns_to_go(0.9).var())


def test_several_datasets_are_one_after_the_other(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    small_dataset(paths[0], format="parquet")
    small_dataset(paths[1], format="json", policy="uniform")
    shards = survey_dataset(paths).shards
    assert_learns_the_same(shards.read(range(4)), read_dataset(paths)[0])


@pytest.mark.parametrize("format", ["parquet", "json"])
def test_columns_join_the_observation(tmp_path, format):
    small_dataset(tmp_path / "set", format=format)
    names = ("spread_bps", "regime_label")
    whole, manifest = read_dataset(tmp_path / "set", observe=names)
    shards = survey_dataset([tmp_path / "set"], observe=names).shards
    assert_learns_the_same(shards.read([0, 1]), whole)
    assert shards.manifest.observation_names == manifest.observation_names
    assert shards.moments.size == manifest.obs_size


def test_what_reading_refuses_no_stream_learns_from(tmp_path):
    small_dataset(tmp_path / "set")
    edit_line(tmp_path / "set" / "shards" / "shard-00001.json", 2, lambda content: content.pop("rewards"))
    rehash(tmp_path / "set")
    with pytest.raises(DatasetError, match=r"shard-00001\.json: line 2: has no column 'rewards'"):
        survey_dataset([tmp_path / "set"])
    shards = survey_dataset([tmp_path / "set"], skip_bad=True).shards
    assert_learns_the_same(shards.read([0, 1]), read_dataset(tmp_path / "set", skip_bad=True)[0])
    assert [shard.whole for shard in shards.shards] == [True, False]


def test_an_episode_that_goes_on_in_the_next_file_is_refused(tmp_path):
    small_dataset(tmp_path / "set")

    def unfinished(content):
        content["truncateds"][-1] = False

    edit_line(tmp_path / "set" / "shards" / "shard-00000.json", 4, unfinished)
    rehash(tmp_path / "set")
    with pytest.raises(DatasetError, match="neither terminateds nor truncateds set; expected one complete episode"):
        survey_dataset([tmp_path / "set"])


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Twelve episodes of ten days each, drawn from sixty, and the hold-out of the last half of the days."""
    directory = tmp_path_factory.mktemp("many") / "set"
    small_dataset(directory, format="parquet", shards=3)
    return directory, HoldOut.of([read_manifest(directory)], 0.5, seed=0)


def days(episodes):
    return episodes.extras["date"].astype("datetime64[s]").astype("datetime64[D]")


def test_held_out_days_come_after_all_days_that_are_learnt_from(many):
    directory, hold_out = many
    episodes = read_dataset(directory)[0]
    learnt, judged = (episodes.select(part) for part in hold_out.split(episodes))
    middle = np.datetime64("2020-01-01") + (np.datetime64("2020-02-29") - np.datetime64("2020-01-01")) / 2
    assert days(learnt).max() < middle <= days(judged).min()
    across = [e for e in range(len(episodes)) if e not in np.concatenate(hold_out.split(episodes))]
    for number in across:  # begins before, ends after
        own = days(episodes.select(np.array([number])))
        assert own.min() < middle <= own.max()
    assert len(learnt) + len(judged) + len(across) == len(episodes)


@pytest.mark.parametrize("dated", [True, False])
def test_held_out_episodes_are_in_no_shard_and_memory_and_files_hold_out_the_same(many, dated):
    directory, by_day = many
    drawn = HoldOut(share=0.5, seed=3, first_day=None, episodes=by_day.episodes)
    hold_out = by_day if dated else drawn
    episodes = read_dataset(directory)[0]
    learnt, judged = (episodes.select(part) for part in hold_out.split(episodes))
    survey = survey_dataset([directory], hold_out=hold_out)
    assert len(judged) > 0
    assert_learns_the_same(survey.shards.read(range(len(survey.shards.shards))), learnt)
    assert_learns_the_same(survey.held_out, judged)
    assert_array_equal(survey.held_out.log_prob, judged.log_prob)
    assert survey.left_between == len(episodes) - len(learnt) - len(judged)
    assert survey.shards.moments.count == learnt.num_rows  # nor in the normaliser
    seen = decisions(survey.shards.read(range(len(survey.shards.shards))))
    assert len(seen) == learnt.num_rows
    assert not seen & decisions(survey.held_out)


def decisions(episodes):
    return {obs.tobytes() + action.tobytes() for obs, action in zip(episodes.obs, episodes.actions, strict=True)}


def short(episodes):
    """Episodes of one decision."""
    row = np.zeros((episodes, 1), np.float32)
    return Episodes(
        lengths=np.ones(episodes, np.int64),
        obs=row,
        last_obs=row,
        actions=row,
        rewards=row[:, 0],
        terminated=np.zeros(episodes, bool),
        log_prob=row[:, 0],
    )


@settings(max_examples=20, deadline=None)
@given(episodes=st.integers(1, 200), share=st.floats(0.01, 0.99), seed=st.integers(0, 5), cut=st.integers(0, 200))
def test_a_draw_is_the_same_whole_or_in_parts(episodes, share, seed, cut):
    hold_out = HoldOut(share=share, seed=seed, first_day=None, episodes=episodes)
    whole, cut = short(episodes), min(cut, episodes)
    learnt, judged = hold_out.split(whole)
    assert len(judged) == round(share * episodes)
    parts = [whole.select(np.arange(0, cut)), whole.select(np.arange(cut, episodes))]
    (first, _), (second, _) = hold_out.split(parts[0]), hold_out.split(parts[1], cut)
    assert_array_equal(np.concatenate([first, second + cut]), learnt)


def test_too_much_held_out_leaves_nothing_and_says_so(many):
    directory, hold_out = many
    nothing = HoldOut(share=0.99, seed=0, first_day=0, episodes=hold_out.episodes)
    with pytest.raises(DatasetError, match="no episode is left to learn from"):
        survey_dataset([directory], hold_out=nothing)
