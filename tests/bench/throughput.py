"""Throughput: calls a second of 16 threads against a local server in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from floors import ContractFloor
from measure import Effort, Row, Setup, measure, middle
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from scenarios import SCENARIOS, make_http_client

from otel_bedrock.config import read_config
from otel_bedrock.instrumentor import Given, exchange

THREADS = 16
# Calls of each thread in one turn.
_EACH = 20


def throughput(effort: Effort) -> Iterable[Row]:
    """Ours against bare with the contract floor by hand after each call."""
    tracer_provider = TracerProvider()
    meter_provider = MeterProvider(metric_readers=[InMemoryMetricReader()])
    given = Given(read_config({}), tracer_provider, meter_provider, None, False)
    with _server() as url:

        def kind(active: Given | None, *, by_hand: bool = False) -> Setup:
            def setup() -> Callable[[], None]:
                exchange(active)
                client = make_http_client(url)
                tell = ContractFloor(tracer_provider, meter_provider).call

                def ask() -> None:
                    SCENARIOS["converse"].call(client)
                    if by_hand:
                        tell()

                return lambda: _all_at_once(ask)

            return setup

        kinds = {"bare": kind(None), "contract": kind(None, by_hand=True), "ours": kind(given)}
        rounds = measure(kinds, 3, max(3, effort.slices // 2), turn=1)

    def rate(name: str) -> float:
        return THREADS * _EACH / middle(rounds, lambda each: each[name]) * 1e6

    name = (
        f"{THREADS} threads: {rate('bare'):,.0f} calls/s bare, {rate('contract'):,.0f} with"
        f" the contract floor, {rate('ours'):,.0f} ours"
    )
    share = middle(rounds, lambda each: each["contract"] / each["ours"])
    yield Row(name, share, 0.97, "of bare and the contract floor", least=True)


def _all_at_once(ask: Callable[[], None]) -> None:
    """Make _EACH calls in each of THREADS threads."""

    def work() -> None:
        for _ in range(_EACH):
            ask()

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def _server() -> Iterator[str]:
    command = [sys.executable, str(Path(__file__))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()


def _serve() -> None:
    """Answer every request with the same bytes, until standard input ends."""
    scenario = SCENARIOS["converse"]
    head = "".join(f"{name}: {value}\r\n" for name, value in scenario.headers.items())
    answer = f"HTTP/1.1 200 OK\r\n{head}\r\n".encode() + scenario.body
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=_accept, args=(listener, answer), daemon=True).start()
    sys.stdin.read()


def _accept(listener: socket.socket, answer: bytes) -> None:
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_answer, args=(connection, answer), daemon=True).start()


def _answer(connection: socket.socket, answer: bytes) -> None:
    stream: Any = connection.makefile("rb")
    while True:
        length = 0
        while (line := stream.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        if not line:
            return
        stream.read(length)
        connection.sendall(answer)


if __name__ == "__main__":
    _serve()
