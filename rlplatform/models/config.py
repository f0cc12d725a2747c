"""Which model, and how large."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from envs.errors import ConfigError
from rlplatform.models.encoder import EncoderConfig
from rlplatform.models.gnn import GNNConfig
from rlplatform.models.gru import GRUConfig
from rlplatform.models.hierarchical import HierarchicalConfig
from rlplatform.models.mlp import MLPConfig

ModelConfig = EncoderConfig  # told apart by the field `kind`

_CONFIGS: dict[str, type[EncoderConfig]] = {
    "gru": GRUConfig,
    "mlp": MLPConfig,
    "gnn": GNNConfig,
    "hierarchical": HierarchicalConfig,
}


def model_config_from(settings: Mapping[str, Any], imports: bool = True) -> ModelConfig:
    """The config whose `model_config_dict` this was.

    Args:
        imports: whether a kind of one's own may be imported; else it must have been. See `model_class`.

    Raises:
        ConfigError: unknown kind or key, or a value outside its meaning.
    """
    model = model_class(settings.get("kind"), imports)
    known = {f.name for f in fields(model)}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ConfigError(
            f"unknown key model.{unknown[0]}; model.kind = {settings['kind']!r} knows {', '.join(sorted(known))}."
        )
    return model(**settings)


def model_class(kind: Any, imports: bool = True) -> type[EncoderConfig]:
    """The config class of a kind: "gru", "mlp", "gnn", "hierarchical", or one of your own as "package.module:ClassConfig".

    Args:
        imports: whether that module may be imported. A config file is its user's own word; a policy file may be a
            stranger's, and importing runs code.

    Raises:
        ConfigError: no such kind, module or class.
    """
    if kind in _CONFIGS:
        return _CONFIGS[kind]
    return own_class("model.kind", kind, EncoderConfig, sorted(_CONFIGS), imports)


def own_class(key: str, kind: Any, base: type, ours: Iterable[str], imports: bool = True) -> type:
    """A config class of the user's own, "package.module:ClassConfig".

    Args:
        key: where it was asked for, for messages.
        base: what it must be a subclass of.
        ours: names that could have been meant instead.
        imports: see `model_class`.

    Raises:
        ConfigError: no such module or class, or one that is no dataclass of that kind.
    """
    module_name, colon, name = kind.partition(":") if isinstance(kind, str) else ("", "", "")
    if not (module_name and colon and name):
        raise ConfigError(f"{key} = {kind!r}; expected one of {', '.join(ours)}, or your own as package.module:ClassConfig.")
    if not imports and module_name not in sys.modules:
        raise ConfigError(
            f"{key} = {kind!r} is a model of somebody's own. If you trust it, import {module_name} first, then load again."
        )
    try:
        found = getattr(importlib.import_module(module_name), name, None)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{key} = {kind!r}: {error}. Put the module's folder on PYTHONPATH, or install its package."
        ) from None
    if not (isinstance(found, type) and issubclass(found, base) and is_dataclass(found)):
        raise ConfigError(
            f"{key} = {kind!r}: {module_name} has no dataclass {name} that is a subclass of {base.__name__}. "
            "See docs/EXTENDING.md."
        )
    return found


def is_own_kind(kind: Any) -> bool:
    """Whether a kind names a module instead of one of ours."""
    return isinstance(kind, str) and ":" in kind


def model_config_dict(config: ModelConfig) -> dict[str, Any]:
    """Plain values that JSON can carry and `model_config_from` reads back."""
    return {f.name: _plain(getattr(config, f.name)) for f in fields(config)}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return model_config_dict(value)
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value
