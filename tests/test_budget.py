"""A budget refuses what would go over it, and nothing else; what was spent is what Bedrock took."""

from __future__ import annotations

import copy
import gc
import itertools
import json
import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from uuid import UUID

import pytest
from botocore.session import Session
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import run

import otel_bedrock
from otel_bedrock import (
    BudgetExceeded,
    Limit,
    TokenBudget,
    TokenCountUnsupported,
    attribution,
    budget_store,
)
from otel_bedrock.budget import ALWAYS, WHEN_NEEDED
from otel_bedrock.budget_bound import MEDIA, input_bound
from otel_bedrock.budget_limit import BudgetUnavailable
from otel_bedrock.budget_store import MemoryStore, Window
from otel_bedrock.call import Call, Usage
from otel_bedrock.model_id import parse
from otel_bedrock.testing import FakeBedrock, capture

SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "amazon.nova-lite-v1:0"
OPERATIONS = frozenset(
    Session().get_service_model("bedrock-runtime").operation_names  # older ones lack some
)
HELLO = [{"role": "user", "content": [{"text": "Hello, budget!"}]}]


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.25

    def __call__(self) -> float:
        return self.now


def request(model=SONNET, most=100, **more):
    return {
        "modelId": model,
        "messages": HELLO,
        "inferenceConfig": {"maxTokens": most},
        **more,
    }


def a_call(model=SONNET, most=None, tenant=None, operation="chat"):
    return Call(
        "Converse",
        operation,
        parse(model),
        parameters={} if most is None else {"max_tokens": most},
        attribution=None if tenant is None else {"tenant": tenant},
    )


class Spy(MemoryStore):
    """A store that can be asked what all of it holds."""

    @property
    def held(self):
        return [spent.total for spent in self._spent.values()]


@pytest.fixture(scope="module")
def bedrock():
    with FakeBedrock() as server:
        yield server


@pytest.fixture(autouse=True)
def _clean(bedrock):
    bedrock.reset()


# The store, compared with a model that keeps every event.


class Model:
    """What the windows should hold, computed from the list of all events each time."""

    def __init__(self, windows):
        self.windows = windows
        self.events = []  # [window, slot, tokens]
        self.newest = [None] * len(windows)

    def total(self, index, now):
        window = self.windows[index]
        return sum(
            tokens
            for which, slot, tokens in self.events
            if which == index and (slot + 1) * window.slot + window.seconds > now
        )

    def add(self, index, now, tokens):
        window = self.windows[index]
        slot = int(now // window.slot)
        self.events.append([index, slot, tokens])
        return len(self.events) - 1


WINDOWS = (Window("minute", 100, 60, 1), Window("day", 250, 86_400, 60))
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 120), st.booleans()),
        st.tuples(st.just("settle"), st.integers(0, 20), st.integers(0, 150)),
        st.tuples(
            st.just("wait"), st.sampled_from((0.5, 1, 30, 59.9, 60, 61, 3600, 90_000)), st.none()
        ),
    ),
    max_size=40,
)


def play(store, clock, actions):
    """Do the same to the store and to the model, and compare what each says."""
    model, held = Model(WINDOWS), []
    for action, number, more in actions:
        if action == "wait":
            clock.now += number
        elif action == "reserve":
            taken = store.reserve(WINDOWS, number, more)
            totals = [model.total(index, clock.now) for index in range(2)]
            refused = [index for index in range(2) if totals[index] + number > WINDOWS[index].limit]
            assert [refusal.window for refusal in taken.refusals] == refused
            for refusal in taken.refusals:
                window, total = WINDOWS[refusal.window], totals[refusal.window]
                assert refusal.left == max(0, window.limit - total)
                assert (refusal.frees_in is None) == (number > window.limit)
                if refusal.frees_in is not None:
                    # A moment before it does not fit, and then it does.
                    at = clock.now + refusal.frees_in
                    early = model.total(refusal.window, at - 0.01)
                    assert early + number > window.limit
                    assert model.total(refusal.window, at + 0.01) + number <= window.limit
            if refused and more:
                assert taken.slots == ()
            else:
                events = [model.add(index, clock.now, number) for index in range(2)]
                held.append((taken, events, number))
        elif held:
            taken, events, reserved = held.pop(number % len(held))
            store.settle(WINDOWS, taken.slots, reserved, more)
            for index, event in enumerate(events):
                if more > reserved:
                    model.add(index, clock.now, more - reserved)
                else:
                    model.events[event][2] -= reserved - more
    probe = store.reserve(WINDOWS, 10**9, True)
    totals = [model.total(index, clock.now) for index in range(2)]
    assert [refusal.left for refusal in probe.refusals] == [
        max(0, window.limit - total) for window, total in zip(WINDOWS, totals, strict=True)
    ]


@given(ACTIONS)
@settings(max_examples=100, deadline=None)
def test_the_store_counts_as_a_list_of_all_events_does(actions):
    clock = Clock()
    play(MemoryStore(clock), clock, actions)


def test_windows_of_tenants_that_are_gone_are_let_go_of():
    clock = Clock()
    store = MemoryStore(clock)
    for number in range(5_000):
        store.reserve((Window(f"tenant {number}", 10, 60, 1),), 1, True)
        clock.now += 1
    assert len(store._spent) < 1_500


# One call.


def spends(bedrock, budget_of, call, store=None):
    """Return what the budget held after `call`, which is given a client."""
    store = store or Spy(Clock())
    budget = TokenBudget(Limit(per_minute=10_000), store=store, **budget_of)
    with capture(budget=budget):
        call(bedrock.client())
        gc.collect()
        otel_bedrock.flush()
    return store.held


def charged(bill, factor):
    return bill.input_tokens - (bill.cache_read_tokens or 0) + bill.output_tokens * factor


BODY = json.dumps(
    {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 60,
        "messages": [{"role": "user", "content": "Hello!"}],
    }
)
CACHED = [{"text": "You are a fake. " * 400}, {"cachePoint": {"type": "default"}}]


def _drop(client):
    stream = client.converse_stream(**request())["stream"]
    next(iter(stream))
    del stream


def _close(client):
    stream = client.converse_stream(**request())["stream"]
    next(iter(stream))
    stream.close()


SETTLED = {
    "converse": lambda client: client.converse(**request()),
    "stream": lambda client: list(client.converse_stream(**request())["stream"]),
    "body": lambda client: client.invoke_model(modelId=SONNET, body=BODY)["body"].read(),
    "body unread": lambda client: client.invoke_model(modelId=SONNET, body=BODY) and None,
    "chunks": lambda client: list(
        client.invoke_model_with_response_stream(modelId=SONNET, body=BODY)["body"]
    ),
    "cache write": lambda client: client.converse(**request(system=CACHED)),
}


@pytest.mark.parametrize("how", SETTLED)
def test_a_call_settles_to_input_and_output_times_burndown(bedrock, how):
    held = spends(bedrock, {}, SETTLED[how])
    assert held == [charged(bedrock.bill[0], 5)]
    bedrock.reset()
    assert spends(bedrock, {"burndown": 1}, SETTLED[how]) == [charged(bedrock.bill[0], 1)]


def test_a_cache_read_costs_nothing(bedrock):
    store = Spy(Clock())
    spends(bedrock, {}, lambda client: client.converse(**request(system=CACHED)), store)
    (first,) = store.held
    spends(bedrock, {}, lambda client: client.converse(**request(system=CACHED)), store)
    assert bedrock.bill[1].cache_read_tokens > 1_000
    assert store.held == [first + charged(bedrock.bill[1], 5)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("act", [_drop, _close])
def test_a_stream_that_is_broken_off_settles_to_what_it_reserved(bedrock, act):
    # Nobody says what it cost: it counts as it was reserved, and is not held twice.
    assert spends(bedrock, {}, act) == [input_bound(request()) + 100]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_call_that_fails_releases_all(bedrock):
    def fail(client):
        bedrock.throttle()
        with pytest.raises(client.exceptions.ThrottlingException):
            client.converse(**request())

    assert spends(bedrock, {}, fail) == [0]

    def break_off(client):
        bedrock.stream_error("throttlingException", after=1)
        with pytest.raises(Exception, match="throttlingException"):
            list(client.converse_stream(**request())["stream"])

    assert spends(bedrock, {}, break_off) == [0]


def test_what_is_reserved_is_input_and_max_tokens_without_burndown():
    budget = TokenBudget(Limit(per_minute=10**9))
    assert budget.reserve(a_call(most=500), 1_000).tokens == 1_500
    # Unset: what the model generates at most.
    assert budget.reserve(a_call(), 1_000).tokens == 65_000
    assert budget.reserve(a_call("acme.model-v1"), 1_000).tokens == 5_096
    assert (
        budget.reserve(a_call("amazon.titan-embed-text-v2:0", operation="embeddings"), 7).tokens
        == 7
    )


def test_a_reservation_is_settled_once():
    store = Spy(Clock())
    budget = TokenBudget(Limit(per_minute=10_000), store=store)
    reservation = budget.reserve(a_call(most=100), 50)
    reservation.settle(Usage(input_tokens=50, output_tokens=10, cache_read_tokens=20))
    reservation.release()
    reservation.settle(None)
    assert store.held == [30 + 50]


def test_the_settings_factors_are_the_budgets_unless_it_has_its_own(bedrock):
    for own, factor in ((None, 7), (2, 2)):
        store = Spy(Clock())
        budget = TokenBudget(Limit(per_minute=10_000), store=store, burndown=own)
        bedrock.reset()
        with capture(budget=budget, burndown={SONNET: 7}):
            bedrock.client().converse(**request())
        assert store.held == [charged(bedrock.bill[0], factor)]


def test_what_is_spent_above_the_reservation_counts_too():
    store = Spy(Clock())
    budget = TokenBudget(Limit(per_minute=10_000), store=store)
    budget.reserve(a_call(most=100), 50).settle(Usage(input_tokens=50, output_tokens=100))
    assert store.held == [550]


# Refusals.


def test_a_call_that_would_go_over_is_not_sent(bedrock):
    clock = Clock()
    budget = TokenBudget(Limit(per_minute=500, by="model"), store=MemoryStore(clock))
    with capture(budget=budget) as captured:
        client = bedrock.client()
        client.converse(**request(most=300))
        with pytest.raises(BudgetExceeded) as caught:
            client.converse(**request(most=450))
        clock.now += 61
        client.converse(**request(most=450))
    assert len(bedrock.requests) == 2
    assert len(captured.spans) == 2
    refused, spent = caught.value, charged(bedrock.bill[0], 5)
    assert (refused.limit, refused.size) == ("tokens a minute", 500)
    assert refused.scope == {"model": "anthropic.claude-sonnet-4-5-20250929-v1:0"}
    assert (refused.asked, refused.left) == (input_bound(request()) + 450, 500 - spent)
    assert refused.frees_in == pytest.approx(60.75)
    assert str(refused) == (
        "budget of 500 tokens a minute of model anthropic.claude-sonnet-4-5-20250929-v1:0:"
        f" {refused.left} left, and the call asks for {refused.asked}, which are free in 61 s"
    )
    assert str(pickle.loads(pickle.dumps(refused))) == str(refused)
    (point,) = [p for p in captured.points if p.metric == "bedrock.client.budget.exceeded"]
    assert point.value == 1
    assert point.attributes["bedrock.budget.limit"] == "tokens a minute"
    assert point.attributes["bedrock.budget.enforced"] is True


def test_without_enforcement_the_call_goes_and_is_told_of(bedrock):
    budget = TokenBudget(Limit(per_day=10, name="trial"), enforce=False)
    with capture(budget=budget) as captured:
        bedrock.client().converse(**request())
    assert captured.span.attributes["bedrock.budget.exceeded"] == ("trial",)
    assert (
        captured.total(
            "bedrock.client.budget.exceeded",
            bedrock__budget__limit="trial",
            bedrock__budget__enforced=False,
        )
        == 1
    )


def test_tenants_have_a_window_each(bedrock):
    budget = TokenBudget(Limit(per_day=400, by="tenant"))
    with capture(budget=budget):
        client = bedrock.client()

        def ask(tenant):
            with attribution(tenant=tenant):
                client.converse(**request(most=300))

        ask("acme")
        with pytest.raises(BudgetExceeded) as caught:
            ask("acme")
        assert caught.value.scope == {"tenant": "acme"}
        ask("globex")
        # Those that nobody claims share one.
        client.converse(**request(most=300))
        with pytest.raises(BudgetExceeded) as caught:
            client.converse(**request(most=390))
        assert caught.value.scope == {"tenant": ""}


def test_a_limit_is_for_whom_it_says():
    budget = TokenBudget(
        Limit(per_minute=100, model="anthropic.claude-sonnet-4-5-20250929-v1:0"),
        Limit(per_minute=50, tenant="free"),
    )
    budget.reserve(a_call(NOVA, 1_000, "paid"), 0)
    budget.reserve(a_call(NOVA, 50, "free"), 0)
    with pytest.raises(BudgetExceeded):
        budget.reserve(a_call(NOVA, 1, "free"), 0)
    budget.reserve(a_call(SONNET, 100), 0)
    with pytest.raises(BudgetExceeded):
        budget.reserve(a_call(SONNET.removeprefix("us."), 1), 0)


def test_a_refusal_takes_nothing_from_any_window():
    store = Spy(Clock())
    budget = TokenBudget(Limit(per_minute=1_000), Limit(per_day=100), store=store)
    with pytest.raises(BudgetExceeded) as caught:
        budget.reserve(a_call(most=500), 0)
    assert caught.value.frees_in is None
    assert "which it never allows" in str(caught.value)
    assert store.held == [0, 0]


@pytest.mark.parametrize("enforce", [True, False])
def test_limits_that_differ_in_size_alone_count_a_call_once(enforce):
    store = Spy(Clock())
    limits = Limit(per_minute=900), Limit(per_minute=500), Limit(per_minute=500, per_day=10**6)
    budget = TokenBudget(*limits, store=store, enforce=enforce)
    budget.reserve(a_call(most=300), 100).settle(Usage(input_tokens=100, output_tokens=20))
    assert store.held == [200, 200]
    if enforce:
        with pytest.raises(BudgetExceeded) as caught:
            budget.reserve(a_call(most=301), 0)
        assert (caught.value.size, caught.value.left) == (500, 300)
    else:
        (excess,) = budget.reserve(a_call(most=301), 0).excesses
        assert (excess.size, excess.left) == (500, 300)


def test_a_tenant_may_be_told_by_a_function(caplog):
    budget = TokenBudget(
        Limit(per_minute=100, by="tenant"), tenant=lambda call: call.model.provider
    )
    with pytest.raises(BudgetExceeded) as caught:
        budget.reserve(a_call(most=500), 0)
    assert caught.value.scope == {"tenant": "anthropic"}
    broken = TokenBudget(Limit(per_minute=100, by="tenant"), tenant=lambda call: 1 / 0)
    broken.reserve(a_call(most=100), 0)
    assert "ZeroDivisionError in the tenant function" in caplog.text


def test_the_input_of_one_request_is_limited_by_itself(bedrock):
    budget = TokenBudget(Limit(input_per_request=100))
    with capture(budget=budget):
        client = bedrock.client()
        client.converse(**request(most=100_000))
        with pytest.raises(BudgetExceeded) as caught:
            client.converse(**request(system=[{"text": "x" * 100}]))
    assert caught.value.limit == "input tokens a request"
    assert caught.value.frees_in is None


def test_the_context_window_is_limited_where_it_is_known():
    budget = TokenBudget(context_window=True)
    budget.reserve(a_call(most=100_000), 100_000)
    budget.reserve(a_call(), 200_000)
    budget.reserve(a_call("acme.model-v1", 10**9), 0)
    with pytest.raises(BudgetExceeded) as caught:
        budget.reserve(a_call(most=100_000), 100_001)
    assert (caught.value.limit, caught.value.size) == ("tokens of context", 200_000)
    with pytest.raises(BudgetExceeded):
        TokenBudget(context_window=10).reserve(a_call(most=1), 10)


@pytest.mark.parametrize(
    "refused",
    [
        BudgetUnavailable(5),
        BudgetExceeded("tokens a day", 9, {"tenant": "acme"}, 5, 4, 60.0),
        TokenCountUnsupported("acme.model", "it is opaque.", "Name it."),
    ],
    ids=lambda refused: type(refused).__name__,
)
def test_what_is_raised_goes_from_process_to_process(refused):
    for twin in (pickle.loads(pickle.dumps(refused)), copy.copy(refused)):
        assert type(twin) is type(refused)
        assert (str(twin), vars(twin)) == (str(refused), vars(refused))


# The input before the call.


def test_the_bound_is_above_what_is_billed(bedrock):
    tool = {"toolSpec": {"name": "look", "inputSchema": {"json": {"type": "object"}}}}
    parameters = request(system=CACHED, toolConfig={"tools": [tool]})
    client = bedrock.client()
    client.converse(**parameters)
    client.invoke_model(modelId=SONNET, body=BODY)
    for billed, sent in zip(bedrock.bill, (parameters, {"body": BODY}), strict=True):
        assert billed.input_tokens <= input_bound(sent)


@pytest.mark.parametrize(
    ("parameters", "bound"),
    [
        ({}, 0),
        ({"messages": []}, 0),
        ({"system": [{"text": "äö"}]}, 8),
        ({"messages": [{"content": [{"image": {"source": {"bytes": b"x"}}}]}]}, 16 + MEDIA + 23),
        ({"messages": [{"content": [{"video": {"source": {"s3Location": {}}}}]}]}, 16 + MEDIA + 28),
        ({"body": b"12345"}, 5),
        ({"body": "ä"}, 2),
        ({"body": memoryview(b"123")}, 3),
        ({"body": object()}, None),
    ],
)
def test_the_bound_by_hand(parameters, bound):
    assert input_bound(parameters) == bound


def test_a_request_that_contains_itself_has_no_bound():
    again, forked = [{"text": "Hello!"}], []
    again[0]["again"] = again
    forked += [forked, {"text": forked}]
    shared = [["twice"]] * 2
    for endless in (again, forked):
        assert input_bound({"messages": endless}) is None
    assert input_bound({"messages": shared}) == 2 * (16 + 5)
    deep = ["deep"]
    for _ in range(5_000):
        deep = [deep]
    assert input_bound({"messages": deep}) == 16 + 4


PLAIN = st.none() | st.booleans() | st.floats() | st.text(max_size=9) | st.binary(max_size=9)
LISTS = st.lists(PLAIN, max_size=3) | st.dictionaries(st.text(max_size=9), PLAIN, max_size=3)


@given(PLAIN | LISTS | st.lists(LISTS, max_size=3))
@settings(max_examples=50, deadline=None)
def test_the_bound_of_anything_is_a_number(anything):
    assert input_bound({"messages": anything, "system": anything, "toolConfig": anything}) >= 0
    assert input_bound({"body": anything}) is None or isinstance(anything, (str, bytes))


LONG = [{"role": "user", "content": [{"text": "word " * 100}]}]


needs_count = pytest.mark.skipif(
    "CountTokens" not in OPERATIONS, reason="the installed botocore has no CountTokens"
)


@needs_count
def test_counting_decides_where_the_bound_would_refuse(bedrock):
    limit = Limit(input_per_request=250)
    long = request(messages=LONG)
    with capture(budget=TokenBudget(limit)), pytest.raises(BudgetExceeded):
        bedrock.client().converse(**long)
    with capture(budget=TokenBudget(limit, count=WHEN_NEEDED)) as captured:
        client = bedrock.client()
        client.converse(**request())
        client.converse(**long)
        with pytest.raises(BudgetExceeded) as caught:
            client.converse(**request(messages=LONG * 3))
    names = [span.attributes["gen_ai.operation.name"] for span in captured.spans]
    assert names == ["chat", "count_tokens", "chat", "count_tokens"]
    assert caught.value.asked < input_bound({"messages": LONG * 3}) / 2


@needs_count
def test_counting_always_is_exact_and_falls_back_on_the_bound(bedrock):
    store = Spy(Clock())
    budget = TokenBudget(Limit(per_minute=10_000), store=store, count=ALWAYS)
    held = []
    reserve = store.reserve
    store.reserve = lambda windows, tokens, enforce: (
        held.append(tokens) or reserve(windows, tokens, enforce)
    )
    with capture(budget=budget):
        client = bedrock.client()
        client.converse(**request(messages=LONG))
        client.converse(**request(NOVA, messages=LONG))
    billed = [bill.input_tokens for bill in bedrock.bill if bill.output_tokens is not None]
    assert held == [
        billed[0] + 100,
        input_bound({"messages": LONG}) + 100,
    ]


# Many at once.


def test_64_threads_never_overshoot_and_use_all_of_it(monkeypatch):
    add = budget_store._Spent.add

    def slowly(*arguments):
        # Between the question whether it fits and the answer that it is taken.
        time.sleep(0.001)
        return add(*arguments)

    monkeypatch.setattr(budget_store._Spent, "add", slowly)
    budget = TokenBudget(Limit(per_minute=1_000), Limit(per_day=10**6, by="model"))
    start = threading.Barrier(64)

    def work(_):
        start.wait()
        done = 0
        for _ in range(5):
            try:
                budget.reserve(a_call(most=7), 3)
                done += 1
            except BudgetExceeded:
                pass
        return done

    with ThreadPoolExecutor(64) as threads:
        assert sum(threads.map(work, range(64))) == 100


def test_64_threads_of_calls_never_overshoot(bedrock):
    size = 3_000
    peak, store = [], MemoryStore()
    reserve = store.reserve

    def watched(windows, tokens, enforce):
        taken = reserve(windows, tokens, enforce)
        peak.append(store._spent[windows[0].key].total)
        return taken

    store.reserve = watched
    budget = TokenBudget(Limit(per_minute=size), store=store, burndown=1)
    bedrock.slow(first=0.02, times=None)
    sent, refused = itertools.count(), itertools.count()
    with capture(budget=budget):
        client = bedrock.client(max_pool_connections=64)

        def work(_):
            try:
                client.converse(**request(most=400))
                next(sent)
            except BudgetExceeded:
                next(refused)

        with ThreadPoolExecutor(64) as threads:
            list(threads.map(work, range(128)))
    sent, refused = next(sent), next(refused)
    assert sent + refused == 128
    assert refused > 0
    assert sent == len(bedrock.requests)
    assert max(peak) <= size
    spent = sum(charged(bill, 1) for bill in bedrock.bill)
    assert store._spent[next(iter(store._spent))].total == spent


def test_no_lock_is_held_across_a_call(bedrock):
    budget = TokenBudget(Limit(per_minute=10**6))
    bedrock.hang(times=1)
    with capture(budget=budget):
        client = bedrock.client(read_timeout=30)
        waiting = threading.Thread(target=lambda: _ignore(client.converse, **request()))
        waiting.start()
        while not bedrock.requests:
            pass
        client.converse(**request())
        assert waiting.is_alive()
        bedrock.clear_faults()
        client.close()


def _ignore(work, **arguments):
    try:
        work(**arguments)
    except Exception as error:
        return error


# Around it.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Limit(), "a limit without a size limits nothing"),
        (lambda: Limit(per_day=-1), "per_day: expected 0 or more tokens; got -1"),
        (lambda: Limit(per_day=True), "per_day: expected a whole number of tokens; got True"),
        (lambda: Limit(per_day=1, by="team"), "by: expected model or tenant; got 'team'"),
        (lambda: Limit(per_day=1, by=5), "by: expected model or tenant; got 5"),
        (lambda: Limit(per_day=1, model=["a"]), "model: expected a model id; got ['a']"),
        (lambda: Limit(per_day=1, model=""), "model: expected a model id; got ''"),
        (lambda: Limit(per_day=1, tenant=2.5), "tenant: expected a text, a whole number or a UUID"),
        (lambda: Limit(per_day=1, tenant=True), "tenant: expected a text, a whole number or a"),
        (lambda: Limit(per_day=1, tenant=""), "tenant: expected a text, a whole number or a UUID"),
        (lambda: Limit(per_day=1, name=7), "name: expected a text; got 7"),
        (lambda: TokenBudget(count="maybe"), "count: expected one of never, when needed, always"),
        (lambda: TokenBudget(enforce="no"), "enforce: expected True or False; got 'no'"),
        (lambda: TokenBudget(fail_open=None), "fail_open: expected True or False; got None"),
        (lambda: TokenBudget(context_window="big"), "context_window: expected True, False or a"),
        (lambda: TokenBudget(assumed_max_tokens="x"), "assumed_max_tokens: expected a whole"),
        (lambda: TokenBudget(burndown="x"), "burndown: expected a whole number, 0 or more, or a"),
        (lambda: TokenBudget(burndown=-5), "burndown: expected a whole number, 0 or more, or a"),
        (lambda: TokenBudget(burndown={SONNET: "5"}), "burndown: expected a whole number, 0 or"),
        (lambda: TokenBudget(tenant="acme"), "tenant: expected a function that takes a call"),
        (lambda: TokenBudget(store=MemoryStore), "store: expected a store, such as RedisStore"),
        (lambda: TokenBudget(store="redis://:secret@x"), "such as RedisStore(url); got str"),
    ],
)
def test_a_wrong_limit_says_what_is_wrong(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert message in str(caught.value)


class Plan(str, Enum):
    FREE = "free"


@pytest.mark.parametrize("tenant", [5, UUID(int=5), Plan.FREE, "free"])
def test_a_limit_takes_a_tenant_as_attribution_does(bedrock, tenant):
    with capture(budget=TokenBudget(Limit(per_day=1, tenant=tenant))):
        client = bedrock.client()
        with attribution(tenant=tenant), pytest.raises(BudgetExceeded):
            client.converse(**request())
    named = TokenBudget(Limit(per_day=1, tenant=tenant), tenant=lambda call: tenant)
    with pytest.raises(BudgetExceeded):
        named.reserve(a_call(most=2), 0)


def test_only_a_budget_is_a_budget():
    with pytest.raises(ValueError, match="budget: expected a TokenBudget; got 5"):
        otel_bedrock.instrument(budget=5)
    with pytest.raises(TypeError, match=r"expected Limit\(…\); got 5"):
        TokenBudget(5)


def test_a_budget_holds_where_no_sdk_is_set_up(bedrock):
    done = run(
        """
        from otel_bedrock import BudgetExceeded, Limit, TokenBudget
        otel_bedrock.instrument(budget=TokenBudget(Limit(input_per_request=5)))
        try:
            ask(client())
        except BudgetExceeded as refused:
            print(refused)
        """,
        bedrock=bedrock,
    )
    assert "budget of 5 input tokens a request: 5 left" in done.stdout, done.stderr


def test_a_bug_in_the_budget_does_not_stop_a_call(bedrock, monkeypatch):
    monkeypatch.delenv("OTEL_BEDROCK_RAISE_INTERNAL_ERRORS")

    class Broken(MemoryStore):
        def reserve(self, windows, tokens, enforce):
            raise RuntimeError

    with capture(budget=TokenBudget(Limit(per_day=1), store=Broken())) as captured:
        bedrock.client().converse(**request())
    assert captured.span.attributes["gen_ai.usage.output_tokens"] > 0
    assert captured.total("bedrock.instrumentation.errors", site="budget") == 1


@needs_count
def test_calls_that_spend_nothing_are_not_held_to_it(bedrock):
    with capture(budget=TokenBudget(Limit(per_minute=0))):
        client = bedrock.client()
        client.count_tokens(
            modelId="anthropic.claude-sonnet-4-5-20250929-v1:0",
            input={"converse": {"messages": HELLO}},
        )
        with pytest.raises(BudgetExceeded):
            client.converse(**request())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_in_the_middle_of_a_reservation_does_not_stop_the_child():
    done = run(
        """
        import warnings
        warnings.simplefilter("ignore")
        from otel_bedrock.budget_store import MemoryStore, Window
        store = MemoryStore()
        window = Window("", 10, 60, 1)
        store.reserve((window,), 3, True)
        store._lock.acquire()
        child = os.fork()
        if child == 0:
            print(store.reserve((window,), 8, True).refusals[0].left, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        """
    )
    assert done.stdout == "7\n", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_threads_of_its_own():
    done = run(
        """
        import warnings
        warnings.simplefilter("ignore")
        from otel_bedrock.threads import Threads
        threads = Threads("ours", 1)
        threads.submit(int).result()
        child = os.fork()
        if child == 0:
            print(threads.submit(pow, 2, 3).result(10), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        """
    )
    assert done.stdout == "8\n", done.stderr
