"""Counting with aiobotocore: the same as with boto3, awaited."""

from __future__ import annotations

import asyncio
import io
import json
import threading

import pytest

pytest.importorskip("aiobotocore", reason="left out: aiobotocore is not installed")

import aiobotocore.session
from aiobotocore.config import AioConfig
from botocore import UNSIGNED

from otel_bedrock import (
    BudgetExceeded,
    Limit,
    TokenBudget,
    TokenCountUnsupported,
    count_tokens,
    count_tokens_async,
    lookup,
)
from otel_bedrock.countable import Memory
from otel_bedrock.model_id import parse
from otel_bedrock.testing import FakeBedrock, capture

SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
OPUS = "us.anthropic.claude-opus-4-8"
PROFILE = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123"
HELLO = [{"role": "user", "content": [{"text": "How many tokens is this?"}]}]
BODY = json.dumps(
    {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "How many?"}],
    }
)
COUNTED = "bedrock.count_tokens.input_tokens"


@pytest.fixture
def bedrock():
    with FakeBedrock() as running:
        yield running


def client_of(bedrock, session=None, **config):
    session = session or aiobotocore.session.get_session()
    return session.create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=bedrock.url,
        config=AioConfig(retries={"total_max_attempts": 1}, **config),
    )


def counting(bedrock, **request):
    async def ask():
        async with client_of(bedrock) as client:
            return await count_tokens_async(
                client, mantle_endpoint=bedrock.url, memory=Memory(), **request
            )

    return asyncio.run(ask())


@pytest.mark.parametrize("model", [SONNET, OPUS])
@pytest.mark.parametrize(
    "request_",
    [{"messages": HELLO}, {"body": BODY}, {"body": bytearray(BODY.encode())}],
    ids=["converse", "text", "bytearray"],
)
def test_it_counts_and_asks_as_the_other_one_does(bedrock, model, request_):
    awaited = counting(bedrock, modelId=model, **request_)
    made = count_tokens(
        bedrock.client(), modelId=model, mantle_endpoint=bedrock.url, memory=Memory(), **request_
    )
    assert awaited == made
    first, second = bedrock.requests
    assert (first.path, first.body) == (second.path, second.body)


def test_a_file_is_left_where_it_was(bedrock):
    file = io.BytesIO(BODY.encode())
    assert counting(bedrock, modelId=SONNET, body=file).input_tokens
    assert file.tell() == 0


def test_what_cannot_be_counted_is_asked_for_once(bedrock):
    async def ask():
        memory = Memory()
        async with client_of(bedrock) as client:
            for _ in range(2):
                with pytest.raises(TokenCountUnsupported):
                    await count_tokens_async(
                        client, modelId="amazon.nova-lite-v1:0", messages=HELLO, memory=memory
                    )

    asyncio.run(ask())
    assert len(bedrock.requests) == 1


@pytest.mark.parametrize("model", [SONNET, OPUS])
def test_errors_are_of_the_clients_own_classes(bedrock, model):
    async def ask():
        async with client_of(bedrock) as client:
            bedrock.throttle()
            with pytest.raises(client.exceptions.ThrottlingException):
                await count_tokens_async(
                    client, modelId=model, messages=HELLO, mantle_endpoint=bedrock.url
                )

    asyncio.run(ask())


def test_an_unsigned_client_signs_nothing(bedrock):
    async def ask():
        async with client_of(bedrock, signature_version=UNSIGNED) as client:
            with pytest.raises(client.exceptions.ClientError):
                await count_tokens_async(
                    client, modelId=OPUS, messages=HELLO, mantle_endpoint=bedrock.url
                )

    asyncio.run(ask())
    assert "authorization" not in bedrock.requests[-1].headers


def test_an_api_key_is_sent_to_bedrock_mantle(bedrock, monkeypatch):
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "key-123")
    counting(bedrock, modelId=OPUS, messages=HELLO)
    assert bedrock.requests[-1].headers["x-api-key"] == "key-123"


def test_a_look_up_waits_in_a_thread_of_ours(bedrock, monkeypatch):
    threads = []

    def told(session, model, client):
        threads.append(threading.current_thread().name)
        return parse(SONNET)

    monkeypatch.setattr(lookup, "_base_of", told)
    monkeypatch.setattr(lookup, "_state", lookup._State())
    counted = counting(bedrock, modelId=PROFILE, messages=HELLO, resolve_models=True)
    assert counted.counted_as == SONNET[3:]
    monkeypatch.setattr(lookup, "_state", lookup._State())
    with capture(resolve_models=True):
        assert counting(bedrock, modelId=PROFILE, messages=HELLO).counted_as == SONNET[3:]
    # Those of asyncio may all wait for this very answer.
    assert {name.rpartition("_")[0] for name in threads} == {"otel-bedrock-ask"}


def test_the_wrong_one_is_said(bedrock):
    async def ask():
        async with client_of(bedrock) as client:
            with pytest.raises(TypeError, match="count_tokens_async"):
                count_tokens(client, modelId=SONNET, messages=HELLO)

    asyncio.run(ask())
    # With a client of boto3, there is nothing to await and nothing wrong.
    made = bedrock.client()
    counted = asyncio.run(count_tokens_async(made, modelId=SONNET, messages=HELLO))
    assert counted.input_tokens


def test_a_call_is_counted_before_it_is_made(bedrock):
    async def ask():
        async with client_of(bedrock) as client:
            await client.converse(modelId=SONNET, messages=HELLO)
            answer = await client.converse_stream(modelId=SONNET, messages=HELLO)
            async for _ in answer["stream"]:
                pass
            bedrock.throttle()
            await client.converse(modelId=SONNET, messages=HELLO)

    with capture(count_before=1) as captured:
        asyncio.run(ask())
        asked, told, asked_too, streamed, failed, alone = captured.spans
    assert told.attributes[COUNTED] == asked.attributes[COUNTED] == bedrock.bill[1].input_tokens
    assert streamed.attributes["bedrock.count_tokens.difference"] == 0
    assert asked_too.attributes[COUNTED]
    assert failed.attributes["error.type"] == "ThrottlingException"
    assert COUNTED not in alone.attributes
    assert told.start_time >= asked.end_time


def test_a_call_that_is_cancelled_while_it_is_counted_is_not_made(bedrock):
    async def ask():
        async with client_of(bedrock) as client:
            bedrock.hang(seconds=3)
            task = asyncio.ensure_future(client.converse(modelId=SONNET, messages=HELLO))
            await asyncio.sleep(0.3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with capture(count_before=1):
        asyncio.run(ask())
    assert "Converse" not in [bill.operation for bill in bedrock.bill]


def test_what_a_budget_refuses_is_not_counted(bedrock):
    async def ask():
        async with client_of(bedrock) as client:
            with pytest.raises(BudgetExceeded):
                await client.converse(modelId=SONNET, messages=HELLO)

    with capture(count_before=1, budget=TokenBudget(Limit(input_per_request=5))):
        asyncio.run(ask())
    assert bedrock.requests == []


def test_a_call_that_is_cancelled_while_it_is_counted_gives_back_what_it_reserved(bedrock):
    budget, reserved = TokenBudget(Limit(per_day=10**6)), []

    def held():
        return [spent.total for spent in budget.store._spent.values()]

    async def ask():
        async with client_of(bedrock) as client:
            bedrock.hang(seconds=3)
            task = asyncio.ensure_future(client.converse(modelId=SONNET, messages=HELLO))
            for _ in range(1_000):
                if bedrock.requests:
                    break
                await asyncio.sleep(0.01)
            reserved.extend(held())
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with capture(count_before=1, budget=budget):
        asyncio.run(ask())
    assert (reserved, held()) == ([64_059], [0])
