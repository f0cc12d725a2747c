import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from envs.catalog import make_task
from envs.errors import ConfigError
from rlplatform.evaluation.backtest import run_targets
from rlplatform.experiments.collecting import (
    DEFAULT_SPLIT,
    DEFAULTS,
    CollectConfig,
    collect_dataset,
    default_experiment,
    experiment_of,
    import_dataset,
)
from rlplatform.experiments.config import load_config
from rlplatform.experiments.market import prepare_market
from rlplatform.features import FeatureScaler
from rlplatform.offline.behaviour_config import behaviour_config
from rlplatform.offline.reading import read_dataset
from tests.conftest import REPOSITORY


@pytest.fixture
def config(small_yaml):
    return load_config(small_yaml)


def collecting(**settings):
    return CollectConfig(**{"policy": behaviour_config("momentum+noise:0.2"), "episodes": 5, "shard_rows": 120, **settings})


def test_a_dataset_can_rebuild_its_own_observations(config, tmp_path):
    manifest = collect_dataset(config, collecting(), tmp_path / "set")
    again = experiment_of(manifest)
    for part in ("data", "split", "features", "env", "seed"):
        assert getattr(again, part) == getattr(config, part), part
    market = prepare_market(again, FeatureScaler.from_dict(manifest.scaler))
    assert market.tape.sha256 == manifest.tape_sha256
    assert market.prices.sha256 == manifest.prices_sha256
    task, _ = make_task(again.env, market.tape)
    assert task.observation_names == manifest.observation_names
    episodes, _ = read_dataset(tmp_path / "set")
    rows = np.searchsorted(market.tape.dates.astype("datetime64[s]").astype(np.int64), episodes.extras["date"])
    assert_array_equal(episodes.obs[:, : task.market.shape[1]], task.market[rows])


def test_decisions_fall_inside_the_period_asked_for(config, tmp_path):
    manifest = collect_dataset(config, collecting(period="validation"), tmp_path / "set")
    dates = read_dataset(tmp_path / "set")[0].extras["date"].astype("datetime64[s]").astype("datetime64[D]")
    assert str(dates.min()) >= manifest.period["start"] == "2003-01-01"
    assert str(dates.max()) < manifest.period["end"] == "2003-06-30"


def test_the_same_settings_give_the_same_bytes_and_shards_of_the_size_asked_for(config, tmp_path):
    shards = []
    first = collect_dataset(config, collecting(), tmp_path / "a", lambda *state: shards.append(state))
    again = collect_dataset(config, collecting(), tmp_path / "b")
    assert first == again
    assert shards == [(2, 120), (4, 240), (5, 300)]
    collect_dataset(config, collecting(seed=1), tmp_path / "c")
    left, right = (read_dataset(tmp_path / name)[0] for name in ("a", "c"))
    assert not np.array_equal(left.extras["date"], right.extras["date"])
    assert not np.array_equal(left.actions, right.actions)


def test_weights_that_are_imported_earn_what_a_backtest_of_them_earns(config, tmp_path):
    market = prepare_market(config)
    days = market.prices.dates[100:160]
    weights = np.random.default_rng(0).uniform(0, 1, 60)
    lines = [f"{str(day)[:10]},MOM,{weight}" for day, weight in zip(days, weights, strict=True)]
    (tmp_path / "w.csv").write_text("date,symbol,weight\n" + "\n".join(lines))
    manifest = import_dataset(config, tmp_path / "w.csv", tmp_path / "set")
    env = config.env
    track = run_targets("w", np.append(weights, 0)[:, None], market.tape.rows(100, 160), env.costs, env.financing, env.caps)
    assert (manifest.episodes, manifest.rows, manifest.has_log_prob) == (1, 60, False)
    assert manifest.total_return["mean"] == pytest.approx(track.wealth[-1] - 1, abs=2e-5)
    episodes, _ = read_dataset(tmp_path / "set")
    assert_allclose(episodes.actions[:, 1], weights, rtol=1e-5)
    assert np.isnan(episodes.log_prob).all()


def test_an_imported_history_can_be_cut_into_episodes(config, tmp_path):
    days = prepare_market(config).prices.dates[100:165]
    (tmp_path / "w.csv").write_text("date,MOM\n" + "\n".join(f"{str(day)[:10]},0.5" for day in days))
    manifest = import_dataset(config, tmp_path / "w.csv", tmp_path / "set", "parquet", length_bars=20)
    assert (manifest.episodes, manifest.rows) == (3, 60)
    seconds = days[:60].astype("datetime64[s]").astype(np.int64)
    assert_array_equal(read_dataset(tmp_path / "set")[0].extras["date"], seconds)
    with pytest.raises(ConfigError, match="the history has 65 decisions"):
        import_dataset(config, tmp_path / "w.csv", tmp_path / "other", length_bars=66)


def test_the_default_portfolio_is_that_of_the_default_run():
    """So that `rlplatform train tune_configs/portfolio_gru.yaml` sees what `--env Portfolio-v0` logged."""
    run = load_config(REPOSITORY / "tune_configs" / "portfolio_gru.yaml")
    ours = default_experiment("Portfolio-v0")
    for part in ("data", "split", "features", "env"):
        assert getattr(ours, part) == getattr(run, part), part


@pytest.mark.parametrize("env_id", DEFAULTS)
def test_every_environment_has_a_default_that_stands(env_id):
    config = default_experiment(env_id)
    assert config.env.id == env_id
    make_task(config.env, prepare_market(config).tape)
    assert str(config.split.train[1]) == DEFAULT_SPLIT["train"][1]


def test_a_folder_of_prices_is_cut_into_periods(shared_equities):
    split = default_experiment("MultiAssetRegime-v0", shared_equities, ("SPY", "QQQ", "IWM")).split
    assert split.train[0] < split.train[1] < split.validation[0] < split.validation[1] < split.test[0] < split.test[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "csv"}, "format = 'csv'; expected one of json, parquet, parquet_episodes"),
        ({"period": "tset"}, "Did you mean test"),
        ({"episodes": 0}, "episodes = 0; expected at least 1"),
        ({"format": "parquet", "compress": True}, "compress packs JSON"),
        ({"columns": ("wealthy",)}, "Did you mean wealth"),
        ({"policy": behaviour_config("pair_spread")}, "two assets with signed weights"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(config, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        collect_dataset(config, collecting(**settings), tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_unknown_environments_are_told():
    with pytest.raises(ConfigError, match=r"env = 'Portfolio-v9'.*Did you mean Portfolio-v0"):
        default_experiment("Portfolio-v9")
