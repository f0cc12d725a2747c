import numpy as np
import pytest
from numpy.testing import assert_allclose

from envs.errors import ConfigError
from rlplatform.models.asset_graph import correlation_edges, edge_matrix, partial_correlation_edges, sector_edges

# Three rows of 800 with mean 0, variance 1 and no correlation at all.
UNCORRELATED = np.array([[1, 1, 1, 1, -1, -1, -1, -1], [1, 1, -1, -1, 1, 1, -1, -1], [1, -1, 1, -1, 1, -1, 1, -1.0]]).repeat(
    100, 1
)


def matrix(edges, n):
    return edge_matrix(edges, n).numpy()


def test_correlations_of_one_half_and_minus_one_quarter_become_weights_of_two_thirds_and_minus_one_third():
    returns = (np.linalg.cholesky([[1, 0.5, -0.25], [0.5, 1, 0], [-0.25, 0, 1]]) @ UNCORRELATED).T
    assert_allclose(matrix(correlation_edges(returns, 2), 3), [[0, 2 / 3, -1 / 3], [1, 0, 0], [-1, 0, 0]], atol=1e-6)


def test_only_the_strongest_neighbours_stay_and_noise_is_no_edge():
    rng = np.random.default_rng(0)
    common = rng.normal(size=(2_000, 1))
    returns = np.column_stack(
        [common + s * rng.normal(size=(2_000, 1)) for s in (0.3, 0.5, 0.7)] + [rng.normal(size=(2_000, 1))]
    )
    edges = matrix(correlation_edges(returns, 1), 4)
    assert_allclose(edges[0], [0, 1, 0, 0])
    assert_allclose(edges[2], [1, 0, 0, 0])
    assert_allclose(edges[3], 0)


def test_in_a_chain_only_neighbours_have_a_partial_correlation():
    returns = (np.linalg.cholesky([[1, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 1]]) @ UNCORRELATED).T
    assert_allclose(matrix(correlation_edges(returns, 2), 3)[0], [0, 2 / 3, 1 / 3], atol=1e-6)
    chain = matrix(partial_correlation_edges(returns, 2, penalty=0.05), 3)
    assert_allclose(chain, [[0, 1, 0], [0.5, 0, 0.5], [0, 1, 0]], atol=1e-3)


def test_an_asset_that_never_moves_has_no_neighbours():
    returns = np.column_stack([np.zeros(50), np.arange(50.0), np.arange(50.0)])
    for edges in (correlation_edges(returns, 2), partial_correlation_edges(returns, 2, penalty=0.2)):
        assert_allclose(matrix(edges, 3), [[0, 0, 0], [0, 0, 1], [0, 1, 0]])


def test_members_of_a_sector_hear_each_other_alike():
    edges = sector_edges("ABCD", {"tech": ("A", "C", "D"), "oil": ("B",)})
    assert_allclose(matrix(edges, 4), [[0, 0, 0.5, 0.5], [0, 0, 0, 0], [0.5, 0, 0, 0.5], [0.5, 0, 0.5, 0]])
    with pytest.raises(ConfigError, match=r"names no sector of D \(1 such symbols\)"):
        sector_edges("ABCD", {"tech": ("A", "C"), "oil": ("B",)})
    with pytest.raises(ConfigError, match=r"names A in tech and oil"):
        sector_edges("AB", {"tech": ("A", "B"), "oil": ("A",)})
