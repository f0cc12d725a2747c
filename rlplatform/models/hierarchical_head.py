"""HierarchicalHead: from the network's numbers to a distribution over modes and actions. What a mode means is said here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import gymnasium as gym
import torch
from torch import Tensor
from torch.nn import functional as F

from envs.errors import ConfigError
from envs.regime import ACTIONS, REGIMES
from rlplatform.models.distributions import ActionDistribution
from rlplatform.models.heads import ActionHead, CategoricalHead, LogisticNormalHead
from rlplatform.models.hierarchical_distributions import BoxedTanhNormal, ModeCategorical, ModeMixture, ShrunkLogisticNormal

MODES = ("probe", "passive", "aggressive")
Benchmark = Literal["auto", "hold", "equal_weight", "cash"]
_BENCHMARKS = ("auto", "hold", "equal_weight", "cash")
AT_RISK_IN_CASH = 0.01  # of the passive mode's cash: the open simplex has no corner
_ACTION_OF = {"hold": "HOLD", "equal_weight": "EQUAL_WEIGHT", "cash": "ALL_CASH"}


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """A small position, to be in the market at little risk.

    Attributes:
        exposure: the most it may hold. Long-only: Σw of the risky assets [fraction of wealth; with leverage, of
            env.leverage_max]. Signed: Σ|w| [fraction of caps.per_asset]. Sixteen regimes: of a regime's risky share.
    """

    exposure: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.exposure < 1:
            raise ConfigError(f"model.modes.probe.exposure = {self.exposure}; expected a fraction in (0, 1), usually 0.25.")


@dataclass(frozen=True, kw_only=True)
class PassiveConfig:
    """No opinion: a stated benchmark, whatever the observation.

    Attributes:
        benchmark: "hold" trades nothing (sixteen regimes only: weights that are held differ from account to account, and the
            network sees them normalised); "equal_weight" is equal weights of cash and every asset (long-only); "cash" is
            no position, on the simplex all but 1 %. "auto" is the first of these that the action space has.
        log_std: log σ of the passive weights, before the map onto them; it is not learnt.
    """

    benchmark: Benchmark = "auto"
    log_std: float = -3.0

    def __post_init__(self) -> None:
        if self.benchmark not in _BENCHMARKS:
            raise ConfigError(f"model.modes.passive.benchmark = {self.benchmark!r}; expected one of {', '.join(_BENCHMARKS)}.")
        if not -5 <= self.log_std <= 0:
            raise ConfigError(f"model.modes.passive.log_std = {self.log_std}; expected a logarithm in [−5, 0].")


@dataclass(frozen=True, kw_only=True)
class ModesConfig:
    """The modes there are. "aggressive", which only the environment limits, there always is.

    Attributes:
        probe, passive: see their own configs; null leaves the mode out.
    """

    probe: ProbeConfig | None = field(default_factory=ProbeConfig)
    passive: PassiveConfig | None = field(default_factory=PassiveConfig)

    def __post_init__(self) -> None:
        for name, kind in (("probe", ProbeConfig), ("passive", PassiveConfig)):  # as they are written beside weights
            if isinstance(getattr(self, name), Mapping):
                object.__setattr__(self, name, kind(**getattr(self, name)))
        if self.probe is None and self.passive is None:
            raise ConfigError("model.modes: only aggressive is left, and one mode is none. Use kind: gru or mlp.")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the M modes, in order."""
        return tuple(name for name in MODES if name == "aggressive" or getattr(self, name) is not None)


@dataclass(frozen=True)
class HierarchicalHead(ActionHead):
    """Gate logits, then the outputs of each mode that learns (probe, aggressive), then their log σ.

    Attributes:
        base: the head of a policy without modes on this action space.
        modes: settings.

    Raises:
        ConfigError: a mode that this action space does not have.
    """

    kind: ClassVar[str] = "hierarchical"
    base: ActionHead
    modes: ModesConfig

    def __post_init__(self) -> None:
        if isinstance(self.base, CategoricalHead) and self.base.n != len(ACTIONS):
            raise ConfigError(
                f"model.kind = hierarchical knows what the {len(ACTIONS)} actions of MultiAssetRegime-v0 hold; these are "
                f"{self.base.n} actions. Use kind: gru or mlp."
            )
        _ = self.benchmark  # refuses what the space does not have

    @property
    def plain(self) -> ActionHead:
        return self.base

    @property
    def mode_names(self) -> tuple[str, ...]:
        return self.modes.names

    @property
    def learning(self) -> tuple[str, ...]:
        """Modes with an actor of their own."""
        return tuple(name for name in self.mode_names if name != "passive")

    def outputs_of(self, mode: str) -> int:
        """Numbers that a learning mode's actor gives."""
        if mode == "probe" and isinstance(self.base, CategoricalHead):
            return len(self._probe_actions)
        return self.base.num_outputs

    @property
    def num_outputs(self) -> int:
        return len(self.mode_names) + sum(map(self.outputs_of, self.learning))

    @property
    def num_log_stds(self) -> int:
        return len(self.learning) * self.base.num_log_stds

    def space(self) -> gym.Space:
        return self.base.space()

    def describe(self) -> dict[str, Any]:
        """Of the plain head; the modes are the model's, `EncoderConfig.action_head` makes this one of it."""
        return self.base.describe()

    def gate(self, params: Tensor) -> Tensor:
        """(..., M) logits of the modes."""
        return params[..., : len(self.mode_names)]

    def distribution(self, params: Tensor) -> ActionDistribution:
        outputs = self._by_mode(params, len(self.mode_names), self.outputs_of)
        if isinstance(self.base, CategoricalHead):
            return ModeCategorical(self.gate(params), torch.stack(self._masses(outputs), -2))
        log_stds = self._by_mode(params, self.num_outputs, lambda mode: self.base.num_log_stds)
        mean = torch.stack([outputs[name] if name in outputs else self._passive_mean(params) for name in self.mode_names], -2)
        log_std = torch.stack(
            [log_stds[name] if name in log_stds else self._passive_log_std(params) for name in self.mode_names], -2
        )
        return ModeMixture(self.gate(params), self._modes(mean, log_std), self._plain_distribution)

    def _by_mode(self, params: Tensor, start: int, size) -> dict[str, Tensor]:
        """Learning mode → its stretch of the parameters, which follow each other from `start` on."""
        found = {}
        for name in self.learning:
            found[name] = params[..., start : start + size(name)]
            start += size(name)
        return found

    def _modes(self, mean: Tensor, log_std: Tensor) -> ShrunkLogisticNormal | BoxedTanhNormal:
        share = [self.modes.probe.exposure if name == "probe" else 1.0 for name in self.mode_names]
        if isinstance(self.base, LogisticNormalHead):
            return ShrunkLogisticNormal(mean, log_std, mean.new_tensor(share), self.base.leverage)
        entries = len(self.base.low)  # each of K entries may take a K-th, so that all together stay below the limit
        sizes = [[1.0] if each == 1.0 else [each / entries] for each in share]
        low, high = (mean.new_tensor(bound) * mean.new_tensor(sizes) for bound in (self.base.low, self.base.high))
        return BoxedTanhNormal(mean, log_std, low, high)

    def _plain_distribution(self, mean: Tensor, log_std: Tensor) -> ActionDistribution:
        return self.base.distribution(torch.cat([mean, log_std], -1))

    # ── what a mode means ────────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def benchmark(self) -> str | None:
        """What the passive mode holds; None without one.

        Raises:
            ConfigError: the action space does not have it.
        """
        if self.modes.passive is None:
            return None
        if isinstance(self.base, CategoricalHead):
            known, why = ("hold", "equal_weight", "cash"), ""
        elif isinstance(self.base, LogisticNormalHead) and not self.base.leverage:
            known, why = ("equal_weight", "cash"), "what is held has no place among weights"
        else:
            known, why = ("cash",), "neither what is held nor equal weights have a place among levered or signed weights"
        asked = self.modes.passive.benchmark
        if asked == "auto":
            return known[0]
        if asked not in known:
            raise ConfigError(
                f"model.modes.passive.benchmark = {asked!r}: {why} in {self.base.space()}. Use {' or '.join(known)}."
            )
        return asked

    def _passive_mean(self, like: Tensor) -> Tensor:
        """(..., K) before the map: the benchmark's place."""
        size, place = self.base.num_outputs, 0.0
        if self.benchmark == "cash" and isinstance(self.base, LogisticNormalHead):
            assets = self.base.num_weights - 1
            place = math.log(AT_RISK_IN_CASH / (1.0 - AT_RISK_IN_CASH) / assets)
        return like.new_full((*like.shape[:-1], size), place)

    def _passive_log_std(self, like: Tensor) -> Tensor:
        return like.new_full((*like.shape[:-1], self.base.num_log_stds), self.modes.passive.log_std)

    @cached_property
    def _probe_actions(self) -> tuple[int, ...]:
        """Regimes whose risky share is within the limit; HOLD may hold anything and is none of them."""
        return tuple(
            number
            for number, weights in enumerate(REGIMES.values(), start=1)
            if sum(weights[1:]) <= self.modes.probe.exposure + 1e-12
        )

    def _masses(self, outputs: dict[str, Tensor]) -> list[Tensor]:
        """(..., n) log-probabilities of each mode."""
        free = outputs["aggressive"]
        masses = {"aggressive": F.log_softmax(free, -1)}
        if "probe" in outputs:
            places = torch.tensor(self._probe_actions, device=free.device)
            empty = torch.full_like(free, -torch.inf)
            masses["probe"] = empty.index_copy(-1, places, F.log_softmax(outputs["probe"], -1))
        if self.benchmark is not None:
            passive = torch.full_like(free, -torch.inf)
            passive[..., ACTIONS.index(_ACTION_OF[self.benchmark])] = 0.0
            masses["passive"] = passive
        return [masses[name] for name in self.mode_names]


def gate_figures(head: ActionHead, params: Tensor) -> dict[str, Tensor]:
    """What metrics.jsonl says of the gate: `mode_share_<mode>`, the mean probability of each, and `gate_entropy` [nats].

    Args:
        head: with modes.
        params: (..., P) of a batch's distributions.
    """
    log_gate = F.log_softmax(head.gate(params), -1)
    shares = log_gate.exp().flatten(0, -2).mean(0)
    figures = {f"mode_share_{name}": share for name, share in zip(head.mode_names, shares, strict=True)}
    return figures | {"gate_entropy": -(log_gate.exp() * log_gate).sum(-1).mean()}


GATE_FIGURES = (*(f"mode_share_{name}" for name in MODES), "gate_entropy")
