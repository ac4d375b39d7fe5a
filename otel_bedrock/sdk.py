"""SDK: the optional one-call set-up of OpenTelemetry's SDK with OTLP export, and `flush`.

Imports the SDK and the exporters only when asked to: without an endpoint this package needs
the API alone.
"""

from __future__ import annotations

import importlib
import logging
import os
import time
from typing import Any

from opentelemetry import metrics, trace

log = logging.getLogger("otel_bedrock")

_GRPC = "grpc"
_HTTP = "http/protobuf"

# OTEL_EXPORTER_OTLP_PROTOCOL -> modules of the exporters, and what an endpoint's path gets.
_EXPORTERS = {
    _HTTP: (
        "opentelemetry.exporter.otlp.proto.http.trace_exporter",
        "opentelemetry.exporter.otlp.proto.http.metric_exporter",
        {"traces": "/v1/traces", "metrics": "/v1/metrics"},
    ),
    _GRPC: (
        "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
        "opentelemetry.exporter.otlp.proto.grpc.metric_exporter",
        {"traces": "", "metrics": ""},
    ),
}


def disabled() -> bool:
    """Return whether OTEL_SDK_DISABLED is true."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def is_tracing(provider: trace.TracerProvider | None = None) -> bool:
    """Return whether `provider`, or the global one, is more than the API's stand-in."""
    provider = provider or trace.get_tracer_provider()
    return not isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider))


def is_metering(provider: metrics.MeterProvider | None = None) -> bool:
    """Return whether `provider`, or the global one, is more than the API's stand-in."""
    provider = provider or metrics.get_meter_provider()
    # The stand-in's class is private; the SDK's own is what can be flushed.
    return not isinstance(provider, metrics.NoOpMeterProvider) and hasattr(provider, "force_flush")


class Providers:
    """The providers that `set_up` made; None where there was one already, or none is wanted."""

    def __init__(self, tracer_provider: Any = None, meter_provider: Any = None) -> None:
        self.tracer_provider = tracer_provider
        self.meter_provider = meter_provider

    def __bool__(self) -> bool:
        return self.tracer_provider is not None or self.meter_provider is not None

    def shutdown(self) -> None:
        """Flush and shut down; a global provider cannot be unset, it stays and is silent."""
        for provider in (self.tracer_provider, self.meter_provider):
            if provider is not None:
                provider.shutdown()
        self.tracer_provider = self.meter_provider = None


def set_up(endpoint: str) -> Providers:
    """Set up tracer and meter provider with OTLP export to `endpoint`, as the global ones.

    A signal for which a global provider exists already keeps it, which is said in the log.
    OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER=none and OTEL_METRICS_EXPORTER=none are honoured.

    Raises:
        ModuleNotFoundError: the exporters for the protocol are not installed.
    """
    if disabled():
        log.info("OTEL_SDK_DISABLED is true: nothing is exported")
        return Providers()
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").strip() or _HTTP
    if protocol not in _EXPORTERS:
        log.warning(
            "OTEL_EXPORTER_OTLP_PROTOCOL: expected %s; got %r; %s is used",
            " or ".join(_EXPORTERS),
            protocol,
            _HTTP,
        )
        protocol = _HTTP
    spans_module, metrics_module, paths = _EXPORTERS[protocol]
    options: dict[str, Any] = {}
    if protocol == _GRPC:
        options["insecure"] = endpoint.startswith("http://")
    made = Providers()
    if _wanted("TRACES"):
        if is_tracing():
            log.info(
                "a global tracer provider is set already; otlp_endpoint is not used for traces"
            )
        else:
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor

            exporter = importlib.import_module(spans_module).OTLPSpanExporter(
                endpoint=endpoint + paths["traces"], **options
            )
            made.tracer_provider = TracerProvider()
            made.tracer_provider.add_span_processor(BatchSpanProcessor(exporter))
            trace.set_tracer_provider(made.tracer_provider)
    if _wanted("METRICS"):
        if is_metering():
            log.info(
                "a global meter provider is set already; otlp_endpoint is not used for metrics"
            )
        else:
            from opentelemetry.sdk.metrics import MeterProvider
            from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

            exporter = importlib.import_module(metrics_module).OTLPMetricExporter(
                endpoint=endpoint + paths["metrics"], **options
            )
            made.meter_provider = MeterProvider(
                metric_readers=[PeriodicExportingMetricReader(exporter)]
            )
            metrics.set_meter_provider(made.meter_provider)
    return made


def _wanted(signal: str) -> bool:
    return os.environ.get(f"OTEL_{signal}_EXPORTER", "").strip().lower() != "none"


def flush(
    timeout: float,
    tracer_provider: trace.TracerProvider | None,
    meter_provider: metrics.MeterProvider | None,
) -> bool:
    """Export what is waiting; True where all of it left within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    done = True
    for provider in (
        tracer_provider or trace.get_tracer_provider(),
        meter_provider or metrics.get_meter_provider(),
    ):
        force_flush = getattr(provider, "force_flush", None)
        if force_flush is None:
            continue
        left = max(1, int((deadline - time.monotonic()) * 1000))
        try:
            done = bool(force_flush(timeout_millis=left)) and done
        except Exception as error:
            log.warning("flush failed: %s: %s", type(error).__name__, error)
            done = False
    return done
