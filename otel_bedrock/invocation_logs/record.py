"""Record: one record of a model invocation log, read by the code that reads live calls.

Everything is read when it is asked for, so that a report over counts pays for counts only.
Rules, and the evidence for them:

- The record's own counts come first, and exclude cache tokens; the body fills what they lack
  (the TTL of cache writes, reasoning tokens), and an off-loaded one is fetched only then.
- `timestamp` is the time at which the request arrived, cut to the second: five records of
  2025-12-03 carry the caller's own clock in `requestMetadata`, 0 to 0.9 s before it, and calls
  that took 1.2 to 4.1 s. So a call ends at its timestamp plus its latency.
- The body of Converse and ConverseStream is Converse's answer, that of InvokeModel the model's,
  that of InvokeModelWithResponseStream a list of its chunks. Bodies may be text, absent, or
  elsewhere (`outputBodyS3Path`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from otel_bedrock import answer, usage
from otel_bedrock.call import Call, Outcome, Usage
from otel_bedrock.events import InvokeEvents
from otel_bedrock.invocation_logs.offloaded import Fetch
from otel_bedrock.invocation_logs.parsing import loads
from otel_bedrock.model_id import ModelId, parse
from otel_bedrock.operations import TABLE, Operation
from otel_bedrock.paths import dig
from otel_bedrock.providers import Provider, provider_of
from otel_bedrock.request import read_call

SCHEMA = "ModelInvocationLog"
ORIGIN = "invocation_log"
BATCH = "batch"
# A member that we add to a record which we made of something else: where that came from.
MARK = "otel_bedrock.origin"

_RUNTIME = "bedrock-runtime"
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_NS = 1_000_000_000
# OTLP has times from 1970 to 2262, where what is signed ends.
_LAST = 2**63
# A call is over after an hour at the most: no latency is a day (ms).
_LONGEST = 86_400_000
_SECOND = timedelta(seconds=1)
_TIME = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:[.,](\d+))?([Zz]|[+-]\d\d:\d\d)?")

# Every streamed operation whose body is that of another one, which is read in its place.
_READ_AS = {"ConverseStream": "Converse"}
# An operation that a later schema may log: told, with the counts of its record.
_OTHER = Operation(_RUNTIME, "", None, "plain", spends=True)


def is_record(value: Any) -> bool:
    """Say whether a JSON value is a record, with or without its `schemaType`."""
    if not isinstance(value, dict):
        return False
    if value.get("schemaType") == SCHEMA:
        return True
    return "modelId" in value and ("requestId" in value or "operation" in value)


class Record:
    """One record; `data` is its JSON, which is never changed.

    `fetch` is how an off-loaded body is got, and what it raises is raised. What a record does not
    say is None.
    """

    __slots__ = ("_bodies", "_fetch", "_known", "data")

    def __init__(self, data: dict[str, Any], fetch: Fetch | None = None) -> None:
        self.data = data
        self._fetch = fetch
        self._bodies: dict[str, Any] = {}
        self._known: tuple[Call, Provider] | None = None

    @property
    def request_id(self) -> str | None:
        """The id of the request at AWS: two records with the same one are of one call."""
        return _text(self.data.get("requestId"))

    @property
    def operation(self) -> str | None:
        """The API's name, such as `Converse`."""
        return _text(self.data.get("operation"))

    @property
    def model_id(self) -> str | None:
        """The model as called: an id, a profile's id, or an ARN."""
        return _text(self.data.get("modelId"))

    @property
    def model(self) -> ModelId:
        """The model as called, parsed."""
        return parse(self.model_id or "")

    @property
    def account(self) -> str | None:
        """The account that was called."""
        return _text(self.data.get("accountId"))

    @property
    def identity(self) -> str | None:
        """The ARN of who called."""
        found = self.data.get("identity")
        return _text(found.get("arn")) if isinstance(found, dict) else None

    @property
    def region(self) -> str | None:
        """The Region that was called."""
        return _text(self.data.get("region"))

    @property
    def inference_region(self) -> str | None:
        """The Region that answered, where a cross-Region profile chose one."""
        return _text(self.data.get("inferenceRegion"))

    @property
    def error_code(self) -> str | None:
        """The error that the call ended with; None on success."""
        return _text(self.data.get("errorCode"))

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the caller sent as `requestMetadata`."""
        found = self.data.get("requestMetadata")
        return found if isinstance(found, dict) else {}

    @property
    def timestamp(self) -> str | None:
        """The time of the request, as written: RFC 3339."""
        return _text(self.data.get("timestamp"))

    @property
    def start_ns(self) -> int | None:
        """The time of the request, in nanoseconds since 1970."""
        return read_time(self.timestamp)

    @property
    def origin(self) -> str:
        """Where the record comes from: ORIGIN, or BATCH."""
        return BATCH if self.data.get(MARK) == BATCH else ORIGIN

    @property
    def counts(self) -> tuple[int | None, int | None, int | None, int | None]:
        """The record's own counts: input without cache, output, cache read, cache write."""
        sides = self.data.get("input"), self.data.get("output")
        sent = sides[0] if isinstance(sides[0], dict) else {}
        told = sides[1] if isinstance(sides[1], dict) else {}
        whole = usage.whole
        return (
            whole(sent.get("inputTokenCount")),
            whole(told.get("outputTokenCount")),
            whole(sent.get("cacheReadInputTokenCount")),
            whole(sent.get("cacheWriteInputTokenCount")),
        )

    def read_usage(self) -> Usage | None:
        """Read the token counts, from the bodies only what the record's own counts lack."""
        given, sent, read, written = self.counts
        provider = provider_of(self.model)
        if given is not None and sent is not None and not written:
            waits = provider.includes_cache and read is None
            if not waits:
                return Usage(
                    input_tokens=given + (read or 0),
                    output_tokens=sent,
                    cache_read_tokens=read,
                    cache_write_tokens=written,
                    uncached_tokens=given,
                    source=usage.LOG,
                )
        return self._usage(self._answered(provider)[1])

    def read_call(self) -> Call:
        """Read what was asked, as far as the record has it."""
        return self._call()[0]

    def read_outcome(self) -> Outcome:
        """Read what came of it, usage included."""
        _, provider = self._call()
        found, reports = self._answered(provider)
        mode = _text(dig(self.data, "performanceConfig.latency"))
        if mode is not None:
            found["latency_mode"] = mode
        if found.get("server_latency_ms", 0) > _LONGEST:
            del found["server_latency_ms"]
        found["request_id"] = self.request_id
        found["usage"] = self._usage(reports)
        # Why it was throttled stands in the error's message, which is in no record.
        found["error_type"] = self.error_code
        return Outcome(**found)

    @property
    def row(self) -> Operation:
        """The row of the operation's table."""
        return TABLE.get((_RUNTIME, self.operation or ""), _OTHER)

    @property
    def spends(self) -> bool:
        """Whether such a call uses tokens, so that a record without counts lacks something."""
        return self.row.spends and self._call()[1].tokens

    def _call(self) -> tuple[Call, Provider]:
        if self._known is None:
            parameters: dict[str, Any] = {}
            body = self._body("input", fetch=False)
            if isinstance(body, Mapping):
                # Converse's parameters are its body; InvokeModel's has them inside.
                parameters = dict(body) if self.row.reads == "converse" else {"body": body}
            parameters["modelId"] = self.model_id
            if self.metadata:
                parameters["requestMetadata"] = self.metadata
            self._known = read_call(self.row, parameters, region=self.region)
        return self._known

    def _usage(self, reports: list[usage.Report | None]) -> Usage | None:
        return usage.decide((usage.read_log(self.data), *reports))

    def _answered(self, provider: Provider) -> tuple[answer.Found, list[usage.Report | None]]:
        """Read the answer's body: fields of an Outcome, and what it says of usage."""
        body = self._body("output", fetch=self._lacks(provider))
        row = self.row
        if row.reads == "converse" and isinstance(body, Mapping):
            return _read_converse(row, _whole_answer(body), provider)
        if isinstance(body, list):
            return _read_chunks(body, provider)
        if isinstance(body, Mapping):
            found = answer.read_body_details(body, provider)
            return found, [usage.read_body(body), usage.read_metrics(body)]
        return {}, []

    def _lacks(self, provider: Provider) -> bool:
        """Say whether the counts need a body that has to be fetched."""
        if self.error_code is not None:
            return False
        given, sent, _, _ = self.counts
        waits = usage.held(
            usage.read_log(self.data),
            splits=provider.splits_cache_write,
            includes=provider.includes_cache,
        )
        return bool(waits) or given is None or sent is None

    def _body(self, side: str, *, fetch: bool) -> Any:
        """Return a body as JSON; None where there is none."""
        if side in self._bodies:
            return self._bodies[side]
        part = self.data.get(side)
        part = part if isinstance(part, dict) else {}
        body = part.get(f"{side}BodyJson")
        if body is None and fetch and self._fetch is not None:
            path = part.get(f"{side}BodyS3Path")
            body = self._fetch(path) if isinstance(path, str) else None
        if isinstance(body, str):
            try:
                body = loads(body.encode())
            except ValueError:
                body = None
        if body is not None or fetch:
            self._bodies[side] = body
        return body


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _whole_answer(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return Converse's answer; some records have all of it one level down, under `output`."""
    inner = body.get("output")
    if "usage" not in body and isinstance(inner, Mapping) and "message" in inner:
        return {**inner, **{key: value for key, value in body.items() if key != "output"}}
    return body


def _read_converse(
    row: Operation, body: Mapping[str, Any], provider: Provider
) -> tuple[answer.Found, list[usage.Report | None]]:
    asked = TABLE[_RUNTIME, _READ_AS.get(row.api, row.api)]
    found = answer.read_answer(asked, body, provider)
    del found["usage"]
    inclusive = row.stream is not None and provider.converse_stream_inclusive
    return found, [
        usage.read_usage(body, inclusive=inclusive),
        usage.read_additional(body.get("additionalModelResponseFields")),
    ]


def _read_chunks(
    chunks: list[Any], provider: Provider
) -> tuple[answer.Found, list[usage.Report | None]]:
    events = InvokeEvents(provider)
    for chunk in chunks:
        if isinstance(chunk, str):
            try:
                chunk = loads(chunk.encode())
            except ValueError:
                continue
        if isinstance(chunk, Mapping):
            events.take(chunk)
    found = events.found(exhausted=True)
    if not found["complete"]:
        # Logs leave the last chunk out at times, which says nothing of the stream.
        del found["complete"]
    return found, list(events.reports())


def read_time(text: str | None) -> int | None:
    """Read an RFC 3339 time as nanoseconds since 1970; without a zone it is UTC.

    None where it is none, or lies before 1970 or after 2262, when nobody called.
    """
    match = None if text is None else _TIME.fullmatch(text)
    if match is None:
        return None
    # Older Pythons take a fraction of three digits or six, and no Z.
    seconds, fraction, zone = match.groups()
    zone = "+00:00" if zone in (None, "Z", "z") else zone
    try:
        when = datetime.fromisoformat(f"{seconds}.{(fraction or '0')[:6]:0<6}{zone}")
    except ValueError:
        return None
    found = nanoseconds(when)
    return found if 0 <= found < _LAST else None


def nanoseconds(when: datetime) -> int:
    """Return a time as nanoseconds since 1970; without a zone it is UTC."""
    since = (when if when.tzinfo is not None else when.replace(tzinfo=timezone.utc)) - _EPOCH
    return (since // _SECOND) * _NS + since.microseconds * 1000
