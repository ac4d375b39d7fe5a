"""Correlation: trace and span ids in `requestMetadata`, so that a log record finds its trace.

`instrument(correlate_logs=True)` adds two pairs to what is sent, under names of our own: a record
that has them was made by a call that this package reported live, traced or not. The caller's own
pairs come first: where ours do not fit beside them, the call goes out as it is.
https://docs.aws.amazon.com/bedrock/latest/userguide/cost-mgmt-request-metadata.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from opentelemetry.trace import Span

from otel_bedrock import shield

TRACE_KEY = "otel_trace_id"
SPAN_KEY = "otel_span_id"
# What a program without this package may send; it says nothing of who reported the call.
FOREIGN_KEY = "traceparent"

_MEMBER = "requestMetadata"
_PARAMETERS = "api_params"
_NOT_GIVEN = object()
# Where the service model does not say.
_MOST_PAIRS, _MOST_CHARACTERS = 16, 8500

_TRACE = re.compile(r"(?!0{32})[0-9a-f]{32}")
_SPAN = re.compile(r"(?!0{16})[0-9a-f]{16}")
_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


class Origin(NamedTuple):
    """The span that made a call; `ours` where this package put its ids there."""

    trace_id: int
    span_id: int
    ours: bool


def read_origin(metadata: Mapping[str, Any]) -> Origin | None:
    """Read the span's ids from what was sent as `requestMetadata`; None where there are none."""
    ours = _origin(metadata.get(TRACE_KEY), metadata.get(SPAN_KEY), True)
    if ours is not None:
        return ours
    parent = metadata.get(FOREIGN_KEY)
    match = _PARENT.fullmatch(parent) if isinstance(parent, str) else None
    return None if match is None else _origin(match[1], match[2], False)


def _origin(trace: Any, span: Any, ours: bool) -> Origin | None:
    if not isinstance(trace, str) or not isinstance(span, str):
        return None
    if _TRACE.fullmatch(trace) is None or _SPAN.fullmatch(span) is None:
        return None
    return Origin(int(trace, 16), int(span, 16), ours)


Given = tuple[tuple[Any, ...], dict[str, Any]]


def correlate(span: Span, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Given:
    """Return the arguments of `_make_api_call` with the ids of `span` in what is sent.

    Nothing of the caller's is changed: what has to be is copied. Where the operation has no such
    member, or it has no room or is no mapping, the arguments come back as they were.
    """
    try:
        named = len(args) < 2
        api = args[0] if args else kwargs.get("operation_name")
        parameters = kwargs.get(_PARAMETERS) if named else args[1]
        context = span.get_span_context()
        if not context.is_valid or not isinstance(parameters, dict) or not isinstance(api, str):
            return args, kwargs
        shape = client.meta.service_model.operation_model(api).input_shape
        member = shape.members.get(_MEMBER)
        if member is None:
            return args, kwargs
        ids = {TRACE_KEY: f"{context.trace_id:032x}", SPAN_KEY: f"{context.span_id:016x}"}
        sent = _add(parameters.get(_MEMBER, _NOT_GIVEN), ids, member)
        if sent is None:
            return args, kwargs
        changed = {**parameters, _MEMBER: sent}
        if named:
            return args, {**kwargs, _PARAMETERS: changed}
        return (args[0], changed, *args[2:]), kwargs
    except Exception as error:
        shield.stop("correlate", error)
        return args, kwargs


def _add(given: Any, ids: Mapping[str, str], member: Any) -> Any:
    """Return what is sent in place of `given`: a mapping, or its JSON; None to leave it alone."""
    is_text = member.type_name == "string"
    pairs: Any = given
    if given is _NOT_GIVEN:
        pairs = {}
    elif not isinstance(given, str if is_text else dict):
        # The caller is to have botocore's error, None not left out.
        return None
    elif is_text:
        try:
            pairs = json.loads(pairs)
        except (ValueError, RecursionError):
            return None
    if not isinstance(pairs, Mapping) or TRACE_KEY in pairs or SPAN_KEY in pairs:
        return None
    most = member.metadata.get("max")
    all_pairs = {**pairs, **ids}
    if len(all_pairs) > (_MOST_PAIRS if is_text or most is None else most):
        return None
    if not is_text:
        return all_pairs
    text = json.dumps(all_pairs)
    return None if len(text) > (most or _MOST_CHARACTERS) else text
