"""Throughput: calls a second of 16 threads against a local server in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from floors import ContractFloor
from measure import Effort, Round, Row, middle
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from scenarios import SCENARIOS, make_http_client

from otel_bedrock.config import read_config
from otel_bedrock.instrumentor import Given, exchange

THREADS = 16
_SECONDS = 1.0


def throughput(effort: Effort) -> Iterable[Row]:
    """Ours against bare with the contract floor by hand after each call."""
    tracer_provider = TracerProvider()
    meter_provider = MeterProvider(metric_readers=[InMemoryMetricReader()])
    by_hand = ContractFloor(tracer_provider, meter_provider).call
    given = Given(read_config({}), tracer_provider, meter_provider, None, False)
    rounds: list[Round] = []
    with _server() as url:
        client = make_http_client(url)

        def ask() -> None:
            SCENARIOS["converse"].call(client)

        def ask_and_tell() -> None:
            ask()
            by_hand()

        kinds: dict[str, tuple[Given | None, Callable[[], None]]] = {
            "bare": (None, ask),
            "contract": (None, ask_and_tell),
            "ours": (given, ask),
        }
        try:
            for number in range(1 + max(3, effort.slices // 2)):
                found = {}
                for kind, (active, call) in kinds.items():
                    exchange(active)
                    found[kind] = _rate(call)
                # The first round opens the connections.
                if number:
                    rounds.append(found)
        finally:
            exchange(None)

    def typical(kind: str) -> float:
        return middle(rounds, lambda each: each[kind])

    name = (
        f"{THREADS} threads: {typical('bare'):,.0f} calls/s bare, {typical('contract'):,.0f} with"
        f" the contract floor, {typical('ours'):,.0f} ours"
    )
    share = middle(rounds, lambda each: each["ours"] / each["contract"])
    yield Row(name, share, 0.97, "of bare and the contract floor", least=True)


def _rate(call: Callable[[], None]) -> float:
    """Return calls a second of THREADS threads."""
    counts = [0] * THREADS
    go, until = threading.Barrier(THREADS + 1), [0.0]

    def work(index: int) -> None:
        call()
        go.wait()
        while time.perf_counter() < until[0]:
            call()
            counts[index] += 1

    threads = [threading.Thread(target=work, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    until[0] = time.perf_counter() + 3600
    go.wait()
    started = time.perf_counter()
    until[0] = started + _SECONDS
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


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
