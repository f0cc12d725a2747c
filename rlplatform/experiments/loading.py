"""Mappings → frozen dataclasses, strictly: every mistake is one line that says where, what and what to do."""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import functools
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from envs.errors import ConfigError
from rlplatform.experiments.yaml_text import dump_yaml

T = TypeVar("T")


def structure(cls: type[T], content: Mapping[str, Any], where: str) -> T:
    """`content` as a `cls`, checked field by field.

    Args:
        cls: a frozen dataclass, nested as deep as it likes; unions need a Literal field to tell them apart.
        where: what the error names, usually the file.

    Raises:
        ConfigError: the first mistake found.
    """
    try:
        made = _adapter(cls).validate_python(content)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_explain(cls, error)}") from None
    try:
        _refuse_truth_values(content, made)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return made


@functools.cache
def _adapter(cls: type) -> TypeAdapter:
    """pydantic's reader of a class, strict about unknown keys. Made once: that takes 30 ms for an ExperimentConfig."""
    _forbid_unknown_keys(cls)
    return TypeAdapter(cls)


def plain(config: Any) -> Any:
    """A dataclass as what YAML and JSON can hold: mappings, lists, numbers, strings."""
    if dataclasses.is_dataclass(config):
        return {f.name: plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {str(key): plain(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [plain(value) for value in config]
    if isinstance(config, (datetime.date, Path)):
        return str(config)
    return config


def to_yaml(config: Any) -> str:
    """The complete config as text that `read_yaml` and `structure` turn back into it."""
    return dump_yaml(plain(config))


def _dataclasses_in(annotation: Any) -> Iterable[type]:
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _dataclasses_in(argument)


def _forbid_unknown_keys(cls: type) -> None:
    """Tell pydantic to refuse unknown keys in `cls` and every dataclass below it."""
    if "__pydantic_config__" in vars(cls):
        return
    cls.__pydantic_config__ = {"extra": "forbid"}
    for hint in typing.get_type_hints(cls, include_extras=True).values():
        for nested in _dataclasses_in(hint):
            _forbid_unknown_keys(nested)


@dataclass(frozen=True)
class _Complaint:
    """One of pydantic's errors, its location in the user's own keys.

    Attributes:
        owner: the dataclass that the key belongs to.
        keys: the path without what pydantic adds: tags of unions, names of types.
    """

    owner: type
    keys: list[str]
    kind: str
    found: Any
    message: str
    context: Mapping[str, Any]

    @property
    def name(self) -> str:
        return ".".join(self.keys)

    @classmethod
    def of(cls, root: type, error: Mapping[str, Any]) -> _Complaint:
        owner, keys = _walk(root, error["loc"])
        return cls(owner, keys, error["type"], error.get("input"), error["msg"], error.get("ctx") or {})


def _explain(cls: type, error: ValidationError) -> str:
    """The first of pydantic's complaints; of a union's members, the one that came furthest."""
    complaints = [_Complaint.of(cls, each) for each in error.errors()]
    same = [each for each in complaints if each.keys[: len(complaints[0].keys)] == complaints[0].keys]
    deepest = max(len(each.keys) for each in same)
    furthest = [each for each in same if len(each.keys) == deepest]
    first = furthest[0]
    if first.kind == "unexpected_keyword_argument":
        known = [f.name for f in dataclasses.fields(first.owner)]
        close = difflib.get_close_matches(first.keys[-1], known, n=1)
        return f"unknown key {first.name}. " + (f"Did you mean {close[0]}?" if close else f"Known keys: {', '.join(known)}.")
    if first.kind == "missing":
        return f"{first.name} is missing. Give it a value."
    if first.kind == "union_tag_not_found":
        return f"{first.name} lacks the key {first.context['discriminator']} that says which kind it is."
    if first.kind == "union_tag_invalid":
        tag, expected = first.context["tag"], first.context["expected_tags"]
        key = f"{first.name}.{first.context['discriminator']}".replace("'", "")
        return f"{key} = {tag!r}; expected one of {expected}.{_nearest(tag, expected)}"
    own = first.context.get("error")
    if isinstance(own, ConfigError):
        return str(own)
    wanted = " or ".join(dict.fromkeys(_wanted(each) for each in furthest))
    hint = _nearest(first.found, first.context["expected"]) if first.kind == "literal_error" else ""
    return f"{first.name} = {first.found!r}; expected {wanted}.{hint}"


_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text; put it in quotes",
    "date": "a date such as 2015-01-31",
    "tuple": "a list such as [a, b]",
    "mapping": "keys and values",
    "dataclass": "keys and values",
    "model": "keys and values",
    "none": "nothing",
}


def _wanted(complaint: _Complaint) -> str:
    if complaint.kind == "literal_error":
        return f"one of {complaint.context['expected']}"
    if complaint.kind == "too_long":
        return f"at most {complaint.context['max_length']} entries"
    word = _WORDS.get(complaint.kind.partition("_")[0])
    return word or complaint.message[:1].lower() + complaint.message[1:]


def _nearest(found: Any, expected: str) -> str:
    known = [word.strip("' ") for word in expected.replace(" or ", ",").split(",")]
    close = difflib.get_close_matches(str(found), known, n=1)
    return f" Did you mean {close[0]}?" if close else ""


def _refuse_truth_values(content: Any, made: Any, name: str = "") -> None:
    """pydantic takes true for 1; whoever writes `seed: true` does not mean seed 1."""
    if isinstance(content, bool) and not isinstance(made, bool):
        raise ConfigError(f"{name} = {str(content).lower()}; expected another kind of value than true or false.")
    if isinstance(content, Mapping):
        for key, value in content.items():
            part = made.get(key) if isinstance(made, Mapping) else getattr(made, key, value)
            _refuse_truth_values(value, part, f"{name}.{key}" if name else key)
    elif isinstance(content, list | tuple) and isinstance(made, tuple) and len(content) == len(made):
        for index, (value, part) in enumerate(zip(content, made, strict=True)):
            _refuse_truth_values(value, part, f"{name}.{index}")


def _walk(cls: type, location: Sequence[str | int]) -> tuple[type, list[str]]:
    """The dataclass that holds the last part of pydantic's location, and the location in the user's keys."""
    owner, members, hint, keys = cls, [cls], None, []
    for part in location:
        tagged = [member for member in members if len(members) > 1 and part in _tags(member)]
        if tagged:
            members = tagged
            continue
        if members and (isinstance(part, int) or typing.get_origin(hint) is Mapping):
            keys, hint = [*keys, str(part)], None  # one of many of a kind; what follows is its field
            continue
        if members:
            owner, keys = members[0], [*keys, str(part)]
            hint = typing.get_type_hints(owner, include_extras=True).get(part)
            members = list(_dataclasses_in(hint))
        elif isinstance(part, int) or typing.get_origin(hint) is Mapping:
            keys.append(str(part))
    return owner, keys


def _tags(cls: type) -> set[str]:
    literals = [hint for hint in typing.get_type_hints(cls).values() if typing.get_origin(hint) is typing.Literal]
    return {str(value) for literal in literals for value in typing.get_args(literal)}
