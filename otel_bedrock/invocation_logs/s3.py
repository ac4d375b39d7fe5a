"""S3: invocation logs in a bucket, by the hours that their keys name.

With a time range only its hours are listed, whole days and longer at once, and those after it in
which records of it may still have been delivered; and what stands beside logs of that layout.
Without a range, or where no keys have that layout, all that is under the prefix.
IAM: s3:ListBucket on the bucket, s3:GetObject on its objects.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import cached_property, partial
from typing import Any

from otel_bedrock.invocation_logs.aws import (
    FAILURES,
    explain,
    fetch_body,
    make_client,
    read_object,
)
from otel_bedrock.invocation_logs.layout import (
    HOURLY,
    SERVICE,
    holds_records,
    hour_of,
    in_range,
    spans,
)
from otel_bedrock.invocation_logs.reading import LogObject, SourceError

# How long after its call a record may come in a later hour's object.
LATE = timedelta(hours=6)

_FORM = re.compile(r"s3://([a-z0-9.-]{3,63})(?:/(.*))?", re.DOTALL)
# The prefix of one account's logs in one Region: under it stand the years.
_REGION = re.compile(rf"(?:^|.*/){SERVICE}/[^/]+/")
_SERVICE = re.compile(rf"(?:^|.*/){SERVICE}/")
_ACCOUNT = re.compile(r"(?:^|.*/)AWSLogs/[^/]+/")
_ROOT = re.compile(r"(?:^|.*/)AWSLogs/")


class S3:
    """`s3://bucket/prefix`: a bucket, a folder of it at any level, or one object."""

    # A list for each hour.
    recent = None
    passed_over = 0

    def __init__(self, text: str, client: Any = None) -> None:
        match = _FORM.fullmatch(text)
        if match is None:
            raise SourceError(f"{text}: expected s3://bucket or s3://bucket/prefix")
        self.name = text
        self._bucket, self._prefix = match[1], match[2] or ""
        if client is not None:
            self.__dict__["_client"] = client

    @cached_property
    def _client(self) -> Any:
        return make_client("s3")

    def _get_client(self) -> Any:
        return self._client

    def objects(self, since: datetime | None, until: datetime | None) -> Iterator[LogObject]:
        """Give the objects that may hold records of that time, the oldest first."""
        try:
            for found in self._listed(since, until):
                key = found["Key"]
                hour = hour_of(key)
                if found["Size"] and holds_records(key) and in_range(hour, since, until):
                    yield self._object(found, hour)
        except FAILURES as error:
            raise SourceError(explain(self.name, "s3:ListBucket", error)) from error

    def _object(self, found: Any, hour: datetime | None) -> LogObject:
        key, etag = found["Key"], found["ETag"]
        return LogObject(
            name=f"s3://{self._bucket}/{key}",
            mark=etag,
            size=found["Size"],
            # Of the very content that the mark is of.
            open=lambda _: read_object(self._get_client, self._bucket, key, IfMatch=etag),
            hour=hour,
            fetch=partial(fetch_body, self._get_client),
            modified=found["LastModified"],
        )

    def _listed(self, since: datetime | None, until: datetime | None) -> Iterator[Any]:
        if since is None:
            yield from self._under()
            return
        regions = list(self._regions())
        if not regions:
            yield from self._under()
            return
        yield from self._beside()
        now = datetime.now(timezone.utc)
        last = now if until is None or until > now - LATE else until + LATE
        for span in spans(since, last):
            # Days and longer in one go; an hour without its folders: off-loaded bodies in data/.
            delimiter = "/" if span.count("/") == HOURLY.count("/") else ""
            for region in regions:
                yield from self._list(f"{region}{span}", delimiter)

    def _under(self) -> Iterator[Any]:
        """List all that is under the prefix, which is a folder's or an object's name."""
        for found in self._list(self._prefix):
            if found["Key"] == self._prefix or found["Key"].startswith(self._folder):
                yield found

    def _beside(self) -> Iterator[Any]:
        """List what is under the prefix but not in its AWSLogs/: batch output, another's logs."""
        folder = self._folder
        if _ROOT.match(folder):
            # Beside ours stand the logs of AWS's other services.
            return
        yield from self._list(folder, delimiter="/")
        for other in self._folders(folder):
            if other != f"{folder}AWSLogs/":
                yield from self._list(other)

    @property
    def _folder(self) -> str:
        prefix = self._prefix
        return prefix if not prefix or prefix[-1] == "/" else f"{prefix}/"

    def _regions(self) -> Iterator[str]:
        """Give the prefixes under which years stand; none where the layout is another."""
        prefix = self._folder
        if _REGION.fullmatch(prefix):
            yield prefix
        elif _SERVICE.fullmatch(prefix):
            yield from self._folders(prefix)
        elif _ACCOUNT.fullmatch(prefix):
            yield from self._folders(f"{prefix}{SERVICE}/")
        elif _ROOT.fullmatch(prefix) or not _SERVICE.match(prefix):
            root = prefix if _ROOT.fullmatch(prefix) else f"{prefix}AWSLogs/"
            for account in self._folders(root):
                yield from self._folders(f"{account}{SERVICE}/")

    def _folders(self, prefix: str) -> Iterator[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=prefix, Delimiter="/"
        )
        for page in pages:
            for each in page.get("CommonPrefixes", ()):
                yield each["Prefix"]

    def _list(self, prefix: str, delimiter: str = "") -> Iterator[Any]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=prefix, **({"Delimiter": delimiter} if delimiter else {})
        )
        for page in pages:
            yield from page.get("Contents", ())
