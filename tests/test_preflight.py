"""Counting before a call: what is told, and that the call is what it would have been."""

from __future__ import annotations

import json
import logging

import pytest
from botocore.exceptions import HTTPClientError
from urllib3.connectionpool import HTTPConnectionPool

from otel_bedrock import (
    BudgetExceeded,
    Limit,
    TokenBudget,
    asking,
    counting,
    instrument,
    preflight,
    shield,
    uninstrument,
)
from otel_bedrock.budget import ALWAYS, WHEN_NEEDED
from otel_bedrock.config import read_config
from otel_bedrock.setting_values import Invalid
from otel_bedrock.testing import FakeBedrock, capture

SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "us.amazon.nova-lite-v1:0"
HELLO = [{"role": "user", "content": [{"text": "How many tokens is this?"}]}]
BODY = json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": HELLO})
BODY = BODY.replace('{"text"', '{"type": "text", "text"')
COUNTED = "bedrock.count_tokens.input_tokens"
DIFFERENCE = "bedrock.count_tokens.difference"


@pytest.fixture
def bedrock():
    with FakeBedrock() as running:
        if not hasattr(running.client(), "count_tokens"):
            pytest.skip("the installed botocore has no CountTokens")
        yield running


def _converse(client):
    client.converse(modelId=SONNET, messages=HELLO)


def _converse_stream(client):
    list(client.converse_stream(modelId=SONNET, messages=HELLO)["stream"])


def _invoke(client):
    client.invoke_model(modelId=SONNET, body=BODY)["body"].read()


def _invoke_stream(client):
    list(client.invoke_model_with_response_stream(modelId=SONNET, body=BODY)["body"])


CALLS = (_converse, _converse_stream, _invoke, _invoke_stream)


@pytest.mark.parametrize("call", CALLS)
def test_the_count_and_its_difference_are_on_the_span(bedrock, call):
    with capture(count_before=1) as captured:
        call(bedrock.client())
        asked, told = captured.spans
        points = captured.points
    assert asked.name == "count_tokens anthropic.claude-sonnet-4-5-20250929-v1:0"
    assert told.name == f"chat {SONNET}"
    assert told.attributes[COUNTED] == asked.attributes[COUNTED] == bedrock.bill[-1].input_tokens
    assert told.attributes[DIFFERENCE] == 0
    # Beside the call and not within it, whose time begins after it.
    assert asked.parent is None
    assert told.parent is None
    assert told.start_time >= asked.end_time
    # What was counted is not usage.
    usage = [point for point in points if point.metric.endswith("usage.input_tokens")]
    assert [point.value for point in usage] == [bedrock.bill[-1].input_tokens]


def test_the_duration_is_the_calls_alone(bedrock):
    with capture(count_before=1) as captured:
        client = bedrock.client()
        client.converse(modelId=SONNET, messages=HELLO)
        bedrock.slow(first=0.5)
        client.converse(modelId=SONNET, messages=HELLO)
        (duration,) = (p for p in captured.points if p.metric == "gen_ai.client.inference.duration")
    assert [bill.operation for bill in bedrock.bill] == ["CountTokens", "Converse"] * 2
    assert duration.sum < 0.5


def test_what_bedrock_bills_beyond_the_count_is_the_difference(bedrock):
    with capture(count_before=1) as captured:
        bedrock.reply({"inputTokens": 3})
        _converse(bedrock.client())
        told = captured.spans[-1]
    assert told.attributes[COUNTED] == 3
    assert told.attributes[DIFFERENCE] == bedrock.bill[-1].input_tokens - 3


@pytest.mark.parametrize("name", ["ThrottlingException", "AccessDeniedException"])
def test_a_count_that_fails_leaves_the_call_alone_and_is_not_tried_at_once(bedrock, caplog, name):
    caplog.set_level(logging.INFO, "otel_bedrock")
    with capture(count_before=1) as captured:
        client = bedrock.client()
        bedrock.fail(name)
        _converse(client)
        _converse(client)
        assert [bill.operation for bill in bedrock.bill] == ["CountTokens", "Converse", "Converse"]
        assert COUNTED not in captured.spans[1].attributes
        assert captured.spans[0].attributes["error.type"] == name
    assert len([line for line in caplog.messages if "counting" in line]) == 1


def test_a_model_that_cannot_be_counted_is_said_once(bedrock, caplog):
    caplog.set_level(logging.INFO, "otel_bedrock")
    with capture(count_before=1) as captured:
        client = bedrock.client()
        for _ in range(3):
            client.converse(modelId=NOVA, messages=HELLO)
        assert len(captured.spans) == 4
    assert len([line for line in caplog.messages if "is not counted before" in line]) == 1


def test_a_predicate_chooses_by_the_request(bedrock):
    seen = []

    def large(request):
        seen.append(request)
        return len(request["messages"]) > 1

    with capture(count_before=large) as captured:
        client = bedrock.client()
        client.converse(modelId=SONNET, messages=HELLO)
        client.converse(modelId=SONNET, messages=[*HELLO, *HELLO])
        assert [COUNTED in span.attributes for span in captured.spans] == [False, True, True]
    assert [len(request["messages"]) for request in seen] == [1, 2]


def test_a_predicate_that_raises_leaves_the_call_alone(bedrock, caplog):
    caplog.set_level(logging.INFO, "otel_bedrock")
    with capture(count_before=lambda request: request["no"]) as captured:
        _converse(bedrock.client())
        _converse(bedrock.client())
        assert len(captured.spans) == 2
    assert len([line for line in caplog.messages if "KeyError" in line]) == 1


def test_a_share_counts_about_that_many(bedrock, monkeypatch):
    with capture(count_before=0.25):
        numbers = iter([0.2, 0.3, 0.9, 0.1])
        monkeypatch.setattr(preflight.current._random, "random", lambda: next(numbers))
        for _ in range(4):
            _converse(bedrock.client())
    operations = [bill.operation for bill in bedrock.bill]
    assert operations.count("CountTokens") == 2
    with capture(count_before=0):
        _converse(bedrock.client())
    assert [bill.operation for bill in bedrock.bill].count("CountTokens") == 2


def test_a_wrong_request_is_still_the_users_error(bedrock):
    with capture(count_before=1):
        client = bedrock.client()
        for wrong in ({"messages": 5}, {}, {"messages": [], "memory": 1}, {"body": b""}):
            bare = _error(client, wrong)
            assert bare is not None
        assert _error(client, {"messages": HELLO}) is None


def _error(client, more):
    try:
        client.converse(modelId=SONNET, **more)
    except Exception as error:
        return error
    return None


def test_a_file_is_not_read_before_its_call(bedrock, tmp_path):
    path = tmp_path / "body.json"
    path.write_text(BODY)
    with capture(count_before=1), path.open("rb") as file:
        bedrock.client().invoke_model(modelId=SONNET, body=file)["body"].read()
    assert [bill.operation for bill in bedrock.bill] == ["InvokeModel"]


def test_other_operations_are_not_counted(bedrock):
    with capture(count_before=1):
        client = bedrock.client()
        client.count_tokens(modelId=SONNET[3:], input={"converse": {"messages": HELLO}})
    assert len(bedrock.bill) == 1


@pytest.mark.parametrize("count", ["before", ALWAYS, WHEN_NEEDED])
def test_a_time_limit_that_is_over_in_the_count_breaks_off_the_call(
    bedrock, alarm, monkeypatch, count
):
    options = {"count_before": 1}
    if count != "before":
        options = {"budget": TokenBudget(Limit(input_per_request=5), count=count)}
    urlopen = HTTPConnectionPool.urlopen
    monkeypatch.setattr(HTTPConnectionPool, "urlopen", alarm.before(urlopen))
    with capture(**options):
        client = bedrock.client()
        # As the call itself would say it.
        with pytest.raises(HTTPClientError) as caught:
            _converse(client)
        assert isinstance(caught.value.kwargs["error"], alarm.Late)
        assert bedrock.requests == []
        if count == "before":
            _converse(client)
            assert [bill.operation for bill in bedrock.bill] == ["CountTokens", "Converse"]


def test_what_a_budget_refuses_is_not_counted(bedrock):
    with capture(count_before=1, budget=TokenBudget(Limit(input_per_request=5))):
        with pytest.raises(BudgetExceeded):
            _converse(bedrock.client())
        assert bedrock.requests == []


def test_a_count_that_a_time_limit_ends_gives_back_what_was_reserved(bedrock, alarm, monkeypatch):
    monkeypatch.setattr(HTTPConnectionPool, "urlopen", alarm.before(HTTPConnectionPool.urlopen))
    budget = TokenBudget(Limit(per_day=10**6))
    with capture(count_before=1, budget=budget):
        with pytest.raises(HTTPClientError):
            _converse(bedrock.client())
        assert [spent.total for spent in budget.store._spent.values()] == [0]


def _functions():
    """Every function that a count before a call goes through, by its place."""
    places = [(preflight.Preflight, name) for name in ("_request", "_wants", "_failed", "_say")]
    places += [(counting, "count_tokens"), (asking, "read_input")]
    places += [(asking, name) for name in ("steps", "_base_of", "parse")]
    return places


@pytest.mark.parametrize(("owner", "name"), _functions(), ids=str)
@pytest.mark.parametrize("throttled", [False, True])
def test_a_bug_of_ours_never_reaches_the_call(bedrock, monkeypatch, owner, name, throttled):
    monkeypatch.delenv(shield.RAISE_VARIABLE)

    def broken(*_, **__):
        raise RuntimeError("a bug")

    with capture(count_before=lambda request: True, resolve_models=True) as captured:
        client = bedrock.client()
        if throttled:
            # Taken by CountTokens, where that is asked; else by the call, which is made anew.
            bedrock.throttle()
        monkeypatch.setattr(owner, name, broken)
        for _ in range(2):
            try:
                answer = client.converse(modelId=SONNET, messages=HELLO)
            except client.exceptions.ThrottlingException:
                answer = client.converse(modelId=SONNET, messages=HELLO)
            assert answer["usage"]["inputTokens"] == bedrock.bill[-1].input_tokens
        told = [span for span in captured.spans if span.name.startswith("chat")]
    assert len(told) >= 2
    shield.reset()


def test_it_is_off_unless_asked_for(bedrock):
    assert preflight.current is None
    with capture():
        assert preflight.current is None
        _converse(bedrock.client())
    with capture(count_before=1):
        assert preflight.current is not None
    assert preflight.current is None
    instrument(count_before=0.5)
    assert preflight.current is not None
    uninstrument()
    assert preflight.current is None
    assert len(bedrock.bill) == 1


def test_its_setting_is_a_share_or_a_function():
    assert read_config({}, {"OTEL_BEDROCK_COUNT_BEFORE": "0.1"}).count_before == 0.1
    for wrong in (-0.1, 1.1, "all", float("nan"), True, [1]):
        with pytest.raises(Invalid, match="count_before: expected a share"):
            read_config({"count_before": wrong}, {})
