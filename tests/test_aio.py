"""aiobotocore and aioboto3: what the caller awaits is the same, and all of it is told once."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import inspect
import logging
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("aiobotocore", reason="left out: aiobotocore is not installed")

import aiobotocore.client
import botocore.client
from aio_stage import AIOHTTP, HTTPX, Scene, Stage, compare, httpx_is_there
from opentelemetry import trace
from programs import run
from transparency import (
    BODY,
    BODY_HEADERS,
    CLAUDE,
    DIALECTS,
    MESSAGES,
    REQUEST,
    Dialect,
    Told,
    instrumented,
)

from otel_bedrock import aio_streams, bracket
from otel_bedrock.testing.capture import capture
from otel_bedrock.testing.frames import encode_chunk, encode_event


@dataclass(frozen=True)
class Behaviour:
    """One row: what is done, by which dialect and backend, and what the calls of it tell."""

    act: Callable[[Scene], Awaitable[Any]]
    told: tuple[Told, ...]
    dialect: Dialect | None = None
    backend: str = AIOHTTP
    # Whether the body's own words are told as well; None where that is not looked at.
    read: bool | None = None

    @property
    def id(self) -> str:
        name = self.act.__name__.strip("_")
        kind = self.backend if self.dialect is None else self.dialect.name
        return f"{name}-{kind}"

    def check(self, captured: Any) -> None:
        if self.read is not None:
            attributes = captured.span.attributes
            reasons = attributes.get("gen_ai.response.finish_reasons")
            assert reasons == (("end_turn",) if self.read else None)
            assert attributes.get("gen_ai.response.id") == ("msg_1" if self.read else None)


BEHAVIOURS: list[Behaviour] = []
WHOLE, HALF, NONE = "whole", "half", "none"
FULL = Told(input=19, output=7, read=5, write=3)

# With aiobotocore's older body over httpx, `read()` is all that there is.
NEWER_HTTPX = httpx_is_there() and hasattr(
    getattr(__import__("aiobotocore.response").response, "HttpxStreamingBody", None), "iter_chunks"
)


def stream(ends: str = WHOLE, *, error: str | None = None, missing: str | None = "aborted"):
    """Add a behaviour for both dialects; a stream of it ends `whole`, `half`-way or unread."""

    def add(act):
        for dialect in DIALECTS:
            told = {WHOLE: dialect.whole, HALF: dialect.half, NONE: Told()}[ends]
            if ends != WHOLE:
                reason = "error" if error else missing
                told = Told(**{**vars(told), "missing": reason, "error": error})
            BEHAVIOURS.append(Behaviour(act, (told,), dialect))
        return act

    return add


def call(*told: Told):
    """Add a behaviour whose calls tell `told`."""

    def add(act):
        BEHAVIOURS.append(Behaviour(act, told))
        return act

    return add


def body(read: bool | None, *told: Told, httpx: bool = NEWER_HTTPX, aiohttp: bool = True):
    """Add a behaviour of a body, for every backend that there is."""

    def add(act):
        for backend, wanted in ((AIOHTTP, aiohttp), (HTTPX, httpx and httpx_is_there())):
            if wanted:
                BEHAVIOURS.append(Behaviour(act, told or (FULL,), None, backend, read))
        return act

    return add


@pytest.fixture(scope="module")
def stage():
    made = Stage()
    gc.collect()
    gc.freeze()
    yield made
    gc.unfreeze()
    made.close()


@pytest.fixture
def bedrock(stage):
    stage.clear()
    return stage.bedrock


def script(scene, *events, **more):
    """Let the next stream be the dialect's own events, or these."""
    scene.bedrock.reply_events(list(events or scene.dialect.events), **more)


async def whole(stream):
    """Take all events of a stream."""
    return [event async for event in stream]


async def half(stream, count=4):
    """Take the first events of a stream, and leave the loop by break."""
    events = []
    async for event in stream:
        events.append(event)
        if len(events) == count:
            break
    return events


async def until(condition):
    """Wait for what another thread or task does."""
    while not condition():  # noqa: ASYNC110 - they set no event
        await asyncio.sleep(0.001)


async def closing(thing):
    """Close what is closed at once, or awaited."""
    given = thing.close()
    return await given if inspect.isawaitable(given) else given


# --- Streams: read to the end ---


@stream()
async def _exhausted(scene):
    script(scene)
    stream = await scene.stream()
    scene.saw("kind", (type(stream), callable(stream.close)))
    scene.saw("members", sorted(name for name in dir(stream) if not name.startswith("_")))
    events = stream.__aiter__()
    scene.saw("iterator", (type(events), events.__aiter__() is events, inspect.isasyncgen(events)))
    scene.saw("events", [event async for event in events])
    scene.pool()


@stream()
async def _what_others_put_on_the_stream(scene):
    def put(thing, name):
        before = getattr(thing, name)

        def noting(*args, **kwargs):
            scene.saw(name, kwargs)
            return before(*args)

        setattr(thing, name, noting)

    def hook(parsed, **_):
        put(parsed[scene.dialect.member], "_parse_event")
        put(parsed[scene.dialect.member], "close")

    events = scene.client.meta.events
    script(scene)
    events.register("after-call.bedrock-runtime", hook)
    stream = await scene.stream()
    scene.saw("events", await whole(stream))
    stream.close(by="name")


@stream()
async def _exhausted_then_closed_twice(scene):
    script(scene)
    stream = await scene.stream()
    scene.saw("events", await whole(stream))
    scene.saw("closed", [stream.close(), stream.close()])
    scene.pool()


@stream()
async def _iterated_again_after_the_end(scene):
    script(scene)
    stream = await scene.stream()
    scene.saw("events", await whole(stream))
    scene.saw("again", await whole(stream))


@stream()
async def _left_by_break_and_resumed_to_the_end(scene):
    script(scene)
    stream = await scene.stream()
    scene.saw("first", await half(stream))
    await scene.collected()
    scene.saw("rest", await whole(stream))
    scene.pool()


@stream()
async def _left_by_break_many_times(scene):
    script(scene)
    stream = await scene.stream()
    for _ in scene.dialect.events:
        scene.saw("one", await half(stream, 1))
        await scene.collected()
    scene.saw("rest", await whole(stream))


@stream()
async def _an_iterator_closed_and_the_stream_iterated_again(scene):
    script(scene)
    stream = await scene.stream()
    events = stream.__aiter__()
    scene.saw("first", await events.__anext__())
    scene.saw("close", await events.aclose())
    await scene.tried("after close", events.__anext__)
    scene.saw("rest", await whole(stream))


@stream()
async def _an_iterator_thrown_into_and_the_stream_iterated_again(scene):
    script(scene)
    stream = await scene.stream()
    events = stream.__aiter__()
    scene.saw("first", await events.__anext__())
    await scene.tried("thrown", lambda: events.athrow(KeyError("mine")))
    scene.saw("rest", await whole(stream))


@stream()
async def _two_iterators_taking_turns(scene):
    script(scene)
    stream = await scene.stream()
    one, two = stream.__aiter__(), stream.__aiter__()
    turns = [await each.__anext__() for each in (one, two, one, two)]
    scene.saw("turns", [*turns, *await whole(one), *await whole(two)])


@stream()
async def _events_changed_by_the_caller(scene):
    script(scene)
    async for event in await scene.stream():
        scene.saw("event", event)
        for value in event.values():
            value.clear()
        event.clear()


@stream()
async def _frames_that_straddle_reads(scene):
    scene.bedrock.chunk_size = 7
    script(scene)
    scene.saw("events", await whole(await scene.stream()))


@stream()
async def _one_after_the_other_with_waits(scene):
    scene.bedrock.slow(first=0.01, each=0.002)
    script(scene)
    scene.saw("events", await whole(await scene.stream()))


@stream()
async def _made_in_one_task_iterated_in_another_closed_in_a_third(scene):
    script(scene)
    stream = await asyncio.create_task(scene.stream())
    scene.saw("events", await asyncio.create_task(whole(stream)))

    async def close():
        return stream.close()

    scene.saw("close", await asyncio.create_task(close()))


@stream()
async def _each_event_taken_by_a_new_task(scene):
    script(scene)
    events = (await scene.stream()).__aiter__()

    async def take():
        return await events.__anext__()

    while await scene.tried("event", lambda: asyncio.create_task(take())) is not None:
        pass


@stream()
async def _iterated_as_it_comes(scene):
    """Nothing but the loop holds answer and stream."""
    script(scene)
    call = scene.dialect.call(scene.client)
    async for event in (await call)[scene.dialect.member]:
        scene.saw("event", event)
        gc.collect()


@stream()
async def _asked_for_its_initial_response(scene):
    first = ("initial-response", b"{}")
    script(scene, first, *scene.dialect.events)
    stream = await scene.stream()
    initial = await stream.get_initial_response()
    scene.saw("initial", (type(initial), initial.payload, initial.headers))
    scene.saw("events", await whole(stream))


@stream()
async def _events_of_an_unknown_kind(scene):
    events = list(scene.dialect.events)
    events.insert(1, ("somethingNew", b'{"a": [1, {"b": null}]}'))
    script(scene, *events)
    scene.saw("events", await whole(await scene.stream()))


@stream()
async def _an_attribute_of_the_callers_own(scene):
    script(scene)
    stream = await scene.stream()
    stream.mine = "mine"
    scene.saw("events", await whole(stream))
    scene.saw("mine", stream.mine)


@stream()
async def _iterated_without_async(scene):
    script(scene)
    stream = await scene.stream()
    await scene.tried("for", lambda: list(stream))
    scene.saw("events", await whole(stream))


@stream()
async def _freed_as_soon_as_nobody_holds_it(scene):
    script(scene)
    stream = await scene.stream()
    references = [weakref.ref(stream), weakref.ref(stream._raw_stream)]
    scene.saw("events", await whole(stream))
    del stream
    scene.saw("freed", [reference() is None for reference in references])


# --- Streams: left before the end ---


@stream(HALF)
async def _left_by_break_and_dropped(scene):
    script(scene)
    stream = await scene.stream()
    scene.saw("first", await half(stream))
    del stream
    await scene.collected()


@stream(HALF)
async def _left_by_break_and_dropped_at_exit(scene):
    script(scene)
    stream = await scene.stream()
    scene.saw("first", await half(stream))


@stream(HALF)
async def _left_by_break_and_closed(scene):
    script(scene)
    stream = await scene.stream()
    scene.saw("first", await half(stream))
    scene.saw("close", stream.close())
    scene.pool()


@stream(HALF)
async def _left_by_break_closed_and_resumed(scene):
    script(scene)
    stream = await scene.stream()
    scene.saw("first", await half(stream))
    scene.saw("close", stream.close())
    await scene.tried("rest", lambda: whole(stream))
    await scene.tried("rest again", lambda: whole(stream))


@stream(HALF)
async def _left_by_an_error_of_the_callers(scene):
    script(scene)
    count = 0
    async for event in await scene.stream():
        scene.saw("event", event)
        count += 1
        if count == 4:
            raise KeyError("mine")


@stream(NONE)
async def _never_iterated(scene):
    script(scene)
    await scene.stream()
    await scene.collected()


@stream(NONE)
async def _never_iterated_and_closed(scene):
    script(scene)
    stream = await scene.stream()
    scene.saw("close", stream.close())
    scene.pool()


@stream(NONE)
async def _an_iterator_never_started(scene):
    script(scene)
    stream = await scene.stream()
    scene.saw("iterator", type(stream.__aiter__()))
    del stream
    await scene.collected()


# --- Streams: broken ---


@stream(HALF, error="throttlingException")
async def _an_exception_event_in_the_middle(scene):
    failure = {"throttlingException": {"message": "Too many tokens"}}
    script(scene, *scene.dialect.events[:4], failure)
    stream = await scene.stream()
    await scene.tried("events", lambda: whole(stream))
    await scene.tried("again", lambda: whole(stream))


@stream(HALF, error="ClientPayloadError")
async def _a_connection_cut_in_the_middle(scene):
    scene.bedrock.break_stream(after=4)
    script(scene)
    stream = await scene.stream()
    await scene.tried("events", lambda: whole(stream))
    await scene.tried("again", lambda: whole(stream))


@stream(HALF, error="ChecksumMismatch")
async def _a_frame_with_a_wrong_checksum(scene):
    scene.bedrock.corrupt_stream(after=4)
    script(scene)
    stream = await scene.stream()
    await scene.tried("events", lambda: whole(stream))


@stream(HALF, error="CancelledError")
async def _cancelled_while_it_waits_for_an_event(scene):
    """Each event is here before the next one exists."""
    async with stalling(scene):
        stream = await scene.stream()
        taken = []

        async def take():
            async for event in stream:
                taken.append(event)  # noqa: PERF401 - it is cancelled in the middle

        task = asyncio.create_task(take())
        await until(lambda: len(taken) == 4)
        await asyncio.sleep(0.01)
        task.cancel()
        await scene.tried("cancelled", lambda: task)
        scene.saw("taken", taken)
        await scene.tried("again", lambda: whole(stream))


@stream(HALF, error="CancelledError")
async def _timed_out_while_it_waits_for_an_event(scene):
    async with stalling(scene):
        stream = await scene.stream()
        events = stream.__aiter__()
        for _ in range(4):
            scene.saw("event", await events.__anext__())
        await scene.tried("timed out", lambda: asyncio.wait_for(events.__anext__(), 0.01))
        await scene.tried("again", events.__anext__)
        scene.saw("close", stream.close())


@stream(HALF)
async def _left_waiting_for_an_event_at_exit(scene):
    """The loop ends, and cancels what waits, after the stream's last holder is gone."""
    async with stalling(scene):
        stream = await scene.stream()
        scene.saw("first", await half(stream))
        del stream
        await scene.collected()


def stalling(scene):
    """Return a client whose streams send four events, and then nothing."""
    events = scene.dialect.events[:4]
    if scene.dialect.member == "body":
        frames = [encode_chunk(event) for event in events]
    else:
        frames = [encode_event(*item) for event in events for item in event.items()]
    sent = b"".join(b"%x\r\n%s\r\n" % (len(frame), frame) for frame in frames)
    scene.raw.prepare(sent, "Transfer-Encoding: chunked")
    return scene.using(raw=True)


# --- Calls ---


@call(Told(input=19, output=7, read=5, write=3))
async def _converse(scene):
    scene.bedrock.reply(
        {
            "output": {"message": {"role": "assistant", "content": [{"text": "yes"}]}},
            "stopReason": "end_turn",
            "usage": {
                "inputTokens": 11,
                "outputTokens": 7,
                "totalTokens": 26,
                "cacheReadInputTokens": 5,
                "cacheWriteInputTokens": 3,
            },
            "metrics": {"latencyMs": 1},
        }
    )
    scene.saw("answer", await scene.client.converse(modelId=CLAUDE, messages=MESSAGES))
    scene.pool()


@call(Told())
async def _count_tokens(scene):
    if not hasattr(scene.client, "count_tokens"):
        # Older versions of botocore do not know it: let another call without usage stand in.
        await _guard(scene)
        return
    scene.bedrock.reply({"inputTokens": 12})
    asked = {"converse": {"messages": MESSAGES}}
    scene.saw("answer", await scene.client.count_tokens(modelId=CLAUDE, input=asked))


async def _guard(scene):
    text = {"text": {"text": "how many tokens"}}
    scene.saw(
        "answer",
        await scene.client.apply_guardrail(
            guardrailIdentifier="abc", guardrailVersion="1", source="INPUT", content=[text]
        ),
    )


@call(Told())
async def _apply_guardrail(scene):
    await _guard(scene)


@call(Told(error="ThrottlingException", missing="error"))
async def _throttled(scene):
    scene.bedrock.throttle()
    converse = scene.client.converse
    await scene.tried("answer", lambda: converse(modelId=CLAUDE, messages=MESSAGES))


@call(FULL)
async def _retried_by_the_sdk(scene):
    async with scene.using(retries={"total_max_attempts": 3, "mode": "standard"}):
        scene.bedrock.throttle()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("random.random", lambda: 0.0)
            await _converse(scene)


@call(Told(error="ParamValidationError", missing="error"))
async def _refused_by_botocore(scene):
    await scene.tried("answer", lambda: scene.client.converse(messages=MESSAGES))


@call(Told(error="CancelledError", missing="error"))
async def _cancelled_while_it_waits_for_the_answer(scene):
    scene.bedrock.hang(30)
    task = asyncio.create_task(scene.client.converse(modelId=CLAUDE, messages=MESSAGES))
    await until(lambda: scene.bedrock.requests)
    task.cancel()
    await scene.tried("cancelled", lambda: task)
    scene.saw("is cancelled", task.cancelled())


@call(Told(error="ReadTimeoutError", missing="error"))
async def _timed_out_by_the_sdk(scene):
    async with scene.using(read_timeout=0.1):
        scene.bedrock.hang(30)
        converse = scene.client.converse
        await scene.tried("answer", lambda: converse(modelId=CLAUDE, messages=MESSAGES))


@call()
async def _a_coroutine_that_nobody_awaits(scene):
    made = scene.client.converse(modelId=CLAUDE, messages=MESSAGES)
    scene.saw("coroutine", (type(made), made.__name__, made.__qualname__))
    del made
    gc.collect()


# --- Bodies ---


def answer(scene, body=BODY, **headers):
    """Let the next call of InvokeModel get this body."""
    scene.bedrock.reply(body, headers={**BODY_HEADERS, **headers})


@body(True, httpx=True)
async def _read_whole(scene):
    answer(scene)
    body = await scene.invoke()
    scene.saw("data", await body.read())
    scene.saw("again", await body.read())


@body(True, httpx=True)
async def _read_as_it_comes(scene):
    """Nothing but the call holds answer and body."""
    answer(scene)
    call = scene.client.invoke_model(modelId=CLAUDE, body=REQUEST)
    scene.saw("data", await (await call)["body"].read())


@body(True)
async def _read_in_parts(scene):
    answer(scene)
    body = await scene.invoke()
    while data := await body.read(1000):
        scene.saw("data", (data, body.tell()))
        await scene.tried("readable", body.readable)
    scene.saw("after", (await body.read(10), await body.read()))


@body(True)
async def _read_to_the_last_byte_and_no_further(scene):
    answer(scene)
    body = await scene.invoke()
    scene.saw("data", [await body.read(1000), await body.read(amt=len(BODY) - 1000)])


@body(True)
async def _read_into_a_buffer(scene):
    answer(scene)
    body = await scene.invoke()
    buffer = bytearray(700)
    while await scene.tried("count", lambda: body.readinto(buffer)):
        scene.saw("buffer", bytes(buffer))
    scene.saw("rest", await body.read())


@body(True)
async def _read_by_lines(scene):
    answer(scene)
    scene.saw("lines", await (await scene.invoke()).readlines())


@body(True)
async def _iterated_by_lines(scene):
    answer(scene)
    body = await scene.invoke()
    scene.saw("lines", [line async for line in body.iter_lines(chunk_size=77, keepends=True)])


@body(True)
async def _iterated_by_chunks(scene):
    answer(scene)
    body = await scene.invoke()
    scene.saw("chunks", [chunk async for chunk in body.iter_chunks(999)])


@body(True)
async def _iterated(scene):
    answer(scene)
    body = await scene.invoke()
    scene.saw("first", await body.__anext__())
    scene.saw("chunks", [chunk async for chunk in body])


@body(True)
async def _read_in_async_with(scene):
    answer(scene)
    body = await scene.invoke()
    async with body as inside:
        scene.saw("inside", (type(inside), inside is body))
        scene.saw("data", await inside.read())
    scene.pool()


@body(True, httpx=False)
async def _read_from_the_reader_below(scene):
    answer(scene)
    async with await scene.invoke() as inside:
        content = below(inside).content
        scene.saw("content", type(content))
        scene.saw("part", await content.read(100))
        scene.saw("line", await content.readline())
        scene.saw("rest", await content.read())


@body(True, httpx=False)
async def _iterated_from_the_reader_below(scene):
    answer(scene)
    async with await scene.invoke() as inside:
        content = below(inside).content
        scene.saw("exactly", await content.readexactly(10))
        scene.saw("chunked", [part async for part in content.iter_chunked(512)])


@body(True, httpx=False)
async def _lines_of_the_reader_below(scene):
    answer(scene)
    body = await scene.invoke()
    scene.saw("lines", [line async for line in below(body).content])


@body(True)
async def _the_response_below_read(scene):
    answer(scene)
    response = below(await scene.invoke())
    read = response.aread if scene.backend == HTTPX else response.read
    scene.saw("data", [await read(), await read()])


def below(body):
    """Return the response of aiohttp or httpx that a body of aiobotocore stands on."""
    raw = getattr(body, "_raw_stream", None)
    return raw if raw is not None else getattr(body, "__wrapped__", body)


@body(None)  # httpx hands out what has arrived, and aiobotocore keeps what is beyond the part
async def _read_in_part_and_closed(scene):
    answer(scene)
    body = await scene.invoke()
    scene.saw("data", await body.read(100))
    scene.saw("close", await closing(body))
    scene.pool()
    await scene.tried("after", lambda: body.read(100))
    await scene.tried("rest", body.read)


@body(False)
async def _read_in_part_in_async_with(scene):
    answer(scene)
    async with await scene.invoke() as body:
        scene.saw("data", await body.content.read(9) if hasattr(body, "content") else b"")
    scene.pool()


@body(None)
async def _read_in_part_and_dropped(scene):
    answer(scene)
    body = await scene.invoke()
    scene.saw("data", await body.read(100))
    del body
    await scene.collected()


@body(False, httpx=True)
async def _never_read(scene):
    answer(scene)
    await scene.invoke()
    await scene.collected()


@body(False)
async def _never_read_and_closed(scene):
    answer(scene)
    body = await scene.invoke()
    scene.saw("close", await closing(body))
    scene.pool()


@body(True)
async def _read_and_freed_as_soon_as_nobody_holds_it(scene):
    answer(scene)
    body = await scene.invoke()
    references = [weakref.ref(body), weakref.ref(below(body))]
    scene.saw("data", await body.read())
    del body
    scene.saw("freed", [reference() is None for reference in references])


@body(False)
async def _unread_and_freed_as_soon_as_nobody_holds_it(scene):
    answer(scene)
    body = await scene.invoke()
    references = [weakref.ref(body), weakref.ref(below(body))]
    await asyncio.sleep(0.02)
    del body
    scene.saw("freed", [reference() is None for reference in references])


@body(False)
async def _closed_as_it_comes(scene):
    answer(scene)
    call = scene.client.invoke_model(modelId=CLAUDE, body=REQUEST)
    scene.saw("close", await closing((await call)["body"]))
    await scene.collected()


@body(True)
async def _read_after_the_client_is_closed(scene):
    async with scene.using():
        answer(scene)
        body = await scene.invoke()
        await asyncio.sleep(0.05)
        if scene.backend == HTTPX:
            scene.saw("data", await body.read())
    if scene.backend != HTTPX:
        scene.saw("data", await body.read())


@body(False)
async def _larger_than_the_limit(scene):
    answer(scene, BODY + b" " * 70_000)
    body = await scene.invoke()
    scene.saw("data", await body.read())


@body(False, Told(input=19, output=7, read=5, write=3, error="ClientPayloadError"), httpx=False)
async def _cut_in_the_middle(scene):
    async with cut(scene):
        body = await scene.invoke()
        await scene.tried("data", body.read)
        await scene.tried("again", body.read)


@body(False, Told(input=19, output=7, read=5, write=3, error="ClientPayloadError"), httpx=False)
async def _cut_in_the_middle_and_read_from_the_reader_below(scene):
    async with cut(scene), await scene.invoke() as inside:
        await scene.tried("data", below(inside).content.read)


@body(False, Told(input=19, output=7, read=5, write=3, error="ClientPayloadError"), httpx=False)
async def _cut_in_the_middle_and_kept(scene):
    async with cut(scene):
        scene.stage.kept = body = await scene.invoke()
        await scene.tried("data", body.read)


@body(
    False,
    Told(input=19, output=7, read=5, write=3, error="RemoteProtocolError"),
    httpx=NEWER_HTTPX,
    aiohttp=False,
)
async def _cut_in_the_middle_below_httpx(scene):
    async with cut(scene):
        body = await scene.invoke()
        await scene.tried("data", body.read)
        await scene.tried("again", body.read)


def cut(scene):
    """Return a client whose bodies end too early."""
    lines = [f"{name}: {value}" for name, value in BODY_HEADERS.items()]
    scene.raw.prepare(BODY[:2000], *lines, f"Content-Length: {len(BODY)}", hang_up=True)
    return scene.using(raw=True)


@body(True)
async def _without_a_length(scene):
    lines = [f"{name}: {value}" for name, value in BODY_HEADERS.items()]
    half = len(BODY) // 2
    parts = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY[:half], BODY[half:]))
    scene.raw.prepare(parts + b"0\r\n\r\n", *lines, "Transfer-Encoding: chunked")
    async with scene.using(raw=True):
        body = await scene.invoke()
        while data := await body.read(1000):
            scene.saw("data", len(data))


@body(False)
async def _empty(scene):
    answer(scene, b"")
    body = await scene.invoke()
    scene.saw("data", [await body.read(10), await body.read()])


@body(True, httpx=False)
async def _a_read_that_is_cancelled_and_tried_again(scene):
    """The reader of aiohttp goes on where it was: that is not the end."""
    lines = [f"{name}: {value}" for name, value in BODY_HEADERS.items()]
    scene.raw.prepare(BODY[:2000], *lines, f"Content-Length: {len(BODY)}")
    async with scene.using(raw=True):
        body = await scene.invoke()
        scene.saw("data", await body.read(2000))
        await scene.tried("cancelled", lambda: asyncio.wait_for(body.read(10), 0.02))
        for connection in list(scene.raw._open):
            connection.sendall(BODY[2000:])
        scene.saw("rest", await body.read())


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda row: row.id)
def test_the_caller_sees_the_same_and_all_is_told_once(behaviour, stage):
    compare(
        stage,
        behaviour.act,
        behaviour.told,
        behaviour.dialect,
        behaviour.backend,
        behaviour.check,
    )


# --- Many at once, and whose span is current ---


def test_twenty_tasks_at_once_each_under_its_own_span(stage, bedrock, caplog):
    tracer = {}

    async def ask(client, index):
        with tracer["mine"].start_as_current_span(f"task {index}") as mine:
            dialect = DIALECTS[index % 2]
            answered = await dialect.call(client)
            assert trace.get_current_span() is mine
            async for _ in answered[dialect.member]:
                assert trace.get_current_span() is mine
                tracer["mine"].start_span(f"inside {index}").end()
                await asyncio.sleep(0)
            assert trace.get_current_span() is mine

    async def main():
        bedrock.slow(first=0.01, each=0.002, times=None)
        async with stage.client(max_pool_connections=30) as client:
            await asyncio.gather(*(ask(client, index) for index in range(20)))

    with capture() as captured, caplog.at_level(logging.INFO):
        tracer["mine"] = captured.tracer_provider.get_tracer("mine")
        asyncio.run(main())
        spans = captured.spans
        billed = sum(line.output_tokens for line in bedrock.bill)
        assert captured.total("gen_ai.client.inference.usage.output_tokens") == billed
    tasks = {span.context.span_id: span.name for span in spans if span.name.startswith("task")}
    ours = [span for span in spans if span.name.startswith("chat")]
    assert len(tasks) == len(ours) == 20
    assert sorted(tasks[span.parent.span_id] for span in ours) == sorted(tasks.values())
    inside = [span for span in spans if span.name.startswith("inside")]
    assert len(inside) > 20
    for span in inside:
        assert tasks[span.parent.span_id] == span.name.replace("inside", "task")
    assert [line for line in caplog.records if line.levelno >= logging.WARNING] == []


def test_the_span_is_current_while_the_call_is_awaited(stage, bedrock):
    async def main():
        async with stage.client() as client:

            async def look(**kwargs):
                current.append(trace.get_current_span().name)

            def keep(parsed, **kwargs):
                current.append(parsed)

            client.meta.events.register("before-send.bedrock-runtime", look)
            client.meta.events.register("after-call.bedrock-runtime", keep)
            answered = await client.converse(modelId=CLAUDE, messages=MESSAGES)
            # The very object that aiobotocore made.
            assert answered is current.pop()
            current.append(trace.get_current_span() is trace.INVALID_SPAN)

    current: list[Any] = []
    with capture():
        asyncio.run(main())
    assert current == [f"chat {CLAUDE}", True]


def test_two_event_loops_in_two_threads(stage, bedrock):
    async def main():
        async with stage.client() as client:
            for dialect in DIALECTS * 3:
                await whole((await dialect.call(client))[dialect.member])

    with instrumented() as (captured, opened):
        threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(captured.spans) == opened.started == 12
        billed = sum(line.output_tokens for line in bedrock.bill)
        assert captured.total("gen_ai.client.inference.usage.output_tokens") == billed


def test_a_thousand_streams_let_go_of_leave_nothing_open(stage, bedrock):
    async def main():
        async with stage.client() as client:
            for index in range(1000):
                dialect = DIALECTS[index % 2]
                answered = await dialect.call(client)
                await half(answered[dialect.member], index % 3)
                del answered
                if index % 50 == 0:
                    gc.collect()

    with instrumented() as (captured, opened):
        asyncio.run(main())
        gc.collect()
        assert len(captured.spans) == opened.started == 1000
        assert opened.open == {}


@pytest.mark.parametrize("closing", ["closed", "collected", "closed where it began"])
def test_a_coroutine_that_is_let_go_of_is_told(closing, stage, bedrock, caplog):
    """The collector may close it; nothing may be detached in a context that is not its own."""

    async def main():
        client = await stage.client().__aenter__()
        call = client.converse(modelId=CLAUDE, messages=MESSAGES)
        if closing == "closed where it began":
            call.send(None)
            assert trace.get_current_span().name == f"chat {CLAUDE}"
            call.close()
            assert trace.get_current_span() is trace.INVALID_SPAN
        else:
            # Driven by no task, so that nothing else holds it.
            contextvars.copy_context().run(call.send, None)
            if closing == "closed":
                with contextlib.suppress(ValueError):
                    call.close()
        del call
        gc.collect()
        await client.__aexit__(None, None, None)

    unraisable = []
    with instrumented() as (captured, opened), caplog.at_level(logging.WARNING):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.unraisablehook", lambda raised: unraisable.append(raised.exc_type))
            asyncio.run(main())
        assert [span.attributes["error.type"] for span in captured.spans] == ["GeneratorExit"]
        assert opened.open == {}
    # aiobotocore's own: its clean-up minds the other context as well.
    assert set(unraisable) <= {ValueError}
    assert [line.message for line in caplog.records if "opentelemetry" in line.name] == []


def test_a_call_in_the_clean_up_of_a_generator_is_told_as_what_it_raised(stage, bedrock):
    """The GeneratorExit there is the generator's, not the call's."""

    async def main():
        async with stage.client() as client:

            async def numbers():
                try:
                    yield 1
                finally:
                    with contextlib.suppress(client.exceptions.ThrottlingException):
                        await client.converse(modelId=CLAUDE, messages=MESSAGES)

            given = numbers()
            async for _ in given:
                break
            bedrock.throttle()
            await given.aclose()

    with instrumented() as (captured, _):
        asyncio.run(main())
        assert captured.span.attributes["error.type"] == "ThrottlingException"
        assert captured.span.attributes["aws.request_id"]


def _ends():
    """What ends a recording, at the moment it happens."""

    async def exhausted(client, dialect):
        await whole((await dialect.call(client))[dialect.member])

    async def left_and_closed(client, dialect):
        stream = (await dialect.call(client))[dialect.member]
        await half(stream, 1)
        stream.close()
        return stream

    async def cancelled(client, dialect):
        stream = (await dialect.call(client))[dialect.member]
        task = asyncio.create_task(whole(stream))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task])
        return stream

    async def read(client, _):
        body = (await client.invoke_model(modelId=CLAUDE, body=REQUEST))["body"]
        await body.read()
        return body

    async def read_to_the_last_byte(client, _):
        body = (await client.invoke_model(modelId=CLAUDE, body=REQUEST))["body"]
        await body.read(len(BODY))
        return body

    async def body_closed(client, _):
        body = (await client.invoke_model(modelId=CLAUDE, body=REQUEST))["body"]
        await closing(body)
        return body

    async def body_left(client, _):
        body = (await client.invoke_model(modelId=CLAUDE, body=REQUEST))["body"]
        async with body:
            pass
        return body

    for dialect in DIALECTS:
        for act in (exhausted, left_and_closed, cancelled):
            yield pytest.param(act, dialect, AIOHTTP, id=f"{act.__name__}-{dialect.name}")
    for backend in (AIOHTTP, *([HTTPX] if NEWER_HTTPX else [])):
        for act in (read, read_to_the_last_byte, body_closed, body_left):
            yield pytest.param(act, None, backend, id=f"{act.__name__}-{backend}")


@pytest.mark.parametrize(("act", "dialect", "backend"), list(_ends()))
def test_the_span_ends_at_once(act, dialect, backend, stage, bedrock):
    """Not when somebody looks: the caller still holds the stream or body."""

    async def main():
        async with stage.client(backend=backend) as client:
            held = await act(client, dialect)
            assert (opened.started, opened.open) == (1, {})
            if held is not None:
                await closing(held)

    if dialect is None:
        bedrock.reply(BODY, headers=BODY_HEADERS)
    elif act.__name__ == "cancelled":
        bedrock.slow(each=0.5)
    with pytest.MonkeyPatch.context() as patch, instrumented() as (_, opened):
        patch.setattr("otel_bedrock.abandoned.look", lambda: None)
        patch.setattr("otel_bedrock.abandoned.drain", lambda: None)
        asyncio.run(main())


@pytest.mark.parametrize("arrives", ["before the last read", "after the last read"])
def test_the_span_ends_at_once_where_the_body_has_no_length(arrives, stage):
    """Its end is what the server says last."""
    data = b"%x\r\n%s\r\n" % (len(BODY), BODY)
    last = b"0\r\n\r\n"
    lines = [f"{name}: {value}" for name, value in BODY_HEADERS.items()]
    early = arrives == "before the last read"
    stage.raw.prepare(data + last * early, *lines, "Transfer-Encoding: chunked")

    async def main():
        async with stage.client(raw=True) as client:
            body = (await client.invoke_model(modelId=CLAUDE, body=REQUEST))["body"]
            content = below(body).content
            if early:
                await until(content.is_eof)
            assert await body.read(len(BODY)) == BODY
            if not early:
                assert len(opened.open) == 1
                for connection in list(stage.raw._open):
                    connection.sendall(last)
                await until(content.is_eof)
            assert (opened.started, opened.open) == (1, {})
            await closing(body)

    with pytest.MonkeyPatch.context() as patch, instrumented() as (_, opened):
        patch.setattr("otel_bedrock.abandoned.look", lambda: None)
        patch.setattr("otel_bedrock.abandoned.drain", lambda: None)
        asyncio.run(main())


def test_a_step_that_is_let_go_of_while_it_waits_is_no_end():
    """The collector may be closing it, and an end takes locks."""

    class Told:
        def __init__(self):
            self.ends = []

        def ended(self, error, *, exhausted=False):
            self.ends.append((error, exhausted))

    class Pieces:
        async def __anext__(self):
            await asyncio.sleep(0)
            raise KeyError("mine")

    async def main():
        told = Told()
        awaited = aio_streams._Awaited(Pieces(), told)
        assert isinstance(awaited, AsyncGenerator)
        step = awaited.__anext__()
        step.send(None)
        step.close()
        assert told.ends == []
        with pytest.raises(KeyError) as raised:
            await awaited.__anext__()
        assert told.ends == [(raised.value, False)]

    asyncio.run(main())


# --- What is patched, and when ---


async def _ask(client):
    return await client.converse(modelId=CLAUDE, messages=MESSAGES)


def test_a_call_never_goes_through_the_method_of_botocore(stage, bedrock, monkeypatch):
    async def main():
        async with stage.client() as client:
            await _ask(client)

    def refuse(*args, **kwargs):
        raise AssertionError("botocore's own method was called")

    with capture() as captured:
        monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", refuse)
        asyncio.run(main())
        monkeypatch.undo()
        assert captured.span.name == f"chat {CLAUDE}"


def test_clients_made_before_and_after_are_seen_until_uninstrument(stage, bedrock):
    async def main():
        async with stage.client() as before:
            await _ask(before)
            with capture() as captured:
                async with stage.client() as after:
                    await _ask(before)
                    await _ask(after)
                    assert len(captured.spans) == 2
            await _ask(before)
            assert len(captured.spans) == 2
            with capture() as captured:
                await _ask(before)
                assert len(captured.spans) == 1

    asyncio.run(main())
    assert not hasattr(aiobotocore.client.AioBaseClient._make_api_call, "_self_wrapper")


def test_the_method_stays_what_it_is(stage):
    bare = aiobotocore.client.AioBaseClient._make_api_call
    with capture():
        ours = aiobotocore.client.AioBaseClient._make_api_call
        assert type(ours) is not type(bare)
        for ask in (inspect.iscoroutinefunction, asyncio.iscoroutinefunction):
            assert ask(ours) == ask(bare) is True
        assert inspect.signature(ours) == inspect.signature(bare)
        assert ours.__qualname__ == bare.__qualname__


def test_other_services_are_not_touched(stage):
    async def main():
        async with stage.session.create_client(
            "sts", region_name="us-east-1", endpoint_url=stage.raw.url
        ) as client:
            made = client._make_api_call("GetCallerIdentity", {})
            codes.append(made.cr_code)
            made.close()

    codes: list[Any] = []
    asyncio.run(main())
    with capture() as captured:
        asyncio.run(main())
        assert captured.spans == ()
    assert codes[0] is codes[1]


LATER = """
logging.getLogger("aiobotocore").setLevel(logging.ERROR)
import asyncio, aiobotocore.session
async def ask():
    session = aiobotocore.session.get_session()
    async with session.create_client(
        "bedrock-runtime", endpoint_url=os.environ["FAKE_BEDROCK"]
    ) as client:
        message = {"role": "user", "content": [{"text": "How many tokens is this?"}]}
        await client.converse(
            modelId="us.anthropic.claude-sonnet-4-5-20250929-v1:0", messages=[message]
        )
asyncio.run(ask())
"""
MEMORY = """
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
spans, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
"""


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("otel_bedrock.instrument(tracer_provider=provider)", 1),
        ("otel_bedrock.instrument(tracer_provider=provider); otel_bedrock.uninstrument()", 0),
        (
            "otel_bedrock.instrument(tracer_provider=provider); otel_bedrock.uninstrument();"
            " otel_bedrock.instrument(tracer_provider=provider)",
            1,
        ),
    ],
)
def test_imported_after_instrument(bedrock, before, expected):
    code = f"""{MEMORY}
{before}
assert not [name for name in sys.modules if name.startswith(("aiobotocore", "aiohttp"))]
{LATER}
print(len(spans.get_finished_spans()))
otel_bedrock.uninstrument()
otel_bedrock.instrument(tracer_provider=provider)
asyncio.run(ask())
print(len(spans.get_finished_spans()))
"""
    ended = run(code, bedrock=bedrock)
    assert (ended.stderr, ended.stdout.split()) == ("", [str(expected), str(expected + 1)])


def test_where_aiobotocore_is_not_there():
    """Its import fails as it does without us, and boto3 is told about."""
    ended = run(
        f"""{MEMORY}
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("aiobotocore", "aiohttp", "aioboto3"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
otel_bedrock.instrument(tracer_provider=provider)
for name in ("aiobotocore", "aiobotocore.client"):
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        print(error)
from otel_bedrock.testing import FakeBedrock
with FakeBedrock() as bedrock:
    ask(bedrock.client())
print(len(spans.get_finished_spans()))
otel_bedrock.uninstrument()
"""
    )
    gone = "No module named 'aiobotocore'"
    assert (ended.stderr, ended.stdout.splitlines()) == ("", [gone, gone, "1"])


def test_aioboto3(stage, bedrock):
    aioboto3 = pytest.importorskip("aioboto3", reason="left out: aioboto3 is not installed")

    async def main():
        session = aioboto3.Session(region_name="us-east-1")
        async with session.client("bedrock-runtime", endpoint_url=bedrock.url) as client:
            await _ask(client)
            for dialect in DIALECTS:
                await whole((await dialect.call(client))[dialect.member])
            answered = await client.invoke_model(modelId=CLAUDE, body=REQUEST)
            async with answered["body"] as body:
                await body.read()

    with instrumented() as (captured, opened):
        asyncio.run(main())
        assert len(captured.spans) == opened.started == 4
        billed = sum(line.output_tokens for line in bedrock.bill)
        assert captured.total("gen_ai.client.inference.usage.output_tokens") == billed


def test_an_interrupt_between_our_lines_leaves_no_span_open(stage, bedrock, monkeypatch):
    """Ctrl-C where `__enter__` begins, which no handler inside it could see."""

    def interrupt(begun):
        raise KeyboardInterrupt

    async def ask():
        async with stage.client() as client:
            await client.converse(modelId=CLAUDE, messages=MESSAGES)

    with instrumented() as (_, opened):
        monkeypatch.setattr(bracket.Begun, "__enter__", interrupt)
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(ask())
        assert (opened.started, opened.open) == (1, {})
        assert bedrock.requests == []
