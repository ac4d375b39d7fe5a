"""Quota: the burndown of each model, and the gauge that rules compute quota tokens from."""

from __future__ import annotations

import pytest

from otel_bedrock.model_id import parse
from otel_bedrock.quota import Quota, burndown, quota_of
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


def test_a_model_whose_first_call_fails_has_its_factor_after_one_that_does_not():
    message = [{"role": "user", "content": [{"text": "Hello!"}]}]
    with FakeBedrock() as bedrock, capture() as captured:
        client = bedrock.client()
        bedrock.throttle()
        with pytest.raises(client.exceptions.ThrottlingException):
            client.converse(modelId="amazon.nova-lite-v1:0", messages=message)
        client.converse(modelId="amazon.nova-lite-v1:0", messages=message)
        metrics = {point.metric for point in captured.points}
    assert "bedrock.client.quota.burndown" in metrics


def test_a_factor_of_the_users_own_comes_before_the_table():
    own = {"anthropic.claude-opus-4-7": 7, "us.anthropic.claude-opus-4-7": 8, "a.b": 0}
    assert burndown(parse("anthropic.claude-opus-4-7"), own) == 7
    assert burndown(parse("us.anthropic.claude-opus-4-7"), own) == 8
    assert burndown(parse("eu.anthropic.claude-opus-4-7"), own) == 7
    assert burndown(parse("anthropic.claude-opus-4-8"), own) == 15
    assert burndown(parse("a.b"), own) == 0
    assert burndown(parse(f"{ARN}:custom-model/anthropic.claude-opus-4-7/abc"), own) is None


NAMES = (
    ("Cross-region model inference tokens per minute for Anthropic Claude 3.7 Sonnet V1", 1),
    ("On-demand model inference tokens per minute for Anthropic Claude 3.5 Sonnet V2", 2),
    ("On-demand model inference tokens per minute for Anthropic Claude 3.5 Sonnet", 3),
    ("Cross-Region InvokeModel tokens per minute for Anthropic Claude Sonnet 4.5 V1", 4),
    ("Cross-region model inference tokens per minute for Anthropic Claude Sonnet 4 V1", 5),
    (
        "Cross-region model inference tokens per minute for Anthropic Claude Sonnet 4 V1 1M"
        " Context Length",
        6,
    ),
    ("Global cross-region model inference tokens per minute for Anthropic Claude Sonnet 4.5 V1", 7),
    ("On-demand model inference requests per minute for Amazon Nova Lite", 8),
    ("On-demand model inference tokens per minute for Amazon Nova Lite", 9),
    (
        "Model invocation max tokens per day for Amazon Nova Lite (doubled for cross-region calls)",
        10,
    ),
    ("On-demand model inference tokens per minute for Meta Llama 3.1 8B Instruct", 11),
    ("On-demand model inference tokens per minute for Amazon Nova Pro", 12),
    ("On-demand model inference tokens per minute for Amazon Nova Pro V1", 13),
)
QUOTAS = [Quota(name, value) for name, value in NAMES]


@pytest.mark.parametrize(
    ("model", "minute", "day"),
    [
        ("us.anthropic.claude-3-7-sonnet-20250219-v1:0", 1, None),
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", 2, None),
        ("anthropic.claude-3-5-sonnet-20240620-v1:0", 3, None),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", 4, None),
        ("eu.anthropic.claude-sonnet-4-20250514-v1:0", 5, None),
        ("global.anthropic.claude-sonnet-4-5-20250929-v1:0", 7, None),
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", None, None),
        ("us.anthropic.claude-sonnet-5-4", None, None),
        ("amazon.nova-lite-v1:0", 9, 10),
        ("us.amazon.nova-lite-v1:0", None, None),
        ("meta.llama3-1-8b-instruct-v1:0", 11, None),
        ("meta.llama3-8b-instruct-v1:0", None, None),
        ("amazon.nova-pro-v1:0", None, None),
        (f"{ARN}:provisioned-model/abc", None, None),
        (f"{ARN}:custom-model/amazon.nova-lite-v1:0/abc", None, None),
    ],
)
def test_a_quota_belongs_to_a_model_only_where_its_name_says_all_of_the_id(model, minute, day):
    found = [quota_of(parse(model), period, QUOTAS) for period in ("minute", "day")]
    assert found == [minute, day]


def _gauge(captured, metric):
    return {
        (point.attributes["gen_ai.request.model"], point.attributes.get("bedrock.quota.period")): (
            point.value
        )
        for point in captured.points
        if point.metric == metric
    }


def test_limits_of_the_settings_are_told_of_the_models_seen():
    message = [{"role": "user", "content": [{"text": "Hello!"}]}]
    limits = {"amazon.nova-lite-v1:0": 400_000, "us.amazon.nova-pro-v1:0": {"minute": 1, "day": 2}}
    with FakeBedrock() as bedrock, capture(quota_limits=limits, burndown={"a.b": 2}) as captured:
        client = bedrock.client()
        for model in (
            "us.amazon.nova-lite-v1:0",
            "us.amazon.nova-pro-v1:0",
            "amazon.nova-micro-v1:0",
        ):
            client.converse(modelId=model, messages=message)
        found = _gauge(captured, "bedrock.client.quota.limit")
        (region,) = {
            point.attributes["cloud.region"]
            for point in captured.points
            if point.metric == "bedrock.client.quota.limit"
        }
    assert region == "us-east-1"
    assert found == {
        ("us.amazon.nova-lite-v1:0", "minute"): 400_000,
        ("us.amazon.nova-pro-v1:0", "minute"): 1,
        ("us.amazon.nova-pro-v1:0", "day"): 2,
    }


def test_without_limits_there_is_no_gauge_of_them():
    message = [{"role": "user", "content": [{"text": "Hello!"}]}]
    with FakeBedrock() as bedrock, capture() as captured:
        bedrock.client().converse(modelId="amazon.nova-lite-v1:0", messages=message)
        assert _gauge(captured, "bedrock.client.quota.limit") == {}
