"""Writes answers to a socket, lets faults spoil them, and notes on the bill what went out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from socket import socket

from otel_bedrock.testing import mantle
from otel_bedrock.testing.bill import Line
from otel_bedrock.testing.errors import Refused, error_body, error_header
from otel_bedrock.testing.exchange import Frame, Streamed, Whole
from otel_bedrock.testing.faults import Fault, Script
from otel_bedrock.testing.frames import corrupt, split_frames
from otel_bedrock.testing.wire import GATHER, LAST_CHUNK, chunk, head

JSON = "application/json"
EVENTS = "application/vnd.amazon.eventstream"
# Set by the server itself on a scripted answer, whatever the script says.
_OWN = frozenset({"content-length", "transfer-encoding", "connection", "date"})
_NAMED = frozenset({"content-type", "x-amzn-requestid"})


class _Progress:
    """How far a stream came."""

    __slots__ = ("broken", "error", "settled")

    def __init__(self) -> None:
        self.settled = False
        self.broken = False
        self.error: str | None = None


@dataclass(slots=True)
class Delivery:
    """One answer on its way out. Each method returns whether the connection lives on."""

    connection: socket
    line: Line
    fault: Fault
    # Cuts streams into writes of so many bytes.
    size: int | None
    wait: Callable[[float], object]
    # Errors are told in Anthropic's form.
    foreign: bool = False

    def send_whole(self, whole: Whole) -> bool:
        """Send a response, billing first: whoever has the answer can read the bill."""
        line = self.line
        line.logged = whole.logged
        line.fill(200, None, whole.cost, sent=whole.cost is not None)
        data = head(200, len(whole.body), line.request_id, JSON, whole.headers) + whole.body
        try:
            self.connection.sendall(data)
        except OSError:
            line.fill(200, "caller went away", whole.cost)
            raise
        return True

    def send_error(self, refusal: Refused) -> bool:
        """Send an error as Bedrock words it."""
        self.line.fill(refusal.status, refusal.name)
        if self.foreign:
            return self._send_foreign(refusal)
        body = error_body(refusal)
        headers = (error_header(refusal.name),)
        first = head(refusal.status, len(body), self.line.request_id, JSON, headers)
        self.connection.sendall(first + body)
        return True

    def _send_foreign(self, refusal: Refused) -> bool:
        body = mantle.error_body(refusal, self.line.request_id)
        first = head(refusal.status, len(body), self.line.request_id, JSON, ())
        self.connection.sendall(first + body)
        return True

    def send_script(self, script: Script) -> bool:
        """Send what a test has prepared."""
        given = {key.lower(): value for key, value in script.headers.items()}
        more = [(k, v) for k, v in script.headers.items() if k.lower() not in _OWN | _NAMED]
        if script.frames is not None:
            frames = ((frame, False) for frame in script.frames)
            return self.send_stream(Streamed(frames, more, None))
        self.line.fill(script.status)
        chunked = "transfer-encoding" in given
        body = chunk(script.body) + LAST_CHUNK if chunked else script.body
        first = head(
            script.status,
            None if chunked else len(body),
            given.get("x-amzn-requestid", self.line.request_id),
            given.get("content-type", JSON),
            more,
        )
        self.connection.sendall(first + body)
        return True

    def send_stream(self, stream: Streamed) -> bool:
        """Send frames, each its own HTTP chunk, gathered while nothing delays them."""
        line = self.line
        line.logged = stream.logged
        progress = _Progress()
        out = [head(200, None, line.request_id, EVENTS, stream.headers)]
        gathered = 0
        told = False
        try:
            for piece in split_frames(self._spoil(stream.frames, progress), self.size):
                out.append(chunk(piece))
                gathered += len(piece)
                if self.size is not None or self.fault.each or gathered > GATHER:
                    if progress.settled:
                        # Before the caller can know it, the bill does.
                        line.fill(200, progress.error, stream.cost, sent=True)
                    self.connection.sendall(b"".join(out))
                    told = progress.settled
                    out.clear()
                    gathered = 0
            if not progress.broken:
                out.append(LAST_CHUNK)
            line.fill(200, progress.error, stream.cost, sent=progress.settled)
            self.connection.sendall(b"".join(out))
        except OSError:
            line.fill(200, "caller went away", stream.cost, sent=told)
            raise
        return not progress.broken

    def _spoil(self, frames: Iterator[Frame], progress: _Progress) -> Iterator[bytes]:
        """The frames, with what was asked to go wrong."""
        fault = self.fault
        corrupted = False
        for index, (frame, settles) in enumerate(frames):
            if index in (fault.break_after, fault.error_after):
                break
            if index and fault.each:
                self.wait(fault.each)
            if index == fault.corrupt_after:
                corrupted, progress.error = True, "ChecksumMismatch"
                yield corrupt(frame)
                continue
            # What follows a corrupt frame, the caller never reads.
            progress.settled = progress.settled or (settles and not corrupted)
            yield frame
        if fault.break_after is not None:
            progress.broken, progress.error = True, "broken stream"
        if fault.error_after is not None:
            progress.error = fault.error_name
            yield fault.error
