"""The OTLP receiver, against the OpenTelemetry SDK's own exporters and against garbage."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTracePartialSuccess
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from otel_bedrock.received import ReceivedPoint, ReceivedSpan
from otel_bedrock.receiver import Receiver

COUNTER = "gen_ai.client.inference.usage.input_tokens"
PROTOBUF = "application/x-protobuf"
JSON = "application/json"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def metered(
    receiver: Receiver,
    *,
    instance: str | None = None,
    temporality: AggregationTemporality = AggregationTemporality.CUMULATIVE,
    compression: Compression = Compression.NoCompression,
) -> MeterProvider:
    """What a process that exports to the receiver has; `force_flush` exports."""
    attributes = {"service.name": "shop"}
    if instance is not None:
        attributes["service.instance.id"] = instance
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(
            endpoint=f"{receiver.url}/v1/metrics",
            compression=compression,
            preferred_temporality={Counter: temporality, Histogram: temporality},
        ),
        export_interval_millis=3_600_000,
    )
    return MeterProvider([reader], resource=Resource(attributes))


def send(
    receiver: Receiver,
    body: bytes,
    *,
    path: str = "/v1/traces",
    method: str = "POST",
    **headers: str,
) -> tuple[http.client.HTTPResponse, bytes]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=5)
    try:
        connection.request(method, path, body, {"Content-Type": PROTOBUF, **names})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def json_spans(**span: object) -> bytes:
    full = {"traceId": "0a" * 16, "spanId": "0b" * 8, "name": "chat", "kind": 3, **span}
    return json.dumps(
        {
            "resourceSpans": [
                {
                    "resource": {
                        "attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]
                    },
                    "scopeSpans": [{"scope": {"name": "by hand"}, "spans": [full]}],
                }
            ]
        }
    ).encode()


def only(points: list[ReceivedPoint]) -> ReceivedPoint:
    assert len(points) == 1
    return points[0]


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_spans_arrive_as_they_were_made(receiver: Receiver, compression: Compression) -> None:
    """Ids, parents, times, types of attributes, status, events, resource and scope survive."""
    provider = TracerProvider(resource=Resource({"service.name": "shop"}))
    exporter = OTLPSpanExporter(endpoint=f"{receiver.url}/v1/traces", compression=compression)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("checkout")
    with (
        tracer.start_as_current_span("parent") as parent,
        tracer.start_as_current_span(
            "chat claude",
            kind=trace.SpanKind.CLIENT,
            attributes={
                "tokens": 2**40,
                "share": 0.5,
                "stream": True,
                "model": "claude",
                "reasons": ["end_turn", "tool_use"],
            },
        ) as child,
    ):
        child.add_event("retry", {"attempt": 1})
        child.set_status(trace.Status(trace.StatusCode.ERROR, "throttled"))
    provider.shutdown()

    received = {span.name: span for span in receiver.spans}
    chat: ReceivedSpan = received["chat claude"]
    assert chat.attributes == {
        "tokens": 2**40,
        "share": 0.5,
        "stream": True,
        "model": "claude",
        "reasons": ("end_turn", "tool_use"),
    }
    assert type(chat.attributes["tokens"]) is int
    assert type(chat.attributes["stream"]) is bool
    assert (chat.kind, chat.status_code, chat.status_message) == ("client", "error", "throttled")
    assert [(event.name, event.attributes) for event in chat.events] == [("retry", {"attempt": 1})]
    assert (chat.resource["service.name"], chat.scope) == ("shop", "checkout")
    assert chat.trace_id == format(child.get_span_context().trace_id, "032x")
    assert chat.parent_id == received["parent"].span_id
    assert received["parent"].parent_id is None
    assert received["parent"].span_id == format(parent.get_span_context().span_id, "016x")
    assert 0 < received["parent"].start_ns <= chat.start_ns <= chat.end_ns


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_sums_gauges_and_histograms_arrive(receiver: Receiver, compression: Compression) -> None:
    provider = metered(receiver, compression=compression)
    meter = provider.get_meter("otel_bedrock")
    counter = meter.create_counter(COUNTER, unit="{token}")
    counter.add(30, {"gen_ai.request.model": "claude"})
    counter.add(12, {"gen_ai.request.model": "claude"})
    meter.create_histogram("duration", unit="s").record(0.25)
    meter.create_gauge("burndown", unit="1").set(5)
    provider.force_flush()
    provider.shutdown()

    latest = {point.metric: point for point in receiver.latest()}
    tokens = latest[COUNTER]
    assert tokens.value == 42
    assert type(tokens.value) is int
    assert (tokens.kind, tokens.unit, tokens.temporality) == ("sum", "{token}", "cumulative")
    assert (tokens.count, tokens.sum) == (None, None)
    assert tokens.attributes == {"gen_ai.request.model": "claude"}
    assert (tokens.resource["service.name"], tokens.scope) == ("shop", "otel_bedrock")
    assert 0 < tokens.start_ns <= tokens.time_ns
    duration = latest["duration"]
    assert (duration.kind, duration.value, duration.count, duration.sum) == (
        "histogram",
        None,
        1,
        0.25,
    )
    assert (latest["burndown"].kind, latest["burndown"].value) == ("gauge", 5)


def test_a_cumulative_series_counts_its_newest_value_once(receiver: Receiver) -> None:
    provider = metered(receiver)
    counter = provider.get_meter("m").create_counter(COUNTER)
    counter.add(10)
    provider.force_flush()
    counter.add(5)
    provider.force_flush()
    provider.force_flush()
    provider.shutdown()
    assert [point.value for point in receiver.points][:2] == [10, 15]
    assert only(receiver.latest()).value == 15


@pytest.mark.parametrize("instances", [("a", "b"), (None, None)], ids=["named", "unnamed"])
def test_two_processes_add_up(receiver: Receiver, instances: tuple[str | None, ...]) -> None:
    """Also where nothing but the start time tells the two apart, and however they interleave."""
    providers = [metered(receiver, instance=instance) for instance in instances]
    for provider, tokens in zip(providers, (100, 7), strict=True):
        provider.get_meter("m").create_counter(COUNTER).add(tokens)
    for provider in (*providers, *providers):
        provider.force_flush()
    for provider in providers:
        provider.shutdown()
    assert sum(point.value or 0 for point in receiver.latest()) == 107


def test_deltas_are_summed(receiver: Receiver) -> None:
    provider = metered(receiver, temporality=AggregationTemporality.DELTA)
    counter = provider.get_meter("m").create_counter(COUNTER)
    histogram = provider.get_meter("m").create_histogram("duration")
    for tokens in (10, 5):
        counter.add(tokens)
        histogram.record(tokens)
        provider.force_flush()
    provider.shutdown()
    latest = {point.metric: point for point in receiver.latest()}
    assert (latest[COUNTER].value, latest[COUNTER].temporality) == (15, "delta")
    assert (latest["duration"].count, latest["duration"].sum) == (2, 15)


def test_json_bodies_are_read(receiver: Receiver) -> None:
    """Ids are hexadecimal, 64-bit numbers strings, and unknown members are let pass."""
    body = json_spans(
        parentSpanId="0c" * 8,
        startTimeUnixNano="1700000000000000001",
        endTimeUnixNano="1700000000000000009",
        attributes=[
            {"key": "tokens", "value": {"intValue": "9007199254740993"}},
            {"key": "spanId", "value": {"stringValue": "an attribute, not an id"}},
        ],
        status={"code": 2, "message": "throttled"},
        somethingNew={"traceId": "00"},
    )
    response, answer = send(receiver, body, Content_Type="application/json; charset=utf-8")
    assert (response.status, answer) == (200, b"{}")
    assert response.headers["Content-Type"] == JSON
    (span,) = receiver.spans
    assert (span.trace_id, span.span_id, span.parent_id) == ("0a" * 16, "0b" * 8, "0c" * 8)
    assert span.attributes == {
        "tokens": 9007199254740993,
        "spanId": "an attribute, not an id",
    }
    assert (span.kind, span.status_code, span.end_ns - span.start_ns) == ("client", "error", 8)


def test_json_metrics_and_logs_are_read(receiver: Receiver) -> None:
    point = {"asInt": "42", "startTimeUnixNano": "1", "timeUnixNano": "2"}
    silent = {**point, "flags": 1}  # NO_RECORDED_VALUE: a series that has ended
    metric = {
        "name": COUNTER,
        "unit": "{token}",
        "sum": {"aggregationTemporality": 2, "dataPoints": [point, silent]},
    }
    metrics = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}
    logs = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "x"}}]}]}]}
    for path, data in (("/v1/metrics", metrics), ("/v1/logs", logs)):
        response, _ = send(receiver, json.dumps(data).encode(), path=path, Content_Type=JSON)
        assert response.status == 200
    assert [point.value for point in receiver.points] == [42]
    assert receiver.log_records == 1


def test_an_accepted_protobuf_body_gets_an_empty_response(receiver: Receiver) -> None:
    response, answer = send(receiver, b"")
    assert (response.status, answer) == (200, b"")
    assert response.headers["Content-Type"] == PROTOBUF


@pytest.mark.parametrize(
    ("body", "headers", "says"),
    [
        (b"\xff\xff garbage", {}, "/v1/traces: body: not a protobuf ExportTraceServiceRequest"),
        (b"{", {"Content_Type": JSON}, "body: not a JSON ExportTraceServiceRequest"),
        (b"\xff", {"Content_Type": JSON}, "body: not a JSON ExportTraceServiceRequest"),
        (b"[" * 100_000, {"Content_Type": JSON}, "body: not a JSON ExportTraceServiceRequest"),
        (b"[]", {"Content_Type": JSON}, "body: expected a JSON object, got list"),
        (
            json_spans(traceId="zz"),
            {"Content_Type": JSON},
            "traceId: expected hexadecimal digits, got 'zz'",
        ),
        (json_spans(name=5), {"Content_Type": JSON}, "body: not a JSON"),
        (b"no gzip", {"Content_Encoding": "gzip"}, "body: not gzip"),
        (gzip.compress(b"x" * 99)[:-9], {"Content_Encoding": "gzip"}, "gzip data ends early"),
    ],
)
def test_garbage_is_refused_with_its_reason_and_harms_nothing(
    receiver: Receiver, body: bytes, headers: dict[str, str], says: str
) -> None:
    response, answer = send(receiver, body, **headers)
    assert response.status == 400
    assert says in answer.decode(errors="replace")
    assert receiver.bad_requests == 1
    assert receiver.spans == []
    response, _ = send(receiver, json_spans(), Content_Type=JSON)
    assert response.status == 200
    assert len(receiver.spans) == 1


def test_a_refusal_in_protobuf_is_a_status_message(receiver: Receiver) -> None:
    """google.rpc.Status has its message in field 2, as the class that reads it here has."""
    _, answer = send(receiver, b"\xff")
    message = ExportTracePartialSuccess.FromString(answer).error_message
    assert message.startswith("/v1/traces: body: not a protobuf")


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "says"),
    [
        ("POST", "/v1/profiles", {}, 404, "this receiver has /v1/traces, /v1/metrics, /v1/logs"),
        ("GET", "/", {}, 404, "/: no such path"),
        ("GET", "/v1/traces", {}, 405, "expected POST, got GET"),
        ("PUT", "/v1/traces", {}, 405, "expected POST, got PUT"),
        ("POST", "/v1/traces", {"Content_Type": "text/plain"}, 415, "OTEL_EXPORTER_OTLP_PROTOCOL"),
        ("POST", "/v1/traces", {"Content_Encoding": "br"}, 415, "expected gzip or none, got 'br'"),
        ("POST", "/v1/traces", {"Content_Length": "many"}, 411, "expected a number, got 'many'"),
        ("POST", "/v1/traces", {"Content_Length": "-1"}, 413, "expected at most"),
        ("POST", "/v1/traces", {"Content_Length": "9" * 12}, 413, "expected at most 67108864"),
    ],
)
def test_what_it_does_not_take_is_refused(
    receiver: Receiver, method: str, path: str, headers: dict[str, str], status: int, says: str
) -> None:
    response, answer = send(receiver, b"x", method=method, path=path, **headers)
    assert response.status == status
    assert says in answer.decode(errors="replace")
    assert (response.headers["Allow"] == "POST") == (status == 405)


def test_a_gzip_bomb_is_refused(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_bedrock.otlp_server.BODY_LIMIT", 1000)
    response, answer = send(receiver, gzip.compress(bytes(100_000)), Content_Encoding="gzip")
    assert response.status == 413
    assert b"more than 1000 bytes after gunzip" in answer


def test_chunked_bodies_are_read_and_the_connection_goes_on(receiver: Receiver) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=5)
    try:
        for _ in range(2):
            body = json_spans()
            pieces = iter([body[:10], body[10:]])
            headers = {"Content-Type": JSON}
            connection.request("POST", "/v1/traces", pieces, headers, encode_chunked=True)
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, b"{}")
    finally:
        connection.close()
    assert len(receiver.spans) == 2


def test_a_client_that_hangs_up_harms_nothing(receiver: Receiver) -> None:
    with socket.create_connection(("127.0.0.1", receiver.port)) as client:
        client.sendall(b"POST /v1/traces HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
    response, _ = send(receiver, json_spans(), Content_Type=JSON)
    assert response.status == 200


def test_memory_is_bounded_and_what_fell_out_is_counted() -> None:
    with Receiver(span_limit=2, point_limit=1, series_limit=1) as receiver:
        for name in ("a", "b", "c"):
            send(receiver, json_spans(name=name), Content_Type=JSON)
        provider = metered(receiver)
        counter = provider.get_meter("m").create_counter(COUNTER)
        counter.add(1, {"model": "first"})
        provider.force_flush()
        counter.add(1, {"model": "second"})
        provider.force_flush()
        provider.shutdown()
        assert [span.name for span in receiver.spans] == ["b", "c"]
        assert receiver.dropped_spans == 1
        assert len(receiver.points) == 1
        assert receiver.dropped_points >= 2
        assert only(receiver.latest()).attributes == {"model": "first"}
        assert receiver.dropped_series >= 1


def test_wait_for_returns_at_the_arrival_that_fulfils_it(receiver: Receiver) -> None:
    def arrived(running: Receiver) -> bool:
        return len(running.spans) == 1

    assert not receiver.wait_for(arrived, timeout=0.01)
    later = threading.Timer(0.05, send, (receiver, json_spans()), {"Content_Type": JSON})
    later.start()
    assert receiver.wait_for(arrived, timeout=5)
    later.join()


def test_nothing_arrives_after_the_end() -> None:
    """Not even on a connection that an exporter has kept open."""
    with Receiver() as receiver:
        connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=5)
        connection.request("POST", "/v1/traces", json_spans(), {"Content-Type": JSON})
        connection.getresponse().read()

    def send_again() -> None:
        connection.request("POST", "/v1/traces", json_spans(), {"Content-Type": JSON})
        connection.getresponse()

    with pytest.raises(OSError):
        send_again()
    connection.close()
    assert len(receiver.spans) == 1
    with pytest.raises(RuntimeError, match="not running"):
        _ = receiver.url


def test_a_port_that_is_taken_is_an_os_error(receiver: Receiver) -> None:
    with pytest.raises(OSError), Receiver(receiver.port):
        pass
