"""Telling: a record becomes the span and the measurements of a live call, with its own times.

The span's ids are made of the request's id: a span that is sent twice, after a kill, is the same
span. It is no child of the span that made the call but has a link to it: a trace whose calls were
reported live would else hold their tokens twice.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import Link, NoOpTracerProvider, SpanContext, SpanKind, TraceFlags

from otel_bedrock import signals
from otel_bedrock.call import Call
from otel_bedrock.config import Config
from otel_bedrock.correlation import read_origin
from otel_bedrock.invocation_logs.record import BATCH, Record
from otel_bedrock.invocation_logs.totals import Totals, origin_marks
from otel_bedrock.past_call import PastCall
from otel_bedrock.recorder import Recorder

if TYPE_CHECKING:
    from opentelemetry.trace import Span


_LOG_ATTRIBUTES = tuple(
    (row.field, row.key)
    for row in signals.ATTRIBUTES
    if row.source == signals.LOG and row.field != "origin"
)
_MS = 1_000_000


class _Ids(IdGenerator):
    """Gives each span the ids that were chosen for it."""

    trace_id = span_id = 1

    def choose(self, key: bytes) -> None:
        made = hashlib.blake2b(key, digest_size=24).digest()
        self.trace_id = int.from_bytes(made[:16], "big") or 1
        self.span_id = int.from_bytes(made[16:], "big") or 1

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class _Kept(SpanProcessor):
    """Keeps the spans that ended, until they are taken."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled:
            self.spans.append(span)


class _LoggedCall(PastCall):
    """A call of a log; `batch` has a price of its own."""

    __slots__ = ("batch",)

    def __init__(self, recorder: Recorder, call: Call, span: Span, seconds: float | None) -> None:
        super().__init__(recorder, call, span, seconds)
        # Whatever inference runs around the ingest, it is not this call's.
        self.outer = None


class Teller:
    """Tells records: measurements into `totals`, spans into `take_spans`."""

    def __init__(self, config: Config, totals: Totals, resource: Any, *, spans: bool) -> None:
        self._ids = _Ids()
        self._kept = _Kept()
        provider: Any = NoOpTracerProvider()
        if spans:
            provider = TracerProvider(
                resource=resource, id_generator=self._ids, shutdown_on_exit=False
            )
            provider.add_span_processor(self._kept)
        self._totals = totals
        self._recorder = Recorder(config, provider, totals)  # type: ignore[arg-type]  # stands in

    def know(self, models: Iterable[str]) -> None:
        """Take the models of earlier series, so that the limit of models is not drawn anew."""
        for name in models:
            self._recorder.models.admit(name)

    def tell(self, record: Record, key: bytes) -> None:
        """Tell one record; `key` is what its span's ids are made of."""
        call, outcome = record.read_call(), record.read_outcome()
        start, latency = record.start_ns, outcome.server_latency_ms
        if start is None:
            start = time.time_ns()
        end = start + (latency or 0) * _MS
        self._ids.choose(key)
        # Before anything is measured of it.
        self._totals.marks = origin_marks(record.origin)
        recorder = self._recorder
        model = call.model.name
        span = recorder.tracer.start_span(
            f"{call.operation} {model}" if model else call.operation,
            context=Context(),
            kind=SpanKind.CLIENT,
            attributes={**recorder.naming(call), signals.ORIGIN: record.origin},
            links=_links(record),
            start_time=start,
        )
        seconds = None if latency is None else latency / 1000
        recording = _LoggedCall(recorder, call, span, seconds)
        recording.spends = record.spends
        recording.batch = record.origin == BATCH
        if span.is_recording():
            for field, name in _LOG_ATTRIBUTES:
                value = getattr(record, field)
                if value is not None:
                    span.set_attribute(name, value)
        recording.finish(outcome, (end, seconds or 0.0))

    def take_spans(self) -> list[ReadableSpan]:
        """Return the spans told since the last time."""
        spans, self._kept.spans = self._kept.spans, []
        return spans

    def close(self) -> None:
        """Let go of what is registered elsewhere."""
        self._recorder.close()


def _links(record: Record) -> list[Link]:
    origin = read_origin(record.metadata)
    if origin is None:
        return []
    # Whether that span was sampled is not known; a link has to say something.
    context = SpanContext(
        origin.trace_id, origin.span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )
    return [Link(context)]
