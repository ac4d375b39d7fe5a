"""correlate_logs: a record of Bedrock's invocation log finds the trace of its call."""

from __future__ import annotations

import asyncio
import copy
import json
from types import MappingProxyType

import pytest
from botocore.exceptions import ParamValidationError
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from otel_bedrock import correlation
from otel_bedrock.correlation import SPAN_KEY, TRACE_KEY, read_origin
from otel_bedrock.invocation_logs import open_source, read_logs
from otel_bedrock.testing import FakeBedrock
from otel_bedrock.testing.capture import capture

SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
HELLO = [{"role": "user", "content": [{"text": "Hello!"}]}]
BODY = json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": HELLO})


@pytest.fixture
def bedrock():
    with FakeBedrock() as server:
        yield server


@pytest.fixture
def sent(bedrock):
    """What a client sent as requestMetadata, as botocore's parameters, in the order of calls."""
    seen = []
    client = bedrock.client()
    for api in ("Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream"):
        client.meta.events.register(
            f"before-parameter-build.bedrock-runtime.{api}",
            lambda params, **_: seen.append(params.get("requestMetadata")),
        )
    return client, seen


def takes(client, api):
    """Say whether the installed botocore knows the member."""
    shape = client.meta.service_model.operation_model(api).input_shape
    return "requestMetadata" in shape.members


def ids_of(span):
    return {
        TRACE_KEY: f"{span.context.trace_id:032x}",
        SPAN_KEY: f"{span.context.span_id:016x}",
    }


def test_nothing_is_sent_unless_it_is_asked_for(sent):
    client, seen = sent
    with capture():
        client.converse(modelId=SONNET, messages=HELLO)
    assert seen == [None]


def test_the_ids_of_the_calls_span_are_sent_beside_the_callers_own(sent):
    client, seen = sent
    mine = {"team": "blue"}
    request = {"modelId": SONNET, "messages": HELLO, "requestMetadata": mine}
    before = copy.deepcopy(request)
    with capture(correlate_logs=True) as captured:
        client.converse(**request)
        list(client.converse_stream(modelId=SONNET, messages=HELLO)["stream"])
    first, second = captured.spans
    assert seen == [{"team": "blue", **ids_of(first)}, ids_of(second)]
    assert request == before
    assert request["requestMetadata"] is mine


def test_invoke_model_has_them_in_its_parameter_of_json(sent):
    client, seen = sent
    if not takes(client, "InvokeModel"):
        pytest.skip("the installed botocore has no requestMetadata of InvokeModel")
    with capture(correlate_logs=True) as captured:
        client.invoke_model(modelId=SONNET, body=BODY)["body"].read()
        given = '{"team": "blue"}'
        stream = client.invoke_model_with_response_stream(
            modelId=SONNET, body=BODY, requestMetadata=given
        )
        list(stream["body"])
    first, second = captured.spans
    assert [json.loads(each) for each in seen] == [
        ids_of(first),
        {"team": "blue", **ids_of(second)},
    ]


def test_an_operation_without_the_member_goes_out_as_it_is(sent):
    client, seen = sent
    if takes(client, "InvokeModel"):
        shape = client.meta.service_model.operation_model("InvokeModel").input_shape
        del shape.members["requestMetadata"]
    with capture(correlate_logs=True):
        client.invoke_model(modelId=SONNET, body=BODY)["body"].read()
    assert seen == [None]


PAIRS = {f"k{number}": "v" for number in range(16)}


@pytest.mark.parametrize(
    "mine",
    [
        PAIRS,
        dict(list(PAIRS.items())[:15]),
        {TRACE_KEY: "mine"},
        {SPAN_KEY: "mine", "a": "b"},
    ],
    ids=["full", "room for one", "own trace id", "own span id"],
)
def test_the_callers_own_stays_as_it_is_where_ours_do_not_fit(mine, sent):
    client, seen = sent
    with capture(correlate_logs=True):
        client.converse(modelId=SONNET, messages=HELLO, requestMetadata=mine)
    assert seen == [mine]


@pytest.mark.parametrize("mine", [None, 7, [("a", "b")], MappingProxyType({"a": "b"}), "{}", {}])
def test_what_botocore_refuses_is_refused_as_without_us(mine, bedrock):
    """What we would make of it is not sent in its place."""
    client = bedrock.client()

    def ask(call, **request):
        try:
            call(modelId=SONNET, requestMetadata=mine, **request)
        except ParamValidationError as error:
            return str(error)
        return None

    def seen():
        both = [ask(client.converse, messages=HELLO)]
        if takes(client, "InvokeModel"):
            both.append(ask(client.invoke_model, body=BODY))
        return both

    bare = seen()
    # Older versions take an empty mapping, and have no such member of InvokeModel.
    assert any(bare) or mine == {}
    with capture(correlate_logs=True):
        assert seen() == bare


def test_fourteen_pairs_leave_room(sent):
    client, seen = sent
    with capture(correlate_logs=True):
        mine = dict(list(PAIRS.items())[:14])
        client.converse(modelId=SONNET, messages=HELLO, requestMetadata=mine)
    assert len(seen[0]) == 16


@pytest.mark.parametrize("mine", ["no json", "[1]", "7", '{"a": "' + "x" * 8480 + '"}'])
def test_json_that_is_none_or_has_no_room_stays_as_it_is(mine, sent):
    client, seen = sent
    if not takes(client, "InvokeModel"):
        pytest.skip("the installed botocore has no requestMetadata of InvokeModel")
    with capture(correlate_logs=True):
        client.invoke_model(modelId=SONNET, body=BODY, requestMetadata=mine)["body"].read()
    assert seen == [mine]


def test_what_botocore_refuses_it_still_refuses_in_its_own_words(sent):
    client, _ = sent
    wrong = {"modelId": SONNET, "messages": HELLO, "requestMetadata": "team=blue"}
    with pytest.raises(Exception, match="Invalid type for parameter requestMetadata") as bare:
        client.converse(**wrong)
    with capture(correlate_logs=True), pytest.raises(type(bare.value)) as ours:
        client.converse(**wrong)
    assert str(ours.value) == str(bare.value)


def test_a_call_that_is_not_sampled_sends_them_too(sent):
    client, seen = sent
    with capture(correlate_logs=True, sampler=ALWAYS_OFF):
        client.converse(modelId=SONNET, messages=HELLO)
    assert read_origin(seen[0]).ours


def test_a_failure_of_ours_leaves_the_call_alone(sent, monkeypatch):
    client, seen = sent
    monkeypatch.delenv("OTEL_BEDROCK_RAISE_INTERNAL_ERRORS")
    monkeypatch.setattr(correlation, "_add", lambda *_: 1 / 0)
    with capture(correlate_logs=True) as captured:
        client.converse(modelId=SONNET, messages=HELLO)
    assert seen == [None]
    assert captured.span.attributes["gen_ai.usage.output_tokens"] > 0


def test_asynchronous_clients_send_them_too(bedrock):
    session = pytest.importorskip("aiobotocore.session")
    seen = []

    async def call():
        options = {"endpoint_url": bedrock.url, "region_name": "us-east-1"}
        async with session.get_session().create_client("bedrock-runtime", **options) as client:
            client.meta.events.register(
                "before-parameter-build.bedrock-runtime.Converse",
                lambda params, **_: seen.append(params.get("requestMetadata")),
            )
            await client.converse(modelId=SONNET, messages=HELLO, requestMetadata={"a": "b"})

    with capture(correlate_logs=True) as captured:
        asyncio.run(call())
    assert seen == [{"a": "b", **ids_of(captured.span)}]


def test_a_record_of_the_log_finds_the_span_of_its_call(bedrock, tmp_path):
    bedrock.log_to(tmp_path)
    with capture(correlate_logs=True) as captured:
        bedrock.client().converse(modelId=SONNET, messages=HELLO)
    bedrock.flush_log()
    (record,) = read_logs([open_source(str(tmp_path))])
    span = captured.span.context
    assert read_origin(record.metadata) == (span.trace_id, span.span_id, True)
    assert record.request_id == captured.span.attributes["aws.request_id"]
    counts = record.read_usage()
    assert counts.input_tokens == captured.span.attributes["gen_ai.usage.input_tokens"]
    assert counts.output_tokens == captured.span.attributes["gen_ai.usage.output_tokens"]


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        ({}, None),
        ({TRACE_KEY: "ab" * 16}, None),
        ({TRACE_KEY: "0" * 32, SPAN_KEY: "cd" * 8}, None),
        ({TRACE_KEY: "AB" * 16, SPAN_KEY: "cd" * 8}, None),
        ({TRACE_KEY: 7, SPAN_KEY: None}, None),
        ({TRACE_KEY: "ab" * 16, SPAN_KEY: "cd" * 8}, True),
        ({"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}, False),
        ({"traceparent": f"00-{'0' * 32}-{'cd' * 8}-01"}, None),
    ],
)
def test_ids_are_read_only_where_they_are_ids(metadata, found):
    origin = read_origin(metadata)
    assert (origin.ours if origin is not None else None) == found
