"""An AWS Lambda function that turns each new object of invocation logs into metrics and spans.

Set S3 (or EventBridge) to call `handler` for objects that are created under AWSLogs/, with a
reserved concurrency of 1, and these environment variables:

    OTEL_BEDROCK_OTLP_ENDPOINT   where the collector is
    STATE                        s3://bucket/key of what was counted; not under AWSLogs/

It needs s3:GetObject and s3:ListBucket on the logs, and s3:GetObject and s3:PutObject on STATE.

Events come more than once, and functions end at any moment. So STATE remembers every object and
request id together with the sums, and is written before the sums are sent: what was sent is what
is kept. Where another invocation has written it meanwhile, nothing is sent and Lambda tries again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote_plus

import boto3
from botocore.exceptions import ClientError

from otel_bedrock.config import read_config
from otel_bedrock.invocation_logs import open_source
from otel_bedrock.invocation_logs.checkpoint import SQLiteCheckpoint
from otel_bedrock.invocation_logs.ingest import Ingest, Plan
from otel_bedrock.invocation_logs.outlet import OtlpOutlet


class Held:
    """An outlet that keeps the sums until `release`; each is the whole, so the last is enough."""

    def __init__(self, outlet: OtlpOutlet) -> None:
        self._outlet = outlet
        self._metrics: Any = None

    def send_spans(self, spans: Sequence[Any]) -> Sequence[str]:
        return self._outlet.send_spans(spans)

    def send_metrics(self, data: Any) -> None:
        self._metrics = data

    def release(self) -> None:
        if self._metrics is not None:
            self._outlet.send_metrics(self._metrics)


class State:
    """The checkpoint's file in S3."""

    def __init__(self, url: str, s3: Any) -> None:
        self._bucket, _, self._key = url.removeprefix("s3://").partition("/")
        self._s3 = s3
        self._etag: str | None = None

    def fetch(self, path: Path) -> None:
        try:
            found = self._s3.get_object(Bucket=self._bucket, Key=self._key)
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchKey":
                raise
            return
        self._etag = found["ETag"]
        path.write_bytes(found["Body"].read())

    def store(self, path: Path) -> None:
        """Write it, unless somebody else did since it was fetched."""
        unchanged = {"IfMatch": self._etag} if self._etag else {"IfNoneMatch": "*"}
        self._s3.put_object(Bucket=self._bucket, Key=self._key, Body=path.read_bytes(), **unchanged)


def objects_of(event: Mapping[str, Any]) -> Iterator[str]:
    """The objects that an event of S3 or EventBridge is about."""
    if "detail" in event:
        detail = event["detail"]
        yield f"s3://{detail['bucket']['name']}/{detail['object']['key']}"
    for record in event.get("Records", ()):
        key = unquote_plus(record["s3"]["object"]["key"])
        yield f"s3://{record['s3']['bucket']['name']}/{key}"


def handler(event: Mapping[str, Any], context: object = None) -> dict[str, int]:
    config = read_config({})
    outlet = Held(OtlpOutlet(config.otlp_endpoint or "http://localhost:4318", patience=20))
    plan = Plan([open_source(name) for name in sorted(set(objects_of(event)))])
    with TemporaryDirectory() as folder, closing(boto3.client("s3")) as s3:
        path, state = Path(folder) / "state.sqlite", State(os.environ["STATE"], s3)
        state.fetch(path)
        with closing(SQLiteCheckpoint(path)) as checkpoint:
            ingest = Ingest(plan, checkpoint, outlet, config)
            with closing(ingest):
                tally = ingest.run()
        state.store(path)
    outlet.release()
    if tally.failed:
        # What was read is kept; the event comes again for the rest.
        raise RuntimeError(f"{tally.failed} objects, or bodies of theirs, could not be read")
    return {
        "records": tally.records,
        "duplicates": tally.duplicates,
        "skipped": tally.skipped,
        "input_tokens": tally.input_tokens,
        "output_tokens": tally.output_tokens,
    }
