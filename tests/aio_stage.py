"""The stage of `transparency`, for aiobotocore: the same, where the caller awaits."""

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiobotocore.session
import transparency
from aiobotocore.config import AioConfig
from transparency import ALL_ON, CLAUDE, REQUEST, Dialect, Raw, Seen, Told, render

from otel_bedrock.streams import SEAMS
from otel_bedrock.testing import FakeBedrock, server

try:
    from aiobotocore.httpxsession import HttpxSession
except ImportError:
    HttpxSession = None

# With httpx there are no event streams in aiobotocore, and older versions read whole bodies only.
AIOHTTP, HTTPX = "aiohttp", "httpx"


def httpx_is_there() -> bool:
    """Say whether aiobotocore can use httpx here."""
    if HttpxSession is None:
        return False
    import aiobotocore.httpxsession

    return getattr(aiobotocore.httpxsession, "httpx", None) is not None


class Stage:
    """The servers on which behaviours are played, one after the other."""

    def __init__(self) -> None:
        self.bedrock = FakeBedrock().start()
        self.raw = Raw()
        self.session = aiobotocore.session.get_session()
        self.compared = 0
        self._requests = itertools.count()
        self._request_id = server._request_id
        server._request_id = lambda: f"request-{next(self._requests)}"

    def clear(self) -> None:
        """Forget all that an earlier play may have left."""
        self.bedrock.reset()
        self.bedrock.chunk_size = None
        self.raw.received.clear()
        self._requests = itertools.count()

    def client(self, *, raw: bool = False, backend: str = AIOHTTP, **config: Any) -> Any:
        """Return what makes a client, in the event loop that runs then."""
        options: dict[str, Any] = {"retries": {"total_max_attempts": 1}, **config}
        if backend == HTTPX:
            options["http_session_cls"] = HttpxSession
        return self.session.create_client(
            "bedrock-runtime",
            region_name="us-east-1",
            endpoint_url=self.raw.url if raw else self.bedrock.url,
            config=AioConfig(**options),
        )

    def close(self) -> None:
        server._request_id = self._request_id
        self.raw.stop()
        self.bedrock.stop()


class Scene:
    """What a behaviour is given: servers, a client, and a place to note what it sees."""

    def __init__(self, stage: Stage, dialect: Dialect | None, backend: str) -> None:
        self.stage = stage
        self.bedrock = stage.bedrock
        self.raw = stage.raw
        self.dialect = dialect
        self.backend = backend
        self.client: Any = None
        self.seen = Seen()
        # Type -> names in vars() of the objects that the caller was given.
        self.names: dict[str, set[str]] = {}

    @asynccontextmanager
    async def using(self, **config: Any) -> Any:
        """Use another client, with these members of botocore's Config."""
        before = self.client
        async with self.stage.client(backend=self.backend, **config) as self.client:
            yield self.client
        self.client = before

    def saw(self, name: str, value: Any) -> Any:
        """Note what the caller sees, as it is now."""
        self.seen.notes.append((name, render(value)))
        return value

    async def tried(self, name: str, attempt: Callable[[], Any]) -> Any:
        """Note what `attempt` returns or raises, awaited where it can be."""
        try:
            given = attempt()
            return self.saw(name, await given if inspect.isawaitable(given) else given)
        except (Exception, asyncio.CancelledError) as error:
            self.saw(name, error)
            return None

    def keep(self, *objects: Any) -> None:
        """Note which names stand in vars() of the caller's objects."""
        for one in objects:
            kind = type(one)
            name = f"{kind.__module__}.{kind.__qualname__}"
            self.names.setdefault(name, set()).update(getattr(one, "__dict__", ()))

    async def stream(self, **parameters: Any) -> Any:
        """Make the dialect's call and return its stream."""
        assert self.dialect is not None
        answer = self.saw("answer", await self.dialect.call(self.client, **parameters))
        stream = answer[self.dialect.member]
        self.keep(stream, stream._raw_stream)
        self.saw("the same stream", answer[self.dialect.member] is stream)
        return stream

    async def invoke(self) -> Any:
        """Call InvokeModel and return its body."""
        answer = await self.client.invoke_model(modelId=CLAUDE, body=REQUEST)
        body = self.saw("answer", answer)["body"]
        below = getattr(body, "_raw_stream", None)
        below = body.__wrapped__ if below is None else below
        # A proxy shows the names of what it stands for.
        self.keep(below, *([body] if hasattr(body, "_raw_stream") else []))
        if self.backend == AIOHTTP:
            self.keep(below.content)
            self.saw("content", type(below.content))
        self.saw("the same body", (type(body), answer["body"] is body))
        return body

    async def collected(self, name: str = "collected") -> None:
        """Collect, let the event loop do what finalizers ask of it, and note the connections."""
        gc.collect()
        for _ in range(3):
            await asyncio.sleep(0)
        self.pool(name)

    def pool(self, name: str = "pool") -> None:
        """Note how many connections aiohttp has in use, and how many it can use again."""
        http = self.client._endpoint.http_session
        sessions = getattr(http, "_sessions", None) or {None: getattr(http, "_session", None)}
        for session in list(sessions.values()):
            connector = getattr(session, "connector", None)
            if connector is not None:
                idle = sum(len(held) for held in connector._conns.values())
                self.saw(name, (len(connector._acquired), idle))


Behaviour = Callable[[Scene], Awaitable[Any]]


def play(
    stage: Stage, behaviour: Behaviour, dialect: Dialect | None, backend: str
) -> tuple[Seen, dict[str, set[str]]]:
    """Run `behaviour` once in an event loop of its own; return what was seen."""

    async def main() -> Any:
        async with stage.client(backend=backend) as scene.client:
            return await behaviour(scene)

    gc.collect()
    stage.clear()
    scene = Scene(stage, dialect, backend)
    seen = scene.seen
    gc.disable()
    try:
        with transparency._watching(seen):
            try:
                seen.outcome = ("returned", render(asyncio.run(main())))
            except BaseException as error:
                seen.outcome = render(error)
            gc.enable()
            gc.collect()
    finally:
        gc.enable()
    # The lines of other threads come in between as they will.
    seen.logs = [line for line in seen.logs if line[1] >= 20]
    seen.requests = [
        (one.method, one.path, sorted(one.headers), one.body) for one in stage.bedrock.requests
    ]
    return seen, scene.names


def compare(
    stage: Stage,
    behaviour: Behaviour,
    told: tuple[Told, ...],
    dialect: Dialect | None = None,
    backend: str = AIOHTTP,
    check: Callable[[Any], None] = lambda captured: None,
) -> None:
    """Play `behaviour` bare and instrumented; check that nothing differs and all is told."""
    bare, bare_names = play(stage, behaviour, dialect, backend)
    if not stage.compared:
        # The session's first client fills its caches, and says so in the log.
        bare, bare_names = play(stage, behaviour, dialect, backend)
    again, _ = play(stage, behaviour, dialect, backend)
    assert bare == again, f"not the same twice: {transparency._differences(bare, again)}"
    for settings in ({}, ALL_ON):
        with transparency.instrumented(**settings) as (captured, opened):
            seen, names = play(stage, behaviour, dialect, backend)
            transparency.check_told(captured, opened, told)
            check(captured)
        assert bare == seen, "\n".join(transparency._differences(bare, seen))
        for kind, found in names.items():
            assert found - bare_names[kind] <= set(SEAMS.get(kind, ()))
            assert bare_names[kind] <= found
    stage.compared += 1
