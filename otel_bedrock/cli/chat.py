"""A support desk on Amazon Bedrock: an ordinary boto3 program that talks to seven models.

Two things in it are about telemetry: the call of `otel_bedrock.instrument()`, and the span around
the session, which is plain OpenTelemetry and only groups the calls of one conversation.
"""

from __future__ import annotations

import json
import os
from typing import Any

import boto3
from opentelemetry import trace

import otel_bedrock

otel_bedrock.instrument(
    otlp_endpoint=os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")
)

OPUS = "us.anthropic.claude-opus-4-5-20251101-v1:0"
SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "us.amazon.nova-lite-v1:0"
TITAN = "amazon.titan-embed-text-v2:0"
MISTRAL = "mistral.mistral-large-2402-v1:0"
LLAMA = "us.meta.llama3-3-70b-instruct-v1:0"
GPT = "openai.gpt-oss-120b-1:0"

HANDBOOK = "\n".join(
    f"Rule {n}. A parcel of class {n} takes {n + 2} days at most; after that the customer gets"
    f" {n} % of the price back, unless the weather was to blame."
    for n in range(1, 41)
)
# What stands before a cache point is written to the cache once, and read by later calls.
SYSTEM: Any = [{"text": HANDBOOK}, {"cachePoint": {"type": "default"}}]
TOOLS: Any = {
    "tools": [
        {
            "toolSpec": {
                "name": "track_parcel",
                "inputSchema": {
                    "json": {"type": "object", "properties": {"number": {"type": "string"}}}
                },
            }
        }
    ]
}

bedrock = boto3.client("bedrock-runtime")
history: list[Any] = []


def user(*content: Any) -> Any:
    """Make a user's message."""
    return {"role": "user", "content": list(content)}


def ask(model: str, question: str) -> str:
    """Converse."""
    messages = [*history, user({"text": question})]
    response = bedrock.converse(modelId=model, system=SYSTEM, messages=messages)
    history[:] = [*messages, response["output"]["message"]]
    return response["output"]["message"]["content"][0]["text"]


def ask_in_pieces(model: str, question: str) -> str:
    """ConverseStream."""
    messages = [*history, user({"text": question})]
    response = bedrock.converse_stream(modelId=model, system=SYSTEM, messages=messages)
    deltas = [event.get("contentBlockDelta") for event in response["stream"]]
    return "".join(delta["delta"].get("text", "") for delta in deltas if delta)


def track(model: str, question: str) -> str:
    """Converse with a tool: the model asks for it, then answers from what it gave."""
    messages = [user({"text": question})]
    while True:
        response = bedrock.converse(modelId=model, messages=messages, toolConfig=TOOLS)
        message = response["output"]["message"]
        if response["stopReason"] != "tool_use":
            return message["content"][0]["text"]
        asked = [
            block["toolUse"]["toolUseId"] for block in message["content"] if "toolUse" in block
        ]
        given = [{"toolUseId": use, "content": [{"text": "in Rotterdam"}]} for use in asked]
        messages += [message, user(*({"toolResult": result} for result in given))]


def invoke(model: str, body: dict[str, Any]) -> Any:
    """InvokeModel."""
    response = bedrock.invoke_model(modelId=model, body=json.dumps(body))
    return json.loads(response["body"].read())


def invoke_in_pieces(model: str, body: dict[str, Any]) -> list[Any]:
    """InvokeModelWithResponseStream."""
    response = bedrock.invoke_model_with_response_stream(modelId=model, body=json.dumps(body))
    return [json.loads(event["chunk"]["bytes"]) for event in response["body"]]


def say(who: str, text: str) -> None:
    """Print one answer."""
    print(f"{who}: {text}", flush=True)


def main() -> None:
    """Hold one conversation, in one span."""
    with trace.get_tracer("support-desk").start_as_current_span("support session"):
        try:
            say("Opus", ask(OPUS, "My parcel is five days late. What now?"))
        except bedrock.exceptions.ThrottlingException:
            say("Opus", "(throttled, so Sonnet takes over)")
            say("Sonnet", ask(SONNET, "My parcel is five days late. What now?"))
        say("Sonnet", ask(SONNET, "And if it was of class 7?"))
        say("Sonnet", ask_in_pieces(SONNET, "And if there was a storm?"))
        found = invoke(TITAN, {"inputText": "late parcel, money back"})
        say("Titan", f"an embedding of {len(found['embedding'])} numbers")
        say("Nova", track(NOVA, "Please track parcel 4711."))
        chunks = invoke_in_pieces(LLAMA, {"prompt": "Apologise in 20 words.", "max_gen_len": 99})
        say("Llama", "".join(chunk["generation"] for chunk in chunks))
        said = invoke(MISTRAL, {"prompt": "<s>[INST] Say it in French. [/INST]"})
        say("Mistral", said["outputs"][0]["text"])
        said = invoke(GPT, {"messages": [{"role": "user", "content": "Was this polite?"}]})
        say("gpt-oss", said["choices"][0]["message"]["content"])


if __name__ == "__main__":
    main()
