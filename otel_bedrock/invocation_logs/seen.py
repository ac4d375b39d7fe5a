"""Seen: which records were counted by now, for any number of them, in bounded memory.

An id is kept as its 64-bit hash: of fifty million ids, the odds that any two share one are 1 in
15,000. The newest are a set; when it is full they move to a private table on disk, and a bitmap
says of nearly every new id that it cannot be there, so that the table is hardly ever asked.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from types import TracebackType

from typing_extensions import Self

_KEPT = 300_000
# 32 MB. With two bits an id, one in 200 is looked up needlessly at ten million, one in ten at
# fifty.
_BITS = 28
_MASK = (1 << _BITS) - 1


class Seen:
    """A set of ids to which one can only add."""

    __slots__ = ("_bitmap", "_db", "_kept", "_new", "repeated")

    def __init__(self, kept: int = _KEPT) -> None:
        self._new: set[int] = set()
        self._kept = kept
        self._bitmap = bytearray()
        self._db: sqlite3.Connection | None = None
        self.repeated = 0

    def add(self, key: str | bytes) -> bool:
        """Add an id; False where it was there already."""
        number = hash(key)
        new = self._new
        if number in new or (self._bitmap and self._moved(number)):
            self.repeated += 1
            return False
        new.add(number)
        if len(new) >= self._kept:
            self._move()
        return True

    def close(self) -> None:
        """Forget everything, on disk too."""
        self._new.clear()
        if self._db is not None:
            self._db.close()
            self._db = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _moved(self, number: int) -> bool:
        bitmap = self._bitmap
        for bit in (number & _MASK, (number >> _BITS) & _MASK):
            if not bitmap[bit >> 3] & (1 << (bit & 7)):
                return False
        assert self._db is not None
        with closing(self._db.execute("SELECT 1 FROM seen WHERE id = ?", (number,))) as found:
            return found.fetchone() is not None

    def _move(self) -> None:
        if self._db is None:
            self._bitmap = bytearray(1 << (_BITS - 3))
            # Without a name: a file in the folder of temporary files, gone when it is closed.
            self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = OFF")
            self._db.execute("PRAGMA cache_size = -8192")
            self._db.execute("CREATE TABLE seen (id INTEGER PRIMARY KEY)")
        bitmap = self._bitmap
        for number in self._new:
            bit, other = number & _MASK, (number >> _BITS) & _MASK
            bitmap[bit >> 3] |= 1 << (bit & 7)
            bitmap[other >> 3] |= 1 << (other & 7)
        self._db.execute("BEGIN")
        # In order, so that each page of the table is written once.
        rows = ((number,) for number in sorted(self._new))
        self._db.executemany("INSERT INTO seen VALUES (?)", rows)
        self._db.execute("COMMIT")
        self._new.clear()
