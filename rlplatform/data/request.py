"""What a source is asked for: symbols and a period."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import numpy as np

from envs.errors import ConfigError


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """' Did you mean X?' for the nearest known name in any case, or ''."""
    by_folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(str(found).casefold(), by_folded, n=1, cutoff=0.6)
    return f" Did you mean {by_folded[near[0]]}?" if near else ""


def check_choice(where: str, found: object, choices: Iterable[str]) -> None:
    """Refuse a setting that is not one of `choices`."""
    choices = tuple(choices)
    if found not in choices:
        raise ConfigError(f"{where} = {found!r}; expected one of {', '.join(choices)}.{did_you_mean(str(found), choices)}")


def clean_symbols(where: str, symbols: Iterable[str]) -> tuple[str, ...]:
    """Symbols as a tuple of unique non-empty names."""
    if isinstance(symbols, str):
        raise ConfigError(f"{where} = {symbols!r} is one text; expected a list such as [SPY, QQQ]. Put it in brackets.")
    symbols = tuple(symbols)
    for symbol in symbols:
        if not isinstance(symbol, str) or not symbol.strip():
            raise ConfigError(f"{where} names {symbol!r}; expected a text such as 'SPY'. Put it in quotes.")
        if symbols.count(symbol) > 1:
            raise ConfigError(f"{where} names {symbol!r} {symbols.count(symbol)} times. Name it once.")
    return symbols


def clean_date(where: str, date: object) -> str | None:
    """A date as text, or None."""
    if date is None:
        return None
    try:
        parsed = np.datetime64(str(date), "ns")
    except ValueError:
        parsed = np.datetime64("NaT")
    if np.isnat(parsed):
        raise ConfigError(f"{where} = {date!r} is not a date; expected one such as 2015-01-31.")
    return str(date)


def clean_period(where: str, start: object, end: object) -> tuple[str | None, str | None]:
    """Start and end (both included) as text, in order."""
    start, end = clean_date(f"{where}.start", start), clean_date(f"{where}.end", end)
    if start is not None and end is not None and np.datetime64(start, "D") > np.datetime64(end, "D"):
        raise ConfigError(f"{where}: start = {start} is after end = {end}. Swap them.")
    return start, end


def clean_request(config: object, where: str = "data") -> None:
    """Normalise `symbols`, `start` and `end` of a frozen source config in place, from its __post_init__."""
    start, end = clean_period(where, config.start, config.end)
    object.__setattr__(config, "symbols", clean_symbols(f"{where}.symbols", config.symbols))
    object.__setattr__(config, "start", start)
    object.__setattr__(config, "end", end)
