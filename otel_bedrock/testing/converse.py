"""Converse: its request, its response and its events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from otel_bedrock.testing.errors import BAD_POINTER, EMPTY_CONTENT, NO_USER_MESSAGE, invalid
from otel_bedrock.testing.prompt import Prompt, chat_segments, has_tool_result, stops_of, text_of
from otel_bedrock.testing.shapes.nova import forced_of, tools_of
from otel_bedrock.testing.shapes.shape import SIGNATURE, Body, Reply
from otel_bedrock.testing.tokenizer import split_text

FINISHES = {
    "end": "end_turn",
    "length": "max_tokens",
    "stop": "stop_sequence",
    "tool": "tool_use",
}
# Writes the model's own body for the same reply.
Native = Callable[[Reply], Body]
# What the request asked for and the response says that it got.
_ECHOED = ("performanceConfig", "serviceTier")


def check(body: Body) -> None:
    """Refuse what Converse refuses."""
    messages = body.get("messages")
    if messages is None and "promptVariables" in body:
        return
    # Once refused, a conversation that the assistant opens is answered since 2026.
    if not isinstance(messages, list) or not messages:
        raise invalid(NO_USER_MESSAGE)
    for index, message in enumerate(messages):
        if not message.get("content"):
            raise invalid(EMPTY_CONTENT.format(index))
    for pointer in body.get("additionalModelResponseFieldPaths", ()):
        if not pointer.startswith("/"):
            raise invalid(BAD_POINTER.format(pointer))


def read_request(body: Body) -> Prompt:
    """Read a Converse request."""
    messages = body.get("messages", [])
    last = messages[-1] if messages else {}
    config = body.get("toolConfig", {})
    inference = body.get("inferenceConfig", {})
    more = body.get("additionalModelRequestFields", {})
    segments = chat_segments(config.get("tools"), body.get("system"), messages)
    variables = body.get("promptVariables", {})
    return Prompt(
        segments=segments + chat_segments(None, list(variables.values()), ()),
        text=text_of(last.get("content")),
        max_tokens=inference.get("maxTokens"),
        stops=stops_of(inference.get("stopSequences")),
        tools=tools_of(config),
        forced=forced_of(config),
        answered=has_tool_result(last),
        thinks=_thinks(more),
    )


def _thinks(more: Body) -> bool:
    asked = more.get("thinking", more.get("reasoning_config"))
    # Claude's is an object, others' an effort such as "high".
    return asked.get("type") in ("enabled", "adaptive") if isinstance(asked, dict) else bool(asked)


def usage_of(reply: Reply) -> Body:
    """Spell usage as Converse does."""
    cost = reply.cost
    twice = cost.cached if reply.doubles else 0
    usage: Body = {
        "inputTokens": cost.uncached + twice,
        "outputTokens": reply.answer.tokens,
        "serverToolUsage": {},
        "totalTokens": cost.total + twice,
    }
    # The wire has each cache count twice; SDKs know the shorter name alone.
    if cost.read is not None:
        usage["cacheReadInputTokenCount"] = usage["cacheReadInputTokens"] = cost.read
    if cost.write is not None:
        usage["cacheWriteInputTokenCount"] = usage["cacheWriteInputTokens"] = cost.write
    if reply.splits and cost.writes:
        usage["cacheDetails"] = [{"inputTokens": count, "ttl": ttl} for ttl, count in cost.writes]
    return usage


def _echo(reply: Reply) -> Body:
    return {key: reply.request[key] for key in _ECHOED if key in reply.request}


def _more(reply: Reply, native: Native) -> Body:
    """additionalModelResponseFields: what the JSON pointers find in the model's own body."""
    pointers = reply.request.get("additionalModelResponseFieldPaths")
    if not pointers:
        return {}
    body = native(reply)
    found: Body = {}
    for pointer in pointers:
        value: Any = body
        into = found
        *parents, last = pointer[1:].split("/")
        for key in (*parents, last):
            value = value.get(key, _MISSING) if isinstance(value, dict) else _MISSING
        if value is not _MISSING:
            for key in parents:
                into = into.setdefault(key, {})
            into[last] = value
    return {"additionalModelResponseFields": found} if found else {}


_MISSING = object()


def _content(reply: Reply) -> list[Body]:
    answer = reply.answer
    content: list[Body] = []
    if answer.reasoning:
        signed = {"signature": SIGNATURE} if reply.signs else {}
        thought = {"text": answer.reasoning, **signed}
        content.append({"reasoningContent": {"reasoningText": thought}})
    if answer.text:
        content.append({"text": answer.text})
    content += (
        {"toolUse": {"input": use.input, "name": use.name, "toolUseId": f"tooluse_{use.id}"}}
        for use in answer.uses
    )
    return content


def write_response(reply: Reply, native: Native, latency: int) -> Body:
    """Write the response of Converse."""
    return {
        "metrics": {"latencyMs": latency},
        "output": {"message": {"content": _content(reply), "role": "assistant"}},
        "stopReason": reply.finish,
        "usage": usage_of(reply),
        **_echo(reply),
        **_more(reply, native),
    }


Event = tuple[str, Body]


def _blocks(reply: Reply) -> Iterator[tuple[Body | None, list[Body]]]:
    answer = reply.answer
    if answer.reasoning:
        thoughts: list[Body] = [{"text": piece} for piece in split_text(answer.reasoning)]
        if reply.signs:
            thoughts.append({"signature": SIGNATURE})
        yield None, [{"reasoningContent": thought} for thought in thoughts]
    if answer.text:
        yield None, [{"text": piece} for piece in split_text(answer.text)]
    for use in answer.uses:
        given = json.dumps(use.input, separators=(",", ":"))
        half = len(given) // 2
        parts = ("", given[:half], given[half:])
        start = {"toolUse": {"name": use.name, "toolUseId": f"tooluse_{use.id}"}}
        yield start, [{"toolUse": {"input": part}} for part in parts]


def events(reply: Reply, native: Native) -> Iterator[Event]:
    """All but the last event, which has the measured latency."""
    yield "messageStart", {"role": "assistant"}
    for index, (start, deltas) in enumerate(_blocks(reply)):
        # Only tool use announces its block; text just begins.
        if start is not None:
            yield "contentBlockStart", {"contentBlockIndex": index, "start": start}
        for delta in deltas:
            yield "contentBlockDelta", {"contentBlockIndex": index, "delta": delta}
        yield "contentBlockStop", {"contentBlockIndex": index}
    yield "messageStop", {"stopReason": reply.finish, **_more(reply, native)}


def metadata(reply: Reply, latency: int) -> Event:
    """Write the last event of ConverseStream, the one with usage."""
    return (
        "metadata",
        {"metrics": {"latencyMs": latency}, "usage": usage_of(reply), **_echo(reply)},
    )
