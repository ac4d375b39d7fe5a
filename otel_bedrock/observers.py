"""Observers: what joins a watched stream or body to its Recording.

An observer never raises, holds no reference to what it observes, and may be told of the end
more than once: the Recording takes the first.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from otel_bedrock import abandoned, answer, shield, usage
from otel_bedrock.call import Outcome
from otel_bedrock.errors import read_error
from otel_bedrock.events import Events, time_per_output_token
from otel_bedrock.providers import Provider
from otel_bedrock.recorder import Recording

_INCOMPLETE = ("error",)


class StreamObserver:
    """Observes an event stream: its events, and its end."""

    __slots__ = ("_at", "_events", "_found", "_recording")

    def __init__(self, recording: Recording, events: Events, found: answer.Found) -> None:
        self._recording = recording
        self._events = events
        self._found = found
        self._at: tuple[int, float] | None = None

    def see(self, event: Any) -> None:
        events = self._events
        try:
            was_final = events.final
            events.see(event)
            if events.final and not was_final:
                self._finalise()
        except Exception as error:
            shield.stop("stream.see", error)

    def _finalise(self) -> None:
        # From here on a consumer that stops loses nothing: the counts are told now, and the
        # span of a stream that is then dropped ended here.
        self._at = (time.time_ns(), time.perf_counter())
        counts = self._events.usage()
        if counts is not None:
            self._recording.count(counts, self._events.found().get("service_tier"))

    def ended(self, error: BaseException | None, *, exhausted: bool = False) -> None:
        self._finish(error, None, exhausted)

    def dropped(self) -> None:
        if self._at is None:
            self._at = (time.time_ns(), time.perf_counter())
        abandoned.put(self)

    def settle(self) -> None:
        self._finish(None, self._at)

    def _finish(
        self, error: BaseException | None, at: tuple[int, float] | None, exhausted: bool = False
    ) -> None:
        try:
            abandoned.forget(self)
            self._recording.finish(self._outcome(error, exhausted), at)
        except Exception as failure:
            shield.stop("stream.finish", failure)
            self._recording.finish(Outcome())

    def _outcome(self, error: BaseException | None, exhausted: bool) -> Outcome:
        events = self._events
        counts = events.usage(exhausted=exhausted)
        found = {**self._found, **events.found(exhausted=exhausted)}
        found["usage"] = counts
        if error is not None:
            found.update(read_error(error))
            found["complete"] = False
        if events.reasoned and not found["complete"]:
            found.setdefault("finish_reasons", _INCOMPLETE)
        if events.first is not None:
            found["time_to_first_chunk"] = events.first - self._recording.started
            found["time_per_output_token"] = time_per_output_token(events, counts)
        return Outcome(**found)


class BodyObserver:
    """Observes the body of InvokeModel up to `limit` bytes; beyond, it is let go of."""

    __slots__ = (
        "_found",
        "_headers",
        "_length",
        "_limit",
        "_pieces",
        "_provider",
        "_recording",
        "_size",
    )

    def __init__(
        self,
        recording: Recording,
        provider: Provider,
        found: answer.Found,
        headers: usage.Report | None,
        length: int | None,
        limit: int,
    ) -> None:
        self._recording = recording
        self._provider = provider
        self._found = found
        self._headers = headers
        self._length = length
        self._limit = limit
        self._pieces: list[bytes] | None = []
        self._size = 0

    def see(self, piece: bytes) -> None:
        try:
            if not piece or self._pieces is None:
                return
            self._size += len(piece)
            if self._size > self._limit:
                self._pieces = None
                self._finish(None)
                return
            self._pieces.append(piece)
            if self._size == self._length:
                self._finish(None)
        except Exception as error:
            shield.stop("body.see", error)

    def ended(self, error: BaseException | None, *, exhausted: bool = False) -> None:
        self._finish(error)

    def dropped(self) -> None:
        abandoned.put(self)

    def settle(self) -> None:
        self._finish(None)

    def _finish(self, error: BaseException | None) -> None:
        pieces, self._pieces = self._pieces, None
        try:
            abandoned.forget(self)
            at = None if error is None else (time.time_ns(), time.perf_counter())
            self._recording.finish(self._outcome(error, pieces), at)
        except Exception as failure:
            shield.stop("body.finish", failure)
            self._recording.finish(Outcome(**self._found))

    def _outcome(self, error: BaseException | None, pieces: list[bytes] | None) -> Outcome:
        found = dict(self._found)
        body = _parse(pieces)
        if body is not None:
            found.update(answer.read_body_details(body, self._provider))
            found["usage"] = usage.decide((self._headers, usage.read_body(body)))
        if error is not None:
            found.update(read_error(error))
        return Outcome(**found)


def _parse(pieces: list[bytes] | None) -> Mapping[str, Any] | None:
    if not pieces:
        return None
    try:
        data = json.loads(b"".join(pieces))
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, Mapping) else None
