"""A made-up but deterministic count of tokens, the one measure of FakeBedrock.

A token is a run of up to eight word characters or one punctuation mark. No real model counts
like this. What matters is that billing and CountTokens share the measure, so that they agree,
and that the same request always costs the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

_TOKEN = re.compile(r"\w{1,8}|[^\w\s]")
_PIECE = re.compile(r"\s*(?:\w{1,8}|[^\w\s])")

# An image, a document or a video costs this much, whatever its size.
MEDIA_TOKENS = 258
# Keys whose presence makes a block a media block, in Converse, Claude, Nova and OpenAI bodies.
_MEDIA = frozenset({"source", "image_url", "input_audio", "file"})
# Keys that carry structure, not content.
_SILENT = frozenset(
    {
        "type",
        "role",
        "id",
        "tool_use_id",
        "tool_call_id",
        "toolUseId",
        "status",
        "format",
        "qualifiers",
        "signature",
        "cache_control",
        "cachePoint",
        "cacheConfig",
        "citations",
        "index",
    }
)


def count_text(text: str) -> int:
    """Count the tokens of a text."""
    return len(_TOKEN.findall(text))


def split_text(text: str) -> list[str]:
    """The tokens of a text with the white space before each: joined, they are the text."""
    pieces = _PIECE.findall(text)
    rest = text[sum(map(len, pieces)) :]
    if rest and pieces:
        pieces[-1] += rest
    return pieces


def count_json(value: object) -> int:
    """Count the tokens of a value written as JSON."""
    return count_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _count_dict(value: dict[str, Any]) -> int:
    if not _MEDIA.isdisjoint(value):
        return MEDIA_TOKENS
    return sum(count(item) for key, item in value.items() if key not in _SILENT)


_COUNTS: dict[type, Callable[[Any], int]] = {
    str: count_text,
    dict: _count_dict,
    list: lambda value: sum(map(count, value)),
    type(None): lambda _: 0,
}


def count(value: object) -> int:
    """Tokens of any part of a request: text counts the same however a body wraps it."""
    measure = _COUNTS.get(type(value))
    # A number, true or false is one token.
    return 1 if measure is None else measure(value)
