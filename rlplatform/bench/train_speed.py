"""Whole training, contender by contender, in rounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from rlplatform.bench.contenders import SAMPLING, TRAINING, Contender, Result
from rlplatform.bench.figures import arithmetic_limit, fastest, ratio, short, spread_of
from rlplatform.bench.machine import has_bfloat16
from rlplatform.bench.process import run_alone
from rlplatform.bench.task import BenchTask

Say = Callable[[str], None]
CPU, WALL = "steps_per_cpu_s", "steps_per_s"
BEST, BEST_SAMPLING = "rllib_best", "rllib_best_sampling"
SEARCH = tuple(product((64, 128, 256), (2_048, 4_096)))  # envs, minibatch
QUICK_BEST = (128, 4_096)
STOCK_NOTE = "does not normalise observations; ours does"
LIMIT_FORMULA = "1 / (1/forward + epochs/(forward+backward) + 1/env), each the fastest measured alone in this run"


@dataclass(frozen=True)
class Rounds:
    """What every contender said in each round."""

    results: tuple[dict[str, Result], ...]

    def rates(self, name: str, part: str = TRAINING, unit: str = CPU) -> list[float | None]:
        """One rate a round; None where the contender was missing or failed."""
        return [r.get(name, {}).get(part, {}).get(unit) for r in self.results]

    def limits(self, precision: str, epochs: int) -> list[float | None]:
        """The arithmetic limit of each round [env steps a CPU second]."""
        return [limit_of(r.get("limit", {}), precision, epochs) for r in self.results]

    def error(self, name: str) -> str | None:
        return next((r[name]["error"] for r in self.results if "error" in r.get(name, {})), None)

    def first(self, name: str, key: str) -> Any:
        return next((r[name][key] for r in self.results if key in r.get(name, {})), None)


def limit_of(parts: dict[str, float], precision: str, epochs: int) -> float | None:
    """The limit from one round's parts; None when a part is missing.

    A bfloat16 training may act in either precision, so its forward pass is the fastest of both.
    """
    forward_types = ("float32", precision)
    forward = {name: rate for name, rate in parts.items() if name.startswith(tuple(f"forward/{p}/" for p in forward_types))}
    both = {name: rate for name, rate in parts.items() if name.startswith(f"forward_backward/{precision}/")}
    if not (forward and both and "env" in parts):
        return None
    return arithmetic_limit(fastest(forward)[1], fastest(both)[1], parts["env"], epochs)


def train_section(quick: bool, say: Say) -> dict[str, Any]:
    """Rows, search and ratios of the whole section."""
    task = BenchTask(seconds=1.0 if quick else 4.0)
    search = [] if quick else _search(task, say)
    contenders = _contenders(search)
    rounds = Rounds(tuple(_round(i, 1 if quick else 3, contenders, task, say) for i in range(1 if quick else 3)))
    return {
        "train": [_row(rounds, contender) for contender in contenders],
        "search": search,
        "limit": _limit_rows(rounds, task.num_epochs),
        "ratios": train_ratios(rounds, task.num_epochs, "float32"),
        "ratios_bfloat16": train_ratios(rounds, task.num_epochs, "bfloat16") if has_bfloat16() else None,
    }


def train_ratios(rounds: Rounds, epochs: int, precision: str) -> dict[str, float | None]:
    """Ours in `precision` over the others, medians of the rounds' own ratios, by CPU seconds; two runners by wall seconds."""
    name = f"ours_{precision}"
    ours = rounds.rates(name)
    stock_sampling = [
        _best(a, b) for a, b in zip(rounds.rates(BEST, SAMPLING), rounds.rates(BEST_SAMPLING, SAMPLING), strict=True)
    ]
    return {
        "vs_rllib_default": ratio(ours, rounds.rates("rllib_default")),
        "vs_rllib_best": ratio(ours, rounds.rates(BEST)),
        "vs_sb3_recurrent": ratio(ours, rounds.rates("sb3_recurrent")),
        "vs_pufferlib": None,  # no adapter: its source build wants a network and could not be tried
        "of_limit": ratio(ours, rounds.limits(precision, epochs)),
        "sampling_vs_rllib_best": ratio(rounds.rates(name, SAMPLING), stock_sampling),
        "two_runners_vs_one": ratio(rounds.rates("runners_2", SAMPLING, WALL), rounds.rates("runners_1", SAMPLING, WALL)),
    }


def _best(*rates: float | None) -> float | None:
    measured = [rate for rate in rates if rate is not None]
    return max(measured) if measured else None


def _contenders(search: list[dict[str, Any]]) -> list[Contender]:
    sb3 = ("stable-baselines3", "sb3-contrib")
    others = [
        Contender("rllib_default", "stock RLlib, one env (its default)", "stock_rllib", task={"num_envs": 1}, note=STOCK_NOTE),
        *_stock_best(search),
        Contender(
            "sb3_recurrent",
            "sb3-contrib RecurrentPPO",
            "sb3_recurrent",
            needs=sb3,
            note="LSTM of the same width, it has no GRU",
        ),
        Contender("sb3_mlp", "SB3 PPO, MLP", "sb3_mlp", needs=sb3, note="no memory; 128 and 96 wide, policy and value apart"),
        Contender("limit", "arithmetic limit", "limit"),
        Contender("runners_1", "ours, one remote runner", "our_runners", {"num_env_runners": 1}),
        Contender("runners_2", "ours, two remote runners", "our_runners", {"num_env_runners": 2}),
    ]
    precisions = ("float32", "bfloat16") if has_bfloat16() else ("float32",)
    return [Contender(f"ours_{p}", f"ours, {p}", "ours", {"precision": p}) for p in precisions] + others


def _search(task: BenchTask, say: Say) -> list[dict[str, Any]]:
    """Each setting of stock RLlib once."""
    rows = []
    for num_envs, minibatch in SEARCH:
        result = run_alone("stock_rllib", replace(task, num_envs=num_envs, minibatch_size=minibatch, seconds=task.seconds / 2))
        rates = {part: result.get(part, {}).get(CPU) for part in (TRAINING, SAMPLING)}
        rows.append({"num_envs": num_envs, "minibatch_size": minibatch, **rates})
        say(f"search: stock RLlib, {num_envs} envs, minibatch {minibatch}: {short(rates[TRAINING])} steps per CPU s")
    return rows


def _stock_best(search: list[dict[str, Any]]) -> list[Contender]:
    """The best for training, and the best for sampling where that is another."""
    if not search:
        return [_stock(BEST, "stock RLlib, {} envs", *QUICK_BEST)]
    best, sampler = (max(search, key=lambda row, p=p: row[p] or 0.0) for p in (TRAINING, SAMPLING))
    found = [_stock(BEST, "stock RLlib, {} envs (its best)", best["num_envs"], best["minibatch_size"])]
    if sampler["num_envs"] != best["num_envs"]:
        label = "stock RLlib, {} envs (best at sampling)"
        found.append(_stock(BEST_SAMPLING, label, sampler["num_envs"], sampler["minibatch_size"]))
    return found


def _stock(name: str, label: str, num_envs: int, minibatch: int) -> Contender:
    task = {"num_envs": num_envs, "minibatch_size": minibatch}
    return Contender(name, label.format(num_envs), "stock_rllib", task=task, note=f"minibatch {minibatch}; {STOCK_NOTE}")


def _round(index: int, of: int, contenders: list[Contender], task: BenchTask, say: Say) -> dict[str, Result]:
    results = {}
    for contender in contenders:
        if contender.missing:
            continue
        results[contender.name] = result = run_alone(contender.work, replace(task, **contender.task), contender.settings)
        rate = result.get(TRAINING, {}).get(CPU) or limit_of(result, "float32", task.num_epochs)
        said = result.get("error") or f"{short(rate)} steps per CPU s"
        say(f"round {index + 1} of {of}: {contender.label}: {said}")
    return results


def _row(rounds: Rounds, contender: Contender) -> dict[str, Any]:
    row: dict[str, Any] = {"name": contender.name, "label": contender.label, "note": contender.note}
    row["error"] = contender.missing or rounds.error(contender.name)
    row["parameters"] = rounds.first(contender.name, "parameters")
    for part, unit in product((TRAINING, SAMPLING), (CPU, WALL)):
        measured = [rate for rate in rounds.rates(contender.name, part, unit) if rate is not None]
        spread = spread_of(measured)
        row[f"{part}_{unit}"] = None if spread is None else spread.to_dict()
    return row


def _limit_rows(rounds: Rounds, epochs: int) -> dict[str, Any]:
    """Each part's spread, and the limit's in each precision."""
    parts = {name for r in rounds.results for name in r.get("limit", {}) if name != "error"}
    measured = {name: spread_of([r["limit"][name] for r in rounds.results if name in r["limit"]]) for name in sorted(parts)}
    limits = {
        precision: spread_of([limit for limit in rounds.limits(precision, epochs) if limit is not None])
        for precision in ("float32", "bfloat16")
    }
    dicts = {name: None if spread is None else spread.to_dict() for name, spread in limits.items()}
    return {"formula": LIMIT_FORMULA, "parts": {name: s.to_dict() for name, s in measured.items()}, **dicts}
