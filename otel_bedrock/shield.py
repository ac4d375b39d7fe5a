"""Telemetry bugs stop here: logged once per site, counted, never raised to the user.

`OTEL_BEDROCK_RAISE_INTERNAL_ERRORS=1` makes them raise, so that no bug can hide in a test.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from inspect import CO_VARARGS
from types import FrameType, TracebackType

log = logging.getLogger("otel_bedrock")

RAISE_VARIABLE = "OTEL_BEDROCK_RAISE_INTERNAL_ERRORS"


class ForTheCaller(Exception):
    """The base of exceptions that are meant for the user: no shield stops them."""


# Where nothing is sent yet, and some of it waits for the network: what a signal's handler raises
# there, to break the call off, goes through as it would without us.
_BEFORE = frozenset(("preflight", "budget", "budget.ahead", "begin.budget", "begin"))

_logged: set[str] = set()
_listeners: list[Callable[[str], None]] = []


def stop(site: str, error: BaseException) -> None:
    """Swallow `error`, which our own code raised at `site`: log it once, count it."""
    try:
        raises = os.environ.get(RAISE_VARIABLE) == "1" or (site in _BEFORE and interrupts(error))
    except Exception:
        # At the bottom of the stack not even that can be asked.
        return
    if raises:
        raise error
    try:
        if site not in _logged:
            _logged.add(site)
            # Not the error's own text: it may hold a piece of somebody's prompt.
            log.warning(
                "telemetry failed at %s (%s, %s); the call is not affected, and this is said"
                " once. Please report it.",
                site,
                type(error).__name__,
                _place(error),
            )
        for listener in tuple(_listeners):
            listener(site)
    except Exception:  # noqa: S110 - the last line of defence: there is nobody left to tell
        pass


def interrupts(error: BaseException) -> bool:
    """Say whether a signal's handler raised `error`: somebody's time limit, no failure of ours.

    botocore wraps one that comes up while it sends.
    """
    told = getattr(error, "kwargs", None)
    wrapped = told.get("error") if isinstance(told, dict) else None
    return any(
        _by_handler(each.__traceback__)
        for each in (error, wrapped)
        if isinstance(each, BaseException)
    )


def _by_handler(trace: TracebackType | None) -> bool:
    """Say whether `trace` goes through a function that was called with a signal and a frame."""
    while trace is not None:
        code, given = trace.tb_frame.f_code, trace.tb_frame.f_locals
        names = code.co_varnames
        values = [given.get(name) for name in names[: code.co_argcount]]
        if code.co_flags & CO_VARARGS:
            values += given.get(names[code.co_argcount + code.co_kwonlyargcount], ())
        if len(values) >= 2 and isinstance(values[-2], int) and isinstance(values[-1], FrameType):
            return True
        trace = trace.tb_next
    return False


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "nowhere"
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


def on_error(listener: Callable[[str], None]) -> None:
    """Call `listener(site)` for each error that is stopped: how errors become a metric."""
    _listeners.append(listener)


def forget(listener: Callable[[str], None]) -> None:
    """Take a listener back; an unknown one is ignored."""
    if listener in _listeners:
        _listeners.remove(listener)


def reset() -> None:
    """Log each site once more. For tests."""
    _logged.clear()
