"""Our own bugs: whatever of ours fails, the calls are as ever, and the rest is told."""

from __future__ import annotations

import gc
import logging
import sys
import warnings
from contextlib import closing

import pytest
from injection import injected, sites
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from transparency import (
    ALL_ON,
    BODY,
    BODY_HEADERS,
    CLAUDE,
    CONVERSE,
    INVOKE,
    MESSAGES,
    REQUEST,
    Opened,
    Stage,
    render,
)

from otel_bedrock import abandoned, instrumentor, shield
from otel_bedrock.testing.capture import capture

# botocore leaves the sockets of abandoned streams to the garbage collector, with us or without.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

SITES = sites()

# What must be known before there is anything to tell: the call passes through untold.
BEFORE = {
    "abandoned.drain",
    "bracket.Begun.__init__",
    "bracket._address",
    "call.Call.__init__",
    "model_id.ModelId.__init__",
    "model_id._parse_plain",
    "model_id._split",
    "model_id.parse",
    "operations.Operation.__init__",
    "providers.operation_of",
    "providers.provider_of",
    "recorder.Recorder.start",
    "recorder.Recorder.naming",
    "recording.Recording.__init__",
    "request.read_call",
}
# In the garbage collector nothing may be said: no lock is taken there.
SILENT = {
    "abandoned.collected",
    "abandoned.put",
    "observers.BodyObserver.dropped",
    "observers.StreamObserver.dropped",
}


@pytest.fixture(scope="module")
def stage():
    made = Stage()
    made.client()
    made.clear()
    calls(made)
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


def calls(stage):
    """Make a call of every kind, with every kind of end; return all that the caller sees."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        seen = _calls(stage)
        gc.collect()
    return seen


def _calls(stage):
    stage.clear()
    bedrock, client, seen = stage.bedrock, stage.client(), []

    def see(name, value):
        seen.append((name, render(value)))

    def ask():
        bedrock.reply(BODY, headers=BODY_HEADERS)
        return client.invoke_model(modelId=CLAUDE, body=REQUEST)["body"]

    def stream(dialect):
        bedrock.reply_events(list(dialect.events))
        answer = dialect.call(client)
        see("answer", answer)
        return answer[dialect.member]

    usage = CONVERSE.events[-1]["metadata"]["usage"]
    message = {"role": "assistant", "content": [{"text": "hi"}]}
    bedrock.reply({"output": {"message": message}, "stopReason": "end_turn", "usage": usage})
    see("converse", client.converse(modelId=CLAUDE, messages=MESSAGES))
    bedrock.throttle()
    try:
        client.converse(modelId=CLAUDE, messages=MESSAGES)
    except Exception as error:
        see("throttled", error)
    for dialect in (CONVERSE, INVOKE):
        see("exhausted", list(stream(dialect)))
        with closing(stream(dialect)) as half:
            see("half", [event for event, _ in zip(half, range(3), strict=False)])
        bedrock.stream_error("throttlingException", after=3)
        with closing(stream(dialect)) as broken:
            try:
                for event in broken:
                    see("event", event)
            except Exception as error:
                see("error", error)
        see("first", next(iter(stream(dialect))))
        gc.collect()
    see("read", ask().read())
    with ask() as opened:
        see("some", opened.read(10))
    see("part", ask().read(10))
    body = ask()
    body.close()
    see("closed", body.closed)
    ask()
    stage.raw.prepare(BODY[:90], *(f"{k}: {v}" for k, v in BODY_HEADERS.items()), hang_up=True)
    stage.raw.answer = stage.raw.answer.replace(b"\r\n\r\n", b"\r\nContent-Length: 99\r\n\r\n", 1)
    short = stage.client(raw=True).invoke_model(modelId=CLAUDE, body=REQUEST)["body"]
    try:
        short.read()
    except Exception as error:
        see("short", error)
    bedrock.reply({"inputTokens": 5})
    see("count", client.count_tokens(modelId=CLAUDE, input={"converse": {"messages": MESSAGES}}))
    bedrock.reply({"action": "NONE", "usage": {}, "outputs": [], "assessments": []})
    content = [{"text": {"text": "hello"}}]
    asked = {"guardrailIdentifier": "g", "guardrailVersion": "1", "source": "INPUT"}
    see("guardrail", client.apply_guardrail(**asked, content=content))
    return seen


CALLS = 18


class Told:
    """What a run with a fault in it told, and what it said."""

    def __init__(self, stage, inject=None, **settings):
        records, unraisable = [], []
        handler = logging.Handler(logging.WARNING)
        handler.emit = records.append
        root, hook = logging.getLogger(), sys.unraisablehook
        sampler = settings.pop("sampler", None)
        exporter = settings.pop("exporter", None)
        with capture(sampler=sampler, **settings) as captured:
            opened = Opened()
            captured.tracer_provider.add_span_processor(opened)
            if exporter is not None:
                captured.tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
            self.recorder = instrumentor._active.recorder
            root.addHandler(handler)
            sys.unraisablehook = unraisable.append
            try:
                if inject is None:
                    self.seen, self.hits = calls(stage), 0
                else:
                    with inject(self.recorder) as hits:
                        self.seen = calls(stage)
                        gc.collect()
                        abandoned.look()
                        # What could not even be handed over is told at the exit.
                        abandoned.finish_all()
                        self.hits = hits()
            finally:
                root.removeHandler(handler)
                sys.unraisablehook = hook
            gc.collect()
            abandoned.finish_all()
            self.spans = captured.spans
            self.errors = captured.total("bedrock.instrumentation.errors") or 0
            self.points = {
                (p.metric, str(sorted(p.attributes.items()))): (p.value, p.count)
                for p in captured.points
                if p.metric != "bedrock.instrumentation.errors"
            }
            self.opened = opened
        self.unraisable = [one.exc_value for one in unraisable]
        self.sites = [r.args[0] for r in records if "telemetry failed at" in r.msg]
        self.said = [r for r in records if "telemetry failed at" not in r.msg]

    def total(self, metric):
        return sum(value or 0 for (name, _), (value, _) in self.points.items() if name == metric)


@pytest.fixture(scope="module")
def bare(stage):
    return calls(stage)


@pytest.fixture(scope="module")
def healthy(stage):
    """What is told where nothing fails, by settings."""
    told = {"plain": Told(stage), "all on": Told(stage, **ALL_ON)}
    for one in told.values():
        assert len(one.spans) == one.opened.started == CALLS
        assert one.sites == []
    return told


SETTINGS = {"plain": {}, "all on": ALL_ON}
COUNTERS = ("gen_ai.client.inference.usage.input_tokens", "bedrock.client.usage.missing")


def check(told, bare, where):
    """Check what holds whatever fails."""
    assert told.seen == bare
    assert told.unraisable == []
    assert [record.getMessage() for record in told.said] == []
    assert len(told.sites) == len(set(told.sites)), "said more than once"
    assert told.opened.open == {}, "a span was left open"
    assert len(told.spans) == told.opened.started
    if told.hits and where not in SILENT:
        assert told.sites, "nothing was said"
        if where != "recorder.Recorder._count_error":
            assert told.errors > 0, "nothing was counted"


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("site", SITES, ids=lambda site: site.id)
def test_a_bug_in_any_function_is_not_the_callers(stage, bare, healthy, site, settings):
    def inject(recorder):
        return injected(site)

    told = Told(stage, inject, **SETTINGS[settings])
    check(told, bare, site.id)
    if site.id not in BEFORE:
        assert len(told.spans) == CALLS


STATEFUL = [
    site
    for site in SITES
    if site.id.split(".")[0] in ("abandoned", "bracket", "observers", "recording", "streams")
]


@pytest.mark.parametrize("site", STATEFUL, ids=lambda site: site.id)
def test_a_bug_that_comes_and_goes_is_not_the_callers(stage, bare, site):
    """Each third call fails: what had begun before, and what follows, is told."""
    told = Told(stage, lambda recorder: injected(site, lambda call: call % 3 == 2))
    told.hits = told.hits > 1
    check(told, bare, site.id)
