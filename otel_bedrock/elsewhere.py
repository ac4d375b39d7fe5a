"""Elsewhere: calls to Bedrock that do not go through botocore, told by who makes them.

AnthropicBedrock, the OpenAI client and others on httpx call Bedrock by themselves. Their answers
have the counts in the shapes that InvokeModel's bodies have, and are read by the same tables.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import SpanKind

from otel_bedrock import shield, usage
from otel_bedrock.answer import read_body_details
from otel_bedrock.attribution import attributed
from otel_bedrock.call import Call, Outcome
from otel_bedrock.instrumentor import recorder
from otel_bedrock.model_id import parse, resolve
from otel_bedrock.past_call import PastCall
from otel_bedrock.providers import operation_of, provider_of
from otel_bedrock.recorder import Recorder

# What no call takes: a point in time in the place of a duration, or infinity.
_LONGEST = 86_400.0


def record_usage(
    model: str,
    answer: Any,
    *,
    operation: str | None = None,
    seconds: float | None = None,
    region: str | None = None,
    address: str | None = None,
    port: int | None = None,
) -> None:
    """Report a call that was made without botocore: the span and the tokens of a boto3 call.

        message = AnthropicBedrock().messages.create(model=MODEL, …)
        otel_bedrock.record_usage(MODEL, message, seconds=elapsed)

    Do not call it for what boto3 or aiobotocore send: those calls are reported already. Budgets
    do not know of it. Without `instrument()`, or where nobody listens, it does nothing. It never
    raises.

    Args:
        model: the id that was called.
        answer: the answer's body as a mapping, or an object whose `model_dump()` gives it, as
            the clients' models have; of a stream, a mapping with its final `usage`. Without
            usage in it the call is in `bedrock.client.usage.missing`.
        operation: value of `gen_ai.operation.name`; by the model's family unless given.
        seconds: how long the call took. Unless given, no duration is recorded; nor where it is
            negative, as between two clocks, or more than a day.
        region: AWS Region that was called.
        address: host of the endpoint.
        port: port of the endpoint.
    """
    try:
        if seconds is not None and not 0 <= seconds < _LONGEST:
            seconds = None
        current = recorder()
        if current is None or not is_instrumentation_enabled():
            return
        dump = getattr(answer, "model_dump", None)
        body = answer if isinstance(answer, Mapping) or dump is None else dump()
        sent = resolve(parse(model), current.config.model_aliases or {})
        provider = provider_of(sent)
        call = Call(
            "InvokeModel",
            operation or operation_of(provider, None),
            sent,
            address,
            port,
            region,
            parameters_known=False,
            attribution=attributed(current.config.attribution_baggage_keys),
        )
        found = read_body_details(body, provider)
        found["usage"] = usage.decide((usage.read_body(body),))
        _tell(current, call, Outcome(**found), seconds, spends=provider.tokens)
    except Exception as error:
        shield.stop("record_usage", error)


def _tell(
    current: Recorder, call: Call, outcome: Outcome, seconds: float | None, *, spends: bool
) -> None:
    end = time.time_ns()
    span = current.tracer.start_span(
        f"{call.operation} {call.model.name}",
        kind=SpanKind.CLIENT,
        attributes=current.naming(call),
        start_time=end - int((seconds or 0.0) * 1e9),
    )
    recording = PastCall(current, call, span, seconds)
    recording.spends = spends
    recording.finish(outcome, (end, seconds or 0.0))
