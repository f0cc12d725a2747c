"""Reads a .wandb file back: records of protobuf in the log format of LevelDB, which wandb itself no longer reads in Python.

Seven bytes ":W&B" + magic + version; then blocks of 32 KiB (the seven bytes belong to the first) of pieces:
checksum (4), length (2, little endian), kind (1: whole, 2: first, 3: middle, 4: last), content. Less than seven bytes at
a block's end are padding.
"""

import json
import struct
import zlib
from pathlib import Path

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER = 32 * 1024, 7
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path):
    """Every record of the file, as wandb's own protobuf messages."""
    content = Path(path).read_bytes()
    assert content[:4] == b":W&B"
    parts = b""
    position = HEADER
    while position + HEADER <= len(content):
        left = BLOCK - position % BLOCK
        if left < HEADER:
            position += left
            continue
        checksum, length, kind = struct.unpack("<IHB", content[position : position + HEADER])
        piece = content[position + HEADER : position + HEADER + length]
        assert checksum == zlib.crc32(bytes([kind]) + piece), f"damaged at byte {position}"
        parts = piece if kind in (WHOLE, FIRST) else parts + piece
        position += HEADER + length
        if kind in (WHOLE, LAST):
            yield wandb_internal_pb2.Record.FromString(parts)


class WandbFile:
    """What one offline run holds.

    Attributes:
        history: the logged rows; summary, config: the last value of each key; run: the run's own record.
    """

    def __init__(self, directory):
        (self.path,) = Path(directory).glob("wandb/offline-run-*/run-*.wandb")
        self.history, self.summary, self.config, self.artifacts, self.exit_code, self.run = [], {}, {}, [], None, None
        for record in records(self.path):
            match record.WhichOneof("record_type"):
                case "run":
                    self.run = record.run
                    self.config |= _values(record.run.config.update)
                case "config":
                    self.config |= _values(record.config.update)
                case "history":
                    self.history.append(_values(record.history.item))
                case "summary":
                    self.summary |= _values(record.summary.update)
                case "artifact":
                    self.artifacts.append(record.artifact)
                case "request" if record.request.HasField("log_artifact"):
                    self.artifacts.append(record.request.log_artifact.artifact)
                case "exit":
                    self.exit_code = record.exit.exit_code


def _values(items):
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
