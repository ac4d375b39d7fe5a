"""Asking: the steps of one count, from the model's id to the endpoint that answers.

They are a generator of things to do, so that the caller does them: made or awaited, they are the
same (see `counting`).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from otel_bedrock import countable, lookup
from otel_bedrock.call import Call, Outcome
from otel_bedrock.config import read_config
from otel_bedrock.count_input import read_input
from otel_bedrock.countable import MANTLE, RUNTIME, Memory
from otel_bedrock.errors import read_error
from otel_bedrock.model_id import ModelId, parse, resolve
from otel_bedrock.threads import Threads

if TYPE_CHECKING:
    from otel_bedrock.config import Config
    from otel_bedrock.mantle import Step

remembered = Memory()
_threads = Threads("otel-bedrock-ask", 4)


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


def steps(
    client: Any,
    request: Mapping[str, Any],
    aliases: Mapping[str, str] | None,
    resolves: bool | None,
    mantle_endpoint: str | None,
    memory: Memory | None,
) -> Generator[Step, Any, TokenCount]:
    """Count `request`: see `counting.count_tokens`."""
    _check(client)
    sent = request.get("modelId")
    if not isinstance(sent, str) or not sent:
        raise ValueError(f"modelId: expected the id of a model; got {sent!r}")
    asked = read_input(client.meta.service_model, request)
    if aliases is None or resolves is None:
        config = _settings()
        aliases = config.model_aliases if aliases is None else aliases
        resolves = config.resolve_models if resolves is None else resolves
    base = yield from _base_of(client, sent, aliases, resolves)
    memory = remembered if memory is None else memory
    ask = _Ask(client, sent, base, asked, memory, mantle_endpoint)
    for endpoint in countable.find(base).endpoints:
        counted = yield from _ASK[endpoint](ask)
        if counted is not None:
            return counted
    raise TokenCountUnsupported(sent, " ".join(ask.reasons), ask.advice)


def _check(client: Any) -> None:
    service = getattr(getattr(client, "meta", None), "service_model", None)
    if service is None:
        raise TypeError(f"client: expected a client of {RUNTIME}; got {client!r}")
    if service.service_name != RUNTIME:
        raise ValueError(f"client: expected one of {RUNTIME}; got one of {service.service_name}")


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
            " give its URL (mantle_endpoint=, --mantle-endpoint-url), or set"
            f" {mantle.ENDPOINT_VARIABLE}."
        )
        return None
    if ask.remembers(url, MANTLE):
        return None
    _validate(ask)
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
        counted = yield from _told(
            mantle.count(ask.client, url, name, body, betas), url, name, ask.client.meta.region_name
        )
    except ClientError as error:
        ask.refuse(url, MANTLE, error)
        return None
    return TokenCount(counted, ask.sent, name, MANTLE, exact)


def _validate(ask: _Ask) -> None:
    """Raise what botocore would raise: at bedrock-mantle nobody else looks at the parameters."""
    from botocore.validate import validate_parameters

    model = ask.client.meta.service_model
    if ask.client.meta.config.parameter_validation and "CountTokens" in model.operation_names:
        given = {"modelId": ask.base, "input": ask.input}
        validate_parameters(given, model.operation_model("CountTokens").input_shape)


def _told(
    asking: Generator[Step, Any, int], url: str, model: str, region: str | None
) -> Generator[Step, Any, int]:
    """Do `asking`, and tell it as CountTokens is told: botocore does not see this call."""
    from otel_bedrock import instrumentor

    recorder = instrumentor.current_recorder()
    if recorder is None:
        return (yield from asking)
    parts = urlsplit(url)
    recording = recorder.start(
        Call(
            api="CountTokens",
            operation="count_tokens",
            model=parse(model),
            address=parts.hostname,
            port=parts.port or (443 if parts.scheme == "https" else 80),
            region=region,
        )
    )
    recording.spends = False
    try:
        counted = yield from asking
    except BaseException as error:
        recording.finish(Outcome(**read_error(error)))
        raise
    recording.finish(Outcome(counted_tokens=counted, retry_attempts=0))
    return counted


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
    advice = "Name its model in model_aliases (OTEL_BEDROCK_MODEL_ALIASES)"
    if question is not None and not resolves:
        advice += (
            ", or set resolve_models (OTEL_BEDROCK_RESOLVE_MODELS=1), which needs the IAM action"
            f" bedrock:{question.operation}"
        )
    raise TokenCountUnsupported(sent, "its id does not tell which model it is.", f"{advice}.")


def _look_up(client: Any, model: ModelId) -> Any:
    import asyncio
    from inspect import iscoroutinefunction

    if iscoroutinefunction(client._make_api_call):
        return asyncio.wrap_future(_threads.submit(lookup.wait, client, model))
    return lookup.wait(client, model)
