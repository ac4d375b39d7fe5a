"""The fake's model invocation log: a folder with the objects that Bedrock would deliver to S3.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-invocation-logging.html, and what real
records have besides: cache counts, inferenceRegion, errorCode and the S3 paths of large bodies.
The three input counts are disjoint, as everywhere in Bedrock. A call that its caller breaks off is
logged with all that the fake bills for it.
"""

from __future__ import annotations

import gzip
import json
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from threading import Condition
from typing import Any

from otel_bedrock.testing.bill import Billed, Line
from otel_bedrock.testing.errors import STATUS
from otel_bedrock.testing.wire import Received

# The operations that Bedrock logs; CountTokens and guardrails are not among them.
LOGGED = frozenset({"Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream"})
ACCOUNT = "123456789012"
APP = f"arn:aws:sts::{ACCOUNT}:assumed-role/app/i-0123456789abcdef0"
CONSOLE = f"arn:aws:sts::{ACCOUNT}:assumed-role/AWSReservedSSO_Developer/jane@example.com"

_JSON = "application/json"
_SCOPE = re.compile(r"Credential=([^/]+)/\d{8}/([a-z0-9-]+)/")
_METADATA = "x-amzn-bedrock-request-metadata"
# Where a cross-Region profile may have been served.
_SERVED = {
    "us": "us-west-2",
    "eu": "eu-central-1",
    "apac": "ap-northeast-1",
    "jp": "ap-northeast-3",
}
_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(slots=True)
class InvocationLog:
    """Collects a record for each call; `flush()` and every `batch` of them write an object.

    `folder` stands for the bucket. `identities` says whose an access key is; every other call
    is `identity`'s. Bodies over `offload` bytes of JSON go to an object of their own. With
    `bodies=False` text delivery is off: counts are all that a record has.
    """

    folder: Path
    account: str = ACCOUNT
    bucket: str = "fake-bedrock-logs"
    prefix: str = ""
    identity: str = APP
    identities: Mapping[str, str] = field(default_factory=dict)
    offload: int = 100_000
    batch: int = 1_000
    bodies: bool = True
    clock: Callable[[], float] = time.time
    _kept: dict[str, list[str]] = field(default_factory=dict)
    _pending: int = 0
    _changed: Condition = field(default_factory=Condition)

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        # Bedrock writes this once, to see whether it may.
        self._put(f"{self._root()}/amazon-bedrock-logs-permission-check", b"")

    def open(self) -> float:
        """Note that a call has come, and return its time; `close` follows."""
        with self._changed:
            self._pending += 1
        return self.clock()

    def close(self, at: float, request: Received, line: Line, identity: str | None = None) -> None:
        """Keep the record of a call that came at `at`, unless it was never answered."""
        try:
            if line.billed is not None and line.billed.status:
                self._keep(at, request, line, line.billed, identity)
        finally:
            with self._changed:
                self._pending -= 1
                self._changed.notify_all()

    def _keep(
        self, at: float, request: Received, line: Line, billed: Billed, identity: str | None
    ) -> None:
        when = datetime.fromtimestamp(at, timezone.utc)
        found = _SCOPE.search(request.headers.get("authorization", ""))
        key, region = (found[1], found[2]) if found else ("", "us-east-1")
        hour = f"{self._root()}/{region}/{when:%Y/%m/%d/%H}"
        output = None if line.logged is None else line.logged()
        record = self._record(when, region, request, billed, output, hour)
        record["identity"] = {"arn": identity or self.identities.get(key, self.identity)}
        with self._changed:
            lines = self._kept.setdefault(hour, [])
            lines.append(_encode(record))
            if len(lines) >= self.batch:
                self._deliver(hour, self._kept.pop(hour))

    def flush(self, timeout: float = 10) -> None:
        """Write what is kept, the calls that are being answered included."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pending, timeout)
            for hour, lines in self._kept.items():
                self._deliver(hour, lines)
            self._kept.clear()

    def _root(self) -> str:
        prefix = f"{self.prefix.strip('/')}/" if self.prefix else ""
        return f"{prefix}AWSLogs/{self.account}/BedrockModelInvocationLogs"

    def _deliver(self, hour: str, lines: list[str]) -> None:
        now = datetime.fromtimestamp(self.clock(), timezone.utc)
        name = f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}Z_{secrets.token_hex(8)}.json.gz"
        self._put(f"{hour}/{name}", gzip.compress("".join(f"{x}\n" for x in lines).encode(), 6))

    def _put(self, key: str, data: bytes) -> None:
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not there, as objects in S3 are.
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(data)
        part.replace(path)

    def _record(
        self,
        when: datetime,
        region: str,
        request: Received,
        billed: Billed,
        output: object,
        hour: str,
    ) -> dict[str, Any]:
        sent, metadata = _read_request(request, billed.operation)
        record: dict[str, Any] = {
            "schemaType": "ModelInvocationLog",
            "schemaVersion": "1.0",
            "timestamp": f"{when:%Y-%m-%dT%H:%M:%SZ}",
            "accountId": self.account,
            "region": region,
            "requestId": billed.request_id,
            "operation": billed.operation,
            "modelId": billed.model_id,
        }
        error = billed.error if billed.error is not None and _is_code(billed.error) else None
        if error is not None:
            record["errorCode"] = error[0].upper() + error[1:]
        counts = {
            "inputTokenCount": billed.uncached_tokens,
            "cacheReadInputTokenCount": billed.cache_read_tokens,
            "cacheWriteInputTokenCount": billed.cache_write_tokens,
        }
        record["input"] = {
            "inputContentType": _JSON,
            **self._body("input", sent, billed.request_id, hour),
            **_known(counts if error is None else {}),
        }
        if error is None:
            record["output"] = {
                "outputContentType": _JSON,
                **self._body("output", output, billed.request_id, hour),
                **_known({"outputTokenCount": billed.output_tokens}),
            }
        geo = billed.model_id.rpartition("/")[2].partition(".")[0]
        if geo in (*_SERVED, "global"):
            record["inferenceRegion"] = _SERVED.get(geo, region)
        if metadata:
            record["requestMetadata"] = metadata
        return record

    def _body(self, side: str, body: object, request_id: str, hour: str) -> dict[str, object]:
        if body is None or not self.bodies:
            return {}
        text = _encode(body)
        if len(text) <= self.offload:
            return {f"{side}BodyJson": body}
        key = f"{hour}/data/{request_id}_{side}.json.gz"
        self._put(key, gzip.compress(text.encode()))
        return {f"{side}BodyS3Path": f"s3://{self.bucket}/{key}"}


def _is_code(error: str) -> bool:
    # Errors within a stream are spelled with a small letter; "caller went away" is none.
    return error[:1].upper() + error[1:] in STATUS


def _known(counts: Mapping[str, int | None]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count is not None}


def _read_request(request: Received, operation: str) -> tuple[object, Mapping[str, str] | None]:
    """The body of a request and its metadata: a member of Converse's, a header of the others'."""
    try:
        body = json.loads(request.body)
    except ValueError:
        body = request.body.decode("utf-8", "replace")
    if operation.startswith("Converse"):
        if not isinstance(body, dict):
            return body, None
        metadata = body.pop("requestMetadata", None)
        return body, metadata
    given = request.headers.get(_METADATA)
    return body, None if given is None else json.loads(given)
