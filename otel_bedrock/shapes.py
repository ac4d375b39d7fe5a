"""Shapes: where the counts of usage stand, in every spelling that Bedrock and its providers have.

A new spelling is a row here; `usage` reads them all, and decides between them.
"""

from __future__ import annotations

from dataclasses import field

from otel_bedrock.frozen import dataclass
from otel_bedrock.paths import steps

# The counts of a Report, by name.
FIELDS = (
    "input",
    "output",
    "cache_read",
    "cache_write",
    "cache_write_5m",
    "cache_write_1h",
    "reasoning",
)

# A path, taken apart: its first key, and the rest.
Steps = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """One spelling of usage: where each count stands, by `paths.dig`.

    `anchors` are the paths of which one must be there for the shape to be recognised.
    `inclusive` says that `input` counts cache tokens as well. `details` are keys of a list of
    `{ttl, inputTokens}`. Derived are `signs`, the steps to the anchors, and `places`: the fields
    that the shape has, with the steps to where each may stand, of several the most trusted last.
    """

    name: str
    anchors: tuple[str, ...]
    input: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    cache_read: tuple[str, ...] = ()
    cache_write: tuple[str, ...] = ()
    cache_write_5m: tuple[str, ...] = ()
    cache_write_1h: tuple[str, ...] = ()
    reasoning: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    inclusive: bool = False
    signs: tuple[Steps, ...] = field(init=False)
    places: tuple[tuple[str, str, tuple[str, ...]], ...] = field(init=False)

    def __post_init__(self) -> None:
        places = tuple(
            (name, *steps(path)) for name in FIELDS for path in reversed(getattr(self, name))
        )
        object.__setattr__(self, "signs", tuple(steps(path) for path in self.anchors))
        object.__setattr__(self, "places", places)


# Where a `usage` member stands: in a whole answer, in Claude's message_start, in a stream event
# of Nova, in a stream event of the Responses API.
ROOTS = ("usage", "message.usage", "metadata.usage", "response.usage")

# Under a `usage` member; the first whose anchor is there.
USAGE_SHAPES = (
    Shape(
        "OpenAI Responses",
        anchors=("input_tokens_details",),
        input=("input_tokens",),
        output=("output_tokens",),
        cache_read=("input_tokens_details.cached_tokens",),
        cache_write=("input_tokens_details.cache_write_tokens",),
        reasoning=("output_tokens_details.reasoning_tokens",),
        inclusive=True,
    ),
    Shape(
        "Anthropic",
        anchors=("input_tokens", "output_tokens"),
        input=("input_tokens",),
        output=("output_tokens",),
        cache_read=("cache_read_input_tokens",),
        cache_write=("cache_creation_input_tokens",),
        cache_write_5m=("cache_creation.ephemeral_5m_input_tokens",),
        cache_write_1h=("cache_creation.ephemeral_1h_input_tokens",),
        reasoning=("output_tokens_details.thinking_tokens",),
    ),
    Shape(
        "Converse, Nova",
        anchors=("inputTokens", "outputTokens"),
        input=("inputTokens",),
        output=("outputTokens",),
        cache_read=("cacheReadInputTokens", "cacheReadInputTokenCount"),
        cache_write=("cacheWriteInputTokens", "cacheWriteInputTokenCount"),
        details=("cacheDetails",),
    ),
    Shape(
        "OpenAI",
        anchors=("prompt_tokens", "completion_tokens"),
        input=("prompt_tokens",),
        output=("completion_tokens",),
        cache_read=("prompt_tokens_details.cached_tokens",),
        cache_write=("prompt_tokens_details.cache_write_tokens",),
        reasoning=("completion_tokens_details.reasoning_tokens",),
        inclusive=True,
    ),
)

# At the top of a body.
BODY_SHAPES = (
    Shape(
        "Meta Llama",
        anchors=("prompt_token_count", "generation_token_count"),
        input=("prompt_token_count",),
        output=("generation_token_count",),
    ),
    Shape(
        "Amazon Titan",
        anchors=("inputTextTokenCount", "totalOutputTextTokenCount", "results.*.tokenCount"),
        input=("inputTextTokenCount",),
        output=("results.*.tokenCount", "totalOutputTextTokenCount"),
    ),
    Shape(
        "Cohere",
        anchors=("meta.billed_units.input_tokens", "meta.billed_units.output_tokens"),
        input=("meta.billed_units.input_tokens",),
        output=("meta.billed_units.output_tokens",),
    ),
    Shape(
        "AI21 Jurassic-2",
        anchors=("completions.*.data.tokens.#",),
        input=("prompt.tokens.#",),
        output=("completions.*.data.tokens.#",),
    ),
)

SHAPES = (*USAGE_SHAPES, *BODY_SHAPES)

CONVERSE = next(shape for shape in USAGE_SHAPES if shape.name == "Converse, Nova")

# `amazon-bedrock-invocationMetrics`, in the last chunk of a stream.
INVOCATION_METRICS = Shape(
    "invocation metrics",
    anchors=("inputTokenCount", "outputTokenCount"),
    input=("inputTokenCount",),
    output=("outputTokenCount",),
    cache_read=("cacheReadInputTokenCount",),
    cache_write=("cacheWriteInputTokenCount",),
)

# Of an InvokeModel answer: they stand in no service model, and every provider's have them.
HEADER_NAMES = (
    ("input", "x-amzn-bedrock-input-token-count"),
    ("output", "x-amzn-bedrock-output-token-count"),
    ("cache_read", "x-amzn-bedrock-cache-read-input-token-count"),
    ("cache_write", "x-amzn-bedrock-cache-write-input-token-count"),
)

# Where a model invocation log has the counts: beside the bodies, so also without them.
INVOCATION_RECORD = Shape(
    "invocation log",
    anchors=(
        "input.inputTokenCount",
        "output.outputTokenCount",
        "input.cacheReadInputTokenCount",
        "input.cacheWriteInputTokenCount",
    ),
    input=("input.inputTokenCount",),
    output=("output.outputTokenCount",),
    cache_read=("input.cacheReadInputTokenCount",),
    cache_write=("input.cacheWriteInputTokenCount",),
)
