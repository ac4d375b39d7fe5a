"""A budget holds for awaited calls as for others, and stores are waited for off the loop."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("aiobotocore", reason="left out: aiobotocore is not installed")

import aiobotocore.session
from test_budget import LONG, SONNET, Spy, charged, request

import otel_bedrock
from otel_bedrock import BudgetExceeded, Limit, TokenBudget
from otel_bedrock.budget import ALWAYS, WHEN_NEEDED
from otel_bedrock.budget_store import MemoryStore
from otel_bedrock.testing import FakeBedrock, capture


@pytest.fixture
def bedrock():
    with FakeBedrock() as server:
        yield server


def play(bedrock, budget, act):
    """Await `act(client)` with a client of aiobotocore, and return what was captured."""

    async def main():
        session = aiobotocore.session.get_session()
        async with session.create_client(
            "bedrock-runtime", region_name="us-east-1", endpoint_url=bedrock.url
        ) as client:
            return await act(client)

    with capture(budget=budget) as captured:
        asyncio.run(main())
        gc.collect()
        otel_bedrock.flush()
    return captured


class Remote(Spy):
    """A store that waits for somebody, and says on which threads."""

    blocks = True

    def __init__(self):
        super().__init__()
        self.threads = set()
        self.pause = 0.0

    def reserve(self, windows, tokens, enforce):
        self.threads.add(threading.get_ident())
        time.sleep(self.pause)
        return super().reserve(windows, tokens, enforce)


async def _converse(client):
    await client.converse(**request())


async def _stream(client):
    answer = await client.converse_stream(**request())
    async for _ in answer["stream"]:
        pass


async def _body(client):
    answer = await client.invoke_model(
        modelId=SONNET,
        body='{"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": []}',
    )
    await answer["body"].read()


@pytest.mark.parametrize("act", [_converse, _stream, _body])
@pytest.mark.parametrize("make", [Spy, Remote])
def test_an_awaited_call_settles(bedrock, act, make):
    store = make()
    play(bedrock, TokenBudget(Limit(per_minute=10_000), store=store), act)
    assert store.held == [charged(bedrock.bill[0], 5)]


@pytest.mark.parametrize("make", [MemoryStore, Remote])
def test_an_awaited_call_that_would_go_over_is_not_sent(bedrock, make):
    async def act(client):
        with pytest.raises(BudgetExceeded) as caught:
            await client.converse(**request())
        assert caught.value.frees_in is None

    captured = play(bedrock, TokenBudget(Limit(per_minute=50), store=make()), act)
    assert (len(bedrock.requests), len(captured.spans)) == (0, 0)
    assert captured.total("bedrock.client.budget.exceeded") == 1


@pytest.mark.parametrize("make", [Spy, Remote])
def test_64_tasks_never_overshoot(bedrock, make):
    store, peak = make(), []
    reserve = store.reserve

    def watched(windows, tokens, enforce):
        taken = reserve(windows, tokens, enforce)
        peak.extend(store.held)
        return taken

    store.reserve = watched

    async def act(client):
        calls = [client.converse(**request(most=400)) for _ in range(64)]
        told = await asyncio.gather(*calls, return_exceptions=True)
        refused = [one for one in told if isinstance(one, BudgetExceeded)]
        assert 0 < len(refused) < 64
        assert len(refused) + sum(isinstance(one, dict) for one in told) == 64

    bedrock.slow(first=0.05, times=None)
    play(bedrock, TokenBudget(Limit(per_minute=3_000), store=store, burndown=1), act)
    assert max(peak) <= 3_000
    assert store.held == [sum(charged(bill, 1) for bill in bedrock.bill)]


def test_a_store_is_waited_for_off_the_loop(bedrock):
    store = Remote()
    play(bedrock, TokenBudget(Limit(per_minute=10_000), store=store), _converse)
    assert threading.get_ident() not in store.threads


def test_a_store_is_asked_where_the_programs_own_threads_wait_for_the_call(bedrock):
    async def act(client):
        await client.converse(**request())
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        answered = threading.Event()
        waiting = loop.run_in_executor(None, answered.wait)
        try:
            await asyncio.wait_for(client.converse(**request()), 10)
        finally:
            answered.set()
            await waiting

    store = Remote()
    play(bedrock, TokenBudget(Limit(per_minute=10_000), store=store), act)
    assert store.held == [sum(charged(bill, 5) for bill in bedrock.bill)]


async def _until(ask):
    for _ in range(1_000):
        if ask():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


def test_a_task_that_is_cancelled_while_it_waits_gives_back(bedrock):
    store = Remote()
    store.pause = 0.3

    async def act(client):
        task = asyncio.ensure_future(client.converse(**request()))
        await _until(lambda: store.threads)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await _until(lambda: store.held == [0])

    play(bedrock, TokenBudget(Limit(per_minute=10_000), store=store), act)
    assert bedrock.requests == []


def test_counting_is_awaited(bedrock):
    if not hasattr(bedrock.client(), "count_tokens"):
        pytest.skip("the installed botocore has no CountTokens")

    async def act(client):
        await client.converse(**request(messages=LONG))
        with pytest.raises(BudgetExceeded):
            await client.converse(**request(messages=LONG * 3))

    for count in (WHEN_NEEDED, ALWAYS):
        budget = TokenBudget(Limit(input_per_request=250), count=count)
        captured = play(bedrock, budget, act)
        names = [span.attributes["gen_ai.operation.name"] for span in captured.spans]
        assert names == ["count_tokens", "chat", "count_tokens"]
