"""Outlet: hands spans and sums to an OTLP endpoint, and knows whether they arrived."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from otel_bedrock import sdk

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0


class ExportError(Exception):
    """The endpoint took nothing for as long as was to be waited; nothing is lost by that."""


class Outlet(Protocol):
    """Where an ingest sends what it tells; both return only when it has arrived."""

    def send_spans(self, spans: Sequence[Any]) -> None:
        """Hand over spans of the SDK."""

    def send_metrics(self, data: Any) -> None:
        """Hand over MetricsData of the SDK."""


class OtlpOutlet:
    """Sends to `endpoint`, again and again for `patience` seconds (None: for ever).

    `stopping` says whether to give up early, `waiting` is told each time that nothing arrived.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        patience: float | None = 60.0,
        stopping: Callable[[], bool] = lambda: False,
        waiting: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._endpoint = endpoint
        self._patience = patience
        self._stopping = stopping
        self._waiting = waiting
        self._spans, self._metrics, loggers = sdk.make_exporters(endpoint)
        self._reason = _Reason()
        for name in loggers:
            logging.getLogger(name).addFilter(self._reason)

    def send_spans(self, spans: Sequence[Any]) -> None:
        self._send(self._spans.export, spans)

    def send_metrics(self, data: Any) -> None:
        self._send(self._metrics.export, data)

    def _send(self, export: Callable[[Any], Any], data: Any) -> None:
        pause, since = _FIRST_PAUSE, time.monotonic()
        while True:
            try:
                if getattr(export(data), "name", "SUCCESS") == "SUCCESS":
                    return
                why = self._reason.text
            except Exception as error:
                # Exporters of older SDKs raise.
                why = f"{type(error).__name__}: {error}"
            waited = time.monotonic() - since
            if self._stopping() or (self._patience is not None and waited >= self._patience):
                raise ExportError(
                    f"{self._endpoint} took nothing for {waited:.0f} s: {why}. Is an OpenTelemetry"
                    " Collector listening there? Nothing is lost: what was not handed over is"
                    " taken up by the next run"
                )
            self._waiting(why)
            self._sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stopping():
            time.sleep(0.1)


class _Reason(logging.Filter):
    """Keeps the last complaint of an exporter, and keeps it from being printed."""

    text = "no reason was given"

    def filter(self, record: logging.LogRecord) -> bool:
        self.text = record.getMessage().splitlines()[0][:200]
        return False
