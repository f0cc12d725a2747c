"""Secrets: what looks like a key or a password is struck out before anything is written, logged or sent."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from typing import Any

STRUCK = "[redacted]"
SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL")
SHORTEST = 6  # a secret variable that holds "1" or "true" must not strike every 1 out of a manifest
_USER_IN_URL = re.compile(r"(?<=://)[^/\s@]+:[^/\s@]*(?=@)")  # scheme://user:password@host, as proxies have it
_ASSIGNED = re.compile(r"(?i)([\w-]*(?:" + "|".join(SECRET_WORDS) + r")[\w-]*\s*=\s*)([^\s,;&'\"\])}]+)")


def is_secret_name(name: str) -> bool:
    """Whether what stands under this name is to be kept secret: WANDB_API_KEY, aws-secret, Password, hfToken."""
    return any(word in name.upper() for word in SECRET_WORDS)


def secret_values(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Values of secret environment variables, longest first, so that none leaves a rest of one that contains it.

    Args:
        environment: the process's own if not given.
    """
    environment = os.environ if environment is None else environment
    values = {v.strip() for name, v in environment.items() if is_secret_name(name) and len(v.strip()) >= SHORTEST}
    return tuple(sorted(values, key=lambda value: (-len(value), value)))


def redacted_text(text: str, environment: Mapping[str, str] | None = None) -> str:
    """The text without values of secret environment variables, `user:password@` of URLs, and `…key=value`."""
    for value in secret_values(environment):
        text = text.replace(value, STRUCK)
    return _ASSIGNED.sub(rf"\1{STRUCK}", _USER_IN_URL.sub(STRUCK, text))


def redacted(value: Any, environment: Mapping[str, str] | None = None) -> Any:
    """A copy of a mapping, list, dataclass or text that may be written down.

    What stands under a secret name is struck out whole, whatever its kind; texts elsewhere lose what `redacted_text` takes
    out of them, keys of mappings included. Numbers, truth values and None under other names stay as they are.
    """
    from rlplatform.experiments.loading import plain  # brings torch; the command line needs the filter alone, at once

    value = plain(value)
    if isinstance(value, Mapping):
        return {
            redacted_text(str(name), environment): STRUCK
            if is_secret_name(str(name)) and value[name] is not None
            else redacted(value[name], environment)
            for name in value
        }
    if isinstance(value, list):
        return [redacted(item, environment) for item in value]
    return redacted_text(value, environment) if isinstance(value, str) else value


class SecretFilter(logging.Filter):
    """Strikes secrets out of log records; add it to handlers: a logger's own filters do not see its children's records."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redacted_text(record.getMessage()), None
        if record.exc_info:
            record.exc_text = redacted_text(record.exc_text or logging.Formatter().formatException(record.exc_info))
        return True
