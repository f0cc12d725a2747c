"""Which algorithms can train a policy with modes."""

from __future__ import annotations

from envs.errors import ConfigError
from rlplatform.algorithms.settings import AlgorithmSettings
from rlplatform.models.encoder import EncoderConfig
from rlplatform.models.hierarchical import HierarchicalConfig


def check_modes(training: AlgorithmSettings, model: EncoderConfig) -> None:
    """Whether this algorithm asks no more of the action distribution than a mixture has: samples and their density.

    Args:
        training: of any algorithm.

    Raises:
        ConfigError: it differentiates through samples, or reads the policy layer as action values.
    """
    if isinstance(model, HierarchicalConfig) and not training.takes_modes:
        raise ConfigError(
            f"model.kind = hierarchical with training.algorithm = {training.algorithm}: a mixture of modes has no "
            "reparameterised samples and is no table of action values. Use ppo, differentiable, bc or marwil, or "
            "model.kind: mlp."
        )
