"""Context windows: how many tokens a model takes, and how many it generates at most, as a table.

Bedrock reserves the most that a model generates where a request sets no `max_tokens`. Models that
are not in the table are unknown: nothing is assumed of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from otel_bedrock.model_id import ModelId, parse

SOURCE = "model cards of the Amazon Bedrock user guide and of Anthropic; genai-prices 0.2.3"
DATE = "2026-11-26"

# What may follow the version in an id: a date, and `-v1:0` with or without `:0`.
_END = r"(-\d{8})?(-v\d+(:\d+)?)?$"


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One row: base ids that match `pattern`; None is what nobody has looked up."""

    pattern: str
    context: int
    output: int | None = None


# First match wins. Windows as they are without a beta header.
WINDOWS = (
    Window(
        rf"anthropic\.claude-(fable|mythos|opus|sonnet|haiku)-5(-\d)?{_END}", 1_000_000, 128_000
    ),
    Window(rf"anthropic\.claude-(opus-4-[678]|sonnet-4-6){_END}", 1_000_000, 128_000),
    Window(rf"anthropic\.claude-(opus|sonnet|haiku)-4-5{_END}", 200_000, 64_000),
    Window(rf"anthropic\.claude-opus-4(-1)?{_END}", 200_000, 32_000),
    Window(rf"anthropic\.claude-sonnet-4{_END}", 200_000, 64_000),
    Window(rf"anthropic\.claude-3-7-sonnet{_END}", 200_000, 64_000),
    Window(rf"anthropic\.claude-3-5-(sonnet|haiku){_END}", 200_000, 8_192),
    Window(rf"anthropic\.claude-3-(opus|sonnet|haiku){_END}", 200_000, 4_096),
    Window(r"anthropic\.claude-v2:1$", 200_000, 4_096),
    Window(r"anthropic\.claude-(v2|v2:0|instant-v1)$", 100_000, 4_096),
    Window(r"amazon\.nova-2-lite-v1:0$", 1_000_000, 65_535),
    Window(r"amazon\.nova-premier-v1:0$", 1_000_000),
    Window(r"amazon\.nova-(lite|pro)-v1:0$", 300_000, 5_000),
    Window(r"amazon\.nova-micro-v1:0$", 128_000, 5_000),
    Window(r"amazon\.titan-embed-text-v[12](:0)?$", 8_192),
    Window(r"deepseek\.r1-v1:0$", 128_000),
    Window(r"google\.gemma-3-\d+b-it$", 128_000),
    Window(r"meta\.llama3-[123]-\d+b-instruct-v1:0$", 128_000),
    Window(r"meta\.llama3-\d+b-instruct-v1:0$", 8_192),
    Window(r"meta\.llama4-maverick-17b-instruct-v1:0$", 1_000_000),
    Window(r"mistral\.(mistral-(7b|large-2402|small-2402)|mixtral)", 32_000),
    Window(r"mistral\.(ministral-3|magistral-small-2509|pixtral-large-2502)", 128_000),
    Window(r"mistral\.(mistral-large-3|devstral-2)", 256_000),
    Window(r"moonshotai\.kimi-k3(\.1)?$", 1_000_000),
    Window(r"openai\.gpt-oss-(20|120)b-1:0$", 128_000),
    Window(r"openai\.gpt-(6|6\.1|5\.6)-(sol|luna)$", 1_000_000),
    Window(r"openai\.gpt-5\.6-terra$", 1_000_000),
    Window(r"openai\.gpt-(6-astra|6\.1-terra)$", 1_050_000),
    Window(r"writer\.palmyra-x[45]-v1:0$", 128_000),
    Window(r"zai\.glm-5\.3$", 1_000_000),
)


@lru_cache(maxsize=1024)
def window_of(model: ModelId | str) -> Window | None:
    """Return the row of `model`, which may be a model id in any form; None where unknown."""
    base = (parse(model) if isinstance(model, str) else model).base_id
    if base is None:
        return None
    return next((row for row in WINDOWS if re.match(row.pattern, base)), None)


def context_window(model: ModelId | str) -> int | None:
    """Return how many tokens `model` takes, input and output together; None where unknown."""
    row = window_of(model)
    return None if row is None else row.context


def max_output(model: ModelId | str) -> int | None:
    """Return how many tokens `model` generates at most; None where unknown."""
    row = window_of(model)
    return None if row is None else row.output
