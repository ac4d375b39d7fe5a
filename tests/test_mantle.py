"""Models that only bedrock-mantle counts: in Anthropic's form, through real sockets."""

from __future__ import annotations

import copy
import json
import os

import boto3
import botocore.utils
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    InvalidEndpointConfigurationError,
    NoCredentialsError,
    ParamValidationError,
)
from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_bedrock import TokenCountUnsupported, count_tokens, mantle
from otel_bedrock.countable import Memory, mantle_name
from otel_bedrock.messages_api import NoEqual, from_converse, from_native
from otel_bedrock.testing import FakeBedrock, capture

OPUS = "us.anthropic.claude-opus-4-8"
SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
HELLO = [{"role": "user", "content": [{"text": "How many tokens is this prompt?"}]}]
PNG = b"\x89PNG not really"

# Everything that a Converse request may hold and Anthropic's form has, and what it becomes.
CONVERSE = {
    "system": [
        {"text": "You count."},
        {"guardContent": {"text": {"text": "Guarded.", "qualifiers": ["guard_content"]}}},
        {"cachePoint": {"type": "default"}},
    ],
    "messages": [
        {
            "role": "user",
            "content": [
                {"text": "What is on it?"},
                {"image": {"format": "png", "source": {"bytes": PNG}}},
                {"document": {"format": "pdf", "name": "a", "source": {"bytes": b"%PDF"}}},
                {"document": {"format": "md", "name": "b", "source": {"bytes": b"# B"}}},
                {
                    "document": {
                        "format": "txt",
                        "name": "c",
                        "source": {"text": "C"},
                        "context": "about C",
                        "citations": {"enabled": True},
                    }
                },
                {
                    "document": {
                        "format": "txt",
                        "name": "d",
                        "source": {"content": [{"text": "D"}]},
                    }
                },
                {"cachePoint": {"type": "default", "ttl": "1h"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "s"}}},
                {"reasoningContent": {"redactedContent": b"secret"}},
                {"toolUse": {"toolUseId": "t1", "name": "look", "input": {"at": "it"}}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "toolResult": {
                        "toolUseId": "t1",
                        "content": [
                            {"text": "A cat."},
                            {"image": {"format": "png", "source": {"bytes": PNG}}},
                            {
                                "searchResult": {
                                    "source": "https://example.org",
                                    "title": "Cats",
                                    "content": [{"text": "A cat is an animal."}],
                                    "citations": {"enabled": True},
                                }
                            },
                        ],
                        "status": "error",
                    }
                },
                {"guardContent": {"image": {"format": "png", "source": {"bytes": PNG}}}},
            ],
        },
    ],
    "toolConfig": {
        "tools": [
            {
                "toolSpec": {
                    "name": "look",
                    "description": "Looks.",
                    "inputSchema": {"json": {"type": "object"}},
                    "strict": True,
                }
            },
            {"cachePoint": {"type": "default"}},
        ],
        "toolChoice": {"tool": {"name": "look"}},
    },
    "additionalModelRequestFields": {
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "anthropic_beta": ["one-2025-01-01", "two-2025-01-01"],
        "tools": [{"type": "bash_20250124", "name": "bash"}],
        "top_k": 5,
    },
}
_IMAGE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "iVBORyBub3QgcmVhbGx5"},
}
_IMAGE["source"]["data"] = __import__("base64").b64encode(PNG).decode()
ANTHROPIC = {
    "system": [{"type": "text", "text": "You count."}, {"type": "text", "text": "Guarded."}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is on it?"},
                _IMAGE,
                {
                    "type": "document",
                    "source": {
                        "type": "base64",
                        "media_type": "application/pdf",
                        "data": "JVBERg==",
                    },
                    "title": "a",
                },
                {
                    "type": "document",
                    "source": {"type": "text", "media_type": "text/plain", "data": "# B"},
                    "title": "b",
                },
                {
                    "type": "document",
                    "source": {"type": "text", "media_type": "text/plain", "data": "C"},
                    "title": "c",
                    "context": "about C",
                    "citations": {"enabled": True},
                },
                {
                    "type": "document",
                    "source": {"type": "content", "content": [{"type": "text", "text": "D"}]},
                    "title": "d",
                },
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                {"type": "redacted_thinking", "data": "c2VjcmV0"},
                {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "it"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t1",
                    "content": [
                        {"type": "text", "text": "A cat."},
                        _IMAGE,
                        {
                            "type": "search_result",
                            "source": "https://example.org",
                            "title": "Cats",
                            "content": [{"type": "text", "text": "A cat is an animal."}],
                            "citations": {"enabled": True},
                        },
                    ],
                    "is_error": True,
                },
                _IMAGE,
            ],
        },
    ],
    "tools": [
        {
            "name": "look",
            "description": "Looks.",
            "input_schema": {"type": "object"},
            "strict": True,
        },
        {"type": "bash_20250124", "name": "bash"},
    ],
    "tool_choice": {"type": "tool", "name": "look"},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
}


def test_a_converse_request_in_anthropics_form():
    before = copy.deepcopy(CONVERSE)
    body, betas, exact = from_converse(CONVERSE)
    assert body == ANTHROPIC
    assert betas == ("one-2025-01-01", "two-2025-01-01")
    assert exact
    assert before == CONVERSE


def _block(block, role="user"):
    return {"messages": [{"role": role, "content": [block]}]}


@pytest.mark.parametrize(
    ("request_", "place"),
    [
        (_block({"video": {"format": "mp4"}}), "messages.0.content.0.video"),
        (_block({"audio": {"format": "mp3"}}), "messages.0.content.0.audio"),
        (_block({"citationsContent": {}}, "assistant"), "messages.0.content.0.citationsContent"),
        (_block({"newKind": {}}), "messages.0.content.0.newKind"),
        (
            _block({"image": {"format": "png", "source": {"s3Location": {"uri": "s3://a/b"}}}}),
            "messages.0.content.0.image.source",
        ),
        (
            _block({"document": {"format": "docx", "name": "a", "source": {"bytes": b"x"}}}),
            "messages.0.content.0.document",
        ),
        (
            _block({"toolResult": {"toolUseId": "t", "content": [{"video": {}}]}}),
            "messages.0.content.0.toolResult.content.0.video",
        ),
        (
            {"messages": HELLO, "toolConfig": {"tools": [{"systemTool": {"name": "nova"}}]}},
            "toolConfig.tools.0",
        ),
    ],
)
def test_what_has_no_equal_is_said_and_not_left_out(request_, place):
    with pytest.raises(NoEqual) as caught:
        from_converse(request_)
    assert str(caught.value).startswith(place)


REFUSED = ("video", "audio", "citationsContent", "toolAddition", "toolRemoval")


def test_every_block_of_the_service_description_is_known_or_refused(bedrock):
    """A kind of block that AWS adds is refused by name until somebody has looked at it."""
    shapes = bedrock.client().meta.service_model
    for kind in shapes.shape_for("ContentBlock").members:
        if kind in REFUSED:
            with pytest.raises(NoEqual):
                from_converse(_block({kind: {}}))
    known = {"text", "image", "document", "toolUse", "toolResult", "guardContent", "cachePoint"}
    known |= {"reasoningContent", "searchResult", *REFUSED}
    assert set(shapes.shape_for("ContentBlock").members) <= known


def test_a_tools_json_result_is_counted_and_not_called_exact():
    body, _, exact = from_converse(
        _block({"toolResult": {"toolUseId": "t", "content": [{"json": {"größe": 1}}]}})
    )
    (block,) = body["messages"][0]["content"]
    assert block["content"] == [{"type": "text", "text": '{"größe": 1}'}]
    assert not exact


def test_a_native_body_keeps_what_counts():
    body = {
        "anthropic_version": "bedrock-2023-05-31",
        "anthropic_beta": ["one-2025-01-01"],
        "max_tokens": 5,
        "temperature": 1,
        "system": "S",
        "messages": [{"role": "user", "content": "Hi"}],
    }
    kept, betas = from_native(json.dumps(body).encode())
    assert kept == {"messages": body["messages"], "system": "S"}
    assert betas == ("one-2025-01-01",)
    for wrong in (b"{}", b"[]", b"not json", b'{"prompt": "Human: hi"}'):
        with pytest.raises(NoEqual):
            from_native(wrong)


# --- through sockets


@pytest.fixture
def bedrock():
    with FakeBedrock() as running:
        yield running


@pytest.fixture
def runtime(bedrock):
    """bedrock-runtime is asked, too."""
    if not hasattr(bedrock.client(), "count_tokens"):
        pytest.skip("the installed botocore has no CountTokens")


@pytest.fixture
def count(bedrock):
    memory = Memory()

    def counting(client=None, **request):
        return count_tokens(
            client or bedrock.client(), mantle_endpoint=bedrock.url, memory=memory, **request
        )

    return counting


@pytest.mark.parametrize(
    "request_",
    [
        {"messages": HELLO, "system": [{"text": "You count."}]},
        {
            "body": json.dumps(
                {
                    "anthropic_version": "bedrock-2023-05-31",
                    "max_tokens": 5,
                    "messages": [{"role": "user", "content": "How many?"}],
                }
            )
        },
    ],
    ids=["Converse", "InvokeModel"],
)
def test_the_count_is_what_the_call_bills(bedrock, count, request_):
    counted = count(modelId=OPUS, **request_)
    client = bedrock.client()
    if "body" in request_:
        client.invoke_model(modelId=OPUS, **request_)["body"].read()
    else:
        client.converse(modelId=OPUS, **request_)
    asked, billed = bedrock.bill
    assert counted.input_tokens == billed.input_tokens
    assert (counted.counted_as, counted.endpoint) == ("anthropic.claude-opus-4-8", "bedrock-mantle")
    # Counting is free, and bedrock-runtime was not asked.
    assert (asked.operation, asked.usage_sent) == ("MantleCountTokens", False)


def test_the_request_is_the_documented_one(bedrock, count):
    count(modelId=OPUS, messages=HELLO, additionalModelRequestFields={"anthropic_beta": ["b-1"]})
    (request,) = bedrock.requests
    assert (request.method, request.path) == ("POST", "/anthropic/v1/messages/count_tokens")
    assert json.loads(request.body) == {
        "model": "anthropic.claude-opus-4-8",
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "How many tokens is this prompt?"}],
            }
        ],
    }
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.headers["anthropic-beta"] == "b-1"
    assert "/us-east-1/bedrock-mantle/aws4_request" in request.headers["authorization"]


def test_a_session_token_is_signed(bedrock, count):
    client = boto3.client(
        "bedrock-runtime",
        endpoint_url=bedrock.url,
        region_name="eu-west-1",
        aws_access_key_id="AKIA",
        aws_secret_access_key="s",
        aws_session_token="session",
    )
    count(client, modelId=OPUS, messages=HELLO)
    headers = bedrock.requests[-1].headers
    assert headers["x-amz-security-token"] == "session"
    assert "/eu-west-1/bedrock-mantle/" in headers["authorization"]
    assert "x-amz-security-token" in headers["authorization"]


def test_an_api_key_of_the_environment_is_used_as_botocore_would(bedrock, count, monkeypatch):
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "key-123")
    client = boto3.client("bedrock-runtime", endpoint_url=bedrock.url, region_name="us-east-1")
    if not hasattr(botocore.utils, "get_token_from_environment"):
        pytest.skip("the installed botocore does not know AWS_BEARER_TOKEN_BEDROCK")
    with pytest.raises(InvalidEndpointConfigurationError):
        count_tokens(client, modelId=OPUS, messages=HELLO, mantle_endpoint="http://example.org")
    count(client, modelId=OPUS, messages=HELLO)
    headers = bedrock.requests[-1].headers
    assert headers["x-api-key"] == "key-123"
    assert "authorization" not in headers


def test_an_unsigned_client_signs_nothing(bedrock, count):
    client = boto3.client(
        "bedrock-runtime",
        endpoint_url=bedrock.url,
        region_name="us-east-1",
        config=Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1}),
    )
    with pytest.raises(client.exceptions.ClientError) as caught:
        count(client, modelId=OPUS, messages=HELLO)
    assert caught.value.response["Error"]["Code"] == "UnrecognizedClientException"
    assert "authorization" not in bedrock.requests[-1].headers


def test_without_credentials_it_is_botocores_own_error(bedrock, count, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    client = boto3.Session().client(
        "bedrock-runtime", endpoint_url=bedrock.url, region_name="us-east-1"
    )
    with pytest.raises(NoCredentialsError):
        count(client, modelId=OPUS, messages=HELLO)


@pytest.mark.parametrize(
    "code",
    [
        "ThrottlingException",
        "AccessDeniedException",
        "ServiceUnavailableException",
        "InternalServerException",
    ],
)
def test_errors_are_of_the_clients_own_classes(bedrock, count, code):
    client = bedrock.client()
    bedrock.fail(code, "No.")
    with pytest.raises(getattr(client.exceptions, code)) as caught:
        count(client, modelId=OPUS, messages=HELLO)
    expected = f"An error occurred ({code}) when calling the CountTokens operation: No."
    assert str(caught.value) == expected
    assert caught.value.response["ResponseMetadata"]["RequestId"]
    assert count(client, modelId=OPUS, messages=HELLO)


def test_iams_own_form_of_an_error_is_read(bedrock, count):
    bedrock.reply({"Message": "not authorized to perform: bedrock-mantle:CountTokens"}, status=403)
    client = bedrock.client()
    with pytest.raises(client.exceptions.AccessDeniedException, match="bedrock-mantle:CountTokens"):
        count(client, modelId=OPUS, messages=HELLO)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"input_tokens": "many"}'])
def test_an_answer_that_is_none_is_an_error_and_not_a_count(bedrock, count, body):
    bedrock.reply(body)
    client = bedrock.client()
    with pytest.raises(client.exceptions.ClientError):
        count(client, modelId=OPUS, messages=HELLO)


def test_a_claude_that_the_runtime_does_not_count_is_asked_for_here(bedrock, runtime, count):
    """As Claude Opus 6 will be, which no table knows."""
    first = count(modelId="anthropic.claude-opus-6", messages=HELLO)
    second = count(modelId="anthropic.claude-opus-6", messages=HELLO)
    assert first == second
    assert first.endpoint == "bedrock-mantle"
    paths = [request.path.rpartition("/")[2] for request in bedrock.requests]
    assert paths == ["count-tokens", "count_tokens", "count_tokens"]


def test_a_claude_that_nobody_counts_is_asked_for_once(bedrock, runtime, count):
    for _ in range(2):
        with pytest.raises(TokenCountUnsupported) as caught:
            count(modelId="anthropic.claude-3-haiku-20240307-v1:0", messages=HELLO)
    assert len(bedrock.requests) == 2
    assert "bedrock-runtime answered" in caught.value.reason
    assert "bedrock-mantle answered: model: anthropic.claude-3-haiku" in caught.value.reason


def test_who_may_not_use_it_is_told_which_action_is_missing(bedrock, runtime, count):
    bedrock.fail("ValidationException", "The provided model doesn't support counting tokens.")
    bedrock.fail("AccessDeniedException")
    with pytest.raises(TokenCountUnsupported, match="bedrock-mantle:CountTokens"):
        count(modelId=SONNET, messages=HELLO)


def test_a_request_that_has_no_equal_says_what_to_do(bedrock, count):
    with pytest.raises(TokenCountUnsupported, match=r"messages\.0\.content\.0\.video") as caught:
        count(modelId=OPUS, **_block({"video": {"format": "mp4", "source": {"bytes": b"v"}}}))
    assert "Leave that part out" in caught.value.advice
    # It is the request, not the model, that cannot be counted.
    assert count(modelId=OPUS, messages=HELLO)


@pytest.mark.parametrize("wrong", [5, [{"role": "user", "content": "text"}], [{"role": "user"}]])
def test_a_wrong_request_is_botocores_own_error(bedrock, runtime, count, wrong):
    for model in (OPUS, SONNET):
        with pytest.raises(ParamValidationError):
            count(modelId=model, messages=wrong)
    assert bedrock.requests == []


def test_a_prompt_goes_no_further_than_its_client(bedrock):
    """Beside an endpoint that is not AWS's own, bedrock-mantle is asked only where it is said."""
    with pytest.raises(TokenCountUnsupported) as caught:
        count_tokens(bedrock.client(), modelId=OPUS, messages=HELLO)
    for way in ("mantle_endpoint=", "--mantle-endpoint-url", "AWS_ENDPOINT_URL_BEDROCK_MANTLE"):
        assert way in caught.value.advice
    assert bedrock.requests == []


def test_where_bedrock_mantle_is(bedrock, monkeypatch):
    def endpoint(region=None, url=None, given=None):
        client = boto3.client(
            "bedrock-runtime", region_name=region or "us-east-1", endpoint_url=url
        )
        return mantle.endpoint(client, given)

    assert endpoint("eu-north-1") == "https://bedrock-mantle.eu-north-1.api.aws"
    assert endpoint("us-gov-east-1") == "https://bedrock-mantle.us-gov-east-1.api.aws"
    assert endpoint(url="https://vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com") is None
    assert endpoint(url="http://localhost:4566") is None
    assert endpoint(url="https://bedrock-runtime.us-east-1.amazonaws.com.evil.example") is None
    assert endpoint(given="http://localhost:1/") == "http://localhost:1"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:2")
    assert endpoint() == "http://localhost:2"
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_MANTLE", "http://localhost:3")
    assert endpoint() == "http://localhost:3"
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    assert endpoint(url="http://localhost:4566") is None
    assert os.environ["AWS_ENDPOINT_URL_BEDROCK_MANTLE"]


@pytest.mark.parametrize(
    "url", ["foo", "localhost:80", "http://", "http://[::1", "http://a:b", "http://a b", 5]
)
def test_an_endpoint_that_is_no_url_is_said(bedrock, url):
    with pytest.raises(ValueError, match="mantle_endpoint: expected the base URL of bedrock-man"):
        count_tokens(bedrock.client(), modelId=OPUS, messages=HELLO, mantle_endpoint=url)


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("anthropic.claude-opus-4-8", "anthropic.claude-opus-4-8"),
        ("anthropic.claude-haiku-4-5-20251001-v1:0", "anthropic.claude-haiku-4-5"),
        ("anthropic.claude-opus-4-6-v1", "anthropic.claude-opus-4-6"),
    ],
)
def test_a_models_name_has_no_date_and_no_version(base, name):
    assert mantle_name(base) == name


def test_counting_here_is_told_as_count_tokens_is(bedrock, runtime, count):
    with capture() as captured:
        counted = count(modelId=OPUS, messages=HELLO)
        bedrock.throttle()
        with pytest.raises(bedrock.client().exceptions.ClientError):
            count(modelId=OPUS, messages=HELLO)
        told, failed = captured.spans
        metrics = {point.metric for point in captured.points}
        runtime = count(modelId=SONNET, messages=HELLO)
        other = captured.spans[-1]
    assert told.name == "count_tokens anthropic.claude-opus-4-8"
    assert told.attributes["bedrock.count_tokens.input_tokens"] == counted.input_tokens
    assert set(told.attributes) == set(other.attributes) - {"aws.request_id"}
    assert runtime.endpoint == "bedrock-runtime"
    assert failed.attributes["error.type"] == "ThrottlingException"
    assert metrics == {"gen_ai.client.operation.duration", "bedrock.client.quota.burndown"}


def test_counting_here_before_a_call_is_a_span_beside_it(bedrock, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_MANTLE", bedrock.url)
    with capture(count_before=1) as captured:
        bedrock.client().converse(modelId=OPUS, messages=HELLO)
        asked, told = captured.spans
    assert asked.name == "count_tokens anthropic.claude-opus-4-8"
    assert told.attributes["bedrock.count_tokens.difference"] == 0
    assert told.start_time >= asked.end_time


def test_suppressed_counting_is_not_told(bedrock, count):
    with capture() as captured, suppress_instrumentation():
        count(modelId=OPUS, messages=HELLO)
    assert captured.spans == ()
