"""TABLE: the operations that FakeBedrock answers, and how."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from otel_bedrock.testing import converse, errors, mantle
from otel_bedrock.testing.errors import invalid
from otel_bedrock.testing.exchange import (
    Exchange,
    Frame,
    Streamed,
    Whole,
    load,
    read_prompt,
    reply_to,
    shape_of,
)
from otel_bedrock.testing.frames import encode_chunk, encode_event
from otel_bedrock.testing.guardrail import apply_guardrail
from otel_bedrock.testing.prompt import Prompt
from otel_bedrock.testing.shapes.shape import Body, Reply, Shape

_encode = json.JSONEncoder(separators=(",", ":")).encode
_encode_sorted = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode


def _converse_reply(exchange: Exchange, streamed: bool) -> tuple[Reply, Shape]:
    family = exchange.model.family
    if not family.converses:
        raise invalid(errors.NOT_A_CHAT_MODEL)
    body = load(exchange.raw)
    prompt = read_prompt(_checked, body)
    shape = family.shapes[0]
    return reply_to(exchange, body, prompt, shape, talks=True, streamed=streamed), shape


def _checked(body: Body) -> Prompt:
    converse.check(body)
    return converse.read_request(body)


def _answer_converse(exchange: Exchange) -> Whole:
    reply, shape = _converse_reply(exchange, streamed=False)
    body = converse.write_response(reply, shape.write, exchange.latency())
    return Whole(_encode_sorted(body).encode(), [], reply.cost, lambda: body)


def _answer_converse_stream(exchange: Exchange) -> Streamed:
    reply, shape = _converse_reply(exchange, streamed=True)

    def frames() -> Iterator[Frame]:
        for name, payload in converse.events(reply, shape.write):
            yield encode_event(name, payload), False
        name, payload = converse.metadata(reply, exchange.latency())
        yield encode_event(name, payload), True

    # A stream is logged as the answer that it adds up to.
    return Streamed(
        frames(),
        [],
        reply.cost,
        lambda: converse.write_response(reply, shape.write, exchange.latency()),
    )


def _invoke_reply(exchange: Exchange, streamed: bool) -> tuple[Reply, Shape]:
    body = load(exchange.raw)
    shape = shape_of(exchange.model.family, body)
    if streamed and shape.chunks is None:
        raise invalid(errors.NO_STREAMING)
    prompt = read_prompt(shape.read, body)
    return reply_to(exchange, body, prompt, shape, talks=False, streamed=streamed), shape


def _answer_invoke(exchange: Exchange) -> Whole:
    reply, shape = _invoke_reply(exchange, streamed=False)
    cost = reply.cost
    counts = (
        ("X-Amzn-Bedrock-Invocation-Latency", exchange.latency()),
        ("X-Amzn-Bedrock-Cache-Write-Input-Token-Count", cost.write),
        ("X-Amzn-Bedrock-Output-Token-Count", cost.output),
        ("X-Amzn-Bedrock-Cache-Read-Input-Token-Count", cost.read),
        ("X-Amzn-Bedrock-Input-Token-Count", cost.uncached),
    )
    headers = [(name, str(count)) for name, count in counts if count is not None]
    body = shape.write(reply)
    return Whole(_encode(body).encode(), headers + exchange.echo(), cost, lambda: body)


def _answer_invoke_stream(exchange: Exchange) -> Streamed:
    reply, shape = _invoke_reply(exchange, streamed=True)
    headers = [("X-Amzn-Bedrock-Content-Type", "application/json"), *exchange.echo()]
    # Logged as the list of its chunks.
    sent: list[Body] = []
    frames = _chunk_frames(exchange, reply, shape, sent)
    return Streamed(frames, headers, reply.cost, lambda: sent)


def _chunk_frames(
    exchange: Exchange, reply: Reply, shape: Shape, sent: list[Body]
) -> Iterator[Frame]:
    assert shape.chunks is not None
    settled = False
    first: int | None = None
    held: Body | None = None
    for body in shape.chunks(reply):
        if held is not None:
            settled = settled or "usage" in held
            sent.append(held)
            yield encode_chunk(held), settled
            first = exchange.latency() if first is None else first
        held = body
    assert held is not None
    latency = exchange.latency()
    held["amazon-bedrock-invocationMetrics"] = _metrics(exchange, reply, latency, first)
    sent.append(held)
    yield encode_chunk(held), True


def _metrics(exchange: Exchange, reply: Reply, latency: int, first: int | None) -> Body:
    cost = reply.cost
    metrics: Body = {
        "inputTokenCount": cost.uncached,
        "outputTokenCount": cost.output,
        "invocationLatency": latency,
        "firstByteLatency": latency if first is None else first,
    }
    rule = exchange.model.family.cache
    if rule is not None and (rule.zeros_in_metrics or reply.prompt.marked):
        metrics["cacheReadInputTokenCount"] = cost.read
        metrics["cacheWriteInputTokenCount"] = cost.write
    return metrics


def _answer_count(exchange: Exchange) -> Whole:
    family = exchange.model.family
    known = family.countable is not None and family.countable.match(exchange.model.base)
    if not known or exchange.model.profile:
        raise invalid(errors.UNCOUNTABLE)
    given = load(exchange.raw).get("input", {})
    if "converse" in given:
        prompt = read_prompt(_checked, given["converse"])
    else:
        body = load(b64decode(given.get("invokeModel", {}).get("body", "")))
        prompt = read_prompt(shape_of(family, body).read, body)
    return Whole(_encode({"inputTokens": prompt.tokens}).encode(), [])


def _answer_guardrail(exchange: Exchange) -> Whole:
    try:
        return Whole(apply_guardrail(load(exchange.raw)), [])
    except (AttributeError, TypeError) as error:
        raise invalid(errors.MALFORMED) from error


@dataclass(frozen=True, slots=True)
class Operation:
    """One API operation: its name, and what answers it."""

    name: str
    answer: Callable[[Exchange], Whole | Streamed]
    streamed: bool = False
    # Its path names a model.
    models: bool = True
    # Its errors are in Anthropic's form.
    foreign: bool = False


CONVERSE_STREAM = Operation("ConverseStream", _answer_converse_stream, streamed=True)
# By the last part of the path /model/<url-encoded id>/<last part>.
TABLE = {
    "converse": Operation("Converse", _answer_converse),
    "converse-stream": CONVERSE_STREAM,
    "invoke": Operation("InvokeModel", _answer_invoke),
    "invoke-with-response-stream": Operation(
        "InvokeModelWithResponseStream", _answer_invoke_stream, streamed=True
    ),
    "count-tokens": Operation("CountTokens", _answer_count),
}
_PREFIX = "/model/"
_GUARDRAIL_PATH = re.compile(r"/guardrail/([^/]+)/version/[^/]+/apply")
# Told apart from CountTokens on the bill.
_MANTLE = Operation("MantleCountTokens", mantle.count, models=False, foreign=True)
_GUARDRAIL = Operation("ApplyGuardrail", _answer_guardrail, models=False)


def find_operation(method: str, path: str) -> tuple[Operation, str] | None:
    """The operation of a path, and the model (or guardrail) that the path names."""
    if method != "POST":
        return None
    if path == mantle.PATH:
        return _MANTLE, ""
    before, _, last = path.partition("?")[0].rpartition("/")
    operation = TABLE.get(last)
    if operation is not None and before.startswith(_PREFIX):
        return operation, unquote(before[len(_PREFIX) :])
    guarded = _GUARDRAIL_PATH.fullmatch(path)
    return None if guarded is None else (_GUARDRAIL, unquote(guarded[1]))
