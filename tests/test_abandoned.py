"""Streams that nobody ends: collected, left open at exit, forked away, or read by greenlets.

Why a finalizer must not record: where `StreamObserver.dropped` settled at once instead of
handing over, the program `COLLECTING` below hung within a second, and `faulthandler` showed the
thread of the reader inside `MetricReader.collect`, where it holds the lock of its storage, then
the garbage collector, then `Tether.__del__`, `Counter.add`, and the same lock, which is not
re-entrant. Set RECORD_IN_FINALIZER=1 in the program's environment to see it.
"""

from __future__ import annotations

import gc
import importlib.util
import io
import json
import os
import subprocess
import sys
import textwrap
import threading
import time

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from transparency import (
    BODY,
    BODY_HEADERS,
    CLAUDE,
    CONVERSE,
    MESSAGES,
    REQUEST,
    frame,
    instrumented,
)
from urllib3.response import HTTPResponse

import otel_bedrock
from otel_bedrock import abandoned
from otel_bedrock.observers import StreamObserver
from otel_bedrock.testing import FakeBedrock

# botocore leaves the sockets of abandoned streams to the garbage collector, with us or without.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

PRELUDE = """
import faulthandler, gc, json, os, sys, threading, time
faulthandler.dump_traceback_later(float(os.environ["TIMEOUT"]), exit=True)
import boto3
from botocore.config import Config
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
import otel_bedrock
from otel_bedrock import abandoned

MODEL = "anthropic.claude-sonnet-4-20250514-v1:0"
MESSAGES = [{"role": "user", "content": [{"text": "How many tokens is this?"}]}]
BODY = json.dumps({
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 9,
    "messages": [{"role": "user", "content": "hello"}],
})

class Exported(SpanExporter):
    "Exported spans, in memory and, where asked for, on stdout at once."
    def __init__(self, says=False):
        self.spans, self.says = [], says
    def export(self, spans):
        self.spans.extend(spans)
        for span in spans if self.says else ():
            text = " ".join([span.name, *span.attributes.get("gen_ai.response.finish_reasons", ())])
            os.write(1, f"span {text}\\n".encode())
        return SpanExportResult.SUCCESS

def client():
    config = Config(retries={"total_max_attempts": 1}, max_pool_connections=60)
    session = boto3.Session(region_name="us-east-1")
    return session.client("bedrock-runtime", endpoint_url=os.environ["BEDROCK"], config=config)

def stream(bedrock):
    return bedrock.converse_stream(modelId=MODEL, messages=MESSAGES)["stream"]

exported = Exported(os.environ.get("SAYS") == "1")
readers = [InMemoryMetricReader()]
def instrument():
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(exported))
    otel_bedrock.instrument(
        tracer_provider=tracer_provider, meter_provider=MeterProvider(metric_readers=readers)
    )

def counted(data, totals):
    "Add the counts of one collection to `totals`, by name."
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    value = getattr(point, "value", None)
                    value = point.count if value is None else value
                    totals[metric.name] = totals.get(metric.name, 0) + value
"""


@pytest.fixture(scope="module")
def bedrock():
    with FakeBedrock() as server:
        yield server


def run(code, bedrock, *options, timeout=20, prelude=PRELUDE, **environ):
    """Run `code` in a process of its own, which shows every thread's stack if it hangs."""
    done = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(prelude) + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=timeout + 10,
        env={**os.environ, "BEDROCK": bedrock.url, "TIMEOUT": str(timeout), **environ},
    )
    return done.returncode, done.stdout, done.stderr


def told(code, bedrock, *options, **more):
    """Run `code`, which must end well and silently, and return the JSON that it printed last."""
    status, out, err = run(code, bedrock, *options, **more)
    assert (status, err) == (0, ""), err
    return json.loads(out.splitlines()[-1])


# --- Collected while metrics are read ---

COLLECTING = """
import io, urllib3
from botocore.awsrequest import AWSResponse
from otel_bedrock.testing.frames import encode_event
from opentelemetry.sdk.metrics import Counter, Histogram
from opentelemetry.sdk.metrics.export import AggregationTemporality
from otel_bedrock.observers import StreamObserver

if os.environ.get("RECORD_IN_FINALIZER"):
    StreamObserver.dropped = lambda self, error=None: self._finish(None, None)

kind = AggregationTemporality[os.environ["TEMPORALITY"]]
reader = readers[0] = InMemoryMetricReader(
    preferred_temporality={Counter: kind, Histogram: kind}
)
instrument()
bedrock = client()
events = [
    ("messageStart", {"role": "assistant"}),
    ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "a"}}),
    ("messageStop", {"stopReason": "end_turn"}),
    ("metadata", {"usage": {"inputTokens": 3, "outputTokens": 5, "totalTokens": 8}}),
]
frames = b"".join(encode_event(name, payload) for name, payload in events)

def answer(request, **_):
    "No connection pool: a stream that is collected inside the pool's queue hangs without us too."
    raw = urllib3.HTTPResponse(body=io.BytesIO(frames), preload_content=False)
    headers = {"content-type": "application/vnd.amazon.eventstream"}
    return AWSResponse(request.url, 200, headers, raw)

bedrock.meta.events.register("before-send.bedrock-runtime", answer)
list(stream(bedrock))
totals, calls, stop = {}, [], threading.Event()
counted(reader.get_metrics_data(), totals)

def read():
    while not stop.is_set():
        data = reader.get_metrics_data()
        if kind is AggregationTemporality.CUMULATIVE:
            totals.clear()
        counted(data, totals)

def abandon():
    made = finished = 0
    until = time.monotonic() + float(os.environ["SECONDS"])
    while time.monotonic() < until:
        cycle = {"stream": stream(bedrock)}
        cycle["cycle"] = cycle
        made += 1
        for event in cycle["stream"]:
            if made % 3 == 0 and "metadata" not in event:
                continue
            break
        finished += made % 3 == 0
    calls.append((made, finished))

gc.collect()
gc.freeze()
gc.set_threshold(1)
threads = [threading.Thread(target=abandon) for _ in range(2)]
reading = threading.Thread(target=read)
for thread in (*threads, reading):
    thread.start()
for thread in threads:
    thread.join()
stop.set()
reading.join()
# Only now: a collection that finds another one under way does nothing.
gc.collect()
abandoned.look()
if kind is AggregationTemporality.CUMULATIVE:
    totals.clear()
counted(reader.get_metrics_data(), totals)
made = sum(one[0] for one in calls)
finished = sum(one[1] for one in calls)
usage = "gen_ai.client.inference.usage."
print(json.dumps({
    "made": made,
    "finished": finished,
    "spans": len(exported.spans) - 1,
    "distinct": len({span.context.span_id for span in exported.spans}) - 1,
    "durations": totals["gen_ai.client.inference.duration"] - 1,
    "missing": totals["bedrock.client.usage.missing"],
    "input": totals[usage + "input_tokens"],
    "output": totals[usage + "output_tokens"],
    "told": [
        sum(span.attributes.get("gen_ai.usage." + name, 0) for span in exported.spans)
        for name in ("input_tokens", "output_tokens")
    ],
    "open": len(abandoned._state.open),
    "errors": totals.get("bedrock.instrumentation.errors"),
}))
"""


@pytest.mark.parametrize("temporality", ["CUMULATIVE", "DELTA"])
def test_streams_collected_while_metrics_are_read_neither_hang_nor_get_lost(bedrock, temporality):
    seen = told(COLLECTING, bedrock, TEMPORALITY=temporality, SECONDS="2", timeout=25)
    made, finished = seen["made"], seen["finished"]
    assert made > 20
    assert seen["spans"] == seen["distinct"] == seen["durations"] == made
    assert seen["missing"] == made - finished
    assert (seen["input"], seen["output"]) == ((finished + 1) * 3, (finished + 1) * 5)
    assert seen["told"] == [seen["input"], seen["output"]]
    assert seen["open"] == 0
    assert seen["errors"] is None


def test_a_finalizer_calls_nothing_of_opentelemetry_and_takes_no_lock(bedrock):
    """It stamps the time and appends to a deque: see the top of this file."""
    client = bedrock.client()
    with instrumented() as (captured, _):
        stream = client.converse_stream(modelId=CLAUDE, messages=MESSAGES)["stream"]
        body = client.invoke_model(modelId=CLAUDE, body=REQUEST_OF_ONE)["body"]
        next(iter(stream))
        tethers = [stream._otel_bedrock_watch, body._raw_stream._otel_bedrock_watch]
        modules, functions = set(), set()

        def profile(frame, event, argument):
            if event == "call":
                modules.add(frame.f_globals["__name__"])
            elif event == "c_call":
                functions.add(argument.__name__)

        for tether in tethers:
            sys.setprofile(profile)
            try:
                tether.__del__()
            finally:
                sys.setprofile(None)
        stream.close()
        body.close()
        assert len(captured.spans) == 2
    ours = {f"otel_bedrock.{name}" for name in ("streams", "observers", "abandoned")}
    assert modules <= ours | {"contextlib"}
    assert functions <= {"time_ns", "perf_counter", "append", "setprofile", "issubclass"}


REQUEST_OF_ONE = REQUEST.replace(b"[]", b'[{"role":"user","content":"hello"}]')


def test_a_thousand_abandoned_streams_and_bodies_leave_nothing_open():
    client = boto3.client("bedrock-runtime", region_name="us-east-1")
    frames = b"".join(frame(event, CONVERSE) for event in CONVERSE.events)

    def answer(request, **_):
        streamed = request.url.endswith("converse-stream")
        raw = HTTPResponse(body=io.BytesIO(frames if streamed else BODY), preload_content=False)
        return AWSResponse(request.url, 200, {} if streamed else BODY_HEADERS, raw)

    client.meta.events.register("before-send.bedrock-runtime", answer)
    with instrumented() as (captured, opened):
        for index in range(500):
            stream = client.converse_stream(modelId=CLAUDE, messages=MESSAGES)["stream"]
            for _ in range(index % 3):
                next(iter(stream))
            body = client.invoke_model(modelId=CLAUDE, body=REQUEST)["body"]
            if index % 2:
                body.read(3)
        del stream, body
        gc.collect()
        abandoned.look()
        assert abandoned._state.open == {}
        assert opened.open == {}
        assert opened.started == len(captured.spans) == 1000
        assert captured.total("bedrock.client.usage.missing") == 500


def _until(true, seconds=10):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return true()


@pytest.mark.parametrize("way", ["collected", "closed past us"])
def test_an_idle_process_reports_what_was_abandoned(bedrock, way):
    """No further call, no flush: the thread sees to it, within about a second."""
    client = bedrock.client()
    with instrumented() as (captured, opened):
        if way == "collected":
            client.converse_stream(modelId=CLAUDE, messages=MESSAGES)
            gc.collect()
        else:
            held = client.invoke_model(modelId=CLAUDE, body=REQUEST_OF_ONE)["body"]
            with held as opened_body:
                opened_body.read(5)
        assert len(opened.open) == 1
        assert _until(lambda: not opened.open)
        assert len(captured._exporter.get_finished_spans()) == 1


@pytest.mark.parametrize("taken", [0, 3])
def test_flush_tells_a_stream_that_was_broken_off_and_when(bedrock, taken):
    """It holds on to itself, so that the garbage collector has to be asked; and it ended when its
    consumer let go, not when it was collected.
    """
    client = bedrock.client()
    gc.collect()
    gc.disable()
    try:
        with instrumented() as (captured, opened):
            stream = client.converse_stream(modelId=CLAUDE, messages=MESSAGES)["stream"]
            events = iter(stream)
            for _ in range(taken):
                next(events)
            del stream, events
            let_go = time.time_ns()
            assert len(opened.open) == 1
            time.sleep(0.2)
            otel_bedrock.flush()
            (span,) = captured._exporter.get_finished_spans()
    finally:
        gc.enable()
    assert span.end_time <= let_go


def test_a_look_in_the_middle_of_the_last_read_leaves_the_body_to_its_reader(bedrock, monkeypatch):
    """At the end of the data the response is closed, and its data not seen yet: the thread that
    looked just then ended the span without what the body tells.
    """
    real = HTTPResponse.read

    def read(self, *args, **kwargs):
        data = real(self, *args, **kwargs)
        assert self.closed
        abandoned.look()
        return data

    client = bedrock.client()
    with instrumented() as (captured, _), monkeypatch.context() as patch:
        patch.setattr(HTTPResponse, "read", read)
        client.invoke_model(modelId=CLAUDE, body=REQUEST_OF_ONE)["body"].read()
        reasons = captured.span.attributes["gen_ai.response.finish_reasons"]
        assert reasons in (("end_turn",), ("max_tokens",))


def test_flush_waits_for_what_another_thread_has_begun_to_tell(bedrock, monkeypatch):
    """It returned while our thread had taken a stream from the queue and not told it yet."""
    client = bedrock.client()
    begun, go_on = threading.Event(), threading.Event()
    settle = StreamObserver.settle

    def slowly(self):
        begun.set()
        go_on.wait(5)
        settle(self)

    with instrumented() as (_, opened):
        monkeypatch.setattr(StreamObserver, "settle", slowly)
        client.converse_stream(modelId=CLAUDE, messages=MESSAGES)
        gc.collect()
        other = threading.Thread(target=abandoned.drain)
        other.start()
        assert begun.wait(5)
        waiting = threading.Timer(0.05, go_on.set)
        waiting.start()
        abandoned.look()
        assert opened.open == {}
        other.join()
        waiting.join()


def test_where_no_thread_can_be_started_the_next_call_reports(bedrock, monkeypatch, caplog):
    """A process at its limit of threads: the stream works, and is told about all the same."""

    real = threading.Thread.start

    def start(self):
        if self.name == "otel-bedrock-abandoned":
            raise RuntimeError("can't start new thread")
        real(self)

    monkeypatch.delenv("OTEL_BEDROCK_RAISE_INTERNAL_ERRORS")
    monkeypatch.setattr(abandoned, "_state", abandoned._State())
    client = bedrock.client()
    client.converse(modelId=CLAUDE, messages=MESSAGES)
    with instrumented() as (captured, opened):
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            stream = client.converse_stream(modelId=CLAUDE, messages=MESSAGES)["stream"]
            assert "metadata" in list(stream)[-1]
            client.converse_stream(modelId=CLAUDE, messages=MESSAGES)
            gc.collect()
            client.converse(modelId=CLAUDE, messages=MESSAGES)
        assert opened.open == {}
        assert captured.total("bedrock.client.usage.missing") == 1
        assert captured.total("bedrock.instrumentation.errors") == 1


# --- The end of the interpreter ---

# What the program does last -> its exit status, and the last line of its stderr.
ENDINGS = {
    "a stream half read": ("events = iter(stream(bedrock)); next(events)", 0, ""),
    "a stream in a cycle": ("cycle = [stream(bedrock)]; cycle.append(cycle); del cycle", 0, ""),
    "a body half read": ("body = ask(bedrock)['body']; body.read(3)", 0, ""),
    "exit in the loop": ("for event in stream(bedrock): sys.exit(3)", 3, ""),
    "an error in the loop": (
        "for event in stream(bedrock): raise ValueError('mine')",
        1,
        "ValueError: mine",
    ),
    "a stream in another thread": (
        """
        begun = threading.Event()
        def work():
            for event in stream(bedrock):
                begun.set()
                time.sleep(60)
        threading.Thread(target=work, daemon=True).start()
        begun.wait()
        """,
        0,
        "",
    ),
    "a stream read at exit": (
        "import atexit; events = stream(bedrock); atexit.register(lambda: list(events))",
        0,
        "",
    ),
    "a stream begun at exit": (
        "import atexit; atexit.register(lambda: list(stream(bedrock)))",
        0,
        "",
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_exit_in_the_middle_is_clean_and_tells(bedrock, ending):
    code, status, last = ENDINGS[ending]
    begin = """
    instrument()
    bedrock = client()
    def ask(bedrock):
        return bedrock.invoke_model(modelId=MODEL, body=BODY)
    """
    code = textwrap.dedent(begin) + textwrap.dedent(code)
    found, out, err = run(code, bedrock, SAYS="1")
    assert found == status
    lines = err.splitlines()
    assert lines[-1:] == ([last] if last else [])
    # The traceback of the program's own line, and nothing of ours.
    assert err.count("File ") == (1 if last else 0)
    assert "otel_bedrock" not in err
    assert [line.split()[:3] for line in out.splitlines()] == [["span", "chat", CLAUDE]]


def test_a_hard_exit_is_none_of_our_business(bedrock):
    code = "instrument(); events = iter(stream(client())); next(events); os._exit(5)"
    assert run(code, bedrock, SAYS="1") == (5, "", "")


# --- Forks ---

FORKING = """
import logging, multiprocessing, signal
logging.getLogger("otel_bedrock").setLevel(logging.CRITICAL)
instrument()
bedrock = client()
# Two that are open, one that was collected and not told yet; the thread runs.
opened = [stream(bedrock), bedrock.invoke_model(modelId=MODEL, body=BODY)["body"]]
next(iter(opened[0]))
stream(bedrock)
gc.collect()
inherited = len(exported.spans)

def work():
    "What the child does; returns what it told."
    global opened
    exported.spans.clear()
    opened = None
    gc.collect()
    bedrock = client()
    assert len(list(stream(bedrock))) > 3
    bedrock.converse(modelId=MODEL, messages=MESSAGES)
    stream(bedrock)
    gc.collect()
    names = [thread.name for thread in threading.enumerate()]
    for _ in range(500):
        if len(exported.spans) == 3:
            break
        time.sleep(0.01)
    abandoned.look()
    totals = {}
    counted(readers[0].get_metrics_data(), totals)
    return [len(exported.spans), "otel-bedrock-abandoned" in names, len(abandoned._state.open)]

WAY
abandoned.look()
assert len(list(opened[0])) > 3
opened[1].read()
abandoned.look()
print(json.dumps([found, len(exported.spans), len(abandoned._state.open)]))
"""

WAYS = {
    "os.fork": """
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    signal.alarm(10)
    os.write(writer, json.dumps(work()).encode())
    os._exit(0)
found = json.loads(os.read(reader, 1000))
assert os.waitpid(child, 0)[1] == 0
""",
    "multiprocessing": """
context = multiprocessing.get_context("fork")
queue = context.SimpleQueue()
child = context.Process(target=lambda: queue.put(work()))
child.start()
found = queue.get()
child.join()
assert child.exitcode == 0
""",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("way", WAYS)
def test_a_fork_tells_its_own_and_leaves_the_parents(bedrock, way):
    options = ("-W", "ignore::DeprecationWarning")
    seen = told(FORKING.replace("WAY", WAYS[way]), bedrock, *options)
    assert seen == [[3, True, 0], 3, 0]


FORKING_OFTEN = """
import logging, signal
logging.getLogger("otel_bedrock").setLevel(logging.CRITICAL)
lock = threading.Lock()

def export(spans):
    "As every exporter and the metrics SDK do: under a lock."
    with lock:
        time.sleep(0.002)
    return SpanExportResult.SUCCESS

instrument()
exported.export = export
bedrock = client()
# The thread of ours is busy telling about these while the process forks.
held = [stream(bedrock) for _ in range(100)]
bedrock.close()
bedrock = client()
held = None
gc.collect()
while len(abandoned._state.collected) == 100:
    time.sleep(0.001)
children = []
while abandoned._state.collected and len(children) < 12:
    child = os.fork()
    if child == 0:
        signal.alarm(5)
        bedrock.converse(modelId=MODEL, messages=MESSAGES)
        os._exit(0)
    children.append(child)
    time.sleep(0.002)
ends = [os.waitpid(child, 0)[1] for child in children]
abandoned.look()
print(json.dumps([len(children), sum(end != 0 for end in ends), len(abandoned._state.open)]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_while_our_thread_records_leaves_the_child_no_lock(bedrock):
    """The child's first call waited for a lock that our thread had held in the parent."""
    children, hung, left = told(FORKING_OFTEN, bedrock, "-W", "ignore", timeout=30)
    assert children > 3
    assert (hung, left) == (0, 0)


# --- gevent ---

GREENLETS = """
instrument()
bedrock = client()
list(stream(bedrock))
worst, ended = 0.0, []
stop = []

def tick():
    global worst
    before = time.perf_counter()
    while not stop:
        gevent.sleep(0.005)
        now = time.perf_counter()
        worst, before = max(worst, now - before), now

def work(index):
    for _ in range(3):
        assert len(list(stream(bedrock))) > 3
        bedrock.converse(modelId=MODEL, messages=MESSAGES)
        next(iter(stream(bedrock)))
        bedrock.invoke_model(modelId=MODEL, body=BODY)["body"].read(3)
    ended.append(index)

gc.disable()
ticking = gevent.spawn(tick)
gevent.joinall([gevent.spawn(work, index) for index in range(50)], raise_error=True)
gc.collect()
# Idle, for longer than our thread waits.
busy, worst = worst, 0.0
gevent.sleep(2.5)
stop.append(True)
ticking.join()
print(json.dumps([len(ended), len(exported.spans), busy, worst, len(abandoned._state.open)]))
"""


@pytest.mark.skipif(
    importlib.util.find_spec("gevent") is None, reason="left out: gevent is not installed"
)
@pytest.mark.parametrize("order", ["before", "after"])
def test_greenlets_are_told_about_and_never_blocked(bedrock, order):
    patching = "import gevent, gevent.monkey; gevent.monkey.patch_all()\n"
    importing = "import otel_bedrock\n"
    # Never after boto3: gevent itself cannot patch ssl once that is in use.
    first = patching if order == "before" else importing + patching
    prelude, code = first + textwrap.dedent(PRELUDE), GREENLETS
    options = ("-W", "ignore")
    ended, spans, busy, idle, left = told(code, bedrock, *options, prelude=prelude, timeout=30)
    assert ended == 50
    assert spans == 1 + 50 * 3 * 4
    assert left == 0
    assert idle < 0.3
    assert busy < 3


# --- python -O ---

EVERYTHING = """
instrument()
bedrock = client()
answer = bedrock.converse(modelId=MODEL, messages=MESSAGES)
events = list(stream(bedrock))
body = bedrock.invoke_model(modelId=MODEL, body=BODY)["body"].read()
asked = {"modelId": MODEL, "body": BODY}
chunks = list(bedrock.invoke_model_with_response_stream(**asked)["body"])
if hasattr(bedrock, "count_tokens"):
    bedrock.count_tokens(modelId=MODEL, input={"converse": {"messages": MESSAGES}})
try:
    bedrock.converse(modelId="nonsense", messages=MESSAGES)
except bedrock.exceptions.ValidationException:
    pass
next(iter(stream(bedrock)))
gc.collect()
abandoned.look()
totals = {}
counted(readers[0].get_metrics_data(), totals)
print(json.dumps([
    sorted(totals.items()),
    [sorted(span.attributes) for span in exported.spans],
    [answer["usage"], events[-1]["metadata"]["usage"]],
    [len(events), len(body), len(chunks)],
    totals.get("bedrock.instrumentation.errors"),
]))
"""


def test_without_asserts_all_is_the_same(bedrock):
    plain = told(EVERYTHING, bedrock)
    bedrock.reset()
    assert told(EVERYTHING, bedrock, "-O") == plain
    assert plain[-1] is None
    assert len(plain[1]) in (6, 7)


def test_one_that_an_interrupt_keeps_from_being_settled_is_given_up():
    class Interrupted:
        given_up = False

        def settle(self):
            raise KeyboardInterrupt

        def give_up(self):
            self.given_up = True

    observer = Interrupted()
    abandoned.put(observer)
    with pytest.raises(KeyboardInterrupt):
        abandoned.drain()
    assert observer.given_up
