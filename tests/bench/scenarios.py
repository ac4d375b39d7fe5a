"""Scenarios: canned answers of Bedrock, given to a real boto3 client without a socket.

The answer is put in by botocore's own `before-send` hook, as a real urllib3 response over bytes,
so that a call costs what botocore costs, and the same each time.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.awsrequest import AWSResponse
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError
from urllib3.response import HTTPResponse

from otel_bedrock.testing.frames import encode_chunk, encode_event

for _name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
    os.environ.setdefault(_name, "bench")

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
TITAN = "amazon.titan-embed-text-v2:0"
REQUEST_ID = {"x-amzn-RequestId": "5b1e4f2a-9c53-4d3e-8f2b-0b6f5d0c7e11"}
JSON = {"Content-Type": "application/json", **REQUEST_ID}
EVENTS = {"Content-Type": "application/vnd.amazon.eventstream", **REQUEST_ID}
COUNTS = {
    "X-Amzn-Bedrock-Input-Token-Count": "21",
    "X-Amzn-Bedrock-Output-Token-Count": "96",
    "X-Amzn-Bedrock-Cache-Read-Input-Token-Count": "0",
    "X-Amzn-Bedrock-Cache-Write-Input-Token-Count": "0",
    "X-Amzn-Bedrock-Invocation-Latency": "812",
}
USAGE = {
    "inputTokens": 21,
    "outputTokens": 96,
    "totalTokens": 117,
    "cacheReadInputTokens": 0,
    "cacheWriteInputTokens": 0,
}

_SMALL = {
    "modelId": MODEL,
    "system": [{"text": "You are a helpful assistant."}],
    "messages": [{"role": "user", "content": [{"text": "What is the capital of France?"}]}],
    "inferenceConfig": {"maxTokens": 512, "temperature": 0.2, "topP": 0.9, "stopSequences": ["."]},
}
_TOOL = {
    "toolSpec": {
        "name": "look_up",
        "description": "Looks something up. " * 5,
        "inputSchema": {"json": {"type": "object", "properties": {"what": {"type": "string"}}}},
    }
}
_LARGE = {
    **_SMALL,
    "messages": [
        {"role": ("user", "assistant")[turn % 2], "content": [{"text": "Lorem ipsum. " * 70}]}
        for turn in range(41)
    ],
    "toolConfig": {"tools": [_TOOL] * 8},
}
_INVOKE = {
    "modelId": MODEL,
    "body": json.dumps(
        {
            "anthropic_version": "bedrock-2023-05-31",
            "max_tokens": 512,
            "temperature": 0.2,
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
        }
    ),
}
_EMBED = {"modelId": TITAN, "body": json.dumps({"inputText": "Hello! " * 9, "dimensions": 1024})}


def _converse_body() -> bytes:
    message = {"role": "assistant", "content": [{"text": "Paris is the capital. " * 15}]}
    answer = {"metrics": {"latencyMs": 812}, "output": {"message": message}}
    return json.dumps({**answer, "stopReason": "end_turn", "usage": USAGE}).encode()


def _claude_body(size: int) -> bytes:
    usage = {"input_tokens": 21, "output_tokens": 96}
    answer = {"id": "msg_bdrk_01", "type": "message", "model": "claude", "usage": usage}
    text = "The quick brown fox. " * (size // 21)
    content = [{"type": "text", "text": text}]
    return json.dumps({**answer, "content": content, "stop_reason": "end_turn"}).encode()


def _titan_body() -> bytes:
    vector = [number / 1024 - 0.5 for number in range(1024)]
    return json.dumps({"embedding": vector, "inputTextTokenCount": 9}).encode()


def _converse_events(count: int) -> bytes:
    delta = encode_event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": " fox"}})
    return b"".join(
        [
            encode_event("messageStart", {"role": "assistant"}),
            delta * count,
            encode_event("contentBlockStop", {"contentBlockIndex": 0}),
            encode_event("messageStop", {"stopReason": "end_turn"}),
            encode_event("metadata", {"metrics": {"latencyMs": 812}, "usage": USAGE}),
        ]
    )


def _claude_events(count: int) -> bytes:
    usage = {"input_tokens": 21, "output_tokens": 1}
    text = {"type": "content_block_delta", "index": 0, "delta": {"type": "text", "text": " fox"}}
    stop = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    metrics = {"inputTokenCount": 21, "outputTokenCount": 96, "invocationLatency": 812}
    return b"".join(
        [
            encode_chunk({"type": "message_start", "message": {"id": "msg_1", "usage": usage}}),
            encode_chunk(text) * count,
            encode_chunk({**stop, "usage": {"output_tokens": 96}}),
            encode_chunk({"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics}),
        ]
    )


class Scenario:
    """One call: what is asked, and the bytes that come back."""

    def __init__(
        self,
        method: str,
        parameters: dict[str, Any],
        body: bytes,
        headers: dict[str, str] = JSON,
        status: int = 200,
        events: int = 0,
    ) -> None:
        self.method = method
        self.parameters = parameters
        self.body = body
        self.headers = {**headers, "Content-Length": str(len(body))}
        self.status = status
        self.events = events

    def answer(self, request: Any, **_: Any) -> AWSResponse:
        raw = HTTPResponse(io.BytesIO(self.body), self.headers, self.status, preload_content=False)
        return AWSResponse(request.url, self.status, self.headers, raw)

    def call(self, client: Any) -> None:
        """Make the call and read all of its answer."""
        try:
            answer = getattr(client, self.method)(**self.parameters)
        except ClientError:
            return
        stream = answer.get("stream") or answer.get("body")
        if self.events:
            for _ in stream:
                pass
        elif stream is not None:
            stream.read()


_THROTTLED = b'{"message":"Too many requests, please wait before trying again."}'
_ERROR = {**JSON, "x-amzn-ErrorType": "ThrottlingException:http://internal.amazon.com/"}

SCENARIOS = {
    "converse": Scenario("converse", _SMALL, _converse_body()),
    "converse, 41 messages, tools": Scenario("converse", _LARGE, _converse_body()),
    "converse, 429": Scenario("converse", _SMALL, _THROTTLED, _ERROR, 429),
    "invoke_model, 1 KB": Scenario(
        "invoke_model", _INVOKE, _claude_body(1_000), {**JSON, **COUNTS}
    ),
    "invoke_model, 100 KB": Scenario(
        "invoke_model", _INVOKE, _claude_body(100_000), {**JSON, **COUNTS}
    ),
    "invoke_model, 5 MB": Scenario(
        "invoke_model", _INVOKE, _claude_body(5_000_000), {**JSON, **COUNTS}
    ),
    "invoke_model, embedding": Scenario(
        "invoke_model", _EMBED, _titan_body(), {**JSON, "X-Amzn-Bedrock-Input-Token-Count": "9"}
    ),
    "converse_stream, 10 events": Scenario(
        "converse_stream", _SMALL, _converse_events(10), EVENTS, events=14
    ),
    "converse_stream, 1,000 events": Scenario(
        "converse_stream", _SMALL, _converse_events(1_000), EVENTS, events=1_004
    ),
    "invoke stream, 10 events": Scenario(
        "invoke_model_with_response_stream", _INVOKE, _claude_events(10), EVENTS, events=13
    ),
    "invoke stream, 1,000 events": Scenario(
        "invoke_model_with_response_stream", _INVOKE, _claude_events(1_000), EVENTS, events=1_003
    ),
}


def make_client() -> tuple[Any, Callable[[Scenario], None]]:
    """Return a client, and the function that says which scenario answers it."""
    client = boto3.Session().client(
        "bedrock-runtime",
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}),
    )
    current: list[Scenario] = []
    client.meta.events.register(
        "before-send.bedrock-runtime", lambda **kwargs: current[0].answer(**kwargs)
    )

    def use(scenario: Scenario) -> None:
        current[:] = [scenario]

    return client, use


def make_http_client(url: str) -> Any:
    """Return a client of the server at `url`, for many threads."""
    return boto3.Session().client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=url,
        config=Config(retries={"total_max_attempts": 1}, max_pool_connections=64, proxies={}),
    )


def make_s3_client() -> Any:
    return boto3.Session().client("s3", region_name="us-east-1")


@contextmanager
def answered_at_once() -> Iterator[None]:
    """Make botocore's `_make_api_call` return at once: what is left is the way to it."""
    real = BaseClient._make_api_call
    BaseClient._make_api_call = lambda self, operation_name, api_params: {}
    try:
        yield
    finally:
        BaseClient._make_api_call = real
