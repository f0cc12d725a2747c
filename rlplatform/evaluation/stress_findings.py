"""StressFindings: what a policy and simple rules lose in each kind of scenario, for print and page."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from rlplatform.evaluation.scoretable import percent
from rlplatform.evaluation.stress import StressConfig, StressRow


@dataclass(frozen=True, kw_only=True)
class StressFindings:
    """What policy and rules lose in each kind of scenario.

    Attributes:
        policy, benchmark: names of two of the players.
        rows: kind by kind, players in one order.
        config: which scenarios.
        notes: how it was done.
    """

    policy: str
    benchmark: str
    rows: tuple[StressRow, ...]
    config: StressConfig
    notes: tuple[str, ...] = ()

    def of(self, player: str) -> list[StressRow]:
        """A player's rows."""
        return [row for row in self.rows if row.player == player]

    @property
    def sentence(self) -> str:
        """The worst path of the policy, and of the benchmark."""
        ours, theirs = (min(self.of(name), key=lambda row: row.worst_return) for name in (self.policy, self.benchmark))
        paths = sum(row.paths for row in self.of(self.policy))
        ruined = sum(round(row.ruined * row.paths) for row in self.of(self.policy))
        ending = f"; ruined on {ruined} of them" if ruined else ""
        return (
            f"On the worst of {paths} paths {self.policy} ends {percent(ours.worst_return, sign=True)} ({ours.scenario}), "
            f"{self.benchmark} {percent(theirs.worst_return, sign=True)} ({theirs.scenario}){ending}."
        )

    def table(self) -> list[dict[str, str]]:
        """For print: one row a kind and player."""
        return [
            {
                "scenario": row.scenario,
                "portfolio": row.player,
                "paths": str(row.paths),
                "median": percent(row.median_return, sign=True),
                "5 %": percent(row.return_5, sign=True),
                "worst": percent(row.worst_return, sign=True),
                "median fall": percent(row.median_drawdown),
                "deepest fall": percent(row.worst_drawdown),
                "ruined": percent(row.ruined, 0),
            }
            for row in self.rows
        ]

    def to_dict(self) -> dict[str, Any]:
        return {
            "sentence": self.sentence,
            "policy": self.policy,
            "benchmark": self.benchmark,
            "scenarios": [row.to_dict() for row in self.rows],
            "config": dataclasses.asdict(self.config),
            "notes": list(self.notes),
        }
