"""Counting: how many input tokens a request would be billed for, asked before it is sent.

`count_tokens` takes the very arguments that the call would take. It is free of charge, and its
answer is no usage: it feeds no metric of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import isawaitable
from typing import Any

from otel_bedrock import asking
from otel_bedrock.asking import TokenCount, TokenCountUnsupported
from otel_bedrock.countable import Memory

__all__ = ["TokenCount", "TokenCountUnsupported", "count_tokens", "count_tokens_async"]


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
        TypeError: the client is none.
        ValueError: the client is of another service, the request has no modelId, or neither
            messages nor a body that can be read, or the endpoint of bedrock-mantle is no URL.
    """
    steps = asking.steps(client, request, model_aliases, resolve_models, mantle_endpoint, memory)
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
            except BaseException as error:
                # An interruption goes through as well: what has begun is ended on its way.
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
    steps = asking.steps(client, request, model_aliases, resolve_models, mantle_endpoint, memory)
    try:
        step = next(steps)
        while True:
            try:
                result = step()
                if isawaitable(result):
                    result = await result
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        counted: TokenCount = end.value
        return counted
