"""Anthropic Claude: the Messages API, and the older text completions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from otel_bedrock.testing.prompt import (
    Prompt,
    Tool,
    chat_segments,
    has_tool_result,
    plain_segments,
    stops_of,
    text_of,
)
from otel_bedrock.testing.shapes.shape import SIGNATURE, Body, Reply, Shape, new_id
from otel_bedrock.testing.tokenizer import split_text

_VERSION = re.compile(r"^anthropic\.|(?<!claude)-v\d+(:\d+)?$")
_FORCED = {"any": "*", "tool": None}


def _forced(choice: Body) -> str | None:
    kind = choice.get("type")
    return _FORCED.get(str(kind)) or choice.get("name")


def _read_messages(body: Body) -> Prompt:
    messages = body["messages"]
    last = messages[-1] if messages else {}
    return Prompt(
        segments=chat_segments(body.get("tools"), body.get("system"), messages),
        text=text_of(last.get("content")),
        max_tokens=body.get("max_tokens"),
        stops=stops_of(body.get("stop_sequences")),
        tools=tuple(
            Tool(tool["name"], tool.get("input_schema", {}))
            for tool in body.get("tools", ())
            if "name" in tool
        ),
        forced=_forced(body.get("tool_choice", {})),
        answered=has_tool_result(last),
        thinks=body.get("thinking", {}).get("type") in ("enabled", "adaptive"),
    )


def _usage(reply: Reply, output: int) -> Body:
    cost = reply.cost
    usage: Body = {"input_tokens": cost.uncached}
    if cost.write is not None:
        usage["cache_creation_input_tokens"] = cost.write
    if cost.read is not None:
        usage["cache_read_input_tokens"] = cost.read
    if reply.splits:
        usage["cache_creation"] = {
            "ephemeral_5m_input_tokens": cost.write_of("5m"),
            "ephemeral_1h_input_tokens": cost.write_of("1h"),
        }
    usage["output_tokens"] = output
    return usage


def _final_usage(reply: Reply) -> Body:
    usage = _usage(reply, reply.answer.tokens)
    if reply.splits and reply.prompt.thinks:
        usage["output_tokens_details"] = {"thinking_tokens": reply.cost.reasoning}
    return usage


def _message(reply: Reply) -> Body:
    return {
        "id": new_id("msg_bdrk_01"),
        "type": "message",
        "role": "assistant",
        "model": _VERSION.sub("", reply.model),
    }


def _write_message(reply: Reply) -> Body:
    answer = reply.answer
    content: list[Body] = []
    if answer.reasoning:
        content.append({"type": "thinking", "thinking": answer.reasoning, "signature": SIGNATURE})
    if answer.text:
        content.append({"type": "text", "text": answer.text})
    content += (
        {"type": "tool_use", "id": f"toolu_bdrk_{use.id}", "name": use.name, "input": use.input}
        for use in answer.uses
    )
    return {
        **_message(reply),
        "content": content,
        "stop_reason": reply.finish,
        "stop_sequence": answer.stop_sequence,
        "usage": _final_usage(reply),
    }


def _block(index: int, start: Body, deltas: list[Body]) -> Iterator[Body]:
    yield {"type": "content_block_start", "index": index, "content_block": start}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


def _blocks(reply: Reply) -> Iterator[tuple[Body, list[Body]]]:
    answer = reply.answer
    if answer.reasoning:
        yield (
            {"type": "thinking", "thinking": "", "signature": ""},
            [
                *(
                    {"type": "thinking_delta", "thinking": piece}
                    for piece in split_text(answer.reasoning)
                ),
                {"type": "signature_delta", "signature": SIGNATURE},
            ],
        )
    if answer.text:
        pieces = split_text(answer.text)
        yield (
            {"type": "text", "text": ""},
            [{"type": "text_delta", "text": piece} for piece in pieces],
        )
    for use in answer.uses:
        given = json.dumps(use.input)
        half = len(given) // 2
        parts = ("", given[:half], given[half:])
        yield (
            {"type": "tool_use", "id": f"toolu_bdrk_{use.id}", "name": use.name, "input": {}},
            [{"type": "input_json_delta", "partial_json": part} for part in parts],
        )


def _message_chunks(reply: Reply) -> Iterator[Body]:
    start = {
        **_message(reply),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        # At the start of a stream the count of what is yet to come is a placeholder.
        "usage": _usage(reply, 1),
    }
    yield {"type": "message_start", "message": start}
    for index, (first, deltas) in enumerate(_blocks(reply)):
        yield from _block(index, first, deltas)
    usage: Body = {"output_tokens": reply.answer.tokens}
    if reply.splits:
        usage = _final_usage(reply)
        del usage["cache_creation"]
    yield {
        "type": "message_delta",
        "delta": {
            "stop_reason": reply.finish,
            "stop_sequence": reply.answer.stop_sequence,
        },
        "usage": usage,
    }
    yield {"type": "message_stop"}


def _read_completion(body: Body) -> Prompt:
    text = str(body["prompt"])
    turns = text.split("\n\nHuman:")[-1].split("\n\nAssistant:")[0]
    return Prompt(
        segments=plain_segments(text),
        text=turns.strip(),
        max_tokens=body.get("max_tokens_to_sample"),
        stops=stops_of(body.get("stop_sequences")),
    )


def _completion(reply: Reply, text: str, last: bool) -> Body:
    return {
        "type": "completion",
        "completion": text,
        "stop_reason": reply.finish if last else None,
        "stop": reply.answer.stop_sequence if last else None,
    }


def _write_completion(reply: Reply) -> Body:
    return _completion(reply, reply.answer.text, last=True)


def _completion_chunks(reply: Reply) -> Iterator[Body]:
    for piece in split_text(reply.answer.text):
        yield _completion(reply, piece, last=False)
    yield _completion(reply, "", last=True)


MESSAGES = Shape(
    key="messages",
    read=_read_messages,
    write=_write_message,
    chunks=_message_chunks,
    finishes={
        "end": "end_turn",
        "length": "max_tokens",
        "stop": "stop_sequence",
        "tool": "tool_use",
    },
    required=("anthropic_version", "max_tokens"),
)
COMPLETION = Shape(
    key="prompt",
    read=_read_completion,
    write=_write_completion,
    chunks=_completion_chunks,
    finishes={
        "end": "stop_sequence",
        "length": "max_tokens",
        "stop": "stop_sequence",
        "tool": "stop_sequence",
    },
)
