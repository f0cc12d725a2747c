"""Rules → target weights of every row of a tape, each decided with rows ≤ t."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from envs import indicators
from envs.errors import ConfigError
from envs.indicators import CALM, CHOPPY
from envs.regime import REGIMES
from envs.tape import MarketTape
from rlplatform.data.request import did_you_mean
from rlplatform.evaluation import baselines
from rlplatform.features.builder import GAUSSIAN_Q90_Q10
from rlplatform.features.scaler import FeatureScaler
from rlplatform.offline.behaviour_config import BehaviourConfig, behaviour_config

Array = np.ndarray

VOLATILITY_BARS = 63  # over which moves are made comparable between assets
LEAD = 0.03  # log return by which the best fund must beat the second to be held alone


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a rule is asked.

    Attributes:
        tape: T rows, N assets.
        config: the behaviour's settings.
        signed: whether weights may be below zero.
        scaler: of the tape's features, so that a forecast among them can be read in its own unit.
    """

    tape: MarketTape
    config: BehaviourConfig
    signed: bool
    scaler: FeatureScaler | None = None


def target_weights(question: Question) -> Array:
    """(T, N) weights [fraction of wealth] that the rule wants at each row, before the caps.

    Raises:
        ConfigError: the rule makes no sense for this market.
    """
    if question.config.kind not in RULES:
        raise ConfigError(f"policy {question.config.kind} has no target weights; expected one of {', '.join(RULES)}.")
    return RULES[question.config.kind](question)


def rolled(rule: baselines.Rule, gross: Array, lookback: int, every: int, before: float) -> Array:
    """A rule of past returns asked at every `every`-th row; its last answer stands in between.

    Args:
        rule: past simple returns (lookback, N) → weights (N,).
        gross: (T, N); row 0 is no return.
        before: weight of every asset until `lookback` returns exist.
    """
    weights = np.full(gross.shape, before)
    for t in range(lookback, len(gross)):
        due = (t - lookback) % every == 0
        weights[t] = rule(gross[t + 1 - lookback : t + 1] - 1.0) if due else weights[t - 1]
    return weights


def _waiting(question: Question) -> float:
    """Before a rule has its window: equal weight, as the baselines do; nothing where weights are signed."""
    return 0.0 if question.signed else question.config.gross / question.tape.num_assets


def _rolled_baseline(question: Question, rule: baselines.Rule) -> Array:
    config = question.config
    before = _waiting(question) / config.gross
    return config.gross * rolled(rule, question.tape.gross, config.lookback, config.every, before)


def topk_equal_weight(question: Question) -> Array:
    """Equal weights on the best over the window; signed, half of gross long on them and half short on the worst."""
    n, config = question.tape.num_assets, question.config
    top = config.top or max(1, n // 4)
    if top > n or (question.signed and 2 * top > n):
        raise ConfigError(f"policy.top = {top}; the market has {n} assets{' for two sides' * question.signed}. Choose fewer.")
    best = _rolled_baseline(question, lambda past: baselines.momentum(past, top))
    if not question.signed:
        return best
    # 1/(1 + r) turns each log return round, so the rule's best are the worst.
    worst = _rolled_baseline(question, lambda past: baselines.momentum(1.0 / (1.0 + past) - 1.0, top))
    return (best - worst) / 2


def inverse_volatility(question: Question) -> Array:
    return _rolled_baseline(question, baselines.inverse_volatility)


def risk_parity(question: Question) -> Array:
    return _rolled_baseline(question, baselines.risk_parity)


def fractional_kelly(question: Question) -> Array:
    """wₙ = fraction · μₙ / σₙ², each asset by itself, clipped to ±cap (long only: to [0, cap]).

    μ is the forecast `mean_feature`, else the rolling mean; σ is the forecast q90 − q10 / 2.563 (a normal's), else rolling.
    """
    tape, config = question.tape, question.config
    ready = np.arange(len(tape)) >= config.lookback
    mean, variance = _rolling_moments(tape.gross - 1.0, config.lookback)
    if config.mean_feature is not None:
        mean, ready = _forecast_mean(question, config.mean_feature), np.ones(len(tape), bool)
    if tape.forecast_uncertainty.any():
        variance = (tape.forecast_uncertainty.astype(np.float64) / GAUSSIAN_Q90_Q10) ** 2
    weights = np.clip(config.fraction * mean / np.maximum(variance, 1e-12), -config.cap if question.signed else 0.0, config.cap)
    return np.where(ready[:, None], weights, _waiting(question))


def _rolling_moments(returns: Array, lookback: int) -> tuple[Array, Array]:
    """Mean and variance (n − 1) of the last `lookback` returns; 0 and 1 before there are as many."""
    mean, variance = np.zeros(returns.shape), np.ones(returns.shape)
    if len(returns) > lookback:
        windows = np.lib.stride_tricks.sliding_window_view(returns[1:], lookback, axis=0)
        mean[lookback:], variance[lookback:] = windows.mean(-1), windows.var(-1, ddof=1)
    return mean, variance


def _forecast_mean(question: Question, name: str) -> Array:
    tape, scaler = question.tape, question.scaler
    if name not in tape.feature_names:
        raise ConfigError(
            f"policy.mean_feature = {name!r}; the tape has no such feature.{did_you_mean(name, tape.feature_names)}"
        )
    values = tape.features[..., tape.feature_names.index(name)].astype(np.float64)
    if scaler is None:
        return values
    column = scaler.feature_names.index(name)
    return values * scaler.feature_std[column] + scaler.feature_mean[column]


def momentum(question: Question) -> Array:
    """Weights ∝ log return over the window / volatility, |w| summing to gross; long only: of rising assets."""
    return _proportional(question, _score(question))


def mean_reversion(question: Question) -> Array:
    """Weights ∝ −log return over the (short) window / volatility, |w| summing to gross; long only: of fallen assets."""
    return _proportional(question, -_score(question))


def _score(question: Question) -> Array:
    gross = question.tape.gross
    volatility = indicators.realised_volatility(gross, VOLATILITY_BARS, bars_per_year=1)
    return indicators.momentum(gross, question.config.lookback) / np.maximum(volatility, 1e-9)


def _proportional(question: Question, score: Array) -> Array:
    score = score if question.signed else np.maximum(score, 0.0)
    size = np.abs(score).sum(-1, keepdims=True)
    return question.config.gross * score / np.maximum(size, 1e-12)


def pair_spread(question: Question) -> Array:
    """±gross/2 a leg: −clip(z / entry_z, −1, 1) on the first, the opposite on the second; z of log P₁ − log P₂."""
    if question.tape.num_assets != 2 or not question.signed:
        raise ConfigError(
            "policy pair_spread trades two assets with signed weights; use PairLeverage-v0, or caps.long_only=false."
        )
    log_return = indicators.log_returns(question.tape.gross)
    spread = np.cumsum(log_return[:, 0] - log_return[:, 1])
    position = -np.clip(indicators.zscore(spread, question.config.lookback) / question.config.entry_z, -1.0, 1.0)
    return question.config.gross / 2 * np.column_stack([position, -position])


def regime_rotation(question: Question) -> Array:
    """Which of the sixteen allocations, from the market's state and each fund's trend.

    calm: the strongest fund alone where it leads by 3 %, else the two strongest; choppy: a tilt to the strongest, or
    balanced when none rises; crisis: three quarters cash, or all of it when none rises.
    """
    tape = question.tape
    if tape.num_assets != 3:
        raise ConfigError(
            f"policy regime_rotation trades three funds; the market has {tape.num_assets}. Use MultiAssetRegime-v0."
        )
    table = {name: np.array(weights[1:]) for name, weights in REGIMES.items()}
    alone = np.stack([table[name] for name in ("ALL_SPY", "ALL_QQQ", "ALL_IWM")])
    pairs = np.stack([table[name] for name in ("QQQ_IWM_50", "SPY_IWM_50", "SPY_QQQ_50")])  # by the one left out
    tilts = np.stack([table[name] for name in ("VALUE_TILT", "GROWTH_TILT", "SMALLCAP_TILT")])
    trend = indicators.momentum(tape.gross, question.config.lookback)
    state = indicators.volatility_regime(tape.gross.mean(1))
    order = np.argsort(trend, axis=1)
    worst, best = order[:, 0], order[:, 2]
    ordered = np.take_along_axis(trend, order, axis=1)
    rises = (ordered[:, 2] > 0)[:, None]
    leads = (ordered[:, 2] - ordered[:, 1] > LEAD)[:, None]
    calm = np.where(leads, alone[best], pairs[worst])
    choppy = np.where(rises, tilts[best], table["BALANCED"])
    crisis = np.where(rises, table["RISK_OFF_75"], table["ALL_CASH"])
    return np.where((state == CALM)[:, None], calm, np.where((state == CHOPPY)[:, None], choppy, crisis))


def blend(question: Question) -> Array:
    """Σ share × weights of the members."""
    total = np.zeros(question.tape.gross.shape)
    for spec, share in question.config.members:
        member = behaviour_config(spec)
        if member.sigma or member.epsilon:
            raise ConfigError(
                f"policy blend: member {spec!r} carries noise of its own. Put it on the blend: blend:…+noise:0.1."
            )
        total += share * target_weights(Question(**{**vars(question), "config": member}))
    return total


RULES: dict[str, Callable[[Question], Array]] = {
    rule.__name__: rule
    for rule in (
        topk_equal_weight,
        fractional_kelly,
        inverse_volatility,
        risk_parity,
        momentum,
        mean_reversion,
        pair_spread,
        regime_rotation,
        blend,
    )
}
