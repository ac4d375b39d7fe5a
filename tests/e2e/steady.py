"""An application that calls Bedrock as it is told to, and notes which spans a collector took.

Lines on standard input: `go N` makes N calls and answers `made N`; `end` flushes and answers with
one line of JSON. Its OpenTelemetry SDK is set up as an application's would be, but for shorter
periods and a pause after each call; with STEADY_DEFAULTS it is as OpenTelemetry has it.
"""

import json
import os
import sys
import time

import boto3
from botocore.config import Config
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

import otel_bedrock

ENDPOINT = os.environ["STEADY_ENDPOINT"]
MODELS = ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "us.amazon.nova-lite-v1:0")
DEFAULTS = "STEADY_DEFAULTS" in os.environ
acknowledged = []


class Noting(SpanExporter):
    """The exporter, and a note of what was acknowledged."""

    def __init__(self):
        self.inner = OTLPSpanExporter(f"{ENDPOINT}/v1/traces", timeout=10 if DEFAULTS else 3)

    def export(self, spans):
        result = self.inner.export(spans)
        if result is SpanExportResult.SUCCESS:
            acknowledged.extend(f"{span.context.span_id:016x}" for span in spans)
        return result

    def shutdown(self):
        self.inner.shutdown()

    def force_flush(self, timeout_millis=30000):
        return True


resource = Resource.create({"service.name": os.environ["STEADY_SERVICE"]})
tracers = TracerProvider(resource=resource)
delay = None if DEFAULTS else 100
tracers.add_span_processor(BatchSpanProcessor(Noting(), schedule_delay_millis=delay))
trace.set_tracer_provider(tracers)
reader = PeriodicExportingMetricReader(
    OTLPMetricExporter(f"{ENDPOINT}/v1/metrics", timeout=3),
    export_interval_millis=None if DEFAULTS else 500,
)
meters = MeterProvider(resource=resource, metric_readers=[reader])
metrics.set_meter_provider(meters)
otel_bedrock.instrument()

client = boto3.client(
    "bedrock-runtime",
    endpoint_url=os.environ["FAKE_BEDROCK"],
    region_name="us-east-1",
    aws_access_key_id="fake",
    aws_secret_access_key="fake",
    config=Config(retries={"total_max_attempts": 1}),
)
messages = [{"role": "user", "content": [{"text": "Hello!"}]}]
system = [{"text": "You are a helpful fake. " * 400}, {"cachePoint": {"type": "default"}}]
slowest = 0.0

for line in sys.stdin:
    what, _, count = line.strip().partition(" ")
    if what == "end":
        break
    for n in range(int(count)):
        began = time.perf_counter()
        client.converse(modelId=MODELS[n % 2], messages=messages, system=system)
        slowest = max(slowest, time.perf_counter() - began)
        if not DEFAULTS:
            time.sleep(0.005)
    print(f"made {count}", flush=True)

tracers.shutdown()
meters.shutdown()
print(json.dumps({"acknowledged": acknowledged, "slowest": slowest}), flush=True)
