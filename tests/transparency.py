"""Transparency: one behaviour, played bare and instrumented, and what the caller sees of it.

A behaviour is a function of a Scene. `play` runs it against servers on loopback and returns
everything that a caller can notice; `Told` is what the instrumented run told about it.
"""

from __future__ import annotations

import gc
import itertools
import logging
import re
import socket
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.config import Config

from otel_bedrock import Limit, TokenBudget
from otel_bedrock.streams import SEAMS
from otel_bedrock.testing import FakeBedrock, server
from otel_bedrock.testing.capture import Captured, capture
from otel_bedrock.testing.frames import encode_chunk, encode_event

CLAUDE = "anthropic.claude-sonnet-4-20250514-v1:0"
MESSAGES = [{"role": "user", "content": [{"text": "How many tokens is this?"}]}]

# Everything that can be switched on, at once.
ALL_ON: dict[str, Any] = {
    "capture_content": "SPAN_AND_EVENT",
    "metrics": "all",
    "semconv": "both",
    "time_per_output_chunk": True,
    "prices": {
        "models": {CLAUDE: {"input": "3", "output": "15", "cache_read": 1, "cache_write": 4}}
    },
    "budget": TokenBudget(Limit(per_minute=10**12, per_day=10**15, by=("model", "tenant"))),
    "quota_limits": {CLAUDE: {"minute": 400_000, "day": 10**9}},
    "burndown": {"amazon.nova-lite-v1:0": 1},
}


# --- What is told -------------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """What one call tells; None where nothing is."""

    input: int | None = None
    output: int | None = None
    read: int | None = None
    write: int | None = None
    missing: str | None = None
    error: str | None = None


_USAGE = "gen_ai.client.inference.usage."
_COUNTERS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "read": "cache_read.input_tokens",
    "write": "cache_write.input_tokens",
}
DURATIONS = (
    "gen_ai.client.inference.duration",
    "gen_ai.client.embeddings.duration",
    "gen_ai.client.operation.duration",
)


class Opened:
    """A span processor that knows which spans were started and not ended."""

    def __init__(self) -> None:
        self.started = 0
        self.open: dict[int, str] = {}

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.started += 1
        self.open[span.get_span_context().span_id] = span.name

    def _on_ending(self, span: Any) -> None:
        pass

    def on_end(self, span: Any) -> None:
        self.open.pop(span.context.span_id, None)

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


def check_told(captured: Captured, opened: Opened, told: tuple[Told, ...]) -> None:
    """Check that `told`, one item a call, is exactly what spans and metrics hold."""
    spans, points = captured.spans, captured.points
    found: dict[str, Any] = {"open": opened.open, "spans": (opened.started, len(spans))}
    wanted: dict[str, Any] = {"open": {}, "spans": (len(told), len(told))}
    for name, metric in _COUNTERS.items():
        counts = [value for one in told if (value := getattr(one, name)) is not None]
        wanted[f"counter of {name}"] = sum(counts) if counts else None
        found[f"counter of {name}"] = captured.total(_USAGE + metric)
        attribute = "gen_ai.usage." + metric
        wanted[f"spans' {name}"] = sorted(counts)
        found[f"spans' {name}"] = sorted(_attributes(spans, attribute))
    wanted["missing"] = Counter(one.missing for one in told if one.missing is not None)
    found["missing"] = Counter()
    for point in points:
        if point.metric == "bedrock.client.usage.missing":
            found["missing"][point.attributes["bedrock.usage.missing.reason"]] += point.value
    errors = sorted(one.error for one in told if one.error is not None)
    wanted["errors"], wanted["failed"] = errors, len(errors)
    found["errors"] = sorted(_attributes(spans, "error.type"))
    found["failed"] = [span.status.status_code.name for span in spans].count("ERROR")
    # In the older names every call is in the last one as well.
    durations = [point for point in points if point.metric in DURATIONS]
    newer = [point for point in durations if point.metric != DURATIONS[-1]]
    wanted["calls"] = len(told)
    found["calls"] = sum(point.count or 0 for point in newer or durations)
    wanted["our own errors"] = None
    found["our own errors"] = captured.total("bedrock.instrumentation.errors")
    assert wanted == found, "\n".join(
        f"{name}: wanted {wanted[name]!r}, told {found[name]!r}"
        for name in wanted
        if wanted[name] != found[name]
    )


def _attributes(spans: Any, key: str) -> list[Any]:
    return [span.attributes[key] for span in spans if key in span.attributes]


# --- What is seen -------------------------------------------------------------------------

# Addresses, and which socket a warning is about.
_ADDRESS = re.compile(r"0x[0-9a-f]+|fd=\d+|laddr=\([^)]*\)")


def render(value: Any, depth: int = 0) -> Any:
    """Return `value` as plain comparable data: types and contents, no addresses, no dates."""
    if value is None or isinstance(value, (bool, int, float, bytes, type)):
        return (type(value).__name__, value)
    if isinstance(value, str):
        return (type(value).__name__, _ADDRESS.sub("…", value))
    if isinstance(value, Mapping):
        items = [(key, "" if key == "date" else render(item)) for key, item in value.items()]
        return (_name(value), items)
    if isinstance(value, (list, tuple)):
        return (_name(value), [render(item) for item in value])
    if isinstance(value, BaseException):
        return _render_error(value, depth)
    return (_name(value), "an object")


def _render_error(error: BaseException, depth: int) -> Any:
    if depth > 4:
        return "…"
    return (
        "raised",
        _name(error),
        _ADDRESS.sub("…", str(error)),
        [render(item, depth + 1) for item in error.args],
        render(getattr(error, "response", None), depth + 1),
        render(getattr(error, "operation_name", None)),
        render(error.__cause__, depth + 1),
        render(error.__context__, depth + 1),
        error.__suppress_context__,
    )


def _name(value: Any) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


@dataclass
class Seen:
    """All that the caller of one behaviour could notice."""

    notes: list[tuple[str, Any]] = field(default_factory=list)
    outcome: Any = None
    pool_before_collection: Any = None
    pool: Any = None
    logs: list[tuple[str, int, str]] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)
    unraisable: list[str] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)
    hung: int = 0


class Scene:
    """What a behaviour is given: servers, a client, and a place to note what it sees."""

    def __init__(self, stage: Stage, dialect: Dialect | None) -> None:
        self.bedrock = stage.bedrock
        self.raw = stage.raw
        self.stage = stage
        self.dialect = dialect
        self.client = stage.client()
        self.seen = Seen()
        # What this play tells, where that depends on the versions of what is below.
        self.told: tuple[Told, ...] | None = None
        # Type -> names in vars() of the objects that the caller was given.
        self.names: dict[str, set[str]] = {}

    def use(self, **config: Any) -> Any:
        """Take another client, with these members of botocore's Config."""
        self.client = self.stage.client(**config)
        return self.client

    def saw(self, name: str, value: Any) -> Any:
        """Note what the caller sees, as it is now."""
        self.seen.notes.append((name, render(value)))
        return value

    def tried(self, name: str, attempt: Callable[[], Any]) -> Any:
        """Note what `attempt` returns or raises, and return that."""
        try:
            return self.saw(name, attempt())
        except Exception as error:
            return self.saw(name, error.with_traceback(None))

    def keep(self, *objects: Any) -> None:
        """Note which names stand in vars() of the caller's objects."""
        for one in objects:
            self.names.setdefault(_name(one), set()).update(vars(one))

    def pool(self, name: str = "pool") -> None:
        """Note which connections there are, and whether the pool has them back."""
        self.saw(name, pool_of(self.client))

    def answer(self, **parameters: Any) -> Any:
        """Make the dialect's call and note its answer."""
        assert self.dialect is not None
        return self.saw("answer", self.dialect.call(self.client, **parameters))

    def stream(self, **parameters: Any) -> Any:
        """Make the dialect's call and return its stream."""
        assert self.dialect is not None
        answer = self.answer(**parameters)
        stream = answer[self.dialect.member]
        self.keep(stream)
        self.saw("the same stream", answer[self.dialect.member] is stream)
        return stream

    def body(self) -> Any:
        """Call InvokeModel and return its body."""
        answer = self.saw("answer", self.client.invoke_model(modelId=CLAUDE, body=REQUEST))
        body = answer["body"]
        self.keep(body, body._raw_stream)
        self.saw("the same body", answer["body"] is body)
        return body


def pool_of(client: Any) -> Any:
    """Return what urllib3 knows of the connections: made, requests, and those given back."""
    found = []
    for pool in client._endpoint.http_session._manager.pools._container.values():
        back = [one.sock is not None for one in list(pool.pool.queue) if one is not None]
        found.append((pool.num_connections, pool.num_requests, pool.pool.qsize(), back))
    return found


# --- The dialects of streams --------------------------------------------------------------


@dataclass(frozen=True)
class Dialect:
    """One of the two kinds of streams: its call, its events, and what they tell."""

    name: str
    method: str
    member: str
    parameters: Mapping[str, Any]
    events: tuple[Any, ...]
    whole: Told
    # Broken off after the first half of the events.
    half: Told

    def call(self, client: Any, **parameters: Any) -> Any:
        return getattr(client, self.method)(modelId=CLAUDE, **{**self.parameters, **parameters})


def _delta(**delta: Any) -> dict[str, Any]:
    return {"contentBlockDelta": {"contentBlockIndex": 0, "delta": delta}}


def frame(event: Any, dialect: Dialect) -> bytes:
    """Encode one event of the dialect as Bedrock does."""
    if dialect.member == "stream":
        ((name, payload),) = event.items()
        return encode_event(name, payload)
    return encode_chunk(event)


REQUEST = b'{"anthropic_version":"bedrock-2023-05-31","max_tokens":50,"messages":[]}'
_WHOLE = Told(input=19, output=7, read=5, write=3)

CONVERSE = Dialect(
    "converse",
    "converse_stream",
    "stream",
    {"messages": MESSAGES},
    (
        {"messageStart": {"role": "assistant"}},
        {
            "contentBlockStart": {
                "contentBlockIndex": 0,
                "start": {"toolUse": {"toolUseId": "t", "name": "search"}},
            }
        },
        _delta(toolUse={"input": '{"query": "a \\"quoted\\" word"}'}),
        _delta(text="one "),
        _delta(reasoningContent={"text": "hm"}),
        _delta(text=" two"),
        {"contentBlockStop": {"contentBlockIndex": 0}},
        {"messageStop": {"stopReason": "end_turn"}},
        {
            "metadata": {
                "usage": {
                    "inputTokens": 11,
                    "outputTokens": 7,
                    "totalTokens": 26,
                    "cacheReadInputTokens": 5,
                    "cacheWriteInputTokens": 3,
                },
                "metrics": {"latencyMs": 12},
            }
        },
    ),
    whole=_WHOLE,
    half=Told(missing="aborted"),
)

INVOKE = Dialect(
    "invoke",
    "invoke_model_with_response_stream",
    "body",
    {"body": REQUEST},
    (
        {
            "type": "message_start",
            "message": {
                "id": "msg_1",
                "model": "claude",
                "usage": {
                    "input_tokens": 11,
                    "output_tokens": 1,
                    "cache_read_input_tokens": 5,
                    "cache_creation_input_tokens": 3,
                },
            },
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "b"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "c"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 7},
        },
        {
            "type": "message_stop",
            "amazon-bedrock-invocationMetrics": {
                "inputTokenCount": 11,
                "outputTokenCount": 7,
                "invocationLatency": 12,
                "firstByteLatency": 5,
            },
        },
    ),
    whole=_WHOLE,
    half=Told(input=19, read=5, write=3, missing="aborted"),
)

DIALECTS = (CONVERSE, INVOKE)

# What InvokeModel answers to one call, as Claude does.
BODY_HEADERS = {
    "X-Amzn-Bedrock-Input-Token-Count": "11",
    "X-Amzn-Bedrock-Output-Token-Count": "7",
    "X-Amzn-Bedrock-Cache-Read-Input-Token-Count": "5",
    "X-Amzn-Bedrock-Cache-Write-Input-Token-Count": "3",
    "X-Amzn-Bedrock-Invocation-Latency": "12",
}
BODY = b"""{"id": "msg_1", "type": "message", "role": "assistant", "model": "claude",
"content": [{"type": "text", "text": "%s"}],
"stop_reason": "end_turn", "stop_sequence": null,
"usage": {"input_tokens": 11, "output_tokens": 7, "cache_read_input_tokens": 5,
"cache_creation_input_tokens": 3,
"cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 0}}}
""" % (b"word " * 900)


# --- The servers --------------------------------------------------------------------------


class Raw:
    """A server that answers each request with the bytes it was given, whatever they are."""

    def __init__(self) -> None:
        self.answer = b""
        self.hang_up = False
        self.received: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._stopped = False
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            if self._stopped:
                connection.close()
                return
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as reader:
            try:
                while request := self._read(reader):
                    self.received.append(request)
                    connection.sendall(self.answer)
                    if self.hang_up:
                        connection.shutdown(socket.SHUT_WR)
                        break
            except OSError:
                pass
            finally:
                self._open.discard(connection)

    @staticmethod
    def _read(reader: Any) -> bytes:
        head, size = b"", 0
        while (line := reader.readline()) not in (b"\r\n", b""):
            head += line
            if line.lower().startswith(b"content-length:"):
                size = int(line.split(b":")[1])
        return head + b"\r\n" + reader.read(size) if head else b""

    def prepare(self, body: bytes, *headers: str, hang_up: bool = False) -> None:
        """Answer with 200, these header lines and this body, framed by the caller."""
        lines = ["HTTP/1.1 200 OK", "Content-Type: application/json", *headers]
        self.answer = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
        self.hang_up = hang_up

    def stop(self) -> None:
        self._stopped = True
        with socket.create_connection(self._socket.getsockname(), timeout=1):
            pass
        self._thread.join(5)
        self._socket.close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Stage:
    """The servers and the clients on which behaviours are played, one after the other."""

    def __init__(self) -> None:
        self.bedrock = FakeBedrock().start()
        self.raw = Raw()
        self._session = boto3.Session(region_name="us-east-1")
        self.clients: dict[Any, Any] = {}
        self.compared = 0
        self._requests = itertools.count()
        self._request_id = server._request_id
        server._request_id = lambda: f"request-{next(self._requests)}"

    def client(
        self,
        *,
        service: str = "bedrock-runtime",
        raw: bool = False,
        url: str | None = None,
        **config: Any,
    ) -> Any:
        """Return a client, the same for the same arguments."""
        key = (service, raw, url, repr(sorted(config.items())))
        if key not in self.clients:
            options = {"retries": {"total_max_attempts": 1}, "max_pool_connections": 4, **config}
            self.clients[key] = self._session.client(
                service,
                endpoint_url=url or (self.raw.url if raw else self.bedrock.url),
                config=Config(**options),
            )
        return self.clients[key]

    def clear(self) -> None:
        """Forget all that an earlier play may have left."""
        self.bedrock.reset()
        self.bedrock.chunk_size = None
        self.raw.received.clear()
        for client in self.clients.values():
            client._endpoint.http_session._manager.clear()
        # Not a seed: the SDK takes the ids of spans from the same generator.
        self._requests = itertools.count()

    def still_open(self, client: Any) -> int:
        """Return how many connections the server has beyond those the client's pool has."""
        expected = sum(sum(back) for *_, back in pool_of(client))
        until = time.monotonic() + 2
        while True:
            beyond = len(self.bedrock._running._open) + len(self.raw._open) - expected
            if beyond <= 0 or time.monotonic() > until:
                # A server that hung up may be ahead of the pool, which does not know yet.
                return max(0, beyond)
            time.sleep(0.001)

    def settle(self) -> None:
        """Leave what there is by now alone: a collection before each play looks at the rest."""
        gc.collect()
        gc.freeze()

    def close(self) -> None:
        gc.unfreeze()
        for client in self.clients.values():
            client.close()
        server._request_id = self._request_id
        self.raw.stop()
        self.bedrock.stop()


# --- The play -----------------------------------------------------------------------------


@contextmanager
def _watching(seen: Seen) -> Iterator[None]:
    """Note logs of every logger and level, warnings, and what only stderr would show."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = _ADDRESS.sub("…", str(record.msg))
            seen.logs.append((record.name, record.levelno, text))

    def unraisable(raised: Any) -> None:
        seen.unraisable.append(f"{type(raised.exc_value).__name__}: {raised.exc_value}")

    handler, root, before = Handler(), logging.getLogger(), sys.unraisablehook
    level, handlers = root.level, root.handlers
    root.handlers = [handler]
    root.setLevel(logging.DEBUG)
    sys.unraisablehook = unraisable
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        seen.warnings = [
            (one.category.__name__, _ADDRESS.sub("…", str(one.message))) for one in caught
        ]
    finally:
        sys.unraisablehook = before
        root.setLevel(level)
        root.handlers = handlers


def play(stage: Stage, behaviour: Callable[[Scene], Any], dialect: Dialect | None = None) -> Scene:
    """Run `behaviour` once; return the scene, with what was seen."""
    gc.collect()
    stage.clear()
    scene = Scene(stage, dialect)
    seen = scene.seen
    gc.disable()
    try:
        with _watching(seen):
            try:
                seen.outcome = ("returned", render(behaviour(scene)))
            except BaseException as error:
                seen.outcome = render(error)
            seen.pool_before_collection = pool_of(scene.client)
            gc.enable()
            gc.collect()
            seen.pool = pool_of(scene.client)
    finally:
        gc.enable()
    seen.hung = stage.still_open(scene.client)
    seen.requests = [
        (one.method, one.path, sorted(one.headers), one.body) for one in stage.bedrock.requests
    ]
    return scene


@contextmanager
def instrumented(**settings: Any) -> Iterator[tuple[Captured, Opened]]:
    """Instrument for one block, knowing which spans are open."""
    with capture(**settings) as captured:
        opened = Opened()
        captured.tracer_provider.add_span_processor(opened)
        yield captured, opened


def _differences(bare: Seen, seen: Seen) -> list[str]:
    """Return what differs, in words that a failing test can print."""
    said = []
    for name, value in vars(bare).items():
        other = getattr(seen, name)
        if isinstance(value, list) and isinstance(other, list) and value != other:
            for index, (one, two) in enumerate(itertools.zip_longest(value, other)):
                if one != two:
                    said.append(f"{name}[{index}]: {one!r} became {two!r}")
                    break
        elif value != other:
            said.append(f"{name}: {value!r} became {other!r}")
    return said


def compare(
    stage: Stage,
    behaviour: Callable[[Scene], Any],
    told: tuple[Told, ...],
    dialect: Dialect | None = None,
    *,
    touched: bool = True,
) -> None:
    """Play `behaviour` bare and instrumented; check that nothing differs and all is told.

    What is not `touched` has nothing put on it.
    """
    clients = len(stage.clients)
    bare = play(stage, behaviour, dialect)
    if len(stage.clients) > clients:
        # A client's first call fills its caches, and says so in the log.
        bare = play(stage, behaviour, dialect)
    for settings in ({}, ALL_ON):
        with instrumented(**settings) as (captured, opened):
            scene = play(stage, behaviour, dialect)
            check_told(captured, opened, told if scene.told is None else scene.told)
        assert bare.seen == scene.seen, "\n".join(_differences(bare.seen, scene.seen))
        for kind, found in scene.names.items():
            assert found - bare.names[kind] <= set(SEAMS.get(kind, ()) if touched else ())
            assert bare.names[kind] <= found
    stage.compared += 1
