"""Teachers: the runs that a training learnt from, by logged episodes or by going on from one, and the trials they stand for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.registry import choice_of, trials_of
from rlplatform.offline.behaviour_config import behaviour_config
from rlplatform.offline.manifest import read_manifest


def teachers(config: ExperimentConfig) -> dict[str, Any]:
    """For the manifest of a training: {"teachers": {"runs": paths, "num_trials": how many trainings they were chosen from}}.

    A student inherits what its teachers were chosen by. Those of one sweep, ablation or pipeline count once; a policy that is
    in no run directory (any more) counts as one. Nothing where there was no teacher.
    """
    counts = {origin: (path, count) for path, origin, count in map(_counted, _policies(config))}
    if not counts:
        return {}
    runs = [str(path) for path, _ in counts.values()]
    return {"teachers": {"runs": runs, "num_trials": sum(count for _, count in counts.values())}}


def _counted(policy: Path) -> tuple[Path, Path, int]:
    """The run of a policy's directory, what its trials are counted by, and how many they are."""
    places = (policy, *policy.parents[:4])
    run = next((p for p in places if (p / "config.yaml").is_file() and (p / "manifest.json").is_file()), None)
    if run is None:
        return policy, policy, 1
    return run, choice_of(run) or run, trials_of(run).count


def _policies(config: ExperimentConfig) -> Iterator[Path]:
    pretrain = config.training.pretrain
    if pretrain is not None:
        yield Path(pretrain.run).resolve()
    for dataset in () if config.dataset is None else config.dataset.paths:
        for behaviour in read_manifest(Path(dataset)).behaviours:
            yield from _of_behaviour(behaviour)


def _of_behaviour(behaviour: Mapping[str, Any]) -> Iterator[Path]:
    if behaviour.get("path") and behaviour.get("kind") == "policy":
        yield Path(behaviour["path"]).resolve()
    for spec, _ in behaviour.get("members") or ():
        yield from _of_behaviour(behaviour_config(spec).to_dict())
