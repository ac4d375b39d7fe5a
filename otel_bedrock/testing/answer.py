"""What the fake model says to a prompt: made up, but always the same for the same prompt.

Three things can be asked for in the words of the last user message:
- `Say: some text` is answered with exactly that text;
- `… in 120 words` (or tokens) makes the answer that many tokens long;
- where the request offers tools, naming one (or saying "tool") makes the model use it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from otel_bedrock.testing.prompt import Prompt, Tool
from otel_bedrock.testing.tokenizer import count_json, count_text, split_text

_SAY = re.compile(r"\s*say:\s*(.*)", re.IGNORECASE | re.DOTALL)
_LENGTH = re.compile(r"\b(\d{1,6})[ -](?:words?|tokens?)\b", re.IGNORECASE)
_TEXT = (
    "The answer is short and it comes from a fake model which counts every word it says . "
    "Nothing here was ever learned , yet each token is billed as if it were true ."
)
_WORDS = _TEXT.split(" ")
_DEFAULT_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A call of a tool that the model wants made."""

    id: str
    name: str
    input: dict[str, Any]

    @property
    def tokens(self) -> int:
        return count_text(self.name) + count_json(self.input)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says: words, tool calls, and why it stopped."""

    text: str
    tokens: int
    # end, length, stop or tool: families spell them each in their own way.
    finish: str
    uses: tuple[ToolUse, ...] = ()
    reasoning: str = ""
    reasoning_tokens: int = 0
    stop_sequence: str | None = None


_SAMPLES: dict[object, Callable[[dict[str, Any]], object]] = {
    "string": lambda schema: schema.get("enum", ["fake"])[0],
    "integer": lambda _: 1,
    "number": lambda _: 1.5,
    "boolean": lambda _: True,
    "array": lambda schema: [sample(schema.get("items", {"type": "string"}))],
    "null": lambda _: None,
}


def sample(schema: dict[str, Any]) -> object:
    """A value that fits a JSON schema."""
    make = _SAMPLES.get(schema.get("type"))
    if make is not None:
        return make(schema)
    properties = schema.get("properties", {})
    return {name: sample(member) for name, member in properties.items()}


def _uses(prompt: Prompt) -> tuple[ToolUse, ...]:
    if not prompt.tools or prompt.answered:
        return ()
    words = prompt.text.casefold()

    def asked(tool: Tool) -> bool:
        name = tool.name.casefold()
        return name in words or name.replace("_", " ") in words

    if prompt.forced is None:
        chosen = [tool for tool in prompt.tools if asked(tool)]
    else:
        chosen = [tool for tool in prompt.tools if prompt.forced in (tool.name, "*")][:1]
    if not chosen and re.search(r"\btools?\b", words):
        chosen = [prompt.tools[0]]
    uses = []
    for index, tool in enumerate(chosen):
        seed = crc32(f"{index}{tool.name}{prompt.text}".encode())
        given = sample({**tool.schema, "type": "object"})
        uses.append(ToolUse(f"{seed:08x}Fake{index:010d}", tool.name, dict(given)))  # type: ignore[call-overload]
    return tuple(uses)


def _words(prompt: Prompt) -> str:
    said = _SAY.match(prompt.text)
    if said:
        return said[1].strip()
    seed = crc32(prompt.text.encode())
    wanted = _LENGTH.search(prompt.text)
    length = int(wanted[1]) if wanted else 8 + seed % 24
    start = seed % len(_WORDS)
    return " ".join(_WORDS[(start + step) % len(_WORDS)] for step in range(length))


def compose(prompt: Prompt) -> Answer:
    """Answer a prompt."""
    uses = _uses(prompt)
    text = f"I will use {', '.join(use.name for use in uses)}." if uses else _words(prompt)
    limit = _DEFAULT_LIMIT if prompt.max_tokens is None else prompt.max_tokens
    finish = "tool" if uses else "end"
    reasoning, thought = "", 0
    if prompt.thinks:
        reasoning = f"The user said: {prompt.text[:200]}"
        thought = count_text(reasoning)
    cut = [(at, stop) for stop in prompt.stops if (at := text.find(stop)) >= 0]
    stop_sequence = None
    if cut:
        at, stop_sequence = min(cut)
        text, uses, finish = text[:at], (), "stop"
    pieces = split_text(text)
    spent = thought + sum(use.tokens for use in uses)
    if len(pieces) + spent > limit:
        # A call of a tool that does not fit is not made.
        room = max(limit - thought, 0)
        text, uses, finish, stop_sequence = "".join(pieces[:room]), (), "length", None
        pieces, spent = pieces[:room], thought
    return Answer(text, len(pieces) + spent, finish, uses, reasoning, thought, stop_sequence)
