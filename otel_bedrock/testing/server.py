"""FakeBedrock: an Amazon Bedrock runtime on loopback that keeps its own bill."""

from __future__ import annotations

import json
import random
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from socket import socket
from time import monotonic, perf_counter
from types import TracebackType
from typing import Any
from urllib.parse import quote

from typing_extensions import Self

from otel_bedrock.testing import control
from otel_bedrock.testing.bill import Bill, Billed, Line, Totals
from otel_bedrock.testing.cache import PromptCache
from otel_bedrock.testing.client import make_client
from otel_bedrock.testing.delivery import JSON, Delivery
from otel_bedrock.testing.errors import INVALID_MODEL, UNKNOWN, Refused, invalid
from otel_bedrock.testing.exchange import Exchange, Streamed
from otel_bedrock.testing.families import NO_MODEL, Models
from otel_bedrock.testing.faults import NO_FAULT, Fault, Faults
from otel_bedrock.testing.invocation_log import CONSOLE, LOGGED, InvocationLog
from otel_bedrock.testing.operations import CONVERSE_STREAM, Operation, find_operation
from otel_bedrock.testing.wire import Listener, Received, head


def _request_id() -> str:
    bits = f"{random.getrandbits(128):032x}"
    return f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-a{bits[17:20]}-{bits[20:]}"


class FakeBedrock(Faults):
    """Amazon Bedrock, faked true to the wire.

        with FakeBedrock() as bedrock:
            client = bedrock.client()
            client.converse(modelId="anthropic.claude-sonnet-4-20250514-v1:0", messages=[…])
            assert bedrock.bill[-1].output_tokens == …

    `chunk_size` cuts streams into writes of so many bytes, so that frames straddle them.
    `profiles` says what opaque profile ids and ARNs stand for. `keep` bounds the bill's length;
    the totals count everything. `cache_minimum` is the shortest prefix that is cached.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        chunk_size: int | None = None,
        profiles: Mapping[str, str] | None = None,
        keep: int = 200_000,
        keep_requests: int = 1_000,
        cache_minimum: int = 0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        super().__init__()
        self.chunk_size = chunk_size
        self.cache = PromptCache(cache_minimum, clock)
        self.models = Models({} if profiles is None else dict(profiles))
        self._address = (host, port)
        self._bill = Bill(keep)
        self._requests: deque[Received] = deque(maxlen=keep_requests)
        self._listener: Listener | None = None
        self._clients: list[Any] = []
        self._log: InvocationLog | None = None

    def start(self) -> Self:
        """Listen; does nothing if it already does."""
        if self._listener is None:
            self._listener = Listener(*self._address, self._handle)
        return self

    def stop(self) -> None:
        """End every connection, and the clients that were made here."""
        if self._listener is not None:
            self._listener.stop()
            self._listener = None
        while self._clients:
            self._clients.pop().close()
        if self._log is not None:
            self._log.flush()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def _running(self) -> Listener:
        if self._listener is None:
            raise RuntimeError("FakeBedrock is not running: use `with FakeBedrock() as bedrock:`")
        return self._listener

    @property
    def url(self) -> str:
        return f"http://{self._running.host}:{self._running.port}"

    @property
    def bill(self) -> list[Billed]:
        """The answered calls, in the order in which they arrived."""
        return self._bill.lines()

    @property
    def requests(self) -> list[Received]:
        """The last requests, as received."""
        return list(self._requests)

    def totals(self) -> dict[str, Totals]:
        """By model id, the sums of the usage that was sent."""
        return self._bill.totals()

    def to_json(self) -> dict[str, Any]:
        """The bill and the totals, as GET /_fake/bill gives them."""
        return self._bill.to_json()

    def clear_bill(self) -> None:
        """Start the bill anew."""
        self._bill.clear()

    def reset(self) -> None:
        """Forget the bill, the requests, the faults and the cached prompts."""
        self.clear_bill()
        self.clear_faults()
        self._requests.clear()
        self.cache.clear()

    def client(self, service: str = "bedrock-runtime", **config: Any) -> Any:
        """A boto3 client of this server; `config` are members of botocore's Config."""
        client = make_client(self.url, service, config)
        self._clients.append(client)
        return client

    def log_to(self, folder: str | Path, **more: Any) -> InvocationLog:
        """Write model invocation logs from now on, as to a bucket; `more` are InvocationLog's."""
        if self._log is not None:
            self._log.flush()
        self._log = InvocationLog(Path(folder), **more)
        return self._log

    def flush_log(self) -> None:
        """Write the records that are kept."""
        if self._log is not None:
            self._log.flush()

    def playground(
        self, model_id: str, text: str, *, identity: str = CONSOLE, **members: Any
    ) -> Billed:
        """Make a call in the console: it is in the invocation log alone, and on no bill of ours."""
        if self._log is None:
            raise RuntimeError("a playground's call is seen in the invocation log: log_to() first")
        model = self.models.find(model_id)
        if model is None:
            raise ValueError(f"model_id: {model_id!r}: {INVALID_MODEL}")
        body = {"messages": [{"role": "user", "content": [{"text": text}]}], **members}
        path = f"/model/{quote(model_id, safe='')}/converse-stream"
        request = Received("POST", path, {}, json.dumps(body).encode())
        line = Line(_request_id(), "ConverseStream", model_id)
        at, started = self._log.open(), perf_counter()
        try:
            answer = CONVERSE_STREAM.answer(
                Exchange(model, line.request_id, {}, request.body, started, self.cache)
            )
            line.logged = answer.logged
            line.fill(200, None, answer.cost, sent=True)
        finally:
            self._log.close(at, request, line, identity)
        assert line.billed is not None
        return line.billed

    # One request, on its connection's thread.

    def _handle(self, request: Received, connection: socket) -> bool:
        started = perf_counter()
        request_id = _request_id()
        if request.path.startswith("/_fake/"):
            status, body = control.answer(self, request.method, request.path, request.body)
            connection.sendall(head(status, len(body), request_id, JSON, ()) + body)
            return True
        self._requests.append(request)
        wait = self._running.stopping.wait
        found = find_operation(request.method, request.path)
        if found is None:
            # Other services and paths: what a test has prepared for them, or nothing.
            line = Line(request_id, request.path, "")
            stray = Delivery(connection, line, NO_FAULT, self.chunk_size, wait)
            script = self._scripts.take(streamed=True)
            return stray.send_error(UNKNOWN) if script is None else stray.send_script(script)
        operation, model_id = found
        line = self._bill.open(request_id, operation.name, model_id)
        log = self._log if operation.name in LOGGED else None
        if log is None:
            return self._answer(operation, request, connection, line, started)
        at = log.open()
        try:
            return self._answer(operation, request, connection, line, started)
        finally:
            log.close(at, request, line)

    def _answer(
        self,
        operation: Operation,
        request: Received,
        connection: socket,
        line: Line,
        started: float,
    ) -> bool:
        model_id, wait = line.model_id, self._running.stopping.wait
        fault: Fault = self._faults.take(operation.streamed) or NO_FAULT
        delivery = Delivery(
            connection, line, fault, self.chunk_size, wait, foreign=operation.foreign
        )
        if fault.hang is not None:
            line.fill(0, "hang")
            wait(fault.hang)
            return False
        if fault.first:
            wait(fault.first)
        try:
            if fault.refusal is not None:
                raise fault.refusal
            script = self._scripts.take(operation.streamed)
            if script is not None:
                return delivery.send_script(script)
            model = self.models.find(model_id) if operation.models else NO_MODEL
            if model is None:
                raise invalid(INVALID_MODEL)
            answer = operation.answer(
                Exchange(model, line.request_id, request.headers, request.body, started, self.cache)
            )
        except Refused as refusal:
            return delivery.send_error(refusal)
        except Exception as error:
            # A bug here, or a request that nobody thought of: better told than a dead socket.
            traceback.print_exc()
            return delivery.send_error(Refused("InternalServerException", repr(error)))
        if isinstance(answer, Streamed):
            return delivery.send_stream(answer)
        return delivery.send_whole(answer)
