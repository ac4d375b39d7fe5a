"""Speaks OTLP/HTTP: one loopback server that hands what it decodes to a `Sink`."""

from __future__ import annotations

import socketserver
import zlib
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR, socket
from typing import Any, Protocol

from otel_bedrock import otlp
from otel_bedrock.received import ReceivedPoint, ReceivedSpan

BODY_LIMIT = 64 * 1024 * 1024
PROTOBUF, JSON = "application/x-protobuf", "application/json"


class Sink(Protocol):
    """Where decoded telemetry goes; called from several threads."""

    def accept_spans(self, spans: list[ReceivedSpan]) -> None:
        """Take the spans of one request."""

    def accept_points(self, points: list[ReceivedPoint]) -> None:
        """Take the metric points of one request."""

    def accept_logs(self, count: int) -> None:
        """Take note of so many log records."""

    def refused(self) -> None:
        """Take note of a request that was refused."""


def _take_traces(sink: Sink, body: bytes, is_json: bool) -> None:
    sink.accept_spans(otlp.decode_traces(body, is_json))


def _take_metrics(sink: Sink, body: bytes, is_json: bool) -> None:
    sink.accept_points(otlp.decode_metrics(body, is_json))


def _take_logs(sink: Sink, body: bytes, is_json: bool) -> None:
    sink.accept_logs(otlp.count_logs(body, is_json))


PATHS: dict[str, Callable[[Sink, bytes, bool], None]] = {
    "/v1/traces": _take_traces,
    "/v1/metrics": _take_metrics,
    "/v1/logs": _take_logs,
}


class _RefusalError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class OtlpServer(ThreadingHTTPServer):
    """One thread per connection, all of which end with the server."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], sink: Sink) -> None:
        self.sink = sink
        self._open: set[socket] = set()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without asking the resolver for the host's name, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[0], self.server_address[1]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection."""
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """End the connections that exporters keep open, so that nothing arrives any more."""
        super().server_close()
        for connection in list(self._open):
            with suppress(OSError):  # the other end was faster
                connection.shutdown(SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay quiet: a client that goes away in mid-request is its own business."""


class _Handler(BaseHTTPRequestHandler):
    server: OtlpServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        is_json = self._media_type() == JSON
        try:
            body = self._read_body()
            self._take(self.path.partition("?")[0], body, is_json)
        except _RefusalError as refusal:
            self._refuse(refusal.status, str(refusal), is_json)
        except otlp.BadBodyError as error:
            self._refuse(400, f"{self.path}: {error}", is_json)
        else:
            # An empty Export…ServiceResponse: everything was accepted.
            self._reply(200, b"{}" if is_json else b"", is_json)

    def do_GET(self) -> None:
        if self.path.partition("?")[0] in PATHS:
            self._refuse(405, f"{self.path}: expected POST, got {self.command}", is_json=True)
        else:
            self._refuse(404, _unknown(self.path), is_json=True)

    do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET  # noqa: N815 - the base class looks for these

    def _take(self, path: str, body: bytes, is_json: bool) -> None:
        if path not in PATHS:
            raise _RefusalError(404, _unknown(path))
        if self._media_type() not in (PROTOBUF, JSON):
            raise _RefusalError(
                415,
                f"Content-Type: expected {PROTOBUF} or {JSON},"
                f" got {self.headers.get('Content-Type')!r} (gRPC has a port of its own: choose"
                " OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf)",
            )
        PATHS[path](self.server.sink, body, is_json)

    def _media_type(self) -> str:
        return (self.headers.get("Content-Type") or "").partition(";")[0].strip().lower()

    def _read_body(self) -> bytes:
        if (self.headers.get("Transfer-Encoding") or "").lower() == "chunked":
            body = self._read_chunks()
        else:
            body = self.rfile.read(self._checked(self.headers.get("Content-Length"), 10))
        encoding = (self.headers.get("Content-Encoding") or "identity").lower()
        if encoding == "gzip":
            return _gunzip(body)
        if encoding != "identity":
            raise _RefusalError(415, f"Content-Encoding: expected gzip or none, got {encoding!r}")
        return body

    def _read_chunks(self) -> bytes:
        body = bytearray()
        while size := self._checked(self.rfile.readline(64).split(b";")[0].decode("latin-1"), 16):
            body += self.rfile.read(self._checked(str(size), 10, len(body)))
            self.rfile.readline(3)
        while self.rfile.readline(1024).strip():  # trailers
            pass
        return bytes(body)

    def _checked(self, text: str | None, base: int, already: int = 0) -> int:
        try:
            size = int(text or "", base)
        except ValueError:
            self.close_connection = True  # where the next request starts is anybody's guess
            raise _RefusalError(411, f"Content-Length: expected a number, got {text!r}") from None
        if not 0 <= size + already <= BODY_LIMIT:
            self.close_connection = True
            raise _RefusalError(
                413, f"body: expected at most {BODY_LIMIT} bytes, got {size + already}"
            )
        return size

    def _refuse(self, status: int, message: str, is_json: bool) -> None:
        self.server.sink.refused()
        self._reply(status, otlp.encode_error(message, is_json), is_json)

    def _reply(self, status: int, body: bytes, is_json: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Type", JSON if is_json else PROTOBUF)
        self.send_header("Content-Length", str(len(body)))
        if status == 405:
            self.send_header("Allow", "POST")
        if self.command != "POST":
            self.close_connection = True  # a body that came with it was not read
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Stay quiet: requests are counted, not logged."""


def _unknown(path: str) -> str:
    return f"{path}: no such path; this receiver has {', '.join(PATHS)}"


def _gunzip(body: bytes) -> bytes:
    inflate = zlib.decompressobj(wbits=31)
    try:
        plain = inflate.decompress(body, BODY_LIMIT)
    except zlib.error as error:
        raise otlp.BadBodyError(f"body: not gzip: {error}") from error
    if inflate.unconsumed_tail:
        raise _RefusalError(413, f"body: more than {BODY_LIMIT} bytes after gunzip")
    if not inflate.eof:
        raise otlp.BadBodyError("body: gzip data ends early")
    return plain
