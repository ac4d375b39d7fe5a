"""Jaeger: the searches of collector/README.md find the calls that they say they find.

Each row of its table is run as Jaeger's page and Grafana run it.
"""

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

TRAFFIC = Path(__file__).parent / "tenants.py"
SERVICE = "searched"
SECTION = re.search(
    r"^## Finding a trace$(.*?)^## ",
    (COLLECTOR / "README.md").read_text(),
    re.DOTALL | re.MULTILINE,
)
SEARCHES = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in SECTION[1].splitlines()
    if re.match(r"\| (?!you look for|-)", line)
]
TENANT = "globex"
MODEL = "us.amazon.nova-lite-v1:0"

# What each row must find of the calls that were made, by the words of its first cell.
FOUND = {
    "calls of a model": lambda call: call["gen_ai.request.model"] == MODEL,
    "calls of a model, whatever Region": lambda call: (
        call["bedrock.model.base_id"] == "amazon.nova-lite-v1:0"
    ),
    "calls for a tenant": lambda call: call["bedrock.attribution.tenant"] == TENANT,
    "calls with an error": lambda call: call.get("error.type") == "ThrottlingException",
    "throttled calls of a tenant": lambda call: (
        call.get("bedrock.throttle.reason") == "tokens_per_minute"
        and call["bedrock.attribution.tenant"] == TENANT
    ),
    "streams that broke off": lambda call: call.get("bedrock.usage.complete") is False,
    "slow calls": lambda call: call["seconds"] >= 1,
    "one call by its id at AWS": lambda call: call["aws.request_id"] == call["wanted"],
}


@pytest.fixture(scope="module")
def calls(stack):
    """The attributes of every call that was made, by its span."""
    with FakeBedrock() as bedrock:
        bedrock.slow(first=1.2)
        environ = {
            **os.environ,
            "FAKE_BEDROCK": bedrock.url,
            "TRAFFIC_ENDPOINT": stack.otlp_http,
            "OTEL_SERVICE_NAME": SERVICE,
        }
        done = subprocess.run(
            [sys.executable, TRAFFIC], capture_output=True, text=True, timeout=120, env=environ
        )
        assert done.returncode == 0, done.stderr
        made = len(bedrock.bill)
    spans = eventually(lambda: len(found := stack.traces(SERVICE)) == made and found)
    wanted = spans[0]["attributes"]["aws.request_id"]
    return {
        span["span_id"]: {
            **span["attributes"],
            "seconds": (span["end"] - span["start"]) / 1e9,
            "wanted": wanted,
        }
        for span in spans
    }


def _fields(text):
    """Read `Tags: a=b c=d, Min Duration: 1s` as parameters of Jaeger's search."""
    names = {"Tags": "tags", "Operation": "operation", "Min Duration": "minDuration"}
    found = {}
    for field, value in re.findall(r"(Tags|Operation|Min Duration) `([^`]+)`", text):
        found[names[field]] = value
    if "tags" in found:
        pairs = (pair.partition("=") for pair in found["tags"].split())
        found["tags"] = json.dumps({key: value for key, _, value in pairs})
    return found


def _search(stack, **fields):
    asked = urllib.parse.urlencode({"service": SERVICE, "lookback": "1h", "limit": 200, **fields})
    with direct(f"{stack.jaeger}/api/traces?{asked}", timeout=10) as response:
        data = json.load(response)["data"]
    return {span["spanID"] for trace in data for span in trace["spans"]}


def test_every_search_of_the_table_is_run():
    assert [what for what, *_ in SEARCHES] == list(FOUND)


@pytest.mark.parametrize(("what", "fields"), [row[:2] for row in SEARCHES])
def test_a_search_finds_the_calls_that_it_says(what, fields, stack, calls):
    wanted = {span for span, call in calls.items() if FOUND[what](call)}
    assert wanted
    assert len(wanted) < len(calls)
    first = next(iter(calls.values()))["wanted"]
    fields = fields.replace("6f1c0a3e-…", first).replace("10s", "1s").replace("acme", TENANT)
    assert _search(stack, **_fields(fields)) == wanted


def test_what_the_table_says_jaeger_cannot_do_it_cannot(stack, calls):
    """Where a new version can, the text is to be mended, and the dashboards may ask for more."""
    for tags in ({"gen_ai.usage.input_tokens": ">2000"}, {"error": "true"}):
        assert _search(stack, tags=json.dumps(tags)) == set()
    # The third version of its API knows operations and durations, and passes over attributes.
    v3 = {"query.attributes": json.dumps({"bedrock.attribution.tenant": TENANT})}
    assert len(_v3(stack, **v3)) == len(calls)


def _v3(stack, **more):
    now = time.time()
    asked = {
        "query.service_name": SERVICE,
        "query.start_time_min": _when(now - 3600),
        "query.start_time_max": _when(now + 60),
        "query.num_traces": "200",
        **more,
    }
    found = stack._get(f"{stack.jaeger}/api/v3/traces", asked, none_at=404)
    return {
        span["spanId"]: span
        for resource in (found["result"]["resourceSpans"] if found else ())
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    }


def _when(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def test_the_stable_api_finds_by_model_and_by_duration(stack, calls):
    wanted = {span for span, call in calls.items() if call["gen_ai.request.model"] == MODEL}
    assert set(_v3(stack, **{"query.operation_name": f"chat {MODEL}"})) == wanted
    slow = {span for span, call in calls.items() if call["seconds"] >= 1}
    assert set(_v3(stack, **{"query.duration_min": "1s"})) == slow
    assert _v3(stack, **{"query.duration_min": "100s"}) == {}


def test_calls_over_so_many_tokens_are_found_by_exemplars(stack, calls):
    """The command of the section, as Prometheus is asked: no call of that size is missed here."""
    (metric, limit) = re.search(
        r"query=(gen_ai_client_inference_operation_input_tokens_bucket).*?> (\d+)\)",
        SECTION[1],
        re.DOTALL,
    ).groups()
    now = time.time()
    asked = {
        "query": f'{metric}{{service_name="{SERVICE}"}}',
        "start": str(now - 3600),
        "end": str(now + 60),
    }

    def dots():
        data = stack._get(f"{stack.prometheus}/api/v1/query_exemplars", asked)["data"]
        return [dot for series in data for dot in series["exemplars"]]

    found = {
        dot["labels"]["span_id"] for dot in eventually(dots) if float(dot["value"]) > int(limit)
    }
    assert found
    assert found <= {
        span
        for span, call in calls.items()
        if call.get("gen_ai.usage.input_tokens", 0) > int(limit)
    }
