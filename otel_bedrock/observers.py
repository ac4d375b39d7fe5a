"""Observers: what joins a watched stream or body to its Recording.

An observer holds no reference to what it observes, and may be told of the end more than once:
it takes the first. Its bugs stop here, short of the user's stream or body.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from otel_bedrock import abandoned, answer, shield, usage
from otel_bedrock.call import Outcome
from otel_bedrock.errors import read_error
from otel_bedrock.events import Events, time_per_output_token
from otel_bedrock.paths import as_object
from otel_bedrock.providers import Provider
from otel_bedrock.recording import Recording

if TYPE_CHECKING:
    from otel_bedrock.content.gate import Content
    from otel_bedrock.streams import Gatherer

_INCOMPLETE = ("error",)


class _Observer:
    """What has an end, told once: the first that takes `_left` tells it."""

    __slots__ = ("_found", "_left", "_recording")

    def __init__(self, recording: Recording, found: answer.Found) -> None:
        self._recording = recording
        self._found = found
        # Taking the one item is atomic: of two threads that see the end, one tells it.
        self._left = [True]

    @property
    def over(self) -> bool:
        """Whether the end has been seen."""
        return not self._left

    def give_up(self) -> None:
        """End the span at least: telling the end has failed."""
        self._recording.give_up()

    def ended(self, error: BaseException | None, *, exhausted: bool = False) -> None:
        """Tell the end; see `streams.Observer`."""
        if not self._left:
            return
        try:
            self._finish(error, exhausted)
        except Exception as failure:
            self.stopped("observer.ended", failure)
        except BaseException:
            self._interrupted()
            raise

    def dropped(self, error: BaseException | None = None) -> None:
        """Leave the end to be told later; see `streams.Observer`."""
        # In the garbage collector nothing can be told, not even a bug.
        with suppress(Exception):
            self._drop(error)

    def settle(self) -> None:
        """Tell the end of what was collected."""
        self._finish(None)

    def _finish(self, error: BaseException | None, exhausted: bool = False) -> None:
        raise NotImplementedError

    def _drop(self, error: BaseException | None) -> None:
        raise NotImplementedError

    def stopped(self, site: str, error: Exception) -> None:
        """Stop a bug of ours; where it came up while the end was told, end the span at least.

        Elsewhere the end is still to come, if only by the object's collection.
        """
        if not self._left:
            self._recording.give_up()
        shield.stop(site, error)

    def _interrupted(self) -> None:
        """End the span at least, where an interrupt came while the end was told."""
        if not self._left:
            self._recording.give_up()

    def _take(self) -> bool:
        try:
            self._left.pop()
        except IndexError:
            return False
        abandoned.forget(self)
        return True

    def _fallback(self, error: BaseException | None, failure: Exception) -> Outcome:
        """Say what is known where reading the rest has failed."""
        shield.stop("observer.outcome", failure)
        found = dict(self._found)
        if error is not None:
            found["error_type"] = type(error).__name__
        return Outcome(**found)


class StreamObserver(_Observer):
    """Observes an event stream: its events, which go straight to `gatherer`, and its end."""

    __slots__ = ("_at", "_events", "_opened", "gatherer")

    def __init__(self, recording: Recording, events: Events, found: answer.Found) -> None:
        super().__init__(recording, found)
        self._events = events
        self._at: tuple[int, float] | None = None
        self._opened = time.perf_counter()
        events.on_final = self._finalise
        self.gatherer: Gatherer = events

    def _finalise(self) -> None:
        # From here on a consumer that stops loses nothing: the counts are told now, and the
        # span of a stream that is then dropped ended here.
        self._at = (time.time_ns(), time.perf_counter())
        found = {**self._found, **self._events.found(), "usage": self._events.usage()}
        self._recording.count(Outcome(**found))

    def _drop(self, error: BaseException | None) -> None:
        if self._at is None:
            self._at = self._left_at()
        abandoned.collected(self)

    def settle(self) -> None:
        self._tell(None, self._at or self._left_at())

    def _left_at(self) -> tuple[int, float]:
        """Return when the consumer let go, by the last event that it took.

        The stream itself holds on to itself, so that it is collected any time later.
        """
        events = self._events
        seen = events.last or events.first or self._opened
        return time.time_ns() - int((time.perf_counter() - seen) * 1e9), seen

    def _finish(self, error: BaseException | None, exhausted: bool = False) -> None:
        self._tell(error, None, exhausted)

    def _tell(
        self, error: BaseException | None, at: tuple[int, float] | None, exhausted: bool = False
    ) -> None:
        if not self._take():
            return
        # The two would hold each other, until the garbage collector comes by.
        self._events.on_final = None
        try:
            outcome = self._outcome(error, exhausted)
        except Exception as failure:
            outcome = self._fallback(error, failure)
        self._recording.finish(outcome, at)

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


class ContentObserver(StreamObserver):
    """The same where content is captured: a second consumer of the events."""

    __slots__ = ()

    def __init__(self, recording: Recording, events: Events, found: answer.Found) -> None:
        super().__init__(recording, events, found)
        assert recording.content is not None
        self.gatherer = _Both(events, recording.content)


class _Both:
    """Gives the events of a stream to two."""

    __slots__ = ("_content", "_events", "last", "quiet")

    def __init__(self, events: Events, content: Content) -> None:
        self._events = events
        self._content = content
        self.quiet: str | None = None
        self.last: float | None = None

    def see(self, event: Any) -> None:
        self._events.see(event)
        self._content.see_event(event)


class BodyObserver(_Observer):
    """Observes the body of InvokeModel up to `limit` bytes; beyond, it is let go of."""

    __slots__ = ("_failure", "_headers", "_length", "_limit", "_pieces", "_provider", "_size")

    def __init__(
        self,
        recording: Recording,
        provider: Provider,
        found: answer.Found,
        headers: usage.Report | None,
        length: int | None,
        limit: int,
    ) -> None:
        super().__init__(recording, found)
        self._provider = provider
        self._headers = headers
        self._length = length
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0
        self._failure: tuple[answer.Found, tuple[int, float]] | None = None

    def see(self, piece: bytes) -> None:
        """Take what one read gave; see `bodies.BodyObserver`."""
        try:
            if not piece or not self._left:
                return
            self._size += len(piece)
            if self._size > self._limit:
                self._pieces.clear()
                self._finish(None)
                return
            self._pieces.append(piece)
            if self._size == self._length:
                self._finish(None)
        except Exception as error:
            self.stopped("observer.see", error)
        except BaseException:
            self._interrupted()
            raise

    def _drop(self, error: BaseException | None) -> None:
        if error is not None:
            # The name alone: the error itself would hold what is being collected.
            self._fail({"error_type": type(error).__name__})
        abandoned.collected(self)

    def _finish(self, error: BaseException | None, exhausted: bool = False) -> None:
        if not self._take():
            return
        try:
            if error is not None:
                self._fail(read_error(error))
            outcome = self._outcome()
        except Exception as failure:
            outcome = self._fallback(error, failure)
        self._pieces.clear()
        at = None if self._failure is None else self._failure[1]
        self._recording.finish(outcome, at)

    def _fail(self, found: answer.Found) -> None:
        self._failure = found, (time.time_ns(), time.perf_counter())

    def _outcome(self) -> Outcome:
        found = self._found
        pieces = self._pieces
        body = as_object(pieces[0] if len(pieces) == 1 else b"".join(pieces)) if pieces else None
        if body is not None:
            spent = usage.lay_over(found.get("usage"), self._headers, usage.read_body(body))
            found = {**found, **answer.read_body_details(body, self._provider), "usage": spent}
            if self._recording.content is not None:
                self._recording.content.see_answer(body)
        if self._failure is not None:
            found = {**found, **self._failure[0]}
        return Outcome(**found)


class CallObserver:
    """Observes a call whose coroutine was let go of while it waited for the answer."""

    __slots__ = ("_at", "_recording")

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._at = (time.time_ns(), time.perf_counter())

    def settle(self) -> None:
        self._recording.finish(Outcome(error_type=GeneratorExit.__name__), self._at)

    def give_up(self) -> None:
        self._recording.give_up()
