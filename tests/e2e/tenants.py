"""Calls of two tenants, priced and with quotas: what every panel of the dashboards asks about.

TRAFFIC_ENDPOINT: where to send OTLP; FAKE_BEDROCK: the url of the fake.
"""

from __future__ import annotations

import json
import os
import urllib.request
from contextlib import suppress

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

import otel_bedrock

CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "us.amazon.nova-lite-v1:0"
TITAN = "amazon.titan-embed-text-v2:0"
PRICE = {"input": "3", "output": "15", "cache_read": "0.3", "cache_write": "3.75"}
PRICES = {"models": {CLAUDE: PRICE, NOVA: PRICE, TITAN: PRICE}}
LIMITS = {CLAUDE: 400_000, NOVA: 4_000_000}
HELLO = [{"role": "user", "content": [{"text": "Hello! What is the capital of France?"}]}]
TEXT = [{"text": "You are a helpful fake. " * 400}]
SYSTEM = [*TEXT, {"cachePoint": {"type": "default"}}]

otel_bedrock.instrument(
    otlp_endpoint=os.environ["TRAFFIC_ENDPOINT"],
    attribution_metric_keys=("tenant",),
    prices=PRICES,
    quota_limits=LIMITS,
)
client = boto3.client(
    "bedrock-runtime",
    endpoint_url=os.environ["FAKE_BEDROCK"],
    region_name="us-east-1",
    config=Config(retries={"total_max_attempts": 1}),
)


def fault(**what: object) -> None:
    """Ask the fake for trouble with the next call."""
    url = f"{os.environ['FAKE_BEDROCK']}/_fake/faults"
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(what).encode())).read()


@otel_bedrock.attribution(feature="chat")
def chat(tenant: str, model: str) -> None:
    """Have a conversation of one call, and one of a stream."""
    with otel_bedrock.attribution(tenant=tenant):
        system = SYSTEM if model == CLAUDE else TEXT
        client.converse(modelId=model, messages=HELLO, system=system)
        list(client.converse_stream(modelId=model, messages=HELLO, system=system)["stream"])


for tenant in ("acme (EU)", "globex"):
    for model in (CLAUDE, NOVA):
        chat(tenant, model)
    with otel_bedrock.attribution(tenant=tenant, feature="search"):
        client.invoke_model(modelId=TITAN, body=json.dumps({"inputText": "Hello!"}))["body"].read()
    for model in (CLAUDE, NOVA):
        fault(fault="throttle")
        with suppress(ClientError), otel_bedrock.attribution(tenant=tenant):
            client.converse(modelId=model, messages=HELLO)
        fault(fault="break_stream", after=3)
        with suppress(Exception), otel_bedrock.attribution(tenant=tenant):
            list(client.converse_stream(modelId=model, messages=HELLO)["stream"])
