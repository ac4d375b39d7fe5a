"""Quota: the burndown of each model, and the gauge that rules compute quota tokens from."""

from __future__ import annotations

import pytest

from otel_bedrock.model_id import parse
from otel_bedrock.quota import burndown
from otel_bedrock.testing import FakeBedrock, capture

ARN = "arn:aws:bedrock:us-east-1:123456789012"


@pytest.mark.parametrize(
    ("model", "factor"),
    [
        ("anthropic.claude-opus-4-8", 15),
        ("us.anthropic.claude-opus-4-8-20260601-v1:0", 15),
        ("anthropic.claude-sonnet-5", 10),
        ("anthropic.claude-opus-5-5", 10),
        ("anthropic.claude-sonnet-5-5", None),
        ("anthropic.claude-opus-4-7", 5),
        ("global.anthropic.claude-sonnet-4-5-20250929-v1:0", 5),
        ("anthropic.claude-sonnet-4-20250514-v1:0", 5),
        ("anthropic.claude-3-5-sonnet-20241022-v2:0:200k", 5),
        ("anthropic.claude-v2:1", 5),
        ("anthropic.claude-instant-v1", 5),
        ("openai.gpt-5.6-sol", 10),
        ("openai.gpt-oss-120b-1:0", 1),
        ("amazon.nova-pro-v1:0", 1),
        (f"{ARN}:inference-profile/us.amazon.nova-pro-v1:0", 1),
        (f"{ARN}:provisioned-model/abc123", None),
        (f"{ARN}:custom-model/amazon.nova-pro-v1:0/abc123", None),
        ("foo", None),
    ],
)
def test_an_output_token_costs_what_aws_says(model, factor):
    assert burndown(parse(model)) == factor


def test_the_gauge_tells_the_factor_of_each_model_seen():
    message = [{"role": "user", "content": [{"text": "Hello!"}]}]
    with FakeBedrock() as bedrock, capture() as captured:
        client = bedrock.client()
        for model in ("us.anthropic.claude-opus-4-8", "amazon.nova-lite-v1:0"):
            client.converse(modelId=model, messages=message)
        factors = {
            point.attributes["gen_ai.request.model"]: point.value
            for point in captured.points
            if point.metric == "bedrock.client.quota.burndown"
        }
    assert factors == {"us.anthropic.claude-opus-4-8": 15, "amazon.nova-lite-v1:0": 1}
