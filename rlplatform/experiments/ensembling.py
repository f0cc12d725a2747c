"""Ensembling: several runs' policies as one, judged like any run and left behind as one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from envs.errors import ConfigError
from rlplatform.evaluation.verdict import Verdict
from rlplatform.experiments.comparing import common_period
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.judged_report import guards_in_manifest, judge_and_report
from rlplatform.experiments.judging import OUT_OF_SAMPLE, sample_of
from rlplatform.experiments.loading import plain
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.provenance import timestamp
from rlplatform.experiments.registry import choice_of, setting_of, trials_of
from rlplatform.experiments.results_directory import FINISHED
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.files import directory_sha256
from rlplatform.models.ensemble import Ensemble, load_policy
from rlplatform.models.policy import Policy

FREE = ("reward", "episode")  # of env: what members may have learnt by, and differ in


@dataclass(frozen=True, kw_only=True)
class Member:
    """One run of an ensemble."""

    run: RunDirectory
    config: ExperimentConfig
    policy: Policy

    @property
    def name(self) -> str:
        """The directory's, with that above it: folds of a walk-forward are all called alike."""
        return f"{self.run.path.parent.name}/{self.run.name}"

    @property
    def last_day_learnt(self) -> date:
        return (self.config.split.validation or self.config.split.train)[1]

    def described(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "run": self.run.name,
            "path": str(self.run.path),
            "seed": self.config.seed,
            "setting": setting_of(self.run.path),
            "policy_sha256": directory_sha256(self.run.policy),
            "sharpe": (self.run.manifest().get("test") or {}).get("sharpe"),
        }


@dataclass(frozen=True, kw_only=True)
class EnsemblePlan:
    """An ensemble that may be made: all that its runs' settings say has been checked.

    Attributes:
        config: of the member that learnt from the latest day, with the ensemble's name, place and test period.
        num_trials: how many trainings it was chosen from: those of each sweep once, and at least its members.
    """

    members: tuple[Member, ...]
    config: ExperimentConfig
    num_trials: int


def make_ensemble(plan: EnsemblePlan, on_phase: Callable[[str], None] = lambda text: None) -> tuple[RunDirectory, Verdict]:
    """Average the members' policies, judge the average on the plan's test period, and leave a run directory.

    Its manifest's "ensemble" says who the members are, with hashes of their policies, and from how many trials they come.

    Raises:
        ConfigError: the policies do not suit the market or each other.
    """
    config, members = plan.config, plan.members
    on_phase("reading prices")
    market = prepare_market(config, members[0].run.scaler())
    ensemble = Ensemble([member.policy for member in members])
    run = RunDirectory.create(config)
    run.begin(
        config, market,
        run=config.name,
        seeds=[member.config.seed for member in members],
        ensemble={"members": [member.described() for member in members], "num_trials": plan.num_trials},
    )  # fmt: skip
    try:
        run.write_policy(ensemble, market.scaler)
        on_phase("judging the ensemble and its baselines")
        verdict = judge_and_report(config, market, ensemble, run)
    except BaseException as error:
        run.break_off(error)
        raise
    run.update_manifest(
        status=FINISHED,
        finished=timestamp(),
        parameters=ensemble.num_parameters,
        test=verdict.metrics[verdict.policy.name].to_dict(),
        **guards_in_manifest(verdict),
        verdict=verdict.sentence,
    )
    return run, verdict


def plan_ensemble(paths: Sequence[Path], out: Path | None = None, name: str | None = None) -> EnsemblePlan:
    """Which runs decide together, and on which days they may be judged.

    Args:
        paths: run directories, two or more.
        out: where to make the run directory; the first run's results_dir if not given.
        name: of the ensemble; the first run's with "-ensemble" if not given.

    Raises:
        ConfigError: fewer than two runs, one twice, or runs that do not see, trade and pay the same, or one that has learnt
            from days that judge another.
    """
    members = _members(paths)
    for member in members:
        _check_leverage(member)
        for other in members:
            _check_same(member, other)
    start, end = common_period({member.name: member.config.split.test for member in members})
    latest = max(members, key=lambda member: member.last_day_learnt).config
    first = members[0].config
    config = dataclasses.replace(
        latest,
        name=name or f"{first.name}-ensemble",
        split=dataclasses.replace(latest.split, test=(date.fromisoformat(start), date.fromisoformat(end))),
        results_dir=str(out or first.results_dir),
    )
    return EnsemblePlan(members=tuple(members), config=config, num_trials=_num_trials(members))


def _members(paths: Sequence[Path]) -> list[Member]:
    runs = [RunDirectory.open(path) for path in paths]
    if len(runs) < 2:
        raise ConfigError(f"{len(runs)} run given; an ensemble needs at least two directories such as results/<run>.")
    twice = sorted({run.path for run in runs if [other.path for other in runs].count(run.path) > 1})
    if twice:
        raise ConfigError(f"{twice[0]} is given twice. Give each run once.")
    members = []
    for run in runs:
        run.scaler()  # says what to do where there is no policy yet
        policy = load_policy(run.policy)
        if isinstance(policy, Ensemble):
            raise ConfigError(f"{run.path} is an ensemble itself. Give the runs that it was made of (manifest.json: ensemble).")
        members.append(Member(run=run, config=run.config(), policy=policy))
    return members


def _check_same(first: Member, other: Member) -> None:
    """Whether both trade, read and pay alike, and the first has not learnt from days that judge the other.

    Raises:
        ConfigError: they do not; names the setting.
    """
    settings = [_must_agree(member) for member in (first, other)]
    for key, ours in settings[0].items():
        theirs = settings[1].get(key)
        if ours != theirs:
            raise ConfigError(
                f"{other.name}: {key} is {theirs}; {first.name} has {ours}. An ensemble trades one market on one set of terms: "
                "give runs that agree there."
            )
    if sample_of(first.config.split, *other.config.split.test) != OUT_OF_SAMPLE:
        raise ConfigError(
            f"{first.name} learnt from days until {first.last_day_learnt}; {other.name} is judged from "
            f"{other.config.split.test[0]}. Leave it out, or train it again on the earlier days."
        )
    scales = [member.run.scaler() for member in (first, other)]
    if scales[0] != scales[1]:
        days = [f"{scale.fitted_from[:10]} to {scale.fitted_to[:10]}" for scale in scales]
        raise ConfigError(
            f"{other.name} scales its features by the rows {days[1]}; {first.name} by {days[0]}. One tape serves all members: "
            "give runs of one training period."
        )


def _must_agree(member: Member) -> dict[str, Any]:
    config = plain(member.config)
    env = {f"env.{key}": value for key, value in config["env"].items() if key not in FREE}
    described = member.run.manifest().get("data", {})
    data = {f"data.{key}": described.get(key) for key in ("symbols", "sha256")}
    return {"env.id": env.pop("env.id"), **data, "data": config["data"], **env, "features": config["features"]}


def _check_leverage(member: Member) -> None:
    env = member.config.env
    if getattr(env, "leverage_max", None) is not None and not env.caps.long_only:
        raise ConfigError(
            f"{member.name}: env.leverage_max with caps.long_only = false; the mean of signed actions is not the mean of the "
            "weights there. Ensemble runs without env.leverage_max."
        )


def _num_trials(members: Sequence[Member]) -> int:
    origins: dict[Path, int] = {}
    for member in members:
        origins[choice_of(member.run.path) or member.run.path] = trials_of(member.run.path).count
    return max(len(members), sum(origins.values()))
