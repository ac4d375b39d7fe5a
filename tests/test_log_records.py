"""Records of model invocation logs: what they say is read as a live call's answer is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from recordings import VARIABLE

from otel_bedrock import answer
from otel_bedrock.call import Usage
from otel_bedrock.invocation_logs import Record, open_source, parsing, read_logs
from otel_bedrock.invocation_logs.record import read_time
from otel_bedrock.model_id import parse
from otel_bedrock.operations import TABLE
from otel_bedrock.providers import provider_of

RECORDINGS = os.environ.get(VARIABLE)
LOGS = Path(__file__).parent / "logs"
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"


def record(operation="Converse", model=CLAUDE, sent=None, told=None, fetch=None, **members):
    """Make a record; `sent` and `told` are its input and its output."""
    data = {
        "schemaType": "ModelInvocationLog",
        "schemaVersion": "1.0",
        "timestamp": "2026-11-26T10:00:00Z",
        "accountId": "111122223333",
        "region": "us-east-1",
        "requestId": "r-1",
        "operation": operation,
        "modelId": model,
        "input": sent if sent is not None else {"inputTokenCount": 10},
        "output": told if told is not None else {"outputTokenCount": 5},
        **members,
    }
    return Record(data, fetch)


def test_the_record_of_the_knowledge_center_is_3_in_and_29_out():
    (found,) = read_logs([open_source(str(LOGS / "knowledge-center.json"))])
    usage = found.read_usage()
    assert (usage.input_tokens, usage.output_tokens) == (3, 29)
    assert (usage.cache_read_tokens, usage.cache_write_tokens) == (0, 0)
    call, outcome = found.read_call(), found.read_outcome()
    assert (call.api, call.operation, call.streamed) == ("ConverseStream", "chat", True)
    assert call.model.name == "amazon.nova-pro-v1:0"
    assert call.parameters["max_tokens"] == 512
    assert (outcome.finish_reasons, outcome.server_latency_ms) == (("end_turn",), 302)
    assert outcome.usage == usage
    assert outcome.request_id == "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxx"
    assert found.identity == "arn:aws:sts::123456789:role/MyRole"
    assert found.start_ns == 1743456843 * 10**9


def test_the_answer_of_the_knowledge_center_is_1_in_and_54_out():
    body = json.loads((LOGS / "knowledge-center-converse.json").read_text())
    row = TABLE["bedrock-runtime", "Converse"]
    usage = answer.read_answer(row, body, provider_of(parse("amazon.nova-pro-v1:0")))["usage"]
    assert (usage.input_tokens, usage.output_tokens) == (1, 54)


@pytest.mark.skipif(not RECORDINGS, reason=f"left out: {VARIABLE} names no folder of recordings")
def test_the_recorded_records_are_what_they_say():
    folder = Path(RECORDINGS) / "logs"
    by_line = list(
        read_logs([open_source(str(folder / "invocation_log_records_kr-tech-blog.jsonl"))])
    )
    wrapped = list(
        read_logs([open_source(str(folder / "cloudwatch_get_log_events_kr-tech-blog.json"))])
    )
    for found in (by_line, wrapped):
        usages = [each.read_usage() for each in found]
        assert [(usage.input_tokens, usage.output_tokens) for usage in usages] == [
            (23, 319),
            (15, 507),
            (17, 90),
            (17, 129),
            (17, 78),
        ]
        # All of Converse's answer stands one level down in these.
        outcomes = [each.read_outcome() for each in found]
        assert [each.server_latency_ms for each in outcomes] == [2866, 4087, 1220, 1723, 1165]
        assert {each.finish_reasons for each in outcomes} == {("end_turn",)}
        assert found[0].metadata["team"] == "engineering"


def test_input_is_the_total_for_the_records_counts_exclude_cache():
    found = record(
        sent={
            "inputTokenCount": 1,
            "cacheReadInputTokenCount": 129709,
            "cacheWriteInputTokenCount": 411,
        },
        told={"outputTokenCount": 326},
    )
    assert found.counts == (1, 326, 129709, 411)
    assert found.read_usage() == Usage(
        input_tokens=130121,
        output_tokens=326,
        cache_read_tokens=129709,
        cache_write_tokens=411,
        uncached_tokens=1,
        source="log",
    )


CHUNKS = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_bdrk_1",
            "model": "claude-sonnet-4-5",
            "usage": {
                "input_tokens": 4,
                "output_tokens": 1,
                "cache_creation_input_tokens": 300,
                "cache_read_input_tokens": 0,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": 100,
                    "ephemeral_1h_input_tokens": 200,
                },
            },
        },
    },
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hi"}},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"output_tokens": 7},
    },
    {
        "type": "message_stop",
        "amazon-bedrock-invocationMetrics": {
            "inputTokenCount": 4,
            "outputTokenCount": 7,
            "invocationLatency": 900,
            "firstByteLatency": 300,
            "cacheReadInputTokenCount": 0,
            "cacheWriteInputTokenCount": 300,
        },
    },
]


@pytest.mark.parametrize("as_text", [False, True])
def test_a_streams_body_is_a_list_of_chunks_and_splits_its_cache_write(as_text):
    found = record(
        "InvokeModelWithResponseStream",
        sent={
            "inputTokenCount": 4,
            "cacheReadInputTokenCount": 0,
            "cacheWriteInputTokenCount": 300,
        },
        told={
            "outputBodyJson": [json.dumps(chunk) for chunk in CHUNKS] if as_text else CHUNKS,
            "outputTokenCount": 7,
        },
    )
    usage, outcome = found.read_usage(), found.read_outcome()
    assert (usage.input_tokens, usage.output_tokens) == (304, 7)
    assert (usage.cache_write_5m_tokens, usage.cache_write_1h_tokens) == (100, 200)
    assert (outcome.server_latency_ms, outcome.complete) == (900, True)
    assert (outcome.finish_reasons, outcome.response_id) == (("end_turn",), "msg_bdrk_1")


def test_a_body_without_the_last_chunk_says_nothing_of_the_streams_end():
    found = record("InvokeModelWithResponseStream", told={"outputBodyJson": CHUNKS[:2]})
    assert found.read_outcome().complete is None


def test_an_inclusive_body_says_how_much_of_the_input_was_cached():
    """A body in OpenAI's shape counts cached tokens as input, and the record has no cache."""
    body = {"usage": {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105,
                      "prompt_tokens_details": {"cached_tokens": 60}}}  # fmt: skip
    found = record(
        "InvokeModel",
        "openai.gpt-oss-120b-1:0",
        {"inputTokenCount": 100},
        {"outputBodyJson": body, "outputTokenCount": 5},
    )
    usage = found.read_usage()
    assert (usage.input_tokens, usage.cache_read_tokens, usage.uncached_tokens) == (100, 60, 40)


@pytest.mark.parametrize("body", ["not json", None, 7, [], {}, [7, "x", None]])
def test_counts_stand_without_a_body_that_can_be_read(body):
    for operation in ("Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream"):
        found = record(operation, told={"outputBodyJson": body, "outputTokenCount": 5})
        assert found.read_outcome().usage.output_tokens == 5
        assert found.read_usage().output_tokens == 5


def test_counts_come_from_the_body_where_the_record_has_none():
    body = {"usage": {"inputTokens": 4, "outputTokens": 38, "totalTokens": 42}}
    found = record(sent={}, told={"outputBodyJson": json.dumps(body)})
    assert found.read_usage() == found.read_outcome().usage
    assert (found.read_usage().input_tokens, found.read_usage().output_tokens) == (4, 38)


def test_an_off_loaded_body_is_fetched_only_when_counts_need_it():
    asked = []

    def fetch(path):
        asked.append(path)
        return {
            "usage": {
                "inputTokens": 1,
                "outputTokens": 5,
                "cacheWriteInputTokens": 30,
                "cacheDetails": [{"ttl": "1h", "inputTokens": 30}],
            }
        }

    path = "s3://logs/AWSLogs/1/BedrockModelInvocationLogs/us-east-1/2026/11/26/10/data/r_out.json"
    told = {"outputBodyS3Path": path, "outputTokenCount": 5}
    assert record(told=told, fetch=fetch).read_outcome().usage.output_tokens == 5
    assert asked == []
    sent = {"inputTokenCount": 1, "cacheReadInputTokenCount": 0, "cacheWriteInputTokenCount": 30}
    found = record(sent=sent, told=told, fetch=fetch)
    assert found.read_usage().cache_write_1h_tokens == 30
    assert found.read_outcome().usage.cache_write_1h_tokens == 30
    assert asked == [path]
    assert record(sent=sent, told=told, fetch=lambda _: None).read_usage().cache_write_tokens == 30


def test_a_failed_call_has_its_error_and_no_counts():
    found = record(sent={}, told={}, errorCode="ThrottlingException")
    outcome = found.read_outcome()
    assert (outcome.error_type, outcome.usage) == ("ThrottlingException", None)
    assert outcome.throttle_reason is None


def test_parameters_and_metadata_are_read_as_of_a_live_call():
    body = {"max_tokens": 20, "messages": [], "anthropic_version": "bedrock-2023-05-31"}
    found = record(
        "InvokeModel",
        sent={"inputBodyJson": body, "inputTokenCount": 3},
        requestMetadata={"team": "blue"},
    )
    call = found.read_call()
    assert call.parameters["max_tokens"] == 20
    assert call.parameters["request_metadata"] == {"team": "blue"}
    assert found.spends


def test_an_operation_that_nobody_has_heard_of_is_told_with_its_counts():
    found = record("ConverseTwice")
    assert found.read_call().operation == "chat"
    assert found.read_outcome().usage.input_tokens == 10


@pytest.mark.parametrize("count", ["10", -1, 1.5, True, None, 2**60, [1]])
def test_a_count_that_is_none_is_unknown_and_not_zero(count):
    found = record(sent={"inputTokenCount": count})
    assert found.read_outcome().usage.input_tokens in (None, 1 if count == [1] else None)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:01Z", 10**9),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("1970-01-01T00:00:01.123456789Z", 1_123_456_000),
        ("1970-01-01T01:00:01+01:00", 10**9),
        ("1970-01-01T00:00:01", 10**9),
        ("1970-01-01T00:00:00Z", 0),
        ("2262-04-11T23:47:16Z", 2**63 // 10**9 * 10**9),
        ("2262-04-11T23:47:17Z", None),
        ("1969-12-31T23:59:59Z", None),
        ("0001-01-01T00:00:00+05:00", None),
        ("9999-12-31T23:59:59-05:00", None),
        ("yesterday", None),
        ("1970-13-01T00:00:01Z", None),
        (None, None),
    ],
)
def test_times_are_read_to_the_digits_that_they_have(text, ns):
    assert read_time(text) == ns


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize(
    ("text", "value"),
    [
        (rb'{"a": "\ud800", "b": "\ud83d\ude00"}', {"a": "?", "b": "\U0001f600"}),
        (rb'{"\uDC00a": "\\ud800"}', {"?a": "\\ud800"}),
        (b'{"a": "\xed\xa0\x80"}', {"a": "?"}),
        ('{"a": "\ud55c"}'.encode(), {"a": "\ud55c"}),
    ],
)
def test_half_a_surrogate_pair_is_no_text(quick, text, value, monkeypatch):
    if not quick:
        monkeypatch.setattr(parsing, "_quick", json.loads)
    assert parsing.loads(text) == value
