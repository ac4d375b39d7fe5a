"""What is patched, what is not, and that the patch comes off whatever else is there."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import botocore.client
import pytest
import wrapt
from botocore.client import BaseClient
from opentelemetry.instrumentation.utils import suppress_instrumentation, unwrap
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from transparency import (
    ALL_ON,
    BODY,
    BODY_HEADERS,
    CLAUDE,
    CONVERSE,
    MESSAGES,
    REQUEST,
    Opened,
    Stage,
    compare,
    instrumented,
    render,
)

import otel_bedrock
from otel_bedrock import abandoned
from otel_bedrock.testing.frames import encode_frame
from otel_bedrock.testing.wire import chunk

ORIGINAL = BaseClient.__dict__["_make_api_call"]


@pytest.fixture(scope="module")
def stage():
    made = Stage()
    made.settle()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _restored():
    """Every test begins and ends with botocore as it is without us."""
    assert BaseClient.__dict__["_make_api_call"] is ORIGINAL
    yield
    otel_bedrock.uninstrument()
    try:
        assert BaseClient.__dict__["_make_api_call"] is ORIGINAL
    finally:
        BaseClient._make_api_call = ORIGINAL


# --- What is left alone ---


def _s3_object(scene):
    client = scene.use(raw=True, service="s3", s3={"addressing_style": "path"})
    scene.raw.prepare(BODY, f"Content-Length: {len(BODY)}", "ETag: x")
    answer = scene.saw("answer", client.get_object(Bucket="b", Key="k"))
    scene.keep(answer["Body"], answer["Body"]._raw_stream)
    scene.saw("data", answer["Body"].read())
    scene.pool()


def _s3_upload(scene):
    client = scene.use(raw=True, service="s3", s3={"addressing_style": "path"})
    scene.raw.prepare(b"", "Content-Length: 0", "ETag: x")
    scene.saw("answer", client.put_object(Bucket="b", Key="k", Body=BODY))


def _s3_events(scene):
    """The same kind of stream, of another service."""
    client = scene.use(raw=True, service="s3", s3={"addressing_style": "path"})
    frames = encode_frame("event", "Records", b"a,b\n") + encode_frame("event", "End", b"")
    scene.raw.prepare(chunk(frames) + b"0\r\n\r\n", "Transfer-Encoding: chunked")
    answer = client.select_object_content(
        Bucket="b",
        Key="k",
        ExpressionType="SQL",
        Expression="SELECT 1",
        InputSerialization={"CSV": {}},
        OutputSerialization={"CSV": {}},
    )
    scene.keep(answer["Payload"])
    scene.saw("events", list(answer["Payload"]))
    answer["Payload"].close()


def _sts(scene):
    body = b"<GetCallerIdentityResponse><GetCallerIdentityResult><Account>1</Account>"
    body += b"</GetCallerIdentityResult></GetCallerIdentityResponse>"
    client = scene.use(raw=True, service="sts")
    scene.raw.prepare(body, f"Content-Length: {len(body)}")
    scene.saw("answer", client.get_caller_identity())


def _sso(scene):
    client = scene.use(raw=True, service="sso")
    scene.raw.prepare(b'{"accountList": []}', "Content-Length: 19")
    scene.saw("answer", client.list_accounts(accessToken="x"))
    scene.tried("nothing of Bedrock's", lambda: client.invoke_model)


def _bedrock_itself(scene):
    """The control plane: no call of it spends tokens."""
    client = scene.use(raw=True, service="bedrock")
    scene.raw.prepare(b'{"modelSummaries": []}', "Content-Length: 22")
    scene.saw("answer", client.list_foundation_models())


def _an_operation_that_spends_nothing(scene):
    scene.use(raw=True)
    scene.raw.prepare(b'{"asyncInvokeSummaries": []}', "Content-Length: 28")
    scene.saw("answer", scene.client.list_async_invokes())


def _suppressed(scene):
    scene.bedrock.reply(BODY, headers=BODY_HEADERS)
    scene.bedrock.reply_events(list(CONVERSE.events))
    with suppress_instrumentation():
        body = scene.body()
        stream = scene.client.converse_stream(modelId=CLAUDE, messages=MESSAGES)["stream"]
        scene.keep(stream)
    scene.saw("data", body.read())
    scene.saw("events", list(stream))


@pytest.mark.parametrize(
    "behaviour",
    [
        _s3_object,
        _s3_upload,
        _s3_events,
        _sts,
        _sso,
        _bedrock_itself,
        _an_operation_that_spends_nothing,
        _suppressed,
    ],
    ids=lambda behaviour: behaviour.__name__.strip("_"),
)
def test_other_calls_are_left_alone(stage, behaviour):
    compare(stage, behaviour, (), touched=False)


@pytest.mark.parametrize("error", [AttributeError, RuntimeError])
def test_a_client_of_no_service_is_called_through(error):
    """Whatever a program derives from BaseClient fails as it would, not in our code."""

    class Odd(BaseClient):
        def __init__(self):
            pass

        @property
        def _service_model(self):
            raise error("mine")

        def __getattr__(self, name):
            raise error("mine")

    def call():
        with pytest.raises(error, match="mine") as raised:
            Odd()._make_api_call("Converse", {})
        return render(raised.value)

    bare = call()
    with instrumented() as (captured, _):
        assert call() == bare
        assert captured.spans == ()


def test_operation_and_parameters_may_be_given_by_name(stage):
    stage.clear()
    with instrumented() as (captured, _):
        stage.client()._make_api_call(
            operation_name="Converse", api_params={"modelId": CLAUDE, "messages": MESSAGES}
        )
        assert captured.span.attributes["gen_ai.request.model"] == CLAUDE


# --- On and off, among others ---


class Others:
    """Somebody else's wrapper of the same method, which counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def wrap(self):
        return wrapt.wrap_function_wrapper("botocore.client", "BaseClient._make_api_call", self)

    def __call__(self, wrapped, instance, args, kwargs):
        self.calls += 1
        return wrapped(*args, **kwargs)


@pytest.fixture
def providers():
    exporter = InMemorySpanExporter()
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    meter_provider = MeterProvider(metric_readers=[InMemoryMetricReader()])
    yield exporter, {"tracer_provider": tracer_provider, "meter_provider": meter_provider}
    tracer_provider.shutdown()
    meter_provider.shutdown()


@pytest.fixture
def asked(stage, providers):
    """A function that makes one call and returns how many spans it left."""
    stage.clear()
    exporter, _ = providers

    def ask():
        exporter.clear()
        answer = stage.client().converse(modelId=CLAUDE, messages=MESSAGES)
        assert answer["stopReason"] == "end_turn"
        return len(exporter.get_finished_spans())

    return ask


def _method():
    return BaseClient.__dict__["_make_api_call"]


def test_uninstrument_gives_back_the_very_method(providers, asked):
    for _ in range(3):
        otel_bedrock.instrument(**providers[1])
        assert _method() is not ORIGINAL
        assert asked() == 1
        otel_bedrock.uninstrument()
        assert _method() is ORIGINAL
        assert asked() == 0


def test_a_wrapper_below_ours_stays(providers, asked):
    others = Others()
    theirs = others.wrap()
    otel_bedrock.instrument(**providers[1])
    assert asked() == 1
    assert others.calls == 1
    otel_bedrock.uninstrument()
    assert _method() is theirs
    assert asked() == 0
    assert others.calls == 2
    unwrap(botocore.client.BaseClient, "_make_api_call")


def test_a_wrapper_on_top_of_ours_stays(providers, asked):
    """uninstrument() took the outermost wrapper off, whosever it was."""
    otel_bedrock.instrument(**providers[1])
    others = Others()
    theirs = others.wrap()
    assert asked() == 1
    otel_bedrock.uninstrument()
    assert _method() is theirs
    assert theirs.__wrapped__ is ORIGINAL
    assert asked() == 0
    assert others.calls == 2
    unwrap(botocore.client.BaseClient, "_make_api_call")
    assert _method() is ORIGINAL


def test_wrappers_below_and_on_top_of_ours_stay(providers, asked):
    below, above, top = Others(), Others(), Others()
    lowest = below.wrap()
    otel_bedrock.instrument(**providers[1])
    above.wrap()
    highest = top.wrap()
    otel_bedrock.uninstrument()
    assert _method() is highest
    assert highest.__wrapped__.__wrapped__ is lowest
    otel_bedrock.instrument(**providers[1])
    assert asked() == 1
    assert (below.calls, above.calls, top.calls) == (1, 1, 1)
    otel_bedrock.uninstrument()
    for _ in range(3):
        unwrap(botocore.client.BaseClient, "_make_api_call")
    assert _method() is ORIGINAL


def test_a_call_under_somebody_elses_function_is_told_once_after_a_new_start(providers, asked):
    """What is no wrapper of wrapt's hides ours: it stays below, and is silent from then on."""
    otel_bedrock.instrument(**providers[1])
    hidden = _method()

    def theirs(self, operation_name, api_params):
        return hidden.__get__(self, type(self))(operation_name, api_params)

    BaseClient._make_api_call = theirs
    assert asked() == 1
    otel_bedrock.uninstrument()
    assert _method() is theirs
    assert asked() == 0
    otel_bedrock.instrument(**providers[1])
    assert asked() == 1
    otel_bedrock.uninstrument()
    BaseClient._make_api_call = ORIGINAL


def test_somebody_who_takes_the_outermost_wrapper_off_takes_ours(providers, asked):
    """OpenTelemetry's own `unwrap` does; theirs is not taken off in return."""
    others = Others()
    theirs = others.wrap()
    otel_bedrock.instrument(**providers[1])
    unwrap(botocore.client.BaseClient, "_make_api_call")
    assert asked() == 0
    left = _method()
    assert left._self_parent is theirs
    otel_bedrock.uninstrument()
    assert _method() is left
    otel_bedrock.instrument(**providers[1])
    assert asked() == 1
    assert others.calls == 2
    otel_bedrock.uninstrument()
    assert _method() is left
    unwrap(botocore.client.BaseClient, "_make_api_call")


def test_a_wrapper_on_top_that_opentelemetry_took_off_before(providers, asked):
    """BotocoreInstrumentor after ours, and off before ours: ours comes off all the same."""
    otel_bedrock.instrument(**providers[1])
    others = Others()
    others.wrap()
    unwrap(botocore.client.BaseClient, "_make_api_call")
    assert asked() == 1
    assert others.calls == 0
    otel_bedrock.uninstrument()
    assert _method() is ORIGINAL


def test_uninstrument_during_a_call_and_during_a_stream_loses_neither(stage, providers):
    """A recording that has begun is finished by the recorder that began it."""
    exporter, given = providers
    stage.clear()
    client = stage.client()
    events = client.meta.events
    otel_bedrock.instrument(**given)
    events.register_first("before-send", lambda **_: otel_bedrock.uninstrument(), unique_id="x")
    try:
        client.converse(modelId=CLAUDE, messages=MESSAGES)
    finally:
        events.unregister("before-send", unique_id="x")
    assert len(exporter.get_finished_spans()) == 1
    otel_bedrock.instrument(**given)
    stream = client.converse_stream(modelId=CLAUDE, messages=MESSAGES)["stream"]
    otel_bedrock.uninstrument()
    assert len(list(stream)) > 3
    assert len(exporter.get_finished_spans()) == 2
    assert "gen_ai.usage.output_tokens" in exporter.get_finished_spans()[1].attributes


def test_threads_that_call_while_others_instrument_and_uninstrument(stage, providers):
    """Every call answers as ever, every span that was opened ends, and the patch comes off."""
    exporter, given = providers
    opened = Opened()
    given["tracer_provider"].add_span_processor(opened)
    stage.clear()
    client = stage.client(max_pool_connections=8)
    stop = threading.Event()
    expected = client.converse(modelId=CLAUDE, messages=MESSAGES)["output"]

    def call():
        calls = 0
        while not stop.is_set():
            assert client.converse(modelId=CLAUDE, messages=MESSAGES)["output"] == expected
            stream = client.converse_stream(modelId=CLAUDE, messages=MESSAGES)["stream"]
            assert "metadata" in list(stream)[-1]
            body = client.invoke_model(modelId=CLAUDE, body=REQUEST_OF_ONE)["body"]
            assert body.read().startswith(b"{")
            calls += 3
        return calls

    def toggle(settings):
        for _ in range(25):
            otel_bedrock.instrument(**given, **settings)
            otel_bedrock.uninstrument()

    with ThreadPoolExecutor(6) as pool:
        callers = [pool.submit(call) for _ in range(4)]
        togglers = [pool.submit(toggle, settings) for settings in ({}, ALL_ON)]
        try:
            for one in togglers:
                one.result(30)
        finally:
            stop.set()
        calls = sum(one.result(30) for one in callers)
    abandoned.look()
    assert opened.open == {}
    assert opened.started == len(exporter.get_finished_spans()) <= calls
    assert _method() is ORIGINAL


REQUEST_OF_ONE = REQUEST.replace(b"[]", b'[{"role":"user","content":"hello"}]')
