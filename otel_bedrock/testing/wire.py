"""HTTP/1.1 on loopback sockets: light request parsing, keep-alive, chunked responses.

The standard http.server spends most of a request parsing headers as mail; this reads lines.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from threading import Event, Lock, Thread
from time import time
from typing import BinaryIO

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_LINE = 65537
# Frames are gathered up to this size while nobody waits for them.
GATHER = 65536

Headers = Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class BadRequest(Exception):
    """Not HTTP/1.1 as we know it."""


def _read_chunks(reader: BinaryIO) -> bytes:
    parts = []
    while size := int(reader.readline(_LINE).split(b";")[0], 16):
        parts.append(reader.read(size))
        reader.readline(_LINE)
    while reader.readline(_LINE).strip():
        pass
    return b"".join(parts)


def read_request(reader: BinaryIO, connection: socket.socket) -> Received | None:
    """The next request of a connection; None when the caller has closed it."""
    line = reader.readline(_LINE)
    if not line:
        return None
    try:
        method, path, _ = line.decode("latin-1").split()
        headers = {}
        while (line := reader.readline(_LINE)) not in (b"\r\n", b"\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        if headers.get("expect", "").lower() == "100-continue":
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = _read_chunks(reader)
        else:
            size = int(headers.get("content-length", "0"))
            body = reader.read(size) if size else b""
            if len(body) < size:
                return None
    except ValueError as error:
        raise BadRequest(str(error)) from error
    return Received(method, path, headers, body)


_dated: tuple[int, str] = (0, "")


def _date() -> str:
    global _dated
    now = int(time())
    if _dated[0] != now:
        _dated = (now, formatdate(now, usegmt=True))
    return _dated[1]


def head(status: int, length: int | None, request_id: str, kind: str, more: Headers) -> bytes:
    """Status line and headers in Bedrock's order; without a length, the body is chunked."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    rest = "".join(f"{name}: {value}\r\n" for name, value in more)
    return (
        f"HTTP/1.1 {status} {_PHRASES.get(status, 'Unknown')}\r\nDate: {_date()}\r\n"
        f"Content-Type: {kind}\r\n{size}\r\nConnection: keep-alive\r\n"
        f"x-amzn-RequestId: {request_id}\r\n{rest}\r\n"
    ).encode("latin-1")


def chunk(data: bytes) -> bytes:
    """Wrap data as one chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"

# Answers one request; False closes the connection.
Handler = Callable[[Received, socket.socket], bool]


class Listener:
    """Accepts connections, one daemon thread each, until it is stopped."""

    def __init__(self, host: str, port: int, handler: Handler) -> None:
        self._handler = handler
        self._socket = socket.create_server((host, port), backlog=1024)
        self.host, self.port = self._socket.getsockname()[:2]
        self.stopping = Event()
        self._lock = Lock()
        self._open: dict[socket.socket, Thread] = {}
        self._thread = Thread(target=self._accept, name="fake-bedrock", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            if self.stopping.is_set():
                connection.close()
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = Thread(target=self._serve, args=(connection,), daemon=True)
            with self._lock:
                self._open[connection] = thread
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        reader = connection.makefile("rb")
        try:
            # A caller that goes away in the middle is a caller's right.
            with suppress(OSError, BadRequest):
                while not self.stopping.is_set():
                    request = read_request(reader, connection)
                    if request is None or not self._handler(request, connection):
                        break
                    if request.headers.get("connection", "").lower() == "close":
                        break
        finally:
            with self._lock:
                self._open.pop(connection, None)
            reader.close()
            _close(connection)

    def stop(self) -> None:
        """Ends every connection and waits for their threads."""
        self.stopping.set()
        # Closing a listening socket does not wake accept(); a visitor does.
        with suppress(OSError), socket.create_connection((self.host, self.port), timeout=1):
            pass
        self._thread.join(5)
        self._socket.close()
        with self._lock:
            left = list(self._open.items())
        for connection, _ in left:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for _, thread in left:
            thread.join(5)


def _close(connection: socket.socket) -> None:
    # FIN, not RST: a reset would take away what the caller has not read yet.
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
    connection.close()
