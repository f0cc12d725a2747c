"""Attribution: which asset, and which year, a track's return, cost and risk came from; parts sum to the whole."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs import ledger
from envs.errors import ConfigError, ShapeError
from envs.tape import MarketTape
from envs.terms import CostConfig, FinancingConfig
from rlplatform.evaluation.scoretable import percent
from rlplatform.evaluation.track import Track

Array = np.ndarray
SAME = 1e-9  # relative distance of two computations of one return
FINANCING, INTEREST = "financing and fees", "interest on cash"


@dataclass(frozen=True, kw_only=True, eq=False)
class Attribution:
    """A track's net return, bar by bar, as a sum over sources.

    Attributes:
        name: of the track.
        dates: (S + 1,) of the track.
        symbols: N assets.
        sources: K names: the assets, then `FINANCING` and `INTEREST` where there is any.
        gross: (S, K) earned by each before trading costs [fraction of wealth at the bar's start].
        cost: (S, K) cost of trading it, ≥ 0, likewise.
        returns: (S,) Σ_k gross − cost, the track's own simple returns.
        mean_weights: (N,) over the bars.
        bars_per_year: for annual risk.
    """

    name: str
    dates: Array
    symbols: tuple[str, ...]
    sources: tuple[str, ...]
    gross: Array
    cost: Array
    returns: Array
    mean_weights: Array
    bars_per_year: int = 252

    @property
    def net(self) -> Array:
        """(S, K) gross − cost."""
        return self.gross - self.cost

    @property
    def total_return(self) -> float:
        """R = Π(1 + rₜ) − 1."""
        return float(np.expm1(np.log1p(self.returns).sum()))

    @property
    def linking(self) -> Array:
        """(S,) Carino's coefficients, with which each bar's parts add up over time to the compound return R:

            R = Σₜ (kₜ / k) rₜ,    kₜ = ln(1 + rₜ) / rₜ,    k = ln(1 + R) / R

        Source: Carino (1999), "Combining attribution effects over time", Journal of Performance Measurement 3(4).
        """
        return _carino(self.returns) / _carino(np.array([self.total_return]))

    @property
    def return_parts(self) -> Array:
        """(K,) linked gross contributions; with `cost_parts` they sum to `total_return`."""
        return self.linking @ self.gross

    @property
    def cost_parts(self) -> Array:
        """(K,) linked contributions of trading costs, ≤ 0."""
        return -(self.linking @ self.cost) + 0.0

    @property
    def volatility(self) -> float:
        """Standard deviation of net returns, a year; NaN for one bar."""
        return float(self.returns.std(ddof=1) * math.sqrt(self.bars_per_year)) if len(self.returns) > 1 else math.nan

    @property
    def risk_parts(self) -> Array:
        """(K,) Euler's contributions to `volatility`: Cov(net_k, r) / σ(r) · √(bars a year); they sum to it.

        Source: Tasche (1999), "Risk contributions and performance measurement"; here of realised returns, so that a part is
        as much the timing of its weights as the asset's own risk. 0 where nothing varies.
        """
        centred = self.returns - self.returns.mean()
        deviation = float(np.sqrt((centred**2).sum()))
        if deviation == 0:
            return np.zeros(len(self.sources))
        scale = math.sqrt(self.bars_per_year / (len(centred) - 1))
        return (self.net - self.net.mean(0)).T @ centred / deviation * scale

    @property
    def sentence(self) -> str:
        """Where the return came from, and where the risk."""
        net, risk = self.return_parts + self.cost_parts, self.risk_parts
        earned, risked = int(np.argmax(np.abs(net))), int(np.argmax(np.abs(risk)))
        share = percent(float(risk[risked] / self.volatility), 0) if self.volatility > 0 else "–"
        whole, part = percent(self.total_return, sign=True), percent(float(net[earned]), sign=True)
        return (
            f"Of {whole}, {self.sources[earned]} brought {part}; "
            f"{self.sources[risked]} brought {share} of the risk; trading took {percent(-float(self.cost_parts.sum()))}."
        )

    def by_year(self) -> dict[str, tuple[Array, float]]:
        """year → (K,) linked net contributions to the whole period's return, and the year's own return.

        Over all years and sources they sum to `total_return`. A bar belongs to the year in which it ends.
        """
        years = self.dates[1:].astype("datetime64[Y]").astype(int) + 1970
        linked = self.linking[:, None] * self.net
        inside = {str(year): years == year for year in np.unique(years)}
        return {
            year: (linked[rows].sum(0), float(np.expm1(np.log1p(self.returns[rows]).sum()))) for year, rows in inside.items()
        }

    def rows(self) -> list[dict[str, str]]:
        """For print: one row a source by the size of its net contribution, and their sum."""
        gross, cost, risk = self.return_parts, self.cost_parts, self.risk_parts
        weights = [percent(float(weight)) for weight in self.mean_weights] + [""] * (len(self.sources) - len(self.symbols))
        order = np.argsort(-np.abs(gross + cost), kind="stable")
        lines = [_line(self.sources[i], weights[i], gross[i], cost[i], risk[i], self.volatility) for i in order]
        return [*lines, _line("sum", "", gross.sum(), cost.sum(), risk.sum(), self.volatility)]

    def year_rows(self, most: int = 8) -> list[dict[str, str]]:
        """For print: one row a year, a column for each of the `most` sources that matter most, the others summed."""
        order = np.argsort(-np.abs(self.return_parts + self.cost_parts), kind="stable")
        shown, rest = order[:most], order[most:]
        lines = []
        for year, (parts, own) in self.by_year().items():
            line = {"year": year, "return": percent(own, sign=True)}
            line |= {self.sources[i]: percent(float(parts[i]), sign=True) for i in shown}
            lines.append(line | ({f"{len(rest)} others": percent(float(parts[rest].sum()), sign=True)} if len(rest) else {}))
        return lines

    def to_dict(self) -> dict[str, Any]:
        parts = zip(self.sources, self.return_parts, self.cost_parts, self.risk_parts, strict=True)
        weights = dict(zip(self.symbols, self.mean_weights, strict=True))
        return {
            "sentence": self.sentence,
            "method": "returns linked over time after Carino (1999); risk after Euler, Cov(part, r) / σ(r)",
            "total_return": self.total_return,
            "volatility": self.volatility if math.isfinite(self.volatility) else None,
            "sources": [
                {
                    "source": name,
                    "mean_weight": float(weights[name]) if name in weights else None,
                    "return": float(gross),
                    "cost": float(cost),
                    "risk": float(risk),
                }
                for name, gross, cost, risk in parts
            ],
            "years": [
                {"year": year, "return": own, "contributions": dict(zip(self.sources, map(float, parts), strict=True))}
                for year, (parts, own) in self.by_year().items()
            ],
        }


def attribute(track: Track, tape: MarketTape, costs: CostConfig, financing: FinancingConfig) -> Attribution:
    """Split each bar's net return into what each asset earned, what trading it cost, and what money itself cost:

        r = (1 − κ)(1 + R) − 1 = Σₙ (1 − κ) wₙ rₙ − Σₙ κₙ + (1 − κ)(interest − financing − borrow fee)

    Args:
        tape: with the track's dates among its own.
        costs, financing: that the track paid.

    Raises:
        ShapeError: the tape lacks the track's dates or assets.
        ConfigError: the track was ruined, or its returns are not those of its weights under these terms.
    """
    if track.ruined or track.wealth[-1] <= 0:
        raise ConfigError(f"{track.name} was ruined; a return of −100 % cannot be linked over time.")
    inside = _rows_of(track, tape)
    held_bar = ledger.hold(track.weights, inside.gross[1:], financing)
    keeps = (1.0 - track.cost)[:, None]
    per_asset = keeps * track.weights * (inside.gross[1:] - 1.0)
    money = keeps * np.column_stack([-(held_bar.financing + held_bar.borrow_fee), held_bar.interest])
    present = np.flatnonzero(np.abs(money).sum(0) > 0)
    cost = _cost_by_asset(track, inside, held_bar.weights, costs)
    found = Attribution(
        name=track.name,
        dates=track.dates,
        symbols=track.symbols,
        sources=(*track.symbols, *(np.array([FINANCING, INTEREST])[present]).tolist()),
        gross=np.concatenate([per_asset, money[:, present]], axis=1),
        cost=np.concatenate([cost, np.zeros((len(track), len(present)))], axis=1),
        returns=track.returns,
        mean_weights=track.weights.mean(0),
        bars_per_year=financing.bars_per_year,
    )
    _check_sum(found)
    return found


def _cost_by_asset(track: Track, inside: MarketTape, drifted: Array, costs: CostConfig) -> Array:
    held = np.concatenate([np.zeros((1, len(track.symbols))), drifted[:-1]])
    rates = {"half_spread_bps": inside.half_spread_bps[:-1], "impact_scale": inside.impact_scale[:-1]}
    return ledger.cost_by_asset(track.wealth[:-1], held, track.weights, track.cost, costs, **rates)


def _rows_of(track: Track, tape: MarketTape) -> MarketTape:
    rows = np.searchsorted(tape.dates, track.dates)
    inside = rows[-1] < len(tape) and np.array_equal(tape.dates[rows], track.dates) and (np.diff(rows) == 1).all()
    if not inside or track.symbols != tape.symbols:
        raise ShapeError(
            f"{track.name} covers {' to '.join(track.period)} of {', '.join(track.symbols)}; the tape of "
            f"{', '.join(tape.symbols)} lacks some of those dates or assets. Use the tape that it was traded on."
        )
    return tape.rows(int(rows[0]), int(rows[-1]))


def _check_sum(found: Attribution) -> None:
    apart = np.abs(found.net.sum(1) - found.returns)
    if apart.max() > SAME:
        bar = int(apart.argmax())
        raise ConfigError(
            f"{found.name}: the parts of the bar to {str(found.dates[bar + 1])[:10]} sum to {found.net[bar].sum():.3e}; the "
            f"track earned {found.returns[bar]:.3e}. Give the costs and financing that it was traded under."
        )


def _carino(returns: Array) -> Array:
    """ln(1 + r) / r, and its limit 1 at 0."""
    small = np.abs(returns) < 1e-12
    return np.where(small, 1.0, np.log1p(returns) / np.where(small, 1.0, returns))


def _line(name: str, weight: str, gross: float, cost: float, risk: float, volatility: float) -> dict[str, str]:
    share = risk / volatility if volatility > 0 else math.nan
    return {
        "source": name,
        "mean weight": weight,
        "return": percent(float(gross), sign=True),
        "cost": percent(float(cost), 2),
        "net": percent(float(gross + cost), sign=True),
        "risk a year": percent(float(risk), 2),
        "share of risk": percent(float(share), 0),
    }
