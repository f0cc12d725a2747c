"""Series: dated values from outside the market, each with the instant at which it became known."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from envs.errors import MarketDataError
from rlplatform.data.folder import SUFFIXES, list_files, read_raw
from rlplatform.data.request import did_you_mean
from rlplatform.data.schema import column_name, parse_dates

Array = np.ndarray

DATES = ("observation_date",)  # FRED's name, beside those that prices may have
VALUES = ("adj_close", "close", "value")  # looked for in this order
PUBLISHED = "published_at"
NO_VALUE = ("", ".")  # FRED writes a point where a day has none


@dataclass(frozen=True, eq=False, kw_only=True)
class Series:
    """Values of one series, every vintage of them.

    Attributes:
        name: by which columns ask for it.
        days: (R,) datetime64[D] that each value is about, its observation date.
        values: (R,) float64.
        published: (R,) datetime64[ns] UTC from which it is known.
        kind: "level" (changes are differences) or "price" (changes are log returns).
        max_age_days: calendar days after which a value counts as unknown.
        origin: file, and the rule of publication.
    """

    name: str
    days: Array
    values: Array
    published: Array
    kind: str
    max_age_days: int
    origin: str

    def __len__(self) -> int:
        return len(self.days)

    @property
    def sha256(self) -> str:
        """Hash of dates, values and instants."""
        arrays = (self.days.astype("int64"), self.values, self.published.astype("int64"))
        return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()

    def described(self) -> dict[str, object]:
        """For a manifest."""
        span = {"first": str(self.days.min()), "last": str(self.days.max())} if len(self) else {}
        return {"source": self.origin, "sha256": self.sha256, "values": len(self), **span}


@dataclass(frozen=True, eq=False, kw_only=True)
class Table:
    """A series' file as it stands.

    Attributes:
        file: its name, for messages.
        rows: (R,) as an editor counts them, the header is row 1.
        days: (R,) datetime64[D].
        values: (R,) float64.
        published_at: R texts as the file has them, or None where it has no such column.
    """

    file: str
    rows: Array
    days: Array
    values: Array
    published_at: pd.Series | None


def find_file(name: str, path: str) -> Path:
    """The file of a series: `path` itself, or `<name>.csv` or `<name>.parquet` in that folder.

    Raises:
        MarketDataError: there is none; the message says what is there.
    """
    files = list_files(path)
    if Path(path).is_file():
        return files[0]
    found = [file for file in files if file.stem == name]
    if len(found) == 1:
        return found[0]
    names = [file.stem for file in files]
    if found:
        raise MarketDataError(f"{path} holds {name} {len(found)} times: {', '.join(f.name for f in found)}. Give one's path.")
    raise MarketDataError(
        f"{path} has no {name}{' or '.join(SUFFIXES)}; it has {', '.join(names[:40])}.{did_you_mean(name, names)}"
    )


def read_table(file: Path, name: str, column: str | None, positive: bool) -> Table:
    """Dates, values and `published_at` of a file; rows without a value are left out.

    Args:
        column: with the values; if not given adj_close, close, value, or the series' own name, whichever comes first.
        positive: whether values must be > 0.

    Raises:
        MarketDataError: a column is missing, or a row cannot be read; the message names file, row and cure.
    """
    raw = read_raw(file)
    dates = next((c for c in raw.columns if column_name(c) == "date" or str(c).lower() in DATES), None)
    if dates is None:
        raise MarketDataError(f"{file.name} has no column date; found {', '.join(map(str, raw.columns))}. Rename the column.")
    values = raw[_value_column(raw, file, name, column)]
    raw, values = (part[~values.astype(str).str.strip().isin(NO_VALUE) & values.notna()] for part in (raw, values))
    days, numbers = parse_dates(raw[dates]), pd.to_numeric(values, errors="coerce").astype("float64")
    unreadable = days.isna()
    if unreadable.any():
        row = unreadable.idxmax()
        raise MarketDataError(f"{file.name} row {row}: date {raw[dates][row]!r}; expected one such as 2020-03-16. Correct it.")
    wrong = ~np.isfinite(numbers) | ((numbers <= 0) if positive else False)
    if wrong.any():
        row, rule = wrong.idxmax(), "a finite number > 0" if positive else "a finite number"
        raise MarketDataError(f"{file.name} row {row}: {values.name} = {values[row]}; expected {rule}. Correct or delete it.")
    published = next((raw[c] for c in raw.columns if str(c).lower() == PUBLISHED), None)
    return Table(
        file=file.name,
        rows=raw.index.to_numpy(),
        days=days.to_numpy().astype("datetime64[D]"),
        values=numbers.to_numpy(),
        published_at=published,
    )


def _value_column(raw: pd.DataFrame, file: Path, name: str, column: str | None) -> str:
    by_name = {str(c).lower().replace(" ", "_"): c for c in raw.columns}
    asked = (column,) if column else (*VALUES, name)
    found = next((by_name[each.lower()] for each in asked if each.lower() in by_name), None)
    if found is None:
        raise MarketDataError(
            f"{file.name} has no column {' or '.join(asked)}; found {', '.join(map(str, raw.columns))}. Set "
            f"features.context.series.{name}.column."
        )
    return found


def refuse_twice(table: Table, published: Array) -> None:
    """A date has one value at a time: rows of one date need different times of publication."""
    order = np.lexsort((table.rows, published, table.days))
    days, instants, rows = table.days[order], published[order], table.rows[order]
    twice = (days[1:] == days[:-1]) & (instants[1:] == instants[:-1])
    if twice.any():
        i = int(np.argmax(twice))
        raise MarketDataError(
            f"{table.file} row {rows[i + 1]}: {days[i]} stands in row {rows[i]} already; expected one value a date, or a "
            f"{PUBLISHED} for each revision. Delete one."
        )


def window_sum(steps: Array, window: int) -> Array:
    """(T,) sum of the last `window` steps, of all so far at the start; an unknown one (NaN) counts as 0."""
    total = np.nancumsum(steps)
    return total - np.concatenate([np.zeros(min(window, len(total))), total[:-window]])
