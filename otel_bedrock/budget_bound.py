"""Budget bound: at least as many tokens as the input of a request can be, without asking anybody.

Tokenizers of today's models work on bytes, so that a text has at most as many tokens as UTF-8
bytes; English text has about a quarter of that. Added are what models say around messages and
tools, and for media, whose tokens depend on their size in pixels, pages or seconds, their bytes,
at least MEDIA each. A Claude image has at most about 1,600 tokens (4,784 in its largest mode). Of
what lies in S3 the size is not known: it counts as MEDIA.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MEDIA = 5_000
PER_MESSAGE = 16
TOOLS = 600

# Members of a Converse request that are input.
_CONVERSE = ("system", "messages", "toolConfig", "promptVariables")
_MARKS = (b'"image', b'"document', b'"video', b'"audio', b'"input_image', b'"input_file')


def input_bound(parameters: Mapping[str, Any]) -> int | None:
    """Return the bound of a request's input; None where it cannot be seen: a body in a file."""
    if "body" in parameters:
        return _of_body(parameters["body"])
    total = TOOLS if parameters.get("toolConfig") else 0
    messages = parameters.get("messages")
    if isinstance(messages, list):
        total += PER_MESSAGE * len(messages)
    for member in _CONVERSE:
        if member in parameters:
            total += _of(parameters[member])
    return total


def _of_body(body: Any) -> int | None:
    if isinstance(body, memoryview):
        body = body.tobytes()
    if isinstance(body, str):
        body = body.encode("utf-8", "surrogatepass")
    if not isinstance(body, (bytes, bytearray)):
        return None
    # The names of its members and their quotes are more than what is said around messages.
    total = len(body) + (TOOLS if b'"tools"' in body else 0)
    return total + MEDIA * sum(body.count(mark) for mark in _MARKS)


def _of(value: Any) -> int:
    """Return the bound of JSON-like data: all of its texts, the names of its members included."""
    total, left = 0, [value]
    while left:
        item = left.pop()
        if isinstance(item, str):
            total += len(item) if item.isascii() else len(item.encode("utf-8", "surrogatepass"))
        elif isinstance(item, (bytes, bytearray, memoryview)):
            total += max(MEDIA, len(item))
        elif isinstance(item, Mapping):
            if "s3Location" in item:
                total += MEDIA
            for key, below in item.items():
                left.append(key)
                left.append(below)
        elif isinstance(item, (list, tuple)):
            left.extend(item)
        elif item is not None:
            total += len(str(item))
    return total
