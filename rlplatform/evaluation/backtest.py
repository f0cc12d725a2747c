"""Backtests: known targets through the ledger, or a policy through its environment. One continuous path each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from envs import ledger
from envs.backend import Backend
from envs.constraints import Constraints, ConstraintsConfig
from envs.errors import ConfigError, ShapeError
from envs.ledger import LedgerStep
from envs.liquidity import Liquidity, LiquidityConfig, room_of
from envs.tape import MarketTape
from envs.terms import CapsConfig, CostConfig, FinancingConfig
from rlplatform.evaluation.track import Track

Array = np.ndarray


class Policy(Protocol):
    """What a backtest needs of a policy; B accounts at once, arrays in and out."""

    def initial_state(self, batch: int) -> Any:
        """Recurrent state of `batch` accounts before their first observation."""

    def act(self, obs: Array, state: Any, deterministic: bool) -> tuple[Array, Any, dict[str, Array]]:
        """Actions (B, …) for observations (B, D), the next state, and extras such as "entropy" (B,) [nats].

        A policy with M `mode_names` also tells "gate" (B, M), their probabilities.
        """


def run_targets(
    name: str,
    targets: Array,
    tape: MarketTape,
    costs: CostConfig,
    financing: FinancingConfig,
    caps: CapsConfig,
    room: Array | None = None,
) -> Track:
    """Trade known targets over a whole tape.

    The target of row t is decided at the close of t, made feasible, and held to the close of t + 1; the first decision
    falls on row 0, the last on row T − 2, and row T − 1 is the last valuation (its target is never traded).

    Args:
        targets: (T, N) [fraction of wealth after trading].
        tape: T rows, the evaluation period only.
        room: (T, N) the most of each asset that an account of wealth 1 can trade at each row [fraction of wealth], see
            `trading_room`; then every bar trades as far towards its target as there is room. Not limited if not given.

    Raises:
        ShapeError: targets do not have the tape's rows and assets.
    """
    targets = np.asarray(targets, dtype=np.float64)
    if targets.shape != tape.gross.shape:
        raise ShapeError(f"{name}: targets have shape {targets.shape}; the tape is {tape.gross.shape} (rows, assets).")
    limits = gross_caps(tape, caps)[:-1]
    feasible = ledger.project(targets[:-1], caps, limits)
    walk = ledger.path if costs.impact == 0 else _walk
    if room is not None:
        walk = partial(_walk, reach=_within(room, limits, caps, tape.symbols))
    steps = walk(
        feasible[:, None, :],
        tape.gross[1:],
        costs,
        financing,
        half_spread_bps=tape.half_spread_bps[:-1, None, :],
        impact_scale=tape.impact_scale[:-1, None, :],
    )
    return Track.from_ledger_steps(name, tape.dates, tape.symbols, steps)


def gross_caps(tape: MarketTape, caps: CapsConfig) -> Array:
    """(T,) largest Σ|w| decided at each row: the overnight cap at the last bar of a session."""
    overnight = caps.gross if caps.gross_overnight is None else caps.gross_overnight
    return np.where(tape.session_end, overnight, caps.gross)


def trading_room(tape: MarketTape, liquidity: LiquidityConfig | None, first: int, last: int) -> Array | None:
    """`room` of `run_targets` for rows first … last, from volumes of the whole tape up to each row; None if not limited.

    Raises:
        MarketDataError: the tape does not know what was traded.
    """
    if liquidity is None:
        return None
    return Liquidity(liquidity, tape, Backend()).room(np.arange(first, last + 1), np.ones(last + 1 - first))


Reach = Callable[[int, Array, Array, Array], Array]
"""(row, target (B, N), held (B, N), wealth (B,)) → what can be traded to (B, N)."""


def _within(room: Array, limits: Array, caps: CapsConfig, symbols: Sequence[str]) -> Reach:
    """As the environments trade in a thin market."""
    backend = Backend()
    layer = Constraints(ConstraintsConfig(), caps, symbols, backend)

    def reach(row: int, target: Array, held: Array, wealth: Array) -> Array:
        return layer.apply(target, held, np.broadcast_to(limits[row], len(held)), room_of(wealth, room[row], backend))

    return reach


def _walk(
    targets: Array,
    gross_next: Array,
    costs: CostConfig,
    financing: FinancingConfig,
    half_spread_bps: Array,
    impact_scale: Array,
    reach: Reach = lambda row, target, held, wealth: target,
) -> LedgerStep:
    """`ledger.path` step by step: impact and room depend on wealth, which the one-pass form cannot know."""
    wealth, held, steps = np.ones(targets.shape[1]), np.zeros_like(targets[0]), []
    for s, target in enumerate(targets):
        traded = reach(s, target, held, wealth)
        step = ledger.step(wealth, held, traded, gross_next[s], costs, financing, half_spread_bps[s], impact_scale[s])
        step = step._replace(wealth=np.clip(step.wealth, 0.0, None))
        wealth, held = step.wealth, step.weights
        steps.append(step)
    return LedgerStep(*(np.stack(column) for column in zip(*steps, strict=True)))


def run_policy(
    name: str,
    env: Any,
    policy: Policy,
    deterministic: bool = True,
    *,
    symbols: Sequence[str] | None = None,
    seed: int | None = None,
) -> Track:
    """Let a policy trade one account over the environment's whole period, in order, until the environment ends it.

    Args:
        env: a single-account Gymnasium environment whose `info` tells "date", "wealth" and, after a step, "weights"
            (the target (N,) held over the bar), "turnover", "cost" and "financing" (and "borrow_fee" where apart).
        policy: see `Policy`.
        deterministic: the policy's preferred action instead of a sample.
        symbols: N names; those of the environment's tape if not given.
        seed: for `env.reset`.

    Raises:
        ConfigError: no symbols are known.
    """
    obs, info = env.reset(seed=seed)
    state, mode_names = policy.initial_state(1), tuple(getattr(policy, "mode_names", ()))
    infos, actions, entropies, gates, held, ended, terminated = [info], [], [], [], [], False, False
    while not ended:
        action, state, extras = policy.act(np.asarray(obs)[None], state, deterministic)
        action = np.asarray(action)[0]
        obs, _, terminated, truncated, info = env.step(action)
        infos.append(info)
        actions.append(action)
        held.append(_guards_of(env))
        if "entropy" in extras:
            entropies.append(float(np.asarray(extras["entropy"]).reshape(-1)[0]))
        if mode_names:
            gates.append(np.asarray(extras["gate"])[0])
        ended = terminated or truncated
    bars = infos[1:]
    return Track(
        name=name,
        dates=np.array([info["date"] for info in infos], dtype="datetime64[ns]"),
        wealth=np.array([float(info["wealth"]) for info in infos]) / float(infos[0]["wealth"]),
        symbols=tuple(symbols if symbols is not None else _symbols(env)),
        weights=np.array([info["weights"] for info in bars]),
        turnover=np.array([float(info["turnover"]) for info in bars]),
        cost=np.array([float(info["cost"]) for info in bars]),
        financing=np.array([float(info["financing"]) + float(info.get("borrow_fee", 0.0)) for info in bars]),
        actions=np.stack(actions),
        entropy=np.array(entropies) if len(entropies) == len(bars) else None,
        gate=np.stack(gates) if gates else None,
        mode_names=mode_names,
        guards={name: np.array([bar[name] for bar in held]) for name in held[0]},
        ruined=bool(terminated),
    )


def _guards_of(env: Any) -> dict[str, float]:
    """What the guards of the one account did in the last step; nothing where it has none."""
    guards = getattr(getattr(env.unwrapped, "accounts", None), "guards", None)
    return {} if guards is None else {name: float(value[0]) for name, value in guards.last.items()}


def _symbols(env: Any) -> Sequence[str]:
    """Names from the tape of the environment, or of the task it wraps."""
    bare = env.unwrapped
    for owner in (bare, getattr(bare, "task", None)):
        if hasattr(owner, "tape"):
            return owner.tape.symbols
    raise ConfigError(f"{type(bare).__name__} has no tape to name its assets by. Pass symbols= to run_policy.")
