"""FakeBedrock through real boto3 clients and real sockets, with no instrumentation."""

from __future__ import annotations

import base64
import gzip
import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from botocore.eventstream import ChecksumMismatch, EventStreamBuffer
from botocore.exceptions import (
    ClientError,
    EventStreamError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from urllib3.exceptions import ProtocolError

from otel_bedrock.testing import Billed, FakeBedrock
from otel_bedrock.testing.errors import STATUS, THROTTLED
from otel_bedrock.testing.families import TABLE, Models
from otel_bedrock.testing.frames import encode_event, split_frames
from otel_bedrock.testing.tokenizer import count, count_text, split_text

SONNET_4 = "anthropic.claude-sonnet-4-20250514-v1:0"
CLAUDE_3 = "anthropic.claude-3-haiku-20240307-v1:0"
HAIKU_35 = "anthropic.claude-3-5-haiku-20241022-v1:0"
NOVA = "amazon.nova-lite-v1:0"
LLAMA = "meta.llama3-8b-instruct-v1:0"
GPT = "openai.gpt-5.6-sol"
TITAN_EMBED = "amazon.titan-embed-text-v2:0"
ASK = "Tell me about counting in 12 words"
TURNS = [{"role": "user", "content": [{"text": ASK}]}]
CHAT = [{"role": "user", "content": ASK}]

# One model of each family and a request in its own words.
BODIES: dict[str, dict[str, Any]] = {
    SONNET_4: {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 99, "messages": CHAT},
    HAIKU_35: {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 99, "messages": CHAT},
    CLAUDE_3: {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 99, "messages": CHAT},
    "anthropic.claude-sonnet-5": {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 99,
        "messages": CHAT,
    },
    NOVA: {"messages": TURNS},
    "amazon.titan-text-express-v1": {"inputText": ASK},
    LLAMA: {"prompt": ASK},
    "mistral.mistral-7b-instruct-v0:2": {"prompt": ASK},
    "cohere.command-r-v1:0": {"message": ASK},
    "cohere.command-text-v14": {"prompt": ASK, "stream": True},
    "ai21.jamba-1-5-mini-v1:0": {"messages": CHAT},
    "openai.gpt-oss-120b-1:0": {"messages": CHAT},
    GPT: {"messages": CHAT},
    "acme.brand-new-model": {"messages": CHAT},
}
EMBEDDINGS: dict[str, dict[str, Any]] = {
    "amazon.titan-embed-text-v1": {"inputText": ASK},
    TITAN_EMBED: {"inputText": ASK},
    "amazon.titan-embed-image-v1": {"inputText": ASK},
    "cohere.embed-english-v3": {"texts": [ASK, "and more"], "input_type": "search_query"},
    "cohere.embed-v4:0": {"texts": [ASK], "input_type": "search_query"},
    "amazon.nova-2-multimodal-embeddings-v1:0": {
        "taskType": "SINGLE_EMBEDDING",
        "singleEmbeddingParams": {"text": {"value": ASK}},
    },
}
# Families that cache, and so have the two cache headers.
CACHING = {SONNET_4, HAIKU_35, "anthropic.claude-sonnet-5", NOVA, GPT}


def claude_usage(body: dict[str, Any]) -> tuple[int, int]:
    usage = body["usage"]
    cached = usage.get("cache_creation_input_tokens", 0) + usage.get("cache_read_input_tokens", 0)
    return usage["input_tokens"] + cached, usage["output_tokens"]


def openai_usage(body: dict[str, Any]) -> tuple[int, int]:
    return body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]


# What the body itself says: (total input, output). Read here anew, not by the code under test.
SPELLINGS: dict[str, Any] = {
    SONNET_4: claude_usage,
    HAIKU_35: claude_usage,
    CLAUDE_3: claude_usage,
    "anthropic.claude-sonnet-5": claude_usage,
    NOVA: lambda body: (body["usage"]["inputTokens"], body["usage"]["outputTokens"]),
    "amazon.titan-text-express-v1": lambda body: (
        body["inputTextTokenCount"],
        sum(result["tokenCount"] for result in body["results"]),
    ),
    LLAMA: lambda body: (body["prompt_token_count"], body["generation_token_count"]),
    "ai21.jamba-1-5-mini-v1:0": openai_usage,
    "openai.gpt-oss-120b-1:0": openai_usage,
    GPT: openai_usage,
    "acme.brand-new-model": openai_usage,
}


@pytest.fixture
def bedrock() -> Iterator[FakeBedrock]:
    with FakeBedrock() as server:
        yield server


@pytest.fixture
def client(bedrock: FakeBedrock) -> Any:
    # botocore releases older than a feature drop what they do not know: let them send it.
    return bedrock.client(parameter_validation=False)


def needs(client: Any, operation: str) -> None:
    if not hasattr(client, operation):
        pytest.skip(f"this botocore has no {operation}")


def shape_members(client: Any, shape: str) -> list[str]:
    """What this botocore knows of a shape; it drops the rest."""
    return list(client.meta.service_model.shape_for(shape).members)


def said(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"text": text}]}]


def post(bedrock: FakeBedrock, path: str, body: object, **headers: str) -> tuple[int, Any, bytes]:
    connection = http.client.HTTPConnection(bedrock.url.removeprefix("http://"), timeout=10)
    try:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, raw, headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def frames_of(raw: bytes) -> list[Any]:
    """botocore's own parser, which checks the checksums."""
    buffer = EventStreamBuffer()
    buffer.add_data(raw)
    return list(buffer)


def invoke(client: Any, model: str, body: dict[str, Any], **more: Any) -> tuple[Any, Any]:
    response = client.invoke_model(modelId=model, body=json.dumps(body), **more)
    headers = response["ResponseMetadata"]["HTTPHeaders"]
    return json.loads(response["body"].read()), headers


def chunks(client: Any, model: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    response = client.invoke_model_with_response_stream(modelId=model, body=json.dumps(body))
    return [json.loads(event["chunk"]["bytes"]) for event in response["body"]]


def counts(billed: Billed) -> tuple[int | None, ...]:
    return (
        billed.input_tokens,
        billed.uncached_tokens,
        billed.output_tokens,
        billed.cache_read_tokens,
        billed.cache_write_tokens,
    )


# --- every family, every operation


@pytest.mark.parametrize("model", BODIES)
def test_converse_bills_what_it_says(bedrock: FakeBedrock, client: Any, model: str) -> None:
    response = client.converse(modelId=model, messages=TURNS)
    usage = response["usage"]
    if "cacheReadInputTokens" not in shape_members(client, "TokenUsage"):
        usage = raw_usage(bedrock, model)
    billed = bedrock.bill[0]
    assert billed.operation == "Converse"
    assert billed.model_id == model
    assert billed.request_id == response["ResponseMetadata"]["RequestId"]
    assert (billed.status, billed.error, billed.usage_sent) == (200, None, True)
    assert counts(billed) == (
        usage["inputTokens"]
        + usage.get("cacheReadInputTokens", 0)
        + usage.get("cacheWriteInputTokens", 0),
        usage["inputTokens"],
        usage["outputTokens"],
        usage.get("cacheReadInputTokens"),
        usage.get("cacheWriteInputTokens"),
    )
    assert billed.input_tokens is not None
    assert billed.output_tokens is not None
    assert usage["totalTokens"] == billed.input_tokens + billed.output_tokens
    assert response["stopReason"] == "end_turn"
    assert response["output"]["message"]["content"][-1]["text"]
    assert response["metrics"]["latencyMs"] >= 1


@pytest.mark.parametrize("model", BODIES)
def test_converse_stream_bills_what_it_says(bedrock: FakeBedrock, client: Any, model: str) -> None:
    whole = client.converse(modelId=model, messages=TURNS)
    events = list(client.converse_stream(modelId=model, messages=TURNS)["stream"])
    assert next(iter(events[0])) == "messageStart"
    text = "".join(
        event["contentBlockDelta"]["delta"].get("text", "")
        for event in events
        if "contentBlockDelta" in event
    )
    assert text == whole["output"]["message"]["content"][-1]["text"]
    assert events[-2]["messageStop"]["stopReason"] == "end_turn"
    usage = events[-1]["metadata"]["usage"]
    billed = bedrock.bill[-1]
    assert billed.usage_sent
    assert billed.uncached_tokens == usage["inputTokens"]
    assert billed.output_tokens == usage["outputTokens"] == whole["usage"]["outputTokens"]


@pytest.mark.parametrize("model", BODIES)
def test_invoke_headers_are_the_bill(bedrock: FakeBedrock, client: Any, model: str) -> None:
    body, headers = invoke(client, model, BODIES[model])
    (billed,) = bedrock.bill
    prefix = "x-amzn-bedrock-"
    assert int(headers[prefix + "input-token-count"]) == billed.uncached_tokens
    assert int(headers[prefix + "output-token-count"]) == billed.output_tokens
    assert int(headers[prefix + "invocation-latency"]) >= 1
    for name, counted in (
        ("cache-read-input-token-count", billed.cache_read_tokens),
        ("cache-write-input-token-count", billed.cache_write_tokens),
    ):
        assert (prefix + name in headers) == (model in CACHING)
        assert (counted is not None) == (model in CACHING)
    if model in SPELLINGS:
        assert SPELLINGS[model](body) == (billed.input_tokens, billed.output_tokens)


@pytest.mark.parametrize("model", BODIES)
def test_invoke_stream_ends_with_the_metrics(bedrock: FakeBedrock, client: Any, model: str) -> None:
    *before, last = chunks(client, model, BODIES[model])
    metrics = last["amazon-bedrock-invocationMetrics"]
    (billed,) = bedrock.bill
    assert metrics["inputTokenCount"] == billed.uncached_tokens
    assert metrics["outputTokenCount"] == billed.output_tokens
    assert metrics["invocationLatency"] >= metrics["firstByteLatency"] >= 1
    assert all("amazon-bedrock-invocationMetrics" not in chunk for chunk in before)
    # Nova has zeros there, Claude has not.
    assert ("cacheReadInputTokenCount" in metrics) == (model in (NOVA, GPT))


@pytest.mark.parametrize("model", EMBEDDINGS)
def test_embeddings_have_no_output(bedrock: FakeBedrock, client: Any, model: str) -> None:
    body, headers = invoke(client, model, EMBEDDINGS[model])
    (billed,) = bedrock.bill
    assert int(headers["x-amzn-bedrock-input-token-count"]) == billed.input_tokens
    assert "x-amzn-bedrock-output-token-count" not in headers
    assert billed.output_tokens is None
    assert body.get("inputTextTokenCount", billed.input_tokens) == billed.input_tokens
    for refused in (
        lambda: client.converse(modelId=model, messages=TURNS),
        lambda: chunks(client, model, EMBEDDINGS[model]),
    ):
        with pytest.raises(ClientError) as error:
            refused()
        assert error.value.response["Error"]["Code"] == "ValidationException"


def test_every_row_is_played() -> None:
    """A row of the table without a request above would be untested."""
    models = Models()
    played = {
        found.family.name for model in {**BODIES, **EMBEDDINGS} if (found := models.find(model))
    }
    assert played == {row.name for row in TABLE}


def test_claude_streams_as_the_messages_api_does(bedrock: FakeBedrock, client: Any) -> None:
    got = chunks(client, CLAUDE_3, BODIES[CLAUDE_3])
    assert [chunk["type"] for chunk in got if chunk["type"] != "content_block_delta"] == [
        "message_start",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    (billed,) = bedrock.bill
    assert got[0]["message"]["usage"] == {"input_tokens": billed.input_tokens, "output_tokens": 1}
    assert got[-2]["usage"] == {"output_tokens": billed.output_tokens}
    assert got[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}


def test_llama_counts_the_prompt_in_its_first_chunk_alone(client: Any) -> None:
    got = chunks(client, LLAMA, BODIES[LLAMA])
    assert [chunk["prompt_token_count"] for chunk in got][1:] == [None] * (len(got) - 1)
    assert [chunk["generation_token_count"] for chunk in got] == list(range(1, len(got) + 1))
    assert [chunk["stop_reason"] for chunk in got] == [None] * (len(got) - 1) + ["stop"]


def test_claude_completions_have_usage_in_headers_alone(client: Any) -> None:
    body = {"prompt": f"\n\nHuman: {ASK}\n\nAssistant:", "max_tokens_to_sample": 5}
    answer, headers = invoke(client, "anthropic.claude-v2:1", body)
    assert set(answer) == {"type", "completion", "stop_reason", "stop"}
    assert answer["stop_reason"] == "max_tokens"
    assert headers["x-amzn-bedrock-output-token-count"] == "5"


def test_profiles_stand_for_models() -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/team"
    with FakeBedrock(profiles={arn: LLAMA}) as bedrock:
        client = bedrock.client()
        assert "generation" in invoke(client, arn, BODIES[LLAMA])[0]
        bedrock.models.name(arn, NOVA)
        assert "output" in invoke(client, arn, BODIES[NOVA])[0]
        assert {billed.model_id for billed in bedrock.bill} == {arn}


def test_endpoints_answer_completions(client: Any) -> None:
    arn = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/mine"
    body, headers = invoke(client, arn, {"prompt": ASK, "max_tokens": 3})
    assert body["object"] == "text_completion"
    assert body["usage"]["completion_tokens"] == 3
    assert headers["x-amzn-bedrock-output-token-count"] == "3"


# --- on the wire


def test_bytes_and_headers_look_like_bedrocks(bedrock: FakeBedrock) -> None:
    status, headers, raw = post(bedrock, f"/model/{SONNET_4}/converse", {"messages": TURNS})
    assert status == 200
    assert [name.lower() for name in headers] == [
        "date",
        "content-type",
        "content-length",
        "connection",
        "x-amzn-requestid",
    ]
    body = json.loads(raw)
    assert list(body) == sorted(body)
    # The wire says each cache count twice.
    assert list(body["usage"]) == [
        "cacheReadInputTokenCount",
        "cacheReadInputTokens",
        "cacheWriteInputTokenCount",
        "cacheWriteInputTokens",
        "inputTokens",
        "outputTokens",
        "serverToolUsage",
        "totalTokens",
    ]


@pytest.mark.parametrize("size", [None, 1, 7, 4096])
def test_frames_hold_their_checksums_however_they_are_cut(size: int | None) -> None:
    with FakeBedrock(chunk_size=size) as bedrock:
        status, headers, raw = post(
            bedrock, f"/model/{NOVA}/converse-stream", {"messages": said("é in 30 words")}
        )
        assert status == 200
        assert headers["content-type"] == "application/vnd.amazon.eventstream"
        assert headers["transfer-encoding"] == "chunked"
        events = frames_of(raw)
        assert len(events) == 34
        for event in events:
            assert list(event.headers) == [":event-type", ":content-type", ":message-type"]
            payload = json.loads(event.payload)
            assert list(payload) == sorted(payload)
            alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
            assert payload["p"]
            assert alphabet.startswith(payload["p"])
        response = bedrock.client().converse_stream(modelId=NOVA, messages=TURNS)
        assert "metadata" in list(response["stream"])[-1]


def test_pieces_straddle_frames() -> None:
    frames = [encode_event("messageStart", {"role": "assistant"}) for _ in range(3)]
    pieces = list(split_frames(frames, 50))
    assert b"".join(pieces) == b"".join(frames)
    assert {len(piece) for piece in pieces[:-1]} == {50}


def test_connections_are_kept_alive(bedrock: FakeBedrock) -> None:
    connection = http.client.HTTPConnection(bedrock.url.removeprefix("http://"), timeout=10)
    try:
        for path in ("converse", "converse-stream", "nonsense", "converse"):
            connection.request("POST", f"/model/{NOVA}/{path}", json.dumps({"messages": TURNS}))
            connection.getresponse().read()
            assert connection.sock is not None
    finally:
        connection.close()


def test_requests_may_be_chunked_and_expect_to_continue(bedrock: FakeBedrock) -> None:
    body = json.dumps({"messages": TURNS}).encode()
    host, port = bedrock.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(
            f"POST /model/{NOVA}/converse HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        assert raw.recv(100).startswith(b"HTTP/1.1 100")
        raw.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        assert raw.recv(100).startswith(b"HTTP/1.1 200")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(b"hello\r\n\r\n")
        assert raw.recv(100) == b""
    assert bedrock.requests[-1].body == body


def test_requests_are_kept(bedrock: FakeBedrock, client: Any) -> None:
    profile = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3"
    client.converse(modelId=profile, messages=TURNS, inferenceConfig={"maxTokens": 9})
    (request,) = bedrock.requests
    assert request.method == "POST"
    assert request.path.endswith("%3Aapplication-inference-profile%2Fa1b2c3/converse")
    assert json.loads(request.body)["inferenceConfig"] == {"maxTokens": 9}
    assert request.headers["content-type"] == "application/json"
    assert bedrock.bill[0].model_id == profile
    bedrock.reset()
    assert (bedrock.requests, bedrock.bill) == ([], [])


# --- prompt caching


def cached(text: str, ttl: str | None = None) -> list[dict[str, Any]]:
    point = {"type": "default"} if ttl is None else {"type": "default", "ttl": ttl}
    return [{"text": text}, {"cachePoint": point}]


def raw_usage(bedrock: FakeBedrock, model: str, **body: Any) -> dict[str, Any]:
    # Raw, for older botocore releases know neither cachePoint nor cacheDetails.
    status, _, raw = post(bedrock, f"/model/{model}/converse", {"messages": TURNS, **body})
    assert status == 200, raw
    usage: dict[str, Any] = json.loads(raw)["usage"]
    return usage


@pytest.mark.parametrize("place", ["system", "messages", "tools"])
@pytest.mark.parametrize("model", [SONNET_4, f"us.{SONNET_4}", NOVA])
def test_a_prefix_is_written_then_read(bedrock: FakeBedrock, model: str, place: str) -> None:
    long = "word " * 40
    spec = {"toolSpec": {"name": "a", "inputSchema": {"json": {"type": "object"}}}}
    question = {"text": "and now?"}
    bodies: dict[str, dict[str, Any]] = {
        "system": {"system": cached(long), "messages": said("now")},
        "messages": {"messages": [{"role": "user", "content": [*cached(long), question]}]},
        "tools": {
            "toolConfig": {"tools": [spec, {"cachePoint": {"type": "default"}}]},
            "messages": said("now"),
        },
    }
    body = bodies[place]
    first = raw_usage(bedrock, model, **body)
    again = raw_usage(bedrock, model, **body)
    prefix = first["cacheWriteInputTokens"]
    assert prefix > 0
    assert first["cacheReadInputTokens"] == 0
    assert (again["cacheReadInputTokens"], again["cacheWriteInputTokens"]) == (prefix, 0)
    assert first["inputTokens"] == again["inputTokens"] > 0
    assert first["totalTokens"] == first["inputTokens"] + prefix + first["outputTokens"]
    written, read = bedrock.bill
    assert written.input_tokens == read.input_tokens == first["inputTokens"] + prefix
    assert (written.cache_write_tokens, read.cache_read_tokens) == (prefix, prefix)
    # Claude breaks writes down by ttl, Nova does not, and reads have no details.
    details = [{"inputTokens": prefix, "ttl": "5m"}]
    assert first.get("cacheDetails") == (None if model == NOVA else details)
    assert "cacheDetails" not in again


def test_a_growing_conversation_reads_and_writes(bedrock: FakeBedrock) -> None:
    system = cached("rules " * 20)
    first = raw_usage(bedrock, SONNET_4, system=system)
    turns = [{"role": "user", "content": [*cached("history " * 30), {"text": "next"}]}]
    second = raw_usage(bedrock, SONNET_4, system=system, messages=turns)
    assert second["cacheReadInputTokens"] == first["cacheWriteInputTokens"]
    assert second["cacheWriteInputTokens"] > 0


def test_a_prefix_is_found_although_its_mark_moved_on(bedrock: FakeBedrock, client: Any) -> None:
    def block(word: str, *, marked: bool) -> dict[str, Any]:
        control = {"cache_control": {"type": "ephemeral"}} if marked else {}
        return {"type": "text", "text": word * 30, **control}

    def usage(*blocks: dict[str, Any]) -> dict[str, Any]:
        body, _ = invoke(client, SONNET_4, {**BODIES[SONNET_4], "system": list(blocks)})
        return dict(body["usage"])

    first = usage(block("one ", marked=True))
    second = usage(block("one ", marked=False), block("two ", marked=True))
    assert second["cache_read_input_tokens"] == first["cache_creation_input_tokens"] == 30
    assert second["cache_creation_input_tokens"] == 30
    changed = usage(block("other ", marked=False), block("two ", marked=True))
    assert changed["cache_read_input_tokens"] == 0
    assert changed["cache_creation_input_tokens"] == 60


def test_nova_tells_zeros_in_invoke_but_not_in_converse(bedrock: FakeBedrock, client: Any) -> None:
    assert "cacheReadInputTokens" not in raw_usage(bedrock, NOVA)
    assert bedrock.bill[0].cache_read_tokens is None
    body, _ = invoke(client, NOVA, BODIES[NOVA])
    assert body["usage"]["cacheReadInputTokenCount"] == 0
    assert bedrock.bill[1].cache_read_tokens == 0


def test_ttls_are_told_apart_longest_first(bedrock: FakeBedrock) -> None:
    turns = [{"role": "user", "content": [*cached("short " * 9), {"text": "?"}]}]
    usage = raw_usage(bedrock, SONNET_4, system=cached("long " * 30, "1h"), messages=turns)
    assert [detail["ttl"] for detail in usage["cacheDetails"]] == ["1h", "5m"]
    written = sum(detail["inputTokens"] for detail in usage["cacheDetails"])
    assert written == usage["cacheWriteInputTokens"]


def test_the_cache_forgets() -> None:
    now = [0.0]
    with FakeBedrock(clock=lambda: now[0]) as bedrock:

        def read() -> int:
            usage = raw_usage(bedrock, SONNET_4, system=cached("rules " * 20))
            return int(usage["cacheReadInputTokens"])

        assert read() == 0
        now[0] = 299
        assert read() > 0
        # A read renews the five minutes.
        now[0] = 299 + 299
        assert read() > 0
        now[0] += 301
        assert read() == 0


def test_short_prefixes_can_be_refused() -> None:
    with FakeBedrock(cache_minimum=1024) as bedrock:
        usage = raw_usage(bedrock, SONNET_4, system=cached("rules " * 20))
        assert usage["cacheWriteInputTokens"] == 0


def test_models_do_not_share_a_cache(bedrock: FakeBedrock) -> None:
    for model in (SONNET_4, HAIKU_35):
        assert raw_usage(bedrock, model, system=cached("rules " * 20))["cacheReadInputTokens"] == 0


@pytest.mark.parametrize("ttl", ["5m", "1h"])
def test_claude_bodies_cache_by_cache_control(bedrock: FakeBedrock, client: Any, ttl: str) -> None:
    marked = {"type": "text", "text": "rules " * 30}
    marked["cache_control"] = {"type": "ephemeral", "ttl": ttl}  # type: ignore[assignment]
    body = {**BODIES[SONNET_4], "system": [marked]}
    first, headers = invoke(client, SONNET_4, body)
    prefix = first["usage"]["cache_creation_input_tokens"]
    split = first["usage"]["cache_creation"]
    assert split[f"ephemeral_{ttl}_input_tokens"] == prefix > 0
    assert sum(split.values()) == prefix
    assert int(headers["x-amzn-bedrock-cache-write-input-token-count"]) == prefix
    got = chunks(client, SONNET_4, body)
    assert got[0]["message"]["usage"]["cache_read_input_tokens"] == prefix
    metrics = got[-1]["amazon-bedrock-invocationMetrics"]
    assert metrics["cacheReadInputTokenCount"] == prefix
    assert metrics["inputTokenCount"] == first["usage"]["input_tokens"]
    assert claude_usage(first) == (bedrock.bill[0].input_tokens, bedrock.bill[0].output_tokens)
    assert bedrock.bill[-1].cache_read_tokens == prefix


def test_openai_bodies_include_what_was_cached(bedrock: FakeBedrock, client: Any) -> None:
    body = {"messages": [{"role": "system", "content": "rules " * 30}, *CHAT]}
    first, _ = invoke(client, GPT, body)
    again, headers = invoke(client, GPT, body)
    details = again["usage"]["prompt_tokens_details"]
    assert details["cached_tokens"] == first["usage"]["prompt_tokens_details"]["cache_write_tokens"]
    assert again["usage"]["prompt_tokens"] == first["usage"]["prompt_tokens"]
    billed = bedrock.bill[-1]
    assert billed.input_tokens == again["usage"]["prompt_tokens"]
    assert billed.uncached_tokens == billed.input_tokens - details["cached_tokens"]
    assert int(headers["x-amzn-bedrock-input-token-count"]) == billed.uncached_tokens


def test_gpt_streams_count_the_cache_twice_but_bill_it_once(bedrock: FakeBedrock) -> None:
    body = {"system": [{"text": "rules " * 30}], "messages": TURNS}
    for _ in range(2):
        _, _, raw = post(bedrock, f"/model/{GPT}/converse-stream", body)
        usage = json.loads(frames_of(raw)[-1].payload)["usage"]
        billed = bedrock.bill[-1]
        cached = usage["cacheReadInputTokens"] + usage["cacheWriteInputTokens"]
        assert cached > 0
        assert usage["inputTokens"] == billed.input_tokens
        assert billed.uncached_tokens == usage["inputTokens"] - cached
        assert usage["totalTokens"] == usage["inputTokens"] + cached + usage["outputTokens"]
    assert raw_usage(bedrock, GPT, **body)["inputTokens"] == bedrock.bill[-1].uncached_tokens


@pytest.mark.parametrize("model", [LLAMA, CLAUDE_3, "amazon.titan-text-express-v1"])
def test_models_without_caching_refuse_checkpoints(bedrock: FakeBedrock, model: str) -> None:
    status, headers, raw = post(
        bedrock, f"/model/{model}/converse", {"messages": TURNS, "system": cached("rules")}
    )
    assert status == 403
    assert headers["x-amzn-errortype"].startswith("AccessDeniedException:")
    assert b"did not allow prompt caching" in raw


def test_streams_tell_cache_counts_when_asked_to_cache(bedrock: FakeBedrock) -> None:
    body = {"messages": TURNS, "system": cached("rules " * 20)}
    for model, asked, told in ((SONNET_4, body, True), (SONNET_4, {"messages": TURNS}, False)):
        _, _, raw = post(bedrock, f"/model/{model}/converse-stream", asked)
        usage = json.loads(frames_of(raw)[-1].payload)["usage"]
        assert ("cacheReadInputTokens" in usage) == told
        assert (bedrock.bill[-1].cache_read_tokens is not None) == told


def test_sonnet_5_says_nothing_of_writes_that_were_not_asked_for(bedrock: FakeBedrock) -> None:
    usage = raw_usage(bedrock, "us.anthropic.claude-sonnet-5")
    assert usage["cacheReadInputTokens"] == 0
    assert "cacheWriteInputTokens" not in usage
    assert bedrock.bill[0].cache_write_tokens is None


# --- CountTokens


def test_count_tokens_is_what_converse_bills(bedrock: FakeBedrock, client: Any) -> None:
    needs(client, "count_tokens")
    request: dict[str, Any] = {
        "messages": said("How many tokens has this, then?"),
        "system": cached("You count. " * 20),
        "toolConfig": {
            "tools": [
                {
                    "toolSpec": {
                        "name": "add",
                        "description": "Adds numbers.",
                        "inputSchema": {
                            "json": {"type": "object", "properties": {"a": {"type": "number"}}}
                        },
                    }
                }
            ]
        },
    }
    counted = client.count_tokens(modelId=SONNET_4, input={"converse": request})["inputTokens"]
    for _ in range(2):
        client.converse(modelId=SONNET_4, **request)
    count_line, written, read = bedrock.bill
    assert counted == written.input_tokens == read.input_tokens
    # Counting is free.
    assert counts(count_line) == (None,) * 5
    assert not count_line.usage_sent


def test_count_tokens_is_what_invoke_bills(bedrock: FakeBedrock, client: Any) -> None:
    needs(client, "count_tokens")
    body = json.dumps({**BODIES[SONNET_4], "system": "Be brief."})
    counted = client.count_tokens(modelId=SONNET_4, input={"invokeModel": {"body": body}})
    client.invoke_model(modelId=SONNET_4, body=body)["body"].read()
    assert counted["inputTokens"] == bedrock.bill[-1].input_tokens


@pytest.mark.parametrize(
    "model",
    [
        f"us.{SONNET_4}",
        f"global.{SONNET_4}",
        f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.{SONNET_4}",
        "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123",
        NOVA,
        "anthropic.claude-opus-4-8",
        "anthropic.claude-sonnet-5",
        "openai.gpt-oss-120b-1:0",
    ],
)
def test_count_tokens_refuses(bedrock: FakeBedrock, model: str) -> None:
    path = f"/model/{quote(model, safe='')}/count-tokens"
    status, headers, raw = post(bedrock, path, {"input": {"converse": {"messages": TURNS}}})
    assert status == 400
    assert headers["x-amzn-errortype"].startswith("ValidationException:")
    assert json.loads(raw) == {"message": "The provided model doesn't support counting tokens."}


@pytest.mark.parametrize(
    "model",
    [
        SONNET_4,
        HAIKU_35,
        "anthropic.claude-3-5-sonnet-20240620-v1:0",
        "anthropic.claude-3-7-sonnet-20250219-v1:0",
        "anthropic.claude-opus-4-1-20250805-v1:0",
        "anthropic.claude-haiku-4-5-20251001-v1:0",
        "anthropic.claude-sonnet-4-6",
        f"arn:aws:bedrock:us-east-1::foundation-model/{SONNET_4}",
    ],
)
def test_count_tokens_counts(bedrock: FakeBedrock, model: str) -> None:
    path = f"/model/{quote(model, safe='')}/count-tokens"
    status, _, raw = post(bedrock, path, {"input": {"converse": {"messages": TURNS}}})
    assert (status, json.loads(raw)["inputTokens"] > 0) == (200, True)


def test_tokens_are_words_and_marks() -> None:
    assert count_text("Hello, world!") == 4
    assert count_text("extraordinary") == 2
    assert count_text("a" * 16) == 2
    assert count_text("a" * 17) == 3
    assert count_text("") == 0
    assert count({"type": "text", "text": "Hello, world!"}) == count([{"text": "Hello, world!"}])
    text = "  One,\n two  three!  "
    assert "".join(split_text(text)) == text
    assert len(split_text(text)) == count_text(text) == 5


# --- what the model says


def test_max_tokens_and_stop_sequences(bedrock: FakeBedrock, client: Any) -> None:
    def converse(text: str, **config: Any) -> Any:
        return client.converse(modelId=SONNET_4, messages=said(text), inferenceConfig=config)

    cut = converse("in 50 words", maxTokens=7)
    assert (cut["stopReason"], cut["usage"]["outputTokens"]) == ("max_tokens", 7)
    stopped = converse("Say: one two STOP three", stopSequences=["STOP"])
    assert stopped["stopReason"] == "stop_sequence"
    assert stopped["output"]["message"]["content"] == [{"text": "one two "}]
    assert stopped["usage"]["outputTokens"] == 2
    assert converse("Say: exactly this")["output"]["message"]["content"] == [
        {"text": "exactly this"}
    ]
    body = {**BODIES[CLAUDE_3], "messages": [{"role": "user", "content": "Say: a b END c"}]}
    native, _ = invoke(client, CLAUDE_3, {**body, "stop_sequences": ["END"]})
    assert (native["stop_reason"], native["stop_sequence"]) == ("stop_sequence", "END")


LIMITS: dict[str, tuple[dict[str, Any], Any, str]] = {
    SONNET_4: ({"max_tokens": 3}, lambda body: body["stop_reason"], "max_tokens"),
    NOVA: ({"inferenceConfig": {"maxTokens": 3}}, lambda body: body["stopReason"], "max_tokens"),
    "amazon.titan-text-express-v1": (
        {"textGenerationConfig": {"maxTokenCount": 3}},
        lambda body: body["results"][0]["completionReason"],
        "LENGTH",
    ),
    LLAMA: ({"max_gen_len": 3}, lambda body: body["stop_reason"], "length"),
    "mistral.mistral-7b-instruct-v0:2": (
        {"max_tokens": 3},
        lambda body: body["outputs"][0]["stop_reason"],
        "length",
    ),
    "cohere.command-r-v1:0": ({"max_tokens": 3}, lambda body: body["finish_reason"], "MAX_TOKENS"),
    "cohere.command-text-v14": (
        {"max_tokens": 3},
        lambda body: body["generations"][0]["finish_reason"],
        "MAX_TOKENS",
    ),
    "openai.gpt-oss-120b-1:0": (
        {"max_completion_tokens": 60},
        lambda body: body["choices"][0]["finish_reason"],
        "stop",
    ),
    "acme.brand-new-model": (
        {"max_tokens": 3},
        lambda body: body["choices"][0]["finish_reason"],
        "length",
    ),
}


@pytest.mark.parametrize("model", LIMITS)
def test_each_family_spells_its_finish(client: Any, model: str) -> None:
    more, read, expected = LIMITS[model]
    body, _ = invoke(client, model, {**BODIES[model], **more})
    assert read(body) == expected


WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
}
TOOLS = {"tools": [{"toolSpec": {"name": "get_weather", "inputSchema": {"json": WEATHER}}}]}


@pytest.mark.parametrize("model", [SONNET_4, NOVA, "mistral.mistral-large-2402-v1:0"])
def test_tools_are_used_when_asked_for(client: Any, model: str) -> None:
    request = {"modelId": model, "toolConfig": TOOLS}
    used = client.converse(messages=said("What does get weather say?"), **request)
    assert used["stopReason"] == "tool_use"
    use = used["output"]["message"]["content"][-1]["toolUse"]
    assert (use["name"], use["input"]) == ("get_weather", {"city": "fake", "days": 1})
    events = list(
        client.converse_stream(messages=said("What does get weather say?"), **request)["stream"]
    )
    start = next(event for event in events if "contentBlockStart" in event)
    assert start["contentBlockStart"]["start"]["toolUse"]["name"] == "get_weather"
    given = "".join(
        event["contentBlockDelta"]["delta"]["toolUse"]["input"]
        for event in events
        if "toolUse" in event.get("contentBlockDelta", {}).get("delta", {})
    )
    assert json.loads(given) == use["input"]
    result = {"toolResult": {"toolUseId": use["toolUseId"], "content": [{"text": "sunny"}]}}
    turns = [
        *said("What does get weather say?"),
        used["output"]["message"],
        {"role": "user", "content": [result]},
    ]
    assert client.converse(messages=turns, **request)["stopReason"] == "end_turn"
    assert client.converse(messages=said("hi"), **request)["stopReason"] == "end_turn"
    forced = {"modelId": model, "toolConfig": {**TOOLS, "toolChoice": {"any": {}}}}
    assert client.converse(messages=said("hi"), **forced)["stopReason"] == "tool_use"


def test_native_tools(client: Any) -> None:
    ask = [{"role": "user", "content": "Use get_weather"}]
    tools = [{"name": "get_weather", "input_schema": WEATHER}]
    body = {**BODIES[SONNET_4], "messages": ask, "tools": tools}
    claude, _ = invoke(client, SONNET_4, body)
    assert claude["stop_reason"] == "tool_use"
    assert claude["content"][-1]["name"] == "get_weather"
    kinds = [chunk.get("delta", {}).get("type") for chunk in chunks(client, SONNET_4, body)]
    assert "input_json_delta" in kinds
    function = {"name": "get_weather", "parameters": WEATHER}
    body = {"messages": ask, "tools": [{"type": "function", "function": function}]}
    gpt, _ = invoke(client, GPT, body)
    assert gpt["choices"][0]["finish_reason"] == "tool_calls"
    call = gpt["choices"][0]["message"]["tool_calls"][0]["function"]
    assert json.loads(call["arguments"]) == {"city": "fake", "days": 1}


def test_thinking_is_counted_and_told_on_request(client: Any) -> None:
    if "reasoningContent" not in shape_members(client, "ContentBlock"):
        pytest.skip("this botocore has no reasoningContent")
    response = client.converse(
        modelId=SONNET_4,
        messages=said("Say: done"),
        additionalModelRequestFields={"thinking": {"type": "enabled", "budget_tokens": 1024}},
        additionalModelResponseFieldPaths=["/usage/output_tokens_details", "/no/such/thing"],
    )
    thought, words = response["output"]["message"]["content"]
    text = thought["reasoningContent"]["reasoningText"]["text"]
    assert response["usage"]["outputTokens"] == count_text(text) + count_text(words["text"])
    assert response["additionalModelResponseFields"] == {
        "usage": {"output_tokens_details": {"thinking_tokens": count_text(text)}}
    }
    with pytest.raises(ClientError, match="malformed"):
        client.converse(
            modelId=SONNET_4, messages=TURNS, additionalModelResponseFieldPaths=["usage"]
        )


def test_the_service_tier_is_confirmed(bedrock: FakeBedrock) -> None:
    body = {"messages": TURNS, "serviceTier": {"type": "flex"}}
    _, _, raw = post(bedrock, f"/model/{NOVA}/converse", body)
    assert json.loads(raw)["serviceTier"] == {"type": "flex"}
    _, headers, _ = post(
        bedrock, f"/model/{NOVA}/invoke", BODIES[NOVA], **{"X-Amzn-Bedrock-Service-Tier": "flex"}
    )
    assert headers["x-amzn-bedrock-service-tier"] == "flex"


def test_guardrails_count_text_units(bedrock: FakeBedrock, client: Any) -> None:
    needs(client, "apply_guardrail")
    response = client.apply_guardrail(
        guardrailIdentifier="gr1",
        guardrailVersion="1",
        source="INPUT",
        content=[{"text": {"text": "x" * 1001}}],
    )
    assert response["action"] == "NONE"
    assert response["usage"]["contentPolicyUnits"] == 2
    (billed,) = bedrock.bill
    assert (billed.operation, billed.model_id, billed.usage_sent) == (
        "ApplyGuardrail",
        "gr1",
        False,
    )


# --- errors


@pytest.mark.parametrize("model", ["does-not-exist", "us.does-not-exist-model-v1:0", "Nonsense!"])
@pytest.mark.parametrize("last", ["converse", "invoke", "converse-stream", "count-tokens"])
def test_unknown_models(bedrock: FakeBedrock, model: str, last: str) -> None:
    status, headers, raw = post(bedrock, f"/model/{model}/{last}", {"messages": TURNS})
    assert status == 400
    assert headers["x-amzn-errortype"] == (
        "ValidationException:http://internal.amazon.com/coral/com.amazon.bedrock/"
    )
    assert raw == b'{"message":"The provided model identifier is invalid."}'
    (billed,) = bedrock.bill
    assert (billed.status, billed.error, billed.usage_sent) == (400, "ValidationException", False)
    assert counts(billed) == (None,) * 5


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (f"{NOVA}/converse", b"{not json", "Malformed input request"),
        (f"{NOVA}/converse", b"[]", "Malformed input request"),
        (f"{NOVA}/converse", {}, "A conversation must start with a user message"),
        (f"{NOVA}/converse", {"messages": []}, "A conversation must start with a user message"),
        (f"{NOVA}/converse", {"messages": 3}, "A conversation must start with a user message"),
        (f"{NOVA}/converse", {"messages": [3]}, "Malformed input request"),
        (f"{NOVA}/converse", {"messages": [{"role": "user"}]}, "messages.0 is empty"),
        (f"{NOVA}/invoke", {}, "required key [messages] not found"),
        (f"{SONNET_4}/invoke", {"messages": CHAT}, "required key [anthropic_version]"),
        (f"{LLAMA}/invoke", {"prompt": None, "max_gen_len": "x"}, "Malformed input request"),
        (f"{SONNET_4}/count-tokens", {"input": {}}, "Malformed input request"),
        ("x/converse", {"messages": TURNS}, "model identifier is invalid"),
    ],
)
def test_requests_that_are_refused(
    bedrock: FakeBedrock, path: str, body: object, message: str
) -> None:
    status, headers, raw = post(bedrock, f"/model/{path}", body)
    assert status == 400
    assert headers["x-amzn-errortype"].startswith("ValidationException:")
    assert message in json.loads(raw)["message"]


def test_unknown_paths(bedrock: FakeBedrock) -> None:
    status, headers, _ = post(bedrock, "/flows/1", {})
    assert status == 404
    assert headers["x-amzn-errortype"].startswith("UnknownOperationException:")
    assert bedrock.bill == []


# --- faults


@pytest.mark.parametrize("reason", THROTTLED)
def test_throttling(bedrock: FakeBedrock, client: Any, reason: str) -> None:
    bedrock.throttle(times=2, reason=reason)
    for _ in range(2):
        with pytest.raises(client.exceptions.ThrottlingException) as error:
            client.converse(modelId=NOVA, messages=TURNS)
        assert error.value.response["Error"]["Message"] == THROTTLED[reason]
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
    client.converse(modelId=NOVA, messages=TURNS)
    assert [line.status for line in bedrock.bill] == [429, 429, 200]
    assert bedrock.totals()[NOVA].calls == 3
    assert bedrock.totals()[NOVA].unsent == 2


def test_retries_hide_throttling(bedrock: FakeBedrock) -> None:
    bedrock.throttle()
    client = bedrock.client(retries={"total_max_attempts": 2})
    response = client.converse(modelId=NOVA, messages=TURNS)
    assert response["ResponseMetadata"]["RetryAttempts"] == 1
    assert [line.status for line in bedrock.bill] == [429, 200]


@pytest.mark.parametrize("name", STATUS)
def test_failures_have_their_status(bedrock: FakeBedrock, client: Any, name: str) -> None:
    bedrock.fail(name)
    with pytest.raises(ClientError) as error:
        client.invoke_model(modelId=NOVA, body=json.dumps(BODIES[NOVA]))
    assert error.value.response["Error"]["Code"] == name
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == STATUS[name]
    (billed,) = bedrock.bill
    assert (billed.status, billed.error) == (STATUS[name], name)


def test_statuses_are_those_of_the_service_model(client: Any) -> None:
    for shape in client.meta.service_model.error_shapes:
        assert STATUS[shape.name] == shape.metadata["error"]["httpStatusCode"]


def test_asking_for_nonsense_is_refused(bedrock: FakeBedrock) -> None:
    with pytest.raises(ValueError, match="status: needed for 'MadeUp'"):
        bedrock.fail("MadeUp")
    with pytest.raises(ValueError, match="reason: expected one of"):
        bedrock.throttle(reason="because")
    with pytest.raises(ValueError, match="times: expected 1 or more"):
        bedrock.throttle(times=0)


def stream_of(client: Any, operation: str) -> Any:
    if operation == "ConverseStream":
        return client.converse_stream(modelId=SONNET_4, messages=TURNS)["stream"]
    body = json.dumps(BODIES[SONNET_4])
    return client.invoke_model_with_response_stream(modelId=SONNET_4, body=body)["body"]


def read_until_error(stream: Any) -> tuple[int, Exception]:
    seen = 0
    try:
        for _ in stream:
            seen += 1
    except Exception as error:
        return seen, error
    finally:
        # botocore leaves a spoilt connection open.
        stream.close()
    raise AssertionError("the stream ended well")


STREAMS = ["ConverseStream", "InvokeModelWithResponseStream"]


@pytest.mark.parametrize("operation", STREAMS)
def test_broken_streams(bedrock: FakeBedrock, client: Any, operation: str) -> None:
    bedrock.break_stream(after=3)
    # Calls that do not stream pass the fault by.
    client.converse(modelId=NOVA, messages=TURNS)
    seen, error = read_until_error(stream_of(client, operation))
    assert seen == 3
    # urllib3 and botocore have several words for it; none is botocore's for a good end.
    assert isinstance(error, (ResponseStreamingError, ProtocolError))
    billed = bedrock.bill[-1]
    assert (billed.status, billed.error, billed.usage_sent) == (200, "broken stream", False)
    # What Bedrock would bill although nobody was told.
    assert billed.output_tokens is not None
    assert len(list(stream_of(client, operation))) > 3


def test_a_stream_may_break_after_its_usage(bedrock: FakeBedrock, client: Any) -> None:
    whole = len(list(stream_of(client, "ConverseStream")))
    bedrock.break_stream(after=whole)
    seen, _ = read_until_error(stream_of(client, "ConverseStream"))
    assert seen == whole
    assert bedrock.bill[-1].usage_sent
    # Claude has told all usage one chunk before the last.
    whole = len(list(stream_of(client, STREAMS[1])))
    for after, sent in ((whole - 1, True), (whole - 2, False)):
        bedrock.break_stream(after=after)
        assert read_until_error(stream_of(client, STREAMS[1]))[0] == after
        assert bedrock.bill[-1].usage_sent is sent


@pytest.mark.parametrize("operation", STREAMS)
def test_exceptions_in_streams(bedrock: FakeBedrock, client: Any, operation: str) -> None:
    bedrock.stream_error("throttlingException", after=2, message="slow down")
    seen, error = read_until_error(stream_of(client, operation))
    assert seen == 2
    assert isinstance(error, EventStreamError)
    assert error.response["Error"] == {"Code": "throttlingException", "Message": "slow down"}
    assert (bedrock.bill[0].error, bedrock.bill[0].usage_sent) == ("throttlingException", False)


@pytest.mark.parametrize("operation", STREAMS)
def test_corrupt_streams(bedrock: FakeBedrock, client: Any, operation: str) -> None:
    bedrock.corrupt_stream(after=3)
    seen, error = read_until_error(stream_of(client, operation))
    assert seen == 3
    assert isinstance(error, ChecksumMismatch)
    assert (bedrock.bill[0].error, bedrock.bill[0].usage_sent) == ("ChecksumMismatch", False)


def test_slow_streams_come_event_by_event(bedrock: FakeBedrock, client: Any) -> None:
    bedrock.slow(first=0.15, each=0.02)
    started = time.perf_counter()
    stream = stream_of(client, "ConverseStream")
    assert time.perf_counter() - started >= 0.15
    times = [time.perf_counter() for _ in stream]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    # The kernel may join two writes, never twenty.
    assert sorted(gaps)[len(gaps) // 2] >= 0.01
    assert bedrock.bill[0].usage_sent


def test_abandoned_slow_streams_are_not_told(bedrock: FakeBedrock, client: Any) -> None:
    bedrock.slow(each=0.01)
    stream = stream_of(client, "ConverseStream")
    next(iter(stream))
    stream.close()
    until = time.monotonic() + 5
    while not bedrock.bill and time.monotonic() < until:
        time.sleep(0.01)
    assert (bedrock.bill[0].error, bedrock.bill[0].usage_sent) == ("caller went away", False)


def test_hanging(bedrock: FakeBedrock) -> None:
    bedrock.hang()
    client = bedrock.client(read_timeout=0.2)
    with pytest.raises(ReadTimeoutError):
        client.converse(modelId=NOVA, messages=TURNS)
    assert (bedrock.bill[0].status, bedrock.bill[0].error) == (0, "hang")
    started = time.monotonic()
    bedrock.stop()
    assert time.monotonic() - started < 2


def test_faults_come_in_order(bedrock: FakeBedrock, client: Any) -> None:
    bedrock.fail("ModelErrorException")
    bedrock.slow(first=0.001)
    bedrock.throttle()
    codes = []
    for _ in range(4):
        try:
            client.converse(modelId=NOVA, messages=TURNS)
            codes.append("ok")
        except ClientError as error:
            codes.append(error.response["Error"]["Code"])
    assert codes == ["ModelErrorException", "ok", "ThrottlingException", "ok"]
    bedrock.throttle(times=None)
    bedrock.clear_faults()
    client.converse(modelId=NOVA, messages=TURNS)


# --- scripts


def test_scripted_bodies(bedrock: FakeBedrock, client: Any) -> None:
    bedrock.reply(
        {"usage": {"prompt_tokens": 7}},
        headers={"x-amzn-bedrock-input-token-count": "42", "x-amzn-RequestId": "mine"},
        times=2,
    )
    for _ in range(2):
        body, headers = invoke(client, NOVA, BODIES[NOVA])
        assert body == {"usage": {"prompt_tokens": 7}}
        assert headers["x-amzn-bedrock-input-token-count"] == "42"
        assert headers["x-amzn-requestid"] == "mine"
        assert "x-amzn-bedrock-output-token-count" not in headers
    assert invoke(client, NOVA, BODIES[NOVA])[0]["usage"]["outputTokens"] > 0
    scripted, _, normal = bedrock.bill
    assert counts(scripted) == (None,) * 5
    assert not scripted.usage_sent
    assert normal.usage_sent
    bedrock.reply(b"not json at all", status=503, headers={"content-type": "text/html"})
    with pytest.raises(ClientError):
        client.converse(modelId=NOVA, messages=TURNS)


def test_scripted_events(bedrock: FakeBedrock, client: Any) -> None:
    metadata = {"usage": {"inputTokens": 4, "outputTokens": 2, "totalTokens": 6}}
    bedrock.reply_events(
        [
            {"messageStart": {"role": "assistant"}},
            ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "hi"}}),
            {"metadata": metadata},
        ]
    )
    events = list(client.converse_stream(modelId=NOVA, messages=TURNS)["stream"])
    assert [next(iter(event)) for event in events] == [
        "messageStart",
        "contentBlockDelta",
        "metadata",
    ]
    assert events[-1]["metadata"] == metadata
    assert counts(bedrock.bill[0]) == (None,) * 5
    bedrock.reply_events([{"a": 1}, {"messageStop": {}}, ("chunk", b"raw")], native=True)
    response = client.invoke_model_with_response_stream(modelId=NOVA, body=b"{}")
    got = [event["chunk"]["bytes"] for event in response["body"]]
    assert [json.loads(got[0]), json.loads(got[1]), got[2]] == [
        {"a": 1},
        {"messageStop": {}},
        b"raw",
    ]
    bedrock.reply_events([{"throttlingException": {"message": "now"}}])
    seen, error = read_until_error(stream_of(client, "ConverseStream"))
    assert (seen, type(error)) == (0, EventStreamError)


def test_scripts_and_faults_combine(bedrock: FakeBedrock, client: Any) -> None:
    bedrock.reply_events([{"n": n} for n in range(5)])
    bedrock.corrupt_stream(after=2)
    assert read_until_error(stream_of(client, STREAMS[1]))[0] == 2


def test_other_services_can_be_scripted(bedrock: FakeBedrock) -> None:
    agents = bedrock.client("bedrock-agent-runtime")
    bedrock.reply({"retrievalResults": []})
    found = agents.retrieve(knowledgeBaseId="ABCDEFGHIJ", retrievalQuery={"text": "x"})
    assert found["retrievalResults"] == []
    assert bedrock.bill == []


# --- the bill


def test_totals(bedrock: FakeBedrock, client: Any) -> None:
    for _ in range(3):
        client.converse(modelId=NOVA, messages=TURNS)
    invoke(client, TITAN_EMBED, EMBEDDINGS[TITAN_EMBED])
    totals = bedrock.totals()
    assert totals[NOVA].calls == 3
    assert totals[NOVA].input_tokens == sum(line.input_tokens or 0 for line in bedrock.bill[:3])
    assert totals[TITAN_EMBED].output_tokens == 0


def test_a_bounded_bill_keeps_exact_totals() -> None:
    with FakeBedrock(keep=2, keep_requests=1) as bedrock:
        client = bedrock.client()
        for _ in range(5):
            client.converse(modelId=NOVA, messages=TURNS)
        assert len(bedrock.bill) == 2
        assert len(bedrock.requests) == 1
        each = bedrock.bill[0].input_tokens
        assert each is not None
        assert bedrock.totals()[NOVA].input_tokens == 5 * each
        bedrock.clear_bill()
        assert bedrock.totals() == {}


def test_sixteen_threads_are_billed_once_each() -> None:
    with FakeBedrock() as bedrock:
        client = bedrock.client(max_pool_connections=16)
        bedrock.throttle(times=40)
        told: list[tuple[str, int | None]] = []

        def work(number: int) -> None:
            for turn in range(25):
                ask = said(f"caller {number} turn {turn}")
                try:
                    if turn % 2:
                        response = client.converse(modelId=NOVA, messages=ask)
                        usage = response["usage"]
                    else:
                        response = client.converse_stream(modelId=NOVA, messages=ask)
                        usage = list(response["stream"])[-1]["metadata"]["usage"]
                except ClientError as error:
                    told.append((error.response["ResponseMetadata"]["RequestId"], None))
                else:
                    told.append((response["ResponseMetadata"]["RequestId"], usage["totalTokens"]))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        billed = {
            line.request_id: line.input_tokens + line.output_tokens if line.usage_sent else None  # type: ignore[operator]
            for line in bedrock.bill
        }
        assert len(bedrock.bill) == 400
        assert billed == dict(told)
        assert sum(total is None for total in billed.values()) == 40


def test_the_bill_is_ready_when_the_answer_is(bedrock: FakeBedrock, client: Any) -> None:
    for number in range(200):
        client.converse(modelId=NOVA, messages=TURNS)
        assert len(bedrock.bill) == number + 1


# --- other processes


def ask_fake(bedrock: FakeBedrock, method: str, path: str, body: object = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{bedrock.url}{path}", data, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_bill_and_faults_over_http(bedrock: FakeBedrock, client: Any) -> None:
    faults = [{"fault": "throttle", "reason": "tokens_per_day"}, {"fault": "reply", "body": {}}]
    assert ask_fake(bedrock, "POST", "/_fake/faults", faults) == (200, {})
    with pytest.raises(ClientError, match="per day"):
        client.converse(modelId=NOVA, messages=TURNS)
    assert invoke(client, NOVA, {})[0] == {}
    client.converse(modelId=NOVA, messages=TURNS)
    status, told = ask_fake(bedrock, "GET", "/_fake/bill")
    assert status == 200
    assert told == bedrock.to_json()
    assert told["bill"][2]["input_tokens"] == bedrock.bill[2].input_tokens
    assert told["totals"][NOVA]["calls"] == 3
    assert ask_fake(bedrock, "DELETE", "/_fake/bill") == (200, {})
    assert bedrock.bill == []
    assert ask_fake(bedrock, "GET", "/_fake/health")[0] == 200
    assert ask_fake(bedrock, "POST", "/_fake/faults", {"fault": "hang"}) == (200, {})
    assert ask_fake(bedrock, "DELETE", "/_fake/faults") == (200, {})
    client.converse(modelId=NOVA, messages=TURNS)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"fault": "stop"}, "expected one of throttle"),
        ({"fault": "break_stream"}, "after"),
        ({"fault": "throttle", "reason": "x"}, "reason: expected"),
        (3, "int"),
    ],
)
def test_wrong_faults_over_http(bedrock: FakeBedrock, body: object, message: str) -> None:
    status, told = ask_fake(bedrock, "POST", "/_fake/faults", body)
    assert status == 400
    assert message in told["error"]
    assert ask_fake(bedrock, "GET", "/_fake/nonsense")[0] == 404


HOSTILE = {
    "AWS_PROFILE": "no-such-profile",
    "AWS_BEARER_TOKEN_BEDROCK": "token",
    "AWS_CA_BUNDLE": "/no/such/bundle",
    "AWS_USE_FIPS_ENDPOINT": "true",
    "AWS_ENDPOINT_URL": "http://192.0.2.1:9",
    "AWS_MAX_ATTEMPTS": "7",
    "AWS_DEFAULT_REGION": "eu-north-7",
    "HTTP_PROXY": "http://192.0.2.1:9",
    "http_proxy": "http://192.0.2.1:9",
    "ALL_PROXY": "http://192.0.2.1:9",
}


def test_clients_ignore_the_environment(
    bedrock: FakeBedrock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text("[default]\nregion = nowhere\nretry_mode = adaptive\nproxies = x\n")
    for name, value in {**HOSTILE, "AWS_CONFIG_FILE": str(config)}.items():
        monkeypatch.setenv(name, value)
    client = bedrock.client()
    client.converse(modelId=NOVA, messages=TURNS)
    (request,) = bedrock.requests
    assert request.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIAFAKE")
    assert "/us-east-1/bedrock/" in request.headers["authorization"]
    bedrock.throttle(times=None)
    with pytest.raises(ClientError):
        client.converse(modelId=NOVA, messages=TURNS)
    assert len(bedrock.requests) == 2


def test_stopping_frees_everything() -> None:
    before = set(threading.enumerate())
    with FakeBedrock() as bedrock:
        bedrock.client().converse(modelId=NOVA, messages=TURNS)
        ours = set(threading.enumerate()) - before
        assert len(ours) == 2
        address = bedrock.url.removeprefix("http://").split(":")
    with pytest.raises(OSError, match=r".+"):
        socket.create_connection((address[0], int(address[1])), timeout=1)
    assert not any(thread.is_alive() for thread in ours)
    with pytest.raises(RuntimeError, match="with FakeBedrock"):
        _ = bedrock.url
    bedrock.stop()


def run_module(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "otel_bedrock.testing", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_interrupted(number: signal.Signals) -> None:
    with run_module("--quiet") as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            body = json.dumps({"messages": TURNS}).encode()
            request = urllib.request.Request(f"{url}/model/{NOVA}/converse", body)
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(request, timeout=10) as response:
                assert json.load(response)["stopReason"] == "end_turn"
            process.send_signal(number)
            out, err = process.communicate(timeout=10)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (0, "", "")


def test_the_command_teaches() -> None:
    with run_module("--help") as process:
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    for word in ("--port", "/_fake/bill", "throttle", "Say:"):
        assert word in out


def test_the_command_says_when_it_cannot_listen(bedrock: FakeBedrock) -> None:
    with run_module("--port", bedrock.url.rpartition(":")[2]) as process:
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "cannot listen on 127.0.0.1" in err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--port", "80000"], 2, "argument --port: expected a port from 0 to 65535, got '80000'"),
        (["--port", "-1"], 2, "argument --port: expected a port from 0 to 65535, got '-1'"),
        (["--host", "a..b"], 1, "--host takes an IPv4 address of this machine"),
        (["--host", "192.0.2.1"], 1, "--host takes an IPv4 address of this machine"),
    ],
)
def test_the_command_says_what_is_wrong_with_its_address(
    arguments: list[str], code: int, says: str
) -> None:
    with run_module(*arguments) as process:
        _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert says in err
    assert ".." not in err.replace("a..b", "")
    assert "Traceback" not in err


def test_the_command_says_where_it_cannot_log(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with run_module("--invocation-log", str(tmp_path / "file")) as process:
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err == (
        f"python -m otel_bedrock.testing: --invocation-log: {tmp_path / 'file'}: Not a directory\n"
    )


# --- compared with real exchanges


RECORDINGS = os.environ.get("OTEL_BEDROCK_RECORDINGS")
# Sent by today's Bedrock in every family; the recordings of some families are older than that.
NEWER = ("serverToolUsage", "chunk.p")
# Facts about one exchange that no fake can know.
IGNORED = ("guardrail", "trace", "reasoningContent")


def key_paths(value: object, path: str = "") -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from key_paths(item, f"{path}.{key}")
    elif isinstance(value, list) and value:
        for item in value:
            yield from key_paths(item, f"{path}[]")
    else:
        yield path


def answer_paths(raw: bytes, streamed: bool) -> set[str]:
    if not streamed:
        return set(key_paths(json.loads(raw)))
    found: set[str] = set()
    for event in frames_of(raw):
        payload = json.loads(event.payload)
        if "bytes" in payload:
            payload["bytes"] = json.loads(base64.b64decode(payload["bytes"]))
        found.update(key_paths(payload, event.headers[":event-type"]))
    return found


def relevant(paths: set[str]) -> set[str]:
    return {path for path in paths if not any(word in path for word in (*NEWER, *IGNORED))}


@pytest.mark.skipif(RECORDINGS is None, reason="OTEL_BEDROCK_RECORDINGS names no folder")
def test_answers_have_the_keys_of_real_ones(bedrock: FakeBedrock) -> None:
    """The recorded requests, sent here: the answers' keys are those of the recorded answers."""
    real: dict[tuple[str, str], list[set[str]]] = defaultdict(list)
    fake: dict[tuple[str, str], list[set[str]]] = defaultdict(list)
    refused = []
    with gzip.open(Path(str(RECORDINGS)) / "recordings.jsonl.gz", "rt") as lines:
        records = [json.loads(line) for line in lines]
    for record in records:
        usable = record["status"] == 200 and record["authenticity"] == "recorded"
        # The fake's guardrail finds nothing, and it does not play AI21's first models.
        other = record["operation"] == "ApplyGuardrail" or "j2" in record["model_id"]
        if not usable or other or record["request_body_encoding"] != "utf-8":
            continue
        try:
            json.loads(record["request_body"])
            expected = answer_paths(
                base64.b64decode(record["response_body_b64"]), record["streamed"]
            )
        except (ValueError, ChecksumMismatch):
            # Masked by the recorder.
            continue
        found = bedrock.models.find(record["model_id"])
        assert found is not None
        row = (record["operation"], found.family.name)
        status, headers, raw = post(bedrock, record["path"], record["request_body"].encode())
        if status != 200:
            refused.append((record["id"], status, raw))
            continue
        header = "header "
        known = {header + name.lower() for name in record["response_headers"]}
        bedrock_headers = {name for name in known if "bedrock" in name}
        told = {header + name.lower() for name in headers if "bedrock" in name.lower()}
        real[row].append(relevant(expected) | bedrock_headers)
        fake[row].append(relevant(answer_paths(raw, record["streamed"])) | told)
    assert refused == []
    assert len(real) > 25
    problems = {}
    for row, answers in real.items():
        sent, seen = set().union(*fake[row]), set().union(*answers)
        invented, lacking = sent - seen, set.intersection(*answers) - sent
        if invented or lacking:
            problems[row] = (sorted(invented), sorted(lacking))
    assert problems == {}
