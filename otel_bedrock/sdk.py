"""SDK: the optional one-call set-up of OpenTelemetry's SDK with OTLP export, and `flush`.

Imports the SDK and the exporters only when asked to: without an endpoint this package needs
the API alone.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from opentelemetry import metrics, trace

log = logging.getLogger("otel_bedrock")

_GRPC = "grpc"
_HTTP = "http/protobuf"
_PACKAGE = "opentelemetry.exporter.otlp.proto"

# OTEL_EXPORTER_OTLP_PROTOCOL -> modules of the exporters, what the endpoint's path gets, and
# the loggers that complain of an endpoint that does not answer.
_EXPORTERS = {
    _HTTP: (
        f"{_PACKAGE}.http.trace_exporter",
        f"{_PACKAGE}.http.metric_exporter",
        {"traces": "/v1/traces", "metrics": "/v1/metrics"},
        (f"{_PACKAGE}.http.trace_exporter", f"{_PACKAGE}.http.metric_exporter"),
    ),
    _GRPC: (
        f"{_PACKAGE}.grpc.trace_exporter",
        f"{_PACKAGE}.grpc.metric_exporter",
        {"traces": "", "metrics": ""},
        (f"{_PACKAGE}.grpc.exporter",),
    ),
}

# The longest that a process waits at its exit for an endpoint that does not answer (seconds).
_EXIT_TIMEOUT = 5.0
_SAY_EVERY = 60.0


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
    # The stand-in's class is private; what can be flushed is an SDK's.
    return not isinstance(provider, metrics.NoOpMeterProvider) and hasattr(provider, "force_flush")


class Providers:
    """The providers that `set_up` made; None where there was one already, or none is wanted."""

    def __init__(self, tracer_provider: Any = None, meter_provider: Any = None) -> None:
        self.tracer_provider = tracer_provider
        self.meter_provider = meter_provider
        self.failures = 0

    def __bool__(self) -> bool:
        return self.tracer_provider is not None or self.meter_provider is not None

    def shutdown(self, timeout: float = _EXIT_TIMEOUT) -> None:
        """Export what is waiting and shut down, within `timeout` seconds; twice does nothing.

        A global provider cannot be unset: it stays, and is silent.
        """
        made = (self.tracer_provider, self.meter_provider)
        self.tracer_provider = self.meter_provider = None
        _together([provider.shutdown for provider in made if provider is not None], timeout)

    def watch(self, exporter: Any) -> Any:
        """Return `exporter`, counting the exports that failed."""
        export = exporter.export

        def watched(*args: Any, **kwargs: Any) -> Any:
            result = export(*args, **kwargs)
            if getattr(result, "name", "SUCCESS") != "SUCCESS":
                self.failures += 1
            return result

        exporter.export = watched
        return exporter


class _Seldom(logging.Filter):
    """Lets one message a minute through, of all the loggers that it is put on."""

    def __init__(self, endpoint: str) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _SAY_EVERY
        log.warning(
            "nothing can be exported to %s at the moment: is an OpenTelemetry Collector listening"
            " there? Calls are not affected. (otlp_endpoint; said once a minute)",
            self._endpoint,
        )
        return True


def set_up(endpoint: str) -> Providers:
    """Set up tracer and meter provider with OTLP export to `endpoint`, as the global ones.

    A signal for which a global provider exists already keeps it, which is said in the log.
    OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER=none and OTEL_METRICS_EXPORTER=none are honoured.

    Raises:
        ModuleNotFoundError: the exporters for the protocol are not installed.
    """
    made = Providers()
    if disabled():
        log.info("OTEL_SDK_DISABLED is true: nothing is exported")
        return made
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").strip() or _HTTP
    if protocol not in _EXPORTERS:
        log.warning(
            "OTEL_EXPORTER_OTLP_PROTOCOL: expected %s; got %r; %s is used",
            " or ".join(_EXPORTERS),
            protocol,
            _HTTP,
        )
        protocol = _HTTP
    spans_module, metrics_module, paths, loggers = _EXPORTERS[protocol]
    options: dict[str, Any] = {}
    if protocol == _GRPC:
        options["insecure"] = endpoint.startswith("http://")
    if _wanted("TRACES", is_tracing()):
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = importlib.import_module(spans_module).OTLPSpanExporter(
            endpoint=endpoint + paths["traces"], **options
        )
        made.tracer_provider = TracerProvider(shutdown_on_exit=False)
        made.tracer_provider.add_span_processor(BatchSpanProcessor(made.watch(exporter)))
        trace.set_tracer_provider(made.tracer_provider)
    if _wanted("METRICS", is_metering()):
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        exporter = importlib.import_module(metrics_module).OTLPMetricExporter(
            endpoint=endpoint + paths["metrics"], **options
        )
        reader = PeriodicExportingMetricReader(made.watch(exporter))
        made.meter_provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
        metrics.set_meter_provider(made.meter_provider)
    if made:
        seldom = _Seldom(endpoint)
        for name in loggers:
            logging.getLogger(name).addFilter(seldom)
        # Not the SDK's own exit handlers: they wait for each signal in turn, without a bound.
        atexit.register(made.shutdown)
    return made


def _wanted(signal: str, is_there: bool) -> bool:
    if os.environ.get(f"OTEL_{signal}_EXPORTER", "").strip().lower() == "none":
        return False
    if is_there:
        log.warning(
            "%s go where the global provider sends them, which was set before; otlp_endpoint is"
            " not used for them",
            signal.lower(),
        )
    return not is_there


def flush(
    timeout: float,
    tracer_provider: trace.TracerProvider | None,
    meter_provider: metrics.MeterProvider | None,
) -> bool:
    """Export what is waiting; True where all of it was handed over within `timeout` seconds.

    The SDK's own time limits are not trusted: its exporters go on retrying past them.
    """
    flushes: list[Callable[[], Any]] = []
    for provider in (
        tracer_provider or trace.get_tracer_provider(),
        meter_provider or metrics.get_meter_provider(),
    ):
        force_flush = getattr(provider, "force_flush", None)
        if force_flush is not None:
            flushes.append(partial(force_flush, timeout_millis=int(timeout * 1000)))
    return _together(flushes, timeout)


def _together(calls: list[Callable[[], Any]], timeout: float) -> bool:
    """Run `calls` side by side; True where none is still running or failed after `timeout`."""
    results: list[bool] = []

    def run(call: Callable[[], Any]) -> None:
        try:
            results.append(call() is not False)
        except Exception as error:
            log.warning("export failed: %s: %s", type(error).__name__, error)

    threads = [threading.Thread(target=run, args=(call,), daemon=True) for call in calls]
    deadline = time.monotonic() + timeout
    try:
        for thread in threads:
            thread.start()
    except RuntimeError:
        # The interpreter is shutting down and starts no more threads: in turn, then.
        for call in calls[len([thread for thread in threads if thread.ident]) :]:
            run(call)
    for thread in threads:
        if thread.ident:
            thread.join(max(0.0, deadline - time.monotonic()))
    return len(results) == len(calls) and all(results)
