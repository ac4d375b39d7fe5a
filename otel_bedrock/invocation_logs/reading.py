"""Reading: the records of a source's objects one by one, and what had to be left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from otel_bedrock.invocation_logs.inflate import inflate
from otel_bedrock.invocation_logs.offloaded import Bodies, Fetch
from otel_bedrock.invocation_logs.record import Record, nanoseconds
from otel_bedrock.invocation_logs.values import Corrupt, Position, Values
from otel_bedrock.invocation_logs.wrappers import Unwrapper


class SourceError(Exception):
    """A source cannot be read at all; the message says what to do about it."""


class Skipped(NamedTuple):
    """Something that is no record and was left out."""

    source: str
    line: int | None
    why: str

    def __str__(self) -> str:
        where = self.source if not self.line else f"{self.source}: line {self.line}"
        return f"{where}: {self.why}"


@dataclass(frozen=True, slots=True)
class LogObject:
    """A file, an object of S3, an hour of a log group: what is opened and read to its end.

    `name` identifies it for good, `mark` its present content: an object of the same name and
    mark is read once. `mark` is None while nobody can say that it is complete. `grows` says that
    more may be appended, behind what was read before. `open` gives its bytes from an offset of
    the plain content on where it is not compressed; else from the start. `fingerprint` tells its
    first so many bytes, as they are stored, from others; None where it has not so many.
    """

    name: str
    mark: str | None
    size: int | None
    open: Callable[[int], Iterator[bytes]]
    hour: datetime | None = None
    fetch: Fetch | None = None
    grows: bool = False
    seekable: bool = False
    modified: datetime | None = None
    fingerprint: Callable[[int], str | None] | None = None


class Source(Protocol):
    """Where logs are.

    `recent` is how far back one who follows looks each time, where looking through everything
    that may come late has a price; None where it has none. `passed_over` is how many files the
    last look left alone, as their names are not those of logs.
    """

    name: str
    recent: timedelta | None

    @property
    def passed_over(self) -> int: ...

    def objects(self, since: datetime | None, until: datetime | None) -> Iterator[LogObject]:
        """Give the objects that may hold records of that time, the oldest first."""


class Reading:
    """The records of one object from `start` on, as Records and Skippeds.

    `failed` turns True where the object could not be read to its end, and may be another time.
    `said` is told what is wrong with off-loaded bodies; with `waits` a record raises Unavailable
    where one cannot be had now, and `lacking` is True then.
    """

    def __init__(
        self,
        log: LogObject,
        start: Position | None = None,
        said: Callable[[Skipped], None] | None = None,
        *,
        waits: bool = False,
    ) -> None:
        self._log = log
        self._bodies = bodies_of(log, said, waits=waits)
        self._start = start or Position()
        self._values: Values | None = None
        self.position = self._start
        self.failed = False

    @property
    def seen(self) -> int:
        """Bytes of plain content read by now."""
        return self._values.seen if self._values is not None else self._start.offset

    @property
    def lacking(self) -> bool:
        """Whether a body could not be had that may be another time."""
        return self._bodies is not None and self._bodies.failed

    def __iter__(self) -> Iterator[Record | Skipped]:
        """Give the records; `position` is moved on only after all that a value holds."""
        log = self._log
        try:
            values = self._values = Values(self._chunks(), self._start)
            unwrapper = Unwrapper()
            for value in values:
                line = value.line if isinstance(value, Corrupt) else values.line
                for found in unwrapper.take(value, line):
                    if isinstance(found, Corrupt):
                        yield Skipped(log.name, found.line, found.why)
                    else:
                        yield Record(found, self._bodies)
                if not values.torn:
                    self.position = values.position
            for missing in unwrapper.end():
                yield Skipped(log.name, missing.line, missing.why)
        except OSError as error:
            self.failed = True
            yield Skipped(log.name, None, error.strerror or str(error))

    def _chunks(self) -> Iterator[bytes]:
        offset = self._start.offset
        if self._log.seekable:
            yield from self._log.open(offset)
            return
        for chunk in inflate(self._log.open(0)):
            if offset >= len(chunk):
                offset -= len(chunk)
            else:
                yield chunk[offset:]
                offset = 0


def bodies_of(
    log: LogObject, said: Callable[[Skipped], None] | None, *, waits: bool = False
) -> Bodies | None:
    """Return what gets the off-loaded bodies of an object, and tells `said` what is wrong."""
    if log.fetch is None:
        return None

    def say(why: str) -> None:
        if said is not None:
            said(Skipped(log.name, None, why))

    return Bodies(log.fetch, say, waits=waits)


def read_logs(
    sources: Iterable[Source],
    since: datetime | None = None,
    until: datetime | None = None,
    skipped: Callable[[Skipped], None] | None = None,
    began: Callable[[LogObject], None] | None = None,
) -> Iterator[Record]:
    """Read the records of `sources` between two times, in bounded memory.

    What is no record goes to `skipped`, and so does why an off-loaded body is unknown; `began` is
    told of each object before it is read.
    """
    chosen = within(since, until)
    for source in sources:
        for log in source.objects(since, until):
            if began is not None:
                began(log)
            for found in Reading(log, said=skipped):
                if isinstance(found, Skipped):
                    if skipped is not None:
                        skipped(found)
                elif chosen is None or chosen(found):
                    yield found


def within(since: datetime | None, until: datetime | None) -> Callable[[Record], bool] | None:
    """Return what says whether a record is of that time: from `since` to before `until`.

    A record without a time that can be read is of every time. None where all are.
    """
    if since is None and until is None:
        return None
    first = nanoseconds(since) if since is not None else None
    last = nanoseconds(until) if until is not None else None

    def chosen(record: Record) -> bool:
        at = record.start_ns
        return at is None or ((first is None or at >= first) and (last is None or at < last))

    return chosen
