"""The fake's invocation log: the objects, and the records in them, that Bedrock would write."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from otel_bedrock.testing import FakeBedrock

CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
NOON = 1_764_763_200.0  # 2025-12-03T12:00:00Z
HELLO = [{"role": "user", "content": [{"text": "Hello!"}]}]
KEY = re.compile(
    r"AWSLogs/123456789012/BedrockModelInvocationLogs/us-east-1/2025/12/03/12/"
    r"20251203T120000000Z_[0-9a-f]{16}\.json\.gz"
)


@pytest.fixture
def bedrock():
    with FakeBedrock() as running:
        yield running


def objects(folder):
    return sorted(
        path.relative_to(folder).as_posix()
        for path in Path(folder).rglob("*")
        if path.is_file() and "permission-check" not in path.name
    )


def records(folder):
    found = []
    for key in objects(folder):
        if "/data/" not in key:
            text = gzip.decompress((Path(folder) / key).read_bytes()).decode()
            found += [json.loads(line) for line in text.splitlines()]
    return found


def test_records_lie_gzipped_under_the_keys_of_s3(bedrock, tmp_path):
    log = bedrock.log_to(tmp_path, clock=lambda: NOON)
    for _ in range(3):
        bedrock.client().converse(modelId=CLAUDE, messages=HELLO)
    assert objects(tmp_path) == []
    log.flush()
    (key,) = objects(tmp_path)
    assert KEY.fullmatch(key)
    assert [record["requestId"] for record in records(tmp_path)] == [
        billed.request_id for billed in bedrock.bill
    ]


def test_a_record_says_what_the_bill_says_in_bedrock_s_words(bedrock, tmp_path):
    log = bedrock.log_to(tmp_path, clock=lambda: NOON)
    system = [{"text": "You are a fake. " * 400}, {"cachePoint": {"type": "default"}}]
    for _ in range(2):
        bedrock.client().converse(
            modelId=CLAUDE, messages=HELLO, system=system, requestMetadata={"team": "search"}
        )
    log.flush()
    for billed, record in zip(bedrock.bill, records(tmp_path), strict=True):
        usage = record["output"]["outputBodyJson"]["usage"]
        assert usage["inputTokens"] == record["input"]["inputTokenCount"] == billed.uncached_tokens
        assert record["input"]["cacheReadInputTokenCount"] == billed.cache_read_tokens
        assert record["input"]["cacheWriteInputTokenCount"] == billed.cache_write_tokens
        assert record["output"]["outputTokenCount"] == billed.output_tokens
        assert "requestMetadata" not in record["input"]["inputBodyJson"]
        assert {
            **record,
            "input": None,
            "output": None,
            "requestId": None,
        } == {
            "schemaType": "ModelInvocationLog",
            "schemaVersion": "1.0",
            "timestamp": "2025-12-03T12:00:00Z",
            "accountId": "123456789012",
            "identity": {"arn": log.identity},
            "region": "us-east-1",
            "inferenceRegion": "us-west-2",
            "requestId": None,
            "operation": "Converse",
            "modelId": CLAUDE,
            "requestMetadata": {"team": "search"},
            "input": None,
            "output": None,
        }
    assert {b.cache_read_tokens for b in bedrock.bill} != {0}


def test_output_bodies_have_the_shape_of_their_operation(bedrock, tmp_path):
    client = bedrock.client()
    bedrock.log_to(tmp_path)
    body = json.dumps(
        {
            "anthropic_version": "bedrock-2023-05-31",
            "max_tokens": 60,
            "messages": [{"role": "user", "content": "Hello!"}],
        }
    )
    events = list(client.converse_stream(modelId=CLAUDE, messages=HELLO)["stream"])
    native = json.loads(
        client.invoke_model(modelId=CLAUDE, body=body, requestMetadata='{"team":"search"}')[
            "body"
        ].read()
    )
    answer = client.invoke_model_with_response_stream(modelId=CLAUDE, body=body)
    chunks = [json.loads(event["chunk"]["bytes"]) for event in answer["body"]]
    bedrock.flush_log()

    streamed, whole, listed = records(tmp_path)
    logged = streamed["output"]["outputBodyJson"]
    text = "".join(
        event["contentBlockDelta"]["delta"]["text"]
        for event in events
        if "contentBlockDelta" in event
    )
    assert logged["output"]["message"]["content"] == [{"text": text}]
    assert logged["usage"]["outputTokens"] == events[-1]["metadata"]["usage"]["outputTokens"]
    assert whole["output"]["outputBodyJson"] == native
    assert whole["requestMetadata"] == {"team": "search"}
    assert listed["output"]["outputBodyJson"] == chunks
    assert listed["input"]["inputBodyJson"] == json.loads(body)


def test_errors_are_logged_with_their_code_and_without_counts(bedrock, tmp_path):
    bedrock.log_to(tmp_path)
    bedrock.throttle()
    with pytest.raises(ClientError):
        bedrock.client().converse(modelId=CLAUDE, messages=HELLO)
    bedrock.flush_log()
    (record,) = records(tmp_path)
    assert record["errorCode"] == "ThrottlingException"
    assert "output" not in record
    assert "inputTokenCount" not in record["input"]


def test_large_bodies_lie_in_objects_of_their_own(bedrock, tmp_path):
    bedrock.log_to(tmp_path, offload=2_000, bucket="logs", prefix="bedrock/")
    text = "word " * 1_000
    bedrock.client().converse(
        modelId=CLAUDE, messages=[{"role": "user", "content": [{"text": text}]}]
    )
    bedrock.flush_log()
    (record,) = records(tmp_path)
    path = record["input"]["inputBodyS3Path"]
    assert "inputBodyJson" not in record["input"]
    assert "outputBodyJson" in record["output"]
    assert path.startswith("s3://logs/bedrock/AWSLogs/")
    assert path.endswith(f"/data/{record['requestId']}_input.json.gz")
    stored = json.loads(gzip.decompress((tmp_path / path.removeprefix("s3://logs/")).read_bytes()))
    assert stored["messages"][0]["content"][0]["text"] == text


def test_without_text_delivery_the_counts_remain(bedrock, tmp_path):
    bedrock.log_to(tmp_path, bodies=False)
    bedrock.client().converse(modelId=CLAUDE, messages=HELLO)
    bedrock.flush_log()
    (record,) = records(tmp_path)
    assert record["output"] == {
        "outputContentType": "application/json",
        "outputTokenCount": bedrock.bill[0].output_tokens,
    }


def test_what_bedrock_does_not_log_is_not_logged(bedrock, tmp_path):
    bedrock.log_to(tmp_path)
    bedrock.client().count_tokens(
        modelId=CLAUDE.removeprefix("us."), input={"converse": {"messages": HELLO}}
    )
    bedrock.flush_log()
    assert records(tmp_path) == []


def test_the_identity_is_the_access_key_s(bedrock, tmp_path):
    arn = "arn:aws:iam::123456789012:user/batch"
    bedrock.log_to(tmp_path, identities={"AKIAFAKEFAKEFAKEFAKE": arn})
    bedrock.client().converse(modelId=CLAUDE, messages=HELLO)
    bedrock.flush_log()
    (record,) = records(tmp_path)
    assert record["identity"] == {"arn": arn}


def test_a_playground_call_is_in_the_log_alone(bedrock, tmp_path):
    bedrock.log_to(tmp_path)
    billed = bedrock.playground(CLAUDE, "Say: hello from the console")
    bedrock.flush_log()
    (record,) = records(tmp_path)
    assert bedrock.bill == []
    assert record["operation"] == "ConverseStream"
    assert "AWSReservedSSO" in record["identity"]["arn"]
    assert record["requestId"] == billed.request_id
    assert record["output"]["outputTokenCount"] == billed.output_tokens == 4
    content = record["output"]["outputBodyJson"]["output"]["message"]["content"]
    assert content == [{"text": "hello from the console"}]


def test_a_playground_needs_a_log(bedrock):
    with pytest.raises(RuntimeError, match="log_to"):
        bedrock.playground(CLAUDE, "Hello!")


def test_calls_that_are_being_answered_are_flushed_too(bedrock, tmp_path):
    """The log is complete for whoever has an answer in hand."""
    log = bedrock.log_to(tmp_path, batch=7)
    for index in range(30):
        list(bedrock.client().converse_stream(modelId=CLAUDE, messages=HELLO)["stream"])
        if index % 10 == 9:
            log.flush()
            assert len(records(tmp_path)) == index + 1
