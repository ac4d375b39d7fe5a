"""Prometheus with our rules, Alertmanager and the collector, in time lapse.

The files of collector/ with every duration divided by SPEED: a minute of the rules takes two
seconds, and all that they say of minutes and hours holds of those. `Hook` is who Alertmanager
tells; `history` is the week before, as the rules would have recorded it.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from stack import COLLECTOR, Stack, free_ports
from typing_extensions import Self

SPEED = 30
MINUTE = 60 / SPEED  # seconds
WEEK = 7 * 24 * 60  # minutes

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
# Where the files have durations: ranges, offsets, and the fields of rules and routes.
_DURATION = re.compile(
    r"(\[|offset |\b(?:for|keep_firing_for|interval|evaluation_interval|group_wait|group_interval"
    r"|repeat_interval): )((?:\d+(?:ms|[smhd]))+)\b"
)


def faster(text: str) -> str:
    """Divide every duration by SPEED."""

    def divide(found: re.Match[str]) -> str:
        parts = re.findall(r"(\d+)(ms|[smhd])", found[2])
        seconds = sum(int(number) * _SECONDS[unit] for number, unit in parts)
        return f"{found[1]}{round(seconds * 1000 / SPEED)}ms"

    return _DURATION.sub(divide, text)


class Hook:
    """A receiver of webhooks: `told` has, for each alert, its states in the order of arrival."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                for alert in json.loads(body)["alerts"]:
                    hook.told.append((self.path, alert))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def states(self, name: str) -> list[str]:
        """Return what was told of an alert: `firing`, `resolved`, without repetitions."""
        states: list[str] = []
        for _, alert in list(self.told):
            if alert["labels"]["alertname"] == name and alert["status"] not in states[-1:]:
                states.append(alert["status"])
        return states

    def first(self, name: str) -> tuple[str, dict[str, Any]]:
        """Return where an alert was first sent, and what of it was said."""
        return next(told for told in self.told if told[1]["labels"]["alertname"] == name)


class Lapse(Stack):
    """The stack of the quick start with alerts, SPEED times as fast.

    `thresholds` are lines of thresholds.yaml and what a user writes in their place; `past` is
    what was recorded in each minute of the week before, by series.
    """

    def __init__(self, hook: Hook, thresholds: Mapping[str, str], past: Mapping[str, float]):
        super().__init__()
        self.hook = hook
        self.thresholds = thresholds
        self.past = past

    def start(self) -> None:
        (self.alerts,) = free_ports(1)
        rules = self.folder / "rules"
        rules.mkdir()
        for path in (COLLECTOR / "rules").glob("*.yaml"):
            text = path.read_text()
            if path.name == "thresholds.yaml":
                for line, other in self.thresholds.items():
                    assert text.count(line) == 1, line
                    text = text.replace(line, other)
            (rules / path.name).write_text(faster(text))
        routes = faster((COLLECTOR / "alertmanager.yaml").read_text())
        routes = routes.replace("127.0.0.1:9095", f"127.0.0.1:{self.hook.port}")
        (self.folder / "alertmanager.yaml").write_text(routes)
        self._remember()
        self.run(
            "alertmanager",
            [
                f"--config.file={self.folder / 'alertmanager.yaml'}",
                f"--storage.path={self.folder / 'alerts'}",
                f"--web.listen-address=127.0.0.1:{self.alerts}",
                "--cluster.listen-address=",
            ],
            {},
        )
        self.await_health("alertmanager", f"http://127.0.0.1:{self.alerts}/-/ready")
        super().start()

    def prometheus_config(self) -> Path:
        config = faster((COLLECTOR / "prometheus.yaml").read_text())
        path = self.folder / "prometheus.yaml"
        path.write_text(config.replace("127.0.0.1:9093", f"127.0.0.1:{self.alerts}"))
        return path

    def run(
        self, program: str, arguments: list[str], environment: Mapping[str, str], name: str = ""
    ) -> None:
        if program == "prometheus":
            arguments = [*arguments, f"--query.lookback-delta={5 * MINUTE:g}s"]
        super().run(program, arguments, environment, name)

    def _remember(self) -> None:
        """Write the week before into Prometheus's folder."""
        now = time.time()
        lines = []
        for series, value in self.past.items():
            lines.append(f"# TYPE {series.partition('{')[0]} gauge")
            lines += [
                f"{series} {value:g} {now - minute * MINUTE:.3f}" for minute in range(WEEK, 0, -1)
            ]
        written = self.folder / "history.txt"
        written.write_text("\n".join([*lines, "# EOF\n"]))
        promtool = self.tools / "promtool"
        command = [promtool, "tsdb", "create-blocks-from", "openmetrics", "-q", written]
        subprocess.run([*command, self.folder / "prometheus"], check=True, capture_output=True)


def until(done: Callable[[], bool], minutes: float) -> bool:
    """Wait for something, for so many minutes of the rules; tell whether it came."""
    deadline = time.monotonic() + minutes * MINUTE
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
