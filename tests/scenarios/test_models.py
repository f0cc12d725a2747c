"""What every law of joint returns promises, and what each keeps of the history it was fitted on."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from envs.errors import ConfigError, MarketDataError, ShapeError
from rlplatform.scenarios.blocks import matched_block_rows
from rlplatform.scenarios.bootstrap import BlockBootstrap
from rlplatform.scenarios.config import BlockBootstrapConfig, RegimeGarchConfig, TransformerConfig
from rlplatform.scenarios.model import fit_model
from rlplatform.scenarios.regime_garch import RegimeGarch
from rlplatform.scenarios.regimes import regime_labels, simulate_regimes, transition_matrix

SMALL = TransformerConfig(context_bars=8, width=8, layers=1, heads=2, steps=25, batch_size=8)
CONFIGS = {"bootstrap": BlockBootstrapConfig(), "garch": RegimeGarchConfig(), "transformer": SMALL}


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def models(planted):
    return {name: fit_model(config, planted[:500]) for name, config in CONFIGS.items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_draws_give_the_same_positive_returns_and_others_other_ones(models, name):
    one, two, other = (models[name].sample(3, 20, rng(seed)) for seed in (0, 0, 1))
    assert one.shape == (3, 20, 3)
    assert (one > 0).all()
    assert_array_equal(one, two)
    assert (one != other).any()


@pytest.mark.parametrize("name", ["bootstrap", "garch", pytest.param("transformer", marks=pytest.mark.slow)])
def test_a_fit_is_the_same_twice_and_leaves_the_process_s_draws_alone(planted, models, name):
    import torch

    before = torch.get_rng_state()
    again = fit_model(CONFIGS[name], planted[:500])
    assert_array_equal(again.sample(2, 10, rng()), models[name].sample(2, 10, rng()))
    assert_array_equal(torch.get_rng_state(), before)


def test_a_mirrored_garch_path_has_the_mirrored_first_day(models):
    model = models["garch"]
    first = np.log(model.sample(6, 5, rng(), antithetic=True))[:, 0] - model.mean
    assert_allclose(first[1::2], -first[::2])


def test_a_mirrored_transformer_path_has_the_mirrored_first_day_around_what_was_expected(models):
    model = models["transformer"]
    first = (np.log(model.sample(4, 3, rng(), antithetic=True)) - model.mean)[:, 0] / (model.std * model.scale)
    expected = (first[::2] + first[1::2]) / 2  # the mean of the next day, the same for both
    assert np.abs(expected).max() < 0.2
    assert np.abs(first).max() > 0.4


def test_a_mirrored_bootstrap_path_is_reflected_at_the_mean(planted, models):
    paths = np.log(models["bootstrap"].sample(2, 30, rng(), antithetic=True))
    assert_allclose((paths[0] + paths[1]) / 2, np.tile(np.log(planted[:500]).mean(axis=0), (30, 1)))


def test_bootstrap_days_are_days_of_history_with_all_assets_together(planted, models):
    days = {tuple(day) for day in planted[:500]}
    assert all(tuple(day) in days for day in models["bootstrap"].sample(2, 50, rng()).reshape(-1, 3))


def test_a_new_block_goes_on_from_a_row_of_the_same_label():
    labels = np.array([0, 0, 1, 1, 0, 1, 1, 0, 0, 1] * 20)
    rows = matched_block_rows(labels, paths=4, bars=400, block_bars=3, rng=rng())
    before, after = rows[:, :-1], rows[:, 1:]
    assert (labels[after - 1] == labels[before])[before < len(labels) - 1].all()
    assert 0.60 < (after == before + 1).mean() < 0.74  # two in three rows go on with the next day, now and then by chance


def test_moves_of_a_hand_made_chain_are_counted():
    matrix = transition_matrix(np.array([0, 0, 0, 1, 0, 2]))
    assert_allclose(matrix[0], [3 / 6, 1.5 / 6, 1.5 / 6])  # (2 + 1, 1 + ½, 1 + ½) / 6
    assert_allclose(matrix[1], [1.5 / 3, 1 / 3, 0.5 / 3])
    assert_allclose(matrix.sum(axis=1), 1)


def test_simulated_regimes_move_as_the_matrix_says():
    matrix = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.0, 0.5, 0.5]])
    states = simulate_regimes(matrix, np.zeros(50, int), 2_000, rng().random((2_000, 50)))
    for now in range(3):
        following = states[:, 1:][states[:, :-1] == now]
        assert_allclose([(following == each).mean() for each in range(3)], matrix[now], atol=0.02)


@pytest.mark.parametrize("name", ["bootstrap", "garch"])
def test_a_market_held_in_crisis_moves_more_than_one_held_calm(planted, name):
    model = fit_model(CONFIGS[name], planted)
    calm, crisis = (np.log(model.sample(8, 250, rng(), regime=regime)).std() for regime in (0, 2))
    assert crisis > 1.4 * calm


def test_garch_goes_on_from_the_given_history(planted):
    model = RegimeGarch.fit(RegimeGarchConfig(), planted)
    shaken = planted[-300:].copy()
    shaken[-5:] = np.exp(5 * np.log(shaken[-5:]) - 0.05)
    quiet, storm = (np.log(model.sample(200, 3, rng(), history=each)).std() for each in (planted[-300:], shaken))
    assert storm > 1.5 * quiet


def test_garch_finds_what_was_planted(planted):
    model = RegimeGarch.fit(RegimeGarchConfig(), planted)
    assert_allclose(model.loading, [0.8, 1.0, 1.2], atol=0.05)
    _, _, alpha, gamma, beta, nu = model.garch[0]
    assert gamma > alpha  # falls weigh more
    assert 0.6 < alpha + gamma / 2 + beta <= 0.995  # what regimes leave of .98
    assert 4 < nu < 25
    assert_allclose(np.log(model.sample(40, 1_000, rng())).std(axis=(0, 1)), np.log(planted).std(axis=0), rtol=0.15)


def test_long_garch_paths_stay_within_their_variance(planted):
    model = RegimeGarch.fit(RegimeGarchConfig(), planted)
    logs = np.log(model.sample(4, 5_000, rng()))
    assert np.isfinite(logs).all()
    assert np.abs(logs).max() < 1.0


@pytest.mark.parametrize("name", ["bootstrap", "garch", pytest.param("transformer", marks=pytest.mark.slow)])
def test_one_asset_is_its_own_market(planted, name):
    paths = fit_model(CONFIGS[name], planted[:600, :1]).sample(2, 30, rng())
    assert paths.shape == (2, 30, 1)
    assert 0.003 < np.log(paths).std() < 0.04


def test_the_transformer_is_saved_without_pickle_and_comes_back_to_the_bit(models, tmp_path):
    model = models["transformer"]
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model")
    assert_array_equal(loaded.sample(2, 10, rng()), model.sample(2, 10, rng()))
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.json", "model.safetensors"]
    assert (loaded.config, loaded.looks, loaded.chosen_step) == (model.config, model.looks, model.chosen_step)


def test_the_transformer_does_not_look_ahead(models):
    import torch

    model = models["transformer"]
    days, volatility, _ = model._days(model.z, model.labels)
    window = days[None, :8].clone(), volatility[None, :8].clone()
    before = model.network(*window)
    window[0][:, 5:] += 1.0
    after = model.network(*window)
    assert torch.equal(before.own[:, :5], after.own[:, :5])
    changed = model.z.copy()
    changed[400:] *= 3
    assert torch.equal(model._days(changed, model.labels)[1][:400], volatility[:400])


def test_the_emission_s_density_is_that_of_scipy():
    import torch
    from scipy.stats import multivariate_t

    from rlplatform.scenarios.transformer_network import Emission

    draws = rng()
    loadings, own, z = draws.normal(size=(4, 2)), np.array([0.5, 0.8, 1.0, 0.3]), draws.normal(size=4)
    emission = Emission(*(torch.from_numpy(each.astype(np.float32)) for each in (0.1 * z, loadings, own)), torch.tensor(6.0))
    covariance = loadings @ loadings.T + np.diag(own**2)
    expected = multivariate_t(loc=0.1 * z, shape=covariance * 4 / 6, df=6).logpdf(z)
    assert_allclose(float(emission.log_prob(torch.from_numpy(z.astype(np.float32)))), expected, rtol=1e-4)


def test_a_fit_without_enough_days_or_with_a_dead_price_is_refused(planted):
    with pytest.raises(ShapeError, match="100 training rows; a fit needs at least 250"):
        fit_model(BlockBootstrapConfig(), planted[:100])
    dead = planted[:400].copy()
    dead[:, 1] = 1.0
    for name in ("garch", "transformer"):
        with pytest.raises(MarketDataError, match="column 1 stands still"):
            fit_model(CONFIGS[name], dead)


@pytest.mark.parametrize(
    ("kind", "setting", "message"),
    [
        (BlockBootstrapConfig, {"block_bars": 1}, r"scenarios.model.block_bars = 1; expected at least 2 bars"),
        (RegimeGarchConfig, {"persistence_max": 1.0}, r"persistence_max = 1.0; expected in \(0, 1\)"),
        (TransformerConfig, {"width": 30}, r"width = 30; expected a multiple of heads = 4"),
        (TransformerConfig, {"held_out": 1.0}, r"held_out = 1.0; expected a share in \(0, 1\)"),
    ],
)
def test_bad_settings_are_refused(kind, setting, message):
    with pytest.raises(ConfigError, match=message):
        kind(**setting)


def test_matching_by_volatility_keeps_its_memory_better_than_not_at_all(planted):
    from rlplatform.scenarios.facts import autocorrelation

    kept = {}
    for match in ("none", "volatility"):
        paths = np.log(BlockBootstrap(BlockBootstrapConfig(block_bars=5, match=match), planted).sample(8, 2_000, rng()))
        kept[match] = np.mean([autocorrelation(np.abs(path), 10) for path in paths])
    assert kept["volatility"] > kept["none"] + 0.02
    assert set(regime_labels(planted)) <= {0, 1, 2}
