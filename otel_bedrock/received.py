"""What a receiver keeps: spans and metric points as plain frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

Plain = str | bool | int | float | bytes | None | tuple["Plain", ...] | dict[str, "Plain"]
Attributes = Mapping[str, Plain]
Kind = Literal["sum", "gauge", "histogram"]
Temporality = Literal["cumulative", "delta"] | None


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """One event of a span."""

    name: str
    time_ns: int
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """One span; ids are hexadecimal, `parent_id` is None at the root."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: str
    start_ns: int
    end_ns: int
    attributes: Attributes
    status_code: str
    status_message: str
    events: tuple[ReceivedEvent, ...]
    resource: Attributes
    scope: str


@dataclass(frozen=True, slots=True)
class ReceivedPoint:
    """One data point: `value` of a sum or gauge, `count` and `sum` of a histogram."""

    metric: str
    unit: str
    kind: Kind
    temporality: Temporality
    attributes: Attributes
    value: int | float | None
    count: int | None
    sum: float | None
    start_ns: int
    time_ns: int
    resource: Attributes
    scope: str

    @property
    def series(self) -> tuple[object, ...]:
        """What this point shares with the later points of the same series; hashable."""
        return (
            self.metric,
            self.kind,
            self.temporality,
            _freeze(self.attributes),
            _freeze(self.resource),
            self.scope,
        )

    def plus(self, other: ReceivedPoint) -> ReceivedPoint:
        """Both together, over both times: two deltas, or the lives of a restarted process."""
        return replace(
            self,
            value=_add(self.value, other.value),
            count=_add(self.count, other.count),
            sum=_add(self.sum, other.sum),
            start_ns=min(self.start_ns, other.start_ns),
            time_ns=max(self.time_ns, other.time_ns),
        )


def _freeze(value: Plain | Attributes) -> object:
    if isinstance(value, Mapping):
        return tuple(sorted((key, _freeze(item)) for key, item in value.items()))
    return value


Number = TypeVar("Number", int, float)


def _add(a: Number | None, b: Number | None) -> Number | None:
    if a is None or b is None:
        return a if b is None else b
    return a + b
