"""Excerpt: what of texts and JSON may leave: copied, redacted, and cut to a size."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from otel_bedrock.utf8 import sendable

Redact = Callable[[str], str]

# Ends a text that was cut.
CUT = "…[cut]"

# How much more than the limit of a text a redaction gets to see, and how much is taken off its
# answer again where that was not the whole: what stands across the cut would be half a secret.
MARGIN = 1024

_DEEPEST = 32
_SHORTEST = 16
# What OTLP carries: a larger number would cost the whole batch.
_LARGEST = 2**63 - 1

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Copier:
    """Makes copies that may leave, of texts and of whatever JSON can hold.

    Every text, keys included, goes through `redact`, whose exceptions pass; what comes of it
    can be encoded as JSON, UTF-8 and OTLP, and refers to none of the caller's objects.
    """

    __slots__ = ("_limit", "_redact")

    def __init__(self, limit: int, redact: Redact | None = None) -> None:
        self._limit = limit
        self._redact = redact

    def __call__(self, value: Any) -> Any:
        # More values than characters fit in no excerpt; and a structure may hold itself.
        return self._copy(value, _DEEPEST, [self._limit + 1])

    def text(self, text: str, whole: bool = True) -> str:
        """Copy a text; `whole` is False where it was cut already, to `limit` plus MARGIN."""
        most = self._limit + MARGIN
        if len(text) > most:
            text, whole = text[:most], False
        if self._redact is not None:
            redacted = self._redact(text)
            if not isinstance(redacted, str):
                raise TypeError("redact: expected a text in return")
            text = redacted
        if not whole:
            text = text[:-MARGIN] + CUT
        return sendable(text)

    def _copy(self, value: Any, depth: int, left: list[int]) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, int):
            return int(value) if abs(value) <= _LARGEST else "[large number]"
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else str(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return f"[{memoryview(value).nbytes} bytes]"
        if not isinstance(value, (Mapping, list, tuple)):
            return f"[{type(value).__name__}]"
        if depth == 0:
            return CUT
        count = min(len(value), max(0, left[0]))
        left[0] -= count
        if isinstance(value, Mapping):
            copied = {
                self._copy_key(key): self._copy(item, depth - 1, left)
                for key, item in islice(value.items(), count)
            }
            return copied if count == len(value) else {**copied, CUT: CUT}
        listed = [self._copy(item, depth - 1, left) for item in islice(value, count)]
        return listed if count == len(value) else [*listed, CUT]

    def _copy_key(self, key: Any) -> str:
        return self.text(key) if isinstance(key, str) else f"[{type(key).__name__}]"


class Excerpt(NamedTuple):
    """What fitted: as a structure, for events, and as JSON, for spans."""

    items: list[Any]
    json: str


def fit(items: list[Any], limit: int) -> Excerpt | None:
    """Return the excerpt of `items` whose JSON has at most `limit` characters, if there is one.

    The longest texts are cut first, so that short ones stay whole. Where the structure itself
    is too large, structures within parts become text, and then the oldest items are left out.
    """
    found = _cut_longest(items, limit)
    if found is None:
        items = [_flatten(item) for item in items]
        found = _cut_longest(items, limit)
    kept = items
    while found is None and len(kept) > 1:
        kept = kept[(len(kept) + 1) // 2 :]
        found = _cut_longest([_left_out(items[0], len(items) - len(kept)), *kept], limit)
    return found


def _cut_longest(items: list[Any], limit: int) -> Excerpt | None:
    text = _encode(items)
    if len(text) <= limit:
        return Excerpt(items, text)
    lengths = sorted(len(_encode(text)) - len('""') for text in _texts(items))
    room = limit - (len(text) - sum(lengths))
    most = _longest(lengths, room) - len(CUT)
    # A cut text may have more than its share of what JSON escapes; that shows in the result.
    while most >= _SHORTEST:
        shorter = [_shorten(item, most) for item in items]
        text = _encode(shorter)
        if len(text) <= limit:
            return Excerpt(shorter, text)
        most = most * limit // len(text)
    return None


def _longest(lengths: list[int], room: int) -> int:
    """Return how long the longest texts may be, so that all have room and the short stay.

    `lengths`, which are in order, have no room as they are.
    """
    for index, length in enumerate(lengths):
        share = room // (len(lengths) - index)
        if length > share:
            return share
        room -= length
    return 0


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _shorten(value: Any, most: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= most + len(CUT) else value[:most] + CUT
    if isinstance(value, dict):
        return {key: _shorten(item, most) for key, item in value.items()}
    if isinstance(value, list):
        return [_shorten(item, most) for item in value]
    return value


def _flatten(item: Any) -> Any:
    """Return a message or part with what a part has of structures as their JSON."""
    return {
        key: [_flatten(part) for part in value]
        if key == "parts"
        else _encode(value)
        if isinstance(value, (dict, list))
        else value
        for key, value in item.items()
    }


def _left_out(first: dict[str, Any], count: int) -> dict[str, Any]:
    part = {"type": "generic", "generic_type": "left_out", "count": count}
    return {"role": first["role"], "parts": [part]} if "parts" in first else part
