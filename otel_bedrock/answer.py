"""Answers: what a call gave back at once, read into the fields of an Outcome.

Every reader returns a dict of Outcome's field names, those that it knows, so that what comes
later (a body, a stream's events) can be laid over it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from otel_bedrock import usage
from otel_bedrock.operations import Operation
from otel_bedrock.paths import dig, first
from otel_bedrock.providers import Provider

Found = dict[str, Any]

GUARDRAIL_INTERVENED = "guardrail_intervened"
INTERVENED = "INTERVENED"

# ApplyGuardrail's words -> those of InvokeModel bodies, so that one value means one thing.
_GUARDRAIL_ACTIONS = {"GUARDRAIL_INTERVENED": INTERVENED}

# https://docs.aws.amazon.com/bedrock/latest/userguide/guardrails-use-independent-api.html
_GUARDRAIL_UNITS = (
    ("topic", "topicPolicyUnits"),
    ("content", "contentPolicyUnits"),
    ("content_image", "contentPolicyImageUnits"),
    ("word", "wordPolicyUnits"),
    ("sensitive_information", "sensitiveInformationPolicyUnits"),
    ("sensitive_information_free", "sensitiveInformationPolicyFreeUnits"),
    ("contextual_grounding", "contextualGroundingPolicyUnits"),
    ("automated_reasoning", "automatedReasoningPolicyUnits"),
    # Those of InvokeGuardrailChecks.
    ("content", "contentFilter.textUnits"),
    ("prompt_attack", "promptAttack.textUnits"),
    ("sensitive_information", "sensitiveInformation.textUnits"),
)


# What the headers of an answer with a body say of it, and no field of Outcome: the counts, as a
# Report, and the length in bytes, each None where they do not. Who watches the body takes it out.
ANNOUNCED = "announced"


def read_answer(row: Operation, answer: Any, provider: Provider) -> Found:
    """Read the parsed answer of a call; a streamed one gives what came before its stream."""
    # Nearly everything is a plain dict; asking for a Mapping costs as much as five look-ups.
    if type(answer) is not dict and not isinstance(answer, Mapping):
        return {}
    found = read_metadata(answer.get("ResponseMetadata"))
    found.update(_READERS[row.reads](row, answer, provider))
    return found


def read_metadata(metadata: Any) -> Found:
    """Read botocore's `ResponseMetadata`: request id and retry attempts."""
    found: Found = {}
    if type(metadata) is dict or isinstance(metadata, Mapping):
        request_id = metadata.get("RequestId")
        if isinstance(request_id, str):
            found["request_id"] = request_id
        retries = usage.whole(metadata.get("RetryAttempts"))
        if retries is not None:
            found["retry_attempts"] = retries
    return found


# Member of an answer -> field of an Outcome, and the key under the member.
_CONVERSE_DETAILS = (
    ("serviceTier", "service_tier", "type"),
    ("performanceConfig", "latency_mode", "latency"),
)


_INVOKE_DETAILS = (
    ("serviceTier", "service_tier"),
    ("performanceConfigLatency", "latency_mode"),
)


def read_converse_details(answer: Any) -> Found:
    """Read what Converse answers and the stream's metadata event have beside usage."""
    found: Found = {}
    if type(answer) is not dict and not isinstance(answer, Mapping):
        return found
    for member, name, key in _CONVERSE_DETAILS:
        if member in answer:
            value = dig(answer[member], key)
            if isinstance(value, str):
                found[name] = value
    metrics = answer.get("metrics")
    if metrics is not None:
        latency = usage.whole(dig(metrics, "latencyMs"))
        if latency is not None:
            found["server_latency_ms"] = latency
    if "trace" in answer:
        found.update(_read_trace(answer["trace"]))
    return found


def _read_trace(trace: Any) -> Found:
    found: Found = {}
    invoked = dig(trace, "promptRouter.invokedModelId")
    if isinstance(invoked, str):
        found["invoked_model"] = invoked
    units = read_guardrail_units(dig(trace, "guardrail"))
    if units:
        found["guardrail_units"] = units
    return found


def read_guardrail_units(trace: Any) -> dict[str, int]:
    """Sum the text units of a guardrail trace by policy; no matched text is read."""
    return _sum_units(
        dig(assessment, "invocationMetrics.usage") for assessment in _assessments(trace)
    )


def _sum_units(usages: Iterable[Any]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for spent in usages:
        for policy, key in _GUARDRAIL_UNITS:
            count = usage.whole(dig(spent, key))
            if count is not None:
                sums[policy] = sums.get(policy, 0) + count
    return sums


def _assessments(trace: Any) -> list[Any]:
    found: list[Any] = []
    inputs = dig(trace, "inputAssessment") or dig(trace, "input")
    if isinstance(inputs, Mapping):
        found.extend(inputs.values())
    outputs = dig(trace, "outputAssessments") or dig(trace, "outputs")
    if isinstance(outputs, Mapping):
        for value in outputs.values():
            found.extend(value if isinstance(value, list) else [value])
    elif isinstance(outputs, list):
        for item in outputs:
            found.extend(item.values() if isinstance(item, Mapping) else [])
    return found


def read_body_details(body: Any, provider: Provider) -> Found:
    """Read what an InvokeModel body, or a chunk of its stream, has beside usage."""
    found: Found = {}
    for name, value in provider.answered.read(body).items():
        detail = _DETAILS[name](value)
        if detail:
            found[name] = detail
    return found


def read_choices(chunk: Any) -> dict[int, str]:
    """Read the finish reasons in one chunk of a stream by their choice: each comes on its own."""
    choices = dig(chunk, "choices")
    found: dict[int, str] = {}
    for choice in choices if isinstance(choices, list) else ():
        index, reason = dig(choice, "index"), first(choice, ("finish_reason", "stop_reason"))
        if isinstance(index, int) and isinstance(reason, str) and reason:
            found[index] = reason
    return found


def _as_text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def as_reasons(value: Any) -> tuple[str, ...] | None:
    """Return finish reasons as Bedrock sent them; None where there is none."""
    if isinstance(value, str) and value:
        return (value,)
    if isinstance(value, list):
        return tuple(item for item in value if isinstance(item, str) and item) or None
    return None


# Of what a provider's row says of answers (`Provider.answered`): what makes it a field of Outcome.
_DETAILS: Mapping[str, Callable[[Any], Any]] = {
    "finish_reasons": as_reasons,
    "response_id": _as_text,
    "response_model": _as_text,
    "guardrail_action": _as_text,
    "guardrail_units": read_guardrail_units,
}


def _read_converse(row: Operation, answer: Any, provider: Provider) -> Found:
    if row.stream is not None:
        return {}
    found = read_converse_details(answer)
    reasons = as_reasons(answer.get("stopReason"))
    if reasons:
        found["finish_reasons"] = reasons
        if reasons[0] == GUARDRAIL_INTERVENED:
            found["guardrail_action"] = INTERVENED
    reports = [usage.read_usage(answer)]
    if "additionalModelResponseFields" in answer:
        reports.append(usage.read_additional(answer["additionalModelResponseFields"]))
    found["usage"] = usage.decide(reports)
    return found


def _read_invoke(row: Operation, answer: Any, provider: Provider) -> Found:
    found: Found = {}
    for member, name in _INVOKE_DETAILS:
        if member in answer:
            value = answer[member]
            if isinstance(value, str):
                found[name] = value
    headers = dig(answer.get("ResponseMetadata"), "HTTPHeaders")
    if type(headers) is dict or isinstance(headers, Mapping):
        latency = usage.number(headers.get("x-amzn-bedrock-invocation-latency"))
        if latency is not None:
            found["server_latency_ms"] = latency
        if row.stream is None:
            report = usage.read_headers(headers)
            found["usage"] = usage.decide((report,))
            found[ANNOUNCED] = report, usage.number(headers.get("content-length"))
    return found


def _read_nothing(_: Operation, __: Any, ___: Provider) -> Found:
    return {}


def _read_knowledge_base(_: Operation, answer: Any, __: Provider) -> Found:
    action = dig(answer, "guardrailAction")
    return {"guardrail_action": action} if isinstance(action, str) else {}


def _read_count_tokens(_: Operation, answer: Any, __: Provider) -> Found:
    return {"counted_tokens": usage.whole(dig(answer, "inputTokens"))}


def _read_guardrail(_: Operation, answer: Any, __: Provider) -> Found:
    found: Found = {}
    action = dig(answer, "action")
    if isinstance(action, str):
        found["guardrail_action"] = _GUARDRAIL_ACTIONS.get(action, action)
    units = _sum_units([dig(answer, "usage")])
    if units:
        found["guardrail_units"] = units
    return found


_READERS: Mapping[str, Callable[[Operation, Any, Provider], Found]] = {
    "converse": _read_converse,
    "invoke": _read_invoke,
    "count_tokens": _read_count_tokens,
    "guardrail": _read_guardrail,
    "agent": _read_nothing,
    "knowledge_base": _read_knowledge_base,
    "plain": _read_nothing,
}
