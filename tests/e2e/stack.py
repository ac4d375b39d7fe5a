"""Jaeger, Prometheus and the collector, started with the files of collector/ for one test run.

Send OTLP to `stack.otlp_http` or `stack.otlp_grpc`, then ask for what arrived:
`eventually(lambda: stack.traces("my-service"))`, `eventually(lambda: stack.query("my_total"))`.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, TypedDict, TypeVar

from typing_extensions import Self

COLLECTOR = Path(__file__).resolve().parents[2] / "collector"
PROGRAMS = ("otelcol-bedrock", "jaeger", "prometheus", "promtool", "alertmanager", "amtool")
START_TIMEOUT = 30.0  # seconds until a program is healthy; about one is usual
STOP_TIMEOUT = 5.0  # seconds between asking a program to end and killing it
ATTEMPTS = 3  # a port that was free when we looked may be taken when a program asks for it

LISTENERS = (
    *("jaeger_otlp", "jaeger_http", "jaeger_grpc", "jaeger_health", "prometheus"),
    *("otlp_grpc", "otlp_http", "otelcol_health", "otelcol_metrics"),
)

T = TypeVar("T")


class ToolsMissing(Exception):
    """A program of the stack is not built; the message says how to build it."""


class StackError(Exception):
    """A program of the stack did not start, or gave no answer; the message has its last words."""


class Event(TypedDict):
    """A span event, with plain attributes."""

    name: str
    time: int
    attributes: dict[str, Any]


class Span(TypedDict):
    """A span as Jaeger has it: ids in hex, times in nanoseconds, attributes with their types."""

    trace_id: str
    span_id: str
    parent_span_id: str
    name: str
    kind: int
    start: int
    end: int
    status_code: int
    status_message: str
    scope: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    events: list[Event]


def eventually(ask: Callable[[], T], timeout: float = 15.0, pause: float = 0.1) -> T:
    """Ask until the answer is truthy, and return it; fail with the last answer at the timeout.

    An assertion that fails inside `ask` is an answer that is not there yet.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            answer = ask()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        else:
            if answer:
                return answer
            if time.monotonic() > deadline:
                raise AssertionError(f"still {answer!r} after {timeout:g} s")
        time.sleep(pause)


def find_tools() -> Path:
    """Return the folder of the built programs, or raise ToolsMissing."""
    asked = subprocess.run(
        [sys.executable, str(COLLECTOR / "tools" / "build"), "--where"],
        capture_output=True,
        text=True,
        check=True,
    )
    folder = Path(asked.stdout.strip())
    missing = [name for name in PROGRAMS if not (folder / name).is_file()]
    if missing:
        raise ToolsMissing(
            f"{', '.join(missing)} not built in {folder}: run `make e2e-tools`"
            " (needs Go; takes minutes, once per version)"
        )
    return folder


class Programs:
    """Programs on free loopback ports, with their data and logs in a temporary folder.

    `start` says what to start, and where `prometheus` and `jaeger` answer if it starts them.
    Whatever is still running is ended when the block is left, the last one first. `tools` is
    where the programs are, `folder` where their data and logs are.
    """

    prometheus: str
    jaeger: str

    def __init__(self) -> None:
        self.tools = find_tools()
        self.folder = Path()
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self.folder = Path(
                    self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="otel-bedrock-"))
                )
                self.start()
            except StackError as error:
                self.__exit__(None, None, None)
                if attempt == ATTEMPTS or "address already in use" not in str(error):
                    raise
            except BaseException:  # an interrupt, say: nothing may be left running
                self.__exit__(None, None, None)
                raise
            else:
                break
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._cleanup.close()

    def start(self) -> None:
        """Start what is wanted."""

    def log(self, program: str, lines: int = 20) -> str:
        """Return the last lines that a program has written."""
        path = self.folder / f"{program}.log"
        text = path.read_text(errors="replace") if path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def run(
        self, program: str, arguments: list[str], environment: Mapping[str, str], name: str = ""
    ) -> None:
        """Start a program, under a name of its own where there are several of it."""
        command = [str(self.tools / program), *arguments]
        name = name or program
        setpriv = shutil.which("setpriv")
        if setpriv:  # Linux: even if we are killed, the kernel ends the program
            command = [setpriv, "--pdeathsig", "TERM", *command]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us, who then end the programs in order
            )
        self.running[name] = process
        self._cleanup.callback(stop, process)

    def kill(self, name: str) -> None:
        """End a program with SIGKILL, as a crash or the kernel would."""
        process = self.running[name]
        process.kill()
        process.wait()

    def await_health(self, program: str, url: str) -> None:
        """Wait until a program says that it is ready."""
        process = self.running[program]
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                with direct(url, timeout=1):
                    return
            except OSError:  # refused, timed out, or a status other than 2xx
                pass
            if process.poll() is not None:
                state = f"ended with {process.returncode} before it was healthy"
            elif time.monotonic() > deadline:
                state = f"not healthy at {url} after {START_TIMEOUT:g} s"
            else:
                time.sleep(0.05)
                continue
            raise StackError(f"{program}: {state}. Its last words:\n{self.log(program)}")

    def prometheus_config(self) -> Path:
        """Write prometheus.yaml as it is, but for whom it tells: an Alertmanager may be running."""
        text = (COLLECTOR / "prometheus.yaml").read_text()
        told, _, rest = text.partition("alerting:\n")
        assert rest
        text = told.replace("rules/", f"{COLLECTOR}/rules/") + rest[rest.index("\n\n") :]
        path = self.folder / "prometheus.yaml"
        path.write_text(text)
        return path

    def query(self, promql: str) -> list[tuple[dict[str, str], float]]:
        """Return labels and value of each series that the instant query gives now."""
        data = self._get(f"{self.prometheus}/api/v1/query", {"query": promql})["data"]
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(one["metric"], float(one["value"][1])) for one in data["result"]]

    def traces(
        self, service: str, *, operation: str = "", limit: int = 100, minutes: float = 60
    ) -> list[Span]:
        """Return the spans of a service's latest traces, in the order in which they began."""
        now = datetime.now(timezone.utc)
        asked = {
            "query.service_name": service,
            "query.start_time_min": (now - timedelta(minutes=minutes)).isoformat(),
            "query.start_time_max": (now + timedelta(minutes=1)).isoformat(),
            "query.num_traces": str(limit),
        }
        if operation:
            asked["query.operation_name"] = operation
        # Jaeger says 404 where it finds nothing.
        found = self._get(f"{self.jaeger}/api/v3/traces", asked, none_at=404)
        return sorted(read_spans(found["result"]) if found else [], key=lambda span: span["start"])

    def _get(self, url: str, parameters: Mapping[str, str], none_at: int = 0) -> Any:
        url = f"{url}?{urllib.parse.urlencode(parameters)}"
        try:
            with direct(url, timeout=10) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == none_at:
                    return None
                said = error.read().decode(errors="replace")
            raise StackError(f"{url}: {error.code}: {said}") from None


class Stack(Programs):
    """Jaeger, Prometheus and the collector of the quick start.

    Send OTLP to these urls (without the /v1/traces that OTLP over HTTP adds).
    """

    otlp_grpc: str
    otlp_http: str

    def start(self) -> None:
        # The collector is started last and so, as callbacks run in reverse, ended first: what it
        # still has in its queues finds the others there.
        at = {
            name: f"127.0.0.1:{port}"
            for name, port in zip(LISTENERS, free_ports(len(LISTENERS)), strict=True)
        }
        self.jaeger = f"http://{at['jaeger_http']}"
        self.prometheus = f"http://{at['prometheus']}"
        self.otlp_grpc = f"http://{at['otlp_grpc']}"
        self.otlp_http = f"http://{at['otlp_http']}"
        environment = {
            "JAEGER_OTLP_GRPC_ENDPOINT": at["jaeger_otlp"],
            "JAEGER_QUERY_HTTP_ENDPOINT": at["jaeger_http"],
            "JAEGER_QUERY_GRPC_ENDPOINT": at["jaeger_grpc"],
            "JAEGER_HEALTH_ENDPOINT": at["jaeger_health"],
            "PROMETHEUS_URL": self.prometheus,
            "OTELCOL_OTLP_GRPC_ENDPOINT": at["otlp_grpc"],
            "OTELCOL_OTLP_HTTP_ENDPOINT": at["otlp_http"],
            "OTELCOL_HEALTH_ENDPOINT": at["otelcol_health"],
            "OTELCOL_METRICS_PORT": at["otelcol_metrics"].rpartition(":")[2],
            "OTELCOL_STORAGE_DIR": str(self.folder / "otelcol"),
        }
        self.run("jaeger", ["--config", str(COLLECTOR / "jaeger.yaml")], environment)
        self.run(
            "prometheus",
            [
                f"--config.file={self.prometheus_config()}",
                f"--storage.tsdb.path={self.folder / 'prometheus'}",
                f"--web.listen-address={at['prometheus']}",
                "--web.enable-otlp-receiver",
                "--enable-feature=exemplar-storage",
            ],
            environment,
        )
        self.await_health("jaeger", f"http://{at['jaeger_health']}/status")
        self.await_health("prometheus", f"{self.prometheus}/-/ready")
        self.run("otelcol-bedrock", ["--config", str(COLLECTOR / "otelcol.yaml")], environment)
        self.await_health("otelcol-bedrock", f"http://{at['otelcol_health']}/")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process of ours: ask, wait, then kill."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on at this moment, all different."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def direct(url: str, timeout: float) -> Any:
    """Open a loopback url, past any proxy that the environment names."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=timeout)


def read_spans(data: Mapping[str, Any]) -> list[Span]:
    """Flatten OTLP JSON into spans."""
    return [
        {
            "trace_id": span["traceId"],
            "span_id": span["spanId"],
            "parent_span_id": span.get("parentSpanId", ""),
            "name": span["name"],
            "kind": int(span.get("kind", 0)),
            "start": int(span["startTimeUnixNano"]),
            "end": int(span["endTimeUnixNano"]),
            "status_code": int(span.get("status", {}).get("code", 0)),
            "status_message": span.get("status", {}).get("message", ""),
            "scope": scoped.get("scope", {}).get("name", ""),
            "attributes": read_attributes(span),
            "resource": read_attributes(group.get("resource", {})),
            "events": [
                {
                    "name": event["name"],
                    "time": int(event["timeUnixNano"]),
                    "attributes": read_attributes(event),
                }
                for event in span.get("events", ())
            ],
        }
        for group in data.get("resourceSpans", ())
        for scoped in group.get("scopeSpans", ())
        for span in scoped.get("spans", ())
    ]


def read_attributes(holder: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a span, an event or a resource as a plain dict."""
    return {pair["key"]: read_value(pair["value"]) for pair in holder.get("attributes", ())}


def read_value(value: Mapping[str, Any]) -> Any:
    """Return the plain Python value of an OTLP AnyValue; its type stays what was sent."""
    if not value:
        return None
    ((kind, inner),) = value.items()
    return VALUES[kind](inner)


VALUES: dict[str, Callable[[Any], Any]] = {
    "stringValue": str,
    "boolValue": bool,
    "intValue": int,  # a string in JSON, so that no reader rounds it
    "doubleValue": float,
    "bytesValue": base64.b64decode,
    "arrayValue": lambda inner: [read_value(one) for one in inner.get("values", ())],
    "kvlistValue": lambda inner: read_attributes({"attributes": inner.get("values", ())}),
}
