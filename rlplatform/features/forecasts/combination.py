"""Several forecasters as one: their quantile average (`core`), or whichever has earned it (`auto`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlplatform.features.forecasts.config import AutoConfig
from rlplatform.features.forecasts.forecast import Forecast
from rlplatform.features.forecasts.scoring import crps, known_later, outcomes, rolling_mean

Array = np.ndarray

CORE = ("bootstrap", "garch")
REFERENCE = "bootstrap"


def average(members: Mapping[str, Forecast]) -> Forecast:
    """Mean of the members' quantiles; where some are missing, of those there are, and the cell says which are not.

    Averaging quantiles keeps the shape of the members (Lichtendahl, Grushka-Cockayne and Winkler 2013); averaging
    probabilities would widen it.
    """
    known = np.stack([member.known for member in members.values()])  # (M, R, N)
    quantiles = np.stack([member.quantiles for member in members.values()]).astype(np.float64)
    total = np.where(known[..., None, None], quantiles, 0.0).sum(0)
    count = known.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(count[..., None, None] > 0, total / count[..., None, None], np.nan)
    first = next(iter(members.values()))
    return Forecast(
        horizons=first.horizons,
        quantiles=mean.astype(np.float32),
        reasons=_missing_text(members, known),
        sources=_joined_names(tuple(members), known),
        fallback=count < len(members),
    )


def _joined_names(names: tuple[str, ...], known: Array) -> Array:
    sources = np.full(known.shape[1:], "", dtype=object)
    for pattern in np.unique(known.reshape(len(names), -1), axis=1).T:
        cells = (known == pattern[:, None, None]).all(0)
        sources[cells] = "+".join(name for name, there in zip(names, pattern, strict=True) if there)
    return sources


def _missing_text(members: Mapping[str, Forecast], known: Array) -> Array:
    reasons = np.full(known.shape[1:], "", dtype=object)
    for (name, member), there in zip(members.items(), known, strict=True):
        for cell in map(tuple, np.argwhere(~there)):
            reasons[cell] = "; ".join(filter(None, (reasons[cell], f"{name}: {member.reasons[cell]}")))
    return reasons


def first_known(chain: Sequence[Forecast]) -> Forecast:
    """Each cell from the first forecaster that has one. Reason and `fallback` stay those of the first."""
    asked = chain[0]
    quantiles, sources, missing = asked.quantiles.copy(), asked.sources.copy(), ~asked.known
    for other in chain[1:]:
        take = missing & other.known
        quantiles[take], sources[take] = other.quantiles[take], other.sources[take]
        missing &= ~take
    return replace(asked, quantiles=quantiles, sources=sources)


@dataclass(frozen=True, eq=False, kw_only=True)
class Standing:
    """How a candidate has done against the reference, by outcomes known at each row.

    Attributes:
        gain: (T, N) rolling mean of CRPS of the reference − CRPS of the candidate, over the reference's mean [share].
        t: (T, N) of that mean (Diebold-Mariano, rows taken as uncorrelated: the horizon is one bar).
        rows: (T, N) outcomes counted.
    """

    gain: Array
    t: Array
    rows: Array

    @classmethod
    def of(cls, candidate: Forecast, reference: Forecast, log_returns: Array, window: int) -> Standing:
        """Of forecasts at every row; `log_returns` (T, N)."""
        h = candidate.horizons[:1]
        y = outcomes(log_returns, h)
        scores = [known_later(crps(f.quantiles[:, :, :1], y), h)[..., 0] for f in (reference, candidate)]
        gain = scores[0] - scores[1]
        mean, rows = rolling_mean(gain, window)
        square, _ = rolling_mean(gain**2, window)
        base, _ = rolling_mean(np.where(np.isfinite(gain), scores[0], np.nan), window)
        with np.errstate(invalid="ignore", divide="ignore"):
            deviation = np.sqrt(np.maximum(square - mean**2, 0.0) / rows)
            return cls(gain=mean / base, t=np.where(deviation > 0, mean / deviation, 0.0), rows=rows)


def choose(candidates: Mapping[str, Forecast], absent: Mapping[str, str], log_returns: Array, config: AutoConfig) -> Forecast:
    """Per row and symbol the first candidate that has earned it on past rows, else bootstrap; the reasons say why.

    A candidate has earned it when at least `min_rows` outcomes within the last `window` rows are known and its CRPS there is
    below bootstrap's with a t statistic of at least `t_statistic`.

    Args:
        candidates: forecasts at every row, in order of preference, bootstrap among them.
        absent: candidates that cannot be had, and why.
        log_returns: (T, N).
    """
    reference = candidates[REFERENCE]
    quantiles, sources = reference.quantiles.copy(), reference.sources.copy()
    open_cells, reasons = np.ones(reference.known.shape, bool), np.full(reference.known.shape, "", dtype=object)
    passed_over = np.full(reference.known.shape, "; ".join(f"{name} {why}" for name, why in absent.items()), dtype=object)
    for name, candidate in candidates.items():
        if name == REFERENCE:
            continue
        standing = Standing.of(candidate, reference, log_returns, config.window)
        earned = (standing.rows >= config.min_rows) & (standing.t >= config.t_statistic) & candidate.known & open_cells
        quantiles[earned], sources[earned] = candidate.quantiles[earned], candidate.sources[earned]
        for cell in map(tuple, np.argwhere(open_cells)):
            text = _standing_text(name, candidate, standing, cell, config)
            if earned[cell]:
                reasons[cell] = "; ".join(filter(None, (passed_over[cell], f"{text} earned it")))
            else:
                passed_over[cell] = "; ".join(filter(None, (passed_over[cell], text)))
        open_cells &= ~earned
    texts = np.where(open_cells, np.where(reference.known, passed_over, reference.reasons), reasons)
    known = np.isfinite(quantiles).all((2, 3))
    return replace(reference, quantiles=quantiles, sources=sources, reasons=texts, fallback=~known)


def _standing_text(name: str, candidate: Forecast, standing: Standing, cell: tuple, config: AutoConfig) -> str:
    if not candidate.known[cell]:
        return f"{name} {candidate.reasons[cell]}"
    if standing.rows[cell] < config.min_rows:
        return f"{name} unproven ({standing.rows[cell]} < {config.min_rows} outcomes)"
    return f"{name} CRPS {-100 * standing.gain[cell]:+.2f} % of bootstrap's (t {standing.t[cell]:+.1f})"
