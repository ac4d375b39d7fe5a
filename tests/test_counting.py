"""Counting before a call: what is asked, what is answered, and what is said where nobody counts."""

from __future__ import annotations

import base64
import io
import json
from urllib.parse import unquote

import boto3
import pytest
from botocore.exceptions import ClientError
from recordings import load, replaying

import otel_bedrock
from otel_bedrock import TokenCount, TokenCountUnsupported, count_tokens, lookup
from otel_bedrock.count_input import CONVERSE_MEMBERS, converse_members
from otel_bedrock.countable import REGIONS, TABLE, Memory, find
from otel_bedrock.model_id import parse
from otel_bedrock.testing import FakeBedrock, capture

SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
HAIKU_35 = "anthropic.claude-3-5-haiku-20241022-v1:0"
NOVA = "amazon.nova-lite-v1:0"
ARN = "arn:aws:bedrock:us-east-1:123456789012"
PROFILE = f"{ARN}:application-inference-profile/abc123"
HELLO = [{"role": "user", "content": [{"text": "How many tokens is this, then?"}]}]
CONVERSE = {
    "messages": HELLO,
    "system": [{"text": "You count."}],
    "inferenceConfig": {"maxTokens": 30, "temperature": 0.5},
    "toolConfig": {
        "tools": [
            {"toolSpec": {"name": "add", "inputSchema": {"json": {"type": "object"}}}},
        ]
    },
    "additionalModelRequestFields": {"top_k": 5},
    "requestMetadata": {"team": "red"},
    "performanceConfig": {"latency": "standard"},
}
NATIVE = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 30,
    "messages": [{"role": "user", "content": "How many tokens is this, then?"}],
}


@pytest.fixture
def bedrock():
    with FakeBedrock() as running:
        if not hasattr(running.client(), "count_tokens"):
            pytest.skip("the installed botocore has no CountTokens")
        yield running


@pytest.fixture
def client(bedrock):
    return bedrock.client()


@pytest.fixture
def memory():
    return Memory()


def sent(bedrock):
    """Return the model and the input of the last CountTokens request."""
    request = bedrock.requests[-1]
    assert request.path.endswith("/count-tokens")
    return unquote(request.path.split("/")[2]), json.loads(request.body)["input"]


# --- what is asked


def test_the_count_is_what_converse_bills(bedrock, client):
    counted = count_tokens(client, modelId=SONNET, **CONVERSE)
    client.converse(modelId=SONNET, **CONVERSE)
    assert counted == TokenCount(bedrock.bill[-1].input_tokens, SONNET, SONNET)


def test_only_what_count_tokens_takes_is_sent(bedrock, client):
    count_tokens(client, modelId=SONNET, **CONVERSE)
    model, given = sent(bedrock)
    kept = {"messages", "system", "toolConfig", "additionalModelRequestFields"}
    assert given == {"converse": {name: CONVERSE[name] for name in kept}}
    assert model == SONNET


def test_the_members_are_those_of_the_service_description(client):
    """A member that AWS adds is sent by itself; this says that there is one to look at."""
    members = converse_members(client.meta.service_model)
    assert members == CONVERSE_MEMBERS
    shape = client.meta.service_model.operation_model("CountTokens").input_shape
    assert set(shape.members) == {"modelId", "input"}
    assert set(shape.members["input"].members) == {"converse", "invokeModel"}
    assert set(shape.members["input"].members["invokeModel"].members) == {"body"}
    converse = client.meta.service_model.operation_model("Converse").input_shape
    for name in members:
        assert converse.members[name].name == (
            shape.members["input"].members["converse"].members[name].name
        )


@pytest.mark.parametrize(
    "model",
    [
        SONNET,
        f"us.{SONNET}",
        f"global.{SONNET}",
        f"{SONNET}:200k",
        f"{ARN}:inference-profile/eu.{SONNET}",
        f"arn:aws:bedrock:us-east-1::foundation-model/{SONNET}",
        f"{ARN}:custom-model/{SONNET}/abcdefghijkl",
    ],
)
def test_a_model_is_asked_for_by_its_bare_id(bedrock, client, model):
    counted = count_tokens(client, modelId=model, messages=HELLO)
    assert (counted.model_id, counted.counted_as) == (model, SONNET)
    assert sent(bedrock)[0] == SONNET


def test_a_profile_is_what_the_aliases_say(bedrock, client, monkeypatch):
    aliases = {"abc123": SONNET}
    assert count_tokens(client, modelId=PROFILE, messages=HELLO, model_aliases=aliases).counted_as
    monkeypatch.setenv("OTEL_BEDROCK_MODEL_ALIASES", f"abc123={SONNET}")
    assert count_tokens(client, modelId=PROFILE, messages=HELLO).counted_as == SONNET
    monkeypatch.delenv("OTEL_BEDROCK_MODEL_ALIASES")
    with capture(model_aliases=aliases):
        assert count_tokens(client, modelId=PROFILE, messages=HELLO).counted_as == SONNET


def test_a_profile_that_nobody_knows_is_not_asked_for(bedrock, client):
    with pytest.raises(TokenCountUnsupported) as caught:
        count_tokens(client, modelId=PROFILE, messages=HELLO)
    assert caught.value.model_id == PROFILE
    text = str(caught.value)
    assert "model_aliases" in text
    assert "bedrock:GetInferenceProfile" in text
    assert "123456789012" not in text
    assert bedrock.requests == []


@pytest.fixture
def control(monkeypatch):
    """What the control plane says of profiles; `asked` is who was asked about."""

    class Control:
        asked = None
        answer = SONNET

    def base_of(session, model, client):
        Control.asked.append(model.name)
        if Control.answer is None:
            raise lookup.Untold("nobody knows")
        return parse(Control.answer)

    Control.asked = []
    monkeypatch.setattr(lookup, "_base_of", base_of)
    monkeypatch.setattr(lookup, "_state", lookup._State())
    return Control


def test_a_profile_is_looked_up_where_that_is_allowed(client, control, monkeypatch):
    with pytest.raises(TokenCountUnsupported):
        count_tokens(client, modelId=PROFILE, messages=HELLO)
    assert control.asked == []
    for _ in range(2):
        counted = count_tokens(client, modelId=PROFILE, messages=HELLO, resolve_models=True)
        assert (counted.model_id, counted.counted_as) == (PROFILE, SONNET)
    monkeypatch.setenv("OTEL_BEDROCK_RESOLVE_MODELS", "1")
    assert count_tokens(client, modelId=PROFILE, messages=HELLO).counted_as == SONNET
    assert control.asked == ["application-inference-profile/abc123"]


def test_a_look_up_that_fails_is_not_made_again_at_once(client, control, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(lookup, "_clock", lambda: now[0])
    control.answer = None
    for _ in range(2):
        with pytest.raises(TokenCountUnsupported, match="model_aliases"):
            count_tokens(client, modelId=PROFILE, messages=HELLO, resolve_models=True)
    assert len(control.asked) == 1
    now[0] += lookup.FAILED_FOR
    control.answer = SONNET
    assert count_tokens(client, modelId=PROFILE, messages=HELLO, resolve_models=True)
    assert len(control.asked) == 2


def test_a_look_up_is_not_told_as_a_call(client, control):
    with capture(resolve_models=True) as captured:
        count_tokens(client, modelId=PROFILE, messages=HELLO)
        assert [span.name for span in captured.spans] == [f"count_tokens {SONNET}"]


BODIES = {
    "str": lambda data: data.decode(),
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "strided memoryview": lambda data: memoryview(bytes(b for x in data for b in (x, 0)))[::2],
    "BytesIO": io.BytesIO,
    "StringIO": lambda data: io.StringIO(data.decode()),
}


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("text", ["How many tokens?", "Wie viele Zeichen hat „größer“?"])
def test_a_body_of_any_type_is_counted(bedrock, client, kind, text):
    data = json.dumps(
        {**NATIVE, "messages": [{"role": "user", "content": text}]}, ensure_ascii=False
    ).encode()
    counted = count_tokens(client, modelId=SONNET, body=BODIES[kind](data), accept="*/*")
    assert base64.b64decode(sent(bedrock)[1]["invokeModel"]["body"]) == data
    client.invoke_model(modelId=SONNET, body=data)["body"].read()
    assert counted.input_tokens == bedrock.bill[-1].input_tokens


def test_a_file_is_left_where_it_was(bedrock, client, tmp_path):
    path = tmp_path / "body.json"
    path.write_bytes(b"12345" + json.dumps(NATIVE).encode())
    with path.open("rb") as file:
        file.seek(5)
        count_tokens(client, modelId=SONNET, body=file)
        assert file.tell() == 5
        client.invoke_model(modelId=SONNET, body=file)["body"].read()
    assert bedrock.bill[0].status == bedrock.bill[1].status == 200


class _Pipe(io.BytesIO):
    def seekable(self):
        return False


def test_a_file_that_cannot_be_sought_is_not_touched(bedrock, client):
    pipe = _Pipe(json.dumps(NATIVE).encode())
    with pytest.raises(ValueError, match="cannot be sought"):
        count_tokens(client, modelId=SONNET, body=pipe)
    assert pipe.read() == json.dumps(NATIVE).encode()
    assert bedrock.requests == []


def test_a_file_whose_reading_fails_is_left_where_it_was(client):
    class Broken(io.BytesIO):
        def read(self, *_):
            super().read(3)
            raise OSError("no")

    broken = Broken(b"123456")
    with pytest.raises(OSError, match="no"):
        count_tokens(client, modelId=SONNET, body=broken)
    assert broken.tell() == 0


def test_bytes_are_left_as_they_were(client):
    given = bytearray(json.dumps(NATIVE).encode())
    before = bytes(given)
    count_tokens(client, modelId=SONNET, body=given)
    assert given == before
    messages = json.loads(json.dumps(CONVERSE))
    count_tokens(client, modelId=SONNET, **messages)
    assert messages == CONVERSE


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"messages": HELLO}, "modelId"),
        ({"modelId": 5, "messages": HELLO}, "modelId"),
        ({"modelId": SONNET}, "expected the messages"),
        ({"modelId": SONNET, "system": []}, "expected the messages"),
    ],
)
def test_what_is_no_request_is_said(bedrock, client, request_, message):
    with pytest.raises(ValueError, match=message):
        count_tokens(client, **request_)
    assert bedrock.requests == []


def test_what_is_no_client_of_bedrock_runtime_is_said(bedrock):
    with pytest.raises(TypeError, match="client: expected a client of bedrock-runtime; got 'c'"):
        count_tokens("c", modelId=SONNET, messages=HELLO)
    other = boto3.client("bedrock", endpoint_url=bedrock.url)
    with pytest.raises(ValueError, match="client: expected one of bedrock-runtime; got one of bed"):
        count_tokens(other, modelId=SONNET, messages=HELLO)


def test_a_body_of_another_type_is_said(client):
    with pytest.raises(TypeError, match="body: expected text, bytes or a file; got 'int'"):
        count_tokens(client, modelId=SONNET, body=5)


# --- where nobody counts


def test_a_model_that_cannot_be_counted_is_asked_for_once(bedrock, client):
    now = [0.0]
    memory = Memory(60, lambda: now[0])

    def refused():
        with pytest.raises(TokenCountUnsupported) as caught:
            count_tokens(client, modelId=NOVA, messages=HELLO, memory=memory)
        return caught.value

    first, second = refused(), refused()
    assert len(bedrock.requests) == 1
    assert str(first) == str(second)
    assert first.model_id == NOVA
    assert "doesn't support counting tokens" in first.reason
    assert "otel-bedrock count --supported" in first.advice
    # Other ids and other endpoints are still asked for.
    assert count_tokens(client, modelId=SONNET, messages=HELLO, memory=memory)
    with FakeBedrock() as other, pytest.raises(TokenCountUnsupported):
        count_tokens(other.client(), modelId=NOVA, messages=HELLO, memory=memory)
    now[0] = 60
    refused()
    assert len(bedrock.requests) == 3


def test_an_error_that_says_nothing_of_the_model_is_the_callers(bedrock, client, memory):
    for name in ("ThrottlingException", "AccessDeniedException", "ServiceUnavailableException"):
        bedrock.fail(name)
        with pytest.raises(ClientError) as caught:
            count_tokens(client, modelId=SONNET, messages=HELLO, memory=memory)
        assert caught.value.response["Error"]["Code"] == name
        assert caught.value.operation_name == "CountTokens"
    bedrock.fail("ValidationException", "messages.0: this is malformed")
    with pytest.raises(client.exceptions.ValidationException):
        count_tokens(client, modelId=SONNET, messages=HELLO, memory=memory)
    assert count_tokens(client, modelId=SONNET, messages=HELLO, memory=memory)


def test_an_older_botocore_is_said(bedrock):
    class Older:
        meta = bedrock.client().meta

    with pytest.raises(TokenCountUnsupported, match="pip install --upgrade boto3"):
        count_tokens(Older(), modelId=NOVA, messages=HELLO)


def test_a_memory_does_not_grow_without_end():
    memory = Memory()
    for number in range(Memory.MOST + 10):
        memory.put("u", str(number), "no")
    assert len(memory._reasons) <= Memory.MOST
    assert memory.find("u", str(Memory.MOST + 9)) == "no"


# --- telemetry


def test_counting_is_a_span_and_no_usage(client):
    with capture() as captured:
        counted = count_tokens(client, modelId=f"us.{SONNET}", messages=HELLO)
    assert captured.span.name == f"count_tokens {SONNET}"
    attributes = captured.span.attributes
    assert attributes["bedrock.count_tokens.input_tokens"] == counted.input_tokens
    assert not [name for name in attributes if name.startswith("gen_ai.usage.")]
    told = {point.metric for point in captured.points}
    assert told == {"gen_ai.client.operation.duration", "bedrock.client.quota.burndown"}


# --- recorded and documented


@pytest.mark.parametrize(
    "record",
    [record for record in load() if record["operation"] == "CountTokens"],
    ids=lambda record: record["id"],
)
def test_a_recorded_exchange_is_counted(record, client):
    given = json.loads(record["request_body"])["input"]
    request = given.get("converse") or {"body": base64.b64decode(given["invokeModel"]["body"])}
    with replaying() as replay:
        replay.record = record
        asked = replay.client()
        expected = record["expected"]["input_tokens"]
        if expected is not None:
            counted = count_tokens(asked, modelId=record["model_id"], **request)
            assert counted.input_tokens == expected
            return
        message = json.loads(base64.b64decode(record["response_body_b64"]))["message"]
        with pytest.raises(ClientError) as caught:
            count_tokens(asked, modelId=record["model_id"], **request)
        assert caught.value.response["Error"]["Message"] == message


# The two requests of https://docs.aws.amazon.com/bedrock/latest/userguide/count-tokens.html.
DOCUMENTED_BODY = json.dumps(
    {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 500,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
    }
)
DOCUMENTED_CONVERSE = {
    "messages": [
        {"role": "user", "content": [{"text": "What is the capital of France?"}]},
        {"role": "assistant", "content": [{"text": "The capital of France is Paris."}]},
        {"role": "user", "content": [{"text": "What is its population?"}]},
    ],
    "system": [{"text": "You're an expert in geography."}],
}


@pytest.mark.parametrize(
    ("request_", "documented"),
    [
        ({"body": DOCUMENTED_BODY}, {"invokeModel": {"body": DOCUMENTED_BODY}}),
        (DOCUMENTED_CONVERSE, {"converse": DOCUMENTED_CONVERSE}),
    ],
    ids=["InvokeModel", "Converse"],
)
def test_what_is_sent_is_what_aws_documents(bedrock, client, request_, documented):
    theirs = client.count_tokens(modelId=HAIKU_35, input=documented)["inputTokens"]
    ours = count_tokens(client, modelId=HAIKU_35, **request_)
    assert ours.input_tokens == theirs
    first, second = bedrock.requests
    assert (first.method, first.path, first.body) == (second.method, second.path, second.body)


# --- the table


@pytest.mark.parametrize(
    ("model", "title", "endpoint"),
    [
        ("anthropic.claude-3-5-haiku-20241022-v1:0", "Claude 3.5 Haiku", "bedrock-runtime"),
        ("anthropic.claude-3-5-sonnet-20240620-v1:0", "Claude 3.5 Sonnet", "bedrock-runtime"),
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", "Claude 3.5 Sonnet", "bedrock-runtime"),
        ("anthropic.claude-3-7-sonnet-20250219-v1:0", "Claude 3.7 Sonnet", "bedrock-runtime"),
        ("anthropic.claude-opus-4-20250514-v1:0", "Claude Opus 4", "bedrock-runtime"),
        ("anthropic.claude-sonnet-4-20250514-v1:0", "Claude Sonnet 4", "bedrock-runtime"),
        ("anthropic.claude-opus-4-1-20250805-v1:0", "Claude Opus 4.1", "bedrock-runtime"),
        (SONNET, "Claude Sonnet 4.5", "bedrock-runtime"),
        ("anthropic.claude-opus-4-6-v1", "Claude Opus 4.6", "bedrock-runtime"),
        ("anthropic.claude-opus-4-7", "Claude Opus 4.7, Opus 4.8", "bedrock-mantle"),
        ("anthropic.claude-opus-4-8", "Claude Opus 4.7, Opus 4.8", "bedrock-mantle"),
        ("anthropic.claude-sonnet-5", "Claude 5 and 5.5", "bedrock-mantle"),
        ("anthropic.claude-opus-5-5", "Claude 5 and 5.5", "bedrock-mantle"),
        ("anthropic.claude-fable-5-1", "Claude 5 and 5.5", "bedrock-mantle"),
        ("anthropic.claude-3-haiku-20240307-v1:0", "other Claude models", "bedrock-runtime"),
        ("anthropic.claude-opus-6", "other Claude models", "bedrock-runtime"),
        (NOVA, "every other model", "bedrock-runtime"),
    ],
)
def test_a_model_has_the_row_that_names_it(model, title, endpoint):
    row = find(model)
    assert row.title.startswith(title)
    assert row.endpoints[0] == endpoint


def test_documented_rows_name_source_and_date():
    for row in TABLE:
        assert bool(row.source) == bool(row.date)
        assert not row.source or row.source.startswith("https://")
    assert len(REGIONS) == 12


def test_the_names_are_public():
    assert {"count_tokens", "count_tokens_async", "TokenCount", "TokenCountUnsupported"} <= set(
        otel_bedrock.__all__
    )
