"""Dashboards: every query of every panel gives data, of real traffic through the collector."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import pytest
from stack import COLLECTOR, direct, eventually

from otel_bedrock.testing import FakeBedrock

# The first one waits for traffic, its ingest, and a rule.
pytestmark = pytest.mark.timeout(400)

TRAFFIC = Path(__file__).parent / "tenants.py"
SERVICE = "tenants"
# Its name is a regular expression that does not match itself.
TENANT = "acme (EU)"
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "us.amazon.nova-lite-v1:0"
DASHBOARDS = {
    path.stem: json.loads(path.read_text()) for path in (COLLECTOR / "grafana/dashboards").iterdir()
}
WINDOW = 240
ALL = ".*"
CHOICES = {
    "all": {"service": ALL, "model": ALL, "tenant": ALL},
    "claude": {"service": SERVICE, "model": CLAUDE, "tenant": ALL},
    "acme": {"service": SERVICE, "model": ALL, "tenant": TENANT},
}
# What a page of one model or tenant has chosen in any case.
OWN = {"otel-bedrock-model": {"model": CLAUDE}, "otel-bedrock-tenant": {"tenant": TENANT}}


@pytest.fixture(scope="module")
def bill(stack, tmp_path_factory):
    """What the fake billed the two tenants, when all of it has arrived, the logs' tokens too."""
    logs = tmp_path_factory.mktemp("logs")
    environ = {**os.environ, "TRAFFIC_ENDPOINT": stack.otlp_http, "OTEL_SERVICE_NAME": SERVICE}

    def run(*command):
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, timeout=120, env=environ
        )
        assert done.returncode == 0, done.stderr

    with FakeBedrock() as bedrock:
        environ["FAKE_BEDROCK"] = bedrock.url
        bedrock.log_to(logs)
        run(TRAFFIC)
        bedrock.flush_log()
        sent = [billed for billed in bedrock.bill if billed.usage_sent]
    environ["OTEL_SERVICE_NAME"] = "logs"
    checkpoint = ("--checkpoint", logs / "checkpoint.sqlite")
    ingest = ("-m", "otel_bedrock", "logs", "ingest", logs, *checkpoint)
    run(*ingest, "--otlp-endpoint", stack.otlp_http)
    whole = sum(billed.input_tokens for billed in sent)
    metric = "gen_ai_client_inference_usage_input_tokens_total"
    promql = f'sum({metric}{{service_name="{SERVICE}"}}) == {whole}'
    eventually(lambda: stack.query(promql))
    # The rules are evaluated once a minute.
    rule = f'bedrock_quota:tokens:per_minute_max1h{{gen_ai_request_model="{NOVA}"}} > 0'
    eventually(lambda: stack.query(rule), timeout=150)
    # More than that, for the logs also tell what a broken stream had cost.
    eventually(lambda: stack.query(f'sum({metric}{{bedrock_usage_origin!=""}}) >= {whole}'))
    eventually(lambda: stack.traces(SERVICE))
    return sent


def _panels():
    for name, dashboard in DASHBOARDS.items():
        for panel in dashboard["panels"]:
            if panel["type"] != "row" and panel["datasource"]["type"] == "prometheus":
                yield name, panel


PANELS = list(_panels())


def _filled(text, chosen):
    """Put values where Grafana puts those of variables."""
    values = {
        "__rate_interval_ms": str(WINDOW * 1000),
        "__rate_interval": f"{WINDOW}s",
        "__range": "6h",
    }
    # As Grafana does: what may be several values is escaped, and compared as an expression.
    for key, value in chosen.items():
        pattern = value if value in (ALL, f"{SERVICE}|logs") else re.escape(value)
        pattern = pattern.replace("\\", "\\\\")
        text = text.replace(f'=~"${key}"', f'=~"{pattern}"').replace(f'="${key}"', f'="{value}"')
    filled = re.sub(r"\$(\w+)", lambda match: values[match[1]], text)
    assert "$" not in filled
    return filled


def _ask(stack, path, **parameters):
    url = f"{stack.prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with direct(url, timeout=30) as response:
        return json.load(response)["data"]


def _numbers(stack, target, chosen):
    """Return the finite numbers that a panel's query gives, as Grafana would ask."""
    now, promql = time.time(), _filled(target["expr"], chosen)
    if target.get("instant"):
        found = _ask(stack, "query", query=promql, time=now)["result"]
        pairs = [series["value"] for series in found]
    else:
        window = {"start": now - 900, "end": now, "step": 15}
        found = _ask(stack, "query_range", query=promql, **window)["result"]
        pairs = [pair for series in found for pair in series["values"]]
    return [float(value) for _, value in pairs if value not in ("NaN", "+Inf", "-Inf")]


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize(
    ("name", "panel"), PANELS, ids=[f"{name}: {panel['title']}" for name, panel in PANELS]
)
def test_every_query_of_a_panel_gives_data(name, panel, choice, stack, bill):
    assert panel["targets"]
    for target in panel["targets"]:
        numbers = _numbers(stack, target, CHOICES[choice] | OWN.get(name, {}))
        assert numbers, target["expr"]
        assert min(numbers) >= 0 or panel["title"].startswith("Saved")


def _panel(name, title):
    (panel,) = [found for at, found in PANELS if at == name and found["title"] == title]
    return panel


def test_the_figures_are_what_was_billed(stack, bill):
    everything = CHOICES["all"] | {"service": SERVICE}

    def figure(title):
        # The same calls are in the logs as well: counted once all the same.
        (target,) = _panel("otel-bedrock", title)["targets"]
        (number,) = _numbers(stack, target, everything | {"service": f"{SERVICE}|logs"})
        return number

    read = sum(billed.cache_read_tokens or 0 for billed in bill)
    written = sum(billed.cache_write_tokens or 0 for billed in bill)
    whole = sum(billed.input_tokens for billed in bill)
    assert written
    assert figure("Tokens") == whole + sum(billed.output_tokens or 0 for billed in bill)
    assert figure("Input from the cache") == pytest.approx(read / whole)
    assert figure("Saved by the cache") == pytest.approx(0.9 * read - 0.25 * written)
    assert figure("Calls") == len(bill) + 8
    assert figure("Calls that failed") == pytest.approx(8 / (len(bill) + 8))
    minutes = WINDOW / 60
    kinds = _panel("otel-bedrock", "Tokens a minute by kind")["targets"]
    latest = [_numbers(stack, target, everything)[-1] * minutes for target in kinds]
    assert latest[1:3] == [pytest.approx(read), pytest.approx(written)]
    assert sum(latest) == pytest.approx(figure("Tokens"))


def test_a_table_has_the_tokens_of_each_tenant_and_model(stack, bill):
    everything = CHOICES["all"] | {"service": SERVICE}
    for title, label, wanted in (
        ("The time range by tenant", "bedrock_attribution_tenant", {TENANT, "globex"}),
        ("The time range by model", "gen_ai_request_model", {b.model_id for b in bill}),
    ):
        targets = _panel("otel-bedrock", title)["targets"]
        for target in targets[:5]:
            found = stack.query(_filled(target["expr"], everything))
            assert {labels[label] for labels, _ in found} == wanted
        spent = stack.query(_filled(targets[0]["expr"], everything))
        assert sum(value for _, value in spent) == sum(billed.input_tokens for billed in bill)


def test_quota_in_use_is_what_bedrock_settles_over_the_limit(stack, bill):
    target = _panel("otel-bedrock", "Quota in use by model")["targets"][0]
    ours = CHOICES["all"] | {"service": SERVICE}
    now = _ask(stack, "query", query=_filled(target["expr"], ours), time=time.time())
    found = {
        series["metric"]["gen_ai_request_model"]: float(series["value"][1])
        for series in now["result"]
    }
    for model, factor, limit in ((CLAUDE, 5, 400_000), (NOVA, 1, 4_000_000)):
        settled = sum(
            billed.input_tokens - (billed.cache_read_tokens or 0) + factor * billed.output_tokens
            for billed in bill
            if billed.model_id == model
        )
        assert found[model] == pytest.approx(settled / (WINDOW / 60) / limit)


def test_exemplars_lead_to_traces_that_jaeger_has(stack, bill):
    now = time.time()
    panels = [
        (name, panel, target)
        for name, panel in PANELS
        for target in panel["targets"]
        if target.get("exemplar")
    ]
    assert len(panels) >= 3
    traces = {span["trace_id"] for span in stack.traces(SERVICE)}
    for name, panel, target in panels:
        chosen = CHOICES["all"] | {"service": SERVICE} | OWN.get(name, {})
        promql = _filled(target["expr"], chosen)
        series = _ask(stack, "query_exemplars", query=promql, start=now - 900, end=now)
        found = {dot["labels"]["trace_id"] for one in series for dot in one["exemplars"]}
        assert found, panel["title"]
        assert found <= traces
