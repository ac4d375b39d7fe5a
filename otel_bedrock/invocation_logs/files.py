"""Files: invocation logs in local files and folders, or on standard input."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from otel_bedrock.invocation_logs.layout import holds_records, hour_of, in_range
from otel_bedrock.invocation_logs.offloaded import read_body
from otel_bedrock.invocation_logs.reading import LogObject, SourceError

STDIN = "-"
# What is read of a folder; a file that is named itself is read whatever its name. Without a
# suffix is what Firehose writes.
SUFFIXES = frozenset(("", ".json", ".jsonl", ".ndjson", ".log", ".txt", ".gz", ".out"))

_CHUNK = 1 << 18
_MAGIC = b"\x1f\x8b"
# As much of a file's beginning, and of its end, as tells it from another.
_SAMPLE = 4096


class Files:
    """A file, or a folder with all that it holds; `-` is standard input.

    Hidden files and folders, folders that are links, and names with another suffix are passed over.
    """

    recent = None

    def __init__(self, path: str) -> None:
        self.name = path
        self.passed_over = 0
        self._path = Path(path)

    def objects(self, since: datetime | None, until: datetime | None) -> Iterator[LogObject]:
        """Give the files that may hold records of that time, by their paths."""
        if self.name == STDIN:
            yield LogObject("standard input", None, None, _read_stdin)
            return
        if not self._path.exists():
            raise SourceError(f"{self.name}: there is no such file or folder")
        if not self._path.is_dir():
            if self._path.is_file():
                yield _log_of(self._path.resolve())
            else:
                # A pipe: what is read of it, to see what it is, is gone.
                yield LogObject(self.name, None, None, partial(_read_pipe, self._path))
            return
        self.passed_over = 0
        # Resolved once: a month has many files.
        for entry in self._walk(self._path.resolve()):
            if isinstance(entry, LogObject):
                yield entry
            elif holds_records(entry.path):
                hour = hour_of(entry.path)
                if in_range(hour, since, until):
                    path = Path(entry.path)
                    yield _log_of(path.resolve() if entry.is_symlink() else path, hour)

    def _walk(self, folder: Path, *, root: bool = True) -> Iterator[os.DirEntry[str] | LogObject]:
        """Give the files under `folder` in the order of their paths, a folder at a time.

        A folder below it that cannot be read is given as an object that cannot be.
        """
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            if root:
                raise SourceError(f"{folder}: {error.strerror}") from error
            yield LogObject(str(folder), None, None, partial(_refuse, error))
            return
        for entry in entries:
            if entry.name.startswith("."):
                self.passed_over += 1
            elif entry.is_file() and Path(entry.name).suffix.lower() in SUFFIXES:
                yield entry
            elif entry.is_dir() and not entry.is_symlink():
                yield from self._walk(Path(entry.path), root=False)
            else:
                self.passed_over += 1


def _log_of(path: Path, hour: datetime | None = None) -> LogObject:
    try:
        stat = path.stat()
        with path.open("rb") as file:
            plain = not file.read(2).startswith(_MAGIC)
    except OSError:
        # Reading it will say why; the others are read.
        return LogObject(str(path), None, None, partial(_read, path))
    return LogObject(
        name=str(path),
        mark=f"{stat.st_size}:{stat.st_mtime_ns}",
        size=stat.st_size,
        open=partial(_read, path),
        hour=hour,
        fetch=partial(_fetch, path.parent),
        grows=plain,
        seekable=plain,
        modified=datetime.fromtimestamp(stat.st_mtime, timezone.utc),
        fingerprint=partial(_fingerprint, path),
    )


def _fingerprint(path: Path, size: int) -> str | None:
    """Return what tells the first `size` bytes of a file from those of another.

    It is made of their two ends, for a file is not to be read twice.
    """
    sample = min(size, _SAMPLE)
    try:
        with path.open("rb") as file:
            ends = file.read(sample)
            file.seek(size - sample)
            ends += file.read(sample)
    except OSError:
        return None
    return hashlib.blake2b(ends, digest_size=16).hexdigest() if len(ends) == 2 * sample else None


def _read(path: Path, offset: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(_CHUNK):
            yield chunk


def _read_pipe(path: Path, _: int) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as pipe:
        while chunk := pipe.read(_CHUNK):
            yield chunk


def _refuse(error: OSError, _: int) -> Iterator[bytes]:
    raise error


def _read_stdin(_: int) -> Iterator[bytes]:
    # What a pipe has by now, at least a byte.
    while chunk := os.read(sys.stdin.fileno(), _CHUNK):
        yield chunk


def _find(folder: Path, path: str) -> Path:
    """Find an off-loaded body: beside the file, or where a copy of the bucket has its key."""
    beside = folder / "data" / path.rsplit("/", 1)[-1]
    if beside.is_file():
        return beside
    # A record that was delivered late lies in another hour than its bodies.
    key = path.removeprefix("s3://").partition("/")[2]
    copies = (parent / key for parent in folder.parents) if ".." not in key.split("/") else ()
    return next((copy for copy in copies if copy.is_file()), beside)


def _fetch(folder: Path, path: str) -> Any:
    """Return an off-loaded body from a copy of the bucket; what goes wrong is as Fetch has it."""
    here = _find(folder, path)
    try:
        return read_body(_read(here, 0))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} has no copy here, such as {here}") from None
    except ValueError as error:
        raise ValueError(f"{here}: {error}") from error
