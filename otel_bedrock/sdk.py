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
from dataclasses import replace
from functools import partial
from typing import Any

from opentelemetry import metrics, trace

log = logging.getLogger("otel_bedrock")

# The name of our tracer and meter.
SCOPE = "otel_bedrock"

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
# The longest that a flush waits: infinity and the like fit no clock of the platform.
_LONGEST = 86_400.0


def disabled() -> bool:
    """Return whether OTEL_SDK_DISABLED is true."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


# Providers of ours that were shut down: a global one can be neither used nor replaced.
_ended: list[Any] = []


def is_tracing(provider: trace.TracerProvider | None = None) -> bool:
    """Return whether `provider`, or the global one, is alive and more than the API's stand-in."""
    provider = provider or trace.get_tracer_provider()
    stand_ins = (trace.ProxyTracerProvider, trace.NoOpTracerProvider)
    return not isinstance(provider, stand_ins) and provider not in _ended


def is_metering(provider: metrics.MeterProvider | None = None) -> bool:
    """Return whether `provider`, or the global one, is alive and more than the API's stand-in."""
    provider = provider or metrics.get_meter_provider()
    # The stand-in's class is private; what can be flushed is an SDK's.
    is_there = not isinstance(provider, metrics.NoOpMeterProvider)
    return is_there and hasattr(provider, "force_flush") and provider not in _ended


_UNKNOWN = object()


def may_be_set() -> bool:
    """Return whether a global provider may have been set: False only where there is none.

    What a call costs in a program without an SDK. To ask the API looks into the environment each
    time, which is 5 of 7 µs, so its own variables are looked at, as long as they are there.
    """
    internal = getattr(metrics, "_internal", None)
    return (
        getattr(trace, "_TRACER_PROVIDER", _UNKNOWN) is not None
        or getattr(internal, "_METER_PROVIDER", _UNKNOWN) is not None
    )


def unwanted() -> bool:
    """Return whether the environment says that nothing is to be exported."""
    return disabled() or (_is_none("TRACES") and _is_none("METRICS"))


def _is_none(signal: str) -> bool:
    return os.environ.get(f"OTEL_{signal}_EXPORTER", "").strip().lower() == "none"


class Providers:
    """The providers that `set_up` made; None where there was one already, or none is wanted."""

    def __init__(self, endpoint: str = "", protocol: str = _HTTP) -> None:
        self.tracer_provider: Any = None
        self.meter_provider: Any = None
        self.failures = 0
        self.seldom: _Seldom | None = None
        self._endpoint = endpoint
        self._protocol = protocol
        self._exporters: list[_Watched] = []

    def __bool__(self) -> bool:
        return self.tracer_provider is not None or self.meter_provider is not None

    def make_tracer_provider(self) -> Any:
        """Make a tracer provider that exports in batches."""
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = self._watched(_EXPORTERS[self._protocol][0], "OTLPSpanExporter", "traces")
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(BatchSpanProcessor(exporter))
        return self.tracer_provider

    def make_meter_provider(self) -> Any:
        """Make a meter provider that exports periodically."""
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        exporter = self._watched(_EXPORTERS[self._protocol][1], "OTLPMetricExporter", "metrics")
        reader = PeriodicExportingMetricReader(exporter)
        self.meter_provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
        return self.meter_provider

    def _watched(self, module: str, name: str, signal: str) -> Any:
        kind = getattr(importlib.import_module(module), name)

        def make() -> Any:
            options: dict[str, Any] = {}
            if self._protocol == _GRPC:
                options["insecure"] = self._endpoint.startswith("http://")
            path = _EXPORTERS[self._protocol][2][signal]
            return kind(endpoint=self._endpoint + path, **options)

        exporter = make()
        self._exporters.append(_Watched(exporter, self, make))
        return exporter

    def move(self, endpoint: str) -> None:
        """Export to `endpoint` from now on, also what is waiting; the sums go on."""
        if endpoint == self._endpoint:
            return
        self._endpoint = endpoint
        for watched in self._exporters:
            watched.move()
        if self.seldom is not None:
            self.seldom.move(endpoint)

    def renew(self) -> None:
        """Make new providers in a forked child, which count from zero under their own id.

        The SDK keeps the parent's sums in the child, and its exporters the parent's
        connections. The global providers stay, for what else the program measures; of what we
        measured in the parent they export nothing more.
        """
        for watched in self._exporters:
            watched.inherited = True
        self._exporters = []
        if self.tracer_provider is not None:
            self.make_tracer_provider()
        if self.meter_provider is not None:
            self.make_meter_provider()

    def shutdown(self, timeout: float = _EXIT_TIMEOUT) -> None:
        """Export what is waiting and shut down, within `timeout` seconds; twice does nothing.

        A global provider cannot be unset: it stays, and is silent.
        """
        made = (self.tracer_provider, self.meter_provider)
        self.tracer_provider = self.meter_provider = None
        _ended.extend(provider for provider in made if provider is not None)
        if not _together([each.shutdown for each in made if each is not None], timeout):
            self.say_late(timeout)

    def say_late(self, timeout: float) -> None:
        """Say that `timeout` seconds were not enough: an endpoint may be silent for longer."""
        if self.seldom is not None:
            self.seldom.say_late(timeout)


class _Watched:
    """Stands before an exporter's `export`: counts failures, and hides what a fork inherited.

    It can pass on to another exporter that `make` makes, for the SDK keeps the one that it has.
    """

    def __init__(self, exporter: Any, owner: Providers, make: Callable[[], Any]) -> None:
        self._export = exporter.export
        self._shutdowns = [exporter.shutdown]
        self._owner = owner
        self._make = make
        self.inherited = False
        exporter.export = self
        exporter.shutdown = self._shutdown

    def move(self) -> None:
        exporter = self._make()
        self._shutdowns.append(exporter.shutdown)
        self._export = exporter.export

    def _shutdown(self, *args: Any, **kwargs: Any) -> None:
        for shutdown in self._shutdowns:
            shutdown(*args, **kwargs)

    def __call__(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        if self.inherited and hasattr(data, "resource_metrics"):
            data = _without_ours(data)
        try:
            result = self._export(data, *args, **kwargs)
        except Exception as error:
            # Exporters of older SDKs raise where nobody listens, and the SDK logs the traceback
            # each time.
            self._owner.failures += 1
            if self._owner.seldom is not None:
                self._owner.seldom.say(f"{type(error).__name__}: {error}")
            return None
        if getattr(result, "name", "SUCCESS") != "SUCCESS":
            self._owner.failures += 1
        return result


def _without_ours(data: Any) -> Any:
    """Return MetricsData without the metrics of this package."""
    resources = [
        replace(
            resource,
            scope_metrics=[each for each in resource.scope_metrics if each.scope.name != SCOPE],
        )
        for resource in data.resource_metrics
    ]
    return replace(data, resource_metrics=[each for each in resources if each.scope_metrics])


class _Seldom(logging.Filter):
    """Says once a minute what the loggers that it is put on complain of, in place of them."""

    def __init__(self, endpoint: str) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._next = 0.0

    def move(self, endpoint: str) -> None:
        """Tell of `endpoint` from now on, and at once."""
        self._endpoint = endpoint
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        self.say(record.getMessage())
        return False

    def say(self, reason: str) -> None:
        """Say that nothing can be exported, unless something was said within a minute."""
        self._say(f"nothing can be exported to {self._endpoint} at the moment", f"; {reason}")

    def say_late(self, timeout: float) -> None:
        """Say that not everything was exported in time; likewise."""
        self._say(f"not everything was taken by {self._endpoint} within {timeout:g} s")

    def _say(self, what: str, reason: str = "") -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _SAY_EVERY
        log.warning(
            "%s: is an OpenTelemetry Collector listening there? Calls are not affected."
            " (otlp_endpoint; said once a minute%s)",
            what,
            reason,
        )


def set_up(endpoint: str) -> Providers:
    """Set up tracer and meter provider with OTLP export to `endpoint`, as the global ones.

    Where a former one of ours is the global one, shut down, the new one is for us alone: the API
    takes no second. A signal for which a global provider exists already keeps it, which is said in
    the log. OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER=none and OTEL_METRICS_EXPORTER=none are
    honoured.

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
    made = Providers(endpoint, protocol)
    if _wanted("TRACES", is_tracing()):
        provider = made.make_tracer_provider()
        if trace.get_tracer_provider() not in _ended:
            trace.set_tracer_provider(provider)
    if _wanted("METRICS", is_metering()):
        provider = made.make_meter_provider()
        if metrics.get_meter_provider() not in _ended:
            metrics.set_meter_provider(provider)
    if made:
        seldom = made.seldom = _Seldom(endpoint)
        for name in _EXPORTERS[protocol][-1]:
            logging.getLogger(name).addFilter(seldom)
        # Not the SDK's own exit handlers: they wait for each signal in turn, without a bound.
        atexit.register(made.shutdown)
        _at_exit_of_children(made)
    return made


def _at_exit_of_children(made: Providers) -> None:
    """Shut down in children of multiprocessing too, which leave without exit handlers."""
    from multiprocessing import util

    def register(providers: Providers) -> None:
        util.Finalize(None, providers.shutdown, exitpriority=0)

    util.register_after_fork(made, register)


def _wanted(signal: str, is_there: bool) -> bool:
    if _is_none(signal):
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
    logger_provider: Any = None,
) -> bool:
    """Export what is waiting; True where all of it was handed over within `timeout` seconds.

    The SDK's own time limits are not trusted: its exporters go on retrying past them.
    """
    timeout = min(timeout, _LONGEST)
    flushes: list[Callable[[], Any]] = []
    for provider in (
        tracer_provider or trace.get_tracer_provider(),
        meter_provider or metrics.get_meter_provider(),
        logger_provider,
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


def make_exporters(endpoint: str) -> tuple[Any, Any, tuple[str, ...]]:
    """Make exporters of spans and of metrics for who hands them over himself.

    The protocol is that of OTEL_EXPORTER_OTLP_PROTOCOL. With them come the names of the loggers
    that complain of an endpoint.
    """
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").strip()
    protocol = protocol if protocol in _EXPORTERS else _HTTP
    spans, points, paths, loggers = _EXPORTERS[protocol]
    options: dict[str, Any] = {}
    if protocol == _GRPC:
        options["insecure"] = endpoint.startswith("http://")
    return (
        importlib.import_module(spans).OTLPSpanExporter(
            endpoint=endpoint + paths["traces"], **options
        ),
        importlib.import_module(points).OTLPMetricExporter(
            endpoint=endpoint + paths["metrics"], **options
        ),
        loggers,
    )
