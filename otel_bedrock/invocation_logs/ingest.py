"""Ingest: records into spans and metrics, each record once, whatever happens in between.

What is guaranteed, with a checkpoint that commits as its protocol says:

- Metrics are exactly once. The sums stand in the checkpoint and are written in the same
  transaction as the ids of the records in them and the place up to which their object is read.
  Only committed sums are exported, as cumulative points with the checkpoint's own instance id
  and start: sent twice they say the same, and what was not sent is in the next point.
- Spans are at least once, and the same each time. They are sent before the commit, so that none
  is lost; after a kill in between they are sent again, with the same ids.
- A record is counted again only where a second copy of it turns up after the checkpoint's window
  (seven days): in another object, or in one whose content is another by then (of S3: its ETag).

So nothing may be committed that was not sent, nor a sum be exported that is not committed.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from opentelemetry.sdk.resources import SERVICE_NAME, Resource

from otel_bedrock import shield
from otel_bedrock.config import Config
from otel_bedrock.correlation import read_origin
from otel_bedrock.invocation_logs.checkpoint import Batch, Checkpoint, Place
from otel_bedrock.invocation_logs.layout import HOUR
from otel_bedrock.invocation_logs.offloaded import Unavailable
from otel_bedrock.invocation_logs.outlet import Outlet
from otel_bedrock.invocation_logs.reading import (
    LogObject,
    Reading,
    Skipped,
    Source,
    SourceError,
    within,
)
from otel_bedrock.invocation_logs.record import ORIGIN, Record
from otel_bedrock.invocation_logs.telling import Teller
from otel_bedrock.invocation_logs.totals import Totals, origin_marks
from otel_bedrock.invocation_logs.values import Position

SERVICE = "otel-bedrock-logs"
# How far back a pass of `follow` looks for objects that came late.
OVERLAP = timedelta(hours=6)
# How often all of the overlap is looked through where that has a price (seconds).
_LOOK_EVERY = 600.0
# How far back that goes at least: an hour of a log group is done when it has been over for six,
# and only what is done is forgotten.
_SETTLED = OVERLAP + 2 * HOUR
# How often ids are forgotten whose window is over (seconds).
_PRUNE_EVERY = 3600.0


@dataclass(slots=True)
class Tally:
    """What an ingest has done by now."""

    objects: int = 0
    records: int = 0
    duplicates: int = 0
    seen_live: int = 0
    outside: int = 0
    skipped: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Plan:
    """What an ingest is asked to do.

    `only_unseen` leaves out calls that were reported live: those whose metadata has the ids of
    `instrument(correlate_logs=True)`, and those of which `was_live` says so by their request id.
    """

    sources: list[Source]
    since: datetime | None = None
    until: datetime | None = None
    only_unseen: bool = False
    was_live: Callable[[str], bool] | None = None
    spans: bool = True
    batch: int = 500
    export_every: float = 10.0
    overlap: timedelta = OVERLAP


@dataclass(slots=True)
class Watcher:
    """Who is told of what happens, and asked whether to stop."""

    stopping: Callable[[], bool] = lambda: False
    began: Callable[[LogObject], None] = lambda _: None
    skipped: Callable[[Skipped], None] = lambda _: None
    moved: Callable[[Tally], None] = lambda _: None
    troubled: Callable[[str], None] = lambda _: None


class Ingest:
    """Reads a plan's sources into an outlet; `run` once, or `follow`."""

    def __init__(
        self,
        plan: Plan,
        checkpoint: Checkpoint,
        outlet: Outlet,
        config: Config | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self.tally = Tally()
        self._plan, self._checkpoint, self._outlet = plan, checkpoint, outlet
        self._watcher = watcher or Watcher()
        self._resource = _resource(checkpoint.state.instance)
        self._totals = Totals(origin_marks(ORIGIN))
        config = config or Config()
        self._teller = Teller(config, self._totals, self._resource, spans=plan.spans)
        self._totals.load(checkpoint.totals())
        self._teller.know(sorted(map(str, self._totals.values("gen_ai.request.model"))))
        self._exported = 0.0

    def run(self) -> Tally:
        """Ingest what there is by now, export the sums, and return what was done."""
        self._checkpoint.prune()
        self._export()
        for source in self._plan.sources:
            self._pass(source, self._plan.since)
        self._export()
        return self.tally

    def follow(self, pause: float) -> Tally:
        """Ingest what there is and what comes, until the watcher says to stop."""
        self.run()
        looked = pruned = time.monotonic()
        while not self._watcher.stopping():
            _sleep(pause, self._watcher.stopping)
            at = time.monotonic()
            if at - pruned >= _PRUNE_EVERY:
                pruned = at
                self._checkpoint.prune()
            # What comes late is looked for every so often also where that has a price.
            everything = at - looked >= _LOOK_EVERY
            if everything:
                looked = at
            for source in self._plan.sources:
                try:
                    self._pass(source, self._look_back(source, everything=everything))
                except SourceError as error:
                    # It could be read when it began: the network, or credentials that expired.
                    self._watcher.troubled(str(error))
            self._export_in_time()
        self._export()
        return self.tally

    def _look_back(self, source: Source, *, everything: bool) -> datetime:
        """Return from when on a pass of `follow` looks."""
        now, back = datetime.now(timezone.utc), self._plan.overlap
        if source.recent is None:
            since = now - back
        elif everything:
            # From a full hour on: of a part of one nobody can say that it is done.
            since = (now - max(back, _SETTLED)).replace(minute=0, second=0, microsecond=0)
        else:
            since = now - min(back, source.recent)
        return since if self._plan.since is None else max(since, self._plan.since)

    def close(self) -> None:
        """Let go of what is registered elsewhere; the checkpoint is its owner's."""
        self._teller.close()

    def _pass(self, source: Source, since: datetime | None) -> None:
        for log in source.objects(since, self._plan.until):
            if self._watcher.stopping():
                return
            self._take(log)

    def _take(self, log: LogObject) -> None:
        place = self._checkpoint.place(log.name)
        start = Position()
        # What has no size and was done, an hour that was over, has no more: it is not undone by
        # one who asks for a part of it, for then its ids would stay for ever.
        if place is not None and place.done and place.size is None:
            return
        if place is not None and log.mark is not None:
            if place.done and place.mark == log.mark:
                return
            if place.done and _is_same(log, place):
                # Touched, or copied anew: its ids may be forgotten, so it is not read again.
                self._checkpoint.commit(Batch(replace(place, mark=log.mark)))
                return
            if place.mark == log.mark or _is_longer(log, place):
                start = place.position
        # Taken before anything is read: what is replaced meanwhile differs, and is read again.
        known = log.fingerprint(log.size) if log.fingerprint and log.size is not None else None
        place = Place(log.name, log.mark, log.size, start, done=False, fingerprint=known)
        self._watcher.began(log)
        self.tally.objects += 1
        reading = Reading(log, start, self._skip, waits=True)
        chosen = within(self._plan.since, self._plan.until)
        waiting: list[Record] = []
        outside = 0
        for found in reading:
            if isinstance(found, Skipped):
                self._skip(found)
            elif chosen is not None and not chosen(found):
                outside += 1
            else:
                waiting.append(found)
            if len(waiting) >= self._plan.batch:
                position = Position() if outside else reading.position
                self._write(log, reading, waiting, replace(place, position=position))
                waiting = []
                if self._watcher.stopping():
                    return
        self.tally.outside += outside
        self.tally.bytes += reading.seen - start.offset
        # What was left out for its time may be asked for by a later run.
        done = log.mark is not None and not outside and not reading.failed
        position = Position() if outside else reading.position
        self._write(log, reading, waiting, replace(place, position=position, done=done))
        self.tally.failed += reading.failed or reading.lacking

    def _skip(self, what: Skipped) -> None:
        self.tally.skipped += 1
        self._watcher.skipped(what)

    def _write(self, log: LogObject, reading: Reading, records: list[Record], place: Place) -> None:
        """Tell records, send their spans, and commit them with the place."""
        keys = [_key(record) for record in records]
        known = self._checkpoint.seen(keys) if keys else set()
        fresh: list[bytes] = []
        for record, key in zip(records, keys, strict=True):
            if key in known:
                self.tally.duplicates += 1
                continue
            if self._plan.only_unseen and self._was_live(record):
                self.tally.seen_live += 1
            elif not self._tell(log, record, key):
                continue
            known.add(key)
            fresh.append(key)
        if reading.lacking:
            # A record waits for its body: all of the object is read again.
            place = replace(place, position=Position(), done=False)
        spans = self._teller.take_spans()
        if spans:
            # An outlet that is written elsewhere may say nothing.
            for why in self._outlet.send_spans(spans) or ():
                self._skip(Skipped(log.name, None, why))
        self._checkpoint.commit(Batch(place, fresh, self._totals.take_changed()))
        self._watcher.moved(self.tally)
        self._export_in_time()

    def _tell(self, log: LogObject, record: Record, key: bytes) -> bool:
        """Tell a record; False where that has to wait for its body."""
        try:
            self._teller.tell(record, key)
        except Unavailable:
            return False
        except Exception as error:
            shield.stop("logs.tell", error)
            self._skip(Skipped(log.name, None, f"request {record.request_id}: cannot be told"))
            return True
        self.tally.records += 1
        usage = record.read_usage()
        if usage is not None:
            self.tally.input_tokens += usage.input_tokens or 0
            self.tally.output_tokens += usage.output_tokens or 0
        return True

    def _was_live(self, record: Record) -> bool:
        origin = read_origin(record.metadata)
        if origin is not None and origin.ours:
            return True
        was_live, request_id = self._plan.was_live, record.request_id
        return was_live is not None and request_id is not None and was_live(request_id)

    def _export_in_time(self) -> None:
        if time.monotonic() - self._exported >= self._plan.export_every:
            self._export()

    def _export(self) -> None:
        """Send all sums; called only where every one of them is committed."""
        assert not self._totals.changed
        self._exported = time.monotonic()
        data = self._totals.export(
            self._resource, self._checkpoint.state.created_ns, time.time_ns()
        )
        if any(scope.metrics for each in data.resource_metrics for scope in each.scope_metrics):
            self._outlet.send_metrics(data)


def _is_same(log: LogObject, place: Place) -> bool:
    """Say whether an object is what it was when it was read, whatever its mark."""
    known, find = place.fingerprint, log.fingerprint
    if known is None or find is None or log.size is None or log.size != place.size:
        return False
    return find(log.size) == known


def _is_longer(log: LogObject, place: Place) -> bool:
    """Say whether an object begins with what it was when it was read, and has more."""
    if not log.grows or log.size is None or place.size is None or log.size <= place.size:
        return False
    # A place that an older version left has no fingerprint: there the size has to do.
    known, find = place.fingerprint, log.fingerprint
    return known is None or find is None or find(place.size) == known


def _key(record: Record) -> bytes:
    """Return what a record is known by: its request's id, else all that it says."""
    text = record.request_id or json.dumps(record.data, sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _resource(instance: str) -> Any:
    made = Resource.create({"service.instance.id": instance})
    if str(made.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        made = made.merge(Resource({SERVICE_NAME: SERVICE}))
    return made


def _sleep(seconds: float, stopping: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not stopping():
        time.sleep(min(0.1, seconds))


def read_request_ids(lines: Iterable[str]) -> set[str]:
    """Read request ids of calls that were reported live.

    One on each line, or spans as OTLP's JSON (what the collector's file exporter writes), of
    which `aws.request_id` is taken.
    """
    found: set[str] = set()
    for line in lines:
        text = line.strip()
        if text.startswith("{"):
            try:
                _gather(json.loads(text), found)
            except ValueError:
                continue
        elif text:
            found.add(text)
    return found


def _gather(value: Any, found: set[str]) -> None:
    if isinstance(value, dict):
        if value.get("key") == "aws.request_id":
            text = value.get("value")
            text = text.get("stringValue") if isinstance(text, dict) else text
            if isinstance(text, str):
                found.add(text)
            return
        for each in value.values():
            _gather(each, found)
    elif isinstance(value, list):
        for each in value:
            _gather(each, found)
