"""Budget bound: at least as many tokens as the input of a request can be, without asking anybody.

Tokenizers of today's models work on bytes, so that a text has at most as many tokens as UTF-8
bytes; English text has about a quarter of that. Added are what models say around messages and
tools, and for media, whose tokens depend on their size in pixels, pages or seconds, their bytes,
at least MEDIA each. A Claude image has at most about 1,600 tokens (4,784 in its largest mode). Of
what lies in S3 the size is not known: it counts as MEDIA.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

MEDIA = 5_000
PER_MESSAGE = 16
TOOLS = 600

# Members of a Converse request that are input.
_CONVERSE = ("system", "messages", "toolConfig", "promptVariables")
_MARKS = (b'"image', b'"document', b'"video', b'"audio', b'"input_image', b'"input_file')


def input_bound(parameters: Mapping[str, Any]) -> int | None:
    """Return the bound of a request's input; None where it cannot be seen: a body in a file, or
    a request that contains itself, which nobody can send.
    """
    if "body" in parameters:
        return _of_body(parameters["body"])
    total = TOOLS if parameters.get("toolConfig") else 0
    messages = parameters.get("messages")
    if isinstance(messages, list):
        total += PER_MESSAGE * len(messages)
    for member in _CONVERSE:
        if member in parameters:
            bound = _of(parameters[member])
            if bound is None:
                return None
            total += bound
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


def _of(value: Any) -> int | None:
    """Return the bound of JSON-like data: all of its texts, the names of its members included.

    None where it contains itself.
    """
    total, deep = 0, 100
    # The containers on the way to here, and what is left of each.
    way: list[tuple[Any, Iterator[Any]]] = [(None, iter((value,)))]
    while way:
        for item in way[-1][1]:
            if isinstance(item, str):
                total += len(item) if item.isascii() else len(item.encode("utf-8", "surrogatepass"))
            elif isinstance(item, (bytes, bytearray, memoryview)):
                total += max(MEDIA, len(item))
            elif isinstance(item, Mapping):
                if "s3Location" in item:
                    total += MEDIA
                way.append((item, chain.from_iterable(item.items())))
                break
            elif isinstance(item, (list, tuple)):
                way.append((item, iter(item)))
                break
            elif item is not None:
                total += len(str(item))
        else:
            way.pop()
        if len(way) > deep:
            if len({id(container) for container, _ in way}) < len(way):
                return None
            deep *= 2
    return total
