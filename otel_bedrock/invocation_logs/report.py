"""Report: sums over calls, by model, identity, day, operation or metadata; each call once.

Nothing here grows with the number of records but the groups that were asked for: the ids of what
was counted are in a `Seen`. Costs are exact: tokens are summed by the rates that hold for each
call, and priced in the end. A call whose rates are not known is in `unpriced`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from otel_bedrock.call import Usage
from otel_bedrock.correlation import read_origin
from otel_bedrock.invocation_logs.brief import BRIEF, COUNTS, Counts, counts_of
from otel_bedrock.invocation_logs.rates import UNPRICED, RateBook
from otel_bedrock.invocation_logs.record import ORIGIN, read_time
from otel_bedrock.invocation_logs.seen import Seen
from otel_bedrock.model_id import parse

METADATA = "metadata:"
# Who reported a call besides the log, where its record says so.
LIVE = "live"
_NONE: Counts = (None,) * len(COUNTS)
_LATEST = "~"
# As `read_time` has it.
_FIRST_TIME, _LAST_TIME = "1970", "2262-04-11T23:47:17Z"

Key = tuple["str | None", ...]


class NoSuchField(ValueError):
    """There is nothing of this name to group by."""


@dataclass(slots=True)
class Line:
    """One line of a report: sums over the calls of one key. None is what none of them reported.

    `input_tokens` is the total, whose parts are uncached, cache read and cache write. `uncounted`
    calls used tokens that their records do not tell; `unpriced` ones have no known cost, so that
    `cost` lacks theirs.
    """

    key: Key
    requests: int = 0
    errors: int = 0
    uncounted: int = 0
    input_tokens: int | None = None
    uncached_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_5m_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    output_tokens: int | None = None
    cost: Decimal | None = None
    unpriced: int = 0
    first: str | None = None
    last: str | None = None

    @property
    def cache_hit_ratio(self) -> float | None:
        """The share of the input that came from the cache; None where nobody said."""
        if self.cache_read_tokens is None or not self.input_tokens:
            return None
        return self.cache_read_tokens / self.input_tokens

    def add(self, other: Line) -> None:
        """Add the sums of another line."""
        for name in ("requests", "errors", "uncounted", "unpriced"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in (*COUNTS, "cost"):
            count = getattr(other, name)
            if count is not None:
                own = getattr(self, name)
                setattr(self, name, count if own is None else own + count)
        self.first = min(filter(None, (self.first, other.first)), default=None)
        self.last = max(filter(None, (self.last, other.last)), default=None)


def _model(call: Any, _: str | None) -> str | None:
    found: str | None = call.model_id
    return found


def _identity(call: Any, _: str | None) -> str | None:
    found: str | None = call.identity
    return found


def _operation(call: Any, _: str | None) -> str | None:
    found: str | None = call.operation
    return found


def _region(call: Any, _: str | None) -> str | None:
    found: str | None = call.region
    return found


def _day(_: Any, time: str | None) -> str | None:
    return None if time is None else time[:10]


def _hour(_: Any, time: str | None) -> str | None:
    return None if time is None else f"{time[:13]}:00Z"


def _origin(call: Any, _: str | None) -> str | None:
    return getattr(call, "origin", ORIGIN)


def _reporter(call: Any, _: str | None) -> str | None:
    # By instrument(correlate_logs=True).
    origin = read_origin(call.metadata)
    return LIVE if origin is not None and origin.ours else None


# What `by` may name, besides the metadata.
FIELDS: dict[str, Callable[[Any, str | None], str | None]] = {
    "model": _model,
    "identity": _identity,
    "day": _day,
    "hour": _hour,
    "operation": _operation,
    "region": _region,
    "origin": _origin,
    "reporter": _reporter,
}


def field_of(name: str) -> Callable[[Any, str | None], str | None]:
    """Return what reads a field of calls.

    Raises:
        NoSuchField: the name is none of FIELDS, nor `metadata:KEY`.
    """
    if name in FIELDS:
        return FIELDS[name]
    key = name.removeprefix(METADATA)
    if key == name or not key:
        raise NoSuchField(f"expected {', '.join(FIELDS)} or {METADATA}KEY, got {name!r}")

    def read(call: Any, _: str | None) -> str | None:
        value = call.metadata.get(key)
        return value if value is None or isinstance(value, str) else json.dumps(value)

    return read


@dataclass(slots=True)
class Report:
    """Takes records, one by one; `lines()` are their sums. Times are `since` to before `until`."""

    by: tuple[str, ...] = ("model",)
    since: datetime | None = None
    until: datetime | None = None
    book: RateBook | None = None
    seen: Seen = field(default_factory=Seen)
    # Every record, also those of other times and those that were there before.
    records: int = 0
    calls: int = 0
    _cells: dict[Any, list[Any]] = field(default_factory=dict)
    _readers: tuple[Callable[[Any, str | None], str | None], ...] = ()
    _since: str = ""
    _until: str = _LATEST

    def __post_init__(self) -> None:
        self._readers = tuple(field_of(name) for name in self.by)
        self._since, self._until = _ceil(self.since) or "", _ceil(self.until) or _LATEST

    def take(self, call: Any) -> None:
        """Count a record (a `Counted`), unless it was counted before or is of another time."""
        self.records += 1
        brief = type(call) is BRIEF
        time = _plain(call.timestamp)
        if time is not None and not self._since <= time < self._until:
            return
        if not self.seen.add(call.request_id if brief else _identify(call)):
            return
        self.calls += 1
        failed = uncounted = False
        if brief:
            counts: Counts = call.counts
        else:
            failed = call.error_code is not None
            usage = call.read_usage()
            counts = _NONE if usage is None else counts_of(usage)
            uncounted = usage is None and not failed and call.spends
        key: Any = tuple([read(call, time) for read in self._readers])
        if self.book is not None:
            number = self._number(call, counts, time, brief)
            key = (*key, call.model_id, number, counts[4] is not None or counts[5] is not None)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = [0, 0, 0, _LATEST, "", *_NONE]
        cell[0] += 1
        if failed:
            cell[1] += 1
        if uncounted:
            cell[2] += 1
        if time is not None:
            if time < cell[3]:
                cell[3] = time
            if time > cell[4]:
                cell[4] = time
        place = 5
        for count in counts:
            if count is not None:
                own = cell[place]
                cell[place] = count if own is None else own + count
            place += 1

    def lines(self) -> list[Line]:
        """Return the sums by key: in the order of time where that comes first, else of tokens."""
        found: dict[Key, Line] = {}
        width = len(self.by)
        for key, (requests, errors, uncounted, first, last, *sums) in self._cells.items():
            named = tuple(
                parse(value).name if name == "model" and value else value
                for name, value in zip(self.by, key, strict=False)
            )
            line = Line(named, requests, errors, uncounted, *sums)
            line.first = None if first == _LATEST else first
            line.last = last or None
            if self.book is not None:
                self._price(line, *key[width:])
            if named in found:
                found[named].add(line)
            else:
                found[named] = line
        by_time = self.by[0] in ("day", "hour")
        return sorted(found.values(), key=_by_key if by_time else _by_tokens)

    def total(self) -> Line:
        """Return the sums over all."""
        whole = Line(())
        for line in self.lines():
            whole.add(line)
        return whole

    def _number(self, call: Any, counts: Counts, time: str | None, brief: bool) -> int:
        assert self.book is not None
        if call.model_id is None:
            return UNPRICED
        tier = latency = None
        if not brief:
            if counts is _NONE:
                return UNPRICED
            asked, outcome = call.read_call().parameters, call.read_outcome()
            tier, latency = outcome.service_tier, outcome.latency_mode
            if tier is None and asked.get("service_tier", "default") != "default":
                return UNPRICED
            if latency is None and asked.get("latency_mode", "standard") != "standard":
                return UNPRICED
        number = self.book.number(
            call.model_id,
            counts[0],
            None if time is None else time[:10],
            tier=tier,
            latency=latency,
            batch=_origin(call, None) != ORIGIN,
            region=call.region,
        )
        return number if number != UNPRICED and self.book.covers(number, counts) else UNPRICED

    def _price(self, line: Line, model_id: str | None, number: int, _: bool) -> None:
        assert self.book is not None
        if number == UNPRICED or model_id is None:
            # An error costs nothing; that it has no price is no news.
            line.unpriced = line.requests - line.errors
            return
        usage = Usage(**{name: getattr(line, name) for name in COUNTS})
        line.cost = self.book.cost(number, model_id, usage)


def _by_key(line: Line) -> list[str]:
    return ["" if part is None else part for part in line.key]


def _by_tokens(line: Line) -> tuple[int, list[str]]:
    return -(line.input_tokens or 0) - (line.output_tokens or 0), _by_key(line)


def _identify(call: Any) -> str:
    """Return what two records of one call have in common."""
    found: str | None = call.request_id
    return found or json.dumps(call.data, sort_keys=True)


def _plain(time: str | None) -> str | None:
    """Return a time as records have it, `2026-10-01T12:00:00Z`; None where it is none."""
    if time is None:
        return None
    if len(time) == 20 and time[19] == "Z" and time[10] == "T" and _FIRST_TIME <= time < _LAST_TIME:
        return time
    at = read_time(time)
    if at is None:
        return None
    when = datetime.fromtimestamp(at // 1_000_000_000, timezone.utc)
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"


def _ceil(time: datetime | None) -> str | None:
    """Return a bound at the second that records are cut to."""
    if time is None:
        return None
    time = time.astimezone(timezone.utc)
    if time.microsecond:
        time = time.replace(microsecond=0) + timedelta(seconds=1)
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"
