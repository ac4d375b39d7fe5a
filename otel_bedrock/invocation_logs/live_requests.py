"""Live requests: the ids of calls that were reported live, so that an ingest leaves them out.

A span processor, for programs that do not send ids by `correlate_logs`: put it on the program's
TracerProvider. It sees what the sampler lets through, so it is for programs that sample nothing
away.
"""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from otel_bedrock import sdk, shield, signals

REQUEST_ID = "aws.request_id"


class LiveRequests(SpanProcessor):
    """Remembers the newest `limit` request ids; called with one, says whether it is there.

    With `path` they are appended to a file as well, one a line, which any number of processes
    may share: what `otel-bedrock logs ingest --seen` reads.

    >>> live = LiveRequests()
    >>> tracer_provider.add_span_processor(live)
    >>> Plan(sources, only_unseen=True, was_live=live)
    """

    def __init__(self, path: str | Path | None = None, *, limit: int = 1_000_000) -> None:
        self._ids: dict[str, None] = {}
        self._order: deque[str] = deque()
        self._limit = limit
        self._file: int | None = None
        if path is not None:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def __call__(self, request_id: str) -> bool:
        return request_id in self._ids

    def on_end(self, span: ReadableSpan) -> None:
        try:
            self._see(span)
        except Exception as error:
            shield.stop("live_requests", error)

    def _see(self, span: ReadableSpan) -> None:
        scope, attributes = span.instrumentation_scope, span.attributes or {}
        if scope is None or scope.name != sdk.SCOPE or signals.ORIGIN in attributes:
            return
        request_id = attributes.get(REQUEST_ID)
        if not isinstance(request_id, str) or request_id in self._ids:
            return
        self._ids[request_id] = None
        self._order.append(request_id)
        if len(self._order) > self._limit:
            self._ids.pop(self._order.popleft(), None)
        if self._file is not None:
            # In one piece, so that lines of several processes do not mix.
            os.write(self._file, f"{request_id}\n".encode())

    def shutdown(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)
