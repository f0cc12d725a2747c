"""YAML as people mean it: text → mapping and back, with "key=value" overrides. Every mistake is one line.

Where YAML 1.1 surprises, YAML 1.2 is followed: 1e-4 is a number, ON and NO are tickers (only true and false are truth
values), 010, 1:30 and dates are text. What stands in quotes stays text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from envs.errors import ConfigError

_SCALARS = {
    "bool": (re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    "int": (re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$"), "-+0123456789"),
    "float": (
        re.compile(
            r"^[-+]?(?:(?:[0-9][0-9_]*)?\.[0-9]+|[0-9][0-9_]*\.|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?$|^[-+]?\.inf$"
        ),
        "-+.0123456789",
    ),
}


def _with_own_scalars(cls: type) -> type:
    tags = {f"tag:yaml.org,2002:{name}" for name in (*_SCALARS, "timestamp")}
    inherited = cls.yaml_implicit_resolvers
    cls.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in tags] for first, resolvers in inherited.items()
    }
    for name, (pattern, first) in _SCALARS.items():
        cls.add_implicit_resolver(f"tag:yaml.org,2002:{name}", pattern, list(first))
    return cls


@_with_own_scalars
class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice; YAML itself would silently keep the last."""


@_with_own_scalars
class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back the same: text that looks like a number goes into quotes."""


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    mapping = {}
    for key_node, value_node in node.value:
        key, line = loader.construct_object(key_node, deep=True), key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise ConfigError(f"line {line}: key {key!r} is not text. Put it in quotes if it is meant as a name.")
        if key in mapping:
            raise ConfigError(f"line {line}: key {key!r} is given twice. Keep one.")
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """The file's mapping.

    Raises:
        ConfigError: no such file, not YAML, not a mapping, or a key given twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot read it ({error.strerror}). Give the path of a YAML file.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not a text file. Give the path of a YAML file.") from error
    content = _parse(text, str(path))
    if not isinstance(content, dict):
        found = "is empty" if content is None else f"holds a {type(content).__name__}"
        raise ConfigError(f"{path}: {found}; expected keys and values, see tune_configs/.")
    return content


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{where}:{line} is not YAML: {getattr(error, 'problem', None) or error}.") from error
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def apply_overrides(content: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """`content` with each "a.b=value" set; the value is read as YAML.

    Raises:
        ConfigError: not of that form, or `a` is not a section.
    """
    content = _copied(content)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not all(key.split(".")):
            raise ConfigError(f"override {override!r}; expected key=value, for instance training.learning_rate=1e-4.")
        *parents, last = key.split(".")
        place = content
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigError(f"override {override!r}: {parent} is not a section. Give the whole of {parent} instead.")
        place[last] = _parse(text, f"override {override!r}")
    return content


def _copied(value: Any) -> Any:
    return {key: _copied(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def dump_yaml(content: Mapping[str, Any]) -> str:
    """Text that `read_yaml` gives back as `content`."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
