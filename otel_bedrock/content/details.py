"""Details: the event that carries content beside the span, through whichever API there is.

Events are log records. Until 1.37 they had an API of their own, `opentelemetry._events`, which
newer versions do not have; since 1.38 a logger takes them as they are. Either is imported with
the first event, so only where events are asked for.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context

from otel_bedrock.signals import DETAILS as NAME
from otel_bedrock.version import __version__

log = logging.getLogger("otel_bedrock")

_LOGS = "opentelemetry._logs"
# The older way, in the API and in the SDK.
_EVENTS = ("opentelemetry._events", "opentelemetry.sdk._events")

_MISSING = (
    "the installed OpenTelemetry has no API for events: content is not reported as events."
    " Upgrade opentelemetry-api and opentelemetry-sdk, or capture content on spans (SPAN_ONLY)"
)
_NOWHERE = (
    "no OpenTelemetry logger provider is configured: events with content go nowhere. Set one"
    " up, or call otel_bedrock.instrument(logger_provider=…)"
)

# (attributes, content, context, nanoseconds)
Emit = Callable[[Mapping[str, Any], Mapping[str, Any], Context, int], None]


class Details:
    """Emits events to `logger_provider`, the global one where it is None.

    `provider` is where events went; None where there were none.
    """

    __slots__ = ("_emit", "_given", "_schema", "provider")

    def __init__(self, logger_provider: Any = None, schema_url: str | None = None) -> None:
        self.provider: Any = None
        self._given = logger_provider
        self._schema = schema_url
        self._emit: Emit | None = None

    def emit(
        self, attributes: Mapping[str, Any], content: Mapping[str, Any], context: Context, at: int
    ) -> None:
        """Emit the event of a call: what its span says, and its content as structures."""
        if self._emit is None:
            self._emit = self._find()
        self._emit(attributes, content, context, at)

    def _find(self) -> Emit:
        scope = ("otel_bedrock", __version__)
        try:
            logs = importlib.import_module(_LOGS)
            provider = logs.get_logger_provider() if self._given is None else self._given
            if "event_name" in inspect.signature(logs.Logger.emit).parameters:
                emit = _by_logger(logs, logs.get_logger(*scope, provider, self._schema))
            else:
                events, sdk = (importlib.import_module(name) for name in _EVENTS)
                loggers = sdk.EventLoggerProvider(provider)
                emit = _by_event_logger(
                    logs, events, loggers.get_event_logger(*scope, self._schema)
                )
        except ImportError:
            log.warning(_MISSING)
            return _emit_nothing
        if self._given is None and not hasattr(provider, "force_flush"):
            # Only the SDK's providers can be flushed. The API's stand-in goes on to a later one.
            log.warning(_NOWHERE)
        self.provider = provider
        return emit


def _emit_nothing(_: object, __: object, ___: object, ____: object) -> None:
    pass


def _by_logger(logs: Any, logger: Any) -> Emit:
    def emit(
        attributes: Mapping[str, Any], content: Mapping[str, Any], context: Context, at: int
    ) -> None:
        logger.emit(
            logs.LogRecord(
                timestamp=at,
                context=context,
                severity_number=logs.SeverityNumber.DEBUG,
                severity_text="DEBUG",
                attributes={**attributes, **content},
                event_name=NAME,
            )
        )

    return emit


def _by_event_logger(logs: Any, events: Any, logger: Any) -> Emit:
    def emit(
        attributes: Mapping[str, Any], content: Mapping[str, Any], context: Context, at: int
    ) -> None:
        span = trace.get_current_span(context).get_span_context()
        logger.emit(
            events.Event(
                NAME,
                timestamp=at,
                trace_id=span.trace_id,
                span_id=span.span_id,
                trace_flags=span.trace_flags,
                severity_number=logs.SeverityNumber.DEBUG,
                attributes=dict(attributes),
                # Attributes were flat then; a body never was.
                body=dict(content),
            )
        )

    return emit
