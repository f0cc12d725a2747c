"""What is wrong with a dataset, said in one line: file, line, found, expected, what to do."""

from __future__ import annotations

from envs.errors import PlatformError


class DatasetError(PlatformError):
    """A dataset that cannot be trained on as it stands."""
