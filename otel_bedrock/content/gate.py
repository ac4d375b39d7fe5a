"""Gate: how content is read where the gate is open, and where it may go.

A Content gathers what one call says, ready to leave: in the conventions' shapes, redacted,
within `content_limit`, without media. A redaction that fails drops what it was given; nothing
leaves unredacted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from otel_bedrock import shield
from otel_bedrock.config import Config
from otel_bedrock.content import messages
from otel_bedrock.content.deltas import READERS, read_event
from otel_bedrock.content.excerpt import Copier, Excerpt, fit
from otel_bedrock.content.pieces import Pieces
from otel_bedrock.setting_values import EVENT_ONLY, SPAN_AND_EVENT, SPAN_ONLY

_T = TypeVar("_T")


class Gate:
    """An open gate: how content is read, and where it may go."""

    __slots__ = ("body_limit", "copy", "limit", "on_events", "on_spans")

    def __init__(self, config: Config) -> None:
        self.on_spans = config.capture_content in (SPAN_ONLY, SPAN_AND_EVENT)
        self.on_events = config.capture_content in (EVENT_ONLY, SPAN_AND_EVENT)
        self.limit = config.content_limit
        self.body_limit = config.body_limit
        self.copy = Copier(config.content_limit, config.redact)

    def read(self, reads: str, parameters: Any) -> Content:
        """Begin the Content of a call with its request; `reads` is that of its row.

        Now, not at the end: the caller may add to the same messages while a stream goes on.
        """
        content = Content(self)
        content.see_request(reads, parameters)
        return content


class Content:
    """The content of one call, as far as it has been seen. Nothing here raises."""

    __slots__ = ("_answer", "_pieces", "_reads", "_request", "gate")

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self._reads = ""
        self._request: dict[str, Excerpt] = {}
        self._answer: Any = None
        self._pieces: Pieces | None = None

    def see_request(self, reads: str, parameters: Any) -> None:
        """Take the parameters of the call."""
        gate, self._reads = self.gate, reads

        def read() -> dict[str, Excerpt]:
            found = messages.read_request(reads, parameters, gate.copy, gate.body_limit)
            fitted = {name: fit(value, gate.limit) for name, value in found.items()}
            return {name: value for name, value in fitted.items() if value is not None}

        self._request = _shielded("content.request", read, {})

    def see_answer(self, answer: Any) -> None:
        """Take what the call returned at once, or the body that it returned, parsed."""
        self._answer = answer

    def see_event(self, event: Any) -> None:
        """Take one event of the stream that the call returned."""
        pieces = self._pieces
        if pieces is None:
            pieces = self._pieces = Pieces(self.gate.limit)
        try:
            READERS.get(self._reads, read_event)(event, pieces)
        except Exception as error:
            shield.stop("content.event", error)

    def told(self, reasons: tuple[str, ...] | None) -> dict[str, Excerpt]:
        """Return what may leave: those of input, system, tools and output that are there.

        `reasons` are the finish reasons of the call, one for each message of the output.
        """
        gate, pieces, answer = self.gate, self._pieces, self._answer
        self._answer = None

        def read() -> Excerpt | None:
            if pieces is not None:
                output = pieces.messages(gate.copy)
            else:
                output = messages.read_answer(answer, gate.copy).get("output", [])
            for message, reason in zip(output, reasons or (), strict=False):
                message["finish_reason"] = reason
            return fit(output, gate.limit) if output else None

        excerpt = _shielded("content.output", read, None)
        return self._request if excerpt is None else {**self._request, "output": excerpt}

    def message(self, text: str | None) -> str | None:
        """Return the message of an error as it may leave."""
        if text is None:
            return None
        said = text

        def read() -> str | None:
            return self.gate.copy.text(said)[: self.gate.limit] or None

        return _shielded("content.error", read, None)


def _shielded(site: str, read: Callable[[], _T], otherwise: _T) -> _T:
    try:
        return read()
    except Exception as error:
        shield.stop(site, error)
        return otherwise
