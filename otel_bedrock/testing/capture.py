"""Capture: what the calls of one block tell, kept in memory for a test's assertions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from typing_extensions import Unpack

from otel_bedrock import abandoned
from otel_bedrock.config import Settings
from otel_bedrock.instrumentor import Given, configure, exchange
from otel_bedrock.testing.logbook import Event, keep_events

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.sampling import Sampler


@dataclass(frozen=True, slots=True)
class Point:
    """One series of one metric: `value` of a counter, `count` and `sum` of a histogram."""

    metric: str
    attributes: Mapping[str, Any]
    value: int | float | None = None
    count: int | None = None
    sum: int | float | None = None


class Captured:
    """The spans, metrics and events of a `capture` block, up to now."""

    def __init__(
        self,
        exporter: Any,
        reader: Any,
        tracer_provider: Any,
        meter_provider: Any,
        events: list[Event],
    ):
        self._exporter = exporter
        self._reader = reader
        self._events = events
        self.tracer_provider = tracer_provider
        self.meter_provider = meter_provider

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """The ended spans, as they ended; streams that were let go of are among them."""
        abandoned.look()
        return tuple(self._exporter.get_finished_spans())

    @property
    def span(self) -> ReadableSpan:
        """The one ended span.

        Raises:
            AssertionError: there is none, or more than one.
        """
        spans = self.spans
        assert len(spans) == 1, f"expected one span; got {[span.name for span in spans]}"
        return spans[0]

    @property
    def events(self) -> tuple[Event, ...]:
        """The events with content, in order; none unless `capture_content` asks for them."""
        abandoned.look()
        return tuple(self._events)

    @property
    def metrics_data(self) -> Any:
        """The SDK's own MetricsData, with buckets and exemplars; None where there is none."""
        abandoned.look()
        return self._reader.get_metrics_data()

    @property
    def points(self) -> list[Point]:
        """Every series of every metric, with its total since the block began."""
        data = self.metrics_data
        return [
            Point(
                metric.name,
                dict(point.attributes or {}),
                value=getattr(point, "value", None),
                count=getattr(point, "count", None),
                sum=getattr(point, "sum", None),
            )
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        ]

    def total(self, metric: str, **attributes: Any) -> int | float | None:
        """Return the sum of `metric` over its series, None where it has none.

        `attributes` select series; write dots as double underscores
        (`gen_ai__request__model="…"`). A histogram gives the sum of what it recorded.
        """
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        values = [
            point.value if point.value is not None else point.sum
            for point in self.points
            if point.metric == metric
            and all(point.attributes.get(key) == value for key, value in wanted.items())
        ]
        known = [value for value in values if value is not None]
        return sum(known) if known else None


@contextmanager
def capture(*, sampler: Sampler | None = None, **settings: Unpack[Settings]) -> Iterator[Captured]:
    """Instrument for one block, with everything kept in memory.

        with FakeBedrock() as bedrock, capture() as captured:
            answer(bedrock.client())
        assert captured.span.attributes["gen_ai.usage.input_tokens"] == 12

    An instrumentation that was active before is set aside, and back in place afterwards. An
    application that calls `instrument()` inside the block is captured as well: the settings that
    it gives count, and those of the block for the others; its providers and `otlp_endpoint` do not.
    The block ends at its end and not with `uninstrument()`, as does what was instrumented in it.

    Args:
        sampler: of the OpenTelemetry SDK; every span is recorded unless given.
        **settings: as for `instrument`.
    """
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    tracer_provider = TracerProvider(sampler=sampler)
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    reader = InMemoryMetricReader()
    meter_provider = MeterProvider(metric_readers=[reader])
    logger_provider, events = keep_events()
    given = Given(
        config=configure(settings),
        tracer_provider=tracer_provider,
        meter_provider=meter_provider,
        logger_provider=logger_provider,
        automatic=False,
        said=[name for name, value in settings.items() if value is not None],
        captures=True,
    )
    before = exchange(given)
    try:
        yield Captured(exporter, reader, tracer_provider, meter_provider, events)
    finally:
        abandoned.look()
        exchange(before)
        tracer_provider.shutdown()
        meter_provider.shutdown()
