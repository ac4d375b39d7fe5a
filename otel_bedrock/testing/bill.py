"""What the fake Bedrock has billed: the ground truth that telemetry is compared with."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any

from otel_bedrock.testing.cost import Cost


@dataclass(frozen=True, slots=True)
class Billed:
    """One call. A count is None where that exchange does not report it."""

    request_id: str
    operation: str
    # As the caller sent it, URL-decoded.
    model_id: str
    # With what was read from and written to the cache.
    input_tokens: int | None
    uncached_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    # False: an error, or the connection broke before the whole usage was written.
    usage_sent: bool
    # 0: the caller never got an answer.
    status: int
    error: str | None


@dataclass(slots=True)
class Totals:
    """Sums over the calls of one model; the counts only of usage that was sent."""

    calls: int = 0
    unsent: int = 0
    input_tokens: int = 0
    uncached_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    def add(self, billed: Billed) -> None:
        self.calls += 1
        if not billed.usage_sent:
            self.unsent += 1
            return
        for name in _COUNTS:
            count = getattr(billed, name)
            if count is not None:
                setattr(self, name, getattr(self, name) + count)


_COUNTS = (
    "input_tokens",
    "uncached_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
)


class Line:
    """A place on the bill, taken when the call arrives and filled when it is answered."""

    __slots__ = ("billed", "logged", "model_id", "operation", "request_id")

    def __init__(self, request_id: str, operation: str, model_id: str) -> None:
        self.request_id = request_id
        self.operation = operation
        self.model_id = model_id
        self.billed: Billed | None = None
        # What the invocation log has of the answer's body.
        self.logged: Callable[[], object] | None = None

    def fill(
        self, status: int, error: str | None = None, cost: Cost | None = None, sent: bool = False
    ) -> None:
        self.billed = Billed(
            self.request_id,
            self.operation,
            self.model_id,
            None if cost is None else cost.input,
            None if cost is None else cost.uncached,
            None if cost is None else cost.output,
            None if cost is None else cost.read,
            None if cost is None else cost.write,
            sent,
            status,
            error,
        )


class Bill:
    """The lines in order of arrival. The oldest beyond `keep` live on in the totals alone."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._lock = Lock()
        self._lines: deque[Line] = deque()
        self._folded: dict[str, Totals] = {}

    def open(self, request_id: str, operation: str, model_id: str) -> Line:
        line = Line(request_id, operation, model_id)
        with self._lock:
            self._lines.append(line)
            while len(self._lines) > self._keep:
                _add(self._folded, self._lines.popleft())
        return line

    def lines(self) -> list[Billed]:
        with self._lock:
            lines = list(self._lines)
        return [line.billed for line in lines if line.billed is not None]

    def totals(self) -> dict[str, Totals]:
        with self._lock:
            lines = list(self._lines)
            sums = {key: Totals(**asdict(value)) for key, value in self._folded.items()}
        for line in lines:
            _add(sums, line)
        return sums

    def clear(self) -> None:
        with self._lock:
            self._lines.clear()
            self._folded.clear()

    def to_json(self) -> dict[str, Any]:
        return {
            "bill": [asdict(billed) for billed in self.lines()],
            "totals": {key: asdict(value) for key, value in self.totals().items()},
        }


def _add(sums: dict[str, Totals], line: Line) -> None:
    if line.billed is not None:
        sums.setdefault(line.model_id, Totals()).add(line.billed)
