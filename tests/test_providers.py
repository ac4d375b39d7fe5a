"""Providers: every row has a fixture, every fixture a row, and each is told to the token.

A fixture is one exchange, written by hand from the page that its `about` names: what is asked
(`operation`, `model`, `request`), what comes back (`headers` and `body`, or the `events` of a
stream), the row of `providers.TABLE` and the shape of `shapes.SHAPES` that it is of, and in
`expect` what is told. What is not expected must not be there.
"""

from __future__ import annotations

import json
from pathlib import Path

import botocore.session
import pytest

from otel_bedrock import operations, shapes, signals
from otel_bedrock.model_id import parse
from otel_bedrock.operations import CHAT, TEXT_COMPLETION
from otel_bedrock.paths import dig, first
from otel_bedrock.providers import GENERIC, TABLE, provider_of
from otel_bedrock.request import read_call
from otel_bedrock.testing import FakeBedrock
from otel_bedrock.testing.capture import capture

FIXTURES = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parent / "fixtures").glob("*.json"))
}
ROWS = {row.title: row for row in (*TABLE, GENERIC)}
SHAPES = {shape.name: shape for shape in shapes.SHAPES}

# Families that answer text, and not in a stream.
WITHOUT_STREAM = {"AI21 Jurassic-2"}

# Key of `expect` -> span attribute.
EXPECT = {
    "operation": "gen_ai.operation.name",
    "input": "gen_ai.usage.input_tokens",
    "output": "gen_ai.usage.output_tokens",
    "cache_read": "gen_ai.usage.cache_read.input_tokens",
    "cache_write": "gen_ai.usage.cache_write.input_tokens",
    "cache_write_5m": "bedrock.usage.cache_write.5m.input_tokens",
    "cache_write_1h": "bedrock.usage.cache_write.1h.input_tokens",
    "uncached": "bedrock.usage.uncached.input_tokens",
    "reasoning": "gen_ai.usage.reasoning.output_tokens",
    "source": "bedrock.usage.source",
    "finish_reasons": "gen_ai.response.finish_reasons",
    "response_id": "gen_ai.response.id",
    "response_model": "gen_ai.response.model",
    "base_id": "bedrock.model.base_id",
    "guardrail_action": "bedrock.guardrail.action",
}
PARAMETERS = {
    row.field: row.key
    for row in signals.ATTRIBUTES
    if row.source == signals.PARAMETER and row.field != "stream"
}
COUNTERS = {
    "input": "gen_ai.client.inference.usage.input_tokens",
    "output": "gen_ai.client.inference.usage.output_tokens",
    "cache_read": "gen_ai.client.inference.usage.cache_read.input_tokens",
    "cache_write": "gen_ai.client.inference.usage.cache_write.input_tokens",
    "reasoning": "gen_ai.client.inference.usage.reasoning.output_tokens",
}
KEYS = {"about", "row", "shape", "operation", "model", "request", "expect"}
OPTIONAL = {"headers", "body", "events", "needs"}


@pytest.fixture(scope="module")
def bedrock():
    with FakeBedrock() as server:
        yield server


@pytest.fixture(scope="module")
def client(bedrock):
    return bedrock.client()


def _converse(client, model, request):
    client.converse(modelId=model, **request)


def _converse_stream(client, model, request):
    list(client.converse_stream(modelId=model, **request)["stream"])


def _invoke(client, model, request):
    client.invoke_model(modelId=model, body=json.dumps(request))["body"].read()


def _invoke_stream(client, model, request):
    body = json.dumps(request)
    list(client.invoke_model_with_response_stream(modelId=model, body=body)["body"])


def _start(client, model, request):
    client.start_async_invoke(modelId=model, **request)


CALLS = {
    "Converse": _converse,
    "ConverseStream": _converse_stream,
    "InvokeModel": _invoke,
    "InvokeModelWithResponseStream": _invoke_stream,
    "StartAsyncInvoke": _start,
}


def _replay(bedrock, client, fixture):
    if "events" in fixture:
        native = fixture["operation"] == "InvokeModelWithResponseStream"
        bedrock.reply_events(fixture["events"], native=native)
    else:
        bedrock.reply(fixture["body"], headers=fixture.get("headers"))
    CALLS[fixture["operation"]](client, fixture["model"], fixture["request"])


def _of(attributes, names):
    found = {key: attributes[name] for key, name in names.items() if name in attributes}
    return {key: list(v) if isinstance(v, tuple) else v for key, v in found.items()}


def _exact(told):
    """With the types: 5 and 5.0 are equal, and not the same."""
    return {key: (type(value), value) for key, value in told.items()}


@pytest.mark.parametrize("name", FIXTURES)
def test_an_exchange_is_told_as_expected(name, bedrock, client):
    fixture = FIXTURES[name]
    needs = fixture.get("needs")
    model = botocore.session.get_session().get_service_model("bedrock-runtime")
    if needs and needs not in model.shape_names:
        pytest.skip(f"the installed botocore has no {needs}")
    expect = dict(fixture["expect"])
    parameters, missing = expect.pop("parameters"), expect.pop("missing", None)
    with capture() as captured:
        _replay(bedrock, client, fixture)
        attributes = captured.span.attributes
        points = captured.points
    assert _exact(_of(attributes, EXPECT)) == _exact(expect)
    assert _of(attributes, PARAMETERS) == parameters
    assert captured.span.status.status_code.name == "UNSET"

    counted = {
        key: sum(point.value for point in points if point.metric == metric)
        for key, metric in COUNTERS.items()
        if any(point.metric == metric for point in points)
    }
    assert counted == {key: expect[key] for key in COUNTERS if key in expect}
    by_ttl = {
        point.attributes[signals.TTL]: point.value
        for point in points
        if point.metric == COUNTERS["cache_write"]
    }
    if expect.get("cache_write"):
        split = {ttl: expect.get(f"cache_write_{ttl}") for ttl in ("5m", "1h")}
        known = {ttl: count for ttl, count in split.items() if count is not None}
        assert by_ttl == (known or {signals.TTL_UNKNOWN: expect["cache_write"]})
    told_missing = {
        point.attributes[signals.MISSING_REASON]: point.value
        for point in points
        if point.metric == "bedrock.client.usage.missing"
    }
    assert told_missing == ({missing: 1} if missing else {})


@pytest.mark.parametrize("name", FIXTURES)
def test_a_fixture_is_of_the_row_that_it_names(name):
    fixture = FIXTURES[name]
    row = provider_of(parse(fixture["model"]))
    assert fixture["row"] == row.title
    if row.provider is not None:
        assert name.startswith(f"{row.provider}-")


def _sources(fixture):
    """Return the bodies that may hold something: the one, or those of the events."""
    events = fixture.get("events") or [fixture["body"]]
    return [event.get("metadata", event) if _talks(fixture) else event for event in events]


def _talks(fixture):
    return fixture["operation"] == "ConverseStream"


def _shape_of(fixture):
    """Return the name of the first shape that the body, or one of the events, has."""
    for body in _sources(fixture):
        counts = first(body, shapes.ROOTS)
        for rows, data in ((shapes.USAGE_SHAPES, counts), (shapes.BODY_SHAPES, body)):
            for shape in rows:
                if first(data, shape.anchors) is not None:
                    return shape.name
    return None


@pytest.mark.parametrize("name", FIXTURES)
def test_a_fixture_is_of_the_shape_that_it_names(name):
    assert FIXTURES[name]["shape"] == _shape_of(FIXTURES[name])


@pytest.mark.parametrize("name", FIXTURES)
def test_a_fixture_has_what_fixtures_have(name):
    fixture = FIXTURES[name]
    assert KEYS <= set(fixture) <= KEYS | OPTIONAL
    assert ("events" in fixture) != ("body" in fixture)
    expect = fixture["expect"]
    assert {"operation", "parameters"} <= set(expect)
    assert set(expect) <= set(EXPECT) | {"parameters", "missing"}
    assert set(expect["parameters"]) <= set(PARAMETERS)


@pytest.mark.parametrize("title", ROWS)
def test_a_row_has_a_fixture(title):
    assert [name for name, one in FIXTURES.items() if one["row"] == title and "body" in one]


@pytest.mark.parametrize("title", ROWS)
def test_a_row_that_streams_has_a_stream(title):
    streams = ROWS[title].operation in (CHAT, TEXT_COMPLETION, None) and title not in WITHOUT_STREAM
    found = [name for name, one in FIXTURES.items() if one["row"] == title and "events" in one]
    assert bool(found) == streams


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_has_a_fixture(shape):
    assert [name for name, one in FIXTURES.items() if one["shape"] == shape and "body" in one]


def _reached(paths, bodies):
    return {path for path in paths if any(dig(body, path) is not None for body in bodies)}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.title)
def test_every_path_of_a_row_leads_somewhere(row):
    """A path that no exchange has is a guess, or a misspelling."""
    fixtures = [one for one in FIXTURES.values() if one["row"] == row.title]
    answers = [body for one in fixtures for body in _sources(one)]
    paths = {*row.finish_reason, *row.response_id, *row.response_model}
    assert _reached(paths, answers) == paths
    # One vocabulary of requests may be that of several rows.
    speak = {other.title for other in TABLE if other.parameters is row.parameters}
    requests = [
        one["request"] for one in FIXTURES.values() if one["row"] in speak | {GENERIC.title}
    ]
    asked = {path for paths in row.parameters.values() for path in paths}
    assert _reached(asked, requests) == asked


@pytest.mark.parametrize("shape", shapes.SHAPES, ids=lambda shape: shape.name)
def test_every_count_of_a_shape_is_somewhere(shape):
    fixtures = [one for one in FIXTURES.values() if one["shape"] == shape.name]
    bodies = [body for one in fixtures for body in _sources(one)]
    places = [first(body, shapes.ROOTS) for body in bodies] + bodies
    for name in (*shapes.FIELDS, "details"):
        paths = set(getattr(shape, name))
        assert _reached(paths, places) == paths, f"{shape.name}: {name}"


def test_a_fixture_of_another_row_is_noticed(monkeypatch):
    """The test itself can fail."""
    wrong = {**FIXTURES["meta-llama"], "model": "mistral.mistral-7b-instruct-v0:2"}
    monkeypatch.setitem(FIXTURES, "meta-llama", wrong)
    with pytest.raises(AssertionError):
        test_a_fixture_is_of_the_row_that_it_names("meta-llama")


def test_a_row_without_a_fixture_is_noticed(monkeypatch):
    monkeypatch.delitem(FIXTURES, "stability-image")
    with pytest.raises(AssertionError):
        test_a_row_has_a_fixture("Stability")


@pytest.mark.parametrize("size", [10, 100_000])
@pytest.mark.parametrize(
    ("body", "operation"),
    [
        ({"prompt": "x"}, TEXT_COMPLETION),
        ({"messages": [{"role": "user", "content": 'the "prompt"'}]}, CHAT),
        ({"tools": [{"properties": {"prompt": {}, "texts": {}}}], "messages": []}, CHAT),
        ({"texts": ["x"], "input_type": "search_query"}, "embeddings"),
        ({"inputText": "x", "dimensions": 256}, "embeddings"),
        ({"query": "x", "documents": ["y"]}, "retrieval"),
        ({"instruction": "x"}, CHAT),
    ],
)
@pytest.mark.parametrize("kind", [str, str.encode])
def test_an_operation_is_the_same_however_long_the_request(body, operation, size, kind):
    text = kind(json.dumps({**body, "padding": "x" * size}))
    row = operations.TABLE["bedrock-runtime", "InvokeModel"]
    call, _ = read_call(row, {"modelId": "imported.model-of-somebody", "body": text})
    assert call.operation == operation


def test_of_a_long_request_the_ends_are_looked_at_and_no_more():
    """A request with a picture has megabytes, and each look through all of them is milliseconds."""
    row = operations.TABLE["bedrock-runtime", "InvokeModel"]
    long = "x" * 100_000
    between = {"a": long, "prompt": "x", "b": long}
    around = {"inputText": long, "dimensions": 256}
    for body, operation in ((between, CHAT), (around, "embeddings")):
        asked = {"modelId": "imported.model-of-somebody", "body": json.dumps(body).encode()}
        assert read_call(row, asked)[0].operation == operation
