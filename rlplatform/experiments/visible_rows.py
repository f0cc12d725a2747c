"""Which rows of a tape a training may see."""

from __future__ import annotations

import dataclasses

import numpy as np

from envs.tape import MarketTape
from rlplatform.experiments.config import ExperimentConfig, SplitConfig


def rows_before_test(config: ExperimentConfig, tape: MarketTape) -> MarketTape:
    """The tape up to the last row that training or validation may see: nobody who has it can peek at the test."""
    return _learnt_from(config.split, _until(tape, (config.split.validation or config.split.train)[1]))


def training_rows(config: ExperimentConfig, tape: MarketTape) -> MarketTape:
    """What training environments get: no row after `split.train`, and none that `split.left_out` names.

    Over a gap nothing is earned (gross return 1): the return of the first row after it began inside the gap.
    """
    return _learnt_from(config.split, _until(tape, config.split.train[1]))


def _until(tape: MarketTape, last_day: object) -> MarketTape:
    return tape.rows(0, tape.row_range(None, str(last_day))[1])


def _learnt_from(split: SplitConfig, tape: MarketTape) -> MarketTape:
    days = tape.dates.astype("datetime64[D]")
    kept = np.ones(len(tape), bool)
    for first, last in split.left_out:
        kept &= (days < np.datetime64(first)) | (days > np.datetime64(last))
    if kept.all():
        return tape
    named = {"symbols", "feature_names", "context_names"}
    given = {f.name: getattr(tape, f.name) for f in dataclasses.fields(tape) if f.name not in named}
    arrays = {name: array[kept] for name, array in given.items() if array is not None}
    after_gap = np.diff(np.flatnonzero(kept), prepend=-1) > 1
    arrays["gross"] = np.where(after_gap[:, None], 1.0, arrays["gross"])
    return dataclasses.replace(tape, **arrays)
