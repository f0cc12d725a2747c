"""ExperimentConfig: everything one training run depends on, composed of each room's own config."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, WrapValidator

from envs.errors import ConfigError
from envs.pair_leverage import PairLeverageConfig
from envs.portfolio import PortfolioConfig
from envs.regime import RegimeConfig
from rlplatform.algorithms.cql import CQLTrainingConfig
from rlplatform.algorithms.differentiable import DifferentiableTrainingConfig
from rlplatform.algorithms.discrete_cql import DiscreteCQLTrainingConfig
from rlplatform.algorithms.imitation import BCTrainingConfig, MARWILTrainingConfig
from rlplatform.algorithms.iql import IQLTrainingConfig
from rlplatform.algorithms.modes import check_modes
from rlplatform.algorithms.ppo import PPOTrainingConfig
from rlplatform.algorithms.settings import OfflineSettings
from rlplatform.algorithms.tail_risk import check_tail_risk
from rlplatform.algorithms.tqc import TQCTrainingConfig
from rlplatform.data import BundledConfig, FolderConfig, SyntheticConfig, YahooConfig
from rlplatform.evaluation.baselines import BaselineConfig
from rlplatform.evaluation.gate import GateConfig
from rlplatform.evaluation.significance import BootstrapConfig
from rlplatform.experiments.loading import plain, structure
from rlplatform.experiments.logged_data import DatasetConfig, dataset_sections
from rlplatform.experiments.scenario_config import ScenariosConfig
from rlplatform.experiments.tracking import TrackingConfig
from rlplatform.experiments.yaml_text import apply_overrides, read_yaml
from rlplatform.features import FeatureConfig
from rlplatform.models.config import is_own_kind, model_class, own_class
from rlplatform.models.gnn import GNNConfig
from rlplatform.models.gru import GRUConfig
from rlplatform.models.hierarchical import HierarchicalConfig
from rlplatform.models.mlp import MLPConfig

DataConfig = Annotated[BundledConfig | FolderConfig | YahooConfig | SyntheticConfig, Field(discriminator="source")]
EnvConfig = Annotated[PortfolioConfig | RegimeConfig | PairLeverageConfig, Field(discriminator="id")]
Period = tuple[datetime.date, datetime.date]
SEARCH, WALKFORWARD, FORECAST, PIPELINE, ABLATION = "search", "walkforward", "forecast", "pipeline", "ablation"
BLOCKS = (SEARCH, WALKFORWARD, FORECAST, PIPELINE, ABLATION)  # of a file that are no part of a training


def _or_own(tag: str, section: str, find: Callable[[Any], type]) -> WrapValidator:
    """A class of the user's own, `{tag}: package.module:ClassConfig`, as strictly as one of ours."""

    def read(content: Any, ours: Callable[[Any], Any]) -> Any:
        kind = content.get(tag) if isinstance(content, Mapping) else None
        return structure(find(kind), content, where=section) if is_own_kind(kind) else ours(content)

    return WrapValidator(read)


def _own_algorithm(name: str) -> type[PPOTrainingConfig]:
    algorithms = [f.default for config in get_args(OurTrainings) for f in fields(config) if f.name == "algorithm"]
    return own_class("training.algorithm", name, PPOTrainingConfig, algorithms)


_OurModels = GRUConfig | MLPConfig | GNNConfig | HierarchicalConfig
_Online = PPOTrainingConfig | TQCTrainingConfig | DifferentiableTrainingConfig
_Imitation = BCTrainingConfig | MARWILTrainingConfig
OurTrainings = _Online | _Imitation | CQLTrainingConfig | IQLTrainingConfig | DiscreteCQLTrainingConfig
ModelConfig = Annotated[_OurModels, Field(discriminator="kind"), _or_own("kind", "model", model_class)]
TrainingConfig = Annotated[OurTrainings, Field(discriminator="algorithm"), _or_own("algorithm", "training", _own_algorithm)]


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Which days train, which choose the checkpoint, which judge. First and last day of each, both included.

    Attributes:
        train: episodes and scalers see these rows only.
        validation: after `train`; chooses the best checkpoint. Without it the last weights are judged.
        test: after both; opened once, at the end.
        left_out: stretches of `train` that nothing is learnt from, as a combinatorial walk-forward has; a test may lie there.
    """

    train: Period
    test: Period
    validation: Period | None = None
    left_out: tuple[Period, ...] = ()

    def __post_init__(self) -> None:
        if self.left_out and self.validation is not None:
            raise ConfigError("split.left_out with split.validation: a training with gaps keeps no validation. Leave one out.")
        periods = {"train": self.train, "validation": self.validation, "test": self.test}
        if self.is_left_out(*self.test):
            del periods["test"]
        previous = None
        for name, period in periods.items():
            if period is None:
                continue
            if period[0] >= period[1]:
                raise ConfigError(f"split.{name} = [{period[0]}, {period[1]}] ends before it starts. Swap the dates.")
            if previous is not None and period[0] <= periods[previous][1]:
                raise ConfigError(
                    f"split.{name} starts {period[0]}, inside split.{previous} which ends {periods[previous][1]}. "
                    "Periods follow each other: train, validation, test."
                )
            previous = name

    def is_left_out(self, start: datetime.date, end: datetime.date) -> bool:
        """Whether no day of [start, end] was learnt from, though it lies inside `train`."""
        return any(first <= start and end <= last for first, last in self.left_out)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How the policy is looked at while it trains, and judged at the end.

    Attributes:
        interval_iterations: training iterations between two looks at the validation period.
        metric: of the validation track, higher is better; chooses the best checkpoint.
        policy: which weights are judged: the best on validation, or the last.
        select_by: who chooses the best checkpoint: the validation period; or weighted importance sampling (wis) or a doubly
            robust estimate (dr; a fit of Q at each look, some seconds) on logged episodes that are not learnt from. auto takes
            the validation period where there is one, else wis where the dataset allows it.
        held_out: share of the dataset that these episodes are: its last days, see `HoldOut`. For wis and dr only.
        patience: looks without a better checkpoint after which the training ends early; null never does.
        baselines, bootstrap, gate: see their own configs.
    """

    interval_iterations: int = 5
    metric: Literal["sharpe", "sortino", "total_return", "cagr"] = "sharpe"
    policy: Literal["best", "last"] = "best"
    select_by: Literal["auto", "validation", "wis", "dr"] = "auto"
    held_out: float = 0.2
    patience: int | None = None
    baselines: BaselineConfig = field(default_factory=BaselineConfig)
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    gate: GateConfig = field(default_factory=GateConfig)

    def __post_init__(self) -> None:
        if self.interval_iterations < 1:
            raise ConfigError(f"evaluation.interval_iterations = {self.interval_iterations}; expected at least 1.")
        if not 0 < self.held_out < 1:
            raise ConfigError(f"evaluation.held_out = {self.held_out}; expected a share in (0, 1), usually 0.2.")
        if self.patience is not None and self.patience < 1:
            raise ConfigError(f"evaluation.patience = {self.patience}; expected at least 1 look, or null for no early end.")


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """One training run.

    Attributes:
        name: first part of the run directory's name.
        seed: of weights, exploration, episode starts and bootstrap.
        scenarios: generated histories that accounts train on beside the real one; validation and test stay real.
        dataset: logged episodes, for the offline algorithms; without `data`, `split`, `env` or `features` of its own the
            experiment takes the dataset's.
        results_dir: where run directories are made.
        tracking: where the run is shown; changes nothing of it, and so has no part in its hash.
    """

    name: str
    data: DataConfig
    split: SplitConfig
    env: EnvConfig
    seed: int = 0
    features: FeatureConfig = field(default_factory=FeatureConfig)
    model: ModelConfig = field(default_factory=GRUConfig)
    training: TrainingConfig = field(default_factory=PPOTrainingConfig)
    scenarios: ScenariosConfig | None = None
    dataset: DatasetConfig | None = None
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    results_dir: str = "results"
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        if not self.name or any(c in self.name for c in "/\\ :"):
            raise ConfigError(f"name = {self.name!r}; it becomes a folder's name, so no spaces, colons or slashes.")
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"seed = {self.seed}; expected 0 ≤ seed < 2^31.")
        algorithm, offline = self.training.algorithm, isinstance(self.training, OfflineSettings)
        if offline and self.dataset is None:
            raise ConfigError(f"training.algorithm = {algorithm} learns from a dataset; give dataset: {{paths: [DIR]}}.")
        if not offline and self.dataset is not None:
            raise ConfigError(
                f"training.algorithm = {algorithm} learns from the environment and reads no dataset. Leave `dataset` out, or "
                "train an offline algorithm on it and go on from that run with training.pretrain.run."
            )
        if self.scenarios is not None:
            _check_scenarios(self.scenarios, self)
        check_tail_risk(self.training, self.model)
        check_modes(self.training, self.model)
        if not offline and self.evaluation.select_by in ("wis", "dr"):
            raise ConfigError(
                f"evaluation.select_by = {self.evaluation.select_by} judges by logged episodes; training.algorithm = "
                f"{algorithm} has none. Use validation."
            )

    @property
    def step_unit(self) -> str:
        """What the training's length is counted in."""
        return self.training.unit

    @property
    def needs_ray(self) -> bool:
        """Whether the training runs on Ray; one by gradients through the ledger in this process does not."""
        return self.training.needs_ray

    @property
    def sha256(self) -> str:
        """Hash of the complete config; part of a run's manifest. 1 and 1.0 are the same setting."""
        content = {name: value for name, value in plain(self).items() if name != "tracking"}
        return hashlib.sha256(json.dumps(_same_numbers(content), sort_keys=True).encode()).hexdigest()


def _check_scenarios(scenarios: ScenariosConfig, config: ExperimentConfig) -> None:
    if config.dataset is not None:
        raise ConfigError(
            f"scenarios with training.algorithm = {config.training.algorithm}: it learns from logged episodes, not from "
            "accounts that trade. Leave scenarios out."
        )
    if config.split.left_out:
        raise ConfigError("scenarios with split.left_out: a law is fitted on rows in their order. Leave one of the two out.")
    scenarios.check(config.features, config.env)


def in_one_process(config: ExperimentConfig) -> ExperimentConfig:
    """The same training without remote runners and learners, so that a breakpoint stops where it is."""
    remote = ("num_env_runners", "num_learners", "num_gpus_per_learner")
    here = {name: 0 for name in remote if hasattr(config.training, name)}
    return replace(config, training=replace(config.training, **here))


def _same_numbers(value: Any) -> Any:
    """Every number but a truth value as float: a default may be 0 where its YAML reads back as 0.0."""
    if isinstance(value, dict):
        return {key: _same_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_same_numbers(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def load_config(path: Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """The YAML file as an ExperimentConfig, with "key=value" overrides applied. Of a sweep's file, what is not varied.

    Raises:
        ConfigError: names the file and the key.
    """
    content = config_content(path, overrides)
    for block in BLOCKS:
        content.pop(block, None)
    return structure(ExperimentConfig, content, where=Path(path).name)


def config_content(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What the YAML file says, overrides applied, with what it takes from its dataset.

    Raises:
        ConfigError: the file cannot be read, or an override has another form than "key=value".
        DatasetError: the dataset it names is not whole.
    """
    own = read_yaml(path)
    content = apply_overrides(dataset_sections(apply_overrides(own, overrides)) | own, overrides)
    if isinstance(content.get("training"), Mapping):
        content["training"] = {"algorithm": "ppo"} | dict(content["training"])
    return content
