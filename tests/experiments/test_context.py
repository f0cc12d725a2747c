"""A config with context trains, is judged on other prices, stressed, explained, and proved not to look ahead."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from envs.regime import market_table
from rlplatform.evaluation.stress import StressConfig, scenarios
from rlplatform.experiments import stressing
from rlplatform.experiments.config import load_config
from rlplatform.experiments.lookahead import Pipeline, prove
from rlplatform.experiments.market import prepare_market, tape_of
from rlplatform.experiments.stressing import prices_of
from rlplatform.features.context import asof
from rlplatform.features.context.asof import align
from rlplatform.features.lookahead import LookaheadError
from tests.experiments.untrained import untrained_run
from tests.features.context.conftest import session_prices, walk

ROWS = 420  # sessions from 2015-01-02 to 2016-09-01

YAML = """\
name: around
data: {{source: folder, path: {folder}/prices}}
features:
  context:
    path: {folder}/series
    series: {{VIX: {{}}, VIX3M: {{}}, DGS2: {{}}, DGS10: {{}}, DXY: {{}}, mood: {{published: after, lag_days: 2}}}}
    sectors: {{A: x, B: y, C: x, D: y}}
    cluster_window: 60
    risk_window: 20
split:
  train: [2015-02-02, 2015-12-31]
  validation: [2016-01-04, 2016-03-31]
  test: [2016-04-01, 2016-08-31]
env: {{id: Portfolio-v0, costs: {{proportional_bps: 2}}, episode: {{length_bars: 60}}}}
model: {{kind: gru, embedding_size: 16, hidden_size: 16, max_seq_len: 16}}
training: {{total_env_steps: 2000, num_envs_per_env_runner: 16, rollout_length: 32, minibatch_size: 256, num_epochs: 2}}
evaluation: {{interval_iterations: 2, bootstrap: {{resamples: 200}}}}
results_dir: {folder}/results
"""


def write_prices(folder: Path, seed: int) -> Path:
    prices = session_prices(ROWS, seed=seed)
    folder.mkdir(parents=True)
    for i, symbol in enumerate(prices.symbols):
        pd.DataFrame({"date": prices.dates, "close": prices.close[:, i]}).to_csv(folder / f"{symbol}.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("context")
    write_prices(folder / "prices", seed=0)
    write_prices(folder / "others", seed=1)
    (folder / "series").mkdir()
    for name in ("VIX", "VIX3M", "DGS2", "DGS10", "DXY", "mood"):
        days, values = walk(name, rows=ROWS + 20)
        pd.DataFrame({"date": days, "close": values}).to_csv(folder / "series" / f"{name}.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def yaml(folder) -> Path:
    path = folder / "around.yaml"
    path.write_text(YAML.format(folder=folder), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def config(yaml):
    return load_config(yaml)


def test_the_proof_covers_the_series_and_finds_nothing(config):
    proof = prove(config, cuts=1)
    assert proof.clean, [str(finding) for finding in proof.findings]
    assert proof.checks["series"] > 0


def test_a_join_by_date_instead_of_publication_is_named_with_column_row_and_day(config, monkeypatch):
    true = asof.as_of

    def by_date(series, closes, days):
        return true(replace(series, published=series.days.astype("datetime64[ns]")), closes, days)

    monkeypatch.setattr(asof, "as_of", by_date)
    found = {finding.check: finding for finding in prove(config, cuts=1).findings}
    assert {"features", "series"} <= set(found)
    finding = found["series"]
    assert finding.culprit.startswith(("treasury", "dollar", "series_", "vix", "risk_regime"))
    day, row = finding.where.strip("[]").split(", ")
    dates = session_prices(ROWS).dates
    assert str(dates[int(row.removeprefix("row "))])[:10] == day <= finding.changed_after
    assert f"when series after {finding.changed_after} change" in finding.explanation


def test_a_pipeline_that_leaves_the_series_unread_is_not_passed(config):
    known = prepare_market(config)

    def deaf(config, scaler=None):
        return replace(known, tape=tape_of(config, config.data.load(), known.scaler, align(known.series, known.prices)))

    with pytest.raises(LookaheadError, match="nothing moved when series alone changed"):
        prove(config, cuts=1, pipeline=Pipeline(prepare=deaf))


def test_series_that_no_column_asks_for_are_no_fault(yaml):
    assert prove(load_config(yaml, ["features.context.columns=[target_exposure]"]), cuts=1).clean


def test_a_scenario_shows_the_series_of_the_days_that_it_was_drawn_from_and_none_in_a_crash(config):
    market = prepare_market(config)
    aligned = align(market.series, market.prices)
    paths = scenarios(market.tape, StressConfig(paths=1, bars=30, history_bars=300))
    drawn, crash = paths[0], paths[-1]
    assert np.array_equal(market.tape.gross[drawn.drawn_from], drawn.tape.gross)
    tape = tape_of(config, prices_of(drawn), market.scaler, aligned.redrawn(drawn.drawn_from))
    vix = tape.context_names.index("vix")
    np.testing.assert_array_equal(tape.context[:, vix], market.tape.context[drawn.drawn_from, vix])
    tape = tape_of(config, prices_of(crash), market.scaler, aligned.redrawn(crash.drawn_from))
    known = tape.context[:, tape.context_names.index("series_known_VIX")]
    assert known[: crash.first + 1].all()
    assert not known[crash.first + 1 :].any()


def test_a_stress_reads_no_file_but_draws_its_series_with_the_days(config, monkeypatch):
    market, seen = prepare_market(config), []

    class Enough(Exception):
        pass

    def first_tape(config, prices, scaler, series):
        seen.append((prices, series))
        raise Enough

    monkeypatch.setattr(stressing, "tape_of", first_tape)
    with pytest.raises(Enough):
        stressing.stress(config, market, None, StressConfig(paths=1, bars=30, history_bars=300))
    ((prices, series),) = seen
    vix = align(market.series, market.prices).values["VIX"]
    assert len(series.values["VIX"]) == len(prices) == 330
    assert set(series.values["VIX"]) <= set(vix)
    np.testing.assert_array_equal(series.values["VIX"][:300], vix[-300:])


def test_the_regime_environment_reads_vix_in_points(yaml):
    config = load_config(yaml, ["data.symbols=[A, B, C]", "env={id: MultiAssetRegime-v0, episode: {length_bars: 60}}"])
    market = prepare_market(config)
    names, table = market_table(market.tape)
    vix = align(market.series, market.prices).values["VIX"]
    np.testing.assert_allclose(table[:, names.index("vix")], vix / 100, rtol=1e-6)


def test_the_manifest_names_every_series_with_its_rule_and_hash(config):
    described = prepare_market(config).described()["series"]
    assert list(described) == ["VIX", "VIX3M", "DGS2", "DGS10", "DXY", "mood"]
    assert described["DGS10"]["source"].endswith("DGS10.csv, published next_session")
    assert len(described["DGS10"]["sha256"]) == 64


@pytest.mark.slow
def test_a_run_is_judged_on_other_prices_stressed_and_explained_with_its_context(yaml, folder, typed):
    run = untrained_run(yaml, folder / "results").path
    code, out, err = typed(
        "evaluate", run, "--prices", folder / "others", "--start", "2016-04-01", "--end", "2016-08-31", "--json"
    )
    assert code == 0, err
    code, out, err = typed("stress", run, "--paths", "1", "--bars", "20", "--json")
    assert code == 0, err
    assert any("series of features.context" in note for note in json.loads(out)["notes"])
    code, out, err = typed("explain", run, "--permutations", "4", "--json")
    assert code == 0, err
    groups = {row["group"] for row in json.loads(out)["decisions"]["groups"]}
    assert {"macro", "risk", "clusters", "sectors"} <= groups


def test_columns_are_listed_with_units_of_a_config_or_of_all_there_are(yaml, typed):
    code, out, _ = typed("features", "columns", yaml, "--json")
    listed = json.loads(out)
    assert code == 0
    assert not listed["columns"]
    assert {"vix_term", "sector_strength_21", "series_level_mood"} <= {row["name"] for row in listed["context"]}
    assert all(row["unit"] and row["description"] for row in [*listed["context"], *listed["technical"]])
    _, out, _ = typed("features", "columns", "--json")
    assert "fx_return_<pair>_<window>" in {row["name"] for row in json.loads(out)["context"]}
    code, out, _ = typed("features", "columns")
    assert code == 0
    assert "What surrounds the assets" in out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("features.context.series.CPI={published: next_session}", "has no CPI.csv or .parquet; it has DGS10"),
        ("features.context.path=/nowhere", "/nowhere does not exist"),
        ("features.context.sectors={A: x}", "features.context.sectors has no 'B'"),
        (
            "features.context.series.VIX.publishd=same_close",
            "unknown key features.context.series.VIX.publishd. Did you",
        ),
        ("features.context.series.DGS2.published=same_close", "DGS2.published = same_close is too early"),
        ("features.context.columns=[sector_strenth]", "Did you mean sector_strength?"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(yaml, typed, override, message):
    code, _, err = typed("lookahead", yaml, override)
    assert code == 2
    assert message in " ".join(err.split())
    assert "Traceback" not in err


@pytest.mark.slow
def test_the_same_config_is_trained_fold_by_fold_in_a_walk_forward(yaml, folder, typed):
    walk_yaml = folder / "walk.yaml"
    block = "walkforward: {scheme: expanding, train_years: 1, test_months: 4, purge_bars: 2, seeds: [0]}\n"
    text = yaml.read_text(encoding="utf-8").replace("split:\n", f"{block}split:\n")
    text = text.replace("  validation: [2016-01-04, 2016-03-31]\n", "")
    walk_yaml.write_text(text.replace("  test: [2016-04-01,", "  test: [2016-02-02,"), encoding="utf-8")
    code, _, err = typed("walkforward", walk_yaml, "--json")
    assert code == 0, err


@pytest.mark.slow
def test_the_shipped_config_builds_every_column_on_real_prices(shared_equities):
    path = Path(__file__).parents[2] / "tune_configs" / "macro_context.yaml"
    config = load_config(path, [f"data.path={shared_equities}", f"features.context.path={shared_equities.parent / 'macro'}"])
    market = prepare_market(config)
    for name in ("vix_term", "treasury_slope", "dollar_trend_63", "fx_return_EURUSD_21", "risk_regime_crisis"):
        assert np.isfinite(market.tape.context[:, market.tape.context_names.index(name)]).all()
    spring = slice(*market.tape.row_range("2020-03-09", "2020-03-31"))
    assert market.tape.context[spring, market.tape.context_names.index("risk_regime_crisis")].all()
    assert market.tape.context[spring, market.tape.context_names.index("vix")].max() == pytest.approx(82.69)
