"""`scenarios check` and `stress --scenarios`: tables, figures, and scenarios fitted on training days alone."""

import json
from dataclasses import replace

import numpy as np
import pytest

from envs.constraints import ConstraintsConfig
from envs.liquidity import LiquidityConfig
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


def test_stress_of_a_policy_under_a_liquidity_limit_says_that_made_up_prices_have_none(config, monkeypatch):
    from rlplatform.experiments import stressing

    monkeypatch.setattr(stressing, "policy_name", lambda config, policy: "HALF")
    market = prepare_market(config)
    limit = ConstraintsConfig(turnover=0.2, liquidity=LiquidityConfig(capital=1e6))
    found = stress(replace(config, env=replace(config.env, constraints=limit)), market, Half(), QUICK)
    assert found.notes[-1] == "No volumes are made up: env.constraints.liquidity does not limit these trades."
    kept = stress(replace(config, env=replace(config.env, constraints=ConstraintsConfig(turnover=0.2))), market, Half(), QUICK)
    assert found.rows == kept.rows != stress(config, market, Half(), QUICK).rows
