"""Alerts that were seen: real calls, through the real programs, to somebody's webhook and back."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from lapse import Hook, Lapse, faster, until
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from stack import COLLECTOR

from otel_bedrock import shield
from otel_bedrock.testing import FakeBedrock

pytestmark = pytest.mark.e2e

SERVICE = "troubled"
GONE = "gone"  # which called all week, and has not since
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
LOOPING = (
    f'service_name="{SERVICE}",gen_ai_request_model="{CLAUDE}",bedrock_attribution_tenant="acme"'
)
# The week before, in which the workload did a little.
PAST = {
    "bedrock:evaluations": 1,
    f"bedrock_workload:weighted_tokens:rate5m{{{LOOPING}}}": 0.01,
    f"bedrock_workload:input_tokens:rate5m{{{LOOPING}}}": 1,
    f"bedrock_workload:cache_read_tokens:rate5m{{{LOOPING}}}": 0.5,
    f'bedrock_service:calls:rate5m{{service_name="{SERVICE}"}}': 0.1,
    f'bedrock_service:calls:rate5m{{service_name="{GONE}"}}': 0.1,
}
# As a user overrides a threshold for one tenant, or one service; so low that a slow machine's few
# calls are above.
ACME = 'bedrock:workload{bedrock_attribution_tenant="acme"}'
TROUBLED = f'bedrock:service_model{{service_name="{SERVICE}"}}'
THRESHOLDS = {
    "expr: bedrock:workload + 2000\n": f"expr: {ACME} + 0.5 or bedrock:workload + 2000\n",
    "expr: bedrock:workload + 30\n": f"expr: {ACME} + 0.1 or bedrock:workload + 30\n",
    "expr: bedrock:service_model + 20\n": f"expr: {TROUBLED} + 0.2 or bedrock:service_model + 20\n",
}
# What arrives, at whom, and a part of what it says.
EXPECTED = {
    "BedrockRunawayLoop": ("/pages", "troubled, tenant acme: calls us.anthropic.claude-sonnet"),
    "BedrockErrorRatioHigh": ("/pages", "calls of us.meta.llama3-3-70b-instruct-v1:0 fail"),
    "BedrockCostBurnFast": ("/pages", "troubled, tenant acme: spends many times its budget"),
    "BedrockThrottled": ("/tickets", "Bedrock throttles us.amazon.nova-lite-v1:0"),
    "BedrockQuotaNear": ("/tickets", "amazon.nova-pro-v1:0 in us-east-1: near its quota"),
    "BedrockExporterSilent": ("/pages", "gone: no metrics any more"),
    "BedrockCardinalityOverflow": ("/tickets", "many values of bedrock.attribution.tenant"),
}


@pytest.fixture(scope="module")
def hook() -> Iterator[Hook]:
    with Hook() as ready:
        yield ready


@pytest.fixture(scope="module")
def lapse(tools: Path, hook: Hook) -> Iterator[Lapse]:
    with Lapse(hook, THRESHOLDS, PAST) as ready:
        yield ready


@pytest.fixture(scope="module")
def trouble(lapse: Lapse) -> Iterator[subprocess.Popen[str]]:
    environ = {
        **os.environ,
        "TRAFFIC_ENDPOINT": lapse.otlp_http,
        "OTEL_SERVICE_NAME": SERVICE,
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    }
    del environ[shield.RAISE_VARIABLE]  # it makes a failure of ours on purpose
    with FakeBedrock() as bedrock:
        process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("trouble.py")],
            env={**environ, "FAKE_BEDROCK": bedrock.url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            try:
                process.communicate(timeout=20)
            finally:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def logs(lapse: Lapse) -> Iterator[None]:
    """Some usage that was read from invocation logs."""
    with meter_of(lapse, SERVICE) as meter:
        for kind in ("input", "output"):
            name = f"gen_ai.client.inference.usage.{kind}_tokens"
            origin = {"bedrock.usage.origin": "invocation_log", "gen_ai.request.model": CLAUDE}
            meter.create_counter(name, unit="{token}").add(10**9, origin)
        yield


@contextmanager
def meter_of(lapse: Lapse, service: str) -> Iterator[Meter]:
    """A meter that exports each second, as a process of this service."""
    exporter = OTLPMetricExporter(endpoint=f"{lapse.otlp_http}/v1/metrics")
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=1000)
    provider = MeterProvider([reader], Resource({"service.name": service}))
    try:
        yield provider.get_meter("test")
    finally:
        provider.shutdown()


def test_a_duration_becomes_shorter_and_nothing_else() -> None:
    text = "sum(m{ttl='5m'}[5m] offset 23h30m) / 300 > rate5m\nfor: 15m\nlabels: {ttl: 5m}"
    assert faster(text) == (
        "sum(m{ttl='5m'}[10000ms] offset 2820000ms) / 300 > rate5m\nfor: 30000ms\nlabels: {ttl: 5m}"
    )


@pytest.mark.timeout(400)
def test_alerts_reach_a_webhook_and_clear_and_every_record_and_query_has_data(
    lapse: Lapse, hook: Hook, logs: None, trouble: subprocess.Popen[str]
) -> None:
    records = {
        rule["record"]
        for name in ("recording.yaml", "thresholds.yaml")
        for group in yaml.safe_load((COLLECTOR / "rules" / name).read_text())["groups"]
        for rule in group["rules"]
    }
    runbook = (COLLECTOR / "runbook.md").read_text()
    queries = set(re.findall(r"```promql\n(.+?)\n```", runbook, re.DOTALL))
    assert len(records) > 70
    assert len(queries) > 30
    silent = records | queries

    def arrived() -> bool:
        assert trouble.poll() is None
        for asked in sorted(silent):
            if lapse.query(faster(asked)):
                silent.discard(asked)
        return not silent and all(hook.states(name) == ["firing"] for name in EXPECTED)

    came = until(arrived, 60)
    missing = [name for name in EXPECTED if not hook.states(name)]
    assert came, f"not told: {missing}; without data: {sorted(silent)}"
    for name, (path, said) in EXPECTED.items():
        where, alert = hook.first(name)
        assert where == path
        assert said in alert["annotations"]["summary"]
        assert alert["annotations"]["runbook_url"] == f"collector/runbook.md#{name.lower()}"

    assert trouble.stdin is not None
    assert trouble.stdout is not None
    trouble.stdin.write("stop\n")
    trouble.stdin.flush()
    assert trouble.stdout.readline() == "idle\n"
    with meter_of(lapse, GONE) as meter:
        meter.create_histogram("gen_ai.client.inference.duration", "s").record(0.5)
        cleared = until(
            lambda: all(hook.states(name) == ["firing", "resolved"] for name in EXPECTED), 90
        )
    assert cleared, {name: hook.states(name) for name in EXPECTED}
    assert all(path != "/watchdog" for path, _ in hook.told)
