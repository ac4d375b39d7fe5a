"""Requests: the parameters of one API call, read into a Call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from otel_bedrock import shield
from otel_bedrock.call import Call
from otel_bedrock.model_id import ModelId, parse, resolve
from otel_bedrock.operations import CHAT, Operation
from otel_bedrock.paths import Index, as_object, first
from otel_bedrock.providers import Provider, keys_in, operation_of, provider_of

Parameters = Mapping[str, Any]

_TEXT = (str, bytes, bytearray)
_NO_MODEL = ModelId(name="")
_UNKNOWN = (_NO_MODEL, provider_of(_NO_MODEL))

# What each may be where it is no text. In a store whose columns have types, a temperature of 0 and
# one of 0.5 would be two attributes.
_KINDS: Mapping[str, Any] = {
    **dict.fromkeys(("max_tokens", "top_k", "seed", "choice_count", "dimension_count"), int),
    **dict.fromkeys(("temperature", "top_p", "frequency_penalty", "presence_penalty"), float),
    **dict.fromkeys(("stop_sequences", "encoding_formats"), tuple),
}

# Member of the parameters -> the keys under it -> short names (see signals.ATTRIBUTES), and kinds.
_CONVERSE = {
    member: {key: (name, _KINDS.get(name, str)) for key, name in names.items()}
    for member, names in {
        "inferenceConfig": {
            "maxTokens": "max_tokens",
            "temperature": "temperature",
            "topP": "top_p",
            "stopSequences": "stop_sequences",
        },
        "guardrailConfig": {"guardrailIdentifier": "guardrail_id"},
        "serviceTier": {"type": "service_tier"},
        "performanceConfig": {"latency": "latency_mode"},
    }.items()
}

# The same for what InvokeModel takes beside its body, and for agents and knowledge bases.
_INVOKE = Index(
    {
        "guardrail_id": ("guardrailIdentifier",),
        "service_tier": ("serviceTier",),
        "latency_mode": ("performanceConfigLatency",),
    }
)
_AGENT = Index(
    {"agent_id": ("agentId",), "guardrail_id": ("guardrailConfiguration.guardrailIdentifier",)}
)
_KNOWLEDGE_BASE = Index(
    {
        "knowledge_base_id": (
            "retrieveAndGenerateConfiguration.knowledgeBaseConfiguration.knowledgeBaseId",
            "knowledgeBaseId",
        ),
        "guardrail_id": (
            "retrieveAndGenerateConfiguration.knowledgeBaseConfiguration."
            "generationConfiguration.guardrailConfiguration.guardrailId",
            "retrieveAndGenerateConfiguration.externalSourcesConfiguration."
            "generationConfiguration.guardrailConfiguration.guardrailId",
            "guardrailConfiguration.guardrailId",
        ),
    }
)
_GUARDRAIL = Index({"guardrail_id": ("guardrailIdentifier",)})


def read_call(
    row: Operation,
    parameters: Parameters,
    *,
    address: str | None = None,
    port: int | None = None,
    region: str | None = None,
    body_limit: int = 65_536,
    aliases: Mapping[str, str] | None = None,
    look_up: Callable[[ModelId], ModelId] | None = None,
    wanted: bool = True,
    attribution: Mapping[str, str] | None = None,
) -> tuple[Call, Provider]:
    """Read what is known before the call: a Call, and the row of its model's provider.

    `wanted` is False where it is not known whether anybody will see request parameters: then only
    what names the call is read, and `read_parameters` may read the others.
    """
    sent = parameters.get("modelId") or first(parameters, row.model)
    model, provider = _known(sent) if isinstance(sent, str) else _UNKNOWN
    if aliases and model.base_id is None:
        model = resolve(model, aliases)
        provider = provider_of(model)
    if look_up is not None:
        model = look_up(model)
        provider = provider_of(model)
    operation, body = row.name or provider.operation, None
    if row.reads == "invoke" and (wanted or operation is None):
        try:
            raw = parameters.get("body")
            body = read_json(raw, body_limit)
            if operation is None:
                keys = keys_in(raw) if body is None and isinstance(raw, _TEXT) else body
                operation = operation_of(provider, keys)
        except Exception as error:
            shield.stop("request", error)
    call = Call(
        api=row.api,
        operation=operation or CHAT,
        model=model,
        address=address,
        port=port,
        region=region,
        streamed=row.stream is not None,
        parameters_known=False,
        attribution=attribution,
    )
    if wanted:
        try:
            read_parameters(call, row, parameters, body, provider)
        except Exception as error:
            # However odd the request is, the call is told and its tokens are counted.
            shield.stop("request", error)
    return call, provider


def read_parameters(
    call: Call, row: Operation, parameters: Parameters, body: Any, provider: Provider
) -> None:
    """Read request parameters into `call`, which nobody else has by now.

    `body` is that of InvokeModel as JSON, None where it cannot be read.
    """
    found = {"stream": True} if row.stream is not None else {}
    object.__setattr__(call, "parameters", found)
    found.update(_READERS[row.reads](parameters, body, provider))
    known = body is not None or row.reads != "invoke"
    object.__setattr__(call, "parameters_known", known)


@lru_cache(maxsize=4096)
def _known(sent: str) -> tuple[ModelId, Provider]:
    model = parse(sent)
    return model, provider_of(model)


def read_json(body: Any, limit: int) -> Mapping[str, Any] | None:
    """Return a request body as a JSON object; None where it is none, too large or a file.

    A file-like body is the caller's: reading it would change what is sent. That of an
    invocation log is parsed already.
    """
    if not isinstance(body, _TEXT):
        if isinstance(body, Mapping):
            return body
        if not isinstance(body, memoryview) or body.nbytes > limit:
            return None
        body = body.tobytes()
    if len(body) > limit:
        return None
    return as_object(body)


def _as(kind: type, value: Any) -> Any:
    """Return `value` as what an attribute of that kind may be, None where it is none."""
    if kind is int:
        if type(value) is float and value.is_integer():
            value = int(value)
        # OTLP cannot carry what is larger.
        return value if type(value) is int and -_LARGEST < value < _LARGEST else None
    if kind is float:
        return float(value) if type(value) is int and -_LARGEST < value < _LARGEST else None
    if kind is tuple:
        # One that stands alone is OpenAI's way to say a list of one.
        items = [value] if isinstance(value, str) else value
        texts = isinstance(items, list) and items and all(isinstance(item, str) for item in items)
        return tuple(items) if texts else None
    return value if isinstance(value, str) else None


_LARGEST = 2**63


def _pick(index: Index, source: Any) -> dict[str, Any]:
    """Return what `index` finds in `source`, as what an attribute of its name may be."""
    found = index.read(source)
    for name, value in tuple(found.items()):
        kind = _KINDS.get(name, str)
        if type(value) is not kind or kind is int:
            found[name] = value = _as(kind, value)
            if value is None:
                del found[name]
    return found


def _read_converse(parameters: Parameters, _: Any, provider: Provider) -> dict[str, Any]:
    # What Converse has no member for is asked as in the provider's own body.
    own = parameters.get("additionalModelRequestFields")
    found = {} if own is None else _pick(provider.asked, own)
    # The parameters have a few members, of which one or two are of these.
    for member in parameters:
        names = _CONVERSE.get(member)
        if names is None:
            continue
        under = parameters[member]
        if type(under) is dict or isinstance(under, Mapping):
            for key, value in under.items():
                row = names.get(key)
                if row is not None:
                    name, kind = row
                    if type(value) is not kind or kind is int:
                        value = _as(kind, value)
                    if value is not None:
                        found[name] = value
    # Asked only where it is there: whether something is a Mapping takes longer than all of this.
    metadata = parameters.get("requestMetadata")
    if metadata is not None and isinstance(metadata, Mapping):
        found["request_metadata"] = metadata
    return found


def _read_invoke(
    parameters: Parameters, body: Mapping[str, Any] | None, provider: Provider
) -> dict[str, Any]:
    found = _pick(_INVOKE, parameters)
    if body is not None:
        found.update(_pick(provider.asked, body))
    metadata = parameters.get("requestMetadata")
    if isinstance(metadata, str):
        metadata = read_json(metadata, 65_536)
    if metadata is not None and isinstance(metadata, Mapping):
        found["request_metadata"] = metadata
    return found


def _read_agent(parameters: Parameters, _: Any, __: Provider) -> dict[str, Any]:
    return _pick(_AGENT, parameters)


def _read_knowledge_base(parameters: Parameters, _: Any, __: Provider) -> dict[str, Any]:
    return _pick(_KNOWLEDGE_BASE, parameters)


def _read_nothing(_: Parameters, __: Any, ___: Provider) -> dict[str, Any]:
    return {}


def _read_guardrail(parameters: Parameters, _: Any, __: Provider) -> dict[str, Any]:
    return _pick(_GUARDRAIL, parameters)


_READERS: Mapping[str, Callable[[Parameters, Any, Provider], dict[str, Any]]] = {
    "converse": _read_converse,
    "invoke": _read_invoke,
    "count_tokens": _read_nothing,
    "guardrail": _read_guardrail,
    "agent": _read_agent,
    "knowledge_base": _read_knowledge_base,
    "plain": _read_nothing,
}
