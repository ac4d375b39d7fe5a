"""Correlation: trace and span ids in `requestMetadata`, so that a log record finds its trace.

Two pairs under names of our own: a record that has them was made by a call that this package
reported live, traced or not.
https://docs.aws.amazon.com/bedrock/latest/userguide/cost-mgmt-request-metadata.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

TRACE_KEY = "otel_trace_id"
SPAN_KEY = "otel_span_id"
# What a program without this package may send; it says nothing of who reported the call.
FOREIGN_KEY = "traceparent"

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
