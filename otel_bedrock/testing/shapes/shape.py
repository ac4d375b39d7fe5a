"""One spelling of InvokeModel bodies: how to read a request, write a response and its chunks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from otel_bedrock.testing.answer import Answer
from otel_bedrock.testing.cost import Cost
from otel_bedrock.testing.prompt import Prompt

Body = dict[str, Any]
# What stands for the signature of a piece of reasoning.
SIGNATURE = "RmFrZUJlZHJvY2s="
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Reply:
    """Everything a writer may put into a response."""

    model: str
    request_id: str
    prompt: Prompt
    answer: Answer
    cost: Cost
    finish: str
    request: Body
    # The family breaks cache writes down by ttl.
    splits: bool = False
    signs: bool = False
    # The input that is told contains what was cached.
    doubles: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """How one kind of body is read, written and streamed."""

    # The key without which a request is not of this shape.
    key: str
    read: Callable[[Body], Prompt]
    write: Callable[[Reply], Body]
    # None: this shape cannot be streamed.
    chunks: Callable[[Reply], Iterator[Body]] | None
    # end, length, stop and tool in this shape's own words.
    finishes: Mapping[str, str]
    # Keys that the model demands besides.
    required: tuple[str, ...] = ()
    # Embeddings put out no tokens, and say so by leaving the count away.
    generates: bool = True


def new_id(prefix: str, length: int = 22) -> str:
    """An opaque id such as `msg_bdrk_01…`; like the real ones, never the same twice."""
    return prefix + "".join(random.choices(_BASE62, k=length))  # noqa: S311 - no secret
