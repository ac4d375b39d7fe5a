"""What a request asks for, read once from any of the request shapes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from otel_bedrock.testing.tokenizer import count

# What the role markers around one message cost.
MESSAGE_TOKENS = 3

_TOOL_RESULTS = frozenset({"toolResult", "tool_result"})


@dataclass(frozen=True, slots=True)
class Segment:
    """One block of a prompt; with a ttl, a cache checkpoint stands behind it."""

    content: object
    tokens: int
    ttl: str | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool on offer."""

    name: str
    schema: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request, without the words of any one API."""

    segments: tuple[Segment, ...]
    text: str = ""
    max_tokens: int | None = None
    stops: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    # A tool's name, or "*" where the caller demands any tool.
    forced: str | None = None
    # The last message already carries a tool's result: answer in words.
    answered: bool = False
    thinks: bool = False
    inputs: tuple[str, ...] = ()
    dimensions: int | None = None

    @property
    def tokens(self) -> int:
        return sum(segment.tokens for segment in self.segments)

    @property
    def marked(self) -> bool:
        return any(segment.ttl is not None for segment in self.segments)


def text_of(content: object) -> str:
    """The words of a message's content: a string, or blocks with `text`."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (block.get("text") for block in content if isinstance(block, dict))
    return "\n".join(text for text in texts if isinstance(text, str))


def segments_of(role: str, content: object, extra: int = 0) -> list[Segment]:
    """The blocks of a content; a cachePoint block marks the one before it."""
    if isinstance(content, str):
        return [Segment((role, content), count(content) + extra)]
    found: list[Segment] = []
    for block in content if isinstance(content, list) else ():
        point = block.get("cachePoint") if isinstance(block, dict) else None
        if point is not None:
            if found:
                last = found[-1]
                found[-1] = Segment(last.content, last.tokens, point.get("ttl", "5m"))
            continue
        control = block.get("cache_control") if isinstance(block, dict) else None
        ttl = None if control is None else control.get("ttl", "5m")
        # The marker is no content: with it or without it, it is the same prefix.
        if ttl is not None:
            block = {key: value for key, value in block.items() if key != "cache_control"}
        found.append(Segment((role, block), count(block) + extra, ttl))
        extra = 0
    return found


def has_tool_result(message: dict[str, Any]) -> bool:
    """Say whether a message brings the result of a tool."""
    if message.get("role") == "tool":
        return True
    content = message.get("content")
    return isinstance(content, list) and any(
        isinstance(block, dict) and ("toolResult" in block or block.get("type") in _TOOL_RESULTS)
        for block in content
    )


def chat_segments(
    tools: object, system: object, messages: Iterable[dict[str, Any]]
) -> tuple[Segment, ...]:
    """Tools, then system, then messages: the order in which prefixes are cached."""
    found = segments_of("tools", tools) + segments_of("system", system)
    for message in messages:
        found += segments_of(str(message.get("role")), message.get("content"), MESSAGE_TOKENS)
        if message.get("tool_calls"):
            found += segments_of("tool_calls", message["tool_calls"])
    return tuple(found)


def plain_segments(*texts: object) -> tuple[Segment, ...]:
    """Make a segment of each text."""
    return tuple(Segment(("text", text), count(text)) for text in texts)


def stops_of(value: object) -> tuple[str, ...]:
    """Stop sequences: a list, one string, or nothing."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        return ()
    return tuple(item for item in value if isinstance(item, str) and item)
