"""A call made without botocore, told by its maker, comes to the numbers of the same boto3 call."""

from __future__ import annotations

import json
import time

import pytest

import otel_bedrock
from otel_bedrock.testing import FakeBedrock, capture

CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
GPT = "openai.gpt-oss-120b-1:0"
NOVA = "us.amazon.nova-lite-v1:0"
TEXT = [{"role": "user", "content": "How many tokens is this?"}]
SYSTEM = [
    {
        "type": "text",
        "text": "You are a fake. " * 400,
        "cache_control": {"type": "ephemeral"},
    }
]
BODIES = {
    CLAUDE: {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 30,
        "system": SYSTEM,
        "messages": TEXT,
    },
    GPT: {"messages": TEXT},
    NOVA: {"messages": [{"role": "user", "content": [{"text": "How many tokens is this?"}]}]},
}


@pytest.fixture(scope="module")
def bedrock():
    with FakeBedrock() as server:
        yield server


def told(captured):
    """All that is told of tokens: metric, attributes and number of each series."""
    return sorted(
        (
            point.metric,
            sorted((key, str(value)) for key, value in point.attributes.items()),
            point.value,
            point.count,
            point.sum,
        )
        for point in captured.points
        if "token" in point.metric or "missing" in point.metric
    )


def usage(span):
    keep = ("gen_ai.usage.", "bedrock.usage.", "bedrock.model.", "gen_ai.re", "gen_ai.op")
    leave = ("gen_ai.request.max_tokens", "bedrock.usage.source")
    return {k: v for k, v in span.attributes.items() if k.startswith(keep) and k not in leave}


@pytest.mark.parametrize("model", BODIES)
def test_it_comes_to_the_metric_points_and_the_usage_of_a_boto3_call(bedrock, model):
    bedrock.reset()
    client = bedrock.client()
    with capture() as made:
        answer = client.invoke_model(modelId=model, body=json.dumps(BODIES[model]))
        body = json.loads(answer["body"].read())
        wanted, span = told(made), made.span
    assert any(number for *_, number, _, _ in wanted)

    with capture() as captured:
        otel_bedrock.record_usage(
            model,
            body,
            region=client.meta.region_name,
            address=span.attributes["server.address"],
            port=span.attributes["server.port"],
        )
        found, one = told(captured), captured.span
    assert found == wanted
    assert usage(one) == usage(span)
    assert one.name == span.name
    assert one.kind == span.kind


def test_a_duration_is_told_where_it_is_known_and_is_the_spans():
    spent = {"usage": {"input_tokens": 3, "output_tokens": 2}}
    with capture() as captured:
        otel_bedrock.record_usage(CLAUDE, spent)
        assert captured.total("gen_ai.client.inference.duration") is None
    with capture() as captured:
        otel_bedrock.record_usage(CLAUDE, spent, seconds=1.5)
        assert captured.total("gen_ai.client.inference.duration") == 1.5
        span = captured.span
        assert span.end_time - span.start_time == 1_500_000_000
        assert abs(span.end_time - time.time_ns()) < 60e9


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), time.time()])
def test_a_duration_that_can_be_none_is_not_told(seconds):
    with capture() as captured:
        otel_bedrock.record_usage(CLAUDE, {"usage": {"input_tokens": 3}}, seconds=seconds)
        assert captured.total("gen_ai.client.inference.duration") is None
        assert captured.total("gen_ai.client.inference.usage.input_tokens") == 3
        assert captured.span.end_time == captured.span.start_time


def test_a_clients_own_model_is_asked_for_its_body():
    class Message:
        def model_dump(self):
            return {"id": "msg_1", "usage": {"input_tokens": 3, "output_tokens": 2}}

    with capture() as captured:
        otel_bedrock.record_usage(CLAUDE, Message())
        assert captured.span.attributes["gen_ai.usage.input_tokens"] == 3
        assert captured.span.attributes["gen_ai.response.id"] == "msg_1"


@pytest.mark.parametrize("answer", [{}, {"usage": None}, [], None, "text"])
def test_an_answer_without_usage_is_missing_and_never_zero(answer):
    with capture() as captured:
        otel_bedrock.record_usage(CLAUDE, answer)
        assert captured.total("gen_ai.client.inference.usage.input_tokens") is None
        assert captured.total("bedrock.client.usage.missing") == 1


def test_it_has_the_attribution_and_the_parent_of_where_it_is_told():
    with capture() as captured:
        tracer = captured.tracer_provider.get_tracer("user")
        with tracer.start_as_current_span("request"), otel_bedrock.attribution(tenant="acme"):
            otel_bedrock.record_usage(CLAUDE, {"usage": {"input_tokens": 1, "output_tokens": 1}})
        call, request = captured.spans
        assert call.parent.span_id == request.context.span_id
        assert call.attributes["bedrock.attribution.tenant"] == "acme"


def test_it_never_raises_and_tells_nobody_where_nobody_listens(monkeypatch):
    class Broken:
        def model_dump(self):
            raise RuntimeError("mine")

    otel_bedrock.record_usage(CLAUDE, {"usage": {"input_tokens": 1}})
    monkeypatch.delenv("OTEL_BEDROCK_RAISE_INTERNAL_ERRORS")
    with capture() as captured:
        otel_bedrock.record_usage(CLAUDE, Broken())
        assert captured.spans == ()
        assert captured.total("bedrock.instrumentation.errors", site="record_usage") == 1
