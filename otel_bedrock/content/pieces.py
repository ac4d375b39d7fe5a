"""Pieces: what one stream says, gathered block by block up to a size.

Only texts are kept, which nobody can change; no event or part of one is. What comes past the
limit is let go of, so that a stream of any length costs the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from otel_bedrock.content.excerpt import MARGIN, Copier
from otel_bedrock.content.media import Part, describe, word
from otel_bedrock.content.parts import generic, tool_call

TEXT, REASONING, TOOL_CALL, BLOB = "text", "reasoning", "tool_call", "blob"

# What a block costs of the limit beside its texts: the JSON around them.
_BLOCK = 32


class _Block:
    """Pieces of one kind: a text, a thought, a tool call, or something that is only named."""

    __slots__ = ("bytes", "identity", "kind", "name", "texts", "whole")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.texts: list[str] = []
        self.whole = True
        self.identity: str | None = None
        self.name: str | None = None
        self.bytes = 0


class Pieces:
    """The blocks of one stream so far, by choice: OpenAI's bodies may answer more than once.

    Whatever is given that has not the type it should have counts as not given.
    """

    __slots__ = ("_blocks", "_calls", "_left", "_lost", "_role")

    def __init__(self, limit: int) -> None:
        self._blocks: dict[int, list[_Block]] = {}
        self._calls: dict[tuple[int, int], _Block] = {}
        self._left = limit + MARGIN
        self._lost = False
        self._role = "assistant"

    def begin(self, role: Any) -> None:
        """Note whose the message is."""
        self._role = word(role) or self._role

    def add(self, choice: int, kind: str, text: Any) -> None:
        """Add a text to the last block of `choice`, or to a new one where that is of another kind.

        Nova ends its block after each piece of a text, so ends of blocks say nothing.
        """
        if isinstance(text, str) and text:
            self._append(self._last(choice, kind), text)

    def add_other(self, kind: Any) -> None:
        """Note that there is something of a kind that is not known, and only named."""
        named = word(kind)
        self._last(0, "unknown" if named is None or named in _PARTS else named)

    def add_bytes(self, mime: Any, data: Any = None) -> None:
        """Count the bytes of an image, and let go of them."""
        block = self._last(0, BLOB)
        block.name = word(mime) or block.name
        if isinstance(data, (bytes, bytearray)):
            block.bytes += len(data)

    def call(self, choice: int, index: Any, identity: Any, name: Any) -> None:
        """Begin the tool call `index` of `choice`, or learn more of it."""
        block = self._call(choice, index)
        block.identity = word(identity) or block.identity
        block.name = word(name) or block.name

    def add_input(self, choice: int, index: Any, text: Any) -> None:
        """Add to the arguments of the tool call `index` of `choice`."""
        if isinstance(text, str) and text:
            self._append(self._call(choice, index), text)

    def messages(self, copy: Copier) -> list[dict[str, Any]]:
        """Return what was said so far, one message for each choice."""
        found: list[dict[str, Any]] = []
        for _, blocks in sorted(self._blocks.items()):
            parts = [
                part for block in blocks for part in _PARTS.get(block.kind, _name)(block, copy)
            ]
            if parts:
                found.append({"role": self._role, "parts": parts})
        if self._lost and found:
            found[-1]["parts"].append(generic("left_out"))
        return found

    def _last(self, choice: int, kind: str) -> _Block:
        blocks = self._blocks.get(choice)
        return blocks[-1] if blocks and blocks[-1].kind == kind else self._open(choice, kind)

    def _call(self, choice: int, index: Any) -> _Block:
        key = (choice, index if isinstance(index, int) else 0)
        block = self._calls.get(key)
        if block is None:
            block = self._open(choice, TOOL_CALL)
            if not self._lost:
                self._calls[key] = block
        return block

    def _open(self, choice: int, kind: str) -> _Block:
        block = _Block(kind)
        if self._left > 0:
            self._left -= _BLOCK
            self._blocks.setdefault(choice, []).append(block)
        else:
            # Made for its owner to write to, and not kept.
            self._lost = True
        return block

    def _append(self, block: _Block, text: str) -> None:
        kept = text[: max(0, self._left)]
        if len(kept) < len(text):
            block.whole = False
        if kept:
            self._left -= len(kept)
            block.texts.append(kept)


def _join(block: _Block, copy: Copier) -> list[Part]:
    if not block.texts:
        return []
    return [{"type": block.kind, "content": copy.text("".join(block.texts), block.whole)}]


def _join_call(block: _Block, copy: Copier) -> list[Part]:
    text = "".join(block.texts)
    if block.whole:
        # No deltas at all: a tool without arguments.
        return [tool_call(block.identity, block.name, text or "{}", copy)]
    # Half an object is no object, even where it could be parsed as one.
    call = tool_call(block.identity, block.name, None, copy)
    return [{**call, "arguments": copy.text(text, whole=False)}]


def _count(block: _Block, copy: Copier) -> list[Part]:
    return [{**describe("image", copy, mime=block.name), "byte_size": block.bytes}]


def _name(block: _Block, _: Copier) -> list[Part]:
    return [generic(block.kind)]


_PARTS: Mapping[str, Callable[[_Block, Copier], list[Part]]] = {
    TEXT: _join,
    REASONING: _join,
    TOOL_CALL: _join_call,
    BLOB: _count,
}
