"""Checkpoint: what was ingested, how far, and what it came to, written in one transaction.

So a process that is killed at any moment goes on from a state in which every record is either
counted and remembered, or neither. Objects are remembered for good (a row each); request ids
for a window after the object they were in is done, for a second copy of a record may come in
another object.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from otel_bedrock.invocation_logs.totals import Row
from otel_bedrock.invocation_logs.values import Position

# How long request ids are remembered (seconds) after their object is done.
WINDOW = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Place:
    """How far one object was read; `done` says that all of it was, as it was when it had `mark`.

    `fingerprint` is that of its first `size` bytes; None where nobody took one.
    """

    name: str
    mark: str | None
    size: int | None
    position: Position
    done: bool
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What is committed at once: ids of records, how far their object is read, and the sums."""

    place: Place
    ids: Sequence[bytes] = ()
    totals: Sequence[Row] = ()


@dataclass(slots=True)
class State:
    """What a checkpoint is born with: who exports its sums, and since when they run."""

    instance: str = field(default_factory=lambda: str(uuid.uuid4()))
    created_ns: int = field(default_factory=time.time_ns)


class CheckpointError(Exception):
    """A checkpoint cannot be used; the message says what to do about it."""


class Checkpoint(Protocol):
    """A store of what was ingested; one process uses it at a time.

    `commit` must be atomic and durable: after a kill at any moment either all of a batch is
    there, or nothing. It writes the place over an older one of its name, adds the ids (none of
    which is there yet), and writes each series over its older value. `state` is made once, with
    the store, and never changes: a store that is lost is another one, whose sums begin anew.
    """

    state: State

    def place(self, name: str) -> Place | None:
        """Return how far the object `name` was read; None where it was not."""

    def seen(self, ids: Sequence[bytes]) -> set[bytes]:
        """Return those of `ids` that are committed."""

    def totals(self) -> Iterable[Row]:
        """Return every series."""

    def commit(self, batch: Batch) -> None:
        """Write a batch."""

    def prune(self) -> None:
        """Forget the ids whose window is over."""

    def close(self) -> None:
        """Let go of it."""


_SCHEMA = """
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS places (
  number INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, mark TEXT, size INTEGER,
  offset INTEGER NOT NULL, skip INTEGER NOT NULL, line INTEGER NOT NULL,
  done INTEGER NOT NULL, at REAL NOT NULL, fingerprint TEXT);
CREATE TABLE IF NOT EXISTS ids (id BLOB PRIMARY KEY, place INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ids_of_place ON ids (place);
CREATE TABLE IF NOT EXISTS totals (
  metric TEXT NOT NULL, attributes TEXT NOT NULL, value TEXT NOT NULL,
  PRIMARY KEY (metric, attributes)) WITHOUT ROWID;
"""
_VERSION = 2
# What turns a checkpoint of a version into one of the next.
_UPGRADES = {1: "ALTER TABLE places ADD COLUMN fingerprint TEXT"}
_MOST_VARIABLES = 500


class SQLiteCheckpoint:
    """The default: one file, locked while a process uses it."""

    def __init__(self, path: str | Path, *, window: float = WINDOW) -> None:
        self._window = window
        self._path = Path(path)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self._path, timeout=2.0, isolation_level=None)
            self.state = self._open()
        except (OSError, sqlite3.Error) as error:
            raise CheckpointError(self._explain(error)) from error

    def _explain(self, error: Exception) -> str:
        if "locked" in str(error):
            return (
                f"{self._path}: another ingest uses this checkpoint. Wait for it to end, or give"
                " this one a checkpoint of its own and sources of its own"
            )
        return f"{self._path}: cannot be used as a checkpoint: {error}"

    def _open(self) -> State:
        db = self._db
        # The lock is taken with the first write and kept: two processes on one checkpoint
        # would each export sums that the other does not know.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        # A commit that is lost with the machine's power would take back what was exported.
        db.execute("PRAGMA synchronous = FULL")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            raise CheckpointError(
                f"{self._path}: made by a newer otel-bedrock (checkpoint version {version}, this"
                f" one knows {_VERSION}): upgrade, or choose another --checkpoint"
            )
        db.execute("BEGIN IMMEDIATE")
        # A new file has version 0, and the schema as it is.
        for older in range(version or _VERSION, _VERSION):
            db.execute(_UPGRADES[older])
        for statement in _SCHEMA.split(";"):
            db.execute(statement)
        new = State()
        for key, value in (("instance", new.instance), ("created_ns", str(new.created_ns))):
            db.execute("INSERT OR IGNORE INTO state VALUES (?, ?)", (key, value))
        db.execute(f"PRAGMA user_version = {_VERSION}")
        db.execute("COMMIT")
        found = dict(db.execute("SELECT key, value FROM state"))
        return State(found["instance"], int(found["created_ns"]))

    def place(self, name: str) -> Place | None:
        row = self._db.execute(
            "SELECT mark, size, offset, skip, line, done, fingerprint FROM places WHERE name = ?",
            (name,),
        ).fetchone()
        if row is None:
            return None
        mark, size, offset, skip, line, done, fingerprint = row
        return Place(name, mark, size, Position(offset, skip, line), bool(done), fingerprint)

    def seen(self, ids: Sequence[bytes]) -> set[bytes]:
        found: set[bytes] = set()
        for at in range(0, len(ids), _MOST_VARIABLES):
            some = ids[at : at + _MOST_VARIABLES]
            marks = ",".join("?" * len(some))
            query = f"SELECT id FROM ids WHERE id IN ({marks})"  # noqa: S608 - question marks only
            found.update(row[0] for row in self._db.execute(query, some))
        return found

    def totals(self) -> Iterable[Row]:
        return [
            Row(*row) for row in self._db.execute("SELECT metric, attributes, value FROM totals")
        ]

    def commit(self, batch: Batch) -> None:
        db, place = self._db, batch.place
        try:
            db.execute("BEGIN IMMEDIATE")
            db.execute(
                "INSERT INTO places (name, mark, size, offset, skip, line, done, fingerprint, at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
                " mark = excluded.mark, size = excluded.size, offset = excluded.offset,"
                " skip = excluded.skip, line = excluded.line, done = excluded.done,"
                " fingerprint = excluded.fingerprint, at = excluded.at",
                (
                    place.name,
                    place.mark,
                    place.size,
                    *place.position,
                    place.done,
                    place.fingerprint,
                    time.time(),
                ),
            )
            (number,) = db.execute(
                "SELECT number FROM places WHERE name = ?", (place.name,)
            ).fetchone()
            db.executemany("INSERT INTO ids VALUES (?, ?)", [(key, number) for key in batch.ids])
            db.executemany("INSERT OR REPLACE INTO totals VALUES (?, ?, ?)", batch.totals)
            db.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise CheckpointError(self._explain(error)) from error

    def prune(self) -> None:
        # Ids of an object that is not done are what a second reading of it is told by.
        self._db.execute(
            "DELETE FROM ids WHERE place IN (SELECT number FROM places WHERE done AND at < ?)",
            (time.time() - self._window,),
        )

    def close(self) -> None:
        self._db.close()


class MemoryCheckpoint:
    """One that is gone with the process: to try something, and in tests."""

    def __init__(self) -> None:
        self.state = State()
        self._places: dict[str, Place] = {}
        self._ids: set[bytes] = set()
        self._totals: dict[tuple[str, str], Row] = {}

    def place(self, name: str) -> Place | None:
        return self._places.get(name)

    def seen(self, ids: Sequence[bytes]) -> set[bytes]:
        return self._ids.intersection(ids)

    def totals(self) -> Iterable[Row]:
        return list(self._totals.values())

    def commit(self, batch: Batch) -> None:
        self._places[batch.place.name] = batch.place
        self._ids.update(batch.ids)
        self._totals.update({(row.metric, row.attributes): row for row in batch.totals})

    def prune(self) -> None:
        """Forget nothing."""

    def close(self) -> None:
        """Keep everything, for the next ingest of this process."""
