"""Amazon Nova: almost Converse, but usage is spelled `…TokenCount`."""

from __future__ import annotations

import json
from collections.abc import Iterator

from otel_bedrock.testing.prompt import (
    Prompt,
    Tool,
    chat_segments,
    has_tool_result,
    stops_of,
    text_of,
)
from otel_bedrock.testing.shapes.shape import Body, Reply, Shape
from otel_bedrock.testing.tokenizer import split_text


def tools_of(config: Body) -> tuple[Tool, ...]:
    """The tools of a toolConfig, which Converse and Nova share."""
    specs = (tool.get("toolSpec") for tool in config.get("tools", ()))
    return tuple(
        Tool(spec["name"], spec.get("inputSchema", {}).get("json", {}))
        for spec in specs
        if isinstance(spec, dict) and "name" in spec
    )


def forced_of(config: Body) -> str | None:
    """Name the tool that a toolConfig forces, or "*" for any."""
    choice = config.get("toolChoice", {})
    if "any" in choice:
        return "*"
    name = choice.get("tool", {}).get("name")
    return name if isinstance(name, str) else None


def _read_request(body: Body) -> Prompt:
    messages = body["messages"]
    last = messages[-1] if messages else {}
    config = body.get("toolConfig", {})
    inference = body.get("inferenceConfig", {})
    return Prompt(
        segments=chat_segments(config.get("tools"), body.get("system"), messages),
        text=text_of(last.get("content")),
        # Nova takes either spelling.
        max_tokens=inference.get("max_new_tokens", inference.get("maxTokens")),
        stops=stops_of(inference.get("stopSequences")),
        tools=tools_of(config),
        forced=forced_of(config),
        answered=has_tool_result(last),
    )


def _usage(reply: Reply, total: bool) -> Body:
    cost = reply.cost
    usage: Body = {"inputTokens": cost.uncached, "outputTokens": reply.answer.tokens}
    if total:
        usage["totalTokens"] = cost.total
    if cost.read is not None:
        usage["cacheReadInputTokenCount"] = cost.read
    if cost.write is not None:
        usage["cacheWriteInputTokenCount"] = cost.write
    return usage


def _write_response(reply: Reply) -> Body:
    answer = reply.answer
    content: list[Body] = [{"text": answer.text}] if answer.text else []
    content += (
        {"toolUse": {"name": use.name, "toolUseId": use.id, "input": use.input}}
        for use in answer.uses
    )
    return {
        "output": {"message": {"content": content, "role": "assistant"}},
        "stopReason": reply.finish,
        "usage": _usage(reply, total=True),
    }


def _chunks(reply: Reply) -> Iterator[Body]:
    answer = reply.answer
    yield {"messageStart": {"role": "assistant"}}
    index = 0
    # Nova closes the block after each piece of text and opens the next one.
    for piece in split_text(answer.text):
        yield {"contentBlockDelta": {"delta": {"text": piece}, "contentBlockIndex": index}}
        yield {"contentBlockStop": {"contentBlockIndex": index}}
        index += 1
    for use in answer.uses:
        start = {"toolUse": {"toolUseId": use.id, "name": use.name}}
        given = {"toolUse": {"input": json.dumps(use.input, separators=(",", ":"))}}
        yield {"contentBlockStart": {"start": start, "contentBlockIndex": index}}
        yield {"contentBlockDelta": {"delta": given, "contentBlockIndex": index}}
        yield {"contentBlockStop": {"contentBlockIndex": index}}
        index += 1
    yield {"messageStop": {"stopReason": reply.finish}}
    yield {"metadata": {"usage": _usage(reply, total=False), "metrics": {}, "trace": {}}}


MESSAGES = Shape(
    key="messages",
    read=_read_request,
    write=_write_response,
    chunks=_chunks,
    finishes={
        "end": "end_turn",
        "length": "max_tokens",
        "stop": "stop_sequence",
        "tool": "tool_use",
    },
)
