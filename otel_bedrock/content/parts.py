"""Parts: one block of a message, in whatever dialect, as parts in the conventions' shapes.

Media never come along: of an image, a document or a recording only the modality, the type and
the number of bytes are said. What is unknown becomes a `generic` part with its type alone.
Nothing here raises, whatever the data looks like; every text goes through `clean`, which is
also what makes the copy, so that no part refers to the caller's objects.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from otel_bedrock.content.media import Clean, Part, describe, mime_type, word
from otel_bedrock.paths import dig, first

Reader = Callable[[Any, Clean, int], Iterable[Part]]

# Blocks in blocks: a tool's result has a document, which has texts. Deeper is not Bedrock's.
_DEEPEST = 4


def items(value: Any) -> list[Any] | tuple[Any, ...]:
    """Return `value` where it is a list, as botocore takes them; else an empty one."""
    return value if isinstance(value, (list, tuple)) else ()


def generic(kind: Any) -> Part:
    """Return the part for what is not known: its type, and nothing of it."""
    return {"type": "generic", "generic_type": word(kind) or "unknown"}


def read_parts(content: Any, clean: Clean, depth: int = 0) -> list[Part]:
    """Read the content of a message: a text, a block, or a list of either."""
    if isinstance(content, (str, Mapping)):
        content = [content]
    return [part for block in items(content) for part in read_block(block, clean, depth)]


def read_block(block: Any, clean: Clean, depth: int = 0) -> Iterable[Part]:
    """Read one block: `{"type": "text", …}` (Anthropic, OpenAI) or `{"text": …}` (Converse)."""
    if depth > _DEEPEST:
        return [generic("nested")]
    if isinstance(block, str):
        return _read_text(block, clean, depth)
    if not isinstance(block, Mapping):
        return [generic(type(block).__name__)] if block is not None else []
    kind = block.get("type")
    if isinstance(kind, str):
        read = _TYPED.get(kind)
        return [generic(kind)] if read is None else read(block, clean, depth)
    for key, value in block.items():
        read = _MEMBERS.get(key)
        if read is not None:
            return read(value, clean, depth)
    return [generic(next(iter(block), None))]


def tool_call(identity: Any, name: Any, arguments: Any, clean: Clean) -> Part:
    """Make the part of a tool call; arguments in text are parsed, malformed ones stay text."""
    part: Part = {"type": "tool_call"}
    if word(identity):
        part["id"] = identity
    part["name"] = word(name) or "unknown"
    if arguments is not None:
        part["arguments"] = clean(parse_arguments(arguments))
    return part


def parse_arguments(arguments: Any) -> Any:
    """Return the object that the text of a tool call's arguments means, else the text."""
    if not isinstance(arguments, str):
        return arguments
    try:
        parsed = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return parsed if isinstance(parsed, (dict, list)) else arguments


def tool_response(identity: Any, content: Any, clean: Clean, depth: int = 0) -> Part:
    """Make the part of a tool's result: its text, its JSON, or the list of its parts."""
    part: Part = {"type": "tool_call_response"}
    if word(identity):
        part["id"] = identity
    parts = read_parts(content, clean, depth + 1)
    alone = len(parts) == 1 and "content" in parts[0]
    part["response"] = parts[0]["content"] if alone else parts
    return part


def _read_text(value: Any, clean: Clean, _: int) -> list[Part]:
    # ApplyGuardrail, and guardContent: {"text": {"text": …, "qualifiers": […]}}.
    text = dig(value, "text") if isinstance(value, Mapping) else value
    if not isinstance(text, str):
        return [generic("text")]
    return [{"type": "text", "content": clean(text)}] if text else []


def _read_reasoning(value: Any, clean: Clean, _: int) -> list[Part]:
    text = first(value, ("reasoningText.text", "thinking", "text"))
    if not isinstance(text, str):
        return [generic("redacted_reasoning")]
    return [{"type": "reasoning", "content": clean(text)}] if text else []


def _read_summary(value: Any, clean: Clean, depth: int) -> list[Part]:
    texts = [*items(dig(value, "summary")), *items(dig(value, "content"))]
    parts = (_read_reasoning(text, clean, depth) for text in texts)
    return [part for found in parts for part in found]


def _read_tool_use(value: Any, clean: Clean, _: int) -> list[Part]:
    identity = first(value, ("toolUseId", "call_id", "id"))
    name = first(value, ("name", "function.name"))
    return [tool_call(identity, name, _input(value), clean)]


def _read_server_tool_use(value: Any, clean: Clean, _: int) -> list[Part]:
    call = tool_call(dig(value, "id"), dig(value, "name"), _input(value), clean)
    arguments = call.pop("arguments", {})
    asked = {"type": call["name"], "arguments": arguments}
    return [{**call, "type": "server_tool_call", "server_tool_call": asked}]


def _input(value: Any) -> Any:
    return first(value, ("input", "arguments", "parameters", "function.arguments"))


def _read_tool_result(value: Any, clean: Clean, depth: int) -> list[Part]:
    identity = first(value, ("toolUseId", "tool_use_id", "call_id"))
    content = first(value, ("content", "output"))
    return [tool_response(identity, content, clean, depth)]


def _read_json(value: Any, clean: Clean, _: int) -> list[Part]:
    return [{**generic("json"), "content": clean(value)}]


def _read_nested(value: Any, clean: Clean, depth: int) -> list[Part]:
    return read_parts(dig(value, "content"), clean, depth + 1)


def _read_guarded(value: Any, clean: Clean, depth: int) -> Iterable[Part]:
    return read_block(value, clean, depth + 1)


def _read_nothing(_: Any, __: Clean, ___: int) -> list[Part]:
    return []


def _media(modality: str) -> Reader:
    """Return the reader of `{"format", "source"}` blocks, as Converse and Anthropic have them."""

    def read(value: Any, clean: Clean, depth: int) -> list[Part]:
        source = dig(value, "source")
        # A document may be given as text, and then it is text like any other.
        plain = dig(source, "data") if dig(source, "type") == "text" else dig(source, "text")
        if isinstance(plain, str):
            return _read_text(plain, clean, depth)
        if dig(source, "content") is not None:
            return _read_nested(source, clean, depth)
        identity = dig(source, "file_id")
        if word(identity):
            return [{"type": "file", "modality": modality, "file_id": identity}]
        mime = dig(source, "media_type") or mime_type(modality, dig(value, "format"))
        data, uri = first(source, ("bytes", "data")), first(source, ("s3Location.uri", "url"))
        return [describe(modality, clean, data=data, uri=uri, mime=mime)]

    return read


def _linked(modality: str, *paths: str) -> Reader:
    """Return the reader of OpenAI's blocks, which have a URL, often one that holds the data."""

    def read(value: Any, clean: Clean, _: int) -> list[Part]:
        identity = first(value, ("file.file_id", "file_id"))
        if word(identity):
            return [{"type": "file", "modality": modality, "file_id": identity}]
        mime = mime_type(modality, dig(value, f"input_{modality}.format"))
        return [describe(modality, clean, uri=first(value, paths), mime=mime)]

    return read


# The one member of a block of Converse, ConverseStream, Nova or ApplyGuardrail -> its reader.
_MEMBERS: Mapping[str, Reader] = {
    "text": _read_text,
    "image": _media("image"),
    "video": _media("video"),
    "audio": _media("audio"),
    "document": _media("document"),
    "toolUse": _read_tool_use,
    "toolResult": _read_tool_result,
    "json": _read_json,
    "guardContent": _read_guarded,
    "reasoningContent": _read_reasoning,
    "citationsContent": _read_nested,
    "searchResult": _read_nested,
    "cachePoint": _read_nothing,
}

# The type of a block of Anthropic's or OpenAI's -> its reader.
_TYPED: Mapping[str, Reader] = {
    "text": _read_text,
    "input_text": _read_text,
    "output_text": _read_text,
    "thinking": _read_reasoning,
    "reasoning": _read_summary,
    "tool_use": _read_tool_use,
    "function_call": _read_tool_use,
    "server_tool_use": _read_server_tool_use,
    "tool_result": _read_tool_result,
    "function_call_output": _read_tool_result,
    "search_result": _read_nested,
    "image": _media("image"),
    "document": _media("document"),
    "image_url": _linked("image", "image_url.url", "image_url"),
    "input_image": _linked("image", "image_url"),
    "video_url": _linked("video", "video_url.url"),
    "audio_url": _linked("audio", "audio_url.url"),
    "input_audio": _linked("audio", "input_audio.data"),
    "file": _linked("document", "file.file_data"),
}
