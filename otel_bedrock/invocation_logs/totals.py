"""Totals: the meter provider of an ingest, whose sums outlive the process.

The SDK's counters begin at zero in each process, and what one had counted and not exported is
lost with it. Here every measurement goes into a series that the checkpoint keeps, and what leaves
is the whole sum since the checkpoint was made, under its instance id: a point that is sent twice,
or never, changes nothing.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from opentelemetry.metrics import CallbackOptions

from otel_bedrock import signals
from otel_bedrock.version import __version__

Attributes = tuple[tuple[str, Any], ...]


class Row(NamedTuple):
    """One series as a checkpoint keeps it: both parts as JSON."""

    metric: str
    attributes: str
    value: str


class _Sum:
    """The value of a counter."""

    __slots__ = ("value",)

    def __init__(self, value: float = 0) -> None:
        self.value = value

    def take(self, value: float, _: tuple[float, ...]) -> None:
        self.value += value

    def dump(self) -> Any:
        return self.value


class _Distribution:
    """The values of a histogram."""

    __slots__ = ("buckets", "count", "largest", "smallest", "total")

    def __init__(self) -> None:
        self.count, self.total = 0, 0.0
        self.smallest: float | None = None
        self.largest: float | None = None
        self.buckets: list[int] = []

    def take(self, value: float, bounds: tuple[float, ...]) -> None:
        if len(self.buckets) != len(bounds) + 1:
            self.buckets = [0] * (len(bounds) + 1)
        self.buckets[bisect_left(bounds, value)] += 1
        self.count += 1
        self.total += value
        self.smallest = value if self.smallest is None else min(self.smallest, value)
        self.largest = value if self.largest is None else max(self.largest, value)

    def dump(self) -> Any:
        return [self.count, self.total, self.smallest, self.largest, self.buckets]

    @classmethod
    def load(cls, value: list[Any]) -> _Distribution:
        found = cls()
        found.count, found.total, found.smallest, found.largest, found.buckets = value
        return found


class _Instrument:
    """A counter or a histogram: what it is given goes into its series."""

    def __init__(
        self, totals: Totals, name: str, unit: str, sentence: str, bounds: tuple[float, ...] | None
    ) -> None:
        self.name, self.unit, self.sentence = name, unit, sentence
        self.bounds = bounds or ()
        self.histogram = bounds is not None
        self._totals = totals
        self.series: dict[Attributes, Any] = {}
        # Sorting costs more than all the rest of it.
        self._keys: dict[Attributes, Attributes] = {}

    def _take(self, value: float, attributes: Mapping[str, Any] | None) -> None:
        given = tuple((attributes or {}).items())
        key = self._keys.get(given)
        if key is None:
            marks = self._totals.marks.items()
            key = self._keys[given] = tuple(sorted({**dict(given), **dict(marks)}.items()))
        series = self.series.get(key)
        if series is None:
            series = self.series[key] = _Distribution() if self.histogram else _Sum()
        series.take(value, self.bounds)
        self._totals.changed[self.name, key] = series

    def load(self, attributes: Attributes, value: Any) -> None:
        self.series[attributes] = _Distribution.load(value) if self.histogram else _Sum(value)


class _Counter(_Instrument):
    def add(self, value: float, attributes: Mapping[str, Any] | None = None, _: Any = None) -> None:
        self._take(value, attributes)


class _Histogram(_Instrument):
    def record(
        self, value: float, attributes: Mapping[str, Any] | None = None, _: Any = None
    ) -> None:
        self._take(value, attributes)


class Totals:
    """Takes the place of a MeterProvider and of its one meter.

    `marks` are attributes that every point has which is measured from now on. `changed` are the
    series to be written with the next commit.
    """

    def __init__(self, marks: Mapping[str, Any]) -> None:
        self.marks: Mapping[str, Any] = marks
        self._first_marks = marks
        self.changed: dict[tuple[str, Attributes], Any] = {}
        self._instruments: dict[str, _Instrument] = {}
        self._gauges: list[tuple[str, str, str, Callable[..., Iterable[Any]]]] = []
        self._schema: str | None = None

    def get_meter(self, *_: Any, schema_url: str | None = None, **__: Any) -> Totals:
        """Return the meter, which is this."""
        self._schema = schema_url
        return self

    def create_counter(self, name: str, unit: str = "", description: str = "") -> _Counter:
        """Make a counter."""
        made = _Counter(self, name, unit, description, None)
        self._instruments[name] = made
        return made

    def create_histogram(
        self,
        name: str,
        unit: str = "",
        description: str = "",
        *,
        explicit_bucket_boundaries_advisory: Iterable[float] | None = None,
    ) -> _Histogram:
        """Make a histogram."""
        bounds = tuple(explicit_bucket_boundaries_advisory or ())
        made = _Histogram(self, name, unit, description, bounds)
        self._instruments[name] = made
        return made

    def create_observable_gauge(
        self, name: str, callbacks: Iterable[Any], unit: str = "", description: str = ""
    ) -> None:
        """Take a gauge, which is observed at each export and kept nowhere."""
        self._gauges += [(name, unit, description, callback) for callback in callbacks]

    def load(self, rows: Iterable[Row]) -> None:
        """Go on from the series of a checkpoint."""
        for row in rows:
            instrument = self._instruments.get(row.metric)
            # One of other settings is kept, and not exported.
            if instrument is not None:
                attributes = tuple(sorted(json.loads(row.attributes).items()))
                instrument.load(attributes, json.loads(row.value))

    def values(self, attribute: str) -> set[Any]:
        """Return every value that an attribute has in any series."""
        return {
            value
            for instrument in self._instruments.values()
            for attributes in instrument.series
            for key, value in attributes
            if key == attribute
        }

    def take_changed(self) -> list[Row]:
        """Return the series that changed since the last time, for a commit."""
        rows = [
            Row(metric, json.dumps(dict(attributes), sort_keys=True), json.dumps(series.dump()))
            for (metric, attributes), series in self.changed.items()
        ]
        self.changed.clear()
        return rows

    def export(self, resource: Any, start_ns: int, now_ns: int) -> Any:
        """Return all sums as the SDK's MetricsData; only what is committed may leave."""
        from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        scope = InstrumentationScope("otel_bedrock", __version__, self._schema)
        metrics = [*self._sums(start_ns, now_ns), *self._observed(now_ns)]
        scoped = ScopeMetrics(scope=scope, metrics=metrics, schema_url=self._schema or "")
        return MetricsData(
            resource_metrics=[
                ResourceMetrics(
                    resource=resource, scope_metrics=[scoped] if metrics else [], schema_url=""
                )
            ]
        )

    def _sums(self, start_ns: int, now_ns: int) -> Iterator[Any]:
        from opentelemetry.sdk.metrics.export import (
            AggregationTemporality,
            Histogram,
            HistogramDataPoint,
            Metric,
            NumberDataPoint,
            Sum,
        )

        temporality = AggregationTemporality.CUMULATIVE
        for each in self._instruments.values():
            if not each.series:
                continue
            data: Any
            if each.histogram:
                points = [
                    HistogramDataPoint(
                        attributes=dict(attributes),
                        start_time_unix_nano=start_ns,
                        time_unix_nano=now_ns,
                        count=series.count,
                        sum=series.total,
                        bucket_counts=tuple(series.buckets),
                        explicit_bounds=each.bounds,
                        min=series.smallest,
                        max=series.largest,
                    )
                    for attributes, series in each.series.items()
                    if len(series.buckets) == len(each.bounds) + 1
                ]
                data = Histogram(data_points=points, aggregation_temporality=temporality)
            else:
                numbers = [
                    NumberDataPoint(dict(attributes), start_ns, now_ns, series.value)
                    for attributes, series in each.series.items()
                ]
                data = Sum(
                    data_points=numbers, aggregation_temporality=temporality, is_monotonic=True
                )
            yield Metric(name=each.name, description=each.sentence, unit=each.unit, data=data)

    def _observed(self, now_ns: int) -> Iterator[Any]:
        from opentelemetry.sdk.metrics.export import Gauge, Metric, NumberDataPoint

        for name, unit, sentence, callback in self._gauges:
            points = [
                NumberDataPoint(
                    {**(seen.attributes or {}), **self._first_marks}, 0, now_ns, seen.value
                )
                for seen in callback(CallbackOptions())
            ]
            if points:
                yield Metric(name=name, description=sentence, unit=unit, data=Gauge(points))


def origin_marks(origin: str) -> Mapping[str, str]:
    """Return the attributes of all points that come from `origin`."""
    return {signals.ORIGIN: origin}
