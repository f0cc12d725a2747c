"""Training on generated histories: what accounts get, that no later row has a part in it, and that it resumes to the bit."""

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from envs import make_vec
from envs.errors import ConfigError
from rlplatform.experiments.config import load_config
from rlplatform.experiments.experiment import new_job, resumed_job, train_and_judge
from rlplatform.experiments.market import prepare_market, tape_of
from rlplatform.experiments.scenario_config import ScenariosConfig
from rlplatform.experiments.scenario_training import (
    LONGEST_WINDOW,
    fitting_rows,
    learning_rows,
    prices_of,
    scenario_paths,
    training_scaler,
)
from rlplatform.experiments.training import train
from rlplatform.experiments.visible_rows import training_rows
from rlplatform.scenarios.model import fit_model

FEW = "scenarios={model: block_bootstrap, paths: 4, bars: 150, share: 0.25}"
GRADIENT = "training={algorithm: differentiable, total_env_steps: 1024, window: 16, num_envs: 16, updates_per_iteration: 1}"


@pytest.fixture(scope="module")
def config(small_yaml):
    return load_config(small_yaml, [FEW])


@pytest.fixture(scope="module")
def market(config):
    return prepare_market(config)


@pytest.fixture(scope="module")
def rows(config, market):
    return learning_rows(config, market.tape)


def test_real_rows_stand_first_as_they_are_and_paths_behind_them(config, market, rows):
    real = training_rows(config, market.tape)
    assert rows.gross[: len(real)].tobytes() == real.gross.tobytes()
    assert rows.features[: len(real)].tobytes() == real.features.tobytes()
    sizes = np.bincount(rows.segment)
    assert_array_equal(sizes, [len(real)] + [LONGEST_WINDOW + 150] * 4)
    assert (np.diff(rows.dates) > np.timedelta64(0)).all()


def test_a_quarter_of_the_episodes_begin_on_a_path_behind_its_warm_up(config, rows):
    env = make_vec(config.env, rows, 4_000, str(config.split.train[0]))
    env.reset(seed=0)
    row, segment = env.accounts.row, rows.segment[env.accounts.row]
    assert_allclose((segment > 0).mean(), 0.25, atol=0.02)
    begin = np.searchsorted(rows.segment, segment[segment > 0])
    assert (row[segment > 0] - begin).min() >= LONGEST_WINDOW
    assert (rows.segment[row + 60] == segment).all()
    assert rows.dates[row[segment == 0]].min() >= np.datetime64(config.split.train[0])


def test_features_of_a_path_are_built_from_its_own_prices_by_the_run_s_scaler(config, market, rows):
    assert training_scaler(config, training_rows(config, market.tape)) == market.scaler
    path = rows.pieces()[2]
    alone = tape_of(config, prices_of(path.gross, path.symbols), market.scaler)
    assert_allclose(path.features, alone.features, atol=1e-5)
    days = {round(float(value), 12) for value in fitting_rows(config, market.tape)[:, 0]}
    assert all(round(float(value), 12) in days for value in path.gross[1:, 0])  # bootstrapped from training days


@pytest.mark.parametrize("model", ["block_bootstrap", "regime_garch"])
def test_no_row_after_the_training_period_has_a_part_in_it(config, market, model):
    config = dataclasses.replace(config, scenarios=ScenariosConfig(model=_config(model), paths=2, bars=150))
    last = market.tape.row_range(None, str(config.split.train[1]))[1]
    later = np.arange(len(market.tape)) > last
    changed = dataclasses.replace(
        market.tape,
        gross=np.where(later[:, None], 1.3, market.tape.gross),
        features=np.where(later[:, None, None], 9.0, market.tape.features),
    )
    assert learning_rows(config, changed).sha256 == learning_rows(config, market.tape).sha256


def _config(name):
    from rlplatform.scenarios.config import KINDS

    return KINDS[name]()


def test_a_share_of_one_trains_on_nothing_real(config, market):
    config = dataclasses.replace(config, scenarios=dataclasses.replace(config.scenarios, share=1.0))
    rows = learning_rows(config, market.tape)
    env = make_vec(config.env, rows, 500, str(config.split.train[0]))
    env.reset(seed=0)
    assert (rows.segment[env.accounts.row] > 0).all()


def test_crashes_lie_behind_the_warm_up_of_the_paths_that_get_one(config, market):
    settings = ScenariosConfig(paths=4, bars=300, stress=("2020", "2008"), stress_share=0.5)
    gross = fitting_rows(config, market.tape)
    model = fit_model(settings.model, gross)
    paths = np.log(scenario_paths(settings, model, gross, 50)[..., 0])
    plain = np.log(scenario_paths(dataclasses.replace(settings, stress=()), model, gross, 50)[..., 0])
    changed = (paths != plain).any(axis=1)
    assert_array_equal(changed, [True, False, False, True])
    assert_array_equal(paths[:, :50], plain[:, :50])
    bars = np.flatnonzero(paths[0] != plain[0])
    assert_allclose(paths[0, bars[0] : bars[0] + 23].sum(), np.log(1 - 0.343))  # the fall of 2020


def test_paths_come_in_mirrored_pairs(config, market):
    settings = ScenariosConfig(paths=4, bars=100, antithetic=True)
    gross = fitting_rows(config, market.tape)
    paths = np.log(scenario_paths(settings, fit_model(settings.model, gross), gross, 0))
    assert_allclose(paths[::2] + paths[1::2], 2 * np.log(gross).mean())


def test_a_run_with_scenarios_resumes_to_the_bit(small_yaml, tmp_path):
    words = [FEW, GRADIENT, f"results_dir={tmp_path}"]
    whole = new_job(load_config(small_yaml, words))
    train(whole.config, whole.market.tape, whole.run)
    half = new_job(load_config(small_yaml, [*words, "name=half", "training.total_env_steps=512"]))
    train(half.config, half.market.tape, half.run)
    half.run.write_manifest({"tape_sha256": half.market.tape.sha256})
    job = resumed_job(half.run.path, ["training.total_env_steps=1024"])
    train(job.config, job.market.tape, job.run, resume=True)
    left, right = (
        [{key: value for key, value in row.items() if "second" not in key} for row in each.metrics()]
        for each in (whole.run, job.run)
    )
    assert left == right
    assert job.config.scenarios == whole.config.scenarios  # written and read back


@pytest.mark.slow
def test_ppo_trains_on_paths_and_is_judged_on_real_days(small_yaml, tmp_path, ray_session):
    real = new_job(load_config(small_yaml, [f"results_dir={tmp_path}", "training.total_env_steps=1024"]))
    made = new_job(load_config(small_yaml, [f"results_dir={tmp_path}", "training.total_env_steps=1024", "name=made", FEW]))
    one, two = (train_and_judge(job) for job in (real, made))
    assert_array_equal(one.policy.dates, two.policy.dates)
    assert real.run.metrics()[-1]["policy_loss"] != made.run.metrics()[-1]["policy_loss"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["scenarios={model: regime_grach}"], "scenarios.model"),
        (["scenarios={paths: 0}"], "scenarios.paths = 0; expected at least 1"),
        (["scenarios={share: 0}"], r"scenarios.share = 0.*; expected a share in \(0, 1\]"),
        (["scenarios={paths: 3, antithetic: true}"], "paths come in pairs. Make it even"),
        (["scenarios={stress: ['1987']}"], "scenarios.stress = '1987'; expected one of 2008, 2020"),
        (["scenarios={stress: ['2008'], bars: 200}"], "a crash of scenarios.stress takes 253 bars"),
        (["scenarios={bars: 60}"], "env.episode.length_bars = 60 does not fit"),
        (["scenarios={}", "env.episode.length_bars=null"], "set env.episode.length_bars"),
        (["scenarios={}", "env.episode.random_start=false"], "leave random_start true"),
        (["scenarios={}", "features.forecasts={backend: historical}"], "forecasts"),
        (["scenarios={}", "env.constraints={liquidity: {capital: 1.0e+6}}"], "a generated history has no volume"),
        (
            ["scenarios={}", "split.validation=null", "split.left_out=[[2001-01-01, 2001-02-01]]"],
            "a law is fitted on rows in their order",
        ),
    ],
)
def test_what_cannot_be_is_refused(small_yaml, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(small_yaml, overrides)


def test_features_of_volume_are_refused_by_name(config, market):
    named = dataclasses.replace(
        market.tape,
        features=np.concatenate([market.tape.features, market.tape.features[..., :1]], axis=-1),
        feature_names=(*market.tape.feature_names, "volume_zscore_63"),
    )
    with pytest.raises(ConfigError, match=r"volume_zscore_63 needs volume.*features.groups=\[returns, volatility"):
        learning_rows(config, named)
