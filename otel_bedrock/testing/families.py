"""TABLE: one row per model family that FakeBedrock can play."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from otel_bedrock.testing.shapes import claude, embeddings, nova, openai, plain
from otel_bedrock.testing.shapes.shape import Shape


@dataclass(frozen=True, slots=True)
class CacheRule:
    """How a family caches prompts, and when it says so."""

    # Without being asked, as OpenAI's models do; else only where the request marks a prefix.
    implicit: bool = False
    # Converse reports zeros although nothing was marked. ConverseStream never does.
    zeros_in_converse: bool = True
    # InvokeModel's invocationMetrics report zeros although nothing was marked.
    zeros_in_metrics: bool = False
    # The write count is left away where it is zero and nothing was marked.
    hides_zero_write: bool = False
    # ConverseStream counts cached tokens in inputTokens too, and so twice in totalTokens, as
    # was seen of gpt-5.6: https://github.com/maximhq/bifrost/pull/6942. Billed rightly.
    doubles_in_stream: bool = False
    # Writes are broken down by ttl: cacheDetails, cache_creation.
    splits: bool = False


@dataclass(frozen=True, slots=True)
class Family:
    """What sets the models of one family apart."""

    name: str
    # Matched against the start of the bare model id.
    pattern: re.Pattern[str]
    shapes: tuple[Shape, ...]
    cache: CacheRule | None = None
    # CountTokens knows the models that match.
    countable: re.Pattern[str] | None = None
    # False: Converse refuses the model.
    converses: bool = True
    # Reasons without being told to.
    thinks: bool = False
    # Signs its reasoning, so that it can be handed back.
    signs: bool = False


def _family(name: str, pattern: str, *shapes: Shape, **more: object) -> Family:
    return Family(name, re.compile(pattern), shapes, **more)  # type: ignore[arg-type]


# https://docs.aws.amazon.com/bedrock/latest/userguide/count-tokens.html and the model cards:
# models that are served through inference profiles alone cannot be counted.
_COUNTABLE = re.compile(
    r"anthropic\.claude-(3-5-(haiku|sonnet)|3-7-sonnet|opus-4(-[156])?|sonnet-4(-[56])?"
    r"|haiku-4-5)(?!-\d(-|:|$))"
)

# The first row that matches is the one; the last matches anything.
TABLE: tuple[Family, ...] = (
    _family(
        "anthropic-early",
        r"anthropic\.claude-(v2|instant|3-(haiku|sonnet|opus)|3-5-sonnet-20240620)",
        claude.MESSAGES,
        claude.COMPLETION,
        countable=_COUNTABLE,
    ),
    _family(
        "anthropic-3",
        r"anthropic\.claude-3-",
        claude.MESSAGES,
        cache=CacheRule(),
        signs=True,
        countable=_COUNTABLE,
    ),
    _family(
        "anthropic-sonnet-5",
        r"anthropic\.claude-sonnet-5",
        claude.MESSAGES,
        cache=CacheRule(splits=True, hides_zero_write=True),
        signs=True,
    ),
    _family(
        "anthropic",
        r"anthropic\.",
        claude.MESSAGES,
        cache=CacheRule(splits=True),
        signs=True,
        countable=_COUNTABLE,
    ),
    _family(
        "nova-embed",
        r"amazon\.nova-.*embed",
        embeddings.NOVA,
        converses=False,
    ),
    _family(
        "nova",
        r"amazon\.nova-",
        nova.MESSAGES,
        cache=CacheRule(zeros_in_converse=False, zeros_in_metrics=True),
    ),
    _family("titan-embed-v2", r"amazon\.titan-embed-text-v2", embeddings.TITAN_V2, converses=False),
    _family(
        "titan-embed-image", r"amazon\.titan-embed-image", embeddings.TITAN_IMAGE, converses=False
    ),
    _family("titan-embed", r"amazon\.titan-embed", embeddings.TITAN, converses=False),
    _family("titan", r"amazon\.titan-t", plain.TITAN),
    _family("llama", r"meta\.llama", plain.LLAMA),
    _family("mistral", r"mistral\.", plain.MISTRAL, openai.CHAT),
    _family("cohere-embed-v4", r"cohere\.embed-v4", embeddings.COHERE_V4, converses=False),
    _family("cohere-embed", r"cohere\.embed", embeddings.COHERE, converses=False),
    _family("cohere-command-r", r"cohere\.command-r", plain.COMMAND_R),
    _family("cohere-command", r"cohere\.command", plain.COMMAND),
    _family("jamba", r"ai21\.jamba", openai.JAMBA),
    _family(
        "gpt",
        r"openai\.gpt-(?!oss)",
        openai.CHAT,
        cache=CacheRule(implicit=True, zeros_in_metrics=True, doubles_in_stream=True),
    ),
    _family("gpt-oss", r"openai\.gpt-oss", openai.CHAT, thinks=True),
    _family("generic", r"", openai.CHAT, openai.TEXT),
)

_GEOS = re.compile(r"^(us|eu|apac|jp|au|ca|in|sa|me|af|uk|global|us-gov)\.")
_MODEL = re.compile(r"[a-z0-9-]+\.[a-z0-9-]+[a-zA-Z0-9.:_-]*")
_ARN = re.compile(r"arn:aws[a-z-]*:(bedrock|sagemaker):[a-z0-9-]*:\d*:([a-z-]+)/(.+)")
# What stands behind an ARN that does not say.
_OPAQUE = {
    "application-inference-profile": "anthropic.claude-sonnet-4-5-20250929-v1:0",
    "provisioned-model": "anthropic.claude-3-haiku-20240307-v1:0",
    "prompt": "anthropic.claude-sonnet-4-5-20250929-v1:0",
    "imported-model": "imported.model",
    "custom-model-deployment": "custom.model",
    "custom-model": "custom.model",
    "endpoint": "sagemaker.endpoint",
}


@dataclass(frozen=True, slots=True)
class Model:
    """A model id, understood."""

    id: str
    base: str
    family: Family
    # An inference profile or another stand-in, which CountTokens refuses.
    profile: bool


# For operations that are about no model.
NO_MODEL = Model("", "", TABLE[-1], profile=False)


@dataclass(slots=True)
class Models:
    """Finds the row for an id; `profiles` says what opaque ids and ARNs stand for."""

    profiles: dict[str, str] = field(default_factory=dict)
    _known: dict[str, Model | None] = field(default_factory=dict)

    def find(self, model_id: str) -> Model | None:
        """None where Bedrock says that the identifier is invalid."""
        if model_id not in self._known:
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[model_id] = _find(model_id, self.profiles)
        return self._known[model_id]

    def name(self, profile: str, model_id: str) -> None:
        """Let a profile's id or ARN stand for a model from now on."""
        self.profiles[profile] = model_id
        self._known.clear()


def _find(model_id: str, profiles: Mapping[str, str]) -> Model | None:
    name = profiles.get(model_id, model_id)
    profile = name != model_id
    arn = _ARN.fullmatch(name)
    if arn:
        kind, name = arn[2], arn[3]
        profile = profile or kind != "foundation-model"
        name = _OPAQUE.get(kind, name)
    base = _GEOS.sub("", name)
    if not _MODEL.fullmatch(base):
        return None
    family = next(row for row in TABLE if row.pattern.match(base))
    return Model(model_id, base, family, profile or base != name)
