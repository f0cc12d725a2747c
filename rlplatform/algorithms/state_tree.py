"""A tree of arrays and plain values on the disk: safetensors and JSON, no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from rlplatform.files import write_json

Tree = dict[str, Any]


def write_tree(tree: Mapping[str, Any], arrays_file: Path, values_file: Path) -> None:
    """Arrays into one file, by the way to them ("runners.0.env.wealth"), the rest into the other. Names have no dots."""
    arrays: dict[str, np.ndarray] = {}
    write_json(values_file, _without_arrays(tree, "", arrays))
    save_file(arrays, arrays_file)


def read_tree(arrays_file: Path, values_file: Path) -> Tree:
    """What `write_tree` wrote; keys are strings."""
    tree = json.loads(values_file.read_text(encoding="utf-8"))
    for path, array in load_file(arrays_file).items():
        *parents, last = path.split(".")
        place = tree
        for parent in parents:
            place = place[parent]
        place[last] = array
    return tree


def _without_arrays(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """The tree's plain values; its arrays go into `arrays`."""
    if isinstance(value, Mapping):
        kept = {}
        for name, each in value.items():
            below = f"{path}.{name}".lstrip(".")
            if isinstance(each, np.ndarray):
                arrays[below] = np.ascontiguousarray(each)
            else:
                kept[name] = _without_arrays(each, below, arrays)
        return kept
    return value
