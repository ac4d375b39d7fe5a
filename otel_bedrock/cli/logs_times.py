"""Times on the command line: dates, times, and how long ago."""

from __future__ import annotations

import argparse
import re
from datetime import datetime, timedelta, timezone

_AGO = re.compile(r"(\d{1,6})([smhdw])(?: ago)?")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
# No record has a time before or after: nanoseconds since 1970 in 64 bits. Within, there is room
# for adding hours and zones.
_EARLIEST = datetime(1970, 1, 1, tzinfo=timezone.utc)
_LATEST = datetime(2262, 4, 11, tzinfo=timezone.utc)
_LONGEST = timedelta(days=36_500)


def read_bound(text: str) -> datetime:
    """Read a bound of a range, for argparse; what has no zone is UTC."""
    if _AGO.fullmatch(text.strip()):
        return max(_EARLIEST, datetime.now(timezone.utc) - read_span(text))
    # Older Pythons take no Z, and no lone hour after the T.
    plain = re.sub(r"[zZ]$", "+00:00", text.strip())
    try:
        when = datetime.fromisoformat(plain)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a time such as 2026-11-01, 2026-11-01T12:00Z or 36h, got {text!r}"
        ) from None
    when = when if when.tzinfo is not None else when.replace(tzinfo=timezone.utc)
    return min(max(_EARLIEST, when), _LATEST).astimezone(timezone.utc)


def read_span(text: str) -> timedelta:
    """Read a length of time such as 30s, 10m, 6h or 7d, for argparse; at most a century."""
    match = _AGO.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"expected a time such as 30s, 10m or 6h, got {text!r}")
    return min(_LONGEST, timedelta(**{_UNITS[match[2]]: int(match[1])}))
