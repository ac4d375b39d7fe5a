"""CloudWatch Logs: invocation logs in a log group, an hour of it at a time.

An hour is done when it has been over for LATE: until then it is looked at again, and what was
read before is known by its request ids. IAM: logs:FilterLogEvents and logs:DescribeLogStreams.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import cached_property, partial
from typing import Any

from otel_bedrock.invocation_logs.aws import FAILURES, explain, fetch_body, make_client
from otel_bedrock.invocation_logs.layout import HOUR, hours
from otel_bedrock.invocation_logs.reading import LogObject, SourceError

PREFIX = "cloudwatch:"
# The name of the one log stream that Bedrock writes.
STREAM = "aws/bedrock/modelinvocations"
# How long after its call a record may come.
LATE = timedelta(hours=6)
# A stream may say late that it has events: so far back they are asked for in any case.
_LATELY = timedelta(days=1)

# Bedrock's own first event of a log group, which is no record.
_CHECK = "Permissions are correctly set"


class CloudWatch:
    """`cloudwatch:GROUP`: a log group by its name, or by its ARN."""

    # Events that were read before are read, and paid for, again.
    recent: timedelta | None = timedelta(minutes=10)
    passed_over = 0

    def __init__(self, text: str, client: Any = None, s3: Any = None) -> None:
        group = text.removeprefix(PREFIX)
        if not group:
            raise SourceError(f"{text}: expected {PREFIX}LOG_GROUP, its name or its ARN")
        self.name = text
        # Whether the group was seen to be there.
        self._found = False
        is_arn = group.startswith("arn:")
        if is_arn:
            group = group.removesuffix(":*")
        self._group = {"logGroupIdentifier" if is_arn else "logGroupName": group}
        self._region = group.split(":")[3] if is_arn and group.count(":") > 3 else None
        for name, given in (("_client", client), ("_s3", s3)):
            if given is not None:
                self.__dict__[name] = given

    @cached_property
    def _client(self) -> Any:
        return make_client("logs", self._region)

    @cached_property
    def _s3(self) -> Any:
        return make_client("s3", self._region)

    def _get_s3(self) -> Any:
        return self._s3

    def objects(self, since: datetime | None, until: datetime | None) -> Iterator[LogObject]:
        """Give the hours that may hold records of that time, the oldest first."""
        now = datetime.now(timezone.utc)
        end = now if until is None else min(now, until.astimezone(timezone.utc))
        start = self._start(since, now)
        if start is None or start >= end:
            return
        for hour in hours(start, end):
            first, last = max(hour, start), min(hour + HOUR, end)
            whole = first == hour and last == hour + HOUR and last + LATE < now
            yield LogObject(
                name=f"{self.name}/{hour:%Y-%m-%dT%H}Z",
                mark="whole" if whole else None,
                size=None,
                open=partial(self._read, first, last),
                hour=hour,
                fetch=partial(fetch_body, self._get_s3),
            )

    def _start(self, since: datetime | None, now: datetime) -> datetime | None:
        """Return from when on to read, which is not before there was anything."""
        recent = now - _LATELY
        start = since.astimezone(timezone.utc) if since is not None else None
        if start is not None and start >= recent and self._found:
            return start
        try:
            first = self._first()
        except FAILURES as error:
            raise SourceError(explain(self.name, "logs:DescribeLogStreams", error)) from error
        self._found = True
        return first if start is None else max(start, min(first or recent, recent))

    def _first(self) -> datetime | None:
        """Return the time of the first event; None where there is none."""
        first: int | None = None
        for page in self._client.get_paginator("describe_log_streams").paginate(**self._group):
            for stream in page["logStreams"]:
                at = stream.get("firstEventTimestamp")
                if at is not None and (first is None or at < first):
                    first = at
        return None if first is None else datetime.fromtimestamp(first / 1000, timezone.utc)

    def _read(self, first: datetime, last: datetime, _: int) -> Iterator[bytes]:
        """Yield the messages between two times, one a line; the end is not part of it."""
        pages = self._client.get_paginator("filter_log_events").paginate(
            **self._group,
            startTime=round(first.timestamp() * 1000),
            endTime=round(last.timestamp() * 1000) - 1,
        )
        try:
            for page in pages:
                for event in page["events"]:
                    message = event["message"].strip()
                    if message and not message.startswith(_CHECK):
                        yield message.encode() + b"\n"
        except FAILURES as error:
            raise OSError(explain(self.name, "logs:FilterLogEvents", error)) from error
