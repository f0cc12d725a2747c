"""The way of the data, one step at a time, with each shape printed: `make tour`."""

from __future__ import annotations

import numpy as np

from envs import MarketTape, ledger, make, make_vec
from envs.backend import Backend
from envs.portfolio import PortfolioConfig
from rlplatform.data import BundledConfig, load_prices
from rlplatform.evaluation.baselines import judge_baselines
from rlplatform.evaluation.metrics import summarize
from rlplatform.features import FeatureBuilder, FeatureConfig


def show(step: str, what: str) -> None:
    print(f"{step:<10} {what}")


def main() -> None:
    prices = load_prices(BundledConfig(dataset="factors"))
    show("prices", f"close {prices.close.shape} (T, N): {', '.join(prices.symbols)}, {prices.source}")

    cube = FeatureBuilder(FeatureConfig()).build(prices)
    show("features", f"features {cube.features.shape} (T, N, F), context {cube.context.shape} (T, C)")
    scaler = cube.fit_scaler(train_end="2018-12-31")
    show("scaler", f"fitted on {scaler.fitted_from[:10]} to {scaler.fitted_to[:10]} only")

    tape: MarketTape = cube.scaled(scaler).to_tape()
    show("tape", f"gross {tape.gross.shape} (T, N), read-only, sha256 {tape.sha256[:12]}")

    config = PortfolioConfig()
    env = make(config, tape, "2015-01-02", "2018-12-31")
    obs, info = env.reset(seed=0)
    show("env", f"obs {obs.shape} (D,) at {str(info['date'])[:10]}, action {env.action_space}")
    _, reward, _, _, info = env.step(np.array([0.5, 0.1, 0.1, 0.1, 0.1, 0.1], np.float32))
    terms = ", ".join(f"{name} {value:+.4f}" for name, value in info["reward_terms"].items())
    show("step", f"cost {info['cost']:.6f}, turnover {info['turnover']:.3f}, reward {reward:+.4f} = {terms}")

    many = make_vec(config, tape, 256, "2015-01-02", "2018-12-31", Backend("torch", "float32"))
    batch, _ = many.reset(seed=0)
    show("batch", f"obs {tuple(batch.shape)} (B, D) on torch: the same step loop")

    held = ledger.trade(1_000, [0.5], config.costs)
    show("ledger", f"buying half of 1,000 USD costs {float(held.cost):.4f} USD at {config.costs.proportional_bps:g} bp")

    tracks = judge_baselines(tape, "2019-01-01", "2022-12-28", config.costs, config.financing)
    best = max(tracks, key=lambda track: summarize(track).sharpe if track.name != "CASH" else -np.inf)
    metrics = summarize(best)
    show("wealth", f"{len(tracks)} baselines, wealth {best.wealth.shape} (S + 1,) each")
    show(
        "judged",
        f"{best.name}: total return {metrics.total_return:+.1%}, Sharpe {metrics.sharpe:.2f} ± {metrics.sharpe_se:.2f}",
    )


if __name__ == "__main__":
    main()
