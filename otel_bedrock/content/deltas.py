"""Deltas: one event of a stream, in whatever dialect, read into Pieces; never changed.

Nothing here raises, whatever the event looks like.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from otel_bedrock.content.media import word
from otel_bedrock.content.messages import read_answer
from otel_bedrock.content.parts import items
from otel_bedrock.content.pieces import REASONING, TEXT, Pieces
from otel_bedrock.paths import dig, first


def read_event(event: Any, pieces: Pieces) -> None:
    """Read one parsed event: of ConverseStream, or a chunk in the provider's dialect."""
    chunk = dig(event, "chunk.bytes")
    if chunk is not None:
        event = _parse(chunk)
    if not isinstance(event, Mapping):
        return
    for key, read in _MEMBERS.items():
        value = event.get(key)
        if value is not None:
            read(value, pieces)
            return
    typed = _TYPED.get(word(event.get("type")) or "")
    if typed is not None:
        typed(event, pieces)
    else:
        _take(event, 0, pieces)


def read_agent_event(event: Any, pieces: Pieces) -> None:
    """Read one parsed event of an agent, whose chunks are plain text."""
    chunk = dig(event, "chunk.bytes")
    if isinstance(chunk, bytes):
        pieces.add(0, TEXT, chunk.decode("utf-8", "replace"))


# The `reads` of a row of operations.TABLE -> what reads its events, where not `read_event`.
READERS: Mapping[str, Callable[[Any, Pieces], None]] = {"agent": read_agent_event}


def _parse(data: Any) -> Any:
    try:
        return json.loads(data)
    except (TypeError, ValueError, RecursionError):
        return None


def _take(answer: Any, choice: int, pieces: Pieces) -> None:
    """Take the texts of a chunk that has the shape of a whole answer: Titan, Llama, Mistral."""
    for place, message in enumerate(read_answer(answer, _as_it_is).get("output", ())):
        for part in message["parts"]:
            if part["type"] in (TEXT, REASONING):
                pieces.add(choice + place, part["type"], part["content"])


def _as_it_is(value: Any) -> Any:
    # Redacted when the whole is there: chunks may cut a secret in two.
    return value


# Converse, and Nova's own chunks.


def _see_start(start: Any, pieces: Pieces) -> None:
    pieces.begin(dig(start, "role"))


def _see_block(event: Any, pieces: Pieces) -> None:
    _see_members(event, "start", _STARTS, pieces)


def _see_delta(event: Any, pieces: Pieces) -> None:
    _see_members(event, "delta", _DELTAS, pieces)


def _see_members(
    event: Any, member: str, table: Mapping[str, Callable[[Any, Any, Pieces], None]], pieces: Pieces
) -> None:
    found, index = dig(event, member), dig(event, "contentBlockIndex")
    for key, value in found.items() if isinstance(found, Mapping) else ():
        read = table.get(key)
        if read is None:
            pieces.add_other(key)
        else:
            read(value, index, pieces)


def _start_call(value: Any, index: Any, pieces: Pieces) -> None:
    pieces.call(0, index, dig(value, "toolUseId"), dig(value, "name"))


def _start_image(value: Any, _: Any, pieces: Pieces) -> None:
    kind = word(dig(value, "format"))
    pieces.add_bytes(f"image/{kind}" if kind else None)


def _add_text(value: Any, _: Any, pieces: Pieces) -> None:
    pieces.add(0, TEXT, value)


def _add_input(value: Any, index: Any, pieces: Pieces) -> None:
    pieces.add_input(0, index, dig(value, "input"))


def _add_reasoning(value: Any, _: Any, pieces: Pieces) -> None:
    if dig(value, "redactedContent") is not None:
        pieces.add_other("redacted_reasoning")
    else:
        pieces.add(0, REASONING, dig(value, "text"))


def _add_image(value: Any, _: Any, pieces: Pieces) -> None:
    pieces.add_bytes(None, dig(value, "source.bytes"))


def _skip(_: Any, __: Any, ___: Pieces) -> None:
    pass


_STARTS: Mapping[str, Callable[[Any, Any, Pieces], None]] = {
    "toolUse": _start_call,
    "image": _start_image,
}
_DELTAS: Mapping[str, Callable[[Any, Any, Pieces], None]] = {
    "text": _add_text,
    "toolUse": _add_input,
    "reasoningContent": _add_reasoning,
    "image": _add_image,
    # Where the text before it comes from.
    "citation": _skip,
}


# Anthropic and Cohere.


def _see_message(event: Any, pieces: Pieces) -> None:
    pieces.begin(dig(event, "message.role"))


def _see_content_block(event: Any, pieces: Pieces) -> None:
    block = dig(event, "content_block")
    kind = word(dig(block, "type")) or ""
    if kind in _CALLS:
        pieces.call(0, dig(event, "index"), dig(block, "id"), dig(block, "name"))
    elif kind in _TEXTS:
        pieces.add(0, _TEXTS[kind], dig(block, kind))
    else:
        pieces.add_other(kind)


def _see_content_delta(event: Any, pieces: Pieces) -> None:
    delta = dig(event, "delta")
    pieces.add_input(0, dig(event, "index"), dig(delta, "partial_json"))
    for member, kind in _TEXTS.items():
        pieces.add(0, kind, dig(delta, member))


def _see_cohere_delta(event: Any, pieces: Pieces) -> None:
    pieces.add(0, TEXT, dig(event, "delta.message.content.text"))


# Types of blocks that are calls, and those that are texts, which stand under their type's name.
_CALLS = frozenset(("tool_use", "server_tool_use"))
_TEXTS = {"text": TEXT, "thinking": REASONING}


# OpenAI.


def _see_choices(choices: Any, pieces: Pieces) -> None:
    for place, choice in enumerate(items(choices)):
        index = dig(choice, "index")
        at = index if isinstance(index, int) else place
        delta = dig(choice, "delta")
        if delta is None:
            _take({"choices": [choice]}, at, pieces)
            continue
        pieces.begin(dig(delta, "role"))
        pieces.add(at, REASONING, first(delta, ("reasoning_content", "reasoning")))
        pieces.add(at, TEXT, dig(delta, "content"))
        for order, call in enumerate(items(dig(delta, "tool_calls"))):
            told = dig(call, "index")
            which = order if told is None else told
            pieces.call(at, which, dig(call, "id"), dig(call, "function.name"))
            pieces.add_input(at, which, dig(call, "function.arguments"))


# The member that tells what an event is -> what reads its value.
_MEMBERS: Mapping[str, Callable[[Any, Pieces], None]] = {
    "contentBlockDelta": _see_delta,
    "contentBlockStart": _see_block,
    "messageStart": _see_start,
    "choices": _see_choices,
}

# The `type` of an event -> what reads the event.
_TYPED: Mapping[str, Callable[[Any, Pieces], None]] = {
    "content_block_delta": _see_content_delta,
    "content_block_start": _see_content_block,
    "message_start": _see_message,
    "content-delta": _see_cohere_delta,
}
