"""Blocks of a training file that say what is done with the training: `search:` and `walkforward:`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.errors import ConfigError
from rlplatform.experiments.config import BLOCKS, ExperimentConfig, config_content
from rlplatform.experiments.loading import structure


@dataclass(frozen=True, kw_only=True)
class BlockFile:
    """A training file with a block, as far as both kinds of block are read alike.

    Attributes:
        where: the file's name, for messages.
        content: its mapping with overrides applied, and the sections that a dataset gives.
        base: the training; this block and others left out.
        block: as it stands.
    """

    where: str
    content: Mapping[str, Any]
    base: ExperimentConfig
    block: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path, name: str, example: str, overrides: Sequence[str] = ()) -> BlockFile:
        """The file's training and its block.

        Args:
            name: of the block.
            example: a file that has one, for the message.

        Raises:
            ConfigError: the file has no such block, or its training is not sound.
        """
        where, content = Path(path).name, config_content(path, overrides)
        if not isinstance(content.get(name), Mapping):
            raise ConfigError(
                f"{where}: has no {name} block of keys and values, see {example}. One training alone: rlplatform train {path}"
            )
        training = {key: value for key, value in content.items() if key not in BLOCKS}
        base = structure(ExperimentConfig, training, where)
        return cls(where=where, content=content, base=base, block=content[name])


def check_seeds(seeds: Sequence[int]) -> None:
    """Raises ConfigError where a seed stands twice or is none."""
    if len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**31 for seed in seeds):
        raise ConfigError(f"seeds = {list(seeds)}; expected different whole numbers from 0 to 2^31 − 1.")
