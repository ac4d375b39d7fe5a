"""What OpenTelemetry's SDK loses where no collector has taken the data yet: the figures.

    .venv/bin/python tests/bench/collector_loss.py

An application with the SDK's default settings makes calls to the fake while its agent is down, or
is killed itself; then what arrived is compared with what the fake billed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "e2e"), str(HERE.parents[1])]

from fleet import Collector, Fleet, Sink  # noqa: E402 - after the path

from otel_bedrock.testing import FakeBedrock  # noqa: E402

INPUT = "gen_ai.client.inference.usage.input_tokens"
CALLS = 4000


@contextmanager
def application(agent: Collector, bedrock: FakeBedrock) -> Iterator[subprocess.Popen[str]]:
    """Start the program of the durability test, with the SDK's defaults."""
    environ = {
        "STEADY_ENDPOINT": agent.http,
        "STEADY_SERVICE": "loss",
        "STEADY_DEFAULTS": "1",
        "FAKE_BEDROCK": bedrock.url,
    }
    with subprocess.Popen(
        [sys.executable, str(HERE.parent / "e2e" / "steady.py")],
        env={**os.environ, **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def tell(process: subprocess.Popen[str], line: str) -> str:
    """Say a line to the application and return its answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    assert answer, "the application has ended; take DEVNULL off its stderr to see why"
    return answer


def report(what: str, bedrock: FakeBedrock, sink: Sink) -> None:
    """Print what arrived of what was billed."""
    time.sleep(3)
    billed = sum(one.input_tokens or 0 for one in bedrock.bill)
    last = {
        (point["name"], json.dumps(point["at"], sort_keys=True)): int(point["asInt"])
        for point in sink.points
        if point["name"] == INPUT
    }
    calls, spans, tokens = len(bedrock.bill), len(sink.spans), sum(last.values())
    print(
        f"{what}: {calls:,} calls; {spans:,} spans arrived, {calls - spans:,} lost;"
        f" {tokens:,} of {billed:,} input tokens counted",
        flush=True,
    )


def main() -> None:
    """Play each case with programs of its own."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = Path(folder, "metrics.yaml")
        metrics.write_text(
            "exporters: {otlp_grpc/gateway: {sending_queue: {batch: {min_size: 1}}}}\n"
        )
        for what in ("agent down for all calls, then up", "application killed after its calls"):
            with Fleet() as fleet, Sink() as sink, FakeBedrock() as bedrock:
                environ = {"OTELCOL_GATEWAY_ENDPOINT": sink.endpoint}
                agent = fleet.collector("agent", ["agent.yaml", metrics], environ)
                with application(agent, bedrock) as process:
                    if what.startswith("agent"):
                        agent.kill()
                        began = time.monotonic()
                        tell(process, f"go {CALLS}")
                        print(f"{CALLS / (time.monotonic() - began):,.0f} calls/s", flush=True)
                        agent.start()
                        slowest = json.loads(tell(process, "end"))["slowest"]
                        print(f"slowest call {slowest * 1000:.0f} ms", flush=True)
                    else:
                        tell(process, f"go {CALLS // 4}")
                report(what, bedrock, sink)


if __name__ == "__main__":
    main()
