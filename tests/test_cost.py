"""What a call costs, in numbers that no busy machine changes: lines of ours that run, and bytes.

A number here has up to a tenth to spare. Where a change needs more, it is paid on every call of
every user: `make bench` says whether that is still within the targets.
"""

from __future__ import annotations

import ast
import gc
import sys
import threading
import tracemalloc
from collections import Counter
from pathlib import Path

import boto3
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from scenarios import SCENARIOS, answered_at_once, make_client

import otel_bedrock
from otel_bedrock import abandoned, instrumentor
from otel_bedrock.config import read_config
from otel_bedrock.instrumentor import Given, exchange

PACKAGE = str(Path(otel_bedrock.__file__).parent)


@pytest.fixture
def call():
    """Make the call of a scenario."""
    client, use = make_client()

    def make(name):
        use(SCENARIOS[name])
        SCENARIOS[name].call(client)

    return make


@pytest.fixture
def active():
    """The defaults, with an SDK."""
    providers = TracerProvider(), MeterProvider(metric_readers=[InMemoryMetricReader()])
    before = exchange(Given(read_config({}), *providers, None, False))
    yield
    exchange(before)


def lines_of(work):
    """Return how many lines of ours run in `work`, once it has warmed up."""
    work()
    count = 0

    def trace(frame, event, _):
        nonlocal count
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    gc.collect()
    gc.disable()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
        gc.enable()
    return count


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("converse", 640),
        ("converse, 41 messages, tools", 645),
        ("converse, 429", 450),
        ("invoke_model, 1 KB", 930),
        ("invoke_model, 100 KB", 635),
        ("invoke_model, 5 MB", 635),
    ],
)
def test_a_call_takes_few_lines_of_ours(active, call, name, most):
    lines = lines_of(lambda: call(name))
    assert 0 < lines <= most


@pytest.mark.parametrize(("dialect", "most"), [("converse_stream", 8), ("invoke stream", 14)])
def test_an_event_of_a_stream_takes_few_lines_of_ours(active, call, dialect, most):
    few = lines_of(lambda: call(f"{dialect}, 10 events"))
    many = lines_of(lambda: call(f"{dialect}, 1,000 events"))
    assert 0 < (many - few) / 990 <= most


def test_a_call_of_another_service_takes_a_question_and_no_more():
    client = boto3.Session().client("s3", region_name="us-east-1")
    before = exchange(None)
    try:
        with answered_at_once():
            bare = _calls_of(client.list_buckets)
            exchange(Given(read_config({}), TracerProvider(), MeterProvider(), None, False))
            ours = _calls_of(client.list_buckets)
            exchange(None)
    finally:
        exchange(before)
    # The wrapper, and botocore's property that it asks.
    assert Counter(ours) - Counter(bare) == Counter(["wrapper", "service_model"])


def _calls_of(work):
    """Return the names of the Python functions that run in `work`, once it has warmed up."""
    work()
    names = []
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, _: event == "call" and names.append(frame.f_code.co_name))
    try:
        work()
    finally:
        sys.setprofile(before)
    return names


def test_a_large_body_takes_no_memory_of_ours(call, active):
    """5 MB: what an observer would keep of it shows up in the peak."""

    def peak():
        for _ in range(3):
            call("invoke_model, 5 MB")
        gc.collect()
        tracemalloc.start()
        call("invoke_model, 5 MB")
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    ours = peak()
    given = exchange(None)
    bare = peak()
    exchange(given)
    assert ours - bare < 128 * 1024


# --- No thread, lock or timer of ours on the call's path ---

# What waits, and who may: at the rim, at start-up and exit, in threads of their own.
_WAITING = {"threading", "queue", "sched", "asyncio", "concurrent", "multiprocessing", "socket"}
_ON_THE_PATH = (
    "answer",
    "bracket",
    "call",
    "errors",
    "events",
    "model_id",
    "nesting",
    "observers",
    "operations",
    "patch",
    "paths",
    "providers",
    "recorder",
    "recording",
    "request",
    "signals",
    "streams",
    "usage",
)


@pytest.mark.parametrize("module", _ON_THE_PATH)
def test_what_a_call_goes_through_knows_nothing_that_waits(module):
    tree = ast.parse((Path(PACKAGE) / f"{module}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots = {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots = {(node.module or "").partition(".")[0]}
        else:
            roots = set()
        assert not roots & _WAITING, f"{module}, line {node.lineno}"
        assert not (isinstance(node, ast.Attribute) and node.attr in ("sleep", "acquire"))


class _Watched:
    """A lock that counts how often one thread takes it."""

    def __init__(self, lock):
        self.lock, self.of, self.taken = lock, threading.get_ident(), 0

    def acquire(self, *args, **kwargs):
        self.taken += threading.get_ident() == self.of
        return self.lock.acquire(*args, **kwargs)

    def release(self):
        self.lock.release()

    def __enter__(self):
        self.acquire()

    def __exit__(self, *_):
        self.release()


@pytest.mark.parametrize(
    "name", ["converse", "converse, 429", "invoke_model, 1 KB", "converse_stream, 10 events"]
)
def test_a_call_takes_no_lock_of_ours_and_starts_no_thread(active, call, monkeypatch, name):
    call(name)
    # Once in a process, with its first stream or body: the thread that looks after the abandoned.
    abandoned.start()
    gc.collect()
    abandoned.look()
    locks = [_Watched(abandoned._state.settling), _Watched(instrumentor._active.lock)]
    monkeypatch.setattr(abandoned._state, "settling", locks[0])
    monkeypatch.setattr(instrumentor._active, "lock", locks[1])
    started = []
    monkeypatch.setattr(threading.Thread, "start", started.append)
    call(name)
    assert started == []
    assert [lock.taken for lock in locks] == [0, 0]
