"""Which model, and how large."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from envs.errors import ConfigError
from rlplatform.models.encoder import EncoderConfig
from rlplatform.models.gru import GRUConfig, GRUEncoder
from rlplatform.models.mlp import MLPConfig, MLPEncoder

ModelConfig = GRUConfig | MLPConfig  # told apart by their field `kind`

_CONFIGS: dict[str, type[EncoderConfig]] = {"gru": GRUConfig, "mlp": MLPConfig}
_ENCODERS = {GRUConfig: GRUEncoder, MLPConfig: MLPEncoder}


def build_encoder(config: ModelConfig, obs_size: int):
    """The encoder that a config describes, freshly initialised from torch's global generator."""
    return _ENCODERS[type(config)](config, obs_size)


def model_config_from(settings: Mapping[str, Any]) -> ModelConfig:
    """The config whose `asdict` this was.

    Raises:
        ConfigError: unknown kind or key, or a value outside its meaning.
    """
    kind = settings.get("kind")
    if kind not in _CONFIGS:
        raise ConfigError(f"model.kind = {kind!r}; expected one of {', '.join(sorted(_CONFIGS))}.")
    known = {f.name for f in fields(_CONFIGS[kind])}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ConfigError(f"unknown key model.{unknown[0]}; model.kind = {kind!r} knows {', '.join(sorted(known))}.")
    return _CONFIGS[kind](**settings)


def model_config_dict(config: ModelConfig) -> dict[str, Any]:
    """Plain values that JSON can carry and `model_config_from` reads back."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}
