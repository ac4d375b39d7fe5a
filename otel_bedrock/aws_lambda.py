"""Lambda: a handler that has exported what it told before the sandbox is frozen."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, TypeVar, overload

from otel_bedrock.instrumentor import flush
from otel_bedrock.setting_values import Invalid, seconds

Handler = TypeVar("Handler", bound=Callable[..., Any])

# Left for the run-time itself when a handler is flushed shortly before its time-out (seconds).
_SPARE = 0.2


@overload
def flush_after(handler: Handler, /) -> Handler: ...
@overload
def flush_after(
    *, timeout: float = ..., at_most_every: float = ...
) -> Callable[[Handler], Handler]: ...
def flush_after(
    handler: Callable[..., Any] | None = None,
    /,
    *,
    timeout: float = 2.0,
    at_most_every: float = 0.0,
) -> Any:
    """Flush after each invocation of an AWS Lambda handler, also one that raises.

        @otel_bedrock.flush_after
        def handler(event, context): ...

        @otel_bedrock.flush_after(timeout=1, at_most_every=30)
        def handler(event, context): ...

    Args:
        handler: the Lambda handler.
        timeout: longest time that the flush may take, in seconds; less where the invocation has
            less left, by its context's `get_remaining_time_in_millis`.
        at_most_every: seconds within which a second flush is left out: billed data points are
            fewer, and what was left out goes with the next flush, or is lost with the sandbox.

    What it makes never raises by itself: it returns or raises what the handler does.

    Raises:
        TypeError: the handler is no function. When the module is imported, before any invocation.
        ValueError: a time is no number of seconds; likewise.
    """
    timeout = _checked("timeout", timeout)
    at_most_every = _checked("at_most_every", at_most_every)
    if handler is None:
        return functools.partial(_wrapped, timeout=timeout, at_most_every=at_most_every)
    return _wrapped(handler, timeout=timeout, at_most_every=at_most_every)


def _checked(name: str, value: float) -> float:
    try:
        return seconds(value)
    except Invalid as error:
        raise Invalid(f"{name}: {error}") from None


def _wrapped(
    handler: Callable[..., Any], *, timeout: float, at_most_every: float
) -> Callable[..., Any]:
    if not callable(handler):
        raise TypeError(
            f"flush_after: expected a handler; got {handler!r}. Its settings have names, as in"
            " @flush_after(timeout=2)"
        )
    last: float | None = None

    @functools.wraps(handler)
    def flushing(*args: Any, **kwargs: Any) -> Any:
        nonlocal last
        try:
            return handler(*args, **kwargs)
        finally:
            now = time.monotonic()
            if last is None or now - last >= at_most_every:
                last = now
                flush(_left(args, timeout))

    return flushing


def _left(args: tuple[Any, ...], timeout: float) -> float:
    """Return how long a flush may take: `timeout`, or what the invocation has left."""
    try:
        left = float(args[1].get_remaining_time_in_millis()) / 1000 - _SPARE
    except Exception:
        return timeout
    return max(0.0, min(timeout, left))
