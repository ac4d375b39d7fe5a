"""Streams: the user's own event stream back, observed while the user reads it.

Knows nothing of OpenTelemetry. What is shadowed on the user's object is in SEAMS; nothing is
read, buffered, delayed or changed. Every shadow holds its object by a weak reference: a
strong one would make a cycle and delay the release of the connection. What others have put
at such a name before is called in its place. `bodies` does the same with the bytes of a body.

When a watched object is collected, `Observer.dropped` runs inside the garbage collector,
which may run anywhere, also under a lock of the metrics SDK: it must take no lock.
"""

from __future__ import annotations

import inspect
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Protocol, cast

_clock = time.perf_counter

_EVENT_STREAM = ("_event_generator", "_parse_event", "close", "_otel_bedrock_watch")

# Which names we put on which object. `close` ends the telling early; `_otel_bedrock_watch`
# holds the tether that tells when the object is collected. aiobotocore's bodies have nothing
# put on them: what `aio_streams` needs lies below them.
SEAMS = {
    "botocore.eventstream.EventStream": _EVENT_STREAM,
    "botocore.response.StreamingBody": ("close",),
    "urllib3.response.HTTPResponse": ("read", "read1", "read_chunked", "_otel_bedrock_watch"),
    "aiobotocore.eventstream.AioEventStream": _EVENT_STREAM,
    "aiohttp.client_reqrep.ClientResponse": ("_notify_content", "_otel_bedrock_watch"),
    "aiohttp.streams.StreamReader": ("_buffer",),
    "httpx.Response": ("_otel_bedrock_watch",),
    "httpx2.Response": ("_otel_bedrock_watch",),
    "httpx._client.BoundAsyncStream": ("_stream",),
    "httpx2._client.BoundAsyncStream": ("_stream",),
}


class Observer(Protocol):
    """What is told about one stream or body. None of its methods may raise."""

    @property
    def over(self) -> bool:
        """Whether the end has been told."""

    def ended(self, error: BaseException | None, *, exhausted: bool = False) -> None:
        """Exhausted, closed, or failed with `error`; may be called more than once."""

    def dropped(self, error: BaseException | None = None) -> None:
        """Collected without an end, or after `error` that nobody was told of.

        Runs in the garbage collector: takes no lock.
        """


class Gatherer(Protocol):
    """What is given the events of a stream."""

    # The member of events that hold output and nothing else. Of such an event the time is noted,
    # as `last` (`time.perf_counter`, seconds), and no more: it is what hundreds of them cost.
    quiet: str | None
    last: float | None

    def see(self, event: Any) -> None:
        """Take one parsed event; never changes it. May raise: the observer is told."""


class EventObserver(Observer, Protocol):
    """Is told of the events of a stream as well, by way of its `gatherer`."""

    gatherer: Gatherer

    def stopped(self, site: str, error: Exception) -> None:
        """Take note that `gatherer` raised."""


class Unwatchable(Exception):
    """The object lacks a seam that we know; it is left as it is."""


class Tether:
    """Lives in the watched object; dies with it, and says so."""

    __slots__ = ("failure", "observer")

    def __init__(
        self, observer: Observer, failure: Callable[[], BaseException | None] | None = None
    ) -> None:
        self.observer: Observer | None = observer
        self.failure = failure

    def __del__(self) -> None:
        # What is raised here would be printed to stderr, and could not be stopped.
        with suppress(Exception):
            observer = self.observer
            if observer is not None and not observer.over:
                observer.dropped(None if self.failure is None else self.failure())


class Shadow:
    """Whose methods stand on the user's objects; each of them calls what it hides."""

    __slots__ = ()

    def hidden(self, name: str) -> Callable[..., Any]:
        """Return what stands below ours at `name`: it takes the object first."""
        raise NotImplementedError


def beneath(names: Mapping[str, Any], kind: type, name: str) -> Callable[..., Any]:
    """Return what is called by `name` on an object with `names`, taking the object first.

    What a hook of the caller's or another instrumentation has put there is bound already, and
    is held by the object as before, so that no cycle is new. What we put there for an earlier
    call, which gave the same object, is passed by, or each call would add a layer.
    """
    if name not in names:
        return cast("Callable[..., Any]", getattr(kind, name))
    theirs = names[name]
    ours = getattr(theirs, "__self__", None)
    if isinstance(ours, Shadow):
        return ours.hidden(name)
    return lambda _, *args, **kwargs: theirs(*args, **kwargs)


def innermost(thing: Any) -> Any:
    """Return `thing` itself, where another instrumentation has put its proxy around it."""
    inner = getattr(thing, "__wrapped__", None)
    if inner is None:
        return thing
    # Up to a depth that nobody has: there are objects that have an answer to every name.
    for _ in range(100):
        thing, inner = inner, getattr(inner, "__wrapped__", None)
        if inner is None:
            break
    return thing


def watch_events(
    stream: Any,
    observer: EventObserver,
    until_end: Callable[[Any, Observer], Any] | None = None,
) -> None:
    """Observe the EventStream `stream`: every parsed event, and its end.

    `until_end` puts the telling of its end around the events, which are asynchronous where
    the stream is.

    Raises:
        Unwatchable: the stream is not made as we know it; it was not touched.
    """
    kind = type(stream)
    names = getattr(stream, "__dict__", None)
    if (
        names is None
        or "_event_generator" not in names
        or not callable(getattr(kind, "_parse_event", None))
        or not callable(getattr(kind, "close", None))
    ):
        raise Unwatchable(f"{kind.__module__}.{kind.__qualname__}")
    this = weakref.ref(stream)
    watch = _Parsing(beneath(names, kind, "_parse_event"), this, observer)
    awaited = inspect.iscoroutinefunction(kind._parse_event)
    parsing = watch.await_event if awaited else watch.parse_event
    ending = Ending(beneath(names, kind, "close"), this, observer, names.get("_raw_stream"))
    shadows = {
        "_event_generator": (until_end or _until_end)(names["_event_generator"], observer),
        "_parse_event": parsing,
        "close": ending.close,
        "_otel_bedrock_watch": Tether(observer),
    }
    # Once all are made: a stream is watched wholly, or not at all.
    names.update(shadows)


class _Parsing(Shadow):
    """`_parse_event` of one stream: the object's own, and what it gives is told.

    A method and not a closure, for a call of the same function each time is what Python makes
    fast; and what every event costs stands here, in one frame, but for those that are seen.
    """

    __slots__ = ("_gatherer", "_observer", "_parse", "_this")

    def __init__(
        self, parse: Callable[..., Any], this: Callable[[], Any], observer: EventObserver
    ) -> None:
        self._parse = parse
        self._this = this
        self._observer = observer
        self._gatherer = observer.gatherer

    def hidden(self, name: str) -> Callable[..., Any]:
        return self._parse

    def parse_event(self, raw: Any) -> Any:
        try:
            event = self._parse(self._this(), raw)
        except BaseException as error:
            self._observer.ended(error)
            raise
        gatherer = self._gatherer
        try:
            if gatherer.quiet in event:
                gatherer.last = _clock()
            elif event:
                gatherer.see(event)
        except Exception as error:
            self._observer.stopped("observer.see", error)
        return event

    async def await_event(self, raw: Any) -> Any:
        """The same where newer versions of aiobotocore await what older ones call."""
        try:
            event = await self._parse(self._this(), raw)
        except Exception as error:
            self._observer.ended(error)
            raise
        gatherer = self._gatherer
        try:
            if gatherer.quiet in event:
                gatherer.last = _clock()
            elif event:
                gatherer.see(event)
        except Exception as error:
            self._observer.stopped("observer.see", error)
        return event


class Ending(Shadow):
    """`close` of one object, telling that it ended, of what `failure` says.

    Whoever holds a bound `close` holds its object, and with it the connection, which lies in
    `raw`: so this one holds `raw`, and closes that where the object itself is gone.
    """

    __slots__ = ("_close", "_failure", "_observer", "_raw", "_this")

    def __init__(
        self,
        close: Callable[..., Any],
        this: Callable[[], Any],
        observer: Observer,
        raw: Any = None,
        failure: Callable[[], BaseException | None] | None = None,
    ) -> None:
        self._close = close
        self._this = this
        self._observer = observer
        self._raw = raw
        self._failure = failure

    def hidden(self, name: str) -> Callable[..., Any]:
        return self._close

    def close(self, *args: Any, **kwargs: Any) -> Any:
        watched = self._this()
        if watched is None:
            return None if self._raw is None else self._raw.close()
        error = None if self._failure is None else self._failure()
        try:
            return self._close(watched, *args, **kwargs)
        finally:
            self._observer.ended(error)


def _until_end(events: Iterator[Any], observer: Observer) -> Iterator[Any]:
    try:
        yield from events
    except GeneratorExit:
        # Let go of, not ended: botocore allows to break and to go on later, and this
        # generator may be closed by the garbage collector.
        raise
    except BaseException as error:
        observer.ended(error)
        raise
    observer.ended(None, exhausted=True)
