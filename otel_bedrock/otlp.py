"""Decodes the bodies of OTLP/HTTP requests, protobuf or JSON, into plain frozen dataclasses.

Pure: bytes in, dataclasses out. Serving them is receiver.py's part.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_bedrock.received import (
    Attributes,
    Kind,
    Plain,
    ReceivedEvent,
    ReceivedPoint,
    ReceivedSpan,
    Temporality,
)

MessageT = TypeVar("MessageT", bound=Message)

SPAN_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
STATUS_CODES = ("unset", "ok", "error")
TEMPORALITIES: dict[int, Temporality] = {1: "delta", 2: "cumulative"}
# The members of OTLP's JSON that are hexadecimal where protobuf's own JSON mapping has base64:
# https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
HEX_MEMBERS = frozenset({"traceId", "spanId", "parentSpanId"})


class BadBodyError(ValueError):
    """A body that is not the OTLP message it claims to be; the message says why."""


def decode_traces(body: bytes, is_json: bool) -> list[ReceivedSpan]:
    """Decode an ExportTraceServiceRequest."""
    request = _parse(body, is_json, ExportTraceServiceRequest())
    return [
        _span(span, resource, scoped.scope.name)
        for group in request.resource_spans
        for resource in [_attributes(group.resource.attributes)]
        for scoped in group.scope_spans
        for span in scoped.spans
    ]


def decode_metrics(body: bytes, is_json: bool) -> list[ReceivedPoint]:
    """Decode an ExportMetricsServiceRequest."""
    request = _parse(body, is_json, ExportMetricsServiceRequest())
    return [
        point
        for group in request.resource_metrics
        for resource in [_attributes(group.resource.attributes)]
        for scoped in group.scope_metrics
        for metric in scoped.metrics
        for point in _points(metric, resource, scoped.scope.name)
    ]


def count_logs(body: bytes, is_json: bool) -> int:
    """Count the records of an ExportLogsServiceRequest, whose content nobody here asks for."""
    request = _parse(body, is_json, ExportLogsServiceRequest())
    return sum(
        len(scoped.log_records) for group in request.resource_logs for scoped in group.scope_logs
    )


def encode_error(message: str, is_json: bool) -> bytes:
    """Encode the google.rpc.Status that OTLP asks for in the body of every refusal."""
    if is_json:
        return json.dumps({"message": message}).encode()
    # Status has its message in the same field (2, string) as this message that we have at hand.
    return ExportTracePartialSuccess(error_message=message).SerializeToString()


def _parse(body: bytes, is_json: bool, message: MessageT) -> MessageT:
    name = message.DESCRIPTOR.name
    try:
        if not is_json:
            message.ParseFromString(body)
            return message
        data = json.loads(body)
        if not isinstance(data, dict):
            raise BadBodyError(f"body: expected a JSON object, got {type(data).__name__}")
        return json_format.ParseDict(_with_base64_ids(data), message, ignore_unknown_fields=True)
    except DecodeError as error:
        raise BadBodyError(f"body: not a protobuf {name}: {error}") from error
    except (ValueError, json_format.ParseError, RecursionError) as error:
        if isinstance(error, BadBodyError):
            raise
        raise BadBodyError(f"body: not a JSON {name}: {error}") from error


def _with_base64_ids(node: Any) -> Any:
    if isinstance(node, list):
        return [_with_base64_ids(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _hex_to_base64(key, item) if key in HEX_MEMBERS else _with_base64_ids(item)
        for key, item in node.items()
    }


def _hex_to_base64(key: str, text: Any) -> str:
    try:
        return base64.b64encode(bytes.fromhex(text)).decode()
    except (TypeError, ValueError):
        raise BadBodyError(f"{key}: expected hexadecimal digits, got {text!r}") from None


def _span(span: Span, resource: Attributes, scope: str) -> ReceivedSpan:
    return ReceivedSpan(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex() or None,
        name=span.name,
        kind=_word(SPAN_KINDS, span.kind),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        status_code=_word(STATUS_CODES, span.status.code),
        status_message=span.status.message,
        events=tuple(
            ReceivedEvent(event.name, event.time_unix_nano, _attributes(event.attributes))
            for event in span.events
        ),
        resource=resource,
        scope=scope,
    )


def _word(words: tuple[str, ...], number: int) -> str:
    # A number that this version of the protocol does not have yet is no reason to refuse a span.
    return words[number] if 0 <= number < len(words) else str(number)


def _points(
    metric: metrics_pb2.Metric, resource: Attributes, scope: str
) -> Iterator[ReceivedPoint]:
    """Yield a metric's points. Exponential histograms and summaries count as histograms."""
    which = metric.WhichOneof("data")
    if which is None:
        return
    data = getattr(metric, which)
    is_number = which in ("sum", "gauge")
    kind: Kind = "sum" if which == "sum" else "gauge" if which == "gauge" else "histogram"
    temporality = TEMPORALITIES.get(getattr(data, "aggregation_temporality", 0))
    if which == "summary":  # has no temporality on the wire; the protocol defines it as cumulative
        temporality = "cumulative"
    for point in data.data_points:
        if point.flags & metrics_pb2.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK:
            continue
        yield ReceivedPoint(
            metric=metric.name,
            unit=metric.unit,
            kind=kind,
            temporality=temporality,
            attributes=_attributes(point.attributes),
            value=_number(point) if is_number else None,
            count=None if is_number else point.count,
            sum=None if is_number else point.sum,
            start_ns=point.start_time_unix_nano,
            time_ns=point.time_unix_nano,
            resource=resource,
            scope=scope,
        )


def _number(point: metrics_pb2.NumberDataPoint) -> int | float:
    return point.as_int if point.WhichOneof("value") == "as_int" else point.as_double


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Plain]:
    return {pair.key: _plain(pair.value) for pair in pairs}


def _plain(value: AnyValue) -> Plain:
    which = value.WhichOneof("value")
    if which is None:
        return None
    if which == "array_value":
        return tuple(_plain(item) for item in value.array_value.values)
    if which == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    plain: str | bool | int | float | bytes = getattr(value, which)
    return plain
