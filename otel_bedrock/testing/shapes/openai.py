"""OpenAI-shaped bodies: gpt-oss, AI21 Jamba, and whatever new provider arrives.

Their `prompt_tokens` include what came from the cache; all other shapes exclude it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from time import time

from otel_bedrock.testing.prompt import (
    Prompt,
    Tool,
    chat_segments,
    has_tool_result,
    plain_segments,
    stops_of,
    text_of,
)
from otel_bedrock.testing.shapes.shape import Body, Reply, Shape
from otel_bedrock.testing.tokenizer import split_text


def _forced(choice: object) -> str | None:
    if choice == "required":
        return "*"
    name = choice.get("function", {}).get("name") if isinstance(choice, dict) else None
    return name if isinstance(name, str) else None


def _read_chat(body: Body) -> Prompt:
    messages = body["messages"]
    last = messages[-1] if messages else {}
    functions = [tool.get("function", {}) for tool in body.get("tools", ())]
    limits = (body.get("max_completion_tokens"), body.get("max_tokens"))
    return Prompt(
        segments=chat_segments(body.get("tools"), None, messages),
        text=text_of(last.get("content")),
        max_tokens=next((limit for limit in limits if limit is not None), None),
        stops=stops_of(body.get("stop")),
        tools=tuple(
            Tool(item["name"], item.get("parameters", {})) for item in functions if "name" in item
        ),
        forced=_forced(body.get("tool_choice")),
        answered=has_tool_result(last),
        thinks="reasoning_effort" in body,
    )


def _usage_of(reply: Reply) -> Body:
    cost = reply.cost
    usage: Body = {
        "prompt_tokens": cost.input,
        "completion_tokens": reply.answer.tokens,
        "total_tokens": cost.total,
    }
    details = {"cached_tokens": cost.read, "cache_write_tokens": cost.write}
    known = {key: count for key, count in details.items() if count is not None}
    if known:
        usage["prompt_tokens_details"] = known
    if reply.prompt.thinks:
        usage["completion_tokens_details"] = {"reasoning_tokens": cost.reasoning}
    return usage


def _head(reply: Reply, kind: str) -> Body:
    return {
        "id": f"chatcmpl-{reply.request_id}",
        "object": kind,
        "created": int(time()),
        "model": reply.model,
    }


def _calls(reply: Reply, indexed: bool) -> list[Body]:
    return [
        {
            **({"index": index} if indexed else {}),
            "id": f"call_{use.id}",
            "type": "function",
            "function": {"name": use.name, "arguments": json.dumps(use.input)},
        }
        for index, use in enumerate(reply.answer.uses)
    ]


def _content(reply: Reply) -> str:
    # Through InvokeModel, gpt-oss writes its reasoning into the content.
    reasoning = reply.answer.reasoning
    return (f"<reasoning>{reasoning}</reasoning>" if reasoning else "") + reply.answer.text


def _write_chat(reply: Reply) -> Body:
    message: Body = {"role": "assistant", "content": _content(reply)}
    if reply.answer.uses:
        message["tool_calls"] = _calls(reply, indexed=False)
    return {
        **_head(reply, "chat.completion"),
        "choices": [
            {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish}
        ],
        "usage": _usage_of(reply),
    }


def _chat_chunks(reply: Reply) -> Iterator[Body]:
    def chunk(delta: Body, finish: str | None = None) -> Body:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**_head(reply, "chat.completion.chunk"), "choices": [choice]}

    yield chunk({"role": "assistant", "content": ""})
    for piece in split_text(_content(reply)):
        yield chunk({"content": piece})
    if reply.answer.uses:
        yield chunk({"tool_calls": _calls(reply, indexed=True)})
    yield chunk({}, reply.finish)
    yield {
        **_head(reply, "chat.completion.chunk"),
        "choices": [],
        "usage": _usage_of(reply),
    }


def _write_jamba(reply: Reply) -> Body:
    calls = _calls(reply, indexed=False)
    message = {
        "role": "assistant",
        "content": reply.answer.text,
        "tool_calls": calls or None,
    }
    usage = _usage_of(reply)
    return {
        "id": f"chatcmpl-{reply.request_id}",
        "choices": [{"index": 0, "message": message, "finish_reason": reply.finish}],
        "usage": usage,
        "meta": {"requestDurationMillis": 1},
        "model": reply.model.removeprefix("ai21.").removesuffix("-v1:0"),
    }


def _read_text(body: Body) -> Prompt:
    return Prompt(
        segments=plain_segments(body["prompt"]),
        text=str(body["prompt"]),
        max_tokens=body.get("max_tokens"),
        stops=stops_of(body.get("stop")),
    )


def _write_text(reply: Reply) -> Body:
    return {
        "object": "text_completion",
        "id": "",
        "created": int(time()),
        "model": reply.model,
        "system_fingerprint": "fake",
        "choices": [
            {
                "index": 0,
                "text": reply.answer.text,
                "logprobs": None,
                "finish_reason": reply.finish,
            }
        ],
        "usage": _usage_of(reply),
    }


def _text_chunks(reply: Reply) -> Iterator[Body]:
    pieces = split_text(reply.answer.text)
    for piece in (*pieces, ""):
        last = piece == ""
        body = _write_text(reply)
        body["choices"][0] |= {"text": piece, "finish_reason": reply.finish if last else None}
        if not last:
            del body["usage"]
        yield body


_FINISHES = {"end": "stop", "length": "length", "stop": "stop", "tool": "tool_calls"}
CHAT = Shape("messages", _read_chat, _write_chat, _chat_chunks, _FINISHES)
JAMBA = Shape("messages", _read_chat, _write_jamba, _chat_chunks, _FINISHES)
TEXT = Shape("prompt", _read_text, _write_text, _text_chunks, _FINISHES)
