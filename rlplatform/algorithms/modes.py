"""Which algorithms can train a policy with modes."""

from __future__ import annotations

from typing import Any

from envs.errors import ConfigError
from rlplatform.models.encoder import EncoderConfig
from rlplatform.models.hierarchical import HierarchicalConfig

WITHOUT_MODES = ("tqc", "cql", "iql", "discrete_cql")


def check_modes(training: Any, model: EncoderConfig) -> None:
    """Whether this algorithm asks no more of the action distribution than a mixture has: samples and their density.

    Args:
        training: of any algorithm.

    Raises:
        ConfigError: it differentiates through samples, or reads the policy layer as action values.
    """
    if isinstance(model, HierarchicalConfig) and training.algorithm in WITHOUT_MODES:
        raise ConfigError(
            f"model.kind = hierarchical with training.algorithm = {training.algorithm}: a mixture of modes has no "
            "reparameterised samples and is no table of action values. Use ppo, differentiable, bc or marwil, or "
            "model.kind: mlp."
        )
