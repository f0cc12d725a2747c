"""Stateful: what of an object changes while accounts go on, as named arrays that can be stored and put back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from envs.backend import Backend
from envs.errors import ShapeError

Arrays = dict[str, np.ndarray]


class Stateful:
    """Takes and gives back the attributes that `STATE` names; everything else follows from settings and tape.

    Such an attribute is an array of accounts, a list or mapping of them, another Stateful, or None. Arrays are named by the way
    to them, for instance "guards/regime/past_wealth" or "sums/turnover_paid".
    """

    STATE: ClassVar[tuple[str, ...]]
    backend: Backend

    def state(self) -> Arrays:
        """Copies, in numpy whatever the device."""
        return _taken({name: getattr(self, name) for name in self.STATE}, self.backend)

    def set_state(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Be as when `state()` gave these; they are copied.

        Raises:
            ShapeError: they are of other settings: one is missing or has another shape.
        """
        for name in self.STATE:
            setattr(self, name, _put_back(getattr(self, name), _below(arrays, name), name, self.backend))


def _taken(value: Any, backend: Backend) -> Arrays:
    if value is None:
        return {}
    if isinstance(value, Stateful):
        return value.state()
    if isinstance(value, list | tuple):
        value = {str(number): each for number, each in enumerate(value)}
    if not isinstance(value, dict):
        return {"": backend.numpy(value)}
    below = {name: _taken(each, backend) for name, each in value.items()}
    return {f"{name}/{rest}".rstrip("/"): array for name, arrays in below.items() for rest, array in arrays.items()}


def _put_back(now: Any, arrays: Arrays, name: str, backend: Backend) -> Any:
    """`now`, with what `arrays` hold in place of its arrays."""
    if now is None:
        return None
    if isinstance(now, Stateful):
        now.set_state(arrays)
        return now
    if isinstance(now, list | tuple):
        return type(now)(_put_back(each, _below(arrays, str(i)), f"{name}/{i}", backend) for i, each in enumerate(now))
    if isinstance(now, dict):  # its entries may come only with the first step, so they are the state's own
        return {key: _array(array, backend) for key, array in arrays.items()}
    if "" not in arrays or arrays[""].shape != tuple(now.shape):
        found = f"shape {arrays[''].shape}" if "" in arrays else "nothing"
        raise ShapeError(f"state of accounts: {name} is {found}; expected shape {tuple(now.shape)}. It is of other settings.")
    return _array(arrays[""], backend)


def _below(arrays: Mapping[str, np.ndarray], name: str) -> Arrays:
    """What stands below a name: "" for the array of that name itself."""
    start = f"{name}/"
    return {path[len(start) :]: array for path, array in arrays.items() if f"{path}/".startswith(start)}


def _array(array: np.ndarray, backend: Backend) -> Any:
    return backend.array(array.copy(), str(array.dtype))
