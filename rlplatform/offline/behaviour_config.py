"""BehaviourConfig: which behaviour policy logs a dataset, and how much noise lies on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from envs.errors import ConfigError
from rlplatform.data.request import check_choice, did_you_mean

KINDS = {
    "topk_equal_weight": "equal weights on the `top` assets of highest return; signed: as many shorts on the lowest",
    "fractional_kelly": "fraction · mean / variance of each asset, from forecasts where there are, else rolling; capped",
    "inverse_volatility": "weights ∝ 1 / volatility",
    "risk_parity": "every asset contributes the same variance (skfolio), refitted every `every_bars`",
    "momentum": "weights ∝ trend / volatility; long only: of rising assets",
    "mean_reversion": "weights ∝ −(last days' move) / volatility; long only: of fallen assets",
    "pair_spread": "two assets: short the dear leg, long the cheap one, by the z-score of their log spread",
    "regime_rotation": "one of the sixteen allocations by market state and trend (MultiAssetRegime)",
    "blend": "weighted mean of other behaviours' weights",
    "uniform": "random inside the action space",
    "policy": "a trained policy's directory, or an ensemble's",
}
LOOKBACKS = {
    "topk_equal_weight": 63,
    "fractional_kelly": 252,
    "inverse_volatility": 63,
    "risk_parity": 252,
    "momentum": 63,
    "mean_reversion": 5,
    "pair_spread": 63,
    "regime_rotation": 63,
}


@dataclass(frozen=True, kw_only=True)
class BehaviourConfig:
    """One behaviour policy.

    Attributes:
        kind: a key of `KINDS`.
        top: assets held by topk_equal_weight; a quarter of all, at least one, if not given.
        lookback_bars: of returns that the rule reads; `LOOKBACKS[kind]` if not given.
        every_bars: rows between two looks at the rule; its weights are restored at every bar in between.
        gross: Σ|w| that a rule aims at [fraction of wealth].
        fraction: of the full Kelly weight.
        cap: largest |wₙ| of fractional_kelly [fraction of wealth].
        mean_feature: an asset feature of the tape that forecasts the next bar's return [fraction]; rolling mean if not given.
        entry_z: z-score at which pair_spread is fully invested.
        members: (spec, share) of a blend.
        path: directory of a trained policy.
        deterministic: a trained policy's preferred action instead of a sample.
        sigma: standard deviation of noise around the action, in the coordinates of `models/distributions.py`:
            logistic-normal on weights that sum to one, tanh-normal on signed ones.
        epsilon: probability of an action drawn uniformly instead.
        margin: how far noisy continuous actions are pulled inside the space first (a weight of 0 would stay 0).

    Raises:
        ConfigError: a setting outside its meaning.
    """

    kind: str
    top: int | None = None
    lookback_bars: int | None = None
    every_bars: int | None = None
    gross: float = 1.0
    fraction: float = 0.5
    cap: float = 1.0
    mean_feature: str | None = None
    entry_z: float = 2.0
    members: tuple[tuple[str, float], ...] = ()
    path: str | None = None
    deterministic: bool = False
    sigma: float = 0.0
    epsilon: float = 0.0
    margin: float = 0.02

    def __post_init__(self) -> None:
        check_choice("policy.kind", self.kind, KINDS)
        for name, least in (("top", 1), ("lookback_bars", 2), ("every_bars", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"policy.{name} = {value}; expected at least {least}.")
        for name in ("gross", "cap", "entry_z", "fraction"):
            if not 0 < getattr(self, name) <= 100:
                raise ConfigError(f"policy.{name} = {getattr(self, name)}; expected a number in (0, 100].")
        if not 0 <= self.epsilon <= 1:
            raise ConfigError(f"policy.epsilon = {self.epsilon}; expected a probability in [0, 1].")
        if not 0 <= self.sigma <= 10:
            raise ConfigError(f"policy.sigma = {self.sigma}; expected a standard deviation in [0, 10].")
        if not 0 < self.margin < 0.5:
            raise ConfigError(f"policy.margin = {self.margin}; expected in (0, 0.5).")
        if (self.kind == "blend") != bool(self.members):
            raise ConfigError(
                f"policy {self.kind} with members {self.members}; write a blend as blend:momentum*0.7,uniform*0.3."
            )
        if (self.kind == "policy") != bool(self.path):
            raise ConfigError(f"policy {self.kind} with path {self.path!r}; write a trained one as policy:results/RUN/policy.")
        object.__setattr__(self, "members", tuple((str(spec), float(share)) for spec, share in self.members))

    @property
    def lookback(self) -> int:
        """Bars of returns that the rule reads."""
        return self.lookback_bars or LOOKBACKS.get(self.kind, 1)

    @property
    def every(self) -> int:
        """Rows between two looks; a solver's rule (risk parity) is asked once a month by default."""
        return self.every_bars or (21 if self.kind == "risk_parity" else 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `from_dict` reads back."""
        return dataclasses.asdict(self) | {"members": [list(member) for member in self.members]}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> BehaviourConfig:
        """Inverse of `to_dict`.

        Raises:
            ConfigError: an unknown key, or a setting outside its meaning.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        for name in settings:
            if name not in known:
                raise ConfigError(f"unknown key policy.{name}.{did_you_mean(name, known) or f' Known: {sorted(known)}.'}")
        if "kind" not in settings:
            raise ConfigError(f"policy.kind is missing; expected one of {', '.join(KINDS)}.")
        return cls(**settings)


def behaviour_config(spec: str | Mapping[str, Any] | BehaviourConfig) -> BehaviourConfig:
    """A behaviour from its short form.

    "momentum" · "topk_equal_weight:top=3,lookback_bars=21" · "momentum+noise:0.2" · "regime_rotation+epsilon:0.1" ·
    "blend:momentum*0.7,inverse_volatility*0.3" · "policy:results/RUN/policy" (sampled) ·
    "policy:results/RUN/policy+deterministic+noise:0.1" · a mapping of the fields.

    Raises:
        ConfigError: the text cannot be read.
    """
    if isinstance(spec, BehaviourConfig):
        return spec
    if isinstance(spec, Mapping):
        return BehaviourConfig.from_dict(spec)
    base, *noises = spec.split("+")
    kind, _, rest = base.strip().partition(":")
    settings: dict[str, Any] = {"kind": kind}
    if kind == "blend":
        settings["members"] = [_member(part) for part in rest.split(",") if part.strip()]
    elif kind == "policy":
        settings["path"] = rest
    else:
        settings |= dict(_setting(part, spec) for part in rest.split(",") if part.strip())
    for noise in noises:
        name, _, value = noise.strip().partition(":")
        if name == "deterministic" and kind == "policy" and not value:
            settings["deterministic"] = True
            continue
        if name not in ("noise", "epsilon"):
            own = "+deterministic, " if kind == "policy" else ""
            raise ConfigError(f"policy {spec!r}: +{name} is unknown; expected {own}+noise:SIGMA or +epsilon:SHARE.")
        settings["sigma" if name == "noise" else "epsilon"] = _number(value, f"+{name}", spec)
    return BehaviourConfig.from_dict(settings)


def _member(part: str) -> tuple[str, float]:
    spec, _, share = part.strip().partition("*")
    return spec, _number(share or "1", f"share of {spec}", part)


def _setting(part: str, spec: str) -> tuple[str, Any]:
    name, equals, value = part.strip().partition("=")
    if not equals:
        raise ConfigError(f"policy {spec!r}: {part!r} is no setting; expected key=value, such as top=3.")
    if name == "mean_feature":
        return name, value
    number = _number(value, name, spec)
    return name, int(number) if name in ("top", "lookback_bars", "every_bars") else number


def _number(text: str, name: str, spec: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"policy {spec!r}: {name} = {text!r}; expected a number.") from None
