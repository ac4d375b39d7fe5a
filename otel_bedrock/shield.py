"""Telemetry bugs stop here: logged once per site, counted, never raised to the user.

`OTEL_BEDROCK_RAISE_INTERNAL_ERRORS=1` makes them raise, so that no bug can hide in a test.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

log = logging.getLogger("otel_bedrock")

RAISE_VARIABLE = "OTEL_BEDROCK_RAISE_INTERNAL_ERRORS"


class ForTheCaller(Exception):
    """The base of exceptions that are meant for the user: no shield stops them."""


_logged: set[str] = set()
_listeners: list[Callable[[str], None]] = []


def stop(site: str, error: BaseException) -> None:
    """Swallow `error`, which our own code raised at `site`: log it once, count it."""
    try:
        raises = os.environ.get(RAISE_VARIABLE) == "1"
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
