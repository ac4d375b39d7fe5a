"""Trimming: which messages have to go for a conversation to fit, found with few counts. Pure.

The oldest go first. What is left begins with a user's message that answers no tool, so that roles
go on alternating and every tool result has its tool use before it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Message = Mapping[str, Any]

# A block that brings a tool's result: in Converse's form, and in Anthropic's.
_RESULT, _RESULT_TYPE = "toolResult", "tool_result"


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What trimming found: the first `dropped` messages go, the others have `input_tokens`.

    `fits` is False where even what cannot be dropped is too much: then `dropped` is the most that
    can go. `before` is the count of the whole conversation, `counts` how often was counted.
    """

    dropped: int
    input_tokens: int
    fits: bool
    before: int
    counts: int


def trim(
    messages: Sequence[Message],
    limit: int,
    count: Callable[[Sequence[Message]], int],
    whole: int | None = None,
) -> Trimmed:
    """Find the fewest of the oldest messages that have to go for at most `limit` tokens.

    `count` is asked for a part of `messages`, its end, and tells the tokens of a request with it.
    A conversation that fits costs one count, most others four: guesses are by length, and where
    they do not narrow it down, halving does. `whole` is the count of all, where it is known.
    """
    starts = [0, *(index for index in _starts(messages) if index > 0)]
    lengths = [_length(message) for message in messages]
    known: dict[int, int] = {} if whole is None else {0: whole}

    def tokens(place: int) -> int:
        if place not in known:
            known[place] = count(messages[starts[place] :])
        return known[place]

    def found(place: int, fits: bool) -> Trimmed:
        return Trimmed(starts[place], tokens(place), fits, known[0], len(known))

    if tokens(0) <= limit:
        return found(0, True)
    # The places before and at `low` are too much; the one at `high` fits, or nobody knows yet.
    low, high = 0, len(starts)
    halve = False
    while high - low > 1:
        width = high - low
        place = (low + high) // 2 if halve else _guess(starts, lengths, known, limit, low, high)
        if tokens(place) <= limit:
            high = place
        else:
            low = place
        halve = (high - low) * 2 > width
    return found(high, True) if high < len(starts) else found(low, False)


def _starts(messages: Sequence[Message]) -> list[int]:
    """Return where a conversation may begin."""
    return [
        index
        for index, message in enumerate(messages)
        if message.get("role") == "user" and not _brings_result(message)
    ]


def _brings_result(message: Message) -> bool:
    content = message.get("content")
    if not isinstance(content, Sequence) or isinstance(content, str):
        return False
    return any(
        isinstance(block, Mapping) and (_RESULT in block or block.get("type") == _RESULT_TYPE)
        for block in content
    )


def _length(value: Any) -> int:
    """How long a message is on the wire, about: what a guess stands on, and nothing else."""
    return len(json.dumps(value, default=_blob))


def _blob(value: Any) -> str:
    return "x" * len(value) if isinstance(value, (bytes, bytearray)) else str(value)


def _guess(
    starts: Sequence[int],
    lengths: Sequence[int],
    known: Mapping[int, int],
    limit: int,
    low: int,
    high: int,
) -> int:
    """Guess the first place that fits, from the tokens of the places that were counted.

    Between two counts tokens go as lengths do. Where only one end is counted, what is there
    besides messages (system prompt, tools) is taken for nothing, which guesses too late rather
    than too early.
    """
    left = [sum(lengths[start:]) for start in starts] + [0]
    most, least = known[low], known.get(high, 0)
    span = left[low] - left[high]
    wanted = left[high] + span * (limit - least) / (most - least) if most > least else 0
    for place in range(low + 1, high):
        if left[place] <= wanted:
            return place
    return high - 1
