"""Floors: what the telemetry of one call costs by hand, on the bare OpenTelemetry SDK."""

from __future__ import annotations

from typing import Any

from opentelemetry.trace import SpanKind, set_span_in_context

_START = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "aws.bedrock",
    "gen_ai.request.model": "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "server.address": "bedrock-runtime.us-east-1.amazonaws.com",
    "server.port": 443,
}
_BASE = {
    **_START,
    "cloud.region": "us-east-1",
    "bedrock.model.base_id": "anthropic.claude-sonnet-4-5-20250929-v1:0",
}
_TOKENS = {**_BASE, "gen_ai.token.modality": "unknown"}
# With the five of the start, 24 attributes.
_END = {
    "gen_ai.request.max_tokens": 512,
    "gen_ai.request.temperature": 0.2,
    "gen_ai.request.top_p": 0.9,
    "gen_ai.request.stop_sequences": (".",),
    "cloud.region": "us-east-1",
    "bedrock.model.base_id": "anthropic.claude-sonnet-4-5-20250929-v1:0",
    "bedrock.model.geo": "us",
    "bedrock.inference_profile.id": "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "gen_ai.usage.input_tokens": 21,
    "gen_ai.usage.output_tokens": 96,
    "gen_ai.usage.cache_read.input_tokens": 0,
    "gen_ai.usage.cache_write.input_tokens": 0,
    "bedrock.usage.uncached.input_tokens": 21,
    "bedrock.usage.source": "usage",
    "gen_ai.response.finish_reasons": ("end_turn",),
    "bedrock.server.latency_ms": 812,
    "bedrock.retry_attempts": 0,
    "bedrock.service_tier": "default",
    "aws.request_id": "5b1e4f2a-9c53-4d3e-8f2b-0b6f5d0c7e11",
}


class ContractFloor:
    """24 attributes and seven measurements with the call's own context: what we promise to tell."""

    def __init__(self, tracer_provider: Any, meter_provider: Any) -> None:
        self._tracer = tracer_provider.get_tracer("contract")
        meter = meter_provider.get_meter("contract")
        self._counters = [meter.create_counter(f"contract.{n}", "{token}") for n in range(4)]
        self._sizes = [meter.create_histogram(f"contract.size.{n}", "{token}") for n in range(2)]
        self._duration = meter.create_histogram("contract.duration", "s")

    def call(self, _: Any = None) -> None:
        span = self._tracer.start_span(
            "chat us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            kind=SpanKind.CLIENT,
            attributes=_START,
        )
        span.set_attributes(_END)
        context = set_span_in_context(span)
        for counter in self._counters:
            counter.add(21, _TOKENS, context)
        for size in self._sizes:
            size.record(21, _BASE, context)
        self._duration.record(0.8, _BASE, context)
        span.end()


class Floor:
    """12 attributes and five measurements: the least that a peer tells."""

    def __init__(self, tracer_provider: Any, meter_provider: Any) -> None:
        self._tracer = tracer_provider.get_tracer("floor")
        meter = meter_provider.get_meter("floor")
        self._five = [meter.create_histogram(f"floor.{number}") for number in range(5)]

    def call(self, _: Any = None) -> None:
        attributes = {**_START, **dict(list(_END.items())[:7])}
        span = self._tracer.start_span("chat", kind=SpanKind.CLIENT, attributes=attributes)
        for histogram in self._five:
            histogram.record(21, _START)
        span.end()
