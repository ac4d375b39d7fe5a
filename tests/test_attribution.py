"""Attribution: who a call is for is on its span, on metrics where asked, and never in the way."""

from __future__ import annotations

import asyncio
import enum
import gc
import inspect
import json
import logging
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
from opentelemetry import context, propagate
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

import otel_bedrock
from otel_bedrock import shield
from otel_bedrock.attribution import attribution, current
from otel_bedrock.call import Call, Outcome, Usage
from otel_bedrock.instrumentor import _active
from otel_bedrock.model_id import parse
from otel_bedrock.testing import FakeBedrock
from otel_bedrock.testing.capture import capture

NOVA = "amazon.nova-lite-v1:0"
SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
HELLO = [{"role": "user", "content": [{"text": "Hello!"}]}]
BODY = json.dumps(
    {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 20,
        "messages": [{"role": "user", "content": "Hello!"}],
    }
)
# `otel_bedrock.attribution` is the class, which hides its module.
MODULE = sys.modules["otel_bedrock.attribution"]
BRACKET = sys.modules["otel_bedrock.bracket"]
INPUT = "gen_ai.client.inference.usage.input_tokens"


@pytest.fixture(scope="module")
def bedrock():
    with FakeBedrock() as server:
        yield server


@pytest.fixture(scope="module")
def client(bedrock):
    return bedrock.client()


@pytest.fixture(autouse=True)
def _said_anew(monkeypatch):
    monkeypatch.setattr(MODULE, "_said", set())


def _who(attributes):
    """Return what of `attributes` is attribution, by its keys."""
    prefix = "bedrock.attribution."
    return {
        key.removeprefix(prefix): value
        for key, value in attributes.items()
        if key.startswith(prefix)
    }


def ask(client):
    client.converse(modelId=NOVA, messages=HELLO)


# --- On spans ------------------------------------------------------------------------------


def test_a_call_inside_is_attributed_and_one_outside_is_not(client):
    with capture() as captured:
        with otel_bedrock.attribution(tenant="acme", feature="search"):
            ask(client)
        ask(client)
        seen = [_who(span.attributes) for span in captured.spans]
        points = [_who(point.attributes) for point in captured.points]
    assert seen == [{"tenant": "acme", "feature": "search"}, {}]
    assert not any(points), "metrics are opt-in"


def test_the_inner_adds_and_replaces_and_the_outer_is_back_afterwards():
    with attribution(tenant="acme", feature="search"):
        with suppress(KeyError), attribution(feature="chat", team="blue"):
            assert current() == {"tenant": "acme", "feature": "chat", "team": "blue"}
            raise KeyError
        assert current() == {"tenant": "acme", "feature": "search"}
    assert current() == {}


def test_samplers_see_it(client):
    class Looking(Sampler):
        seen = None

        def should_sample(self, *args, **kwargs):
            Looking.seen = kwargs.get("attributes") or args[4]
            return ALWAYS_ON.should_sample(*args, **kwargs)

        def get_description(self):
            return "looking"

    with capture(sampler=Looking()), attribution(tenant="acme"):
        ask(client)
    assert _who(Looking.seen) == {"tenant": "acme"}


def _stream(client):
    return client.converse_stream(modelId=NOVA, messages=HELLO)["stream"]


def _chunks(client):
    return client.invoke_model_with_response_stream(modelId=SONNET, body=BODY)["body"]


def _body(client):
    return client.invoke_model(modelId=SONNET, body=BODY)["body"]


@pytest.mark.parametrize("make", [_stream, _chunks, _body])
@pytest.mark.parametrize("dropped", [False, True])
def test_what_is_read_elsewhere_keeps_the_attribution_it_began_with(make, dropped, client):
    with capture(attribution_metric_keys=("tenant",)) as captured:
        with attribution(tenant="acme"):
            made = make(client)
        with attribution(tenant="other one"):
            if dropped:
                next(iter(made))
                made.close()
            else:
                list(made)
        del made
        gc.collect()
        assert _who(captured.span.attributes) == {"tenant": "acme"}
        assert {_who(point.attributes).get("tenant") for point in captured.points} <= {"acme", None}
        told = [
            point for point in captured.points if point.metric != "bedrock.client.quota.burndown"
        ]
        assert told
        assert all(_who(point.attributes) == {"tenant": "acme"} for point in told)


def test_a_failed_call_is_attributed(bedrock, client):
    bedrock.throttle()
    with capture(attribution_metric_keys=("tenant",)) as captured, attribution(tenant="acme"):
        with pytest.raises(client.exceptions.ThrottlingException):
            ask(client)
        assert _who(captured.span.attributes) == {"tenant": "acme"}
        (duration,) = [p for p in captured.points if p.metric == "gen_ai.client.inference.duration"]
        assert _who(duration.attributes) == {"tenant": "acme"}
        assert duration.attributes["error.type"] == "ThrottlingException"


def test_content_events_are_attributed(client):
    with capture(capture_content="EVENT_ONLY") as captured:
        with attribution(tenant="acme"):
            ask(client)
        (event,) = captured.events
        assert _who(event.attributes) == {"tenant": "acme"}


# --- Decorated -----------------------------------------------------------------------------


def test_functions_of_every_kind_are_decorated():
    seen = []

    @attribution(feature="plain")
    def plain(value, *, more=0):
        """Say something."""
        seen.append(dict(current()))
        return value + more

    @attribution(feature="coroutine")
    async def coroutine(value):
        await asyncio.sleep(0)
        seen.append(dict(current()))
        return value

    @attribution(feature="asyncgen")
    async def asyncgen():
        seen.append(dict(current()))
        yield 1
        seen.append(dict(current()))
        yield 2

    class Called:
        @attribution(feature="method")
        def method(self):
            seen.append(dict(current()))
            return self

        async def __call__(self):
            seen.append(dict(current()))

    async def every():
        assert await coroutine(5) == 5
        seen.extend([dict(current()) async for _ in asyncgen()])
        await attribution(feature="object")(Called())()

    assert plain(1, more=2) == 3
    assert (plain.__name__, plain.__doc__) == ("plain", "Say something.")
    assert inspect.iscoroutinefunction(coroutine)
    asyncio.run(every())
    called = Called()
    assert called.method() is called
    names = ["plain", "coroutine", "asyncgen", "asyncgen", None, None, "object", "method"]
    assert [found.get("feature") for found in seen] == names


def test_a_decorated_generator_is_attributed_only_while_it_runs():
    inside, thrown = [], []

    @attribution(feature="inner")
    def numbers():
        try:
            got = yield 1
            inside.append((got, dict(current())))
            try:
                yield 2
            except KeyError as error:
                thrown.append((error, dict(current())))
            yield 3
            return "end"
        finally:
            inside.append(("closed", dict(current())))

    def delegate(gave):
        gave.append((yield from numbers()))

    with attribution(tenant="acme"):
        made = numbers()
        assert next(made) == 1
        assert current() == {"tenant": "acme"}
        assert made.send("sent") == 2
        error = KeyError()
        assert made.throw(error) == 3
        assert list(made) == []
        both = {"tenant": "acme", "feature": "inner"}
        assert inside == [("sent", both), ("closed", both)]
        assert thrown == [(error, both)]
        gave = []
        list(delegate(gave))
        assert gave == ["end"]
        half = numbers()
        next(half)
    inside.clear()
    half.close()
    assert inside == [("closed", {"feature": "inner"})]
    assert current() == {}


def test_a_decorated_asynchronous_generator_is_closed_and_thrown_into():
    seen = []

    @attribution(feature="inner")
    async def numbers():
        try:
            yield 1
        except KeyError:
            seen.append(("thrown", dict(current())))
            yield 2
        finally:
            await asyncio.sleep(0)
            seen.append(("closed", dict(current())))

    async def run():
        made = numbers()
        assert await anext(made) == 1
        assert await made.athrow(KeyError()) == 2
        await made.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(made)

    asyncio.run(run())
    inner = {"feature": "inner"}
    assert seen == [("thrown", inner), ("closed", inner)]


@pytest.mark.parametrize("ending", ["closed", "collected"])
def test_with_around_a_yield_that_ends_elsewhere_says_nothing(ending, caplog):
    """The context that it began in is gone: there is nothing to take back, and no complaint."""

    async def numbers():
        with attribution(feature="inner"):
            yield 1
            yield 2

    async def run():
        made = numbers()
        await asyncio.create_task(anext(made))
        if ending == "closed":
            await made.aclose()
        assert current() == {}

    asyncio.run(run())
    assert caplog.records == []


# --- Tasks and threads ---------------------------------------------------------------------


def test_tasks_keep_their_own_also_of_one_object():
    who = attribution(feature="shared")

    async def run():
        with attribution(app="b"):
            await asyncio.gather(*(outer(f"t{number}") for number in range(20)))

    async def outer(tenant):
        with attribution(app="a"):
            await plain(tenant)

    async def plain(tenant):
        with attribution(tenant=tenant), who:
            for _ in range(5):
                await asyncio.sleep(0)
                assert current() == {"app": "a", "tenant": tenant, "feature": "shared"}
            with who:
                await asyncio.sleep(0)
            assert current() == {"app": "a", "tenant": tenant, "feature": "shared"}
            found = await asyncio.to_thread(current)
            assert found == {"app": "a", "tenant": tenant, "feature": "shared"}
        assert current() == {"app": "a"}

    asyncio.run(run())
    assert current() == {}


def test_a_plain_thread_starts_without_and_one_that_carries_has_it(client):
    seen = {}

    def look(name):
        seen[name] = dict(current())
        return name

    with attribution(tenant="acme"):
        for target, name in ((look, "plain"), (attribution.carry(look), "carried")):
            thread = threading.Thread(target=target, args=(name,))
            thread.start()
            thread.join()
    assert seen == {"plain": {}, "carried": {"tenant": "acme"}}


def test_carried_work_may_run_in_many_threads_at_once_and_leaves_none_behind():
    barrier = threading.Barrier(4, timeout=30)

    def look(number):
        barrier.wait()
        return number, dict(current())

    with ThreadPoolExecutor(4) as pool:
        with attribution(tenant="acme"):
            carried = attribution.carry(look)
        found = list(pool.map(carried, range(4)))
        assert [found for found in pool.map(lambda _: dict(current()), range(8)) if found] == []
        assert found == [(number, {"tenant": "acme"}) for number in range(4)]
        with pytest.raises(ZeroDivisionError):
            pool.submit(attribution.carry(lambda: 1 / 0)).result()


def test_a_call_in_a_carried_thread_is_a_child_of_the_present_span(client):
    with capture() as captured:
        tracer = captured.tracer_provider.get_tracer("user")
        with (
            ThreadPoolExecutor(1) as pool,
            attribution(tenant="acme"),
            tracer.start_as_current_span("request"),
        ):
            pool.submit(attribution.carry(ask), client).result()
        call, request = captured.spans
    assert call.parent.span_id == request.context.span_id
    assert _who(call.attributes) == {"tenant": "acme"}


def test_a_coroutine_handed_to_a_loop_in_another_thread_takes_it_along():
    async def look():
        await asyncio.sleep(0)
        return dict(current())

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        with attribution(tenant="acme"):
            found = asyncio.run_coroutine_threadsafe(look(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    assert found == {"tenant": "acme"}


def test_tasks_with_an_asynchronous_client_are_told_apart(bedrock):
    aiobotocore = pytest.importorskip("aiobotocore.session", reason="aiobotocore is not installed")

    async def run():
        session = aiobotocore.get_session()
        async with session.create_client(
            "bedrock-runtime", endpoint_url=bedrock.url, region_name="us-east-1"
        ) as client:

            async def begin(tenant):
                with attribution(tenant=tenant):
                    answer = await client.converse_stream(modelId=NOVA, messages=HELLO)
                return answer["stream"]

            streams = await asyncio.gather(*(begin(f"t{number}") for number in range(4)))
            with attribution(tenant="reader"):
                for stream in streams:
                    async for _ in stream:
                        pass

    with capture(attribution_metric_keys=("tenant",)) as captured:
        asyncio.run(run())
        tenants = sorted(_who(span.attributes)["tenant"] for span in captured.spans)
        counted = {_who(p.attributes)["tenant"] for p in captured.points if p.metric == INPUT}
    assert tenants == sorted(counted) == ["t0", "t1", "t2", "t3"]


# --- Baggage -------------------------------------------------------------------------------


@contextmanager
def request_with(baggage):
    """Do what a web framework's instrumentation does with a request that comes in."""
    token = context.attach(propagate.extract({"baggage": baggage}))
    try:
        yield
    finally:
        context.detach(token)


def test_baggage_counts_where_its_key_is_allowed(client):
    with (
        capture(attribution_baggage_keys=("tenant", "plan")) as captured,
        request_with("tenant=acme%20%C3%BC,session=secret"),
    ):
        assert current() == {"tenant": "acme ü"}
        ask(client)
        assert _who(captured.span.attributes) == {"tenant": "acme ü"}


def test_no_baggage_counts_unless_allowed(client):
    with capture() as captured, request_with("tenant=acme"):
        assert current() == {}
        ask(client)
        assert _who(captured.span.attributes) == {}
    with request_with("tenant=acme"):
        assert current() == {}, "an earlier allow-list is gone"


def test_what_the_code_says_goes_before_baggage(client):
    with (
        capture(attribution_baggage_keys=("tenant", "plan")) as captured,
        request_with("tenant=spoofed,plan=gold"),
        attribution(tenant="acme"),
    ):
        ask(client)
        assert _who(captured.span.attributes) == {"tenant": "acme", "plan": "gold"}


def test_new_settings_replace_the_allow_list():
    with capture(attribution_baggage_keys=("tenant",)), request_with("tenant=acme,plan=gold"):
        otel_bedrock.instrument(attribution_baggage_keys=("plan",))
        assert current() == {"plan": "gold"}


# --- On metrics ----------------------------------------------------------------------------


def test_metrics_have_the_keys_that_were_opted_in(client):
    with capture(attribution_metric_keys=("tenant",), semconv="both") as captured:
        with attribution(tenant="acme", feature="search"):
            ask(client)
        ask(client)
        points = [p for p in captured.points if p.metric != "bedrock.client.quota.burndown"]
        seen = {(p.metric, _who(p.attributes).get("tenant")) for p in points}
        assert {name for name, who in seen if who} == {name for name, who in seen if not who}
        assert not any("feature" in _who(point.attributes) for point in points)


def _tell(recorder, tenant, **more):
    call = Call("Converse", "chat", parse(NOVA), attribution={"tenant": tenant, **more})
    recorder.start(call).finish(Outcome(usage=Usage(input_tokens=3, output_tokens=2)))


def test_ten_thousand_tenants_are_at_most_the_limit_and_one_and_no_token_is_lost():
    with capture(attribution_metric_keys=("tenant",), attribution_limit=50) as captured:
        recorder = _active.recorder
        threads = [
            threading.Thread(
                target=lambda first=first: [
                    _tell(recorder, f"tenant {number}") for number in range(first, 10_000, 4)
                ]
            )
            for first in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        points = [point for point in captured.points if point.metric == INPUT]
        tenants = [_who(point.attributes)["tenant"] for point in points]
        assert len(tenants) == len(set(tenants)) == 51
        assert "other" in tenants
        assert captured.total(INPUT) == 30_000
        by_tenant = {_who(point.attributes)["tenant"]: point.value for point in points}
        assert by_tenant.pop("other") == 30_000 - 50 * 3
        assert set(by_tenant.values()) == {3}
        # What the recorder keeps is bounded as well.
        assert len(recorder._bases) == 51
        assert all(len(capped._ranks) <= 54 for capped in recorder._attributions.values())


def test_each_key_has_the_limit_of_its_own():
    keys = ("tenant", "feature")
    with capture(attribution_metric_keys=keys, attribution_limit=2) as captured:
        for number in range(4):
            _tell(_active.recorder, f"tenant {number}", feature="search", unasked=str(number))
        seen = [_who(point.attributes) for point in captured.points if point.metric == INPUT]
    assert seen == [
        {"tenant": "tenant 0", "feature": "search"},
        {"tenant": "tenant 1", "feature": "search"},
        {"tenant": "other", "feature": "search"},
    ]


def test_a_limit_of_zero_counts_all_under_other():
    with capture(attribution_metric_keys=("tenant",), attribution_limit=0) as captured:
        _tell(_active.recorder, "acme")
        (point,) = [point for point in captured.points if point.metric == INPUT]
    assert _who(point.attributes) == {"tenant": "other"}


def test_calls_of_one_tenant_share_their_attributes():
    with capture(attribution_metric_keys=("tenant",)):
        recorder = _active.recorder
        call = Call("Converse", "chat", parse(NOVA), attribution={"tenant": "acme", "id": "1"})
        same = Call("Converse", "chat", parse(NOVA), attribution={"id": "2", "tenant": "acme"})
        assert recorder.bases(call, Outcome()) is recorder.bases(same, Outcome())


# --- What may be said ----------------------------------------------------------------------


class Plan(str, enum.Enum):
    GOLD = "gold"


class Hostile:
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


UUID = uuid.UUID(int=7)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("acme", "acme"),
        ("ü" * 300, "ü" * 256),
        (42, "42"),
        (0, "0"),
        (-(10**20), "-100000000000000000000"),
        (UUID, "00000000-0000-0000-0000-000000000007"),
        (Plan.GOLD, "gold"),
        ("half \ud800 pair", "half ? pair"),
        ("\N{PILE OF POO}" * 300, "\N{PILE OF POO}" * 256),
        (None, None),
        ("", None),
    ],
)
def test_a_value_is_told_as_a_bounded_text(value, told, client, caplog):
    with capture() as captured, attribution(tenant=value):
        ask(client)
        found = _who(captured.span.attributes).get("tenant")
    assert found == told
    assert type(found) in (str, type(None))
    assert caplog.records == []


@pytest.mark.parametrize("value", [True, 1.5, b"acme", ["acme"], object(), Hostile()])
def test_any_other_value_is_left_out_and_said_once(value, caplog):
    with caplog.at_level(logging.WARNING, "otel_bedrock"), attribution(app="a"):
        for _ in range(3):
            with attribution(tenant=value, feature="search"):
                assert current() == {"app": "a", "feature": "search"}
    (record,) = caplog.records
    assert (
        f"attribution(tenant=…): expected a str, got {type(value).__name__}" in record.getMessage()
    )


@pytest.mark.parametrize("key", ["", "a b", "1st", "ü", "x" * 65, "a\n"])
def test_a_key_that_no_backend_would_take_is_left_out(key, caplog):
    with attribution(**{key: "acme", "cost.center": "7", "self": "me"}):
        assert current() == {"cost.center": "7", "self": "me"}
    (record,) = caplog.records
    assert "a key is a letter" in record.getMessage()


def test_a_number_that_is_no_id_is_left_out():
    with attribution(tenant=10**5000):
        assert current() == {}


def test_what_is_current_never_changes_and_cannot_be_changed():
    with attribution(tenant="acme"):
        found = current()
        with attribution(tenant="other one"):
            assert found == {"tenant": "acme"}
        with pytest.raises(TypeError):
            found["tenant"] = "x"
        assert attribution.current() == found


@pytest.mark.parametrize(
    ("where", "name"),
    [(MODULE, "_checked"), (BRACKET, "attributed"), (context, "get_value"), (context, "attach")],
)
def test_a_bug_of_ours_is_not_the_callers(where, name, monkeypatch, client):
    monkeypatch.delenv(shield.RAISE_VARIABLE)
    monkeypatch.setattr(shield, "_logged", set())

    def broken(*_):
        raise RuntimeError("a bug")

    with capture(attribution_metric_keys=("tenant",)) as captured:
        with monkeypatch.context() as patched:
            patched.setattr(where, name, broken)
            with attribution(tenant="acme"):
                # The span's own context is OpenTelemetry's to keep.
                if where is not context:
                    ask(client)
                    assert _who(captured.span.attributes) == {}
        assert captured.total("bedrock.instrumentation.errors") >= 1
        assert captured.total(INPUT) == (None if where is context else 5)


def test_a_bug_in_what_is_current_says_nothing_rather_than_raise(monkeypatch):
    monkeypatch.delenv(shield.RAISE_VARIABLE)
    monkeypatch.setattr(MODULE, "attributed", None)
    with attribution(tenant="acme"):
        assert current() == {}
