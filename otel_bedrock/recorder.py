"""Recorder: start(call) -> Recording, told exactly once. The only file that touches spans
and instruments.

Nothing here raises to the user: each signal has its own shield, so that a failing metric
does not lose the span, nor the reverse.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from otel_bedrock import nesting, shield, signals
from otel_bedrock.call import Call, Outcome, Usage
from otel_bedrock.config import SEMCONV_141, SEMCONV_2026_10, SEMCONV_BOTH, Config
from otel_bedrock.content import Content, Gate, open_gate
from otel_bedrock.details import Details
from otel_bedrock.errors import REFUSALS
from otel_bedrock.model_id import ModelId
from otel_bedrock.quota import burndown
from otel_bedrock.version import __version__

Attributes = dict[str, Any]
Measurement = tuple[str, float, Attributes]

_DEFAULT_TIER = "default"
_CLIENT = SpanKind.CLIENT
_ERROR = Status(StatusCode.ERROR)
_NOTHING: frozenset[str] = frozenset()

# Field of Usage -> key of its counter. The cache-write counter is told apart by TTL.
_COUNTERS = (
    ("input_tokens", "input"),
    ("output_tokens", "output"),
    ("cache_read_tokens", "cache_read"),
    ("reasoning_tokens", "reasoning"),
)


# The models on metrics, by meter provider: the SDK keeps the callbacks of the first instrument
# of a name, so that a Recorder that replaces another must go on where that one was.
_quota_of: WeakKeyDictionary[metrics.MeterProvider, dict[ModelId, None]] = WeakKeyDictionary()
_quota_of_global: dict[ModelId, None] = {}


def _models_of(provider: metrics.MeterProvider | None) -> dict[ModelId, None]:
    return _quota_of_global if provider is None else _quota_of.setdefault(provider, {})


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
        self.gate = open_gate(config)
        self.sets = sets_of(config.semconv)
        newest = SEMCONV_2026_10 if SEMCONV_2026_10 in self.sets else SEMCONV_141
        schema = signals.SCHEMA_URLS[newest]
        self.tracer = trace.get_tracer(
            "otel_bedrock", __version__, tracer_provider, schema_url=schema
        )
        self.details = Details(logger_provider, schema)
        meter = metrics.get_meter("otel_bedrock", __version__, meter_provider, schema_url=schema)
        self.instruments = dict(_instruments(meter, config, self.sets, self._burndowns))
        self._quota = _models_of(meter_provider)
        self.models = _Capped(config.model_limit)
        self._bases: dict[tuple[Any, ...], tuple[Attributes, Attributes]] = {}
        # Keyed by the identity of dicts that `_bases` keeps for good.
        self._with_ttl: dict[tuple[int, str], Attributes] = {}
        self._seen: set[tuple[str, int]] = set()
        rows = [row for row in signals.ATTRIBUTES if row.sets & self.sets]
        self._parameters = [(row.field, row.key) for row in rows if row.source == signals.PARAMETER]
        self._outcome = [(row.field, row.key) for row in rows if row.source == signals.OUTCOME]
        self._usage = [(row.field, row.key) for row in rows if row.source == signals.USAGE]
        self.contents = [(row.field, row.key) for row in rows if row.source == signals.CONTENT]
        shield.on_error(self._count_error)

    def close(self) -> None:
        """Let go of what is registered elsewhere."""
        shield.forget(self._count_error)

    def _count_error(self, site: str) -> None:
        instrument = self.instruments.get("errors")
        if instrument is not None:
            instrument.add(1, {signals.SITE: site})

    def _burndowns(self, _: CallbackOptions) -> Iterable[Observation]:
        """Observe the models seen. Runs under the SDK's lock: it records nothing."""
        for model in tuple(self._quota):
            factor = burndown(model)
            if factor is not None:
                yield Observation(
                    factor,
                    {
                        "gen_ai.provider.name": signals.PROVIDER_NAME,
                        "gen_ai.request.model": model.name,
                        "bedrock.model.base_id": model.base_id or "",
                    },
                )

    def start(self, call: Call) -> Recording:
        """Start the span of `call`, with what samplers need, and the clock."""
        model = call.model.name
        name = f"{call.operation} {model}" if model else call.operation
        try:
            span = self.tracer.start_span(name, kind=_CLIENT, attributes=self.naming(call))
        except Exception as error:
            shield.stop("recorder.start_span", error)
            span = trace.INVALID_SPAN
        return Recording(self, call, span)

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
        return attributes

    def bases(
        self, call: Call, tier: str | None, error: str | None
    ) -> tuple[Attributes, Attributes]:
        """Return the metric attributes of `call`: for durations, and for tokens.

        The dicts are shared between calls; nobody changes them.
        """
        model = call.model
        name = model.name
        if name and not self.models.admit(name, error not in REFUSALS):
            name, base_id = signals.OTHER_MODEL, None
        else:
            base_id = model.base_id
        key = (call.operation, name, base_id, call.address, call.port, call.region, tier)
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
            if name == model.name and error is None:
                self._quota[model] = None
            found = base, {**base, signals.MODALITY: signals.MODALITY_UNKNOWN}
            self._bases[key] = found
        return found

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
                add = getattr(instrument, "add", None)
                if add is None:
                    instrument.record(value, attributes, context)
                    continue
                if value == 0:
                    # Zero opens the series, so that its first tokens are an increase; more
                    # zeros say nothing.
                    series = (key, id(attributes))
                    if series in seen:
                        continue
                    seen.add(series)
                add(value, attributes, context)
            except Exception as error:
                shield.stop(f"metric.{key}", error)

    def describe(self, recording: Recording, outcome: Outcome) -> Attributes:
        """Return the span attributes of a call and its outcome, those that are known."""
        call = recording.call
        model = call.model
        attributes: Attributes = {}
        parameters = call.parameters
        if parameters:
            for field, key in self._parameters:
                value = parameters.get(field)
                if value is not None:
                    attributes[key] = value
            if attributes.get("gen_ai.request.choice.count") == 1:
                del attributes["gen_ai.request.choice.count"]
            metadata = parameters.get("request_metadata")
            if metadata is not None:
                for name in self.config.request_metadata_keys:
                    value = metadata.get(name)
                    if isinstance(value, str):
                        attributes[signals.METADATA_PREFIX + name] = value
        for key, value in (
            ("cloud.region", call.region),
            ("bedrock.model.base_id", model.base_id),
            ("bedrock.model.geo", model.geo),
            ("bedrock.model.arn", model.arn),
            ("bedrock.inference_profile.id", model.profile_id),
        ):
            if value is not None:
                attributes[key] = value
        usage = outcome.usage
        # Under a framework's inference, the usage stands on that one's span, and nowhere else.
        if usage is not None and recording.outer is None:
            for field, key in self._usage:
                value = getattr(usage, field)
                if value is not None:
                    attributes[key] = value
        for field, key in self._outcome:
            value = getattr(outcome, field)
            if value is not None:
                attributes[key] = value
        return attributes


class Recording:
    """One call being recorded. Each number is recorded once, whoever tells it and how often."""

    __slots__ = (
        "_context",
        "_end",
        "_ended",
        "_told",
        "call",
        "content",
        "outer",
        "recorder",
        "span",
        "spends",
        "started",
    )

    def __init__(self, recorder: Recorder, call: Call, span: Span) -> None:
        self.recorder = recorder
        self.call = call
        self.span = span
        self.spends = True
        self.outer = nesting.enclosing()
        self.content: Content | None = None
        self.started = time.perf_counter()
        self._context: Context | None = None
        self._told: set[str] = set()
        self._end: tuple[int, float] | None = None
        # Taking the one item is atomic: of two threads that end the call, one does it.
        self._ended = [True]

    @property
    def context(self) -> Context:
        """The context in which this call's span is current."""
        if self._context is None:
            self._context = trace.set_span_in_context(self.span)
        return self._context

    def read_content(self, gate: Gate, reads: str, parameters: Any) -> None:
        """Take the content of the request; only where somebody will see it."""
        if gate.on_events or self.span.is_recording():
            self.content = gate.read(reads, parameters)
            # The time that a redaction took is not the call's.
            self.started = time.perf_counter()

    def enter(self) -> object:
        """Make the span current for the call itself; give the token back to `leave`."""
        return otel_context.attach(self.context)

    @staticmethod
    def leave(token: Any) -> None:
        """Undo `enter`, in the same thread or task."""
        otel_context.detach(token)

    def is_current(self) -> bool:
        """Say whether `enter` is in force here, and nothing else above it."""
        return otel_context.get_current() is self._context

    def count(self, usage: Usage, tier: str | None) -> None:
        """Add to the counters what a stream's last event told, before the stream has ended."""
        _, tokens = self.recorder.bases(self.call, tier, None)
        self.recorder.measure(list(self._counts(usage, tokens, _NOTHING)), self.context)

    def gap(self, seconds: float) -> None:
        """Record the time between two chunks; called only where the setting asks for it."""
        base, _ = self.recorder.bases(self.call, None, None)
        self.recorder.measure(
            (
                ("time_per_output_chunk", seconds, base),
                ("old_time_per_output_chunk", seconds, base),
            ),
            self.context,
        )

    def returned(self, outcome: Outcome, held: frozenset[str] = _NOTHING) -> None:
        """Tell the metrics of a call that has returned and whose body is still to be read.

        The span's end is now, whenever it will be told; `held` names the counters that the
        body may still split or mend.
        """
        self._end = (time.time_ns(), time.perf_counter())
        try:
            self._measure(outcome, held, last=False)
        except Exception as error:
            shield.stop("recorder.returned", error)

    def finish(self, outcome: Outcome, end: tuple[int, float] | None = None) -> None:
        """Tell all that is not told yet, and end the span; a second call does nothing.

        `end` is the time of the end, as (time.time_ns(), time.perf_counter()): that of
        `returned` where that was called, else now, unless given.
        """
        try:
            self._ended.pop()
        except IndexError:
            return
        end = end or self._end or (time.time_ns(), time.perf_counter())
        if self._end is None:
            self._end = end
        try:
            self._measure(outcome, _NOTHING, last=True)
        except Exception as error:
            shield.stop("recorder.measure", error)
        if self.outer is not None:
            try:
                nesting.publish(self.outer, outcome.usage)
            except Exception as error:
                shield.stop("recorder.publish", error)
        span = self.span
        try:
            if span.is_recording():
                span.set_attributes(self.recorder.describe(self, outcome))
                if outcome.error_type is not None:
                    span.set_status(_ERROR)
        except Exception as error:
            shield.stop("recorder.describe", error)
        if self.content is not None:
            try:
                self._tell_content(self.content, outcome, end[0])
            except Exception as error:
                shield.stop("recorder.content", error)
        try:
            span.end(end_time=end[0])
        except Exception as error:
            shield.stop("recorder.end", error)

    def give_up(self) -> None:
        """End the span at least: `finish` has failed, or cannot be reached."""
        self._ended.clear()
        if self.span.is_recording():
            self.span.end()

    def _tell_content(self, content: Content, outcome: Outcome, at: int) -> None:
        recorder, span, gate = self.recorder, self.span, content.gate
        told = content.told(outcome.finish_reasons)
        message = content.message(outcome.error_message)
        found = [(key, told[field]) for field, key in recorder.contents if field in told]
        if gate.on_spans and span.is_recording():
            span.set_attributes({key: excerpt.json for key, excerpt in found})
            if message is not None:
                span.set_status(Status(StatusCode.ERROR, message))
        if gate.on_events and (found or message is not None):
            attributes = {**recorder.naming(self.call), **recorder.describe(self, outcome)}
            if message is not None:
                attributes[signals.ERROR_MESSAGE] = message
            structures = {key: excerpt.items for key, excerpt in found}
            recorder.details.emit(attributes, structures, self.context, at)

    def _measure(self, outcome: Outcome, held: frozenset[str], *, last: bool) -> None:
        recorder, call, told = self.recorder, self.call, self._told
        error = outcome.error_type
        base, tokens = recorder.bases(call, outcome.service_tier, error)
        usage = outcome.usage
        found: list[Measurement] = []
        if usage is not None:
            found.extend(self._counts(usage, tokens, held))
            if error is None:
                found.extend(self._sizes(usage, base, held))
        if "duration" not in told and self._end is not None:
            told.add("duration")
            found.extend(self._durations(outcome, base))
            if outcome.retry_attempts:
                found.append(("retries", outcome.retry_attempts, base))
        if last:
            reason = self._missing(outcome)
            if reason is not None:
                found.append(("missing", 1, {**base, signals.MISSING_REASON: reason}))
            if outcome.guardrail_action == "INTERVENED":
                found.append(("guardrail_interventions", 1, base))
            for policy, units in (outcome.guardrail_units or {}).items():
                found.append(("guardrail_units", units, {**base, signals.POLICY: policy}))
        recorder.measure(found, self.context)

    def _counts(
        self, usage: Usage, tokens: Attributes, held: frozenset[str]
    ) -> Iterable[Measurement]:
        told = self._told
        for field, key in _COUNTERS:
            count = getattr(usage, field)
            if count is not None and key not in told and key not in held:
                told.add(key)
                yield key, count, tokens
        written = usage.cache_write_tokens
        if written is not None and "cache_write" not in told and "cache_write" not in held:
            told.add("cache_write")
            parts = (("5m", usage.cache_write_5m_tokens), ("1h", usage.cache_write_1h_tokens))
            split = [(ttl, count) for ttl, count in parts if count is not None]
            for ttl, count in split or [(signals.TTL_UNKNOWN, written)]:
                yield "cache_write", count, self.recorder.with_ttl(tokens, ttl)

    def _sizes(self, usage: Usage, base: Attributes, held: frozenset[str]) -> Iterable[Measurement]:
        told = self._told
        size = signals.INPUT_HISTOGRAMS.get(self.call.operation, "operation_input")
        for count, key, counter, kind in (
            (usage.input_tokens, size, "input", "input"),
            (usage.output_tokens, "operation_output", "output", "output"),
        ):
            if count is not None and key not in told and counter not in held:
                told.add(key)
                yield key, count, base
                if "old_usage" in self.recorder.instruments and self.outer is None:
                    yield "old_usage", count, {**base, signals.TOKEN_TYPE: kind}

    def _durations(self, outcome: Outcome, base: Attributes) -> Iterable[Measurement]:
        assert self._end is not None
        seconds = max(0.0, self._end[1] - self.started)
        failed = base
        if outcome.error_type is not None:
            failed = {**base, "error.type": outcome.error_type}
        key = signals.DURATIONS.get(self.call.operation, "operation_duration")
        yield key, seconds, failed
        # v1.41's metrics of an enclosing inference are recorded by who began it.
        old = SEMCONV_141 in self.recorder.sets and self.outer is None
        if key != "operation_duration" and old:
            yield "operation_duration", seconds, failed
        if outcome.time_to_first_chunk is not None:
            yield "time_to_first_chunk", outcome.time_to_first_chunk, base
            if old:
                yield "old_time_to_first_chunk", outcome.time_to_first_chunk, base
        if outcome.time_per_output_token is not None:
            yield "time_per_output_token", outcome.time_per_output_token, base
        if outcome.server_latency_ms is not None:
            yield "server_latency", outcome.server_latency_ms / 1000, base
        call = self.call
        if call.limitable and call.parameters_known and "max_tokens" not in call.parameters:
            yield "max_tokens_unset", 1, base

    def _missing(self, outcome: Outcome) -> str | None:
        """Return why usage is missing, None where it is not or nothing was to be spent."""
        usage = outcome.usage
        broken_off = outcome.complete is False and usage is not None and usage.output_tokens is None
        if not self.spends or (usage is not None and not broken_off):
            return None
        if outcome.error_type is not None:
            return "error"
        return "aborted" if outcome.complete is False else "unsupported"


def _instruments(
    meter: metrics.Meter,
    config: Config,
    sets: frozenset[str],
    burndowns: Callable[[CallbackOptions], Iterable[Observation]],
) -> Iterable[tuple[str, Any]]:
    wanted = {signals.DEFAULT}
    if config.metrics == "all":
        wanted.add(signals.ALL)
    if config.time_per_output_chunk:
        wanted.add(signals.OPT_IN)
    if config.metrics == "none":
        wanted.clear()
    for row in signals.METRICS:
        if row.when not in wanted or not row.sets & sets:
            continue
        if row.kind == signals.GAUGE:
            meter.create_observable_gauge(row.name, [burndowns], row.unit, row.sentence)
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
