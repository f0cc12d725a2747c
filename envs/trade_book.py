"""TradeBook: net profit of each round trip, per asset."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from envs.backend import Backend
from envs.ledger import LedgerStep, at_least, cost_by_asset, total
from envs.snapshot import Stateful
from envs.terms import CostConfig

Array = Any


TINY = 1e-30  # keeps 0 / 0 at 0


class ClosedTrades(NamedTuple):
    """Trades that ended at this step, (B, N)."""

    closed: Array  # bool
    profit: Array  # net of its costs, financing and fees [units of initial wealth]; 0 where none closed


class TradeBook(Stateful):
    """Open profit per asset since its position was opened, in units of initial wealth.

    A trade opens when a position leaves zero and closes when it returns to zero or changes sign. Its profit is price
    profit minus its own trading costs, its share (by |w|) of financing, and its borrow fee. When a position flips, the
    cost of the flip is split between the old and the new trade by the value each part moved. Interest on free cash
    belongs to no trade.
    """

    STATE: ClassVar[tuple[str, ...]] = ("open_profit",)

    def __init__(self, num_accounts: int, num_assets: int, backend: Backend) -> None:
        self.backend = backend
        self.open_profit = backend.array(backend.zeros(num_accounts, num_assets), "float64")

    def reset(self, mask: Array) -> None:
        self.open_profit = self.backend.select(mask, 0.0, self.open_profit)

    def book(
        self, wealth: Array, held: Array, step: LedgerStep, gross_next: Array, costs: CostConfig, **rates: Any
    ) -> ClosedTrades:
        """Book one step. Shapes as in `ledger.step`; `rates` are its half_spread_bps and impact_scale."""
        xp = self.backend.xp
        target = step.target
        stake = (wealth * (1.0 - step.cost))[:, None]
        cost = cost_by_asset(wealth, held, target, step.cost, costs, **rates) * wealth[:, None]
        closed = (held != 0) & (held * target <= 0)
        left, entered = abs(held), abs(target) * (1.0 - step.cost)[:, None]
        closing_cost = cost * closed * (left / at_least(left + entered, TINY))
        profit = xp.where(closed, self.open_profit - closing_cost, 0.0)

        gross, shorts = abs(target), at_least(-target, 0.0)
        per_gross, per_short = step.financing / at_least(total(gross), TINY), step.borrow_fee / at_least(total(shorts), TINY)
        carry = gross * per_gross[:, None] + shorts * per_short[:, None]
        gain = stake * (target * (gross_next - 1.0) - carry) - (cost - closing_cost)
        self.open_profit = xp.where(closed, 0.0, self.open_profit) + gain
        return ClosedTrades(closed, profit)
