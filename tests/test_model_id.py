"""Model ids: what a name on a span tells, and that it never tells an account."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_bedrock.model_id import parse, resolve

ACCOUNT = "123456789012"
ARN = f"arn:aws:bedrock:us-east-1:{ACCOUNT}"
SONNET = "anthropic.claude-3-5-sonnet-20241022-v2:0"

# sent, name, base id, geo, profile id
FORMS = [
    (SONNET, SONNET, SONNET, None, None),
    (f"{SONNET}:51k", f"{SONNET}:51k", SONNET, None, None),
    (f"us.{SONNET}", f"us.{SONNET}", SONNET, "us", f"us.{SONNET}"),
    ("anthropic.claude-opus-5", "anthropic.claude-opus-5", "anthropic.claude-opus-5", None, None),
    ("deepseek.v3.2", "deepseek.v3.2", "deepseek.v3.2", None, None),
    ("openai.gpt-5.6-sol", "openai.gpt-5.6-sol", "openai.gpt-5.6-sol", None, None),
    (
        "us-gov.anthropic.claude-opus-5",
        "us-gov.anthropic.claude-opus-5",
        "anthropic.claude-opus-5",
        "us-gov",
        "us-gov.anthropic.claude-opus-5",
    ),
    # A prefix that AWS adds tomorrow.
    (
        "moon.moonshotai.kimi-k3",
        "moon.moonshotai.kimi-k3",
        "moonshotai.kimi-k3",
        "moon",
        "moon.moonshotai.kimi-k3",
    ),
    # A provider that nobody has heard of; with a third label nobody can tell which is which.
    ("acme.newmodel-v1:0", "acme.newmodel-v1:0", "acme.newmodel-v1:0", None, None),
    ("us.acme.newmodel-v1:0", "us.acme.newmodel-v1:0", None, None, None),
    ("foo", "foo", None, None, None),
    ("", "", None, None, None),
    (f"arn:aws:bedrock:us-east-1::foundation-model/{SONNET}", SONNET, SONNET, None, None),
    (
        f"arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/{SONNET}",
        SONNET,
        SONNET,
        None,
        None,
    ),
    (f"{ARN}:inference-profile/eu.{SONNET}", f"eu.{SONNET}", SONNET, "eu", f"eu.{SONNET}"),
    (
        f"{ARN}:application-inference-profile/abc123",
        "application-inference-profile/abc123",
        None,
        None,
        "abc123",
    ),
    (f"{ARN}:provisioned-model/abc123", "provisioned-model/abc123", None, None, None),
    (f"{ARN}:imported-model/abc123", "imported-model/abc123", None, None, None),
    (f"{ARN}:custom-model/{SONNET}/abc123", "custom-model/abc123", SONNET, None, None),
    (f"{ARN}:custom-model-deployment/abc", "custom-model-deployment/abc", None, None, None),
    (f"{ARN}:prompt/PROMPT1234:1", "prompt/PROMPT1234", None, None, None),
    (f"{ARN}:prompt-router/abc123", "prompt-router/abc123", None, None, None),
    (
        f"{ARN}:default-prompt-router/anthropic.claude:1",
        "default-prompt-router/anthropic.claude:1",
        None,
        None,
        None,
    ),
    (
        f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/my-endpoint",
        "sagemaker-endpoint/my-endpoint",
        None,
        None,
        None,
    ),
    (f"{ARN}:something-new/deep/er/abc", "something-new/abc", None, None, None),
    (f"arn:aws:bedrock:us-east-1:{ACCOUNT}", "arn", None, None, None),
    ("arn:", "arn", None, None, None),
]


@pytest.mark.parametrize(("sent", "name", "base", "geo", "profile"), FORMS)
def test_every_form_is_parsed(sent, name, base, geo, profile):
    model = parse(sent)
    assert (model.name, model.base_id, model.geo, model.profile_id) == (name, base, geo, profile)
    assert model.arn == (sent if sent.startswith("arn:") else None)


@pytest.mark.parametrize(("sent", "name", "base", "geo", "profile"), FORMS)
def test_a_url_encoded_id_is_the_same_id(sent, name, base, geo, profile):
    encoded = sent.replace(":", "%3A").replace("/", "%2F")
    assert parse(encoded) == parse(sent)


def test_no_account_id_is_in_a_name():
    for sent, *_ in FORMS:
        assert ACCOUNT not in parse(sent).name


@given(st.text(max_size=80).map(lambda text: "arn:" + text) | st.text(max_size=80))
def test_any_text_gives_a_model(text):
    model = parse(text)
    assert isinstance(model.name, str)
    assert len(model.name) <= 256


@pytest.mark.parametrize(
    "sent", ["x\ud800", f"{ARN}:inference-profile/x\ud800", f"{ARN}:imported-model/\udfffx"]
)
def test_what_utf_8_cannot_carry_is_in_no_part_of_a_model(sent):
    """In a span's name it would fail the whole batch, other people's spans with it."""
    model = parse(sent)
    for part in (model.name, model.arn, model.base_id, model.profile_id):
        assert part is None or part.encode()
    assert "?" in model.name


@pytest.mark.parametrize(
    "key",
    [
        f"{ARN}:application-inference-profile/abc123",
        "abc123",
        "application-inference-profile/abc123",
    ],
)
def test_an_alias_tells_what_an_opaque_id_stands_for(key):
    opaque = parse(f"{ARN}:application-inference-profile/abc123")
    model = resolve(opaque, {key: f"us.{SONNET}"})
    assert (model.base_id, model.provider) == (SONNET, "anthropic")
    assert model.name == "application-inference-profile/abc123"
    assert resolve(opaque, {"other": SONNET}) is opaque
