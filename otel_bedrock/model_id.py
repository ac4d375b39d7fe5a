"""Model ids: every form and ARN kind that Bedrock takes as `modelId`, parsed to a ModelId.

Forms: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
(the pattern of `modelId`). Geo prefixes are told by what follows them, a known provider, so
that a prefix which AWS adds tomorrow needs no change here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import unquote

from otel_bedrock.utf8 import sendable

# The first label of a foundation model's id: who made it.
PROVIDERS = frozenset(
    "ai21 amazon anthropic cohere deepseek google luma meta minimax mistral moonshot moonshotai"
    " nvidia openai qwen stability twelvelabs writer xai zai".split()
)

# `arn:…:<kind>/…` whose last part is itself a model id; every other kind is opaque.
_TRANSPARENT = frozenset(("foundation-model", "inference-profile"))
_PROFILES = frozenset(("inference-profile", "application-inference-profile"))
# A version follows the id of these after a colon, and is not part of the name.
_VERSIONED = frozenset(("prompt",))
# Resources of other services, named after the service so that nobody takes them for Bedrock's.
_FOREIGN = {("sagemaker", "endpoint"): "sagemaker-endpoint"}

_CONTEXT_SUFFIX = re.compile(r":\d+k$")
_MAX_LENGTH = 256


@dataclass(frozen=True, slots=True)
class ModelId:
    """One parsed `modelId`.

    `name` is the value of `gen_ai.request.model`: recognisable, without account id. `base_id`
    is the foundation model's id without geo prefix and context suffix, None where the id does
    not tell. `provider` is None where unknown.
    """

    name: str
    base_id: str | None = None
    provider: str | None = None
    geo: str | None = None
    arn: str | None = None
    kind: str | None = None
    profile_id: str | None = None


@lru_cache(maxsize=4096)
def parse(sent: str) -> ModelId:
    """Parse the `modelId` that a caller sent; any string gives a ModelId, nothing raises."""
    text = sendable(unquote(sent) if "%" in sent else sent)
    return _parse_arn(text) if text.startswith("arn:") else _parse_plain(text)


def resolve(model: ModelId, aliases: Mapping[str, str]) -> ModelId:
    """Return `model` with base id and provider of what `aliases` says it stands for.

    Keys are an ARN, a profile's id, or the name as on the span; an id that is not among them
    stays opaque.
    """
    for key in (model.arn, model.profile_id, model.name, model.name.rpartition("/")[2]):
        if key and key in aliases:
            return informed(model, aliases[key])
    return model


def informed(model: ModelId, stands_for: str) -> ModelId:
    """Return `model` with the base id and the provider of the id or ARN that it stands for."""
    known = parse(stands_for)
    return replace(model, base_id=known.base_id, provider=known.provider)


# Provisioned, custom and imported models draw on no on-demand quota, and cost by the hour or by
# prices of their own.
_ON_DEMAND = frozenset(
    (None, "foundation-model", "inference-profile", "application-inference-profile")
)


def is_on_demand(model: ModelId) -> bool:
    """Say whether calls of `model` have the quota and the price of the foundation model."""
    return model.kind in _ON_DEMAND


def _parse_plain(text: str) -> ModelId:
    geo, base, provider = _split(text)
    return ModelId(
        name=text[:_MAX_LENGTH],
        base_id=base,
        provider=provider,
        geo=geo,
        profile_id=text if geo else None,
    )


def _parse_arn(text: str) -> ModelId:
    parts = text.split(":", 5)
    service = parts[2] if len(parts) > 2 else ""
    # An ARN cut short may end with its account id, which must not become a name.
    resource = parts[5] if len(parts) == 6 else ""
    kind, slash, rest = resource.partition("/")
    if not slash:
        return ModelId(name=resource[:_MAX_LENGTH] or "arn", arn=text)
    last = rest.rsplit("/", 1)[-1]
    kind = _FOREIGN.get((service, kind), kind)
    if kind in _TRANSPARENT:
        geo, base, provider = _split(rest)
        return ModelId(
            name=rest[:_MAX_LENGTH],
            base_id=base,
            provider=provider,
            geo=geo,
            arn=text,
            kind=kind,
            profile_id=rest if kind in _PROFILES else None,
        )
    if kind in _VERSIONED:
        last = last.partition(":")[0]
    # custom-model/<base model>/<id> names its base; the other opaque kinds do not.
    _, base, provider = _split(rest.rpartition("/")[0]) if kind == "custom-model" else _UNKNOWN
    return ModelId(
        name=f"{kind}/{last}"[:_MAX_LENGTH],
        base_id=base,
        provider=provider,
        arn=text,
        kind=kind,
        profile_id=last if kind in _PROFILES else None,
    )


_UNKNOWN: tuple[None, None, None] = (None, None, None)


def _split(text: str) -> tuple[str | None, str | None, str | None]:
    """Split a plain id into geo prefix, base id and provider."""
    base = _CONTEXT_SUFFIX.sub("", text)
    label, dot, rest = base.partition(".")
    if not dot or not rest or "/" in base:
        return _UNKNOWN
    if label in PROVIDERS:
        return None, base, label
    following, dot, _ = rest.partition(".")
    if dot and following in PROVIDERS:
        return label, rest, following
    # Two labels: a provider that we have not heard of. Three or more: its first may be a geo
    # prefix or the provider, which nobody can tell; then the base id stays unknown.
    return (None, base, label) if not dot else _UNKNOWN
