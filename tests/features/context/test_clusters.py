"""Clusters: who moves together, drawn from past returns only, under names that last."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from rlplatform.features.context.clusters import Clusters, correlations, draw, rolling_clusters, same_labels


def two_families(rows: int = 120, seed: int = 0) -> np.ndarray:
    """Columns 0, 2, 4 follow one factor and 1, 3 another; after row 80 column 0 follows the other."""
    rng = np.random.default_rng(seed)
    factors, own = rng.normal(0, 0.01, (rows, 2)), rng.normal(0, 0.002, (rows, 5))
    of = np.tile([0, 1, 0, 1, 0], (rows, 1))
    of[80:, 0] = 1
    return np.take_along_axis(factors, of, 1) + own


def test_families_are_found_and_a_member_that_changes_sides_changes_clusters_and_no_other_does():
    found = rolling_clusters(two_families(), clusters=2, window=30, refit_bars=10)
    assert (found.labels[:30] == 0).all()  # nothing is drawn before a whole window
    assert_array_equal(found.labels[30], [0, 1, 0, 1, 0])
    assert_array_equal(found.labels[-1], [1, 1, 0, 1, 0])
    assert_array_equal(np.unique(found.change), [0.0, 0.2])  # one of five, when it went over
    assert_array_equal(found.share[30], [0.6, 0.4, 0.6, 0.4, 0.6])
    assert (found.correlation[30] > 0.9).all()


def test_clusters_are_drawn_every_so_many_bars_and_hold_between():
    labels = rolling_clusters(two_families(), 2, 30, 10).labels
    moved = np.flatnonzero((labels[1:] != labels[:-1]).any(1)) + 1
    assert set(moved % 10) == {0}


def test_a_mean_over_the_cluster_is_the_asset_s_own_where_it_is_alone():
    clusters = Clusters(labels=np.array([[0, 0, 1], [0, 1, 1]]), correlation=np.zeros((2, 3)), change=np.zeros(2))
    assert_allclose(clusters.mean(np.array([[1.0, 3.0, 7.0], [1.0, 3.0, 7.0]])), [[2, 2, 7], [1, 5, 5]])


def test_correlations_are_numpy_s_and_0_for_an_asset_that_does_not_move():
    x = np.random.default_rng(0).normal(size=(40, 3))
    assert_allclose(correlations(x), np.corrcoef(x.T), atol=1e-12)
    x[:, 1] = 0.0
    assert_array_equal(correlations(x)[1], [0.0, 1.0, 0.0])


def test_never_more_clusters_than_half_the_assets_rounded_up_and_one_of_one():
    rng = np.random.default_rng(0)
    for assets, most in ((1, 1), (2, 1), (3, 2), (5, 3)):
        labels = rolling_clusters(rng.normal(size=(60, assets)), 9, 30, 10).labels
        assert labels.max() + 1 == most
    assert_array_equal(draw(np.eye(1), 3), [0])


def test_new_clusters_take_the_numbers_of_those_whose_members_they_have():
    assert_array_equal(same_labels(np.array([0, 0, 1, 1, 2]), np.array([2, 2, 0, 0, 1])), [0, 0, 1, 1, 2])
    assert_array_equal(same_labels(np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 1])), [0, 0, 1, 1, 1])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=8), st.randoms(use_true_random=False))
def test_renumbering_keeps_the_partition_and_undoes_any_shuffle_of_names(labels, random):
    labels = np.unique(labels, return_inverse=True)[1]
    names = list(range(labels.max() + 1))
    random.shuffle(names)
    assert_array_equal(same_labels(labels, np.array(names)[labels]), labels)
