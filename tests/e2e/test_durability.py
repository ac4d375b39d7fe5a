"""Kills in the middle of traffic: what the collector acknowledged arrives, and nobody waits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from fleet import Fleet
from stack import COLLECTOR, eventually, free_ports

from otel_bedrock.testing import FakeBedrock

STEADY = Path(__file__).parent / "steady.py"
_USAGE = "gen_ai_client_inference_usage"
KINDS = {
    f"{_USAGE}_input_tokens_total": "input_tokens",
    f"{_USAGE}_output_tokens_total": "output_tokens",
    f"{_USAGE}_cache_read_input_tokens_total": "cache_read_tokens",
    f"{_USAGE}_cache_write_input_tokens_total": "cache_write_tokens",
}


class Durable(Fleet):
    """Jaeger and Prometheus with their data on disk, a gateway that keeps all, and an agent."""

    def start(self) -> None:
        ports = [f"127.0.0.1:{port}" for port in free_ports(5)]
        otlp, query, self._jaeger_health, grpc, prometheus = ports
        self.jaeger, self.prometheus = f"http://{query}", f"http://{prometheus}"
        self._environment = {
            "JAEGER_OTLP_GRPC_ENDPOINT": otlp,
            "JAEGER_QUERY_HTTP_ENDPOINT": query,
            "JAEGER_QUERY_GRPC_ENDPOINT": grpc,
            "JAEGER_HEALTH_ENDPOINT": self._jaeger_health,
            "JAEGER_STORAGE_DIR": str(self.folder / "jaeger"),
        }
        self.start_backends()
        self.gateway = self.collector(
            "gateway",
            ["gateway.yaml", "overlays/keep-all-traces.yaml"],
            {"TRACES_OTLP_GRPC_ENDPOINT": otlp, "PROMETHEUS_URL": self.prometheus},
        )
        self.agent = self.collector(
            "agent", ["agent.yaml"], {"OTELCOL_GATEWAY_ENDPOINT": self.gateway.grpc}
        )

    def start_backends(self) -> None:
        files = ("jaeger.yaml", "overlays/jaeger-on-disk.yaml")
        configs = [part for one in files for part in ("--config", str(COLLECTOR / one))]
        self.run("jaeger", configs, self._environment)
        self.run(
            "prometheus",
            [
                f"--config.file={self.prometheus_config()}",
                f"--storage.tsdb.path={self.folder / 'prometheus'}",
                f"--web.listen-address={self.prometheus.removeprefix('http://')}",
                "--web.enable-otlp-receiver",
            ],
            {},
        )
        self.await_health("jaeger", f"http://{self._jaeger_health}/status")
        self.await_health("prometheus", f"{self.prometheus}/-/ready")

    def kill_backends(self) -> None:
        self.kill("jaeger")
        self.kill("prometheus")


@pytest.fixture
def durable(tools):
    with Durable() as started:
        yield started


@contextmanager
def application(durable, bedrock, service):
    environ = {
        "STEADY_ENDPOINT": durable.agent.http,
        "STEADY_SERVICE": service,
        "FAKE_BEDROCK": bedrock.url,
    }
    with (
        (durable.folder / "application.log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, STEADY],
            env={**os.environ, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.timeout(300)
def test_kills_lose_no_count_and_no_acknowledged_span(durable):
    """The collector, then the backends, then all of them, while calls go on."""
    service = "steady"
    with FakeBedrock() as bedrock, application(durable, bedrock, service) as process:

        def tell(line):
            process.stdin.write(f"{line}\n")
            process.stdin.flush()

        def during_traffic(kill):
            """Kill after some calls; the calls that follow must be made all the same."""
            before = len(bedrock.bill)
            tell("go 90")
            eventually(lambda: len(bedrock.bill) >= before + 30, timeout=60)
            kill()
            assert process.stdout.readline() == "made 90\n"
            assert len(bedrock.bill) == before + 90

        during_traffic(durable.agent.kill)
        durable.agent.start()

        during_traffic(durable.gateway.kill)
        durable.gateway.start()

        during_traffic(durable.kill_backends)
        durable.start_backends()

        def kill_all():
            durable.kill_backends()
            durable.gateway.kill()
            durable.agent.kill()

        during_traffic(kill_all)
        durable.agent.start()
        # The application ends while the agent is all that is there; then that is killed too.
        tell("go 60")
        assert process.stdout.readline() == "made 60\n"
        tell("end")
        told = json.loads(process.stdout.readline())
        durable.agent.kill()

        durable.start_backends()
        durable.gateway.start()
        durable.agent.start()
        bill = bedrock.bill

    assert len(bill) == 4 * 90 + 60
    acknowledged = set(told["acknowledged"])
    assert len(acknowledged) > 100  # some were lost with the agent that never took them

    def spans():
        found = {one["span_id"] for one in durable.traces(service, limit=2000)}
        assert acknowledged <= found, f"{len(acknowledged - found)} lost"
        return found

    eventually(spans, timeout=60)
    for counter, kind in KINDS.items():
        billed = {}
        for one in bill:
            billed[one.model_id] = billed.get(one.model_id, 0) + (getattr(one, kind) or 0)

        def counted(counter=counter, billed=billed):
            promql = f'sum by (gen_ai_request_model) ({counter}{{service_name="{service}"}})'
            found = {at["gen_ai_request_model"]: value for at, value in durable.query(promql)}
            assert {k: v for k, v in found.items() if v} == {k: v for k, v in billed.items() if v}
            return True

        eventually(counted, timeout=60)
