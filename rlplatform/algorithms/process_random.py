"""The random numbers that a process draws from global generators: Python's, numpy's and torch's."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

RandomState = dict[str, Any]


def random_state() -> RandomState:
    """Where this process's generators stand, as arrays and plain values. GPUs are included once torch has used one."""
    version, words, gauss = random.getstate()
    state = {
        "python": {"version": version, "words": np.array(words, dtype=np.uint32), "gauss": gauss},
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002
        "torch": torch.get_rng_state().numpy().copy(),
    }
    if torch.cuda.is_initialized():
        state["cuda"] = {str(i): one.numpy().copy() for i, one in enumerate(torch.cuda.get_rng_state_all())}
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Go on with the draws that followed `random_state()`; a GPU that is not here is left out."""
    python = state["python"]
    random.setstate((python["version"], tuple(int(word) for word in python["words"]), python["gauss"]))
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(torch.from_numpy(state["torch"].copy()))
    for number, one in state.get("cuda", {}).items():
        if int(number) < torch.cuda.device_count():
            torch.cuda.set_rng_state(torch.from_numpy(one.copy()), int(number))
