"""An ordinary boto3 program that talks to every family, gets throttled, and loses a stream.

With TRAFFIC_ENDPOINT it calls instrument() itself; without, not a line of it is ours.
"""

import json
import os
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

if os.environ.get("TRAFFIC_ENDPOINT"):
    import otel_bedrock

    otel_bedrock.instrument(otlp_endpoint=os.environ["TRAFFIC_ENDPOINT"])

FAKE = os.environ["FAKE_BEDROCK"]
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "us.amazon.nova-lite-v1:0"
LLAMA = "us.meta.llama3-3-70b-instruct-v1:0"
MISTRAL = "mistral.mistral-large-2402-v1:0"
GPT = "openai.gpt-oss-120b-1:0"

client = boto3.client(
    "bedrock-runtime",
    endpoint_url=FAKE,
    region_name="us-east-1",
    config=Config(retries={"total_max_attempts": 1}),
)


def fault(**what):
    """Ask the fake for trouble with the next call."""
    body = json.dumps(what).encode()
    urllib.request.urlopen(urllib.request.Request(f"{FAKE}/_fake/faults", body)).read()


def hello(text="Hello! What is the capital of France?"):
    return [{"role": "user", "content": [{"text": text}]}]


def converse(model, **more):
    return client.converse(modelId=model, messages=hello(), **more)


def stream(model, **more):
    return client.converse_stream(modelId=model, messages=hello(), **more)["stream"]


def invoke(model, body):
    return client.invoke_model(modelId=model, body=json.dumps(body))["body"].read()


def invoke_stream(model, body):
    answer = client.invoke_model_with_response_stream(modelId=model, body=json.dumps(body))
    return list(answer["body"])


messages = [{"role": "user", "content": "Hello!"}]
claude = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 60, "messages": messages}
nova = {"messages": [{"role": "user", "content": [{"text": "Hello!"}]}]}
bodies = {
    CLAUDE: claude,
    NOVA: nova,
    "amazon.titan-text-express-v1": {"inputText": "Hello!"},
    LLAMA: {"prompt": "Hello!"},
    MISTRAL: {"prompt": "<s>[INST] Hello! [/INST]"},
    "cohere.command-r-v1:0": {"message": "Hello!"},
    GPT: {"messages": messages},
    "acme.newmodel-v1:0": {"messages": messages},
}
system = [{"text": "You are a helpful fake. " * 400}, {"cachePoint": {"type": "default"}}]

for _ in range(4):
    converse(CLAUDE, system=system)
    list(stream(CLAUDE, system=system))
for model in (NOVA, LLAMA, MISTRAL, GPT):
    converse(model)
    list(stream(model))
for model, body in bodies.items():
    invoke(model, body)
    invoke_stream(model, body)
invoke("amazon.titan-embed-text-v2:0", {"inputText": "Hello!"})
invoke("cohere.embed-english-v3", {"texts": ["Hello!"], "input_type": "search_query"})
client.count_tokens(modelId=CLAUDE.removeprefix("us."), input={"converse": {"messages": hello()}})

# A model that is called once and never again: its first value must be seen whole.
converse("amazon.nova-pro-v1:0")

fault(fault="throttle")
try:
    converse(CLAUDE)
except ClientError as error:
    print(error.response["Error"]["Code"])
fault(fault="break_stream", after=3)
try:
    list(stream(NOVA))
except Exception as error:
    print(type(error).__name__)
