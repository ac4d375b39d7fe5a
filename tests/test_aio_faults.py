"""Each function of ours made to fail under aiobotocore: the caller sees nothing of it."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging

import pytest

pytest.importorskip("aiobotocore", reason="left out: aiobotocore is not installed")

from aio_stage import AIOHTTP, HTTPX, Stage, httpx_is_there
from injection import Site, _methods, injected, sites
from transparency import (
    ALL_ON,
    BODY,
    BODY_HEADERS,
    CLAUDE,
    DIALECTS,
    MESSAGES,
    REQUEST,
    instrumented,
    render,
)

from otel_bedrock import aio_streams, shield
from otel_bedrock.instrumentor import _Active

# What stands between the caller and what is awaited; it calls nothing that is not shielded.
_BETWEEN = ("_Awaited.", "_Pieces.popleft", "_Pieces.end", "_Transport.")
_BELOW_HTTPX = (
    "aio_streams.watch_body",
    "aio_streams._watch_httpx",
    "aio_streams._Transport.__init__",
)


def _own():
    for name, value in vars(aio_streams).items():
        if getattr(value, "__module__", None) != aio_streams.__name__:
            continue
        if inspect.isfunction(value):
            yield Site(f"aio_streams.{name}", aio_streams, name, value)
        elif inspect.isclass(value):
            for site in _methods(name, value):
                if site.name == "__init__" or not site.id.startswith(_BETWEEN):
                    yield Site(f"aio_streams.{site.id}", site.owner, site.name, site.function)


# The other modules know nothing of who waits for what.
_MODULES = ("abandoned", "bracket", "observers", "recorder", "recording", "streams")
BACKENDS = [AIOHTTP, *([HTTPX] if httpx_is_there() else [])]
SITES = [*_own(), *(site for site in sites() if site.id.split(".")[0] in _MODULES)]
CASES = [
    pytest.param(site, backend, id=f"{site.id}-{backend}")
    for site in SITES
    for backend in BACKENDS
    if backend == AIOHTTP or site.id in _BELOW_HTTPX
]


@pytest.fixture(scope="module")
def stage():
    made = Stage()
    gc.collect()
    gc.freeze()
    yield made
    gc.unfreeze()
    made.close()


@pytest.fixture(autouse=True)
def _as_in_production(monkeypatch):
    monkeypatch.delenv(shield.RAISE_VARIABLE)
    shield.reset()
    monkeypatch.setattr("otel_bedrock.bracket._said_unwatchable", set())
    yield
    shield.reset()


CONVERSED = {
    "output": {"message": {"role": "assistant", "content": [{"text": "yes"}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 11, "outputTokens": 7, "totalTokens": 18},
    "metrics": {"latencyMs": 1},
}


async def _take(stream, count=None):
    events = []
    async for event in stream:
        events.append(event)
        if len(events) == count:
            break
    return events


async def _calls(stage, backend):
    """Make a call of every kind, with every kind of end; return all that the caller sees."""
    seen = []

    async def see(attempt):
        try:
            seen.append(render(await attempt))
        except Exception as error:
            seen.append(render(error))

    async with stage.client(backend=backend) as client:
        for _ in range(2):
            stage.bedrock.reply(BODY, headers=BODY_HEADERS)
            await see((await client.invoke_model(modelId=CLAUDE, body=REQUEST))["body"].read())
        stage.bedrock.reply(BODY, headers=BODY_HEADERS)
        async with (await client.invoke_model(modelId=CLAUDE, body=REQUEST))["body"]:
            pass
        stage.bedrock.reply(
            b"{}", status=500, headers={"x-amzn-errortype": "InternalServerException"}
        )
        await see(client.invoke_model(modelId=CLAUDE, body=REQUEST))
        if backend == HTTPX:
            return seen
        stage.bedrock.reply(CONVERSED)
        await see(client.converse(modelId=CLAUDE, messages=MESSAGES))
        for dialect in DIALECTS:
            for broken in (None, 2):
                if broken is not None:
                    stage.bedrock.break_stream(after=broken)
                stage.bedrock.reply_events(list(dialect.events))
                stream = (await dialect.call(client))[dialect.member]
                await see(_take(stream))
                await see(_take(stream))
                seen.append(stream.close())
            stage.bedrock.reply_events(list(dialect.events))
            stream = (await dialect.call(client))[dialect.member]
            await see(_take(stream, 3))
            seen.append(stream.close())
    return seen


def _play(stage, backend):
    stage.clear()
    seen = asyncio.run(_calls(stage, backend))
    gc.collect()
    return seen


@pytest.fixture(scope="module")
def bare(stage):
    return {backend: _play(stage, backend) for backend in BACKENDS}


@pytest.mark.parametrize(("site", "backend"), CASES)
def test_a_bug_in_any_function_is_not_the_callers(site, backend, stage, bare, caplog):
    with instrumented(**ALL_ON) as (captured, opened), caplog.at_level(logging.WARNING):
        with injected(site):
            seen = _play(stage, backend)
            spans = captured.spans
        assert opened.open == {}
        assert len(spans) == opened.started
    assert seen == bare[backend]
    assert {line.name for line in caplog.records} <= {"otel_bedrock"}


def test_a_bug_in_the_look_for_who_records_is_not_the_callers(stage, bare):
    site = Site("_Active.current", _Active, "current", _Active.current)
    with injected(site), instrumented(**ALL_ON) as (captured, _):
        seen = _play(stage, AIOHTTP)
        assert captured.spans == ()
    assert seen == bare[AIOHTTP]
