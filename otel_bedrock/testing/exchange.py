"""One request on its way to an answer: what it asks for, what it costs, what is said to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from time import perf_counter

from otel_bedrock.testing import converse, errors
from otel_bedrock.testing.answer import Answer, compose
from otel_bedrock.testing.cache import PromptCache
from otel_bedrock.testing.cost import Cost
from otel_bedrock.testing.errors import Refused, invalid
from otel_bedrock.testing.families import Family, Model
from otel_bedrock.testing.prompt import Prompt
from otel_bedrock.testing.shapes.shape import Body, Reply, Shape

Headers = list[tuple[str, str]]
# An encoded frame, and whether the whole usage has been told with it.
Frame = tuple[bytes, bool]
_SILENCE = Answer("", 0, "end")
# Asked for in a request header, confirmed in a response header.
_ECHOED = {
    "x-amzn-bedrock-service-tier": "X-Amzn-Bedrock-Service-Tier",
    "x-amzn-bedrock-performanceconfig-latency": "X-Amzn-Bedrock-PerformanceConfig-Latency",
}


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, the model that it names, and the time since it came."""

    model: Model
    request_id: str
    headers: dict[str, str]
    raw: bytes
    started: float
    cache: PromptCache

    def latency(self) -> int:
        """Milliseconds so far; never 0, for no real call is that fast."""
        return max(1, round((perf_counter() - self.started) * 1000))

    def echo(self) -> Headers:
        return [(name, self.headers[key]) for key, name in _ECHOED.items() if key in self.headers]


@dataclass(frozen=True, slots=True)
class Whole:
    """An answer in one piece."""

    body: bytes
    headers: Headers
    cost: Cost | None = None
    # The body as the invocation log has it; None where the operation is not logged.
    logged: Callable[[], object] | None = None


@dataclass(frozen=True, slots=True)
class Streamed:
    """An answer in frames."""

    frames: Iterator[Frame]
    headers: Headers
    cost: Cost | None
    logged: Callable[[], object] | None = None


def load(raw: bytes) -> Body:
    """Parse a JSON body, or refuse it."""
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise invalid(errors.MALFORMED) from error
    if not isinstance(body, dict):
        raise invalid(errors.MALFORMED)
    return body


def read_prompt(read: Callable[[Body], Prompt], body: Body) -> Prompt:
    """Read a body, or refuse it where it is not what the reader expects."""
    try:
        prompt = read(body)
        if not isinstance(prompt.max_tokens, (int, type(None))):
            raise invalid(errors.MALFORMED)
        return prompt
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        # Some member is of a kind that the reader did not foresee; nor does Bedrock.
        raise invalid(errors.MALFORMED) from error


def shape_of(family: Family, body: Body) -> Shape:
    """Find the shape of the family that the body has, or name what it lacks."""
    for shape in family.shapes:
        if shape.key in body:
            for key in shape.required:
                if key not in body:
                    raise invalid(errors.MISSING_KEY.format(key))
            return shape
    raise invalid(errors.MISSING_KEY.format(family.shapes[0].key))


def _charge(exchange: Exchange, prompt: Prompt, talks: bool, streamed: bool) -> Cost:
    """The input's price; `talks` is Converse, which leaves away counts that InvokeModel has."""
    rule = exchange.model.family.cache
    if rule is None:
        if prompt.marked:
            raise Refused("AccessDeniedException", errors.NO_CACHING)
        return Cost(prompt.tokens)
    if prompt.marked or rule.implicit:
        return exchange.cache.charge(exchange.model.base, prompt, implicit=rule.implicit)
    if talks and (streamed or not rule.zeros_in_converse):
        return Cost(prompt.tokens)
    hidden = talks and rule.hides_zero_write
    return Cost(prompt.tokens, read=0, write=None if hidden else 0)


def reply_to(
    exchange: Exchange, body: Body, prompt: Prompt, shape: Shape, talks: bool, streamed: bool
) -> Reply:
    """Let the model answer and price it."""
    family = exchange.model.family
    if family.thinks:
        prompt = replace(prompt, thinks=True)
    answer = compose(prompt) if shape.generates else _SILENCE
    cost = _charge(exchange, prompt, talks, streamed)
    if shape.generates:
        cost = replace(cost, output=answer.tokens, reasoning=answer.reasoning_tokens)
    finishes = converse.FINISHES if talks else shape.finishes
    return Reply(
        model=exchange.model.base,
        request_id=exchange.request_id,
        prompt=prompt,
        answer=answer,
        cost=cost,
        finish=finishes.get(answer.finish, ""),
        request=body,
        splits=family.cache is not None and family.cache.splits,
        signs=family.signs,
        doubles=talks and streamed and family.cache is not None and family.cache.doubles_in_stream,
    )
