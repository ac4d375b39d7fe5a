"""Collectors of agent.yaml, gateway.yaml and logs.yaml, and a backend in Python behind them.

`Sink` stands where Jaeger is and keeps what it is sent; `send_*` are a sender that is told whether
the collector took its data.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from stack import COLLECTOR, Programs, free_ports, read_attributes
from typing_extensions import Self

PORTS = (
    "OTELCOL_OTLP_GRPC_ENDPOINT",
    "OTELCOL_OTLP_HTTP_ENDPOINT",
    "OTELCOL_HEALTH_ENDPOINT",
    "OTELCOL_METRICS_PORT",
    "OTELCOL_PROMETHEUS_ENDPOINT",
)


class Fleet(Programs):
    """Nothing at first: each test starts what it needs."""

    def collector(
        self,
        name: str,
        files: Sequence[str | Path],
        environ: Mapping[str, str],
        *,
        wait: bool = True,
    ) -> Collector:
        """Start a collector from files of collector/ (or paths), the later over the earlier."""
        listens = dict(
            zip(PORTS, (f"127.0.0.1:{port}" for port in free_ports(len(PORTS))), strict=True)
        )
        listens["OTELCOL_METRICS_PORT"] = listens["OTELCOL_METRICS_PORT"].rpartition(":")[2]
        environment = {
            **listens,
            "OTELCOL_STORAGE_DIR": str(self.folder / f"{name}-storage"),
            **environ,
        }
        made = Collector(self, name, tuple(str(COLLECTOR / one) for one in files), environment)
        made.start(wait=wait)
        return made


@dataclass
class Collector:
    """One collector, which can be killed and started again with its ports and its storage."""

    fleet: Fleet
    name: str
    files: tuple[str, ...]
    environ: Mapping[str, str]

    @property
    def grpc(self) -> str:
        return self.environ["OTELCOL_OTLP_GRPC_ENDPOINT"]

    @property
    def http(self) -> str:
        return f"http://{self.environ['OTELCOL_OTLP_HTTP_ENDPOINT']}"

    def start(self, *, wait: bool = True) -> None:
        arguments = [part for one in self.files for part in ("--config", one)]
        self.fleet.run("otelcol-bedrock", arguments, self.environ, name=self.name)
        if wait:
            self.fleet.await_health(self.name, f"http://{self.environ['OTELCOL_HEALTH_ENDPOINT']}/")

    def kill(self) -> None:
        self.fleet.kill(self.name)

    def stop(self) -> None:
        process = self.fleet.running[self.name]
        process.terminate()
        process.wait(30)

    def log(self) -> str:
        return self.fleet.log(self.name, 1000)


@dataclass
class Sink:
    """An OTLP receiver that keeps everything; `down()` and `up()` take it off and on its port."""

    spans: list[dict[str, Any]] = field(default_factory=list)
    points: list[dict[str, Any]] = field(default_factory=list)
    logs: list[dict[str, Any]] = field(default_factory=list)
    port: int = 0
    _server: grpc.Server | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *error: object) -> None:
        self.down()

    def up(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(4))
        trace_grpc.add_TraceServiceServicer_to_server(_Traces(self), self._server)
        metrics_grpc.add_MetricsServiceServicer_to_server(_Metrics(self), self._server)
        logs_grpc.add_LogsServiceServicer_to_server(_Logs(self), self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def down(self) -> None:
        if self._server is not None:
            self._server.stop(None).wait()
            self._server = None


class _Traces(trace_grpc.TraceServiceServicer):
    def __init__(self, sink: Sink) -> None:
        self.sink = sink

    def Export(self, request, context):  # noqa: N802 - gRPC's name
        for group in MessageToDict(request).get("resourceSpans", ()):
            resource = read_attributes(group.get("resource", {}))
            for scoped in group.get("scopeSpans", ()):
                for span in scoped.get("spans", ()):
                    self.sink.spans.append(
                        {
                            "trace_id": base64.b64decode(span["traceId"]).hex(),
                            "span_id": base64.b64decode(span["spanId"]).hex(),
                            "name": span["name"],
                            "attributes": read_attributes(span),
                            "events": [read_attributes(one) for one in span.get("events", ())],
                            "message": span.get("status", {}).get("message", ""),
                            "resource": resource,
                        }
                    )
        return ExportTraceServiceResponse()


class _Metrics(metrics_grpc.MetricsServiceServicer):
    def __init__(self, sink: Sink) -> None:
        self.sink = sink

    def Export(self, request, context):  # noqa: N802 - gRPC's name
        for group in MessageToDict(request).get("resourceMetrics", ()):
            for scoped in group.get("scopeMetrics", ()):
                for metric in scoped.get("metrics", ()):
                    for kind in ("sum", "gauge", "histogram"):
                        for point in metric.get(kind, {}).get("dataPoints", ()):
                            self.sink.points.append(
                                {**point, "name": metric["name"], "at": read_attributes(point)}
                            )
        return ExportMetricsServiceResponse()


class _Logs(logs_grpc.LogsServiceServicer):
    def __init__(self, sink: Sink) -> None:
        self.sink = sink

    def Export(self, request, context):  # noqa: N802 - gRPC's name
        for group in MessageToDict(request).get("resourceLogs", ()):
            for scoped in group.get("scopeLogs", ()):
                for log in scoped.get("logRecords", ()):
                    self.sink.logs.append({**log, "at": read_attributes(log)})
        return ExportLogsServiceResponse()


def value(given: Any) -> AnyValue:
    """Return an attribute's value as OTLP has it."""
    if isinstance(given, bool):
        return AnyValue(bool_value=given)
    if isinstance(given, int):
        return AnyValue(int_value=given)
    if isinstance(given, float):
        return AnyValue(double_value=given)
    if isinstance(given, (list, tuple)):
        return AnyValue(array_value=ArrayValue(values=[value(one) for one in given]))
    return AnyValue(string_value=given)


def pairs(attributes: Mapping[str, Any]) -> list[KeyValue]:
    """Return attributes as OTLP has them."""
    return [KeyValue(key=key, value=value(given)) for key, given in attributes.items()]


def send_spans(endpoint: str, spans: Iterable[Mapping[str, Any]], timeout: float = 10) -> None:
    """Send spans in one request; raises unless the collector says that it has them."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    now = time.time_ns()
    for one in spans:
        span = scope.spans.add(
            trace_id=one["trace_id"],
            span_id=one["span_id"],
            name=one.get("name", "chat"),
            start_time_unix_nano=now - int(one.get("seconds", 0.01) * 1e9),
            end_time_unix_nano=now,
            attributes=pairs(one.get("attributes", {})),
        )
        span.status.code = 2 if one.get("error") else 0
        span.status.message = one.get("message", "")
        for event in one.get("events", ()):
            span.events.add(name="event", attributes=pairs(event))
    with grpc.insecure_channel(endpoint) as channel:
        trace_grpc.TraceServiceStub(channel).Export(request, timeout=timeout)


def send_sums(
    endpoint: str,
    sums: Iterable[tuple[str, Mapping[str, Any], int]],
    *,
    resource: Mapping[str, Any] | None = None,
) -> None:
    """Send one export of cumulative sums: name, attributes, value of each point."""
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    group.resource.attributes.extend(pairs(resource or {}))
    scope = group.scope_metrics.add()
    now = time.time_ns()
    metrics: dict[str, Any] = {}
    for name, attributes, total in sums:
        if name not in metrics:
            metrics[name] = scope.metrics.add(name=name, unit="{token}")
            metrics[name].sum.aggregation_temporality = 2
            metrics[name].sum.is_monotonic = True
        metrics[name].sum.data_points.add(
            attributes=pairs(attributes),
            as_int=total,
            start_time_unix_nano=now - 10**9,
            time_unix_nano=now,
        )
    with grpc.insecure_channel(endpoint) as channel:
        metrics_grpc.MetricsServiceStub(channel).Export(request, timeout=10)


def send_log(endpoint: str, body: str, attributes: Mapping[str, Any] | None = None) -> None:
    """Send one log."""
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    scope.log_records.add(body=AnyValue(string_value=body), attributes=pairs(attributes or {}))
    with grpc.insecure_channel(endpoint) as channel:
        logs_grpc.LogsServiceStub(channel).Export(request, timeout=10)
