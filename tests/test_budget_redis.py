"""A budget that several processes share, on a real Redis: as exact as one in memory."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from programs import free_port, server
from test_budget import ACTIONS, HELLO, SONNET, Clock, a_call, charged, play, request

import otel_bedrock
from otel_bedrock import BudgetExceeded, Limit, TokenBudget
from otel_bedrock.budget_limit import BudgetUnavailable
from otel_bedrock.call import Usage
from otel_bedrock.testing import FakeBedrock, capture

redis = pytest.importorskip("redis")
from otel_bedrock.budget_redis import RedisStore  # noqa: E402 - needs redis


class Server:
    """A redis-server of our own, on loopback, that keeps nothing on disk."""

    def __init__(self, program):
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [
            program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
            "--appendonly", "no", "--dir", tempfile.gettempdir(),
        ]  # fmt: skip
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        with redis.Redis.from_url(self.url) as client:
            for _ in range(200):
                try:
                    client.ping()
                except redis.ConnectionError:
                    assert self.process.poll() is None, "redis-server ended"
                    time.sleep(0.05)
                else:
                    return
        raise AssertionError("redis-server does not answer")

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture(scope="module")
def running():
    started = Server(server("redis-server"))
    yield started
    started.stop()


@pytest.fixture
def connection(running):
    with redis.Redis.from_url(running.url) as client:
        client.flushall()
        yield client


def total(connection):
    """Return the tokens of the only window there is."""
    (key,) = [key for key in connection.scan_iter() if key.endswith(b":tokens")]
    return int(connection.hget(key, "total"))


@given(ACTIONS)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_script_counts_as_a_list_of_all_events_does(connection, actions):
    connection.flushall()
    clock = Clock()
    play(RedisStore(connection, clock=clock), clock, actions)


WORKER = """
import sys
from otel_bedrock import BudgetExceeded, Limit, TokenBudget
from otel_bedrock.budget_redis import RedisStore
from otel_bedrock.call import Call
from otel_bedrock.model_id import parse
limits = Limit(per_minute=3_000), Limit(per_day=2_000, by="model")
budget = TokenBudget(*limits, store=RedisStore(sys.argv[1], timeout=30))
call = Call("Converse", "chat", parse("a.b"), parameters={"max_tokens": 7})
done = 0
for _ in range(150):
    try:
        budget.reserve(call, 3)
        done += 1
    except BudgetExceeded:
        pass
print(done)
"""


def test_processes_never_overshoot_together_and_use_all_of_it(running, connection):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, running.url], stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    assert sum(int(process.communicate(timeout=100)[0]) for process in started) == 200


def test_64_threads_never_overshoot(connection):
    budget = TokenBudget(Limit(per_minute=1_000), store=RedisStore(connection))

    def work(_):
        try:
            budget.reserve(a_call(most=7), 3)
        except BudgetExceeded:
            return 0
        return 1

    with ThreadPoolExecutor(64) as threads:
        assert sum(threads.map(work, range(256))) == 100


def test_a_call_settles_in_redis(connection):
    budget = TokenBudget(Limit(per_minute=1_000), store=RedisStore(connection))
    with FakeBedrock() as bedrock, capture(budget=budget):
        client = bedrock.client()
        client.converse(**request(most=500))
        assert total(connection) == charged(bedrock.bill[0], 5)
        with pytest.raises(BudgetExceeded) as caught:
            client.converse(**request(most=950))
        assert 0 < caught.value.frees_in <= 61.1
        bedrock.throttle()
        with pytest.raises(client.exceptions.ThrottlingException):
            client.converse(**request())
        assert total(connection) == charged(bedrock.bill[0], 5)


def test_the_keys_go_away_by_themselves_and_are_on_one_node(connection):
    budget = TokenBudget(
        Limit(per_minute=10, per_day=10, by=("model", "tenant")), store=RedisStore(connection)
    )
    budget.reserve(a_call(most=5, tenant="a:b}{ä"), 0)
    keys = list(connection.scan_iter())
    assert len(keys) == 4
    assert all(key.startswith(b"{otel-bedrock:budget}:") for key in keys)
    lives = sorted(connection.ttl(key) for key in keys)
    assert lives[0] > 55
    assert lives[-1] <= 86_400 + 120


def test_settling_on_an_event_loop_is_done_by_a_thread_in_order(connection):
    store = RedisStore(connection)
    budget = TokenBudget(Limit(per_minute=1_000), store=store)

    async def work():
        for _ in range(20):
            budget.reserve(a_call(most=40), 0).settle(Usage(input_tokens=1, output_tokens=0))

    asyncio.run(work())
    store.flush()
    assert total(connection) == 20
    store.close()


def test_a_dead_server_fails_no_call_and_is_left_alone_for_a_while(caplog, monkeypatch):
    store = RedisStore(f"redis://127.0.0.1:{free_port()}/0")
    budget = TokenBudget(Limit(per_minute=1), store=store)
    with FakeBedrock() as bedrock, capture(budget=budget) as captured:
        client = bedrock.client()
        for _ in range(3):
            client.converse(modelId=SONNET, messages=HELLO)
        assert captured.total("bedrock.client.budget.unchecked") == 3
        assert captured.total("bedrock.client.budget.exceeded") is None
    assert [record.getMessage() for record in caplog.records if "store" in record.message] == [
        "the store of the token budget failed (ConnectionError): calls go out unchecked until it"
        " answers again"
    ]
    strict = TokenBudget(Limit(per_minute=1), store=store, fail_open=False)
    with pytest.raises(BudgetUnavailable, match="the shared store does not answer"):
        strict.reserve(a_call(most=0), 0)
    store.close()


def test_a_budget_that_only_reports_refuses_nothing_without_its_server(caplog):
    store = RedisStore(f"redis://127.0.0.1:{free_port()}/0")
    budget = TokenBudget(Limit(per_minute=1), store=store, enforce=False, fail_open=False)
    assert budget.reserve(a_call(most=5), 0).unchecked
    assert "calls go out unchecked until it answers again" in caplog.text
    # As it is asked before counting, where that decides.
    assert budget.reserve(a_call(most=5), 0, enforce=True).unchecked
    store.close()


def test_a_server_that_comes_back_is_used_again(monkeypatch):
    monkeypatch.setattr("otel_bedrock.budget_redis.PAUSE", 0.0)
    own = Server(server("redis-server"))
    try:
        budget = TokenBudget(Limit(per_minute=10), store=RedisStore(own.url, timeout=5))
        budget.reserve(a_call(most=10), 0)
        own.stop()
        lost = budget.reserve(a_call(most=10), 0)
        assert lost.unchecked
        lost.settle(Usage(input_tokens=1, output_tokens=1))
        own.start()
        assert not budget.reserve(a_call(most=10), 0).unchecked
        with pytest.raises(BudgetExceeded):
            budget.reserve(a_call(most=10), 0)
        budget.store.close()
    finally:
        own.stop()


def test_a_time_limit_that_is_over_in_redis_breaks_off_the_call(connection, alarm):
    store = RedisStore(connection)
    store._reserve = alarm.before(store._reserve)
    budget = TokenBudget(Limit(per_minute=1_000), store=store)
    with FakeBedrock() as bedrock, capture(budget=budget) as captured:
        client = bedrock.client()
        with pytest.raises(alarm.Late):
            client.converse(**request())
        assert bedrock.requests == []
        # That says nothing of Redis.
        client.converse(**request())
        assert captured.total("bedrock.client.budget.unchecked") is None


def test_its_requests_are_nobodys_spans(connection):
    from opentelemetry.instrumentation.utils import is_instrumentation_enabled

    seen = []
    store = RedisStore(connection)
    script = store._reserve
    store._reserve = lambda **given: seen.append(is_instrumentation_enabled()) or script(**given)
    TokenBudget(Limit(per_minute=10), store=store).reserve(a_call(most=1), 0)
    assert seen == [False]
    assert is_instrumentation_enabled()


def test_without_redis_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ValueError, match=r"pip install 'otel-bedrock\[redis\]'"):
        RedisStore("redis://localhost")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"redis": 5}, "redis: expected the URL of a server or a client of redis-py"),
        ({"redis": redis.Redis}, "redis: expected the URL of a server or a client of redis-py"),
        ({"redis": redis.asyncio.Redis()}, "a client of redis-py, not an asyncio one; got"),
        ({"redis": "redis://x", "timeout": "1"}, "timeout: expected a number of seconds above 0"),
        ({"redis": "redis://x", "prefix": 5}, "prefix: expected a text; got 5"),
    ],
)
def test_a_wrong_store_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError) as caught:
        RedisStore(**arguments)
    assert message in str(caught.value)


def test_importing_does_not_need_redis():
    code = "import sys; sys.modules['redis'] = None; import otel_bedrock.budget_redis"
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
    assert otel_bedrock.TokenBudget
