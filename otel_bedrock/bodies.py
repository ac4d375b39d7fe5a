"""Bodies: the user's own StreamingBody, whose bytes are seen while the user reads them.

As with `streams`, in whose SEAMS stands what is shadowed: nothing is read, buffered or changed,
and the object is held by a weak reference. The one thing that differs by it: `f.read` of what
`with body as f` hands out does not keep `f`, as a bound method would, and raises ValueError
where nothing else does.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, Protocol, cast

from otel_bedrock.streams import (
    Ending,
    Observer,
    Shadow,
    Tether,
    Unwatchable,
    beneath,
    innermost,
)


class BodyObserver(Observer, Protocol):
    """Is told the pieces of a body as well."""

    def see(self, piece: bytes) -> None:
        """The bytes that one read gave."""


_READS = frozenset(("read", "read1", "read_chunked"))


def _hidden(names: Mapping[str, Any], kind: type) -> SimpleNamespace:
    """Return the ways to read a response with `names`, theirs and its own."""
    known = (name for name in _READS if hasattr(kind, name))
    return SimpleNamespace(**{name: beneath(names, kind, name) for name in known})


def _is_closed(response: Any, unknown: bool = False) -> bool:
    try:
        return bool(getattr(response, "closed", unknown))
    except Exception:
        # Of a kind that we do not know: what is wrong with it, the caller's own reading says.
        return unknown


class _Reads(Shadow):
    """The ways to read one urllib3 response, each telling the bytes that it gave, and the end.

    They call each other, so only the outermost is seen.
    """

    __slots__ = ("_below", "_depth", "_observer", "_this")

    def __init__(self, response: Any, observer: BodyObserver) -> None:
        self._this = weakref.ref(response)
        # Where the real ones are: in the class, unless somebody has put theirs on the response.
        self._below: Any = type(response)
        if not _READS.isdisjoint(vars(response)):
            self._below = _hidden(vars(response), type(response))
        self._observer = observer
        self._depth = 0

    def hidden(self, name: str) -> Callable[..., Any]:
        return cast("Callable[..., Any]", getattr(self._below, name))

    def read(self, *args: Any, **kwargs: Any) -> Any:
        return self._watched(self._below.read, True, args, kwargs)

    def read1(self, *args: Any, **kwargs: Any) -> Any:
        return self._watched(self._below.read1, False, args, kwargs)

    def read_chunked(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        # The real generator, which holds the response, is made now and runs later.
        response = self._alive()
        return self._until_last(response, self._below.read_chunked(response, *args, **kwargs))

    def closed(self) -> bool:
        """Say whether the response was closed past us; holds nothing alive."""
        response = self._this()
        # At the end of the data the response closes itself, before we have seen the data.
        return response is None or (self._depth == 0 and _is_closed(response))

    def _alive(self) -> Any:
        response = self._this()
        if response is None:
            # A bound method that outlived the response, which closed when it was collected.
            raise ValueError("I/O operation on closed file.")
        return response

    def _watched(
        self,
        read: Callable[..., Any],
        takes_all: bool,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        response = self._alive()
        was_closed = self._depth == 0 and _is_closed(response)
        self._depth += 1
        try:
            data = read(response, *args, **kwargs)
            if self._depth == 1:
                self._observer.see(data)
                amount = args[0] if args else kwargs.get("amt")
                everything = takes_all and (amount is None or amount < 0)
                if everything or (not data and amount != 0):
                    self._observer.ended(None)
        except BaseException as error:
            if self._depth == 1:
                self._failed(response, was_closed, error)
            raise
        finally:
            self._depth -= 1
        return data

    def _until_last(self, response: Any, chunks: Iterator[bytes]) -> Iterator[bytes]:
        while True:
            was_closed = _is_closed(response)
            self._depth += 1
            try:
                chunk = next(chunks)
                if self._depth == 1:
                    self._observer.see(chunk)
            except StopIteration:
                break
            except BaseException as error:
                if self._depth == 1:
                    self._failed(response, was_closed, error)
                raise
            finally:
                self._depth -= 1
            yield chunk
        self._observer.ended(None)

    def _failed(self, response: Any, was_closed: bool, error: BaseException) -> None:
        # A wrong argument ends nothing: what ends a response closes it. And to read what was
        # closed before is no failure of the call.
        if was_closed or _is_closed(response, unknown=True):
            self._observer.ended(None if was_closed else error)


def watch_body(body: Any, observer: BodyObserver) -> Callable[[], bool]:
    """Observe a StreamingBody: the bytes of each read below it, and its end.

    `with body as f` hands out the urllib3 response, and `readlines` goes past the body, so
    the response is the only place that sees every read. `close` is shadowed on the body alone:
    the response's own is called by its finalizer too, which must reach the real one, and may run
    in the garbage collector.

    Returns a function that tells whether the response was closed past us (by `with`, or
    directly); it holds nothing alive.

    Raises:
        Unwatchable: an object takes no attributes or no weak references; none was touched.
    """
    # A proxy shows the names of what it stands for, and its own methods would be put there.
    body = innermost(body)
    raw: Any = innermost(getattr(body, "_raw_stream", None))
    kind: Any = type(raw)
    body_kind = type(body)
    names, body_names = getattr(raw, "__dict__", None), getattr(body, "__dict__", None)
    if names is None or body_names is None or not callable(getattr(kind, "read", None)):
        raise Unwatchable(f"{kind.__module__}.{kind.__qualname__}")
    if not callable(getattr(body_kind, "close", None)):
        raise Unwatchable(f"{body_kind.__module__}.{body_kind.__qualname__}")
    try:
        reads, this_body = _Reads(raw, observer), weakref.ref(body)
    except TypeError:
        raise Unwatchable(f"{kind.__module__}.{kind.__qualname__}") from None
    shadows: dict[str, Any] = {"read": reads.read}
    if callable(getattr(kind, "read1", None)):
        shadows["read1"] = reads.read1
    if callable(getattr(kind, "read_chunked", None)):
        shadows["read_chunked"] = reads.read_chunked
    shadows["_otel_bedrock_watch"] = Tether(observer)
    ending = Ending(beneath(body_names, body_kind, "close"), this_body, observer, raw)
    names.update(shadows)
    body_names["close"] = ending.close
    return reads.closed
