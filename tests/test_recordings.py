"""Every recorded exchange, through real boto3: the caller sees the same, we tell the truth."""

from __future__ import annotations

import collections

import pytest
from recordings import VARIABLE, known, load, parameters, replaying, run

from otel_bedrock.testing.capture import capture

RECORDS = load()
_COUNTS = (
    ("output_tokens", "gen_ai.usage.output_tokens", "output_tokens"),
    ("cache_read", "gen_ai.usage.cache_read.input_tokens", "cache_read.input_tokens"),
    ("cache_write", "gen_ai.usage.cache_write.input_tokens", "cache_write.input_tokens"),
)
_USAGE = "gen_ai.client.inference.usage."
_SPENDERS = ("Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream")

pytestmark = pytest.mark.skipif(
    not RECORDS, reason=f"left out: {VARIABLE} names no folder of recordings"
)


@pytest.fixture(scope="module")
def replay():
    with replaying() as server:
        yield server


@pytest.fixture(scope="module")
def client(replay):
    return replay.client()


def _inclusive(record):
    """Say whether the body is in OpenAI's shape, whose prompt_tokens include the cache."""
    import base64

    body = base64.b64decode(record["response_body_b64"])
    return record["operation"].startswith("Invoke") and b'"prompt_tokens"' in body


def _expected(record, counts):
    """Return what spans and counters should hold, by attribute; None where nothing is told."""
    expected = {key: counts.get(key) for key, _, _ in _COUNTS}
    total = counts.get("input_tokens")
    if total is not None and not _inclusive(record):
        total += (counts.get("cache_read") or 0) + (counts.get("cache_write") or 0)
    return {"input": total, **expected}


def _told(captured):
    attributes = captured.span.attributes
    span = {"input": attributes.get("gen_ai.usage.input_tokens")}
    counters = {"input": captured.total(_USAGE + "input_tokens")}
    for key, attribute, metric in _COUNTS:
        span[key] = attributes.get(attribute)
        counters[key] = captured.total(_USAGE + metric)
    return span, counters


def _allowed(record):
    expected = record["expected"]
    answers = [
        expected,
        *(
            value
            for key, value in (expected.get("alternatives") or {}).items()
            if key != "disagree_on"
        ),
    ]
    return [_expected(record, answer) for answer in answers]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["id"])
def test_a_recorded_exchange_is_counted_to_the_token(record, replay, client):
    if not known(client, record):
        pytest.skip(f"the installed botocore has no {record['operation']}")
    replay.record = record
    bare = run(client, record)
    with capture() as captured:
        seen = run(client, record)
        span, counters = _told(captured)
        missing = captured.total("bedrock.client.usage.missing")
        errors = captured.total("bedrock.instrumentation.errors")
        attributes = captured.span.attributes
        status = captured.span.status.status_code.name
    assert seen == bare
    assert errors is None

    if record["operation"] not in _SPENDERS:
        assert set(span.values()) == set(counters.values()) == {None}
        assert missing is None
    else:
        assert span in _allowed(record)
        assert counters == span
        unknown = all(value is None for value in span.values())
        assert missing == (1 if unknown or "error" in bare else None)
    for value in span.values():
        assert value is None or type(value) is int

    assert status == ("ERROR" if "error" in bare else "UNSET")
    assert ("error.type" in attributes) == ("error" in bare)
    kind = record["expected"]["error_type"]
    if kind and not kind.startswith("HTTP"):
        assert attributes["error.type"] == kind
    reason = record["expected"]["finish_reason"]
    if reason and "error" not in bare:
        # One for each choice; the recordings name the first.
        assert attributes["gen_ai.response.finish_reasons"][0] == reason
    model = parameters(record).get("modelId", "")
    if not model.startswith("arn:"):
        assert attributes.get("gen_ai.request.model", "") == model


def test_the_table_of_recordings(capsys):
    """What the tests above covered, by operation and family; printed for the reader."""
    table = collections.Counter(
        (record["operation"], record["model_id"].split(".")[-2 if "." in record["model_id"] else 0])
        for record in RECORDS
    )
    with capsys.disabled():
        print()
        for (operation, family), count in sorted(table.items()):
            print(f"  {operation:32} {family:40} {count:4}")
    assert sum(table.values()) == len(RECORDS)
