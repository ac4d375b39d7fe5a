"""A program's calls, through the real collector, in Jaeger and Prometheus: to the token."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from stack import eventually

from otel_bedrock.testing import FakeBedrock

TRAFFIC = Path(__file__).parent / "traffic.py"
_USAGE = "gen_ai_client_inference_usage"
COUNTS = (
    # span attribute, counter, field of the bill
    ("gen_ai.usage.input_tokens", f"{_USAGE}_input_tokens_total", "input_tokens"),
    ("gen_ai.usage.output_tokens", f"{_USAGE}_output_tokens_total", "output_tokens"),
    (
        "gen_ai.usage.cache_read.input_tokens",
        f"{_USAGE}_cache_read_input_tokens_total",
        "cache_read_tokens",
    ),
    (
        "gen_ai.usage.cache_write.input_tokens",
        f"{_USAGE}_cache_write_input_tokens_total",
        "cache_write_tokens",
    ),
)
SPENDING = {"Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream"}
ONCE = "amazon.nova-pro-v1:0"


def _by_hand(stack, bedrock, service, request):
    """The program calls instrument(otlp_endpoint=…) itself."""
    return [sys.executable], {"TRAFFIC_ENDPOINT": stack.otlp_http}


def _no_code(stack, bedrock, service, request):
    """The program as it is, under opentelemetry-instrument."""
    environment = request.getfixturevalue("auto_environment")
    return [environment / "opentelemetry-instrument", environment / "python"], {
        "OTEL_EXPORTER_OTLP_ENDPOINT": stack.otlp_http,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_LOGS_EXPORTER": "none",
    }


@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", [_by_hand, _no_code], ids=lambda way: way.__name__.strip("_"))
def test_every_number_is_what_bedrock_billed(stack, way, request):
    service = f"traffic-{way.__name__.strip('_')}"
    with FakeBedrock() as bedrock:
        command, environ = way(stack, bedrock, service, request)
        done = subprocess.run(
            [*command, TRAFFIC],
            capture_output=True,
            text=True,
            timeout=120,
            env={
                **os.environ,
                **environ,
                "FAKE_BEDROCK": bedrock.url,
                "OTEL_SERVICE_NAME": service,
                "OTEL_METRIC_EXPORT_INTERVAL": "60000",
            },
        )
        assert done.returncode == 0, done.stderr
        assert "ThrottlingException" in done.stdout
        bill = bedrock.bill

    calls = {billed.request_id: billed for billed in bill}
    assert len(calls) == len(bill) > 30
    spans = eventually(lambda: _all(stack.traces(service, limit=500), len(bill)))
    _check_spans(spans, calls)
    _check_counters(stack, service, bill)


def _all(spans, wanted):
    ours = [span for span in spans if span["attributes"].get("gen_ai.provider.name")]
    assert len(ours) == wanted, f"{len(ours)} spans of {wanted}"
    return ours


def _check_spans(spans, calls):
    told = {}
    for span in spans:
        told[span["attributes"]["aws.request_id"]] = span
    assert set(told) == set(calls)
    for request_id, billed in calls.items():
        attributes = told[request_id]["attributes"]
        assert attributes["gen_ai.request.model"] == billed.model_id
        for attribute, _, field in COUNTS:
            cost = getattr(billed, field)
            if billed.operation not in SPENDING or not billed.usage_sent:
                cost = None
            assert attributes.get(attribute) == cost, (attribute, billed)
            assert attribute not in attributes or type(attributes[attribute]) is int


def _check_counters(stack, service, bill):
    spent = [billed for billed in bill if billed.operation in SPENDING]
    for _, counter, field in COUNTS:
        billed = {}
        for one in spent:
            cost = getattr(one, field)
            if one.usage_sent and cost:
                billed[one.model_id] = billed.get(one.model_id, 0) + cost
        promql = f'sum by (gen_ai_request_model) ({counter}{{service_name="{service}"}})'

        def told(promql=promql, billed=billed):
            found = {
                labels["gen_ai_request_model"]: value
                for labels, value in stack.query(promql)
                if value
            }
            assert found == billed, promql
            return found

        eventually(told)
    unsent = sum(not one.usage_sent for one in spent)
    assert unsent == 2  # a throttled call and a broken stream
    missing = stack.query(f'sum(bedrock_client_usage_missing_total{{service_name="{service}"}})')
    assert [value for _, value in missing] == [unsent]
    # One single call of a model: a rule that counts a series' first value sees all of it.
    series = (
        f'{_USAGE}_input_tokens_total{{service_name="{service}",gen_ai_request_model="{ONCE}"}}'
    )
    once = stack.query(f"sum(({series} unless {series} offset 1h) or increase({series}[1h]))")
    (billed,) = [one for one in spent if one.model_id == ONCE]
    assert [value for _, value in once] == [billed.input_tokens]
