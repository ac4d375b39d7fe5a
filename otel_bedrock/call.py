"""The frozen dataclasses that travel from reading to telling: Call, Usage, Outcome.

Unknown is None; zero is 0. Durations are seconds, counts are tokens unless named otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from otel_bedrock.frozen import dataclass, sparse
from otel_bedrock.model_id import ModelId


@dataclass(frozen=True, slots=True)
class Call:
    """What is known before the request leaves.

    `operation` is the value of `gen_ai.operation.name`; `api` is Bedrock's own name
    (`Converse`). `parameters` holds request parameters by the short names of
    `signals.ATTRIBUTES`; only those that the caller gave. `parameters_known` is False where
    the body that has them was not read: too large, a file, or no JSON. `attribution` says for
    whom the call is made (`attribution.py`), None where nobody said.
    """

    api: str
    operation: str
    model: ModelId
    address: str | None = None
    port: int | None = None
    region: str | None = None
    streamed: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    parameters_known: bool = True
    attribution: Mapping[str, str] | None = None

    @property
    def limitable(self) -> bool:
        """Whether the operation generates up to `max_tokens`."""
        return self.operation in ("chat", "text_completion")


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one call. `input_tokens` is the total, cache included.

    The cache-write split by TTL is there only when its parts sum to `cache_write_tokens`.
    `source` is where the counts come from: usage, headers, body or metrics.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_5m_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    reasoning_tokens: int | None = None
    uncached_tokens: int | None = None
    source: str | None = None


@sparse(frozen=True)
class Outcome:
    """What is known when the call, and where it streams its stream, has ended.

    `complete` is False where a stream ended before its final event, None where nothing
    streams. `time_per_output_token` is seconds from first to last chunk over the output
    tokens after the first. `guardrail_units` counts text units by policy.
    """

    usage: Usage | None = None
    finish_reasons: tuple[str, ...] | None = None
    response_id: str | None = None
    response_model: str | None = None
    request_id: str | None = None
    retry_attempts: int | None = None
    server_latency_ms: int | None = None
    service_tier: str | None = None
    latency_mode: str | None = None
    guardrail_action: str | None = None
    guardrail_units: Mapping[str, int] | None = None
    invoked_model: str | None = None
    counted_tokens: int | None = None
    time_to_first_chunk: float | None = None
    time_per_output_token: float | None = None
    complete: bool | None = None
    error_type: str | None = None
    error_message: str | None = None
    throttle_reason: str | None = None
