"""Fuzz: whatever Bedrock sends, the caller sees the same as without us; no count is made up."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from transparency import ALL_ON, CLAUDE, MESSAGES, render

from otel_bedrock import shapes, usage
from otel_bedrock.testing.capture import capture
from otel_bedrock.testing.frames import encode_chunk_bytes, encode_frame

sys.path.insert(0, str(Path(__file__).parent / "bench"))

from scenarios import EVENTS, Scenario, make_client

# About ten seconds in all.
_few = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

MODELS = (
    CLAUDE,
    "amazon.nova-lite-v1:0",
    "amazon.titan-text-express-v1",
    "amazon.titan-embed-text-v2:0",
    "meta.llama3-8b-instruct-v1:0",
    "mistral.mistral-large-2402-v1:0",
    "cohere.command-r-v1:0",
    "ai21.j2-mid-v1",
    "openai.gpt-oss-20b-1:0",
    "nobody.knows-me-v1:0",
)

# --- What is sent --------------------------------------------------------------------------

# At the rims of what OTLP, JSON and floats can carry, and what looks like a number.
_ODD_NUMBERS = st.sampled_from(
    [0, -1, 1, 7, 28.0, 0.5, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 10**40, 1e308, -0.0]
) | st.sampled_from([float("nan"), float("inf"), True, False, "12", "٣", None])
_NUMBERS = _ODD_NUMBERS | st.integers(0, 10**6) | st.integers() | st.floats()
_NAMES = sorted(
    {
        step
        for shape in (*shapes.SHAPES, shapes.INVOCATION_METRICS)
        for paths in (shape.anchors, shape.input, shape.output, shape.cache_read, shape.details)
        for path in paths
        for step in path.split(".")
        if step not in "*#"
    }
    | set(
        "usage metrics latencyMs stopReason trace guardrail serviceTier type performanceConfig"
        " message response choices delta ttl additionalModelResponseFields invocationMetrics"
        " inputAssessment outputAssessments promptRouter finish_reason stop_reason id".split()
    )
    | {usage.METRICS_KEY, "amazon-bedrock-trace", "amazon-bedrock-guardrailAction"}
)
_ANY = st.recursive(
    _NUMBERS | st.text(max_size=6) | st.sampled_from(["5m", "1h", "end_turn", "", "INTERVENED"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=4)
    ),
    max_leaves=8,
)

_CACHE = {"cacheReadInputTokens": 5, "cacheWriteInputTokens": 3}
_SPENT = {"inputTokens": 11, "outputTokens": 7, "totalTokens": 26, **_CACHE}
_UNITS = {"invocationMetrics": {"usage": {"topicPolicyUnits": 1, "wordPolicyUnits": 2}}}
_ANSWER = {
    "output": {"message": {"role": "assistant", "content": [{"text": "hi"}]}},
    "stopReason": "end_turn",
    "usage": {**_SPENT, "cacheDetails": [{"ttl": "5m", "inputTokens": 3}]},
    "metrics": {"latencyMs": 12},
    "serviceTier": {"type": "flex"},
    "trace": {
        "guardrail": {"inputAssessment": {"g": _UNITS}, "outputAssessments": {"g": [_UNITS]}}
    },
    "additionalModelResponseFields": {"usage": {"output_tokens_details": {"thinking_tokens": 4}}},
}
_CLAUDE_SPENT = {
    "input_tokens": 11,
    "output_tokens": 7,
    "cache_read_input_tokens": 5,
    "cache_creation_input_tokens": 3,
    "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 0},
}
_METRICS = {"inputTokenCount": 11, "outputTokenCount": 7, "invocationLatency": 12}
_BODIES = (
    {"id": "msg_1", "stop_reason": "end_turn", "usage": _CLAUDE_SPENT, "content": [{"text": "h"}]},
    {"usage": _SPENT, "stopReason": "end_turn", "output": {"message": {"content": []}}},
    {
        "id": "c",
        "choices": [{"finish_reason": "stop", "message": {"content": "hi"}}],
        "usage": {
            "prompt_tokens": 19,
            "completion_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 5},
        },
    },
    {"prompt_token_count": 11, "generation_token_count": 7, "stop_reason": "stop"},
    {"inputTextTokenCount": 11, "results": [{"tokenCount": 7, "completionReason": "FINISH"}]},
    {"meta": {"billed_units": {"input_tokens": 11, "output_tokens": 7}}, "finish_reason": "X"},
    {"prompt": {"tokens": [1, 2]}, "completions": [{"data": {"tokens": [1]}}]},
)
_CHUNKS = (
    {"type": "message_start", "message": {"id": "msg_1", "usage": _CLAUDE_SPENT}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "token"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
    {"type": "message_stop", usage.METRICS_KEY: _METRICS},
    *_BODIES,
)
_CONVERSE_EVENTS = (
    ("messageStart", {"role": "assistant"}),
    ("contentBlockStart", {"contentBlockIndex": 0, "start": {"toolUse": {"name": "x"}}}),
    ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "hi"}}),
    ("contentBlockStop", {"contentBlockIndex": 0}),
    ("messageStop", {key: _ANSWER[key] for key in ("stopReason", "additionalModelResponseFields")}),
    ("metadata", {key: _ANSWER[key] for key in ("usage", "metrics", "trace", "serviceTier")}),
    ("somethingNew", {"usage": _SPENT}),
    ("initial-response", {}),
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if not isinstance(value, (dict, list)):
        return
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _places(item, (*path, key))


def _replace(value: Any, path: tuple[Any, ...], change: Any) -> Any:
    if not path:
        return change(value)
    copy = value.copy()
    copy[path[0]] = _replace(copy[path[0]], path[1:], change)
    return copy


@st.composite
def _near(draw: Any, samples: tuple[Any, ...]) -> Any:
    """An answer as it should be, but for a place or two."""
    value = draw(st.sampled_from(samples))
    for _ in range(draw(st.integers(0, 2))):
        path = draw(st.sampled_from(list(_places(value))))
        kind = draw(st.integers(0, 2))
        other = draw(_NUMBERS if kind else _ANY)
        value = _replace(value, path, lambda old, k=kind, new=other: [old, new] if k > 1 else new)
    return value


# Deeper than Python recurses, and short enough to be read at all.
_DEEP = st.sampled_from([b"[" * 60_000, b'{"usage":' * 6_000, b'{"a":' * 400 + b"1" + b"}" * 400])


@st.composite
def _bytes_of(draw: Any, values: Any) -> bytes:
    """A value as JSON, mostly whole; or none at all."""
    kind = draw(st.integers(0, 19))
    if kind == 0:
        return draw(st.binary(max_size=30) | _DEEP)
    text = json.dumps(draw(values), ensure_ascii=draw(st.booleans())).encode("utf-8", "replace")
    return text[: draw(st.integers(0, len(text)))] if kind < 4 else text


_DIGITS = st.sampled_from(
    "0 7 11 007 -1 1.0 1e3 9223372036854775807 9223372036854775808 ² NaN".split()
)
_HEADERS = st.dictionaries(
    st.sampled_from(
        [name for _, name in shapes.HEADER_NAMES]
        + ["X-Amzn-Bedrock-Invocation-Latency", "Content-Length"]
    ),
    _DIGITS
    | st.integers(0, 10**6).map(str)
    | st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"))
    | st.just("9" * 5_000),
)

# --- What is seen and told -----------------------------------------------------------------

_READERS = {
    "at once": lambda body: [body.read()],
    "in pieces": lambda body: [body.read(7), body.read(), body.read()],
    "by chunks": lambda body: list(body.iter_chunks(64)),
    "by lines": lambda body: list(body.iter_lines()),
    "from below": lambda body: list(body._raw_stream.stream(64)),
}


@pytest.fixture(scope="module")
def bedrock():
    client, use = make_client()
    yield client, use
    client.close()


def _see(client: Any, scenario: Scenario, reader: str) -> str:
    """Make the call and say all that the caller sees of it."""
    seen: list[Any] = []
    try:
        answer = getattr(client, scenario.method)(**scenario.parameters)
        seen.append(answer)
        if "stream" in scenario.method:
            seen.extend(answer.get("stream") or answer["body"])
        elif scenario.method == "invoke_model":
            seen.extend(_READERS[reader](answer["body"]))
    except Exception as error:
        seen.append(error)
    # Text, because NaN equals nothing.
    return repr([render(one) for one in seen])


def _count(value: Any) -> int | None:
    whole = type(value) is int or (type(value) is float and value.is_integer())
    return int(value) if whole and 0 <= value < 2**53 else None


def _literal(value: Any) -> Iterator[int]:
    """Give every whole number in `value`, and what its lists come to."""
    if isinstance(value, dict):
        for item in value.values():
            yield from _literal(item)
    elif isinstance(value, list):
        yield len(value)
        for item in value:
            yield from _literal(item)
        # Each of several results, or completions, has its own count.
        by_key: dict[str, list[Any]] = {"": value}
        for item in value:
            for key, one in item.items() if isinstance(item, dict) else ():
                by_key.setdefault(key, []).append(one)
        for column in by_key.values():
            counts = [_count(one) for one in column]
            if None not in counts:
                yield sum(counts)
    elif (count := _count(value)) is not None:
        yield count


def _made(value: Any) -> Iterator[int]:
    """Give what botocore makes of everything in `value` where a whole number should be."""
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _made(item)
        return
    try:
        # 2.7, true and "12" come to the caller as 2, 1 and 12.
        yield int(value)
    except (ValueError, TypeError, OverflowError):
        return


def _counts_in(pieces: list[bytes], headers: dict[str, str], *, parsed: bool = False) -> set[int]:
    """Return every count that is sent, in answers that botocore has `parsed` also what it makes."""
    counts = {int(text) for text in headers.values() if text.isdecimal() and len(text) < 20}
    for piece in pieces:
        try:
            value = json.loads(piece)
            counts.update(_literal(value))
            counts.update(_made(value) if parsed else ())
        except (ValueError, RecursionError):
            continue
    return counts


# What is input and cache together, or the total without the cache.
_SUMS = ("usage.input_tokens", "operation.input_tokens", "uncached.input_tokens", "token.usage")

_LATENCY = "bedrock.server.latency_ms"


def _is_made_of(count: int, sent: set[int]) -> bool:
    some = {0, *sent}
    return any(abs(count - one) - other in some for one in some for other in some)


def _check(bedrock: Any, scenario: Scenario, sent: set[int], everything: bool, reader: str) -> None:
    client, use = bedrock
    use(scenario)
    bare = _see(client, scenario, reader)
    with capture(**(ALL_ON if everything else {})) as captured:
        assert _see(client, scenario, reader) == bare
        points = captured.points
        told = [
            (key, value)
            for key, value in captured.span.attributes.items()
            if ("usage." in key and key.endswith("tokens")) or key == _LATENCY
        ]
    assert not [point for point in points if point.metric == "bedrock.instrumentation.errors"]
    told += [
        (point.metric, point.sum if point.value is None else point.value)
        for point in points
        if point.metric.endswith(("tokens", "token.usage"))
    ]
    for name, count in told:
        assert type(count) is int, (name, count)
        assert 0 <= count < 2**63, (name, count)
        made = name.endswith(_SUMS) and _is_made_of(count, sent)
        assert count in sent or made, (name, count)


# --- The tests -----------------------------------------------------------------------------


@_few
@example(json.dumps({**_ANSWER, "metrics": {"latencyMs": False}}).encode(), {}, False)
@example(json.dumps({**_ANSWER, "metrics": {"latencyMs": 2.7}}).encode(), {}, False)
@given(_bytes_of(_near((_ANSWER,)) | _ANY), _HEADERS, st.booleans())
def test_whatever_converse_answers_is_seen_as_without_us(bedrock, body, headers, everything):
    parameters = {"modelId": CLAUDE, "messages": MESSAGES}
    scenario = Scenario("converse", parameters, body)
    scenario.headers.update(headers)
    _check(bedrock, scenario, _counts_in([body], headers, parsed=True), everything, "")


@_few
@given(
    st.sampled_from(MODELS),
    _bytes_of(_near(_BODIES) | _ANY),
    _bytes_of(_ANY),
    _HEADERS,
    st.booleans(),
    st.sampled_from(sorted(_READERS)),
)
def test_whatever_invoke_model_answers_is_seen_as_without_us(
    bedrock, model, body, request, headers, everything, reader
):
    parameters = {"modelId": model, "body": request}
    scenario = Scenario("invoke_model", parameters, body)
    scenario.headers.update(headers)
    _check(bedrock, scenario, _counts_in([body], headers), everything, reader)


@_few
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["event", "event", "event", "event", "exception"]),
            st.sampled_from(_CONVERSE_EVENTS).flatmap(
                lambda event: st.tuples(st.just(event[0]), _bytes_of(_near((event[1],)) | _ANY))
            ),
        ),
        max_size=6,
    ),
    st.sampled_from([CLAUDE, "openai.gpt-5.6-sol"]),
    st.booleans(),
)
def test_whatever_events_converse_stream_sends_are_seen_as_without_us(
    bedrock, events, model, everything
):
    frames = [encode_frame(kind, name, payload) for kind, (name, payload) in events]
    parameters = {"modelId": model, "messages": MESSAGES}
    scenario = Scenario("converse_stream", parameters, b"".join(frames), EVENTS)
    sent = _counts_in([payload for _, (_, payload) in events], {}, parsed=True)
    _check(bedrock, scenario, sent, everything, "")


@_few
@given(
    st.sampled_from(MODELS),
    st.lists(_bytes_of(_near(_CHUNKS) | _ANY), max_size=6),
    st.sampled_from([b"", b"", b"\0" * 20, b"{"]),
    st.booleans(),
)
def test_whatever_chunks_invoke_model_streams_are_seen_as_without_us(
    bedrock, model, chunks, rest, everything
):
    body = b"".join(encode_chunk_bytes(chunk) for chunk in chunks) + rest
    parameters = {"modelId": model, "body": b"{}"}
    scenario = Scenario("invoke_model_with_response_stream", parameters, body, EVENTS)
    _check(bedrock, scenario, _counts_in(chunks, {}), everything, "")


# --- What was found ------------------------------------------------------------------------


def _converse(bedrock: Any, spent: Any) -> None:
    client, use = bedrock
    use(Scenario("converse", {}, json.dumps({**_ANSWER, "usage": spent}).encode()))
    client.converse(modelId=CLAUDE, messages=MESSAGES)


def _invoke(bedrock: Any, headers: dict[str, str], request: Any = None) -> str:
    client, use = bedrock
    scenario = Scenario("invoke_model", {}, json.dumps(_BODIES[0]).encode())
    scenario.headers.update(headers)
    scenario.parameters = {"modelId": CLAUDE, "body": json.dumps(request or {})}
    use(scenario)
    return _see(client, scenario, "in pieces")


@pytest.mark.parametrize("absurd", [2**63 - 1, 2**53])
def test_one_absurd_count_does_not_stop_the_export_of_all_metrics(bedrock, absurd):
    with capture() as captured:
        _converse(bedrock, {**_SPENT, "inputTokens": absurd, "outputTokens": absurd})
        _converse(bedrock, _SPENT)
        assert encode_metrics(captured.metrics_data).ByteSize() > 0
        assert captured.total("gen_ai.client.inference.usage.output_tokens") == 7
        first, _ = captured.spans
        assert "gen_ai.usage.output_tokens" not in first.attributes


def test_a_latency_of_too_many_digits_is_unknown_and_not_cut_to_another_number(bedrock):
    with capture(metrics="all") as captured:
        _invoke(bedrock, {"X-Amzn-Bedrock-Invocation-Latency": "9" * 30})
        assert _LATENCY not in captured.span.attributes
        assert captured.total("bedrock.client.server_latency") is None


def test_a_body_whose_length_has_thousands_of_digits_is_seen_as_ever_and_counted(bedrock):
    headers = {"Content-Length": "9" * 5_000}
    bare = _invoke(bedrock, headers)
    with capture() as captured:
        assert _invoke(bedrock, headers) == bare
        assert captured.span.attributes["gen_ai.usage.output_tokens"] == 7


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1, 10**400])
def test_a_parameter_too_large_for_a_span_is_left_out_of_it(bedrock, seed, caplog):
    with capture() as captured:
        _invoke(bedrock, {}, {"max_tokens": 5, "top_k": seed})
        assert captured.span.attributes["gen_ai.request.max_tokens"] == 5
        assert encode_spans(captured.spans).ByteSize() > 0
    assert caplog.records == []


@pytest.mark.parametrize("ttl", [[0], {}, 5, None, True])
def test_a_ttl_that_is_no_text_costs_the_split_and_not_the_usage(bedrock, ttl):
    with capture() as captured:
        _converse(bedrock, {**_SPENT, "cacheDetails": [{"ttl": ttl, "inputTokens": 3}]})
        attributes = captured.span.attributes
    assert attributes["gen_ai.usage.cache_write.input_tokens"] == 3
    assert "bedrock.usage.cache_write.5m.input_tokens" not in attributes
