"""Judging a run: its policy and every baseline on the same days, with the same costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from envs import make
from envs.regime import REGIMES, RegimeConfig, action_names
from envs.tape import MarketTape
from envs.trading_config import TradingConfig
from rlplatform.evaluation.backtest import Policy as Decider
from rlplatform.evaluation.backtest import run_policy
from rlplatform.evaluation.baselines import judge_baselines, standard_baselines
from rlplatform.evaluation.gate import find_benchmark
from rlplatform.evaluation.track import Track
from rlplatform.evaluation.verdict import Verdict, judge
from rlplatform.experiments.config import ExperimentConfig, SplitConfig
from rlplatform.experiments.optimum import optimal_log_growth
from rlplatform.models.ensemble import Ensemble

OUT_OF_SAMPLE = "Out of sample"
IN_SAMPLE = "In sample (training or validation saw these days)"


def policy_name(config: ExperimentConfig, policy: Decider | None = None) -> str:
    """How reports call a run's policy."""
    if isinstance(policy, Ensemble):
        return f"ENSEMBLE_OF_{len(policy.members)}"
    algorithm, kind = (name.rpartition(":")[2] for name in (config.training.algorithm, config.model.kind))
    return f"{algorithm}_{kind}".upper()


def whole_period(env: TradingConfig) -> TradingConfig:
    """The environment for judging: every row of the period, in order, once."""
    episode = dataclasses.replace(env.episode, length_bars=None, random_start=False)
    return dataclasses.replace(env, episode=episode)


def backtest(
    config: ExperimentConfig, tape: MarketTape, policy: Decider, start: Any = None, end: Any = None, name: str | None = None
) -> Track:
    """The policy's preferred actions on one account over [start, end]."""
    env = make(whole_period(config.env), tape, start and str(start), end and str(end))
    return run_policy(name or policy_name(config, policy), env, policy, symbols=tape.symbols)


def named_regimes(symbols: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """The fixed regimes under the trio's own names."""
    return dict(zip(action_names(tuple(symbols))[1:], REGIMES.values(), strict=True))


def judge_policy(
    config: ExperimentConfig,
    tape: MarketTape,
    policy: Decider,
    start: Any,
    end: Any,
    learning_curve: Sequence[Mapping[str, float]] = (),
    sample: str = OUT_OF_SAMPLE,
) -> Verdict:
    """The policy against every baseline on [start, end].

    Args:
        sample: where those days stand to what training saw, see `sample_of`.
    """
    is_regime = isinstance(config.env, RegimeConfig)
    return judge(
        backtest(config, tape, policy, start, end),
        _baselines(config, tape, start, end),
        gate=config.evaluation.gate,
        bootstrap=dataclasses.replace(config.evaluation.bootstrap, seed=config.seed),
        learning_curve=learning_curve,
        action_names=action_names(tape.symbols) if is_regime else (),
        notes=_notes(config),
        bars_per_year=config.env.financing.bars_per_year,
        sample=sample,
        optimal_growth=optimal_log_growth(config, tape, start, end),
    )


def with_earlier(config: ExperimentConfig, tape: MarketTape, policy: Decider, verdict: Verdict) -> Verdict:
    """The verdict with the paths of policy and main baselines from the first training day on, for the plots."""
    start, end = config.split.train[0], verdict.policy.dates[0].astype("datetime64[D]")
    earlier = [backtest(config, tape, policy, start, end), *_baselines(config, tape, start, end, verdict.main_names)]
    return dataclasses.replace(verdict, earlier=tuple(earlier))


def sample_of(split: SplitConfig, start: Any, end: Any) -> str:
    """What may be said of a judgement on [start, end]: days that chose weights or checkpoint are no test."""
    first, last = split.train[0], (split.validation or split.train)[1]
    days = np.datetime64(str(start), "D"), np.datetime64(str(end), "D")
    if split.is_left_out(*(day.item() for day in days)):
        return OUT_OF_SAMPLE
    overlaps = days[0] <= np.datetime64(last) and days[1] >= np.datetime64(first)
    return IN_SAMPLE if overlaps else OUT_OF_SAMPLE


def check_judging(config: ExperimentConfig, symbols: Sequence[str]) -> None:
    """What judging will need, asked before a training is spent on it.

    Raises:
        ConfigError: the gate's benchmark is not among the baselines.
    """
    regimes = named_regimes(symbols) if isinstance(config.env, RegimeConfig) else None
    find_benchmark(list(standard_baselines(symbols, config.evaluation.baselines, regimes)), config.evaluation.gate.benchmark)


def _baselines(
    config: ExperimentConfig, tape: MarketTape, start: Any, end: Any, only: Collection[str] | None = None
) -> list[Track]:
    regimes = named_regimes(tape.symbols) if isinstance(config.env, RegimeConfig) else None
    env, period = config.env, (str(start), str(end))
    asked = {"config": config.evaluation.baselines, "regimes": regimes, "only": only}
    return judge_baselines(tape, *period, env.costs, env.financing, liquidity=env.liquidity, **asked)


def _notes(config: ExperimentConfig) -> list[str]:
    costs, financing = config.env.costs, config.env.financing
    impact = f" and square-root impact {costs.impact:g}" if costs.impact else ""
    limit = config.env.liquidity
    size = "Every track begins with {:,.0f} and trades at most {:g} of an asset's value traded, mean of {} bars, at each close."
    thin = [] if limit is None else [size.format(limit.capital, limit.participation, limit.adv_bars)]
    return [
        f"Every track pays {costs.proportional_bps:g} bp of traded value{impact}, and {financing.rate_annual:.2%} a year "
        f"on {'gross exposure above 1×' if financing.basis == 'gross' else 'borrowed cash'}.",
        f"Decisions at each close, held to the next; environment {config.env.id}, seed {config.seed}.",
        *thin,
    ]
