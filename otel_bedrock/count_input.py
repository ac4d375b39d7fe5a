"""Input: what CountTokens takes of the request that a caller is about to send, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import isawaitable
from typing import Any

# What CountTokens takes of a Converse request where the installed botocore does not say.
CONVERSE_MEMBERS = ("messages", "system", "toolConfig", "additionalModelRequestFields")


def read_input(service_model: Any, request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the member `input` of CountTokens for a Converse or an InvokeModel request.

    Raises:
        ValueError: neither messages nor a body, or a body that cannot be read.
        TypeError: a body of a type that InvokeModel does not take.
    """
    if request.get("body") is not None:
        return {"invokeModel": {"body": read_body(request["body"])}}
    taken = {
        name: request[name]
        for name in converse_members(service_model)
        if request.get(name) is not None
    }
    if "messages" not in taken:
        raise ValueError(
            "expected the messages of converse(), or the body of invoke_model(); got"
            f" {', '.join(sorted(request))}"
        )
    return {"converse": taken}


def converse_members(service_model: Any) -> tuple[str, ...]:
    """Return what CountTokens takes of a Converse request, as the service's description has it."""
    if "CountTokens" not in service_model.operation_names:
        return CONVERSE_MEMBERS
    shape = service_model.operation_model("CountTokens").input_shape
    return tuple(shape.members["input"].members["converse"].members)


def read_body(body: Any) -> bytes:
    """Return a body of InvokeModel as bytes, and leave the caller's as it was.

    Raises:
        ValueError: a file that cannot be sought: reading would use it up.
        TypeError: nothing that InvokeModel takes.
    """
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    read = getattr(body, "read", None)
    if read is None:
        raise TypeError(f"body: expected text, bytes or a file; got {type(body).__name__!r}")
    try:
        place = body.tell() if body.seekable() else None
    except (AttributeError, OSError):
        place = None
    if place is None:
        raise ValueError(
            "body: this file cannot be sought, so that counting would use it up; read it first,"
            " and give its bytes to both"
        )
    try:
        data = read()
    finally:
        body.seek(place)
    if isawaitable(data):
        getattr(data, "close", lambda: None)()
        raise TypeError("body: an asynchronous file; read it first, and give its bytes to both")
    return data.encode() if isinstance(data, str) else bytes(data)
