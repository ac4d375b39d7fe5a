"""Recorder: start(call) -> Recording. With `recording`, all that touches spans and instruments."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace
from opentelemetry.context import Context, get_current
from opentelemetry.trace import SpanKind

from otel_bedrock import shield, signals
from otel_bedrock.attribution import allow, forbid
from otel_bedrock.call import Call, Outcome
from otel_bedrock.config import SEMCONV_141, SEMCONV_2026_10, SEMCONV_BOTH, Config
from otel_bedrock.content import open_gate
from otel_bedrock.errors import accepted
from otel_bedrock.gauges import Quotas, quotas_of
from otel_bedrock.recording import Recording
from otel_bedrock.setting_values import SERVICE_QUOTAS
from otel_bedrock.version import __version__

if TYPE_CHECKING:
    from otel_bedrock.budget import TokenBudget
    from otel_bedrock.content.details import Details
    from otel_bedrock.costs import Costs

Attributes = dict[str, Any]
Measurement = tuple[str, float, Attributes]

_DEFAULT_TIER = "default"
_CLIENT = SpanKind.CLIENT
# Fields of an Outcome that a request may ask for.
_SERVED = ("service_tier", "latency_mode")
_COUNTED = frozenset(row.key for row in signals.METRICS if row.kind == signals.COUNTER)


def sets_of(semconv: str) -> frozenset[str]:
    """Return the sets of names that the setting `semconv` asks for."""
    if semconv == SEMCONV_BOTH:
        return signals.EVER
    return signals.OLD if semconv == SEMCONV_141 else signals.NEW


class _Capped:
    """The distinct values of one metric attribute, up to a limit; later ones are `other`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ranks: dict[str, int] = {}
        # next() of a count is atomic, so that no lock is needed and the limit holds.
        self._next = itertools.count()

    def admit(self, value: str, opens: bool = True) -> bool:
        rank = self._ranks.get(value)
        if rank is None:
            if not opens or len(self._ranks) >= self._limit:
                return False
            rank = self._ranks.setdefault(value, next(self._next))
        return rank < self._limit


class _Columns:
    """Attributes that have one source: their keys, and all of their fields read in one step."""

    __slots__ = ("_keys", "_read")

    def __init__(self, rows: Iterable[signals.Attribute]) -> None:
        rows = tuple(rows)
        self._keys = tuple(row.key for row in rows)
        self._read = attrgetter(*(row.field for row in rows))

    def fill(self, attributes: Attributes, source: Any) -> None:
        """Put into `attributes` those whose values `source` knows."""
        for key, value in zip(self._keys, self._read(source)):  # noqa: B905 - `strict=` costs 0.3 µs
            if value is not None:
                attributes[key] = value


class Recorder:
    """Makes a Recording of each call, with one tracer, one meter and one Config."""

    def __init__(
        self,
        config: Config,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        logger_provider: Any = None,
    ) -> None:
        self.config = config
        self.sets = sets_of(config.semconv)
        self.old = SEMCONV_141 in self.sets
        self.all = config.metrics == "all"
        newest = SEMCONV_2026_10 if SEMCONV_2026_10 in self.sets else SEMCONV_141
        schema = signals.SCHEMA_URLS[newest]
        self.tracer = trace.get_tracer(
            "otel_bedrock", __version__, tracer_provider, schema_url=schema
        )
        self.gate = open_gate(config)
        self.details: Details | None = None
        if self.gate is not None:
            from otel_bedrock.content.details import Details

            self.details = Details(logger_provider, schema)
        meter = metrics.get_meter("otel_bedrock", __version__, meter_provider, schema_url=schema)
        self.quotas = quotas_of(meter_provider)
        self.asks_quotas = config.quota_limits == SERVICE_QUOTAS
        self.instruments = dict(_instruments(meter, config, self.sets, self.quotas))
        self.budget: TokenBudget | None = config.budget
        if self.budget is not None:
            self.budget.adopt(config.burndown)
        self.costs: Costs | None = None
        if config.prices is not None:
            from otel_bedrock.costs import open_costs

            self.costs = open_costs(config.prices)
        self.correlate: Callable[..., Any] | None = None
        if config.correlate_logs:
            from otel_bedrock.correlation import correlate

            self.correlate = correlate
        # Whether somebody asks for request parameters also where the span is not recorded.
        askers = (self.gate, self.budget, self.costs)
        self.asks = self.all or any(asker is not None for asker in askers)
        self.models = _Capped(config.model_limit)
        self._attributions = {
            key: _Capped(config.attribution_limit) for key in config.attribution_metric_keys
        }
        allow(config.attribution_baggage_keys)
        self._bases: dict[tuple[Any, ...], tuple[Attributes, Attributes]] = {}
        # Keyed by the identity of dicts that `_bases` keeps for good.
        self._with_ttl: dict[tuple[int, str], Attributes] = {}
        self._seen: set[tuple[str, int]] = set()
        rows = [row for row in signals.ATTRIBUTES if row.sets & self.sets]
        self._parameters = {row.field: row.key for row in rows if row.source == signals.PARAMETER}
        self._call = _Columns(
            row for row in rows if row.source == signals.CALL and not row.at_start
        )
        self._outcome = {row.field: row.key for row in rows if row.source == signals.OUTCOME}
        self._usage = _Columns(row for row in rows if row.source == signals.USAGE)
        self.contents = [(row.field, row.key) for row in rows if row.source == signals.CONTENT]
        shield.on_error(self._count_error)

    def close(self) -> None:
        """Let go of what is registered elsewhere."""
        shield.forget(self._count_error)
        forbid(self.config.attribution_baggage_keys)

    def _count_error(self, site: str) -> None:
        instrument = self.instruments.get("errors")
        if instrument is not None:
            instrument.add(1, {signals.SITE: site})

    def start(self, call: Call, here: Context | None = None) -> Recording:
        """Start the span of `call`, with what samplers need, and the clock.

        `here` is the context that it starts in: the current one unless given.
        """
        if here is None:
            here = get_current()
        model = call.model.name
        name = f"{call.operation} {model}" if model else call.operation
        try:
            span = self.tracer.start_span(name, here, _CLIENT, self.naming(call))
        except Exception as error:
            shield.stop("recorder.start_span", error)
            span = trace.INVALID_SPAN
        try:
            return Recording(self, call, span, here)
        except BaseException:
            span.end()
            raise

    @staticmethod
    def naming(call: Call) -> Attributes:
        """Return the attributes that a span of `call` has from its start."""
        attributes: Attributes = {
            "gen_ai.operation.name": call.operation,
            "gen_ai.provider.name": signals.PROVIDER_NAME,
        }
        if call.model.name:
            attributes["gen_ai.request.model"] = call.model.name
        if call.address is not None:
            attributes["server.address"] = call.address
            if call.port is not None:
                attributes["server.port"] = call.port
        if call.attribution is not None:
            for key, value in call.attribution.items():
                attributes[signals.ATTRIBUTION_PREFIX + key] = value
        return attributes

    def bases(self, call: Call, outcome: Outcome) -> tuple[Attributes, Attributes]:
        """Return the metric attributes of `call`: for durations, and for tokens.

        A model id opens a series once Bedrock has accepted it. The dicts are shared between calls;
        nobody changes them.
        """
        model, tier, ok = call.model, outcome.service_tier, outcome.error_type is None
        name = model.name
        if name and not self.models.admit(name, ok or accepted(outcome)):
            name, base_id = signals.OTHER, None
        else:
            base_id = model.base_id
        who: tuple[tuple[str, str], ...] = ()
        if call.attribution is not None and self._attributions:
            who = tuple(self._attribute(call.attribution))
        # Apart where it failed: no quota is seen by that, and one that succeeds must still be.
        key = (call.operation, name, base_id, call.address, call.port, call.region, tier, who, ok)
        found = self._bases.get(key)
        if found is None:
            base: Attributes = {
                "gen_ai.operation.name": call.operation,
                "gen_ai.provider.name": signals.PROVIDER_NAME,
            }
            for attribute, value in (
                ("gen_ai.request.model", name),
                ("server.address", call.address),
                ("server.port", call.port),
                ("cloud.region", call.region),
                ("bedrock.model.base_id", base_id),
                ("bedrock.service_tier", None if tier == _DEFAULT_TIER else tier),
            ):
                if value is not None and value != "":
                    base[attribute] = value
            base.update(who)
            if name == model.name and ok:
                config = self.config
                self.quotas.see(model, call.region, config.burndown, config.quota_limits)
            found = base, {**base, signals.MODALITY: signals.MODALITY_UNKNOWN}
            self._bases[key] = found
        return found

    def _attribute(self, attribution: Mapping[str, str]) -> Iterable[tuple[str, str]]:
        """Yield what metrics have of `attribution`: a few values of each key, then `other`."""
        for key, capped in self._attributions.items():
            value = attribution.get(key)
            if value is not None:
                admitted = value if capped.admit(value) else signals.OTHER
                yield signals.ATTRIBUTION_PREFIX + key, admitted

    def with_ttl(self, tokens: Attributes, ttl: str) -> Attributes:
        """Return `tokens` with the TTL of a cache write; shared between calls as well."""
        key = (id(tokens), ttl)
        found = self._with_ttl.get(key)
        if found is None:
            found = self._with_ttl[key] = {**tokens, signals.TTL: ttl}
        return found

    def measure(self, measurements: Iterable[Measurement], context: Context) -> None:
        """Record `measurements`, each under its own shield, with the call's own context."""
        instruments, seen = self.instruments, self._seen
        for key, value, attributes in measurements:
            instrument = instruments.get(key)
            if instrument is None:
                continue
            try:
                if key not in _COUNTED:
                    instrument.record(value, attributes, context)
                    continue
                if value == 0:
                    # Zero opens the series, so that its first tokens are an increase; more
                    # zeros say nothing.
                    series = (key, id(attributes))
                    if series in seen:
                        continue
                    seen.add(series)
                instrument.add(value, attributes, context)
            except Exception as error:
                shield.stop(f"metric.{key}", error)

    def describe(self, recording: Recording, outcome: Outcome) -> Attributes:
        """Return the span attributes of a call and its outcome, those that are known."""
        call = recording.call
        attributes: Attributes = {}
        self._call.fill(attributes, call)
        parameters = call.parameters
        if parameters:
            for field, value in parameters.items():
                key = self._parameters.get(field)
                if key is not None:
                    attributes[key] = value
            if attributes.get("gen_ai.request.choice.count") == 1:
                del attributes["gen_ai.request.choice.count"]
            metadata = parameters.get("request_metadata")
            if metadata is not None:
                for name in self.config.request_metadata_keys:
                    value = metadata.get(name)
                    if isinstance(value, str):
                        attributes[signals.METADATA_PREFIX + name] = value
        # Under a framework's inference, the usage stands on that one's span, and nowhere else.
        if outcome.usage is not None and recording.outer is None:
            self._usage.fill(attributes, outcome.usage)
        keys = self._outcome
        for field, value in vars(outcome).items():
            key = keys.get(field)
            if key is not None and value is not None:
                attributes[key] = value
        if outcome.error_type is not None:
            # Nothing was served, and which tier refused is what one wants to know.
            for field in _SERVED:
                if field in parameters:
                    attributes.setdefault(keys[field], parameters[field])
        return attributes


def _instruments(
    meter: metrics.Meter,
    config: Config,
    sets: frozenset[str],
    quotas: Quotas,
) -> Iterable[tuple[str, Any]]:
    wanted = {signals.DEFAULT}
    if config.metrics == "all":
        wanted.add(signals.ALL)
    if config.time_per_output_chunk:
        wanted.add(signals.OPT_IN)
    if config.prices is not None:
        wanted.add(signals.PRICES)
    if config.budget is not None:
        wanted.add(signals.BUDGETS)
    if config.quota_limits is not None:
        wanted.add(signals.LIMITS)
    if config.metrics == "none":
        wanted.clear()
    for row in signals.METRICS:
        if row.when not in wanted or not row.sets & sets:
            continue
        if row.kind == signals.GAUGE:
            observe = _GAUGES[row.key](quotas)
            meter.create_observable_gauge(row.name, [observe], row.unit, row.sentence)
        else:
            yield row.key, _MAKERS[row.kind](meter, row)


def _counter(meter: metrics.Meter, row: signals.Metric) -> Any:
    return meter.create_counter(row.name, row.unit, row.sentence)


def _histogram(meter: metrics.Meter, row: signals.Metric) -> Any:
    return meter.create_histogram(
        row.name, row.unit, row.sentence, explicit_bucket_boundaries_advisory=row.buckets
    )


_MAKERS: Mapping[str, Callable[[metrics.Meter, signals.Metric], Any]] = {
    signals.COUNTER: _counter,
    signals.HISTOGRAM: _histogram,
}

_GAUGES: Mapping[str, Callable[[Quotas], Any]] = {
    "burndown": lambda quotas: quotas.observe_burndowns,
    "limit": lambda quotas: quotas.observe_limits,
}
