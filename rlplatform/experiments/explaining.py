"""Explaining a run: what moved its policy's decisions, and where its return, cost and risk came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from envs import make
from envs.tape import MarketTape
from rlplatform.evaluation.attribution import Attribution, attribute
from rlplatform.evaluation.attribution_plots import plot_contributions, plot_effects, plot_effects_over_time
from rlplatform.evaluation.backtest import Policy as Decider
from rlplatform.evaluation.shapley import ExplainConfig, Explanation, explain, feature_groups
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.judging import backtest, whole_period
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.files import replaced_file, write_json
from rlplatform.models.ensemble import load_policy
from rlplatform.models.policy import Policy

Array = np.ndarray
FILE = "explanation.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class RunExplanation:
    """Of one run over its test period.

    Attributes:
        run: its name.
        decisions: Shapley values of groups of observation columns for the target weights.
        result: contributions of assets and years to return, cost and risk.
    """

    run: str
    decisions: Explanation
    result: Attribution

    def to_dict(self) -> dict[str, Any]:
        return {"run": self.run, "decisions": self.decisions.to_dict(), "result": self.result.to_dict()}

    def figures(self) -> Iterator[tuple[str, Figure]]:
        """File name and figure."""
        yield "effects.png", plot_effects(self.decisions)
        yield "effects_over_time.png", plot_effects_over_time(self.decisions)
        yield "contributions.png", plot_contributions(self.result)


def explain_run(
    path: Path, config: ExplainConfig | None = None, on_phase: Callable[[str], None] = lambda text: None
) -> RunExplanation:
    """Explain a run's decisions and result on its test period; writes explanation.json and figures into its report.

    Returns:
        RunExplanation.

    Raises:
        ConfigError: no run there, none with a policy yet, or one whose account was ruined.
    """
    run = RunDirectory.open(path)
    settings, scaler = run.config(), run.scaler()
    tape, policy = prepare_market(settings, scaler).tape, load_policy(run.policy)
    on_phase("what moved its decisions")
    decisions = explain_decisions(settings, tape, policy, config)
    on_phase("where its return came from")
    track = backtest(settings, tape, policy, *settings.split.test)
    result = attribute(track, tape, settings.env.costs, settings.env.financing)
    found = RunExplanation(run=run.name, decisions=decisions, result=result)
    _write(run.report, found)
    return found


def explain_decisions(
    config: ExperimentConfig, tape: MarketTape, policy: Policy, settings: ExplainConfig | None = None
) -> Explanation:
    """What moved the policy's target weights on the test period, against what it saw on average in training."""
    env = make(whole_period(config.env), tape, *map(str, config.split.test))
    baseline, origin = mean_observation(config, tape, policy)
    return explain(env, policy, feature_groups(env.task), baseline, settings, origin)


def mean_observation(config: ExperimentConfig, tape: MarketTape, policy: Policy) -> tuple[Array, str]:
    """(D,) what the policy saw on average in training, and where that is from.

    The mean of its frozen normaliser; without one, the mean along its own path over the training period.
    """
    if policy.normalizer is not None and policy.normalizer.count:
        return policy.normalizer.mean.astype(np.float32), "mean of training, from the normaliser"
    watched = _Watched(policy)
    backtest(config, tape, watched, *config.split.train)
    return np.mean(watched.seen, axis=0).astype(np.float32), "mean of its own path over the training period"


class _Watched:
    """A policy that remembers what it saw."""

    def __init__(self, policy: Decider) -> None:
        self.policy, self.seen = policy, []

    def initial_state(self, batch: int) -> Any:
        return self.policy.initial_state(batch)

    def act(self, obs: Array, state: Any, deterministic: bool) -> tuple[Array, Any, dict[str, Array]]:
        self.seen.append(obs[0].astype(np.float64))
        return self.policy.act(obs, state, deterministic)


def _write(report: Path, found: RunExplanation) -> None:
    report.mkdir(parents=True, exist_ok=True)
    for name, figure in found.figures():
        with replaced_file(report / name) as draft:
            figure.savefig(draft, format="png")
    write_json(report / FILE, found.to_dict())
