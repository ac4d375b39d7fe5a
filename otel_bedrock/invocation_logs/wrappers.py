"""Wrappers: what CloudWatch, Kinesis and the AWS CLI put around records, taken off.

A value of a file, an event of CloudWatch Logs or the payload of a subscription gives any number
of records; what is none of these is given as a Corrupt, so that nothing goes by unnoticed.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any

from otel_bedrock.invocation_logs.inflate import Broken, inflate
from otel_bedrock.invocation_logs.parsing import loads
from otel_bedrock.invocation_logs.record import is_record
from otel_bedrock.invocation_logs.values import Corrupt

# Members that hold a list of wrapped things: `aws logs get-log-events` and `filter-log-events`,
# a subscription's payload, a query of Logs Insights, an event of Kinesis or S3's export.
_LISTS = ("events", "logEvents", "results", "Records")
# Members that hold one thing, as text or as JSON: an event's message, as the APIs and as Logs
# Insights name it.
_MESSAGES = ("message", "@message")
# Members that hold a payload in gzip and base64: of a Lambda function, of Kinesis.
_PAYLOADS = (("awslogs", "data"), ("kinesis", "data"))
_DEEPEST = 8
_NO_MESSAGE = "a row of Logs Insights without its record: ask for `fields @message`"


class Unwrapper:
    """Unwraps the values of one file, in which a query's row may come a field at a time."""

    def __init__(self) -> None:
        self._field: int | None = None
        self._message = False

    def take(self, value: Any, line: int) -> Iterator[Any]:
        """Yield what `unwrap` does."""
        if _is_field(value):
            self._field = line
            self._message = self._message or _is_message(value)
        return unwrap(value, line)

    def end(self) -> Iterator[Corrupt]:
        """Yield what could not be said before all values were there."""
        if self._field is not None and not self._message:
            yield Corrupt(self._field, _NO_MESSAGE)


def unwrap(value: Any, line: int = 0, depth: int = 0) -> Iterator[Any]:
    """Yield the records in `value`, as dicts, and a Corrupt for what is no record."""
    if is_record(value):
        yield value
        return
    if depth > _DEEPEST:
        yield Corrupt(line, "wrapped too deeply")
        return
    if isinstance(value, Corrupt):
        yield value
    elif isinstance(value, list):
        if value and all(map(_is_field, value)) and not any(map(_is_message, value)):
            yield Corrupt(line, _NO_MESSAGE)
            return
        for item in value:
            yield from unwrap(item, line, depth + 1)
    elif isinstance(value, dict):
        yield from _unwrap_object(value, line, depth + 1)
    else:
        yield Corrupt(line, f"expected an invocation log record, got {type(value).__name__}")


def _unwrap_object(value: dict[str, Any], line: int, depth: int) -> Iterator[Any]:
    # CloudWatch sends one to see whether a subscription's destination is there.
    if value.get("messageType") == "CONTROL_MESSAGE":
        return
    if _is_field(value):
        if _is_message(value):
            yield from _unwrap_text(value["value"], line, depth)
        return
    for name in _MESSAGES:
        if name in value:
            yield from _unwrap_text(value[name], line, depth)
            return
    for outer, inner in _PAYLOADS:
        if isinstance(value.get(outer), dict):
            yield from _unwrap_payload(value[outer].get(inner), line, depth)
            return
    for name in _LISTS:
        if isinstance(value.get(name), list):
            yield from unwrap(value[name], line, depth)
            return
    yield Corrupt(line, "an object that is no invocation log record")


def _is_field(value: Any) -> bool:
    """Say whether a value is one field of a row of Logs Insights."""
    return isinstance(value, dict) and "field" in value and "value" in value


def _is_message(field: dict[str, Any]) -> bool:
    return field["field"] in _MESSAGES


def _unwrap_text(text: Any, line: int, depth: int) -> Iterator[Any]:
    if isinstance(text, str):
        try:
            text = loads(text.encode())
        except ValueError:
            yield Corrupt(line, "a log event whose message is no JSON")
            return
    yield from unwrap(text, line, depth)


def _unwrap_payload(data: Any, line: int, depth: int) -> Iterator[Any]:
    try:
        packed = base64.b64decode(data, validate=True)
        plain = loads(b"".join(inflate([packed])))
    except (TypeError, ValueError, binascii.Error, Broken):
        yield Corrupt(line, "a payload that is no JSON in gzip and base64")
        return
    yield from unwrap(plain, line, depth)
