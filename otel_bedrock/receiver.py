"""A small OTLP/HTTP receiver on loopback, for the demo, for `top`, and for tests.

It keeps what arrives in bounded memory. It is not a collector: nothing is stored or forwarded.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar, final

from otel_bedrock.otlp_server import OtlpServer
from otel_bedrock.received import ReceivedEvent, ReceivedPoint, ReceivedSpan

__all__ = ["ReceivedEvent", "ReceivedPoint", "ReceivedSpan", "Receiver"]

Item = TypeVar("Item")


@final
class Receiver:
    """Receives OTLP at `url` while its `with` block runs, and keeps the newest of it.

    >>> with Receiver() as receiver:
    ...     otel_bedrock.instrument(otlp_endpoint=receiver.url)
    ...     ...
    ...     receiver.wait_for(lambda r: len(r.spans) >= 3, timeout=5)
    """

    def __init__(
        self,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        span_limit: int = 10_000,
        point_limit: int = 20_000,
        series_limit: int = 10_000,
    ) -> None:
        self._address = (host, port)
        self._spans: deque[ReceivedSpan] = deque(maxlen=span_limit)
        self._points: deque[ReceivedPoint] = deque(maxlen=point_limit)
        self._series: dict[tuple[object, ...], ReceivedPoint] = {}
        self._series_limit = series_limit
        # Re-entrant, so that a predicate of wait_for can read `spans` and `points`.
        self._arrival = threading.Condition(threading.RLock())
        self._server: OtlpServer | None = None
        self.dropped_spans = 0
        self.dropped_points = 0
        self.dropped_series = 0
        self.log_records = 0
        self.bad_requests = 0

    def __enter__(self) -> Receiver:
        self._server = OtlpServer(self._address, self)
        # A short poll: leaving the `with` block waits for it.
        threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="otlp-receiver", daemon=True
        ).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        if self._server is None:
            raise RuntimeError("the receiver is not running: use it as `with Receiver() as …`")
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """What to give to `otel_bedrock.instrument(otlp_endpoint=…)`, without `/v1/traces`."""
        return f"http://{self._address[0]}:{self.port}"

    @property
    def spans(self) -> list[ReceivedSpan]:
        """The spans received, in the order of arrival."""
        with self._arrival:
            return list(self._spans)

    @property
    def points(self) -> list[ReceivedPoint]:
        """Every metric point received, in the order of arrival: the history of each series."""
        with self._arrival:
            return list(self._points)

    def latest(self) -> list[ReceivedPoint]:
        """One point per series (metric, attributes, resource): its whole sum until now.

        Deltas are added up. Cumulative values are the newest of each process: a process that
        restarts, or a second one that names no instance of its own, starts at another time, and
        the two are added, for each counts from zero.
        """
        totals: dict[tuple[object, ...], ReceivedPoint] = {}
        with self._arrival:
            for point in self._series.values():
                total = totals.get(point.series)
                totals[point.series] = point if total is None else total.plus(point)
        return list(totals.values())

    def wait_for(self, predicate: Callable[[Receiver], bool], timeout: float) -> bool:
        """Wait until `predicate(self)` holds, asking again at each arrival; False on a timeout."""
        with self._arrival:
            return self._arrival.wait_for(lambda: predicate(self), timeout)

    def accept_spans(self, spans: list[ReceivedSpan]) -> None:
        """Keep the spans of one request."""
        with self._arrival:
            self.dropped_spans += _extend(self._spans, spans)
            self._arrival.notify_all()

    def accept_points(self, points: list[ReceivedPoint]) -> None:
        """Keep the metric points of one request."""
        with self._arrival:
            self.dropped_points += _extend(self._points, points)
            for point in points:
                self._fold(point)
            self._arrival.notify_all()

    def accept_logs(self, count: int) -> None:
        """Count the log records of one request."""
        with self._arrival:
            self.log_records += count
            self._arrival.notify_all()

    def refused(self) -> None:
        """Count a request that was refused."""
        with self._arrival:
            self.bad_requests += 1
            self._arrival.notify_all()

    def _fold(self, point: ReceivedPoint) -> None:
        is_cumulative = point.temporality == "cumulative"
        key = (*point.series, point.start_ns if is_cumulative else None)
        old = self._series.get(key)
        if old is None:
            if len(self._series) >= self._series_limit:
                self.dropped_series += 1
            else:
                self._series[key] = point
        elif point.temporality == "delta":
            self._series[key] = old.plus(point)
        elif point.time_ns >= old.time_ns:
            self._series[key] = point


def _extend(kept: deque[Item], new: list[Item]) -> int:
    """Append to a bounded deque; how many old ones fell out."""
    before = len(kept)
    kept.extend(new)
    return before + len(new) - len(kept)
