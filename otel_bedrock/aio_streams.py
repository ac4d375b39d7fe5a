"""Streams and bodies of aiobotocore: the same as `streams` and `bodies` where they are awaited.

What is shadowed is in `streams.SEAMS`; neither aiobotocore nor what it stands on is imported.
A task that is let go of while it waits tells nothing: the garbage collector may be closing it,
and the object's tether tells.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from typing import Any

from otel_bedrock import shield, streams
from otel_bedrock.bodies import BodyObserver
from otel_bedrock.streams import Ending, EventObserver, Observer, Tether, Unwatchable


class _Awaited(AsyncGenerator[Any, Any]):
    """An asynchronous generator, telling its end.

    No generator itself: event loops finalize each of theirs by a task of its own, and trio
    warns of those that were not exhausted.
    """

    __slots__ = ("_observer", "_pieces", "_see")

    def __init__(
        self, pieces: Any, observer: Observer, see: Callable[[Any], None] | None = None
    ) -> None:
        self._pieces = pieces
        self._observer = observer
        self._see = see

    def __anext__(self) -> Coroutine[Any, Any, Any]:
        return self._step(self._pieces.__anext__())

    def asend(self, value: Any) -> Coroutine[Any, Any, Any]:
        return self._step(self._pieces.asend(value))

    def athrow(self, *error: Any) -> Coroutine[Any, Any, Any]:
        return self._step(self._pieces.athrow(*error))

    async def aclose(self) -> None:
        # The end of the generator, not of what it reads from. A transport of httpx may have
        # an iterator, which has no end of its own.
        close = getattr(self._pieces, "aclose", None)
        if close is not None:
            await close()

    async def _step(self, step: Any) -> Any:
        try:
            piece = await step
        except StopAsyncIteration:
            self._observer.ended(None, exhausted=True)
            raise
        except GeneratorExit:
            raise
        except BaseException as error:
            # Cancelled as well: a generator that raised is over for good.
            self._observer.ended(error)
            raise
        if self._see is not None:
            self._see(piece)
        return piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pieces, name)


def watch_events(stream: Any, observer: EventObserver) -> None:
    """Observe aiobotocore's AioEventStream; see `streams.watch_events`.

    Its `__aiter__` makes a new generator each time, over the one that is shadowed: a loop may
    be left, and another one goes on.
    """
    streams.watch_events(stream, observer, _Awaited)


def watch_body(body: Any, observer: BodyObserver) -> Callable[[], bool] | None:
    """Observe a body of aiobotocore: every piece that is read, by whichever way, and its end.

    Nothing is put on the body itself: it is a proxy in older versions, `async with` hands out
    what lies below it there, and `await (await client.invoke_model(…))["body"].read()` holds
    nothing but the coroutine.

    Returns, where an end can come past us, a function that looks for it.

    Raises:
        Unwatchable: what lies below is not made as we know it; it was not touched.
    """
    below = getattr(body, "_raw_stream", None)
    if below is None:
        below = getattr(body, "__wrapped__", None)
    for feature, watch in _BELOW:
        if hasattr(type(below), feature):
            return watch(below, observer)
    raise _unwatchable(below)


def _unwatchable(thing: Any) -> Unwatchable:
    kind = type(thing)
    return Unwatchable(f"{kind.__module__}.{kind.__qualname__}")


class _Pieces(deque[bytes]):
    """The buffer of aiohttp's reader; all of its ways to read take whole pieces from the left.

    A piece of which a part was read is seen when its rest is. The reader has slots, so that
    nothing else of it can be shadowed.
    """

    __slots__ = ("_arrived", "_observer")

    def __init__(
        self, pieces: Iterable[bytes], observer: BodyObserver, arrived: Callable[[], bool]
    ) -> None:
        super().__init__(pieces)
        self._observer = observer
        self._arrived = arrived

    def popleft(self) -> bytes:
        piece = super().popleft()
        self._observer.see(piece)
        if not self and self._arrived():
            self._observer.ended(None)
        return piece

    def end(self) -> None:
        """Nothing more will arrive."""
        if not self:
            self._observer.ended(None)


def _watch_aiohttp(response: Any, observer: BodyObserver) -> Callable[[], bool] | None:
    names, content = getattr(response, "__dict__", None), response.content
    buffer, kind = getattr(content, "_buffer", None), type(response)
    if names is not None and buffer is None and content.at_eof():
        # aiohttp has one reader for all empty bodies.
        observer.ended(None)
        return None
    if names is None or type(buffer) is not deque:
        raise _unwatchable(content)
    this = weakref.ref(response)

    def ask(name: str) -> Any:
        # No read may depend on the answer.
        response = this()
        try:
            return None if response is None else getattr(response.content, name)()
        except Exception as error:
            shield.stop(f"aio_streams.{name}", error)
            return None

    def failed() -> bool:
        error = ask("exception")
        if error is not None:
            observer.ended(error)
        return error is not None

    pieces = _Pieces(buffer, observer, lambda: ask("is_eof") is True)
    content._buffer = pieces
    content.on_eof(pieces.end)
    # What `close`, `release` and the end of `async with` come to; afterwards every reader has
    # an exception.
    hidden = streams.beneath(names, kind, "_notify_content")
    ending = Ending(hidden, this, observer, failure=lambda: ask("exception"))
    names["_notify_content"] = ending.close
    names["_otel_bedrock_watch"] = Tether(observer, content.exception)
    return failed


class _Transport:
    """The stream below httpx's response, telling its pieces and its end."""

    __slots__ = ("_observer", "_stream")

    def __init__(self, stream: Any, observer: BodyObserver) -> None:
        self._stream = stream
        self._observer = observer

    def __aiter__(self) -> _Awaited:
        return _Awaited(self._stream.__aiter__(), self._observer, self._observer.see)

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        except GeneratorExit:
            raise
        except BaseException:
            self._observer.ended(None)
            raise
        self._observer.ended(None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _watch_httpx(response: Any, observer: BodyObserver) -> None:
    names = getattr(response, "__dict__", None)
    below = getattr(getattr(response, "stream", None), "__dict__", {})
    if names is None or not hasattr(below.get("_stream"), "__aiter__"):
        raise _unwatchable(response)
    below["_stream"] = _Transport(below["_stream"], observer)
    names["_otel_bedrock_watch"] = Tether(observer)


_Below = Callable[[Any, BodyObserver], Callable[[], bool] | None]

# What only one kind of response has, and how that kind is watched.
_BELOW: tuple[tuple[str, _Below], ...] = (
    ("_notify_content", _watch_aiohttp),
    ("aiter_raw", _watch_httpx),
)
