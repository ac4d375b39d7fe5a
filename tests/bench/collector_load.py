"""How many calls a second one agent holds without loss, on this machine.

    .venv/bin/python tests/bench/collector_load.py            # search, about three minutes
    .venv/bin/python tests/bench/collector_load.py --rate 5000 --seconds 60

What is sent is what the instrumentation makes: 500 real calls of seven models against the fake,
once, as OTLP. Then as many applications as the rate needs are played, each of them with 100 calls
a second: one request with 500 spans every 5 s, one with its metrics every 60 s (OpenTelemetry's
own defaults). The agent runs agent.yaml with its queue on this disk; behind it a second collector
counts what arrives and throws it away. A rate is held when no request was refused, the sender kept
its pace, and everything that was sent has arrived ten seconds after the last request: what waited
in the queue at the end of a step included. CPU and memory are the agent's own, from /proc. The
sender and the second collector need CPU too, so that a machine of its own holds more.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "e2e"), str(HERE.parents[1])]

from fleet import Collector, Fleet  # noqa: E402 - after the path
from stack import direct  # noqa: E402

CALLS = 500  # of one application in 5 s
SPANS_EVERY, METRICS_EVERY = 5.0, 60.0
RATE_OF_ONE = CALLS / SPANS_EVERY
DRAIN = 10.0  # seconds after the last request in which everything has to arrive
SINK = """
receivers:
  otlp:
    protocols: {grpc: {endpoint: "${env:OTELCOL_OTLP_GRPC_ENDPOINT}", max_recv_msg_size_mib: 64}}
exporters:
  debug: {verbosity: basic, sampling_initial: 1, sampling_thereafter: 1000000}
extensions:
  health_check: {endpoint: "${env:OTELCOL_HEALTH_ENDPOINT}"}
service:
  extensions: [health_check]
  pipelines:
    traces: {receivers: [otlp], exporters: [debug]}
    metrics: {receivers: [otlp], exporters: [debug]}
  telemetry:
    metrics:
      readers:
        - pull: {exporter: {prometheus: {host: 127.0.0.1, port: "${env:OTELCOL_METRICS_PORT}"}}}
"""
TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
METRICS = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
MODELS = (
    "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "us.anthropic.claude-opus-4-5-20251101-v1:0",
    "us.amazon.nova-lite-v1:0",
    "amazon.nova-pro-v1:0",
    "us.meta.llama3-3-70b-instruct-v1:0",
    "mistral.mistral-large-2402-v1:0",
    "openai.gpt-oss-120b-1:0",
)


def payloads() -> tuple[bytes, bytes, int]:
    """Make 500 real calls; return their spans and metrics as OTLP, and how many points."""
    from opentelemetry import metrics, trace
    from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    import otel_bedrock
    from otel_bedrock.testing import FakeBedrock

    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(tracers)
    metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
    otel_bedrock.instrument()
    with FakeBedrock() as bedrock:
        client = bedrock.client()
        say = [{"role": "user", "content": [{"text": "Hello! What is the capital of France?"}]}]
        for n in range(CALLS):
            client.converse(modelId=MODELS[n % len(MODELS)], messages=say)
    finished = spans.get_finished_spans()
    assert len(finished) == CALLS
    measured = encode_metrics(reader.get_metrics_data())
    points = sum(
        len(getattr(metric, metric.WhichOneof("data")).data_points)
        for group in measured.resource_metrics
        for scope in group.scope_metrics
        for metric in scope.metrics
    )
    return encode_spans(finished).SerializeToString(), measured.SerializeToString(), points


def numbers(collector: Collector, name: str) -> float:
    """Return the sum of one of a collector's own metrics."""
    url = f"http://127.0.0.1:{collector.environ['OTELCOL_METRICS_PORT']}/metrics"
    with direct(url, 5) as got:
        text = got.read().decode()
    found = re.findall(rf"^{name}(?:_total)?(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
    return sum(float(one) for one in found)


def cpu(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int, what: str = "VmHWM") -> float:
    """Return a process's memory in MB: the most so far, or VmRSS for now."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(rf"^{what}:\s+(\d+)", text, re.MULTILINE)[0]) / 1024


@dataclass(frozen=True)
class Step:
    """One rate, and what came of it."""

    asked: int
    sent: float
    cores: float
    memory: float
    why: str

    def __str__(self) -> str:
        held = f"not held: {self.why}" if self.why else "held"
        return (
            f"{self.asked:>7} calls/s  sent {self.sent:>8,.0f}/s"
            f"  agent {self.cores:4.2f} cores, {self.memory:4.0f} MB  {held}"
        )


def play(agent: Collector, sink: Collector, rate: int, seconds: float, data) -> Step:
    """Send at a rate for some seconds, and look at what has come of it."""
    spans, measured, _ = data
    pid = agent.fleet.running[agent.name].pid
    arrived = numbers(sink, "otelcol_receiver_accepted_spans")
    before, failures = cpu(pid), []
    channel = grpc.insecure_channel(agent.grpc)
    send = {
        path: channel.unary_unary(path, request_serializer=None, response_deserializer=None)
        for path in (TRACES, METRICS)
    }

    def one(path: str, body: bytes) -> None:
        try:
            send[path](body, timeout=10)
        except grpc.RpcError as error:
            failures.append(str(error.code()))

    # When each request is due: span requests evenly, and metrics among them.
    every = CALLS / rate
    due = [(n * every, TRACES, spans) for n in range(int(seconds / every))]
    each = METRICS_EVERY / (rate / RATE_OF_ONE)
    due += [(n * each, METRICS, measured) for n in range(int(seconds / each))]
    due.sort(key=lambda request: request[0])
    wanted = sum(CALLS for _, path, _ in due if path == TRACES)
    started = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        for at, path, body in due:
            time.sleep(max(0.0, started + at - time.monotonic()))
            pool.submit(one, path, body)
    took = time.monotonic() - started
    used = cpu(pid) - before
    channel.close()
    deadline = time.monotonic() + DRAIN
    while (got := numbers(sink, "otelcol_receiver_accepted_spans") - arrived) < wanted:
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    why = ""
    if failures:
        why = f"{len(failures)} requests refused ({failures[0]})"
    elif took > seconds * 1.05 + 0.5:
        why = f"the sender needed {took:.1f} s for {seconds:.0f}"
    elif got < wanted:
        why = f"{wanted - got:,.0f} of {wanted:,} spans not there after {DRAIN:g} s"
    return Step(rate, wanted / took, used / took, resident(pid), why)


def settle(agent: Collector) -> None:
    """Wait until the queue is empty."""
    while numbers(agent, "otelcol_exporter_queue_size"):
        time.sleep(0.2)


def main() -> None:
    """Search for the highest rate that is held, or play one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rate", type=int, help="calls a second; default: search")
    parser.add_argument("--seconds", type=float, default=10, help="of each step (10)")
    parser.add_argument("--first", type=int, default=2000, help="rate that the search begins with")
    parser.add_argument("--json", action="store_true", help="print the steps as JSON lines")
    asked = parser.parse_args()
    data = payloads()
    print(
        f"500 calls: {len(data[0]):,} bytes of spans; one export of metrics: {len(data[1]):,}"
        f" bytes, {data[2]} points",
        file=sys.stderr,
    )
    with Fleet() as fleet, tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "sink.yaml")
        config.write_text(SINK)
        sink = fleet.collector("sink", [config], {})
        agent = fleet.collector("agent", ["agent.yaml"], {"OTELCOL_GATEWAY_ENDPOINT": sink.grpc})

        def step(rate: int) -> bool:
            settle(agent)
            done = play(agent, sink, rate, asked.seconds, data)
            print(json.dumps(done.__dict__) if asked.json else done, flush=True)
            return not done.why

        play(agent, sink, 1000, 3, data)  # warm
        if asked.rate:
            sys.exit(not step(asked.rate))
        held, lost = 0, asked.first
        while step(lost):
            held, lost = lost, lost * 2
        while lost - held > max(500, held // 10):
            middle = (held + lost) // 2
            held, lost = (middle, lost) if step(middle) else (held, middle)
        print(f"held: {held} calls/s")


if __name__ == "__main__":
    main()
