"""Layout: how Bedrock names the objects of its logs, read from a key or a path.

`[prefix/]AWSLogs/<account>/BedrockModelInvocationLogs/<region>/YYYY/MM/DD/HH/<time>_<random>.json.gz`;
off-loaded bodies stand beside them in `data/`.
https://docs.aws.amazon.com/bedrock/latest/userguide/model-invocation-logging.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

SERVICE = "BedrockModelInvocationLogs"
HOUR = timedelta(hours=1)
HOURLY = "%Y/%m/%d/%H/"
# Bedrock is younger than this, and so is every log of it.
_BEGAN = datetime(2020, 1, 1, tzinfo=timezone.utc)

_HOUR = re.compile(r"(?:^|/)(\d{4})/(\d\d)/(\d\d)/(\d\d)/(?!.*/\d{4}/\d\d/\d\d/\d\d/)")
# What Bedrock and CloudWatch write to see whether they may: names of objects.
_CHECKS = ("permission-check", "aws-logs-write-test")
# A body that was copied without its hour: by its request's id, for others may say `_output` too.
_BODY = re.compile(
    r"(?:^|/)data/[0-9a-f]{8}(?:-[0-9a-f]{4,12}){4}_(?:input|output)\.json(?:\.gz)?$"
)


def hour_of(key: str) -> datetime | None:
    """Return the hour that a key was written in; None where it has no such layout."""
    match = _HOUR.search(key.replace("\\", "/"))
    if match is None:
        return None
    year, month, day, hour = map(int, match.groups())
    try:
        return datetime(year, month, day, hour, tzinfo=timezone.utc)
    except ValueError:
        return None


def holds_records(key: str) -> bool:
    """Say whether an object is one of records: no body, and no check of a permission."""
    key = key.replace("\\", "/")
    name = key.rpartition("/")[2]
    if any(word in name for word in _CHECKS):
        return False
    if hour_of(key) is not None and "/data/" in key[_hour_end(key) - 1 :]:
        return False
    return _BODY.search(key) is None


def _hour_end(key: str) -> int:
    match = _HOUR.search(key)
    return match.end() if match is not None else 0


def in_range(hour: datetime | None, since: datetime | None, until: datetime | None) -> bool:
    """Say whether an object of `hour` may hold records of that time.

    A record is written after its call, so never in an earlier hour, and often in a later one:
    `until` bounds records, not objects.
    """
    return hour is None or since is None or since - hour < HOUR


def hours(since: datetime, until: datetime) -> Iterator[datetime]:
    """Give every hour from that of `since` to the last that begins before `until`."""
    hour = _floor(since)
    while hour < until:
        yield hour
        hour += HOUR


def spans(since: datetime, until: datetime) -> Iterator[str]:
    """Give the fewest folders that have all hours from `since` to `until`: years, days, hours."""
    at, end = max(_floor(since), _BEGAN), _floor(until) + HOUR
    while at < end:
        day = at.replace(hour=0)
        month = day.replace(day=1)
        # The largest that begins here and is over by the end.
        for form, start, after in (
            ("%Y/", month.replace(month=1), month.replace(year=at.year + 1, month=1)),
            ("%Y/%m/", month, (month + timedelta(days=32)).replace(day=1)),
            ("%Y/%m/%d/", day, day + timedelta(days=1)),
            (HOURLY, at, at + HOUR),
        ):
            if start == at and after <= end:
                yield f"{at:{form}}"
                at = after
                break


def _floor(at: datetime) -> datetime:
    return at.astimezone(timezone.utc).replace(minute=0, second=0, microsecond=0)
