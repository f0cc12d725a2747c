"""`scenarios check` and `stress --scenarios`: tables, figures, and scenarios fitted on training days alone."""

import json
from dataclasses import replace

import numpy as np
import pytest

from envs.constraints import ConstraintsConfig
from envs.liquidity import LiquidityConfig
from rlplatform.data import FolderConfig
from rlplatform.evaluation.stress import StressConfig
from rlplatform.experiments.config import load_config
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.stressing import stress
from rlplatform.scenarios.facts import FACTS

QUICK = StressConfig(paths=2, bars=30, history_bars=300, shocks=())


def test_check_prints_a_verdict_for_each_fact_and_writes_a_figure(typed, small_yaml, tmp_path):
    code, out, _ = typed(
        "scenarios", "check", small_yaml, "--model", "regime_garch", "--paths", 2, "--out", tmp_path / "facts", "--json"
    )
    assert code == 0
    found = json.loads(out)
    facts = found["models"][0]["facts"]
    assert [row["fact"] for row in facts] == [fact.name for fact in FACTS]
    assert {row["fact"]: row["passed"] for row in facts}["memory of r, 1 bar"] is False  # momentum is planted, GARCH has none
    assert "memory of r, 1 bar" in found["models"][0]["sentence"].partition("not kept:")[2]
    assert {path.name for path in (tmp_path / "facts").iterdir()} == {"regime_garch.png", "scenarios.json"}


def test_an_unknown_model_is_one_line(typed, small_yaml, tmp_path):
    code, _, err = typed("scenarios", "check", small_yaml, "--model", "garch", "--out", tmp_path)
    assert code == 2
    assert "scenario model = 'garch'; expected one of block_bootstrap, regime_garch, transformer" in " ".join(err.split())


class Half:
    """Half in the asset, half in cash."""

    def initial_state(self, batch):
        return None

    def act(self, obs, state, deterministic):
        return np.full((len(obs), 2), 0.5, np.float32), state, {}


@pytest.fixture(scope="module")
def config(small_yaml):
    return load_config(small_yaml)


def test_stress_takes_a_model_s_paths_as_further_kinds_fitted_on_training_days(config, monkeypatch):
    from rlplatform.experiments import stressing

    fitted = []
    fit = stressing.fit_model
    monkeypatch.setattr(stressing, "fit_model", lambda settings, gross: fitted.append(gross) or fit(settings, gross))
    monkeypatch.setattr(stressing, "policy_name", lambda config, policy: "HALF")
    market = prepare_market(config)
    found = stress(config, market, Half(), QUICK, model="regime_garch")
    kinds = list(dict.fromkeys(row.scenario for row in found.rows))
    assert kinds[-2:] == ["regime_garch", "regime_garch_crisis"]
    assert all(row.paths == 2 for row in found.of("HALF"))
    first, last = market.tape.row_range(*map(str, config.split.train))
    assert fitted[0].tobytes() == market.tape.gross[first : last + 1].tobytes()
    assert found.notes[-1].startswith("regime_garch: paths of that model, fitted on 2000-06-01 to 2002-12-31")
    without = stress(config, market, Half(), QUICK)
    assert found.rows[: len(without.rows)] == without.rows


class Invested(Half):
    """Asks for everything in the asset, always."""

    def act(self, obs, state, deterministic):
        return np.tile([0.0, 1.0], (len(obs), 1)), state, {}


def test_under_a_liquidity_limit_policy_and_rules_are_stressed_alike(config, tmp_path, monkeypatch):
    """An account of a million and a hundredth of the volume of the drawn days: it takes long to be invested."""
    from rlplatform.experiments import stressing

    monkeypatch.setattr(stressing, "policy_name", lambda config, policy: "INVESTED")
    prices = prepare_market(config).prices
    frame = prices.to_frame().rename(columns={prices.symbols[0]: "close"})
    frame.assign(volume=1e6 / frame["close"]).to_csv(tmp_path / f"{prices.symbols[0]}.csv")
    plain = replace(
        config, data=FolderConfig(path=str(tmp_path), calendar=None), features=replace(config.features, groups=("returns",))
    )
    limit = ConstraintsConfig(liquidity=LiquidityConfig(capital=1e6, participation=0.01))
    limited = replace(plain, env=replace(plain.env, constraints=limit))
    free, found = (stress(c, prepare_market(c), Invested(), QUICK, benchmark="ALL_MOM") for c in (plain, limited))
    for policy, rule, without in zip(found.of("INVESTED"), found.of("ALL_MOM"), free.of("INVESTED"), strict=True):
        assert policy.median_return == pytest.approx(rule.median_return, abs=1e-6)
        assert abs(policy.median_drawdown) < 0.5 * abs(without.median_drawdown)
