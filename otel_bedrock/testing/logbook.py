"""Logbook: the events of a `capture` block, kept in memory through whichever logs API there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `attributes` hold its content too, wherever the API in use had it."""

    name: str
    attributes: Mapping[str, Any]
    trace_id: int | None
    span_id: int | None
    severity: str
    timestamp: int | None


def keep_events() -> tuple[Any, list[Event]]:
    """Return a logger provider, and the list that it appends its events to."""
    # Not the SDK's provider: its exporters and processors were renamed more than once.
    from opentelemetry._logs import Logger, LoggerProvider

    kept: list[Event] = []

    class Keeper(Logger):
        def emit(self, record: Any = None, **_: Any) -> None:
            kept.append(_event(record))

        def enabled(self, **_: Any) -> bool:
            return True

    class Keepers(LoggerProvider):
        def get_logger(self, name: str, *_: Any, **__: Any) -> Logger:
            return Keeper(name)

    return Keepers(), kept


def _event(record: Any) -> Event:
    attributes = dict(record.attributes or {})
    # Until 1.37 of the API the name was an attribute, and structures stood in the body.
    name = getattr(record, "event_name", None) or attributes.pop("event.name", "")
    if isinstance(record.body, Mapping):
        attributes.update(record.body)
    return Event(
        name=str(name),
        attributes=attributes,
        trace_id=record.trace_id,
        span_id=record.span_id,
        severity=record.severity_number.name,
        timestamp=record.timestamp,
    )
