"""What the caller sees is the same with and without us, and all of it is told once."""

from __future__ import annotations

import codecs
import contextlib
import copy
import csv
import gc
import io
import itertools
import json
import pickle
import queue
import threading
import tracemalloc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import urllib3
import wrapt
from botocore.config import Config
from botocore.eventstream import EventStream
from botocore.exceptions import ResponseStreamingError
from botocore.response import StreamingBody
from botocore.stub import Stubber
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transparency import (
    ALL_ON,
    BODY,
    BODY_HEADERS,
    CLAUDE,
    DIALECTS,
    MESSAGES,
    REQUEST,
    Dialect,
    Scene,
    Stage,
    Told,
    check_told,
    compare,
    frame,
    instrumented,
)

from otel_bedrock.testing.wire import chunk


@dataclass(frozen=True)
class Behaviour:
    """One row: what is done, by which dialect, and what the calls of it tell."""

    act: Callable[[Scene], Any]
    told: tuple[Told, ...]
    dialect: Dialect | None = None

    @property
    def id(self) -> str:
        name = self.act.__name__.strip("_")
        return name if self.dialect is None else f"{name}-{self.dialect.name}"


BEHAVIOURS: list[Behaviour] = []

WHOLE, HALF, NONE = "whole", "half", "none"


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


FULL = Told(input=19, output=7, read=5, write=3)
body = call(FULL)

URLLIB3_1 = urllib3.__version__.startswith("1.")


def body_of_urllib3_2(act):
    """The same, but for urllib3 1.26, whose own `read(-1)` waits until the connection ends."""
    return act if URLLIB3_1 else body(act)


@pytest.fixture(scope="module")
def stage():
    made = Stage()
    for service in ("bedrock-runtime", "s3", "sts"):
        made.client(service=service)
    made.settle()
    yield made
    made.close()


def script(scene, *events, **more):
    """Let the next stream be the dialect's own events, or these."""
    scene.bedrock.reply_events(list(events or scene.dialect.events), **more)


def see_each(scene, stream):
    """Note each event as it comes."""
    for event in stream:
        scene.saw("event", event)


def half(stream, count=4):
    """Take the first events of a stream."""
    return [event for event, _ in zip(stream, range(count), strict=False)]


# --- Streams: read to the end ---


@stream()
def _exhausted(scene):
    script(scene)
    stream = scene.stream()
    scene.saw("kind", (type(stream), isinstance(stream, EventStream), callable(stream.close)))
    scene.saw("members", sorted(name for name in dir(stream) if not name.startswith("_")))
    events = iter(stream)
    scene.saw("iterator", (type(events), iter(events) is events, events is stream))
    scene.saw("events", list(events))
    scene.pool()


@stream()
def _exhausted_then_closed(scene):
    script(scene)
    stream = scene.stream()
    scene.saw("events", list(stream))
    scene.saw("close", stream.close())
    scene.pool()


@stream()
def _closed_twice_after_the_end(scene):
    script(scene)
    stream = scene.stream()
    scene.saw("events", list(stream))
    scene.saw("closed", [stream.close(), stream.close()])


@stream()
def _iterated_again_after_the_end(scene):
    script(scene)
    stream = scene.stream()
    scene.saw("events", list(stream))
    scene.saw("again", list(stream))
    scene.saw("and again", next(iter(stream), "nothing"))


@stream()
def _left_by_break_and_resumed_to_the_end(scene):
    script(scene)
    stream = scene.stream()
    scene.saw("first", half(stream))
    gc.collect()
    scene.saw("rest", list(stream))
    scene.pool()


@stream()
def _an_iterator_closed_and_the_stream_iterated_again(scene):
    script(scene)
    stream = scene.stream()
    events = iter(stream)
    scene.saw("first", next(events))
    scene.saw("close", events.close())
    scene.tried("after close", lambda: next(events))
    scene.saw("rest", list(stream))


@stream()
def _an_iterator_thrown_into_and_the_stream_iterated_again(scene):
    script(scene)
    stream = scene.stream()
    events = iter(stream)
    scene.saw("first", next(events))
    scene.tried("thrown", lambda: events.throw(KeyError("mine")))
    scene.saw("rest", list(stream))


@stream()
def _sent_to_like_a_generator(scene):
    script(scene)
    events = iter(scene.stream())
    scene.saw("sent", [events.send(None), events.send("ignored"), *events])


@stream()
def _two_iterators_taking_turns(scene):
    script(scene)
    stream = scene.stream()
    one, two = iter(stream), iter(stream)
    scene.saw("turns", [next(one), next(two), next(one), next(two), *one, *two])


@stream()
def _delegated_to_by_another_generator(scene):
    def relay(stream):
        yield from stream

    script(scene)
    scene.saw("events", list(relay(scene.stream())))


@stream()
def _events_kept_and_compared_with_copies(scene):
    script(scene)
    kept, copies = [], []
    for event in scene.stream():
        kept.append(event)
        copies.append(copy.deepcopy(event))
    assert kept == copies
    assert len({id(event) for event in kept}) == len(kept)
    scene.saw("events", kept)


@stream()
def _events_changed_by_the_caller(scene):
    script(scene)
    for event in scene.stream():
        scene.saw("event", event)
        for value in event.values():
            value.clear()
        event.clear()


@stream()
def _frames_that_straddle_reads(scene):
    scene.bedrock.chunk_size = 7
    script(scene)
    scene.saw("events", list(scene.stream()))


@stream()
def _in_one_piece_after_a_wait(scene):
    scene.bedrock.slow(first=0.01, each=0.001)
    script(scene)
    scene.saw("events", list(scene.stream()))


@stream()
def _iterated_in_another_thread(scene):
    script(scene)
    stream = scene.stream()
    with ThreadPoolExecutor(1) as pool:
        scene.saw("events", pool.submit(list, stream).result())
    scene.pool()


@stream()
def _made_in_one_thread_iterated_in_another_closed_in_a_third(scene):
    script(scene)
    with ThreadPoolExecutor(1) as one:
        stream = one.submit(scene.stream).result()
    with ThreadPoolExecutor(1) as two:
        scene.saw("events", two.submit(list, stream).result())
    with ThreadPoolExecutor(1) as three:
        scene.saw("close", three.submit(stream.close).result())


@stream()
def _each_event_taken_by_a_new_thread(scene):
    script(scene)
    events = iter(scene.stream())
    taken = queue.Queue()

    def take():
        taken.put(next(events, None))

    while True:
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
        event = taken.get()
        if event is None:
            break
        scene.saw("event", event)


@stream()
def _passed_on_through_a_queue(scene):
    script(scene)
    stream = scene.stream()
    passed = queue.Queue()

    def produce():
        for event in stream:
            passed.put(event)
        passed.put(None)

    thread = threading.Thread(target=produce)
    thread.start()
    scene.saw("events", list(iter(passed.get, None)))
    thread.join()


@stream()
def _asked_for_its_initial_response(scene):
    """Bedrock sends none: botocore takes the first event away, with us or without."""
    first = ("initial-response", b"{}")
    script(scene, first, *scene.dialect.events)
    stream = scene.stream()
    initial = stream.get_initial_response()
    scene.saw("initial", (type(initial), initial.payload, initial.headers))
    scene.saw("events", list(stream))


@stream()
def _an_initial_response_among_the_events(scene):
    script(scene, ("initial-response", b"{}"), *scene.dialect.events)
    scene.saw("events", list(scene.stream()))


@stream()
def _events_of_an_unknown_kind(scene):
    events = list(scene.dialect.events)
    events.insert(1, ("somethingNew", b'{"a": [1, {"b": null}]}'))
    script(scene, *events)
    scene.saw("events", list(scene.stream()))


@stream()
def _the_client_closed_before_the_stream_is_read(scene):
    scene.use(max_pool_connections=3)
    script(scene)
    stream = scene.stream()
    scene.client.close()
    scene.saw("events", list(stream))


@stream()
def _an_attribute_of_the_callers_own(scene):
    script(scene)
    stream = scene.stream()
    stream.mine = "mine"
    scene.saw("events", list(stream))
    scene.saw("mine", stream.mine)


@stream()
def _retried_by_the_sdk(scene):
    scene.use(retries={"total_max_attempts": 3, "mode": "standard"})
    scene.bedrock.throttle(times=1)
    script(scene)
    with mock_sleep():
        stream = scene.stream()
    scene.saw("events", list(stream))


@stream()
def _events_after_the_last_one(scene):
    more = scene.dialect.events[-1]
    script(scene, *scene.dialect.events, more)
    scene.saw("events", list(scene.stream()))


@contextlib.contextmanager
def mock_sleep():
    """Let botocore retry at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.sleep", lambda seconds: None)
        yield


# --- Streams: left before the end ---


@stream(HALF)
def _left_by_break_and_dropped(scene):
    script(scene)
    stream = scene.stream()
    scene.saw("first", half(stream))
    scene.pool("while it is held")
    del stream
    scene.pool("dropped")
    gc.collect()
    scene.pool("collected")


@stream(HALF)
def _left_by_break_and_closed(scene):
    script(scene)
    stream = scene.stream()
    scene.saw("first", half(stream))
    scene.saw("close", stream.close())
    scene.pool()


@stream(HALF)
def _left_by_break_closed_and_resumed(scene):
    script(scene)
    stream = scene.stream()
    scene.saw("first", half(stream))
    scene.saw("close", stream.close())
    scene.tried("rest", lambda: list(stream))
    scene.tried("rest again", lambda: list(stream))


@stream(NONE)
def _never_iterated(scene):
    script(scene)
    scene.stream()
    scene.pool("dropped")


@stream(NONE)
def _never_looked_at(scene):
    script(scene)
    scene.dialect.call(scene.client)


@stream(NONE)
def _closed_before_it_was_iterated(scene):
    script(scene)
    stream = scene.stream()
    scene.saw("close", stream.close())
    scene.pool()
    scene.tried("iterated then", lambda: list(stream))


@stream(NONE)
def _an_iterator_made_and_never_advanced(scene):
    script(scene)
    events = iter(scene.stream())
    scene.pool()
    del events


@stream(NONE)
def _given_to_next_directly(scene):
    script(scene)
    stream = scene.stream()
    scene.tried("next", lambda: next(stream))
    scene.tried("len", lambda: len(stream))
    scene.tried("item", lambda: stream[0])
    scene.tried("true", lambda: bool(stream))
    scene.saw("has", [hasattr(stream, name) for name in ("__next__", "read", "__enter__", "send")])


@stream(NONE)
def _used_with_with(scene):
    script(scene)
    stream = scene.stream()

    def enter():
        with stream:
            pass

    scene.tried("with", enter)


@stream(HALF)
def _used_with_closing(scene):
    script(scene)
    with contextlib.closing(scene.stream()) as stream:
        scene.saw("first", half(stream))
    scene.pool()


@stream(HALF)
def _closed_by_an_exit_stack(scene):
    script(scene)
    with contextlib.ExitStack() as stack:
        stream = scene.stream()
        stack.callback(stream.close)
        scene.saw("first", half(stream))


@stream(HALF)
def _its_close_outliving_it(scene):
    """A bound method keeps its object: closing late closes, and raises nothing."""
    script(scene)
    with contextlib.ExitStack() as stack:
        stream = scene.stream()
        stack.callback(stream.close)
        scene.saw("first", half(stream))
        del stream
        gc.collect()
    gc.collect()
    scene.pool("closed and collected")


@stream(HALF)
def _an_exception_in_the_loop_body(scene):
    script(scene)
    mine = KeyError("mine")
    stream = scene.stream()
    try:
        for index, event in enumerate(stream):
            scene.saw("event", event)
            if index == 3:
                raise mine
    except KeyError as error:
        scene.saw("the same", error is mine)
        scene.saw("error", error)
    scene.pool()


@stream(HALF)
def _an_exception_out_of_the_function(scene):
    script(scene)
    for index, _ in enumerate(scene.stream()):
        if index == 3:
            raise ValueError("mine")


@stream(HALF)
def _interrupted_in_the_loop_body(scene):
    script(scene)
    for index, _ in enumerate(scene.stream()):
        if index == 3:
            raise KeyboardInterrupt


@stream(HALF)
def _closed_by_another_thread(scene):
    script(scene)
    stream = scene.stream()
    scene.saw("first", half(stream))
    thread = threading.Thread(target=stream.close)
    thread.start()
    thread.join()
    scene.pool()


@stream(HALF)
def _held_in_a_cycle(scene):
    class Holder:
        pass

    script(scene)
    holder = Holder()
    holder.stream, holder.itself = scene.stream(), holder
    scene.saw("first", half(holder.stream))
    holder.events = iter(holder.stream)
    del holder
    scene.pool("dropped")
    gc.collect()
    scene.pool("collected")


@stream(HALF)
def _watched_by_a_weak_reference(scene):
    script(scene)
    stream = scene.stream()
    gone = []
    reference = weakref.ref(stream, lambda _: gone.append(True))
    scene.saw("first", half(stream))
    del stream
    scene.saw("dropped", (gone, reference() is None))
    gc.collect()
    scene.saw("collected", (gone, reference() is None))


@stream(HALF)
def _copied_and_pickled(scene):
    script(scene)
    stream = scene.stream()
    scene.tried("pickle", lambda: pickle.dumps(stream))
    scene.tried("deepcopy", lambda: copy.deepcopy(stream))
    twin = copy.copy(stream)
    scene.saw("twin", (type(twin), twin._raw_stream is stream._raw_stream))
    scene.saw("first", half(twin))
    scene.saw("close", twin.close())


@stream(HALF)
def _sliced_lazily(scene):
    script(scene)
    scene.saw("first", list(itertools.islice(scene.stream(), 4)))


# --- Streams: going wrong ---


@stream(HALF, error="throttlingException")
def _an_exception_event_in_the_middle(scene):
    scene.bedrock.stream_error("throttlingException", after=4)
    script(scene)
    stream = scene.stream()
    try:
        see_each(scene, stream)
    except Exception as error:
        scene.saw("error", error)
        scene.saw("kind", type(error).__mro__)
    scene.tried("iterated then", lambda: list(stream))
    scene.pool()


@stream(NONE, error="modelStreamErrorException")
def _an_exception_event_at_once(scene):
    scene.bedrock.stream_error("modelStreamErrorException", after=0)
    script(scene)
    scene.tried("events", lambda: list(scene.stream()))


@stream(HALF, error="ProtocolError")
def _a_connection_that_dies_in_the_middle(scene):
    scene.bedrock.break_stream(after=4)
    script(scene)
    stream = scene.stream()
    scene.tried("events", lambda: see_each(scene, stream))
    scene.tried("iterated then", lambda: list(stream))
    scene.pool()


@stream(HALF, error="ReadTimeoutError")
def _a_read_timeout_in_the_middle(scene):
    scene.use(raw=True, read_timeout=0.1)
    frames = [frame(event, scene.dialect) for event in scene.dialect.events[:4]]
    scene.raw.prepare(b"".join(map(chunk, frames)), "Transfer-Encoding: chunked")
    stream = scene.stream()
    scene.tried("events", lambda: see_each(scene, stream))
    scene.tried("iterated then", lambda: list(stream))
    scene.pool()


@stream(HALF, error="ChecksumMismatch")
def _a_wrong_checksum_in_the_middle(scene):
    scene.bedrock.corrupt_stream(after=4)
    script(scene)
    stream = scene.stream()
    scene.tried("events", lambda: see_each(scene, stream))
    scene.tried("iterated then", lambda: list(stream))
    scene.pool()


@stream(NONE, missing="aborted")
def _no_events_at_all(scene):
    scene.bedrock.reply_events([])
    scene.saw("events", list(scene.stream()))


@stream(NONE, missing="aborted")
def _no_initial_response(scene):
    scene.bedrock.reply_events([])
    stream = scene.stream()
    scene.tried("initial", stream.get_initial_response)


@stream(NONE, error="ThrottlingException")
def _refused_before_it_began(scene):
    scene.bedrock.throttle()
    try:
        scene.dialect.call(scene.client)
    except scene.client.exceptions.ThrottlingException as error:
        scene.saw("error", error)
        scene.saw("kind", type(error) is scene.client.exceptions.ThrottlingException)


# --- Bodies: read to the end ---


def say(scene, text=BODY, **headers):
    """Let the next InvokeModel answer `text`, with the counts in its headers."""
    scene.bedrock.reply(text, headers={**BODY_HEADERS, **headers})
    return scene.body()


@body
def _a_body_read_at_once(scene):
    body = say(scene)
    scene.saw("kind", (type(body), isinstance(body, StreamingBody), isinstance(body, io.IOBase)))
    scene.saw("members", sorted(name for name in dir(body) if not name.startswith("_")))
    scene.saw("data", body.read())
    scene.pool()
    scene.saw("left", (body.read(), body.tell()))


@body
def _a_body_read_by_json(scene):
    scene.saw("data", json.load(say(scene)))


@body
def _a_body_read_in_pieces(scene):
    body = say(scene)
    while piece := body.read(1000):
        scene.saw("piece", piece)
        scene.pool()
    scene.saw("left", body.read(10))


@body
def _a_body_read_with_the_amount_by_name(scene):
    body = say(scene)
    scene.saw("data", [body.read(amt=10), body.read(amt=None), body.read(amt=10)])


@body
def _a_body_read_by_zero_and_then_all(scene):
    body = say(scene)
    scene.saw("data", [body.read(0), body.read(0), body.read()])


@body_of_urllib3_2
def _a_body_read_by_minus_one(scene):
    body = say(scene)
    scene.tried("data", lambda: body.read(-1))
    scene.tried("left", lambda: body.read(-1))


@body
def _a_body_read_by_exactly_its_length(scene):
    body = say(scene)
    scene.saw("data", body.read(len(BODY)))
    scene.pool()


@body
def _a_body_read_by_more_than_its_length(scene):
    scene.saw("data", say(scene).read(len(BODY) + 1000))


@body
def _a_body_read_twice(scene):
    body = say(scene)
    scene.saw("data", [body.read(), body.read(), body.read()])


@body
def _a_body_read_a_little_and_then_the_rest(scene):
    body = say(scene)
    scene.saw("data", [body.read(10), body.tell(), body.read(), body.tell()])


@body
def _a_body_read_into_a_buffer(scene):
    body, buffer = say(scene), bytearray(1000)
    while count := body.readinto(buffer):
        scene.saw("piece", bytes(buffer[:count]))
    scene.saw("left", body.readinto(memoryview(buffer)))


@body
def _a_body_read_into_an_empty_buffer_first(scene):
    body = say(scene)
    scene.saw("nothing", body.readinto(bytearray()))
    scene.saw("data", body.read())


@body
def _a_body_read_by_iter_chunks(scene):
    scene.saw("pieces", list(say(scene).iter_chunks(999)))


@body
def _a_body_read_by_iter_chunks_of_the_default_size(scene):
    scene.saw("pieces", list(say(scene).iter_chunks()))


@body
def _a_body_read_by_iter_lines(scene):
    scene.saw("lines", list(say(scene).iter_lines(chunk_size=64)))


@body
def _a_body_read_by_iter_lines_with_their_ends(scene):
    scene.saw("lines", list(say(scene).iter_lines(keepends=True)))


@body
def _a_body_iterated(scene):
    scene.saw("pieces", list(say(scene)))


@body
def _a_body_given_to_next(scene):
    body = say(scene)
    scene.saw("pieces", [next(body), body.next(), *body])
    scene.tried("left", lambda: next(body))


@body
def _a_body_read_by_readlines(scene):
    scene.saw("lines", say(scene).readlines())


@body
def _a_body_read_by_readline(scene):
    body = say(scene)
    scene.tried("line", body.readline)
    scene.tried("rest", body.read)


@body
def _a_body_read_by_a_partial_until_it_is_empty(scene):
    scene.saw("pieces", list(iter(partial(say(scene).read, 512), b"")))


@body
def _a_body_decoded_by_codecs(scene):
    scene.saw("text", codecs.getreader("utf-8")(say(scene)).read())


@body
def _a_body_decoded_line_by_line(scene):
    scene.saw("text", list(codecs.iterdecode(say(scene).iter_lines(), "utf-8")))


@body
def _a_body_read_by_csv(scene):
    scene.saw("rows", list(csv.reader(codecs.getreader("utf-8")(say(scene)))))


@body
def _a_body_wrapped_in_a_buffered_reader(scene):
    body = say(scene)
    reader = io.BufferedReader(body._raw_stream)
    scene.saw("data", [reader.peek(4)[:4], reader.readline(), reader.read()])


@body
def _a_body_wrapped_in_a_text_wrapper(scene):
    body = say(scene)
    scene.tried("text", lambda: io.TextIOWrapper(io.BufferedReader(body), "utf-8").read())
    scene.tried("rest", body.read)


@body
def _a_body_copied_to_a_file(scene):
    import shutil

    target = io.BytesIO()
    shutil.copyfileobj(say(scene), target, 700)
    scene.saw("data", target.getvalue())


@body
def _a_body_sent_on_by_another_thread(scene):
    body = say(scene)
    with ThreadPoolExecutor(1) as pool:
        scene.saw("data", pool.submit(body.read).result())
    with ThreadPoolExecutor(1) as pool:
        scene.saw("close", pool.submit(body.close).result())


@body
def _a_body_that_is_no_json(scene):
    scene.saw("data", say(scene, b"\x89PNG\xff not json").read())


@body
def _an_empty_body(scene):
    body = say(scene, b"")
    scene.saw("data", [body.read(), body.read(5)])


@body
def _a_body_of_another_json_type(scene):
    scene.saw("data", say(scene, b'["a", 1]').read())


@body
def _a_body_larger_than_what_is_looked_at(scene):
    text = json.dumps({"content": "x" * 200_000}).encode()
    body = say(scene, text)
    scene.saw("data", [body.read(100_000), body.read()])


# --- Bodies: what `with` hands out ---


def _with(read):
    def act(scene):
        body = say(scene)
        with body as opened:
            scene.keep(opened)
            scene.saw("opened", (type(opened), opened is body._raw_stream, opened is body))
            scene.tried("data", lambda: read(opened))
            scene.tried("again", lambda: read(opened))
            scene.saw("closed", (opened.closed, opened.readable(), opened.tell()))
        scene.saw("after", opened.closed)
        scene.pool()
        scene.tried("after", lambda: read(opened))

    return act


for _name, _read in {
    "read": lambda f: f.read(),
    "read_some": lambda f: f.read(700),
    "read_decoded": lambda f: f.read(decode_content=True),
    "read_cached": lambda f: (f.read(cache_content=True), f.data),
    "read_by_minus_one": lambda f: f.read(-1),
    "read1": lambda f: f.read1(),
    "read1_some": lambda f: [f.read1(700), f.read1(700), f.read1(amt=-1)],
    "read1_to_the_end": lambda f: list(iter(lambda: f.read1(500), b"")),
    "readinto": lambda f: (f.readinto(bytearray(100)), f.read()),
    "stream": lambda f: list(f.stream(512)),
    "stream_of_the_default_size": lambda f: list(f.stream()),
    "stream_left_early": lambda f: next(f.stream(100)),
    "data": lambda f: (f.data, f.data),
    "json": lambda f: f.json(),
    "json_load": json.load,
    "readline": lambda f: [f.readline(), f.readline(10), f.readline()],
    "readlines": lambda f: f.readlines(),
    "iteration": list,
    "iteration_left_early": lambda f: next(iter(f)),
    "nothing": lambda f: None,
    "drain": lambda f: f.drain_conn(),
    "headers": lambda f: (f.status, f.headers.get("content-type"), f.getheader("content-type")),
    "release": lambda f: f.release_conn(),
    "fileno": lambda f: f.fileno() > 0,
    "seek": lambda f: f.seek(0),
    "write": lambda f: f.write(b"x"),
    "text": lambda f: io.TextIOWrapper(f, "utf-8").read(),
    "codec": lambda f: codecs.getreader("utf-8")(f).readline(),
    "buffered": lambda f: io.BufferedReader(f).read(50),
}.items():
    _act = _with(_read)
    _act.__name__ = f"_with_a_body_{_name}"
    (body_of_urllib3_2 if "minus_one" in _name else body)(_act)


@body
def _an_exception_inside_with(scene):
    body = say(scene)
    with body as opened:
        scene.saw("data", opened.read(10))
        raise ValueError("mine")


# --- Bodies: left before the end ---


@body
def _a_body_never_read(scene):
    say(scene)
    scene.pool("dropped")


@body
def _a_body_never_looked_at(scene):
    scene.bedrock.reply(BODY, headers=BODY_HEADERS)
    scene.client.invoke_model(modelId=CLAUDE, body=REQUEST)
    scene.pool("dropped")


@body
def _a_body_read_in_part_and_dropped(scene):
    body = say(scene)
    scene.saw("data", body.read(100))
    scene.pool("held")
    del body
    scene.pool("dropped")


@body
def _a_body_read_in_part_and_closed(scene):
    body = say(scene)
    scene.saw("data", body.read(100))
    scene.saw("close", (body.close(), body.close()))
    scene.pool()
    scene.tried("then", body.read)
    scene.tried("then some", lambda: body.read(5))


@body
def _a_body_closed_at_once(scene):
    body = say(scene)
    scene.saw("close", (body.close(), body.close(), body.closed))
    scene.pool()
    scene.tried("then", body.read)


@body
def _a_body_used_with_closing(scene):
    with contextlib.closing(say(scene)) as body:
        scene.saw("data", body.read(5))
    scene.pool()


@body
def _a_bodys_close_outliving_it(scene):
    with contextlib.ExitStack() as stack:
        body = say(scene)
        stack.callback(body.close)
        scene.saw("data", body.read(5))
        del body
        scene.pool("dropped")
    scene.pool("closed")


@body
def _a_bodys_close_outliving_it_while_its_response_is_read(scene):
    body = say(scene)
    opened, close = body.__enter__(), body.close
    del body
    scene.saw("data", opened.read(5))
    close()
    scene.saw("closed", opened.closed)
    scene.pool("closed")


@body
def _a_bodys_read_outliving_it(scene):
    read = say(scene).read
    gc.collect()
    scene.saw("data", [read(10), read()])


@body
def _a_response_outliving_its_body(scene):
    body = say(scene)
    opened = body.__enter__()
    del body
    gc.collect()
    scene.saw("data", opened.read())


@body
def _an_opened_bodys_chunks_outliving_it(scene):
    chunks = say(scene).__enter__().stream(700)
    gc.collect()
    scene.saw("data", list(chunks))


@body
def _a_body_in_a_cycle(scene):
    class Holder:
        pass

    holder = Holder()
    holder.body, holder.itself = say(scene), holder
    scene.saw("data", holder.body.read(10))
    del holder
    scene.pool("dropped")
    gc.collect()
    scene.pool("collected")


@body
def _a_body_closed_by_another_thread(scene):
    body = say(scene)
    scene.saw("data", body.read(10))
    thread = threading.Thread(target=body.close)
    thread.start()
    thread.join()
    scene.pool()


@body
def _a_body_copied_and_pickled(scene):
    body = say(scene)
    scene.tried("pickle", lambda: pickle.dumps(body))
    scene.tried("deepcopy", lambda: copy.deepcopy(body))
    scene.tried("twin", lambda: type(copy.copy(body)))
    with body as opened:
        scene.tried("pickle", lambda: pickle.dumps(opened))
        scene.tried("deepcopy", lambda: copy.deepcopy(opened))


@body
def _a_body_asked_about_itself(scene):
    body = say(scene)
    scene.saw("about", [body.readable(), body.tell(), body.closed, body.isatty(), repr(body)])
    for name in ("writable", "seekable", "fileno", "flush", "detach", "seek", "truncate"):
        scene.tried(name, lambda name=name: getattr(body, name)())
    scene.saw("timeout", body.set_socket_timeout(7))
    scene.saw("socket", body._raw_stream._fp.fp.raw._sock.gettimeout())
    scene.saw("data", body.read())
    scene.tried("timeout after the end", lambda: body.set_socket_timeout(7))


@body
def _a_body_with_an_attribute_of_the_callers_own(scene):
    body = say(scene)
    body.mine = body._raw_stream.mine = "mine"
    scene.saw("data", body.read())
    scene.saw("mine", (body.mine, body._raw_stream.mine))


@body
def _a_body_the_caller_wraps_anew(scene):
    body = say(scene)
    again = StreamingBody(body, len(BODY))
    scene.saw("data", again.read())
    again.close()


@body
def _a_body_whose_raw_stream_is_wrapped_anew(scene):
    """What LangChain and others do to read the body twice."""
    body = say(scene)
    again = StreamingBody(body._raw_stream, len(BODY))
    scene.saw("data", again.read())


@body
def _a_body_the_client_closed_before_it_is_read(scene):
    scene.use(max_pool_connections=3)
    body = say(scene)
    scene.client.close()
    scene.saw("data", body.read())


# --- Bodies: framed in other ways, and going wrong ---


def frame_body(scene, body, *headers, **more):
    scene.use(raw=True)
    counts = [f"{name}: {value}" for name, value in BODY_HEADERS.items()]
    scene.raw.prepare(body, *counts, *headers, **more)
    return scene.body()


CHUNKED = chunk(BODY[:1500]) + chunk(BODY[1500:1600]) + chunk(BODY[1600:]) + b"0\r\n\r\n"


@body
def _a_chunked_body_read_at_once(scene):
    scene.saw("data", frame_body(scene, CHUNKED, "Transfer-Encoding: chunked").read())
    scene.pool()


@body
def _a_chunked_body_read_in_pieces(scene):
    body = frame_body(scene, CHUNKED, "Transfer-Encoding: chunked")
    scene.saw("data", list(body.iter_chunks(700)))


@body
def _a_chunked_body_read_by_lines(scene):
    scene.saw("data", frame_body(scene, CHUNKED, "Transfer-Encoding: chunked").readlines())


@body
def _a_chunked_body_streamed(scene):
    with frame_body(scene, CHUNKED, "Transfer-Encoding: chunked") as opened:
        scene.saw("data", list(opened.stream()))
        scene.pool()


@body
def _a_chunked_body_streamed_in_part(scene):
    with frame_body(scene, CHUNKED, "Transfer-Encoding: chunked") as opened:
        scene.saw("data", half(opened.stream(100)))
        scene.pool("in the middle")
    scene.pool("after")


@body
def _a_chunked_body_by_read_chunked(scene):
    with frame_body(scene, CHUNKED, "Transfer-Encoding: chunked") as opened:
        chunks = opened.read_chunked(600)
        scene.saw("kind", type(chunks))
        scene.saw("data", [next(chunks), *chunks])
        scene.tried("after the end", lambda: next(chunks))
        scene.tried("again", lambda: list(opened.read_chunked()))


@body
def _chunks_asked_of_a_body_without_chunks(scene):
    with say(scene) as opened:
        scene.tried("chunks", lambda: list(opened.read_chunked()))
        scene.saw("data", opened.read())


# urllib3 1.26 closes the connection at an argument that is no number, which ends the body.
@call(replace(FULL, error="TypeError") if URLLIB3_1 else FULL)
def _a_chunked_body_with_wrong_arguments(scene):
    with frame_body(scene, CHUNKED, "Transfer-Encoding: chunked") as opened:
        scene.tried("too many", lambda: opened.read_chunked(1, 2, 3, 4) and None)
        scene.tried("unknown", lambda: opened.read(nothing=1))
        scene.tried("not a number", lambda: opened.read("x"))


@body
def _a_chunked_bodys_chunks_outliving_it(scene):
    opened = frame_body(scene, CHUNKED, "Transfer-Encoding: chunked").__enter__()
    chunks = opened.read_chunked()
    del opened
    gc.collect()
    scene.saw("data", list(chunks))


@body
def _a_chunked_body_left_in_the_middle_of_its_chunks(scene):
    body = frame_body(scene, CHUNKED, "Transfer-Encoding: chunked")
    chunks = body.__enter__().read_chunked(100)
    scene.saw("data", next(chunks))
    chunks.close()
    scene.pool()
    scene.tried("rest", body.read)


@body
def _a_body_until_the_connection_ends(scene):
    scene.saw("data", frame_body(scene, BODY, hang_up=True).read())


@body
def _a_compressed_body_is_not_decoded(scene):
    import gzip

    packed = gzip.compress(BODY, mtime=0)
    length = f"Content-Length: {len(packed)}"
    scene.saw("data", frame_body(scene, packed, length, "Content-Encoding: gzip").read())


@body
def _a_compressed_body_that_the_caller_decodes(scene):
    import gzip

    packed = gzip.compress(BODY, mtime=0)
    length = f"Content-Length: {len(packed)}"
    with frame_body(scene, packed, length, "Content-Encoding: gzip") as opened:
        scene.tried("data", lambda: opened.read(100, decode_content=True))
        scene.tried("rest", lambda: opened.read(decode_content=True))


@call(Told(**{**vars(FULL), "error": "ProtocolError"}))
def _a_body_shorter_than_it_said(scene):
    body = frame_body(scene, BODY, f"Content-Length: {len(BODY) + 10}", hang_up=True)
    scene.tried("data", body.read)
    scene.pool()
    scene.tried("then", body.read)


@body
def _a_body_shorter_than_it_said_read_in_pieces(scene):
    body = frame_body(scene, BODY, f"Content-Length: {len(BODY) + 10}", hang_up=True)
    error = scene.tried("data", lambda: list(body.iter_chunks(1000)))
    scene.tried("then", lambda: body.read(10))
    # Which of the two finds it out depends on the Python below.
    if isinstance(error, ResponseStreamingError):
        scene.told = (Told(**{**vars(FULL), "error": "ProtocolError"}),)


@body
def _a_body_whose_length_botocore_finds_wrong(scene):
    body = say(scene)
    body._content_length = "3"
    scene.tried("data", body.read)


@call(Told(**{**vars(FULL), "error": "ReadTimeoutError"}))
def _a_body_that_does_not_come(scene):
    scene.use(raw=True, read_timeout=0.1)
    counts = [f"{name}: {value}" for name, value in BODY_HEADERS.items()]
    scene.raw.prepare(BODY[:100], *counts, f"Content-Length: {len(BODY)}")
    body = scene.body()
    scene.saw("data", body.read(100))
    scene.tried("rest", body.read)
    scene.pool()


@call(Told(**{**vars(FULL), "error": "ProtocolError"}))
def _a_chunked_body_that_breaks_off(scene):
    body = frame_body(scene, CHUNKED[:800], "Transfer-Encoding: chunked", hang_up=True)
    scene.tried("data", body.read)


@call(Told(**{**vars(FULL), "error": "ProtocolError"}))
def _a_chunked_body_that_breaks_off_while_it_is_streamed(scene):
    with frame_body(scene, CHUNKED[:800], "Transfer-Encoding: chunked", hang_up=True) as opened:
        scene.tried("data", lambda: list(opened.stream(100)))


# --- Request bodies ---


def _sent(name, make, after):
    def act(scene):
        given = make()
        scene.bedrock.reply(BODY, headers=BODY_HEADERS, times=None)
        try:
            answer = scene.client.invoke_model(modelId=CLAUDE, body=given)
            scene.saw("data", answer["body"].read())
        except Exception as error:
            scene.saw("error", error)
        scene.saw("after", after(given))

    act.__name__ = f"_a_request_body_as_{name}"
    return act


class _Unseekable:
    """A file that can only be read, once."""

    def __init__(self) -> None:
        self.left = REQUEST
        self.reads = 0

    def read(self, amount: int | None = -1) -> bytes:
        self.reads += 1
        data, self.left = self.left, b""
        return data


class _Counting(io.BytesIO):
    """A file that knows how it was used."""

    def __init__(self) -> None:
        super().__init__(REQUEST)
        self.uses: list[str] = []

    def read(self, *args: Any) -> bytes:
        self.uses.append("read")
        return super().read(*args)

    def seek(self, *args: Any) -> int:
        self.uses.append("seek")
        return super().seek(*args)


for _name, _make, _after in (
    ("str", REQUEST.decode, str),
    ("bytes", lambda: REQUEST, bytes),
    ("bytearray", lambda: bytearray(REQUEST), bytes),
    ("file", lambda: io.BytesIO(REQUEST), lambda f: (f.tell(), f.closed, f.getvalue())),
    ("counting_file", _Counting, lambda f: (f.uses, f.tell())),
    ("bytes_that_are_no_json", lambda: b"\xff\x00", bytes),
    ("a_large_str", lambda: json.dumps({"messages": ["x" * 200_000]}), str),
):
    call(FULL)(_sent(_name, _make, _after))
for _name, _make, _after, _error in (
    (
        "unseekable_file",
        _Unseekable,
        lambda f: (f.reads, f.left),
        "TypeError",
    ),
    ("memoryview", lambda: memoryview(bytearray(REQUEST)), bytes, "ParamValidationError"),
    ("number", lambda: 5, int, "ParamValidationError"),
    ("dict", lambda: {"messages": []}, dict, "ParamValidationError"),
):
    call(Told(missing="error", error=_error))(_sent(_name, _make, _after))


# --- Other answers, and errors ---


ANSWER = {
    "output": {"message": {"role": "assistant", "content": [{"text": "hi"}]}},
    "stopReason": "end_turn",
    "usage": DIALECTS[0].events[-1]["metadata"]["usage"],
    "metrics": {"latencyMs": 3},
}


@call(FULL)
def _a_conversation(scene):
    answer = {
        **ANSWER,
        "somethingNew": {"a": 1},
    }
    scene.bedrock.reply(answer)
    asked = copy.deepcopy(MESSAGES)
    answer = scene.client.converse(modelId=CLAUDE, messages=asked)
    scene.saw("answer", answer)
    scene.saw("kind", (type(answer), type(answer["usage"])))
    assert asked == MESSAGES
    answer.clear()


@call(Told(missing="unsupported"))
def _a_conversation_without_usage(scene):
    scene.bedrock.reply({**ANSWER, "usage": {}})
    scene.saw("answer", scene.client.converse(modelId=CLAUDE, messages=MESSAGES))


@call(Told(missing="unsupported"))
def _an_answer_that_is_no_json(scene):
    scene.bedrock.reply(b"<html>")
    scene.tried("answer", lambda: scene.client.converse(modelId=CLAUDE, messages=MESSAGES))


@call(Told())
def _tokens_counted(scene):
    if not hasattr(scene.client, "count_tokens"):
        scene.told = ()
        return
    scene.bedrock.reply({"inputTokens": 5})
    asked = {"converse": {"messages": MESSAGES}}
    scene.saw("answer", scene.client.count_tokens(modelId=CLAUDE, input=asked))


@call(Told())
def _a_guardrail_applied(scene):
    scene.bedrock.reply({"action": "NONE", "usage": {}, "outputs": [], "assessments": []})
    answer = scene.client.apply_guardrail(
        guardrailIdentifier="g",
        guardrailVersion="1",
        source="INPUT",
        content=[{"text": {"text": "hello"}}],
    )
    scene.saw("answer", answer)


@call(
    *(
        Told(missing="error", error=name)
        for name in (
            "ThrottlingException",
            "ValidationException",
            "AccessDeniedException",
            "ModelTimeoutException",
            "InternalServerException",
            "ServiceUnavailableException",
        )
    )
)
def _errors_that_bedrock_answers(scene):
    for name in (
        "ThrottlingException",
        "ValidationException",
        "AccessDeniedException",
        "ModelTimeoutException",
        "InternalServerException",
        "ServiceUnavailableException",
    ):
        scene.bedrock.fail(name)
        try:
            scene.client.converse(modelId=CLAUDE, messages=MESSAGES)
        except scene.client.exceptions.ClientError as error:
            scene.saw("error", error)
            scene.saw("kind", type(error) is getattr(scene.client.exceptions, name))
        scene.pool()


@call(*[Told(missing="error", error="ParamValidationError")] * 4)
def _parameters_that_botocore_refuses(scene):
    client = scene.client
    scene.tried("no model", lambda: client.converse(messages=MESSAGES))
    scene.tried("a model that is no text", lambda: client.converse(modelId=5, messages=MESSAGES))
    scene.tried("odd messages", lambda: client.converse(modelId=CLAUDE, messages="hello"))
    scene.tried("unknown", lambda: client.converse_stream(modelId=CLAUDE, nothing=1))
    scene.tried("positional", lambda: client.converse(CLAUDE))


@call(Told(missing="error", error="ReadTimeoutError"))
def _an_answer_that_does_not_come(scene):
    scene.use(raw=True, read_timeout=0.1)
    scene.raw.answer, scene.raw.hang_up = b"", False
    scene.client.converse(modelId=CLAUDE, messages=MESSAGES)


@call(Told(missing="error", error="ConnectionClosedError"))
def _a_connection_closed_without_an_answer(scene):
    scene.use(raw=True)
    scene.raw.answer, scene.raw.hang_up = b"", True
    scene.client.converse(modelId=CLAUDE, messages=MESSAGES)


@call(Told(missing="error", error="ResponseParserError"))
def _an_answer_that_botocore_cannot_parse(scene):
    scene.bedrock.reply({**ANSWER, "output": {}})
    scene.client.converse(modelId=CLAUDE, messages=MESSAGES)


@call(Told(missing="error", error="EndpointConnectionError"))
def _a_server_that_is_not_there(scene):
    scene.use(url="http://127.0.0.1:1").converse(modelId=CLAUDE, messages=MESSAGES)


@call(Told(missing="error", error="RuntimeError"))
def _a_hook_of_the_callers_that_raises(scene):
    mine = RuntimeError("mine")

    def hook(**kwargs):
        raise mine

    events = scene.client.meta.events
    events.register("before-call.bedrock-runtime.Converse", hook)
    try:
        scene.client.converse(modelId=CLAUDE, messages=MESSAGES)
    except RuntimeError as error:
        scene.saw("the same", error is mine)
        raise
    finally:
        events.unregister("before-call.bedrock-runtime.Converse", hook)


@call(Told(missing="error", error="KeyboardInterrupt"))
def _interrupted_during_the_call(scene):
    def hook(**kwargs):
        raise KeyboardInterrupt

    events = scene.client.meta.events
    events.register("before-send.bedrock-runtime.Converse", hook)
    try:
        scene.client.converse(modelId=CLAUDE, messages=MESSAGES)
    finally:
        events.unregister("before-send.bedrock-runtime.Converse", hook)


@call(FULL)
def _hooks_of_the_callers(scene):
    events, client = scene.client.meta.events, scene.client
    scene.bedrock.reply(ANSWER)
    called = []

    def hook(event_name, **kwargs):
        called.append((event_name, sorted(kwargs)))

    names = ("provide-client-params", "before-parameter-build", "before-call", "before-send")
    for name in (*names, "after-call"):
        events.register(f"{name}.bedrock-runtime.Converse", hook)
    try:
        scene.saw("answer", client.converse(modelId=CLAUDE, messages=MESSAGES))
    finally:
        for name in (*names, "after-call"):
            events.unregister(f"{name}.bedrock-runtime.Converse", hook)
    scene.saw("hooks", called)


@call(FULL)
def _hooks_that_use_the_stream_and_change_the_answer(scene):
    def hook(parsed, **kwargs):
        parsed["mine"] = [1]

    scene.bedrock.reply(BODY, headers=BODY_HEADERS)
    events = scene.client.meta.events
    events.register("after-call.bedrock-runtime.InvokeModel", hook)
    try:
        answer = scene.client.invoke_model(modelId=CLAUDE, body=REQUEST)
    finally:
        events.unregister("after-call.bedrock-runtime.InvokeModel", hook)
    scene.saw("answer", answer)
    scene.saw("data", answer["body"].read())


@contextlib.contextmanager
def _after_call(scene, hook):
    events = scene.client.meta.events
    events.register("after-call.bedrock-runtime", hook)
    try:
        yield
    finally:
        events.unregister("after-call.bedrock-runtime", hook)


def put_on(scene, thing, *names):
    """Put on `thing`, as others do, what notes each call and calls what was there."""

    def put(name, before):
        def noting(*args, **kwargs):
            scene.saw(name, kwargs)
            return before(*args)

        setattr(thing, name, noting)

    for name in names:
        put(name, getattr(thing, name))


@stream()
def _what_others_put_on_the_stream(scene):
    script(scene)
    with _after_call(
        scene, lambda parsed, **_: put_on(scene, next(_streams(parsed)), "_parse_event", "close")
    ):
        events = scene.stream()
    see_each(scene, events)
    events.close(by="name")


def _streams(parsed):
    return (value for value in parsed.values() if isinstance(value, EventStream))


@body
def _what_others_put_on_the_body(scene):
    def hook(parsed, **_):
        put_on(scene, parsed["body"], "close")
        put_on(scene, parsed["body"]._raw_stream, "read", "read_chunked")

    scene.bedrock.reply(BODY, headers=BODY_HEADERS)
    with _after_call(scene, hook):
        body = scene.client.invoke_model(modelId=CLAUDE, body=REQUEST)["body"]
    scene.saw("data", body.read())
    body.close(by="name")


class _Proxy(wrapt.ObjectProxy):
    """What another instrumentation puts around a body, or around what lies below it."""

    def read(self, *args, **kwargs):
        return self.__wrapped__.read(*args, **kwargs)

    def close(self):
        return self.__wrapped__.close()


@body
def _a_proxy_around_the_body(scene):
    def hook(parsed, **_):
        parsed["body"] = _Proxy(parsed["body"])

    scene.bedrock.reply(BODY, headers=BODY_HEADERS)
    with _after_call(scene, hook):
        body = scene.client.invoke_model(modelId=CLAUDE, body=REQUEST)["body"]
    scene.saw("data", body.read())
    body.close()


@body
def _a_proxy_below_the_body(scene):
    def hook(parsed, **_):
        parsed["body"]._raw_stream = _Proxy(parsed["body"]._raw_stream)

    scene.bedrock.reply(BODY, headers=BODY_HEADERS)
    with _after_call(scene, hook):
        body = scene.client.invoke_model(modelId=CLAUDE, body=REQUEST)["body"]
    scene.saw("data", body.read())
    body.close()


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda behaviour: behaviour.id)
def test_the_caller_sees_the_same(stage, behaviour):
    compare(stage, behaviour.act, behaviour.told, behaviour.dialect)


# --- What needs a clock, memory, or many examples ---


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_the_first_event_is_there_before_the_second_exists(stage, dialect):
    """The server writes one event and waits: nothing reads ahead, with us or without."""

    def first(client):
        held = threading.Event()
        written = []

        def frames():
            for index, event in enumerate(dialect.events):
                if index == 1:
                    held.wait(10)
                written.append(index)
                yield frame(event, dialect)

        with serving(frames) as url, contextlib.closing(stage_client(url)) as client:
            events = iter(dialect.call(client)[dialect.member])
            event = next(events)
            seen = (event, list(written))
            held.set()
            return seen, list(events), list(written)

    stage.clear()
    bare = first(stage)
    with instrumented(**ALL_ON) as (captured, opened):
        seen = first(stage)
        check_told(captured, opened, (dialect.whole,))
    assert seen == bare
    assert bare[0][1] == [0]
    stage.compared += 1


def stage_client(url):
    import boto3

    return boto3.client(
        "bedrock-runtime",
        endpoint_url=url,
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}),
    )


@contextlib.contextmanager
def serving(frames):
    """Serve one streamed answer, each frame written when the generator gives it."""
    import socket

    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as reader:
            size = 0
            while (line := reader.readline()) not in (b"\r\n", b""):
                if line.lower().startswith(b"content-length:"):
                    size = int(line.split(b":")[1])
            reader.read(size)
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            try:
                for data in frames():
                    connection.sendall(chunk(data))
                connection.sendall(b"0\r\n\r\n")
            except OSError:
                pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()
        thread.join(10)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_memory_does_not_grow_with_the_length_of_a_stream(stage, dialect):
    """Three quarters of a long stream cost no more memory than its first quarter."""
    count = 4_000
    middle = frame(dialect.events[3], dialect)

    def frames():
        for event in dialect.events[:3]:
            yield frame(event, dialect)
        for _ in range(count // 100):
            yield middle * 100
        for event in dialect.events[4:]:
            yield frame(event, dialect)

    def grown():
        with serving(frames) as url, contextlib.closing(stage_client(url)) as client:
            stream = dialect.call(client)[dialect.member]
            tracemalloc.start()
            try:
                for index, _ in enumerate(stream):
                    if index == count // 4:
                        before = tracemalloc.get_traced_memory()[0]
                    if index == count - 100:
                        after = tracemalloc.get_traced_memory()[0]
            finally:
                tracemalloc.stop()
            return after - before

    with instrumented(time_per_output_chunk=True) as (captured, opened):
        grown()  # what is made once, by the first stream of a process
        assert grown() < 50_000
        check_told(captured, opened, (dialect.whole, dialect.whole))


def test_memory_does_not_grow_with_the_size_of_a_body(stage):
    """What is kept of a body is bounded, whatever the caller reads."""
    text = json.dumps({"content": "x" * 4_000_000}).encode()
    stage.clear()
    with instrumented() as (captured, opened):
        framed = "Transfer-Encoding: chunked"
        counts = [f"{name}: {value}" for name, value in BODY_HEADERS.items()]
        pieces = b"".join(chunk(text[at : at + 4096]) for at in range(0, len(text), 4096))
        stage.raw.prepare(pieces + b"0\r\n\r\n", *counts, framed)
        body = stage.client(raw=True).invoke_model(modelId=CLAUDE, body=REQUEST)["body"]
        tracemalloc.start()
        try:
            for index, _ in enumerate(body.iter_chunks(4096)):
                if index == 20:
                    before = tracemalloc.get_traced_memory()[0]
            after = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert after - before < 50_000
        check_told(captured, opened, (FULL,))


_TEXT = st.text(max_size=20)
_DELTAS = st.one_of(
    st.builds(lambda text: {"text": text}, _TEXT),
    st.builds(lambda text: {"toolUse": {"input": text}}, _TEXT),
    st.builds(lambda text: {"reasoningContent": {"text": text}}, _TEXT),
    st.builds(lambda text: {"reasoningContent": {"signature": text}}, _TEXT),
    st.builds(lambda text: {"citation": {"title": text, "source": text}}, _TEXT),
    st.builds(lambda text: {text or "unknown": {"a": text}}, _TEXT),
    st.just({}),
)
_STREAMS = st.lists(
    st.one_of(
        st.builds(
            lambda index, delta: {
                "contentBlockDelta": {"contentBlockIndex": index, "delta": delta}
            },
            st.integers(0, 3),
            _DELTAS,
        ),
        st.sampled_from(
            [
                {"messageStart": {"role": "assistant"}},
                {"messageStart": {}},
                {"contentBlockStart": {"contentBlockIndex": 1, "start": {}}},
                {"contentBlockStop": {}},
                {"messageStop": {"stopReason": "tool_use"}},
                {"messageStop": {}},
                {"metadata": {}},
                {"metadata": {"usage": {}}},
                {"metadata": {"metrics": {}}},
            ]
        ),
    ),
    max_size=12,
)
_PIECES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), _TEXT),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "usage",
                    "message",
                    "delta",
                    "stop_reason",
                    "output_tokens",
                    "index",
                    "type",
                    "token",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)

_examples = settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def _events_of(stage, dialect, frames, size):
    """Return what the caller sees of a stream of these frames, cut into pieces of this size."""
    stage.clear()
    stage.bedrock.chunk_size = size
    stage.bedrock.reply_events(frames, native=dialect.member == "body")
    seen, copies, raised = [], [], None
    with contextlib.closing(dialect.call(stage.client())[dialect.member]) as stream:
        try:
            for event in stream:
                seen.append(event)
                copies.append(copy.deepcopy(event))
        except Exception as error:
            raised = type(error), str(error)
    return seen, copies, raised


@_examples
@given(events=_STREAMS, size=st.one_of(st.none(), st.integers(1, 200)), on=st.booleans())
def test_any_events_in_any_pieces_reach_the_caller_unchanged(stage, events, size, on):
    _compare_any(stage, DIALECTS[0], events, size, on)


@_examples
@given(
    chunks=st.lists(st.one_of(_PIECES, st.binary(max_size=20)), max_size=8),
    size=st.one_of(st.none(), st.integers(1, 200)),
    on=st.booleans(),
)
def test_any_chunks_in_any_pieces_reach_the_caller_unchanged(stage, chunks, size, on):
    """Also those that are no JSON, or JSON of a kind that nobody expects."""
    frames = [
        ("chunk", data if isinstance(data, bytes) else json.dumps(data).encode()) for data in chunks
    ]
    _compare_any(stage, DIALECTS[1], frames, size, on)


def _compare_any(stage, dialect, frames, size, on):
    bare = _events_of(stage, dialect, frames, size)
    with instrumented(**(ALL_ON if on else {})) as (captured, opened):
        seen = _events_of(stage, dialect, frames, size)
        assert seen == bare
        assert seen[0] == seen[1]
        assert len(captured.spans) == opened.started == 1
        assert captured.total("bedrock.instrumentation.errors") is None
    stage.compared += 1


@_examples
@given(
    text=st.binary(max_size=300) | _PIECES.map(lambda data: json.dumps(data).encode()),
    amounts=st.lists(st.integers(-1, 60), max_size=8),
    chunked=st.booleans(),
)
def test_any_body_in_any_amounts_reaches_the_caller_unchanged(stage, text, amounts, chunked):
    def read():
        stage.clear()
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(text)}"
        pieces = [chunk(text[at : at + 7]) for at in range(0, len(text), 7)] if chunked else [text]
        stage.raw.prepare(b"".join(pieces) + (b"0\r\n\r\n" if chunked else b""), framing)
        body = stage.client(raw=True).invoke_model(modelId=CLAUDE, body=REQUEST)["body"]
        seen = []
        for amount in amounts:
            try:
                seen.append(body.read(amount))
            except Exception as error:
                seen.append((type(error), str(error)))
        try:
            seen.append(body.read())
        except Exception as error:
            seen.append((type(error), str(error)))
        return seen

    bare = read()
    with instrumented(**ALL_ON) as (captured, opened):
        assert read() == bare
        assert len(captured.spans) == opened.started == 1
        assert captured.total("bedrock.instrumentation.errors") is None
    stage.compared += 1


# --- Where it differs, and why ---


def test_a_read_that_outlives_the_opened_body_finds_it_closed(stage):
    """The one thing that differs: a shadow holds its response weakly, a bound method does not.

    Nothing else may hold the body or what `with` hands out: only then it differs.
    """
    stage.clear()
    stage.bedrock.reply(BODY, headers=BODY_HEADERS, times=None)
    client = stage.client()
    read = client.invoke_model(modelId=CLAUDE, body=REQUEST)["body"].__enter__().read
    assert read() == BODY
    with instrumented() as (captured, _):
        read = client.invoke_model(modelId=CLAUDE, body=REQUEST)["body"].__enter__().read
        with pytest.raises(ValueError, match="I/O operation on closed file"):
            read()
        assert len(captured.spans) == 1


def test_answers_of_botocores_stubber(stage, caplog, monkeypatch):
    """What unit tests use: answers without headers, bodies that are plain files."""
    monkeypatch.setattr("otel_bedrock.bracket._said_unwatchable", set())
    client = stage_client("http://127.0.0.1:1")

    def ask():
        file = io.BytesIO(BODY)
        with Stubber(client) as stub:
            stub.add_response("converse", ANSWER)
            stub.add_response(
                "invoke_model",
                {"body": StreamingBody(file, len(BODY)), "contentType": "application/json"},
            )
            stub.add_response("converse_stream", {"stream": {}})
            stub.add_client_error("converse", "ThrottlingException", "slow down")
            answer = client.converse(modelId=CLAUDE, messages=MESSAGES)
            body = client.invoke_model(modelId=CLAUDE, body=REQUEST)["body"]
            seen = [answer, type(body), body._raw_stream is file, body.read()]
            seen.append(client.converse_stream(modelId=CLAUDE, messages=MESSAGES))
            with pytest.raises(client.exceptions.ThrottlingException) as raised:
                client.converse(modelId=CLAUDE, messages=MESSAGES)
            return [*seen, str(raised.value)]

    bare = ask()
    with instrumented() as (captured, opened):
        assert ask() == bare
        unknown = Told(missing="unsupported")
        error = Told(missing="error", error="ThrottlingException")
        check_told(captured, opened, (FULL, FULL, unknown, error))
    said = [record.getMessage() for record in caplog.records if record.name == "otel_bedrock"]
    assert len(said) == 1
    assert "cannot be observed" in said[0]
    client.close()


def test_how_many_behaviours_were_compared(stage, capsys):
    with capsys.disabled():
        print(f"\n  {stage.compared} behaviours compared, bare and instrumented")


def test_a_body_that_is_handed_out_again_and_again_stays_as_shallow(stage):
    """A stub may give the same object for every call: ours is put on it once."""
    client = stage.client()
    raw = urllib3.HTTPResponse(io.BytesIO(BODY), preload_content=False)
    body = StreamingBody(raw, len(BODY))
    answer = {"body": body, "contentType": "application/json"}
    with instrumented(), Stubber(client) as stub:
        for _ in range(400):
            stub.add_response("invoke_model", answer)
            client.invoke_model(modelId=CLAUDE, body=REQUEST)
        assert body.read() == BODY
        body.close()
    client.close()
