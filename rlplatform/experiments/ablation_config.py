"""The `ablation:` block of a file, and AblationDirectory: what an ablation leaves behind, results/<ablation>/.

A file is a complete training config plus this block:

```yaml
ablation:
  arms:
    technical: {features.forecasts: null}
    bootstrap: {features.forecasts: {backend: bootstrap}}
  seeds: [0, 1, 2]
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.errors import ConfigError
from rlplatform.experiments.blocks import BlockFile, check_seeds
from rlplatform.experiments.config import ABLATION, ExperimentConfig
from rlplatform.experiments.forecasting import ForecasterDirectory
from rlplatform.experiments.loading import plain, structure
from rlplatform.experiments.results_directory import BlockDirectory
from rlplatform.experiments.search import SAME_FOR_ALL, with_settings
from rlplatform.experiments.sweep_directory import TrialDirectory

EXAMPLE = "tune_configs/forecast_ablation.yaml"
MODEL_PATH = "features.forecasts.chronos.path"
NOT_VARIED = SAME_FOR_ALL | {
    "name": "it names the ablation",
    "results_dir": "it is where the ablation stands",
    "seed": "give ablation.seeds",
    "tracking": "it is for the ablation as a whole",
}
SAME_TERMS = {"env.costs": "arms would not pay the same costs", "env.financing": "arms would not pay the same financing"}


@dataclass(frozen=True, kw_only=True)
class AblationConfig:
    """What is compared.

    Attributes:
        arms: name → dotted key of a setting → its value, in the place of the file's. The first is the reference. An arm that
            forecasts by Chronos and names no model takes the newest that `rlplatform forecast train` has made of this file.
        seeds: each arm is trained once with each; the config's own if none is given. Arms are paired seed by seed.
        max_concurrent: trainings at the same time.
    """

    arms: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...] = ()
    max_concurrent: int = 1

    def __post_init__(self) -> None:
        if len(self.arms) < 2:
            raise ConfigError(
                f"arms = {list(self.arms)}; expected at least two, the first is what the others are held against."
            )
        for name in self.arms:
            if not name or any(c in name for c in "/\\ :"):
                raise ConfigError(f"arms: {name!r} becomes a folder's name, so no spaces, colons or slashes.")
        if self.max_concurrent < 1:
            raise ConfigError(f"max_concurrent = {self.max_concurrent}; expected at least 1.")
        check_seeds(self.seeds)


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """A training config, and the arms around it.

    Attributes:
        base: the config without the block; what no arm changes.
        ablation: see `AblationConfig`.
        content: the file's mapping with overrides applied, models named.
    """

    base: ExperimentConfig
    ablation: AblationConfig
    content: Mapping[str, Any]

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.ablation.seeds or (self.base.seed,)

    @property
    def reference(self) -> str:
        return next(iter(self.ablation.arms))

    def config_for(self, arm: str, seed: int | None = None) -> ExperimentConfig:
        """The training of one arm.

        Raises:
            ConfigError: its settings do not suit each other.
        """
        base, settings = plain(self.base), dict(self.ablation.arms[arm])
        if "model.kind" in settings:  # another kind has other keys: of the file's own words, not of this kind's defaults
            base["model"] = dict(self.content.get("model", {}))
        settings["seed"] = self.seeds[0] if seed is None else seed
        return structure(ExperimentConfig, with_settings(base, settings), where=f"{ABLATION}.arms.{arm}")


def load_ablation(path: Path, overrides: Sequence[str] = ()) -> Ablation:
    """A config with an ablation block, every arm tried in the config.

    Args:
        overrides: "key=value", of the config or of the block ("ablation.max_concurrent=2").

    Raises:
        ConfigError: names the file, the key and the value.
    """
    file = BlockFile.read(path, ABLATION, EXAMPLE, overrides)
    where, base = file.where, file.base
    if base.split.validation is None:
        raise ConfigError(f"{where}: split.validation is missing; arms are judged on it and on the test. Give it two days.")
    if base.dataset is not None:
        raise ConfigError(f"{where}: dataset: an ablation trains in the environment. Leave the dataset out.")
    arms = {name: _keyed(settings, f"{where}: {ABLATION}.arms.{name}") for name, settings in _arms(file.block, where).items()}
    block = structure(AblationConfig, dict(file.block) | {"arms": arms}, f"{where}: {ABLATION}")
    draft = Ablation(base=base, ablation=block, content=file.content)
    try:
        arms = {name: _with_model(draft, name) for name in arms}
        block = structure(AblationConfig, dict(file.block) | {"arms": arms}, f"{where}: {ABLATION}")
        content = dict(file.content) | {ABLATION: dict(file.block) | {"arms": arms}}
        made = Ablation(base=base, ablation=block, content=content)
        configs = {name: made.config_for(name) for name in arms}
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(where) else f"{where}: {text}") from None
    _check_different(configs, where)
    return made


def _arms(block: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    arms = block.get("arms")
    if not isinstance(arms, Mapping):
        raise ConfigError(f"{where}: {ABLATION}.arms = {arms!r}; expected names with their settings, see {EXAMPLE}.")
    return arms


def _keyed(settings: Any, where: str) -> dict[str, Any]:
    if settings is None:
        return {}
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{where} = {settings!r}; expected dotted keys with values, such as {{features.forecasts: null}}.")
    for key in settings:
        section = key.partition(".")[0]
        if section in NOT_VARIED:
            raise ConfigError(f"{where}: {key} cannot differ between arms: {NOT_VARIED[section]}.")
        for start, why in SAME_TERMS.items():
            if key == "env" or key == start or key.startswith(f"{start}."):
                raise ConfigError(f"{where}: {key} cannot differ between arms: {why}.")
    return dict(settings)


def _with_model(ablation: Ablation, arm: str) -> dict[str, Any]:
    """The arm's settings, the newest forecaster of this file put in where one is wanted and none is named."""
    settings, forecasts = dict(ablation.ablation.arms[arm]), ablation.config_for(arm).features.forecasts
    if forecasts is None or forecasts.backend != "chronos" or forecasts.chronos.path or forecasts.chronos.paths:
        return settings
    try:
        model = ForecasterDirectory.newest(ablation.base).model
    except ConfigError:
        raise ConfigError(
            f"{ABLATION}.arms.{arm}: {MODEL_PATH} is missing, and {ablation.base.results_dir} has no forecaster of "
            f"{ablation.base.name}. Train one first: rlplatform forecast train, with this file and days before split.train."
        ) from None
    return settings | {MODEL_PATH: str(model)}


def _check_different(configs: Mapping[str, ExperimentConfig], where: str) -> None:
    seen: dict[str, str] = {}
    for name, config in configs.items():
        twin = seen.setdefault(config.sha256, name)
        if twin != name:
            raise ConfigError(f"{where}: {ABLATION}.arms: {twin} and {name} are the same training. Leave one out.")


class AblationDirectory(BlockDirectory):
    """Paths and files of one ablation.

    ```
    ablation.yaml    config and block         ablation.json, .md, .png   Sharpe by seed, differences, intervals, verdict
    manifest.json    what ran, on what        trial_returns.parquet      (T, trainings) of the validation period
    arms/            one run an arm and seed  tune/                      Ray Tune's own files
    ```
    """

    KIND, CONTENT, SUFFIX = "ablation", "ablation.yaml", "-ablation"

    def ablation(self) -> Ablation:
        return load_ablation(self.path / self.CONTENT)

    def arm(self, name: str, seed: int) -> TrialDirectory:
        return TrialDirectory(self.path / "arms" / f"{name}-seed{seed}")

    def trained(self) -> list[TrialDirectory]:
        """Those that have begun, by name."""
        return [TrialDirectory(path.parent) for path in sorted(self.path.glob("arms/*/trial.json"))]
