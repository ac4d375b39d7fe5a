"""TABLE: one row for each body shape of InvokeModel, by model provider.

To add a provider: record one exchange as a fixture and add a row here. None is needed where
the response headers carry the counts and nothing else of the body is wanted: unknown models
are read by `GENERIC`.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import field
from types import MappingProxyType

from otel_bedrock.frozen import dataclass
from otel_bedrock.model_id import ModelId
from otel_bedrock.operations import (
    CHAT,
    EMBEDDINGS,
    GENERATE_CONTENT,
    RETRIEVAL,
    TEXT_COMPLETION,
)
from otel_bedrock.paths import Index


@dataclass(frozen=True, slots=True, eq=False)
class Provider:
    """One row; paths are those of `paths.dig`.

    A row is for the models of `provider` whose base id, after the provider, begins with one
    of `models` (all, where empty). `operation` is None where the request's shape decides.
    `parameters` maps request parameters to where the request body has them. `tokens` is
    False for models that are not billed by tokens. `body` says that the answer's body holds
    something that headers lack, so it is worth looking at while the user reads it.
    `splits_cache_write`: the body tells a cache write's TTL. `includes_cache`: the body's input
    count has cached tokens in it. `converse_stream_inclusive` marks families whose
    ConverseStream counts cache tokens in `inputTokens` as well. `evidence` says where the row
    comes from. `asked` and `answered` are derived: how the request and the answer are read.
    """

    title: str
    provider: str | None
    models: tuple[str, ...] = ()
    operation: str | None = None
    parameters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    finish_reason: tuple[str, ...] = ()
    response_id: tuple[str, ...] = ()
    response_model: tuple[str, ...] = ()
    tokens: bool = True
    body: bool = True
    splits_cache_write: bool = False
    includes_cache: bool = False
    converse_stream_inclusive: bool = False
    evidence: str = ""
    asked: Index = field(init=False)
    answered: Index = field(init=False)

    def __post_init__(self) -> None:
        answered = {
            "finish_reasons": self.finish_reason,
            "response_id": self.response_id,
            "response_model": self.response_model,
            "guardrail_action": ("amazon-bedrock-guardrailAction",),
            "guardrail_units": ("amazon-bedrock-trace.guardrail",),
        }
        object.__setattr__(self, "asked", Index(self.parameters))
        object.__setattr__(self, "answered", Index(answered))


_SNAKE = MappingProxyType(
    {
        "max_tokens": ("max_tokens", "max_completion_tokens"),
        "temperature": ("temperature",),
        "top_p": ("top_p",),
        "top_k": ("top_k",),
        "stop_sequences": ("stop", "stop_sequences"),
        "frequency_penalty": ("frequency_penalty",),
        "presence_penalty": ("presence_penalty",),
        "seed": ("seed",),
        "choice_count": ("n",),
    }
)

TABLE = (
    Provider(
        "Anthropic Claude 2",
        "anthropic",
        models=("claude-v", "claude-instant"),
        parameters={
            "max_tokens": ("max_tokens_to_sample", "max_tokens"),
            "temperature": ("temperature",),
            "top_p": ("top_p",),
            "top_k": ("top_k",),
            "stop_sequences": ("stop_sequences",),
        },
        finish_reason=("stop_reason", "delta.stop_reason"),
        response_id=("id", "message.id"),
        response_model=("model", "message.model"),
        evidence="model-parameters-anthropic-claude-text-completion, and -messages",
    ),
    Provider(
        "Anthropic Claude",
        "anthropic",
        operation=CHAT,
        parameters={
            "max_tokens": ("max_tokens",),
            "temperature": ("temperature",),
            "top_p": ("top_p",),
            "top_k": ("top_k",),
            "stop_sequences": ("stop_sequences",),
        },
        finish_reason=("stop_reason", "delta.stop_reason"),
        response_id=("id", "message.id"),
        response_model=("model", "message.model"),
        splits_cache_write=True,
        evidence="model-parameters-anthropic-claude-messages",
    ),
    Provider(
        "Amazon Nova embeddings",
        "amazon",
        models=("nova-2-multimodal-embeddings",),
        operation=EMBEDDINGS,
        parameters={
            "dimension_count": (
                "singleEmbeddingParams.embeddingDimension",
                "segmentedEmbeddingParams.embeddingDimension",
            )
        },
        body=False,
        evidence="model-parameters-nova-embeddings: no usage in the body",
    ),
    Provider(
        "Amazon Nova images and video",
        "amazon",
        models=("nova-canvas", "nova-reel", "titan-image"),
        operation=GENERATE_CONTENT,
        tokens=False,
        body=False,
        evidence="model-parameters-nova-canvas: billed by image or second",
    ),
    Provider(
        "Amazon Nova",
        "amazon",
        models=("nova-",),
        operation=CHAT,
        parameters={
            "max_tokens": ("inferenceConfig.maxTokens", "inferenceConfig.max_new_tokens"),
            "temperature": ("inferenceConfig.temperature",),
            "top_p": ("inferenceConfig.topP", "inferenceConfig.top_p"),
            "top_k": ("inferenceConfig.topK", "inferenceConfig.top_k"),
            "stop_sequences": ("inferenceConfig.stopSequences",),
        },
        finish_reason=("stopReason", "messageStop.stopReason"),
        evidence="nova user guide, complete request schema",
    ),
    Provider(
        "Amazon rerank",
        "amazon",
        models=("rerank-",),
        operation=RETRIEVAL,
        tokens=False,
        body=False,
        evidence="model-parameters-rerank, rerank-supported: billed by search units",
    ),
    Provider(
        "Amazon Titan embeddings",
        "amazon",
        models=("titan-embed",),
        operation=EMBEDDINGS,
        parameters={
            "dimension_count": ("dimensions", "embeddingConfig.outputEmbeddingLength"),
            "encoding_formats": ("embeddingTypes",),
        },
        body=False,
        evidence="model-parameters-titan-embed-text",
    ),
    Provider(
        "Amazon Titan text",
        "amazon",
        models=("titan-t",),
        operation=TEXT_COMPLETION,
        parameters={
            "max_tokens": ("textGenerationConfig.maxTokenCount",),
            "temperature": ("textGenerationConfig.temperature",),
            "top_p": ("textGenerationConfig.topP",),
            "stop_sequences": ("textGenerationConfig.stopSequences",),
        },
        finish_reason=("results.*.completionReason", "completionReason"),
        evidence="model-parameters-titan-text",
    ),
    Provider(
        "Meta Llama",
        "meta",
        operation=TEXT_COMPLETION,
        parameters={
            "max_tokens": ("max_gen_len",),
            "temperature": ("temperature",),
            "top_p": ("top_p",),
        },
        finish_reason=("stop_reason",),
        evidence="model-parameters-meta",
    ),
    Provider(
        "Mistral",
        "mistral",
        parameters=_SNAKE,
        finish_reason=(
            "outputs.*.stop_reason",
            "choices.*.finish_reason",
            "choices.*.stop_reason",
        ),
        response_id=("id",),
        response_model=("model",),
        includes_cache=True,
        evidence="model-parameters-mistral-text-completion, -chat-completion; newer models answer"
        " in OpenAI's shape",
    ),
    Provider(
        "Cohere embeddings",
        "cohere",
        models=("embed-",),
        operation=EMBEDDINGS,
        parameters={
            "dimension_count": ("output_dimension",),
            "encoding_formats": ("embedding_types",),
        },
        body=False,
        evidence="model-parameters-embed",
    ),
    Provider(
        "Cohere rerank",
        "cohere",
        models=("rerank-",),
        operation=RETRIEVAL,
        tokens=False,
        body=False,
        evidence="model-parameters-rerank: billed by search units",
    ),
    Provider(
        "Cohere Command",
        "cohere",
        parameters={
            "max_tokens": ("max_tokens",),
            "temperature": ("temperature",),
            "top_p": ("p",),
            "top_k": ("k",),
            "stop_sequences": ("stop_sequences",),
            "frequency_penalty": ("frequency_penalty",),
            "presence_penalty": ("presence_penalty",),
            "seed": ("seed",),
            "choice_count": ("num_generations",),
        },
        finish_reason=("finish_reason", "generations.*.finish_reason"),
        response_id=("response_id", "id"),
        evidence="model-parameters-cohere-command, -command-r-plus",
    ),
    Provider(
        "AI21 Jurassic-2",
        "ai21",
        models=("j2-",),
        operation=TEXT_COMPLETION,
        parameters={
            "max_tokens": ("maxTokens",),
            "temperature": ("temperature",),
            "top_p": ("topP",),
            "stop_sequences": ("stopSequences",),
            "choice_count": ("numResults",),
        },
        finish_reason=("completions.*.finishReason.reason",),
        evidence="model-parameters-jurassic2",
    ),
    Provider(
        "OpenAI",
        "openai",
        operation=CHAT,
        parameters=_SNAKE,
        finish_reason=("choices.*.finish_reason",),
        response_id=("id",),
        response_model=("model",),
        includes_cache=True,
        converse_stream_inclusive=True,
        evidence="model-parameters-openai; ConverseStream of gpt-5.6 gave inputTokens 4995 with"
        " cacheWriteInputTokens 4993 where Converse gave 2 (maximhq/bifrost#6942)",
    ),
    Provider(
        "Stability",
        "stability",
        operation=GENERATE_CONTENT,
        tokens=False,
        body=False,
        evidence="model-parameters-stability-diffusion: billed by image",
    ),
    Provider(
        "Luma",
        "luma",
        operation=GENERATE_CONTENT,
        tokens=False,
        body=False,
        evidence="model-parameters-luma: billed by second of video",
    ),
    Provider(
        "TwelveLabs embeddings",
        "twelvelabs",
        models=("marengo-",),
        operation=EMBEDDINGS,
        body=False,
        evidence="model-parameters-marengo: counts, where there are any, in headers",
    ),
    Provider(
        "TwelveLabs Pegasus",
        "twelvelabs",
        models=("pegasus-",),
        operation=CHAT,
        parameters={"max_tokens": ("maxOutputTokens",), "temperature": ("temperature",)},
        finish_reason=("finishReason",),
        evidence="model-parameters-pegasus: no usage in the body",
    ),
)


def _all(name: str) -> tuple[str, ...]:
    """Return what every row has for `name`, each path once."""
    return tuple(dict.fromkeys(path for row in TABLE for path in getattr(row, name)))


def _all_parameters() -> Mapping[str, tuple[str, ...]]:
    names = dict.fromkeys(name for row in TABLE for name in row.parameters)
    return {
        name: tuple(
            dict.fromkeys(
                (
                    *_SNAKE.get(name, ()),
                    *(path for row in TABLE for path in row.parameters.get(name, ())),
                )
            )
        )
        for name in names
    }


# Every other model, which may be of any shape: an opaque id can stand for each of the above.
GENERIC = Provider(
    "every other model",
    None,
    parameters=_all_parameters(),
    finish_reason=_all("finish_reason"),
    response_id=_all("response_id"),
    response_model=_all("response_model"),
    splits_cache_write=True,
    includes_cache=True,
    evidence="model-parameters-openai; most newer providers answer in this shape",
)

_ROWS_OF: dict[str | None, tuple[Provider, ...]] = {}
for _row in TABLE:
    _ROWS_OF[_row.provider] = (*_ROWS_OF.get(_row.provider, ()), _row)


def provider_of(model: ModelId) -> Provider:
    """Return the row of TABLE that fits `model`, GENERIC where none does."""
    name = (model.base_id or "").partition(".")[2]
    for row in _ROWS_OF.get(model.provider, ()):
        if not row.models or name.startswith(row.models):
            return row
    return GENERIC


# The operation of a model that its id does not tell, by the request body: first match wins.
# https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html
OPERATION_BY_REQUEST = (
    (EMBEDDINGS, ("texts",)),
    (EMBEDDINGS, ("inputText", "embeddingTypes")),
    (EMBEDDINGS, ("inputText", "dimensions")),
    (EMBEDDINGS, ("inputText", "embeddingConfig")),
    (RETRIEVAL, ("query", "documents")),
    (CHAT, ("messages",)),
    (TEXT_COMPLETION, ("prompt",)),
    (TEXT_COMPLETION, ("inputText",)),
)


# How much of each end of a long request is looked at; what takes room is one value between them.
_END = 8_192


def keys_in(text: str | bytes | bytearray) -> frozenset[str]:
    """Return which keys of OPERATION_BY_REQUEST stand at the ends of a request too long to parse.

    In a string of it a quotation mark has a backslash before it. `messages` tells by itself: what
    stands beside it may stand in a tool's schema.
    """
    ends = [
        end if isinstance(end, str) else end.decode("utf-8", "replace")
        for end in (text[:_END], text[-_END:])
    ]
    names = {key for _, keys in OPERATION_BY_REQUEST for key in keys}
    found = frozenset(name for name in names if any(f'"{name}"' in end for end in ends))
    return found & {"messages"} or found


def operation_of(row: Provider, request: Container[str] | None) -> str:
    """Return the value of `gen_ai.operation.name` for an InvokeModel call.

    `request` is its body, or the keys of that.
    """
    if row.operation is not None:
        return row.operation
    for operation, keys in OPERATION_BY_REQUEST:
        if request is not None and all(key in request for key in keys):
            return operation
    return CHAT


def render() -> str:
    """Return the table of model families as Markdown."""
    lines = ["| family | ids | operation | beyond the headers |", "|---|---|---|---|"]
    for row in (*TABLE, GENERIC):
        ids = ", ".join(f"`{row.provider}.{prefix}…`" for prefix in row.models or ("",))
        told = [
            "finish reason" if row.finish_reason else "",
            "response id" if row.response_id else "",
            "cache TTL" if row.splits_cache_write else "",
            "" if row.tokens else "not billed by tokens",
        ]
        lines.append(
            f"| {row.title} | {ids if row.provider else 'any'} |"
            f" {row.operation or 'by the request'} | {', '.join(filter(None, told))} |"
        )
    return "\n".join(lines) + "\n"
