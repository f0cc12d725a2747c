"""AlgorithmSettings: what the platform asks of an algorithm's settings, whichever it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from envs.accounts import TradingTask
from envs.errors import ConfigError
from rlplatform.models.config import ModelConfig

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

    from rlplatform.algorithms.offline_data import RegisteredEpisodes

Unit = Literal["env_steps", "gradient_steps"]


class AlgorithmSettings:
    """Base of every algorithm's config, a frozen dataclass whose fields are its own.

    Attributes:
        unit: what the training's length is counted in.
        takes_quantile_critic: whether it knows what to do with `model.critic`.
        takes_modes: whether it asks no more of the action distribution than a mixture has: samples and their density.
        takes_pretraining: whether a training can start from an earlier run, `pretrain`.
        figures: further numbers that the learner logs and `metrics.jsonl` shall show.
        pretrain: that run, or None.
        total_env_steps: length of the training [env steps].
        num_learners: remote learner processes; 0 learns in this one.
    """

    unit: ClassVar[Unit] = "env_steps"
    takes_quantile_critic: ClassVar[bool] = False
    takes_modes: ClassVar[bool] = True
    takes_pretraining: ClassVar[bool] = False
    figures: ClassVar[tuple[str, ...]] = ()
    pretrain: Any = None

    algorithm: str
    total_env_steps: int
    num_learners: int

    @property
    def needs_ray(self) -> bool:
        """Whether it runs on Ray even where everything is in one process."""
        return True

    @property
    def length(self) -> int:
        """Of the training, in its unit."""
        return self.total_env_steps

    @property
    def num_processes(self) -> int:
        """Remote runners and learners."""
        return getattr(self, "num_env_runners", 0) + self.num_learners

    def check(self, model: ModelConfig, task: TradingTask) -> None:
        """Whether this training suits a model, bound to its market, and a task; what settings alone say is checked before.

        Raises:
            ConfigError: it does not.
        """

    def passes(self, done: int) -> int:
        """Forward passes of the network over one transition in a training of that length, a backward pass counted as two."""
        raise NotImplementedError

    def expect(self, name: str, holds: bool, expected: str) -> None:
        """Refuse a setting.

        Raises:
            ConfigError: it does not hold.
        """
        if not holds:
            raise ConfigError(f"training.{name} = {getattr(self, name)}; expected {expected}.")


class OfflineSettings(AlgorithmSettings):
    """Base of those that learn from logged episodes.

    Attributes:
        gradient_steps: length of the training.
        batch_size: transitions in one gradient step.
        steps_per_iteration: gradient steps between two rows of metrics.
    """

    unit = "gradient_steps"
    gradient_steps: int
    batch_size: int
    steps_per_iteration: int

    @property
    def length(self) -> int:
        return self.gradient_steps

    def passes(self, done: int) -> int:
        return 3 * done * self.batch_size

    def build(self, model: ModelConfig, data: RegisteredEpisodes, seed: int) -> AlgorithmConfig:
        """RLlib's config for this training; `.build_algo()` starts it, each `train()` is one iteration.

        Args:
            model: bound to its market.
            data: from `register_episodes` or `register_shards`.
            seed: of the order of minibatches and of torch.
        """
        raise NotImplementedError
