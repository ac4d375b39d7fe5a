"""PastCall: the Recording of a call that is over when it is told.

How long it took is known from elsewhere, or is not known, and then no duration is recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.context import get_current

from otel_bedrock import signals
from otel_bedrock.recording import Recording

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from otel_bedrock.call import Call, Outcome
    from otel_bedrock.recorder import Attributes, Measurement, Recorder

_DURATIONS = frozenset((*signals.DURATIONS.values(), "operation_duration"))


class PastCall(Recording):
    """Finish it with an end whose second part is `seconds`, or 0 where that is None."""

    __slots__ = ("_seconds",)

    def __init__(self, recorder: Recorder, call: Call, span: Span, seconds: float | None) -> None:
        super().__init__(recorder, call, span, get_current())
        self.started = 0.0
        self._seconds = seconds

    def _durations(self, made: list[Measurement], outcome: Outcome, base: Attributes) -> None:
        all_of_them: list[Measurement] = []
        super()._durations(all_of_them, outcome, base)
        made.extend(
            measurement
            for measurement in all_of_them
            if self._seconds is not None or measurement[0] not in _DURATIONS
        )
