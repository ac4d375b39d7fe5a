"""Outlet: hands spans and sums to an OTLP endpoint, and knows whether they arrived."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol

from otel_bedrock import sdk

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
_COMMON = "opentelemetry.exporter.otlp.proto.common"
# What the exporters encode with.
_SPANS = (f"{_COMMON}.trace_encoder", "encode_spans")
_METRICS = (f"{_COMMON}.metrics_encoder", "encode_metrics")
_REQUEST = "aws.request_id"


class ExportError(Exception):
    """The endpoint took nothing for as long as was to be waited; nothing is lost by that."""


class Outlet(Protocol):
    """Where an ingest sends what it tells; both return only when it has arrived."""

    def send_spans(self, spans: Sequence[Any]) -> Sequence[str]:
        """Hand over spans of the SDK; returns in words what had to be left out, and why."""

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

    def send_spans(self, spans: Sequence[Any]) -> list[str]:
        left_out = []
        try:
            self._send(self._spans.export, spans, _SPANS)
        except _Unencodable:
            good = []
            for span in spans:
                why = _refusal([span], _SPANS)
                if why is None:
                    good.append(span)
                else:
                    request = (span.attributes or {}).get(_REQUEST)
                    left_out.append(f"the span of request {request} cannot be encoded: {why}")
            if good:
                self._send(self._spans.export, good, _SPANS)
        return left_out

    def send_metrics(self, data: Any) -> None:
        try:
            self._send(self._metrics.export, data, _METRICS)
        except _Unencodable as error:
            raise ExportError(f"the sums cannot be encoded: {error}. Please report it") from error

    def _send(
        self, export: Callable[[Any], Any], data: Any, encoder: tuple[str, str] | None = None
    ) -> None:
        pause, since = _FIRST_PAUSE, time.monotonic()
        while True:
            try:
                if getattr(export(data), "name", "SUCCESS") == "SUCCESS":
                    return
                why = self._reason.text
            except Exception as error:
                # Exporters of older SDKs raise.
                why = f"{type(error).__name__}: {error}"
            if encoder is not None:
                # Not on the way of what arrives; and what could be encoded once can be again.
                refusal, encoder = _refusal(data, encoder), None
                if refusal is not None:
                    raise _Unencodable(refusal)
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


class _Unencodable(ValueError):
    """Something of what is to be sent has no form in OTLP, whoever listens."""


def _refusal(data: Any, encoder: tuple[str, str]) -> str | None:
    """Say why something cannot be encoded; None where it can."""
    module, name = encoder
    try:
        encode = getattr(import_module(module), name)
    except (ImportError, AttributeError):
        # An exporter that encodes otherwise: then it is the endpoint, as far as is known.
        return None
    try:
        encode(data)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


class _Reason(logging.Filter):
    """Keeps the last complaint of an exporter, and keeps it from being printed."""

    text = "no reason was given"

    def filter(self, record: logging.LogRecord) -> bool:
        self.text = record.getMessage().splitlines()[0][:200]
        return False
