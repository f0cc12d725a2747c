"""ObservationLayout: which entries of an observation belong to which asset, and which to all of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from envs.errors import ConfigError


@dataclass(frozen=True)
class ObservationLayout:
    """An observation's named entries, sorted by asset.

    An entry belongs to an asset if it is `<symbol>.<entry>` or `<entry>_<symbol>` and every symbol has it; all others
    (context, cash, drawdown) are shared. Made of plain names, so that a saved policy needs no environment.

    Attributes:
        symbols: N assets, in the order of the weights.
        names: D names of the observation's entries, `TradingTask.observation_names`.
    """

    symbols: tuple[str, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "symbols", tuple(self.symbols))
        object.__setattr__(self, "names", tuple(self.names))

    @property
    def num_assets(self) -> int:
        """N."""
        return len(self.symbols)

    @cached_property
    def asset_entries(self) -> tuple[str, ...]:
        """F entries that every asset has, with `*` for the symbol: `*.return_5`, `weight_*`."""
        every, first = set(self.names), self.symbols[:1]
        candidates = [name for name in (_pattern(each, symbol) for symbol in first for each in self.names) if name is not None]
        return tuple(name for name in candidates if all(name.replace("*", symbol) in every for symbol in self.symbols))

    @cached_property
    def asset_columns(self) -> tuple[tuple[int, ...], ...]:
        """(N, F) columns of the observation."""
        place = {name: column for column, name in enumerate(self.names)}
        return tuple(tuple(place[entry.replace("*", symbol)] for entry in self.asset_entries) for symbol in self.symbols)

    @cached_property
    def shared_columns(self) -> tuple[int, ...]:
        """(C,) columns that belong to no asset."""
        taken = {column for columns in self.asset_columns for column in columns}
        return tuple(column for column in range(len(self.names)) if column not in taken)

    @property
    def shared_entries(self) -> tuple[str, ...]:
        """(C,) names of the shared entries."""
        return tuple(self.names[column] for column in self.shared_columns)

    @cached_property
    def groups(self) -> tuple[int, ...]:
        """(D,) columns of one group mean the same of different assets: f of entry f, F + c of shared entry c."""
        group = {column: f for columns in self.asset_columns for f, column in enumerate(columns)}
        group |= {column: len(self.asset_entries) + c for c, column in enumerate(self.shared_columns)}
        return tuple(group[column] for column in range(len(self.names)))

    def check_same_entries(self, other: ObservationLayout) -> None:
        """Whether a policy of this layout can read observations of the other one.

        Raises:
            ConfigError: names the first entry that only one of them has.
        """
        for kind, ours, theirs in (
            ("of each asset", self.asset_entries, other.asset_entries),
            ("shared", self.shared_entries, other.shared_entries),
        ):
            if ours != theirs:
                different = sorted(set(ours) ^ set(theirs)) or ["their order"]
                raise ConfigError(
                    f"the observation's entries {kind} differ, first in {different[0]}. Other assets are welcome, other "
                    "features are not: use the features and the environment that the policy was trained with."
                )


def _pattern(name: str, symbol: str) -> str | None:
    """The name with `*` in place of the symbol, or None where the symbol is no part of it."""
    if name.startswith(f"{symbol}."):
        return "*" + name.removeprefix(symbol)
    if name.endswith(f"_{symbol}"):
        return name.removesuffix(symbol) + "*"
    return None
