"""Our own bugs: whatever of ours fails, the calls are as ever, and the rest is told."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import warnings
from contextlib import closing, contextmanager
from itertools import count, pairwise
from pathlib import Path

import pytest
from injection import SECRET, Injected, injected, sites
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Sampler
from scenarios import SCENARIOS, make_client
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

import otel_bedrock
from otel_bedrock import Limit, TokenBudget, abandoned, instrumentor, shield
from otel_bedrock.testing.capture import capture

# botocore leaves the sockets of abandoned streams to the garbage collector, with us or without.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

SITES = sites()
PACKAGE = str(Path(otel_bedrock.__file__).parent)

# What must be known before there is anything to tell: the call passes through untold.
BEFORE = {
    "bracket._address",
    "call.Call.__init__",
    "model_id.ModelId.__init__",
    "model_id._parse_plain",
    "model_id._split",
    "model_id.parse",
    "paths.first",
    "providers.provider_of",
    "recorder.Recorder.start",
    "recorder.Recorder.naming",
    "request._known",
    "request.read_call",
    "utf8.sendable",
}
# In the garbage collector nothing may be said: no lock is taken there.
SILENT = {
    "abandoned.collected",
    "abandoned.put",
    "observers.BodyObserver._drop",
    "observers.StreamObserver._drop",
    "observers.StreamObserver._left_at",
}


@pytest.fixture(scope="module")
def stage():
    made = Stage()
    made.client()
    made.clear()
    calls(made)
    made.settle()
    yield made
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
        # A stream that is collected inside urllib3's own queue hangs, without us as well.
        gc.disable()
        try:
            seen = _calls(stage)
        finally:
            gc.enable()
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
    """What is told where nothing fails."""
    told = Told(stage, **ALL_ON)
    assert len(told.spans) == told.opened.started == CALLS
    assert told.sites == []
    return told


@pytest.fixture(scope="module")
def reached(stage):
    """The code of every function that the calls reach, in whatever thread."""
    found = set()

    def profile(frame, event, _):
        if event == "call":
            found.add(frame.f_code)

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        Told(stage, **ALL_ON)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return found


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
        assert told.errors > 0, "nothing was counted"


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.id)
def test_a_bug_in_any_function_is_not_the_callers(stage, bare, reached, site):
    if site.function.__code__ not in reached:
        pytest.skip("no call of these reaches it")
    told = Told(stage, lambda recorder: injected(site), **ALL_ON)
    check(told, bare, site.id)
    assert (len(told.spans) < CALLS) == (site.id in BEFORE)


def test_most_functions_are_reached(reached):
    """What is not is about other operations, settings and odd answers, and as pure as what is."""
    count = sum(site.function.__code__ in reached for site in SITES)
    assert count > 0.6 * len(SITES)


STATEFUL = [
    site
    for site in SITES
    if site.id.split(".")[0]
    in ("abandoned", "bodies", "bracket", "observers", "recording", "streams")
]


@pytest.mark.parametrize("site", STATEFUL, ids=lambda site: site.id)
def test_a_bug_that_comes_and_goes_is_not_the_callers(stage, bare, reached, site):
    """Each third call fails: what had begun before, and what follows, is told."""
    if site.function.__code__ not in reached:
        pytest.skip("no call of these reaches it")
    told = Told(stage, lambda recorder: injected(site, lambda call: call % 3 == 2))
    told.hits = told.hits > 1
    check(told, bare, site.id)


# --- One signal does not lose the other ---


def spans_of(told):
    return sorted(
        str((span.name, sorted(_told(span)), span.status.status_code.name)) for span in told.spans
    )


def _told(span):
    # Timings differ from run to run.
    return {k: v for k, v in span.attributes.items() if "time_" not in k}.items()


def counts_of(told):
    """Every series with its value, or its count where it is a histogram."""
    return {key: value or count for key, (value, count) in told.points.items()}


class _Breaking:
    """Something of OpenTelemetry of which some methods raise."""

    def __init__(self, inner, *names):
        self._inner, self._names, self.calls = inner, names, 0

    def __getattr__(self, name):
        if name in self._names:
            return self._fail
        return getattr(self._inner, name)

    def _fail(self, *args, **kwargs):
        self.calls += 1
        raise Injected(SECRET)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("_sizes", (".operation.input_tokens", ".operation.output_tokens", ".token.usage")),
        ("_durations", ("duration", "time_", "latency", "unset", "retries")),
        ("_endings", ("missing", "guardrail")),
    ],
)
def test_a_bug_in_one_kind_of_metric_loses_no_other(stage, healthy, name, own):
    site = next(site for site in SITES if site.id == f"recording.Recording.{name}")
    told = Told(stage, lambda recorder: injected(site), **ALL_ON)

    def others(one):
        found = counts_of(one).items()
        return {key: count for key, count in found if not any(piece in key[0] for piece in own)}

    assert told.hits > 0
    assert others(told) == others(healthy)
    assert spans_of(told) == spans_of(healthy)


def _instruments():
    with capture(**ALL_ON):
        return list(instrumentor._active.recorder.instruments)


@pytest.mark.parametrize("key", _instruments())
def test_a_broken_instrument_loses_nothing_but_its_own(stage, bare, healthy, key):
    @contextmanager
    def inject(recorder):
        broken = _Breaking(recorder.instruments[key], "add", "record")
        kind = "add" if hasattr(broken._inner, "add") else "record"
        broken._names = (kind,)
        recorder.instruments[key] = broken
        yield lambda: broken.calls

    told = Told(stage, inject, **ALL_ON)
    told.hits = told.hits and key != "errors"
    check(told, bare, key)
    assert spans_of(told) == spans_of(healthy)
    lost = {name for name, _ in set(counts_of(healthy)) - set(counts_of(told))}
    assert len(lost) <= 1
    kept = {k: v for k, v in counts_of(healthy).items() if k[0] not in lost}
    assert counts_of(told) == kept


@pytest.mark.parametrize(
    "names",
    [("set_attributes",), ("set_status",), ("set_attributes", "set_status"), ("is_recording",)],
    ids=" and ".join,
)
def test_a_broken_span_loses_no_metric(stage, bare, healthy, names):
    """It is ended all the same, or what ends it is what is broken."""
    made = []

    @contextmanager
    def inject(recorder):
        start = recorder.tracer.start_span

        class Tracer:
            @staticmethod
            def start_span(*args, **kwargs):
                made.append(_Breaking(start(*args, **kwargs), *names))
                return made[-1]

        recorder.tracer = Tracer
        yield lambda: sum(span.calls for span in made)

    told = Told(stage, inject, **ALL_ON)
    check(told, bare, names)
    assert len(told.spans) == CALLS
    assert counts_of(told) == counts_of(healthy)


def test_a_span_that_cannot_be_ended_loses_no_metric(stage, bare, healthy):
    made = []

    @contextmanager
    def inject(recorder):
        start = recorder.tracer.start_span

        class Tracer:
            @staticmethod
            def start_span(*args, **kwargs):
                made.append(_Breaking(start(*args, **kwargs), "end"))
                return made[-1]

        recorder.tracer = Tracer
        yield lambda: sum(span.calls for span in made)

    told = Told(stage, inject, **ALL_ON)
    told.opened.open.clear()
    told.opened.started = 0
    check(told, bare, "end")
    assert counts_of(told) == counts_of(healthy)


class _BrokenSampler(Sampler):
    def should_sample(self, *args, **kwargs):
        raise Injected(SECRET)

    def get_description(self):
        return "broken"


def test_a_broken_sampler_loses_no_metric(stage, bare, healthy):
    """start_span() raises: the call is counted without a span."""
    told = Told(stage, sampler=_BrokenSampler(), **ALL_ON)
    told.hits = 1
    check(told, bare, "sampler")
    assert told.spans == ()
    assert counts_of(told) == counts_of(healthy)


def test_a_broken_span_processor_loses_no_metric(stage, bare, healthy):
    """A processor of the program's own that raises as a span starts or ends."""

    class Processor(Opened):
        def on_end(self, span):
            raise Injected(SECRET)

    @contextmanager
    def inject(recorder):
        instrumentor._active.given.tracer_provider.add_span_processor(Processor())
        yield lambda: 1

    told = Told(stage, inject, **ALL_ON)
    check(told, bare, "processor")
    assert counts_of(told) == counts_of(healthy)


def test_a_broken_exporter_is_the_sdks_business(stage, bare, healthy):
    class Exporter(SpanExporter):
        def export(self, spans):
            raise Injected(SECRET)

    told = Told(stage, exporter=Exporter(), **ALL_ON)
    told.said = [one for one in told.said if not one.name.startswith("opentelemetry.sdk")]
    check(told, bare, "exporter")
    assert counts_of(told) == counts_of(healthy)
    assert spans_of(told) == spans_of(healthy)


@pytest.mark.parametrize("name", ["attach", "detach"])
def test_a_broken_context_loses_nothing(stage, bare, healthy, name, monkeypatch):
    calls = []

    @contextmanager
    def inject(recorder):
        def fail(*args):
            calls.append(args)
            raise Injected(SECRET)

        with monkeypatch.context() as patch:
            patch.setattr(otel_context, name, fail)
            yield lambda: len(calls)

    told = Told(stage, inject, **ALL_ON)
    check(told, bare, name)
    assert told.hits > 0
    assert len(told.spans) == CALLS


def test_nothing_of_what_the_caller_said_is_in_what_we_say_of_a_bug(stage, caplog):
    """An error's text may hold a piece of a prompt: only its kind and place are said."""
    with injected(next(site for site in SITES if site.id == "answer.read_answer")), capture():
        _ask(stage)
    assert len(caplog.records) == 1
    assert SECRET not in caplog.text
    assert "(Injected, " in caplog.text


def _ask(stage):
    stage.clear()
    return stage.client().converse(modelId=CLAUDE, messages=MESSAGES)


def test_a_bug_in_the_logs_handler_or_in_a_listener_stops_too(stage):
    """The shield's own doings: whoever it tells may be broken as well."""

    class Handler(logging.Handler):
        def emit(self, record):
            raise Injected(SECRET)

    def listener(site):
        raise Injected(SECRET)

    handler = Handler()
    logging.getLogger("otel_bedrock").addHandler(handler)
    shield.on_error(listener)
    try:
        site = next(site for site in SITES if site.id == "answer.read_answer")
        with injected(site) as hits, capture():
            assert _ask(stage)["stopReason"] == "end_turn"
            assert hits() == 1
    finally:
        shield.forget(listener)
        logging.getLogger("otel_bedrock").removeHandler(handler)


def test_at_the_bottom_of_the_stack_the_call_answers_or_fails_as_without_us(stage):
    """Wherever the stack runs out: in botocore it would have, in us nobody is told."""
    stage.clear()
    client = stage.client()
    stage.bedrock.reply_events(list(CONVERSE.events), times=None)

    def deep(left):
        if left:
            return deep(left - 1)
        asked = {"modelId": CLAUDE, "messages": MESSAGES}
        return [len(event) for event in client.converse_stream(**asked)["stream"]]

    def attempt(left):
        try:
            return deep(left)
        except Exception as error:
            return type(error)

    def attempts():
        return [attempt(left) for left in range(230, 400)]

    expected, limit = deep(0), sys.getrecursionlimit()
    sys.setrecursionlimit(sum(1 for _ in _frames()) + 400)
    try:
        bare = attempts()
        with capture() as captured:
            opened = Opened()
            captured.tracer_provider.add_span_processor(opened)
            found = attempts()
            gc.collect()
            abandoned.look()
            assert opened.open == {}
    finally:
        sys.setrecursionlimit(limit)
    assert set(map(str, found)) <= set(map(str, bare))
    answered = [one == expected for one in found]
    assert answered[0]
    assert not answered[-1]
    # Once there is no room it stays so: nothing of ours raises where botocore does not.
    assert sum(one != two for one, two in pairwise(answered)) == 1
    # Our own frames are few.
    assert sum(one == expected for one in bare) - sum(answered) < 12


def _frames():
    frame = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


# --- An interrupt, which no shield stops ---


class _Interrupt:
    """Ctrl-C where a function of ours begins, or one that it called in C returns."""

    def __init__(self, point):
        self.left, self.at = point, None

    def __call__(self, frame, event, _):
        code = frame.f_code
        if event in ("call", "c_return") and code.co_filename.startswith(PACKAGE):
            self.left -= 1
            if not self.left:
                self.at = f"{Path(code.co_filename).stem}.{code.co_name}"
                raise KeyboardInterrupt


def interrupted_at(point, act):
    """Run `act` and interrupt it at its `point`; return where that is, None past the end."""
    interrupt = _Interrupt(point)
    sys.setprofile(interrupt)
    try:
        act()
    except KeyboardInterrupt:
        pass
    finally:
        sys.setprofile(None)
    return interrupt.at


# Python itself swallows one in a finalizer, and says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "name", ["converse", "converse, 429", "invoke_model, 1 KB", "converse_stream, 10 events"]
)
def test_an_interrupt_wherever_it_comes_leaves_nothing_standing(name):
    """No span stays current or open, and what was not answered holds nothing of a budget."""
    client, use = make_client()
    use(SCENARIOS[name])
    answered = []
    client.meta.events.register("after-call.bedrock-runtime", lambda **_: answered.append(True))
    budget = TokenBudget(Limit(per_day=10**12))
    opened, left = Opened(), []

    def held():
        return sum(spent.total for spent in budget.store._spent.values())

    with capture(budget=budget) as captured:
        captured.tracer_provider.add_span_processor(opened)
        SCENARIOS[name].call(client)
        for point in count(1):
            before = held()
            answered.clear()
            token = otel_context.attach(otel_context.Context())
            at = interrupted_at(point, lambda: SCENARIOS[name].call(client))
            if trace.get_current_span() is not trace.INVALID_SPAN:
                left.append(("current", at))
            otel_context.detach(token)
            if at is None:
                break
            if opened.open:
                # A stream that is not read on is told of when it is collected.
                gc.collect()
                abandoned.finish_all()
            if opened.open:
                left.append(("open", at))
                opened.open.clear()
            # What is interrupted while it is being reserved is not the call's yet.
            if not answered and held() > before and not at.startswith(("admission", "budget")):
                left.append(("held", at))
        assert left == []
        assert point > 200
