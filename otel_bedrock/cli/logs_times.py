"""Times on the command line: dates, times, and how long ago."""

from __future__ import annotations

import argparse
import re
from datetime import datetime, timedelta, timezone

_AGO = re.compile(r"(\d{1,6})([smhdw])(?: ago)?")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def read_bound(text: str) -> datetime:
    """Read a bound of a range, for argparse; what has no zone is UTC."""
    ago = _AGO.fullmatch(text.strip())
    if ago:
        span = timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.now(timezone.utc) - span
    # Older Pythons take no Z, and no lone hour after the T.
    plain = re.sub(r"[zZ]$", "+00:00", text.strip())
    try:
        when = datetime.fromisoformat(plain)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a time such as 2026-11-01, 2026-11-01T12:00Z or 36h, got {text!r}"
        ) from None
    return when if when.tzinfo is not None else when.replace(tzinfo=timezone.utc)


def read_span(text: str) -> timedelta:
    """Read a length of time such as 30s, 10m, 6h or 7d, for argparse."""
    match = _AGO.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"expected a time such as 30s, 10m or 6h, got {text!r}")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
