"""What goes wrong on demand, and what is answered on demand, in the order it was asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import TIMEOUT_MAX, Lock
from typing import Any

from otel_bedrock.testing.errors import MESSAGES, STATUS, THROTTLED, Refused
from otel_bedrock.testing.frames import (
    encode_chunk_bytes,
    encode_event,
    encode_exception,
    encode_frame,
)


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a call; only what is set does."""

    refusal: Refused | None = None
    hang: float | None = None
    first: float = 0.0
    each: float = 0.0
    break_after: int | None = None
    corrupt_after: int | None = None
    error_after: int | None = None
    error: bytes = b""
    error_name: str | None = None

    @property
    def streams(self) -> bool:
        """Waits for a streamed call; others pass it by."""
        marks = (self.break_after, self.corrupt_after, self.error_after)
        return any(mark is not None for mark in marks)


@dataclass(frozen=True, slots=True)
class Script:
    """A whole response, prepared: a body, or the frames of a stream."""

    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    frames: tuple[bytes, ...] | None = None

    @property
    def streams(self) -> bool:
        return self.frames is not None


NO_FAULT = Fault()
# Plain dicts are events of ConverseStream if their one key is one of these, else native chunks.
_EVENTS = frozenset(
    {
        "messageStart",
        "contentBlockStart",
        "contentBlockDelta",
        "contentBlockStop",
        "messageStop",
        "metadata",
    }
)


class Queue:
    """What the next calls meet. Taking is atomic: two threads never take the same."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._items: list[tuple[Any, int | None]] = []

    def put(self, item: Any, times: int | None) -> None:
        if times is not None and times < 1:
            raise ValueError(f"times: expected 1 or more, or None for always, got {times}")
        with self._lock:
            self._items.append((item, times))

    def take(self, streamed: bool) -> Any:
        """The first item that fits; None if there is none."""
        # Reading without the lock is safe, and keeps the common case free.
        if not self._items:
            return None
        with self._lock:
            for index, (item, times) in enumerate(self._items):
                if item.streams and not streamed:
                    continue
                if times == 1:
                    del self._items[index]
                elif times is not None:
                    self._items[index] = (item, times - 1)
                return item
        return None

    def clear(self) -> None:
        with self._lock:
            self._items.clear()


def _member(name: str, message: str) -> dict[str, object]:
    more: dict[str, object] = {}
    if name == "modelStreamErrorException":
        more = {"originalStatusCode": 500, "originalMessage": message}
    return {"message": message, **more}


def _frame(event: dict[str, Any] | tuple[str, object], streams_converse: bool) -> bytes:
    if isinstance(event, tuple):
        name, payload = event
    elif len(event) == 1 and (
        next(iter(event)).endswith("Exception")
        or (streams_converse and next(iter(event)) in _EVENTS)
    ):
        name, payload = next(iter(event.items()))
    else:
        name, payload = "chunk", event
    if name.endswith("Exception"):
        return encode_exception(name, dict(payload))  # type: ignore[call-overload]
    if name == "chunk":
        raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return encode_chunk_bytes(raw)
    if isinstance(payload, bytes):
        return encode_frame("event", name, payload)
    return encode_event(name, dict(payload))  # type: ignore[call-overload]


class Faults:
    """The part of FakeBedrock that tests use to make things happen."""

    def __init__(self) -> None:
        self._faults = Queue()
        self._scripts = Queue()

    def throttle(self, times: int | None = 1, reason: str = "tokens_per_minute") -> None:
        """The next calls are answered with 429 ThrottlingException."""
        if reason not in THROTTLED:
            raise ValueError(f"reason: expected one of {sorted(THROTTLED)}, got {reason!r}")
        self.fail("ThrottlingException", THROTTLED[reason], times)

    def fail(
        self,
        name: str,
        message: str | None = None,
        times: int | None = 1,
        status: int | None = None,
    ) -> None:
        """The next calls are answered with this error."""
        if name not in STATUS and status is None:
            raise ValueError(f"status: needed for {name!r}, which is none of {sorted(STATUS)}")
        text = MESSAGES.get(name, "The fake Bedrock was told to fail.")
        refusal = Refused(name, text if message is None else message, status)
        self._faults.put(Fault(refusal=refusal), times)

    def break_stream(self, after: int, times: int | None = 1) -> None:
        """The connection of the next streams ends after so many frames."""
        self._faults.put(Fault(break_after=after), times)

    def stream_error(
        self, name: str, after: int, message: str | None = None, times: int | None = 1
    ) -> None:
        """The next streams turn into an exception event after so many frames."""
        known = name[:1].upper() + name[1:]
        text = MESSAGES.get(known, "The fake Bedrock was told to fail.")
        members = _member(name, text if message is None else message)
        fault = Fault(error_after=after, error=encode_exception(name, members), error_name=name)
        self._faults.put(fault, times)

    def corrupt_stream(self, after: int, times: int | None = 1) -> None:
        """After so many frames, the next one has a wrong checksum."""
        self._faults.put(Fault(corrupt_after=after), times)

    def slow(self, first: float = 0.0, each: float = 0.0, times: int | None = 1) -> None:
        """Seconds before the response begins, and before each further frame of a stream."""
        self._faults.put(Fault(first=first, each=each), times)

    def hang(self, seconds: float | None = None, times: int | None = 1) -> None:
        """The next calls get no answer; after the seconds, if given, the connection closes."""
        self._faults.put(Fault(hang=TIMEOUT_MAX if seconds is None else seconds), times)

    def reply(
        self,
        body: bytes | str | dict[str, Any] | list[Any] = b"",
        headers: dict[str, str] | None = None,
        status: int = 200,
        times: int | None = 1,
    ) -> None:
        """The next calls get exactly this. Nothing is billed: the bill shows no counts."""
        raw = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        raw = raw.encode() if isinstance(raw, str) else raw
        self._scripts.put(Script(raw, {} if headers is None else dict(headers), status), times)

    def reply_events(
        self,
        events: Sequence[dict[str, Any] | tuple[str, Any]],
        headers: dict[str, str] | None = None,
        times: int | None = 1,
        native: bool | None = None,
    ) -> None:
        """The next streams get exactly these events.

        An event is (type, payload), or a dict: {"messageStart": {…}} as boto3 shows it, or, for
        InvokeModelWithResponseStream, the model's own chunk. Nova's own chunks look like the
        former: say native=True for them.
        """
        frames = tuple(_frame(event, not native) for event in events)
        more = {} if headers is None else dict(headers)
        self._scripts.put(Script(headers=more, frames=frames), times)

    def clear_faults(self) -> None:
        """Forgets what was asked for and not yet met."""
        self._faults.clear()
        self._scripts.clear()


# What POST /_fake/faults may ask for: the methods above, by name, with the same arguments.
ASKED = (
    "throttle",
    "fail",
    "break_stream",
    "stream_error",
    "corrupt_stream",
    "slow",
    "hang",
    "reply",
    "reply_events",
)
