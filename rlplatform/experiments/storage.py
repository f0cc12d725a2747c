"""Where finished runs and sweeps are kept: a directory (local or NFS), s3:// or gs://, through pyarrow's filesystems.

An object store knows no rename, so a copy is complete when its marker is: `store` takes an old marker away first and writes
the new one last, with the size and SHA-256 of every file. Whoever reads, `fetch` or `stored`, takes no notice of a copy
without one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from envs.errors import ConfigError, PlatformError
from rlplatform.files import replaced_directory

MARKER = "STORED.json"
SCHEMES = ("s3", "gs", "gcs", "file")
BLOCK = 1 << 20


class StorageError(PlatformError):
    """A storage place cannot be read or written, or what it holds is not whole."""


@dataclass(frozen=True)
class Place:
    """A directory in a filesystem.

    Attributes:
        filesystem: pyarrow's.
        path: in it, without a slash at the end.
        name: for people.
    """

    filesystem: pafs.FileSystem
    path: str
    name: str

    @classmethod
    def of(cls, destination: str) -> Place:
        """Of a path or URI. Connects to nothing yet, but that s3:// without `?region=` asks where the bucket is.

        Raises:
            ConfigError: a scheme that is not known here, or credentials inside the URI.
        """
        if not is_remote(destination):
            return cls(pafs.LocalFileSystem(), str(Path(destination).resolve()), destination)
        parts = urlsplit(destination)
        if parts.scheme not in SCHEMES:
            raise ConfigError(f"{parts.scheme}://… is no storage; expected a path, or one of s3://, gs://, file://.")
        if "@" in parts.netloc or "access_key" in parts.query or "secret" in parts.query:
            raise ConfigError(
                f"{parts.scheme}://… has credentials in it, and a path is written into manifests. Take them out; they belong "
                "into the environment or the role of the machine (AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS)."
            )
        try:
            filesystem, path = pafs.FileSystem.from_uri(destination)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{destination} cannot be used as storage: {_one_line(error)}") from None
        return cls(filesystem, path.rstrip("/"), destination.partition("?")[0].rstrip("/"))

    def child(self, name: str) -> Place:
        return Place(self.filesystem, f"{self.path}/{name}", f"{self.name}/{name}")


def is_remote(path: str) -> bool:
    """Whether it is a URI; else it is a directory of this machine, or mounted on it."""
    return "://" in path


def local_results_dir(results_dir: str) -> Path:
    """Where a run writes while it runs: a URI's runs are made in ./results and stored when they have ended."""
    return Path("results") if is_remote(results_dir) else Path(results_dir)


def store(directory: Path, destination: str | Place) -> str:
    """Copy a run's or a sweep's directory to `destination`/its name; an earlier copy is replaced.

    Into a directory the copy appears in one rename; into an object store its marker comes last. Hidden names are temporary
    files and stay behind.

    Returns:
        Where it stands.

    Raises:
        StorageError: the place cannot be written to; it then has the earlier copy (directory) or none (object store).
    """
    directory = Path(directory).resolve()
    root = destination if isinstance(destination, Place) else Place.of(destination)
    place = root.child(directory.name)
    with _reachable(place):
        if isinstance(place.filesystem, pafs.LocalFileSystem):
            if Path(place.path).resolve() == directory:
                return place.name  # it was written there in the first place
            Path(root.path).mkdir(parents=True, exist_ok=True)
            with replaced_directory(Path(place.path)) as temporary:
                _upload(directory, Place(place.filesystem, str(temporary), place.name))
        else:
            _upload(directory, place)
    return place.name


@contextmanager
def stored_afterwards(directory: Path, destination: str, on_note: Callable[[str], None]) -> Iterator[None]:
    """Store `directory` in a bucket when the block has ended, and what there is of it when the block fails.

    After a failure storing is an attempt: what goes wrong with it is a note, and the block's own error goes on.

    Args:
        destination: a directory stores nothing; the block has written there in the first place.
        on_note: is told in one line where it stands, or why it does not.

    Raises:
        StorageError: the block went well, and its results cannot be stored.
    """
    if not is_remote(destination):
        yield
        return
    try:
        yield
    except BaseException as error:
        try:
            on_note(f"ended by {type(error).__name__}; what there is stands at {store(directory, destination)}")
        except (OSError, PlatformError) as lost:
            on_note(f"ended by {type(error).__name__}, and what there is could not be stored: {lost}")
        raise
    on_note(f"stored at {store(directory, destination)}")


def _upload(directory: Path, place: Place) -> None:
    marker = f"{place.path}/{MARKER}"
    if place.filesystem.get_file_info(marker).type != pafs.FileType.NotFound:
        place.filesystem.delete_file(marker)
    place.filesystem.create_dir(place.path, recursive=True)
    before = {name for name, _ in _files_in(place)}
    files = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_file() and name != MARKER and not any(part.startswith(".") for part in name.split("/")):
            files[name] = _copy_in(path, place, name)
    for stale in before - set(files):
        place.filesystem.delete_file(f"{place.path}/{stale}")
    with place.filesystem.open_output_stream(marker) as stream:
        stream.write(json.dumps({"files": files}, indent=1).encode())


def _copy_in(path: Path, place: Place, name: str) -> dict[str, Any]:
    """Copy one file; what it holds as (size, sha256)."""
    target = f"{place.path}/{name}"
    place.filesystem.create_dir(target.rpartition("/")[0], recursive=True)
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as source, place.filesystem.open_output_stream(target) as stream:
        while block := source.read(BLOCK):
            digest.update(block)
            size += len(block)
            stream.write(block)
    return {"size": size, "sha256": digest.hexdigest()}


def stored(destination: str | Place) -> list[str]:
    """Names of the complete copies in a place, sorted."""
    place = destination if isinstance(destination, Place) else Place.of(destination)
    with _reachable(place):
        found = place.filesystem.get_file_info(pafs.FileSelector(place.path, allow_not_found=True))
        names = [info.base_name for info in found if info.type == pafs.FileType.Directory and info.base_name[:1] != "."]
        return sorted(name for name in names if _marker(place.child(name)) is not None)


def fetch(source: str | Place, path: Path) -> Path:
    """Copy a stored run or sweep to the directory `path`, every file checked against its SHA-256.

    Raises:
        StorageError: nothing complete is there, or a file is not what was stored.
    """
    place = source if isinstance(source, Place) else Place.of(source)
    with _reachable(place), replaced_directory(Path(path), overwrite=False) as temporary:
        files = _marker(place)
        if files is None:
            raise StorageError(f"{place.name} is no stored run, or its copy was never finished (no {MARKER}).")
        for name, expected in files.items():
            _copy_out(place, name, temporary, expected)
    return Path(path)


def _copy_out(place: Place, name: str, directory: Path, expected: Mapping[str, Any]) -> None:
    target = directory / name
    if not target.resolve().is_relative_to(directory.resolve()):
        raise StorageError(f"{place.name}: {MARKER} names {name!r}, which lies outside. Do not trust this copy.")
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with place.filesystem.open_input_stream(f"{place.path}/{name}") as stream, target.open("wb") as file:
        while block := stream.read(BLOCK):
            digest.update(block)
            file.write(block)
    if digest.hexdigest() != expected["sha256"]:
        raise StorageError(f"{place.name}/{name} is not what was stored ({MARKER} has another SHA-256). Store the run again.")


def _marker(place: Place) -> dict[str, Any] | None:
    """Files by name, of a complete copy."""
    path = f"{place.path}/{MARKER}"
    if place.filesystem.get_file_info(path).type != pafs.FileType.File:
        return None
    with place.filesystem.open_input_stream(path) as stream:
        return json.loads(stream.read())["files"]


def _files_in(place: Place) -> Iterator[tuple[str, int]]:
    """Path below the place, and size, of each file."""
    selector = pafs.FileSelector(place.path, recursive=True, allow_not_found=True)
    for info in place.filesystem.get_file_info(selector):
        if info.type == pafs.FileType.File:
            yield info.path[len(place.path) + 1 :], info.size


@contextmanager
def _reachable(place: Place) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{place.name} cannot be read or written: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
