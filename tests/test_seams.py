"""The private places of others that we stand on: known by their source, and missing without harm.

HOW TO UPDATE, when a row of PLACES fails after a new release of what it names:

1. Read the difference between the release that was accepted and the new one, at the place that
   the failure names, for what the row relies on.
2. Run tests/test_transparency.py, tests/test_abandoned.py and tests/test_aio.py with the new
   release: what the caller sees, bare and instrumented, and every end that is told.
3. If both are well, add the new hash to the row (the failure prints it); else mend `patch.py`,
   `streams.py` or `aio_streams.py` first. Hashes of releases below the lower bounds in
   pyproject.toml come out.

Nothing of this is asked at run time: there, a place that is missing costs some telemetry and one
warning, which is what the rest of this file is about.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import logging
import textwrap
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.client import BaseClient
from botocore.eventstream import EventStream
from botocore.response import StreamingBody
from transparency import (
    BODY,
    BODY_HEADERS,
    CLAUDE,
    CONVERSE,
    REQUEST,
    Stage,
    Told,
    check_told,
    instrumented,
)

import otel_bedrock
from otel_bedrock import aio_streams, bodies, streams

# The first so many characters of the SHA-256 of a place's dedented source.
_LENGTH = 12
# Accepted where a release that is supported does not have the place.
ABSENT = "absent"


@dataclass(frozen=True)
class Place:
    """One place, what we rely on there, and the sources that were read and found to be so."""

    module: str
    name: str
    relies: str
    accepted: tuple[str, ...]


_CALL = "called as (operation_name, api_params) for every call, and returns what the caller gets"
_EVENTS = "every event comes from `_event_generator` and goes through `_parse_event`"
_BELOW = "reads from `_raw_stream` by its public methods, and from nowhere else"
_READS = "what reads the body comes to `read`, `read1` or `read_chunked` of the same object"
_CONTENT = "reads from `content` of aiohttp's response, which it holds, and from nowhere else"

PLACES = (
    Place(
        "botocore.client",
        "BaseClient._make_api_call",
        _CALL,
        # botocore 1.37.24, 1.42.5, 1.43.117
        ("2202bba1b9a7", "9472248f902c", "8cf5e08d8ddc"),
    ),
    Place(
        "botocore.eventstream",
        "EventStream.__init__",
        "makes `_event_generator`, and keeps the response as `_raw_stream`",
        ("2b16e8f4919b",),
    ),
    Place("botocore.eventstream", "EventStream.__iter__", _EVENTS, ("03af6d59162b",)),
    Place(
        "botocore.eventstream",
        "EventStream._create_raw_event_generator",
        "a generator, which has read nothing before its first step",
        ("8ca82ed042ab",),
    ),
    Place(
        "botocore.eventstream",
        "EventStream._parse_event",
        "returns the event, nothing for one that is left out, or raises the stream's error",
        ("3ad6ae1734d5",),
    ),
    Place(
        "botocore.eventstream",
        "EventStream.get_initial_response",
        "takes its event from `_event_generator`",
        ("1e0cc21948cf",),
    ),
    Place(
        "botocore.eventstream",
        "EventStream.close",
        "closes `_raw_stream`, and nothing else",
        ("4f3b330aca6c",),
    ),
    Place("botocore.response", "StreamingBody.read", _BELOW, ("e104e58f7d17",)),
    # botocore 1.37 has none of its own.
    Place("botocore.response", "StreamingBody.readinto", _BELOW, (ABSENT, "12432e596564")),
    Place("botocore.response", "StreamingBody.readlines", _BELOW, ("017e0642fc91",)),
    Place("botocore.response", "StreamingBody.__next__", _BELOW, ("cd965968a9c3",)),
    Place(
        "botocore.response",
        "StreamingBody.__enter__",
        "hands out `_raw_stream` itself",
        ("af459dd3b766",),
    ),
    Place(
        "botocore.response",
        "StreamingBody.__exit__",
        "closes `_raw_stream` past the body's own `close`",
        ("98f99cc10334",),
    ),
    Place(
        "botocore.response",
        "StreamingBody.close",
        "closes `_raw_stream`, and nothing else",
        ("13a9e180497b",),
    ),
    # urllib3 1.26.20, 2.8.0
    Place("urllib3.response", "HTTPResponse.read", _READS, ("a63a92d581ea", "ad499c036927")),
    Place("urllib3.response", "HTTPResponse.read1", _READS, (ABSENT, "20f69d20bdf1")),
    Place("urllib3.response", "HTTPResponse.stream", _READS, ("6835302e3335", "2c82c8d1a7f5")),
    Place(
        "urllib3.response", "HTTPResponse.read_chunked", _READS, ("ef014cae016a", "bdc15a0c3088")
    ),
    Place("urllib3.response", "BaseHTTPResponse.readinto", _READS, (ABSENT, "100a370134fc")),
    Place("urllib3.response", "HTTPResponse.__iter__", _READS, ("ef91747730a1", "4106551d741b")),
    Place(
        "urllib3.response",
        "HTTPResponse.closed",
        "true at the end of the data, and after `close`",
        ("3da030bc79bd", "13246f870571"),
    ),
    Place(
        "aiobotocore.client",
        "AioBaseClient._make_api_call",
        _CALL,
        # aiobotocore 2.23.0, 3.0.0, 3.10.0
        ("dfc92fa822b7", "964f48d430d8", "9416446a5d83"),
    ),
    Place(
        "aiobotocore.eventstream",
        "AioEventStream.__aiter__",
        "a new generator for each loop, over the one `_event_generator`",
        ("7bcf9520fbbb",),
    ),
    Place("aiobotocore.eventstream", "AioEventStream.__anext__", _EVENTS, ("a9f75f9b0b3f",)),
    Place(
        "aiobotocore.eventstream",
        "AioEventStream._create_raw_event_generator",
        "an asynchronous generator, which has read nothing before its first step",
        ("459113bbee78",),
    ),
    Place(
        "aiobotocore.eventstream",
        "AioEventStream._parse_event",
        "returns the event, nothing for one that is left out, or raises the stream's error",
        ("cf4e12cbb860",),
    ),
    Place(
        "aiobotocore.eventstream",
        "AioEventStream.get_initial_response",
        "takes its event from `_event_generator`",
        ("8fd0ffbba184",),
    ),
    # Older ones have the aiohttp response as `__wrapped__`, newer ones as `_raw_stream`.
    Place(
        "aiobotocore.response",
        "StreamingBody.read",
        _CONTENT,
        ("7883075a4bd0", "6e0e73a99899"),
    ),
    Place(
        "aiobotocore.response",
        "StreamingBody.readinto",
        _CONTENT,
        ("1659909a4473", "1f5ebf43b1bb"),
    ),
    Place(
        "aiobotocore.response",
        "HttpxStreamingBody.read",
        "reads from httpx's response, which it holds, and from nowhere else",
        ("82899949ddbe", "30567e650eec"),
    ),
    Place(
        "aiohttp.client_reqrep",
        "ClientResponse._notify_content",
        "what `close`, `release` and the end of `async with` come to",
        # aiohttp 3.9.5, 3.14.5
        ("eb12750aea32", "a98e3fc0d2c3"),
    ),
    Place(
        "aiohttp.streams",
        "StreamReader._read_nowait_chunk",
        "takes every piece off `_buffer`, a deque, by `popleft`",
        ("c800fe724d7c", "be0f67a2db89"),
    ),
    Place(
        "httpx._client",
        "BoundAsyncStream",
        "iterates and closes `_stream`, and nothing else",
        ("8cd576810ca1",),
    ),
    Place(
        "httpx2._client",
        "BoundAsyncStream",
        "iterates and closes `_stream`, and nothing else",
        ("a6d744c1e880",),
    ),
)


def _source(place: Place) -> str | None:
    """Return the dedented source of `place`, None where it is not there."""
    found: Any = importlib.import_module(place.module)
    for step in place.name.split("."):
        found = getattr(found, step, None)
    # One that a base class far away has, as IOBase's readinto, has no source.
    found = getattr(found, "fget", found)
    if found is None or not (inspect.isclass(found) or inspect.isfunction(inspect.unwrap(found))):
        return None
    return textwrap.dedent(inspect.getsource(found))


def _hash(source: str | None) -> str:
    return ABSENT if source is None else hashlib.sha256(source.encode()).hexdigest()[:_LENGTH]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_a_private_place_that_we_stand_on_is_as_it_was_read(place):
    pytest.importorskip(place.module)
    source = _source(place)
    if _hash(source) not in place.accepted:
        pytest.fail(
            f"{place.module}: {place.name} is {_hash(source)}, which nobody has read yet;"
            f" accepted are {', '.join(place.accepted)}.\nWe rely on this: {place.relies}.\n"
            f"See HOW TO UPDATE in {__name__}.\n\n{source}",
            pytrace=False,
        )


def test_each_object_that_we_put_names_on_has_a_place_in_the_table():
    known = {f"{place.module}.{place.name}".split(".")[0] for place in PLACES}
    assert {name.split(".")[0] for name in streams.SEAMS} <= known


# --- A place that is missing ---------------------------------------------------------------


@pytest.fixture(scope="module")
def stage():
    made = Stage()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _say_again(stage, monkeypatch):
    stage.clear()
    monkeypatch.setattr("otel_bedrock.bracket._said_unwatchable", set())


def _warnings(caplog):
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "otel_bedrock" and record.levelno >= logging.WARNING
    ]


class OtherStream:
    """An EventStream of another make: nothing of it is called as we know it."""

    def __init__(self, *args):
        self._inside = EventStream(*args)

    def __iter__(self):
        return iter(self._inside)

    def close(self):
        self._inside.close()


class RenamedStream(EventStream):
    """The EventStream that we know, but for the name of its generator."""

    def __init__(self, *args):
        super().__init__(*args)
        self._events = vars(self).pop("_event_generator")

    def __iter__(self):
        return (parsed for event in self._events if (parsed := self._parse_event(event)))


class OtherBody:
    """A StreamingBody of another make."""

    def __init__(self, source, length):
        self._source = source

    def read(self, amount=None):
        return self._source.read(amount)

    def close(self):
        self._source.close()


class BodyWithoutClose:
    """A StreamingBody that is closed by others."""

    def __init__(self, source, length):
        self._raw_stream = source

    def read(self, amount=None):
        return self._raw_stream.read(amount)


# What the headers of BODY_HEADERS tell, without the body.
HEADERS = Told(input=19, output=7, read=5, write=3)


@pytest.mark.parametrize("kind", [OtherStream, RenamedStream])
def test_a_stream_of_another_make_works_and_is_told_without_its_usage(
    stage, monkeypatch, caplog, kind
):
    monkeypatch.setattr("botocore.parsers.EventStream", kind)

    def ask():
        stage.bedrock.reply_events(list(CONVERSE.events))
        return list(CONVERSE.call(stage.client())[CONVERSE.member])

    bare = ask()
    with instrumented() as (captured, opened):
        assert [ask(), ask()] == [bare, bare]
        check_told(captured, opened, (Told(missing="unsupported"),) * 2)
    (said,) = _warnings(caplog)
    assert f"{kind.__name__} cannot be observed" in said


class AnsweringStream(EventStream):
    """An EventStream that has an answer to every name, itself."""

    asked = 0

    def __getattr__(self, name):
        self.asked += 1
        assert self.asked < 1000
        return self


def test_a_stream_that_has_every_name_is_watched(stage, monkeypatch):
    monkeypatch.setattr("botocore.parsers.EventStream", AnsweringStream)
    with instrumented() as (captured, opened):
        stage.bedrock.reply_events(list(CONVERSE.events))
        assert list(CONVERSE.call(stage.client())[CONVERSE.member])
        check_told(captured, opened, (CONVERSE.whole,))


@pytest.mark.parametrize("kind", [OtherBody, BodyWithoutClose])
def test_a_body_of_another_make_is_read_and_told_by_its_headers(stage, monkeypatch, caplog, kind):
    monkeypatch.setattr("botocore.endpoint.StreamingBody", kind)

    def ask():
        stage.bedrock.reply(BODY, headers=BODY_HEADERS)
        return stage.client().invoke_model(modelId=CLAUDE, body=REQUEST)["body"].read()

    bare = ask()
    with instrumented() as (captured, opened):
        assert [ask(), ask()] == [bare, bare]
        check_told(captured, opened, (HEADERS,) * 2)
    (said,) = _warnings(caplog)
    assert "cannot be observed" in said


@pytest.fixture
def other_botocore(monkeypatch):
    """botocore with another name for what makes each call."""
    method = vars(BaseClient)["_make_api_call"]
    fallback = vars(BaseClient)["__getattr__"]

    def find(client, name):
        return method.__get__(client) if name == "_make_api_call" else fallback(client, name)

    monkeypatch.delattr(BaseClient, "_make_api_call")
    monkeypatch.setattr(BaseClient, "__getattr__", find)


def test_a_botocore_of_another_make_is_called_as_ever_and_said_once(stage, caplog, other_botocore):
    def ask():
        stage.bedrock.reply_events(list(CONVERSE.events))
        return list(CONVERSE.call(stage.client())[CONVERSE.member])

    bare = ask()
    with instrumented() as (captured, opened):
        assert [ask(), ask()] == [bare, bare]
        check_told(captured, opened, ())
    (said,) = _warnings(caplog)
    assert "botocore.client has no BaseClient._make_api_call" in said
    assert "are not reported" in said


def test_instrumenting_a_botocore_of_another_make_and_taking_it_back_raises_nothing(
    caplog, other_botocore
):
    otel_bedrock.instrument()
    otel_bedrock.uninstrument()
    assert len(_warnings(caplog)) == 1
    assert "_make_api_call" not in vars(BaseClient)


class _Nobody:
    """An observer that must not be told anything."""

    def see(self, piece):
        raise AssertionError("told of a piece")

    def ended(self, error, *, exhausted=False):
        raise AssertionError("told of an end")

    def dropped(self, error=None):
        raise AssertionError("told of a drop")


@pytest.mark.parametrize(
    "watch",
    [streams.watch_events, bodies.watch_body, aio_streams.watch_events, aio_streams.watch_body],
    ids=["stream", "body", "awaited stream", "awaited body"],
)
@pytest.mark.parametrize("thing", [None, object(), {}, StreamingBody(None, 0), OtherBody(None, 0)])
def test_what_is_not_made_as_we_know_it_is_left_untouched(watch, thing):
    before = dict(getattr(thing, "__dict__", {}))
    with pytest.raises(streams.Unwatchable):
        watch(thing, _Nobody())
    assert getattr(thing, "__dict__", {}) == before
