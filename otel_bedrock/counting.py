"""Counting: how many input tokens a request would be billed for, asked before it is sent.

`count_tokens` takes the very arguments that the call would take. It is free of charge, and its
answer is no usage: it feeds no metric of tokens.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from otel_bedrock import countable, lookup
from otel_bedrock.config import read_config
from otel_bedrock.count_input import read_input
from otel_bedrock.countable import MANTLE, RUNTIME, Memory
from otel_bedrock.model_id import ModelId, parse, resolve

if TYPE_CHECKING:
    from otel_bedrock.config import Config
    from otel_bedrock.mantle import Step

_remembered = Memory()


@dataclass(frozen=True, slots=True)
class TokenCount:
    """The input tokens that a request would be billed for, cache included.

    `model_id` is the id that the caller gave, `counted_as` the one that was asked for, at
    `endpoint`: `bedrock-runtime` or `bedrock-mantle`. `exact` is False where the request had to
    be written in another form that may differ by white space: a tool's JSON result at
    bedrock-mantle.
    """

    input_tokens: int
    model_id: str
    counted_as: str
    endpoint: str = RUNTIME
    exact: bool = True


class TokenCountUnsupported(Exception):
    """A request that cannot be counted: for which `model_id`, the `reason`, and what to do."""

    def __init__(self, model_id: str, reason: str, advice: str) -> None:
        super().__init__(model_id, reason, advice)
        self.model_id = model_id
        self.reason = reason
        self.advice = advice

    def __str__(self) -> str:
        # By its name: an ARN has the account's id, and messages end up in logs.
        name = parse(self.model_id).name
        return f"{name} cannot be counted: {self.reason} {self.advice}"


def count_tokens(
    client: Any,
    *,
    model_aliases: Mapping[str, str] | None = None,
    resolve_models: bool | None = None,
    mantle_endpoint: str | None = None,
    memory: Memory | None = None,
    **request: Any,
) -> TokenCount:
    """Count the input tokens of a request, without sending it to the model.

    Args:
        client: a boto3 or botocore client of bedrock-runtime.
        model_aliases: what opaque ids stand for; unless given, the setting of that name.
        resolve_models: whether to ask the control plane for what nobody says; unless given, the
            setting of that name.
        mantle_endpoint: base URL of bedrock-mantle; unless given, AWS_ENDPOINT_URL_BEDROCK_MANTLE,
            or the Region's own where the client uses AWS's own endpoint.
        memory: where models that cannot be counted are remembered; shared by the process.
        **request: the arguments of `converse`, `converse_stream`, `invoke_model` or
            `invoke_model_with_response_stream`, as they would be given there.

    Raises:
        TokenCountUnsupported: Bedrock does not count this model, or not this request; or nobody
            knows which model it is.
        ClientError: what Bedrock answered to CountTokens, as any call would raise it.
        ValueError: the request has no modelId, or neither messages nor a body that can be read.
    """
    steps = _count(client, request, model_aliases, resolve_models, mantle_endpoint, memory)
    try:
        step = next(steps)
        while True:
            try:
                result = step()
                if isawaitable(result):
                    getattr(result, "close", lambda: None)()
                    raise TypeError(
                        "client: an asyncio client; await otel_bedrock.count_tokens_async(…)"
                    )
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        counted: TokenCount = end.value
        return counted


async def count_tokens_async(
    client: Any,
    *,
    model_aliases: Mapping[str, str] | None = None,
    resolve_models: bool | None = None,
    mantle_endpoint: str | None = None,
    memory: Memory | None = None,
    **request: Any,
) -> TokenCount:
    """Count as `count_tokens` does, with a client of aiobotocore or aioboto3."""
    steps = _count(client, request, model_aliases, resolve_models, mantle_endpoint, memory)
    try:
        step = next(steps)
        while True:
            try:
                result = step()
                if isawaitable(result):
                    result = await result
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        counted: TokenCount = end.value
        return counted


def _count(
    client: Any,
    request: Mapping[str, Any],
    aliases: Mapping[str, str] | None,
    resolves: bool | None,
    mantle_endpoint: str | None,
    memory: Memory | None,
) -> Generator[Step, Any, TokenCount]:
    sent = request.get("modelId")
    if not isinstance(sent, str) or not sent:
        raise ValueError(f"modelId: expected the id of a model; got {sent!r}")
    asked = read_input(client.meta.service_model, request)
    if aliases is None or resolves is None:
        config = _settings()
        aliases = config.model_aliases if aliases is None else aliases
        resolves = config.resolve_models if resolves is None else resolves
    base = yield from _base_of(client, sent, aliases, resolves)
    memory = _remembered if memory is None else memory
    ask = _Ask(client, sent, base, asked, memory, mantle_endpoint)
    for endpoint in countable.find(base).endpoints:
        counted = yield from _ASK[endpoint](ask)
        if counted is not None:
            return counted
    raise TokenCountUnsupported(sent, " ".join(ask.reasons), ask.advice)


@dataclass(slots=True)
class _Ask:
    """One question, on its way from one endpoint to the next, and why it has no answer yet."""

    client: Any
    sent: str
    base: str
    input: Mapping[str, Any]
    memory: Memory
    mantle_endpoint: str | None
    reasons: list[str] = field(default_factory=list)
    advice: str = "See otel-bedrock count --supported for the models that AWS documents."

    def remembers(self, url: str, endpoint: str) -> bool:
        """Say whether `endpoint`, at `url`, is known not to count this model."""
        reason = self.memory.find(f"{endpoint} {url}", self.base)
        if reason is not None:
            self.reasons.append(reason)
        return reason is not None

    def refuse(self, url: str, endpoint: str, error: Any) -> None:
        """Note that `endpoint` does not count this model; raise `error` where it says no such."""
        told = error.response.get("Error", {})
        code, message = str(told.get("Code", "")), str(told.get("Message", ""))
        # Where bedrock-mantle is only the second to be asked, nobody said that it was allowed.
        denied = bool(self.reasons) and code in _DENIED
        if not denied and not countable.rejects(code, message):
            raise error
        if denied:
            self.advice = (
                "Allow the IAM action bedrock-mantle:CountTokens to have it counted there."
            )
        reason = f"{endpoint} answered: {message.rstrip('.')}."
        self.reasons.append(reason)
        self.memory.put(f"{endpoint} {url}", self.base, reason)


_DENIED = frozenset(("AccessDeniedException", "UnrecognizedClientException"))


def _ask_runtime(ask: _Ask) -> Generator[Step, Any, TokenCount | None]:
    client = ask.client
    make = getattr(client, "count_tokens", None)
    if make is None:
        ask.reasons.append("the installed botocore does not have the operation CountTokens.")
        ask.advice = "Get a newer one: pip install --upgrade boto3"
        return None
    url = client.meta.endpoint_url
    if ask.remembers(url, RUNTIME):
        return None
    from botocore.exceptions import ClientError

    try:
        answer = yield partial(make, modelId=ask.base, input=ask.input)
    except ClientError as error:
        ask.refuse(url, RUNTIME, error)
        return None
    return TokenCount(answer["inputTokens"], ask.sent, ask.base)


def _ask_mantle(ask: _Ask) -> Generator[Step, Any, TokenCount | None]:
    from botocore.exceptions import ClientError

    from otel_bedrock import mantle
    from otel_bedrock.messages_api import NoEqual, from_converse, from_native

    url = mantle.endpoint(ask.client, ask.mantle_endpoint)
    if url is None:
        if not ask.reasons:
            ask.reasons.append("it is counted on the bedrock-mantle endpoint alone.")
        ask.advice = (
            "bedrock-mantle may count it, and is found by itself beside AWS's own endpoints only:"
            f" give mantle_endpoint=, or set {mantle.ENDPOINT_VARIABLE}."
        )
        return None
    if ask.remembers(url, MANTLE):
        return None
    exact = True
    try:
        if "converse" in ask.input:
            body, betas, exact = from_converse(ask.input["converse"])
        else:
            body, betas = from_native(ask.input["invokeModel"]["body"])
    except NoEqual as error:
        ask.reasons.append(f"on bedrock-mantle, {error}.")
        ask.advice = "Leave that part out, or count it for a model that bedrock-runtime counts."
        return None
    name = countable.mantle_name(ask.base)
    try:
        counted = yield from mantle.count(ask.client, url, name, body, betas)
    except ClientError as error:
        ask.refuse(url, MANTLE, error)
        return None
    return TokenCount(counted, ask.sent, name, MANTLE, exact)


_ASK = {RUNTIME: _ask_runtime, MANTLE: _ask_mantle}


def _settings() -> Config:
    """Return the Config that is in force: of instrument(), else of the environment."""
    # Here, for the package's own __init__ imports both.
    from otel_bedrock import instrumentor

    config = instrumentor.current_config()
    return read_config({}) if config is None else config


def _base_of(
    client: Any, sent: str, aliases: Mapping[str, str] | None, resolves: bool
) -> Generator[Step, Any, str]:
    """Return the bare id that CountTokens takes."""
    model = parse(sent)
    if model.base_id is None and aliases:
        model = resolve(model, aliases)
    if model.base_id is None and resolves:
        model = yield partial(_look_up, client, model)
    if model.base_id is not None:
        return model.base_id
    if model.arn is None:
        # Bedrock knows more ids than we do, and says so where it does not.
        return sent
    question = lookup.TABLE.get(model.kind or "")
    advice = "Name its model in model_aliases"
    if question is not None and not resolves:
        advice += (
            f", or set resolve_models, which needs the IAM action bedrock:{question.operation}"
        )
    raise TokenCountUnsupported(sent, "its id does not tell which model it is.", f"{advice}.")


def _look_up(client: Any, model: ModelId) -> Any:
    import asyncio
    from inspect import iscoroutinefunction

    if iscoroutinefunction(client._make_api_call):
        return asyncio.to_thread(lookup.wait, client, model)
    return lookup.wait(client, model)
