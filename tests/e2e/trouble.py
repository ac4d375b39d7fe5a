"""A program with every trouble at once, until it is told to stop; then it idles.

Of the many tenants, one calls in a loop, and more come than metrics may have; one model throttles,
one fails, one is near its quota, of one the streams are dropped.
"""

import contextlib
import json
import os
import sys
import threading
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

import otel_bedrock
from otel_bedrock import shield

FAKE = os.environ["FAKE_BEDROCK"]
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
OPUS = "us.anthropic.claude-opus-4-1-20250805-v1:0"
PRO = "amazon.nova-pro-v1:0"
LITE = "us.amazon.nova-lite-v1:0"
LLAMA = "us.meta.llama3-3-70b-instruct-v1:0"
MISTRAL = "mistral.mistral-large-2402-v1:0"
GPT = "openai.gpt-oss-120b-1:0"

otel_bedrock.instrument(
    otlp_endpoint=os.environ["TRAFFIC_ENDPOINT"],
    attribution_metric_keys=("tenant",),
    attribution_limit=3,
    prices={
        "models": {
            CLAUDE: {
                "input": "90000",
                "output": "90000",
                "cache_read": "9000",
                "cache_write_5m": "110000",
                "cache_write_1h": "180000",
            }
        }
    },
    quota_limits={PRO: {"minute": 10}},
)


def client(attempts):
    return boto3.client(
        "bedrock-runtime",
        endpoint_url=FAKE,
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": attempts}),
    )


once, patient = client(1), client(3)


def fault(**what):
    body = json.dumps(what).encode()
    urllib.request.urlopen(urllib.request.Request(f"{FAKE}/_fake/faults", body)).read()


def converse(model, bedrock=once, **more):
    message = {"role": "user", "content": [{"text": "Hello! What is the capital of France?"}]}
    return bedrock.converse(modelId=model, messages=[message], **more)


def stream(model):
    message = {"role": "user", "content": [{"text": "Hello! What is the capital of France?"}]}
    return once.converse_stream(modelId=model, messages=[message])["stream"]


def failing(model):
    with contextlib.suppress(ClientError):
        converse(model)


system = [{"text": "You are a helpful fake. " * 400}, {"cachePoint": {"type": "default"}}]
thinking = {"messages": [{"role": "user", "content": "Hello!"}], "reasoning_effort": "high"}
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()

turn = 0
while not stop.wait(0.1):
    turn += 1
    with otel_bedrock.attribution(tenant="acme"):
        converse(CLAUDE, system=system)
        converse(CLAUDE, system=system)
    with otel_bedrock.attribution(tenant="zen"):
        list(stream(PRO))
    # The third is the last that has a name; later ones are `other`.
    with otel_bedrock.attribution(tenant=f"visitor-{turn}"):
        converse(OPUS)
    fault(fault="throttle")
    failing(LITE)
    fault(fault="fail", name="ModelTimeoutException")
    failing(LLAMA)
    fault(fault="throttle")
    converse(MISTRAL, patient)
    once.invoke_model(modelId=GPT, body=json.dumps(thinking))["body"].read()
    dropped = stream(OPUS)
    next(iter(dropped))
    dropped.close()
    once.invoke_model(modelId="amazon.titan-embed-text-v2:0", body='{"inputText": "Hello!"}')
    if turn == 1:
        shield.stop("trouble", ValueError("a failure of the instrumentation, as a test"))

print("idle", flush=True)
sys.stdin.read()
