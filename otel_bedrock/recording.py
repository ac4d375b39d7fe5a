"""Recording: one call being told, each number once, whoever tells it and how often.

Nothing here raises to the user: each signal has its own shield, so that a failing metric
does not lose the span, nor the reverse.
"""

from __future__ import annotations

import time
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode

from otel_bedrock import nesting, shield, signals
from otel_bedrock.call import Call, Outcome, Usage
from otel_bedrock.model_id import informed

if TYPE_CHECKING:
    from otel_bedrock.budget import Reservation
    from otel_bedrock.content.gate import Content, Gate
    from otel_bedrock.recorder import Attributes, Measurement, Recorder

_ERROR = Status(StatusCode.ERROR)
_NOTHING: frozenset[str] = frozenset()
# That of a call whose answer has begun.
_SO_FAR = Outcome()

# Counters, and how their fields of Usage are read. The cache-write counter is told apart by TTL.
_COUNTERS = ("input", "output", "cache_read", "reasoning")
_counts = attrgetter("input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens")


class Recording:
    """One call being recorded. Each number is recorded once, whoever tells it and how often."""

    # Whether a batch job made the call; live calls are never of one.
    batch: bool = False

    __slots__ = (
        "_counted",
        "_end",
        "_ended",
        "_told",
        "call",
        "content",
        "context",
        "counted",
        "here",
        "outer",
        "recorder",
        "reservation",
        "span",
        "spends",
        "started",
    )

    def __init__(self, recorder: Recorder, call: Call, span: Span, here: Context) -> None:
        self.recorder = recorder
        self.call = call
        self.span = span
        self.spends = True
        self.outer = nesting.enclosing(here)
        self.content: Content | None = None
        # What CountTokens said before the call, where it was asked.
        self.counted: int | None = None
        self.reservation: Reservation | None = None
        self.started = time.perf_counter()
        self.here = here
        # The context in which the call's span is current.
        self.context = trace.set_span_in_context(span, here)
        # What the metrics have been told by now; of a counter, up to which count.
        self._told: dict[str, int] = {}
        self._counted: Usage | None = None
        self._end: tuple[int, float] | None = None
        # Taking the one item is atomic: of two threads that end the call, one does it.
        self._ended = [True]

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
        return otel_context.get_current() is self.context

    def holds(self, reservation: Reservation) -> None:
        """Take what the call holds of a budget, which is settled when its usage is known."""
        self.reservation = reservation
        if reservation.excesses:
            limits = [excess.limit for excess in reservation.excesses]
            self.span.set_attribute(signals.BUDGET_EXCEEDED, limits)

    def _settle(self, reservation: Reservation, outcome: Outcome, *, last: bool) -> None:
        usage = outcome.usage
        try:
            if usage is not None and (usage.output_tokens is not None or last):
                reservation.settle(usage)
            elif last and outcome.error_type is not None:
                reservation.release()
            elif last:
                reservation.settle(None)
        except Exception as error:
            shield.stop("budget.settle", error)

    def count(self, outcome: Outcome) -> None:
        """Add to the counters what a stream's last event told, before the stream has ended."""
        if outcome.invoked_model is not None:
            self._learn(outcome.invoked_model)
        if self.reservation is not None:
            self._settle(self.reservation, outcome, last=False)
        if outcome.usage is not None:
            _, tokens = self.recorder.bases(self.call, outcome)
            made: list[Measurement] = []
            self._counts(made, outcome.usage, tokens, _NOTHING)
            self.recorder.measure(made, self.context)

    def _learn(self, invoked: str) -> None:
        """Take the base model of a prompt router from its trace: its id does not tell."""
        if self.call.model.base_id is None:
            self.call = replace(self.call, model=informed(self.call.model, invoked))

    def gap(self, seconds: float) -> None:
        """Record the time between two chunks; called only where the setting asks for it."""
        base, _ = self.recorder.bases(self.call, _SO_FAR)
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
        # A count that the body may mend or split is settled with the body.
        if self.reservation is not None and "input" not in held:
            self._settle(self.reservation, outcome, last=False)
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
            self._tell(outcome, end[0])
        finally:
            # Also where an interrupt comes between.
            try:
                self.span.end(end_time=end[0])
            except Exception as error:
                shield.stop("recorder.end", error)

    def _tell(self, outcome: Outcome, at: int) -> None:
        try:
            if self.reservation is not None:
                self._settle(self.reservation, outcome, last=True)
        except Exception as error:
            shield.stop("budget.finish", error)
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
            if outcome.error_type is not None:
                span.set_status(_ERROR)
        except Exception as error:
            shield.stop("recorder.status", error)
        try:
            if span.is_recording():
                span.set_attributes(self.recorder.describe(self, outcome))
        except Exception as error:
            shield.stop("recorder.describe", error)
        if self.recorder.costs is not None:
            try:
                self.recorder.costs.tell(self, outcome, at)
            except Exception as error:
                shield.stop("recorder.cost", error)
        if self.counted is not None:
            try:
                self._tell_counted(self.counted, outcome.usage)
            except Exception as error:
                shield.stop("recorder.counted", error)
        if self.content is not None:
            try:
                self._tell_content(self.content, outcome, at)
            except Exception as error:
                shield.stop("recorder.content", error)

    def give_up(self) -> None:
        """End the span at least: `finish` has failed, or cannot be reached."""
        self._ended.clear()
        if self.span.is_recording():
            self.span.end()

    def interrupted(self, *, answered: bool) -> None:
        """Give up a call between lines of ours, one of which may have run by half."""
        # By what is there and not by the token, which may be lost or used up.
        if self.is_current():
            otel_context.attach(self.here)
        self.give_up()
        if self.reservation is not None:
            # An answer has been paid for, though nobody is told how much it was.
            if answered:
                self.reservation.settle(None)
            else:
                self.reservation.release()

    def _tell_counted(self, counted: int, usage: Usage | None) -> None:
        self.span.set_attribute(signals.COUNTED, counted)
        if usage is not None and usage.input_tokens is not None:
            self.span.set_attribute(signals.COUNT_DIFFERENCE, usage.input_tokens - counted)

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
            assert recorder.details is not None
            recorder.details.emit(attributes, structures, self.context, at)

    def _measure(self, outcome: Outcome, held: frozenset[str], *, last: bool) -> None:
        if outcome.invoked_model is not None:
            self._learn(outcome.invoked_model)
        usage, counted = outcome.usage, self._counted
        # A body that tells nothing new is the rule: then its counts are told already.
        counts = usage is not None and (counted is None or usage != counted)
        times = self._end is not None and "duration" not in self._told
        ends = last and (
            usage is None
            or outcome.complete is False
            or outcome.guardrail_action is not None
            or outcome.guardrail_units is not None
        )
        if not (counts or times or ends):
            return
        base, tokens = self.recorder.bases(self.call, outcome)
        made: list[Measurement] = []
        # Each under a shield of its own: what fails loses its own alone.
        if counts:
            assert usage is not None
            self._counted = None if held else usage
            try:
                self._counts(made, usage, tokens, held)
            except Exception as error:
                shield.stop("recorder.counts", error)
            try:
                if outcome.error_type is None:
                    self._sizes(made, usage, base, held)
            except Exception as error:
                shield.stop("recorder.sizes", error)
        if times:
            self._told["duration"] = 1
            try:
                self._durations(made, outcome, base)
            except Exception as error:
                shield.stop("recorder.durations", error)
        if ends:
            try:
                self._endings(made, outcome, base)
            except Exception as error:
                shield.stop("recorder.endings", error)
        self.recorder.measure(made, self.context)

    def _counts(
        self, made: list[Measurement], usage: Usage, tokens: Attributes, held: frozenset[str]
    ) -> None:
        told = self._told
        for key, count in zip(_COUNTERS, _counts(usage)):  # noqa: B905 - `strict=` costs 0.3 µs
            if count is not None and key not in held:
                before = told.get(key)
                if before is None:
                    told[key] = count
                    made.append((key, count, tokens))
                elif count > before:
                    # What came later knew more: a counter is mended by what is missing.
                    told[key] = count
                    made.append((key, count - before, tokens))
        written = usage.cache_write_tokens
        if written is not None and "cache_write" not in held:
            self._written(made, written, usage, tokens)

    def _written(
        self, made: list[Measurement], written: int, usage: Usage, tokens: Attributes
    ) -> None:
        before = self._told.get("cache_write")
        if before is not None and written <= before:
            return
        self._told["cache_write"] = written
        short, long = usage.cache_write_5m_tokens, usage.cache_write_1h_tokens
        with_ttl = self.recorder.with_ttl
        if before is not None or (short is None and long is None):
            # What is added to an earlier count is of no known TTL.
            more = written - (before or 0)
            made.append(("cache_write", more, with_ttl(tokens, signals.TTL_UNKNOWN)))
            return
        if short is not None:
            made.append(("cache_write", short, with_ttl(tokens, "5m")))
        if long is not None:
            made.append(("cache_write", long, with_ttl(tokens, "1h")))

    def _sizes(
        self, made: list[Measurement], usage: Usage, base: Attributes, held: frozenset[str]
    ) -> None:
        told = self._told
        size = signals.INPUT_HISTOGRAMS.get(self.call.operation, "operation_input")
        old = "old_usage" in self.recorder.instruments and self.outer is None
        for count, key, kind in (
            (usage.input_tokens, size, "input"),
            (usage.output_tokens, "operation_output", "output"),
        ):
            # The kind is the counter's name as well, and a histogram waits where that waits.
            if count is not None and key not in told and kind not in held:
                told[key] = count
                made.append((key, count, base))
                if old:
                    made.append(("old_usage", count, {**base, signals.TOKEN_TYPE: kind}))

    def _durations(self, made: list[Measurement], outcome: Outcome, base: Attributes) -> None:
        assert self._end is not None
        seconds = max(0.0, self._end[1] - self.started)
        failed = base
        if outcome.error_type is not None:
            failed = {**base, "error.type": outcome.error_type}
        call, recorder = self.call, self.recorder
        key = signals.DURATIONS.get(call.operation, "operation_duration")
        made.append((key, seconds, failed))
        # v1.41's metrics of an enclosing inference are recorded by who began it.
        old = recorder.old and self.outer is None
        if old and key != "operation_duration":
            made.append(("operation_duration", seconds, failed))
        if outcome.time_to_first_chunk is not None:
            made.append(("time_to_first_chunk", outcome.time_to_first_chunk, base))
            if old:
                made.append(("old_time_to_first_chunk", outcome.time_to_first_chunk, base))
        if outcome.time_per_output_token is not None:
            made.append(("time_per_output_token", outcome.time_per_output_token, base))
        if recorder.all:
            if outcome.server_latency_ms is not None:
                made.append(("server_latency", outcome.server_latency_ms / 1000, base))
            if call.limitable and call.parameters_known and "max_tokens" not in call.parameters:
                made.append(("max_tokens_unset", 1, base))
        if outcome.retry_attempts:
            made.append(("retries", outcome.retry_attempts, base))

    def _endings(self, made: list[Measurement], outcome: Outcome, base: Attributes) -> None:
        reason = self._missing(outcome)
        if reason is not None:
            made.append(("missing", 1, {**base, signals.MISSING_REASON: reason}))
        if outcome.guardrail_action == "INTERVENED":
            made.append(("guardrail_interventions", 1, base))
        for policy, units in (outcome.guardrail_units or {}).items():
            made.append(("guardrail_units", units, {**base, signals.POLICY: policy}))

    def _missing(self, outcome: Outcome) -> str | None:
        """Return why usage is missing, None where it is not or nothing was to be spent."""
        usage = outcome.usage
        broken_off = outcome.complete is False and usage is not None and usage.output_tokens is None
        if not self.spends or (usage is not None and not broken_off):
            return None
        if outcome.error_type is not None:
            return "error"
        return "aborted" if outcome.complete is False else "unsupported"
