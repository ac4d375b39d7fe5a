"""Agents and knowledge bases: one span each; usage only where an agent's trace tells it."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest

from otel_bedrock.testing import capture
from otel_bedrock.testing.frames import encode_event

SONNET_ARN = "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-3-5-sonnet-20240620-v1:0"
SONNET = SONNET_ARN.rpartition("/")[2]
DURATION = "gen_ai.client.operation.duration"


@contextmanager
def _answering(body, content_type="application/json"):
    """A client of a loopback server that answers everything with `body`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response_only(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        yield boto3.client("bedrock-agent-runtime", endpoint_url=url, region_name="us-east-1")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _traces(*usages):
    """An agent's stream: a trace for each model call, then its answer."""

    def trace(usage):
        output = {"modelInvocationOutput": {"metadata": {"usage": usage}}}
        return encode_event("trace", {"trace": {"orchestrationTrace": output}})

    answer = encode_event("chunk", {"bytes": "SGVsbG8="})
    return b"".join([*(trace(usage) for usage in usages), answer])


def _invoke_agent(client):
    answer = client.invoke_agent(
        agentId="AGENT12345", agentAliasId="ALIAS12345", sessionId="session", inputText="Hello!"
    )
    return list(answer["completion"])


def test_an_agents_model_calls_are_added_where_its_trace_tells_them():
    body = _traces({"inputTokens": 10, "outputTokens": 3}, {"inputTokens": 20, "outputTokens": 4})
    with _answering(body, "application/vnd.amazon.eventstream") as client, capture() as captured:
        assert len(_invoke_agent(client)) == 3
        attributes = captured.span.attributes
        assert captured.span.name == "invoke_agent"
        assert attributes["gen_ai.agent.id"] == "AGENT12345"
        assert attributes["gen_ai.usage.input_tokens"] == 30
        assert attributes["gen_ai.usage.output_tokens"] == 7
        assert attributes["bedrock.usage.source"] == "trace"
        assert captured.total("gen_ai.client.inference.usage.input_tokens") == 30
        assert captured.total("gen_ai.invoke_agent.duration") > 0


def test_an_agent_without_a_trace_tells_no_usage_and_misses_none():
    with (
        _answering(_traces(), "application/vnd.amazon.eventstream") as client,
        capture() as captured,
    ):
        _invoke_agent(client)
        assert "gen_ai.usage.input_tokens" not in captured.span.attributes
        assert "gen_ai.response.finish_reasons" not in captured.span.attributes
        assert captured.total("bedrock.client.usage.missing") is None


RAG = {
    "type": "KNOWLEDGE_BASE",
    "knowledgeBaseConfiguration": {"knowledgeBaseId": "KB12345678", "modelArn": SONNET_ARN},
}
RERANK = {
    "type": "BEDROCK_RERANKING_MODEL",
    "bedrockRerankingConfiguration": {
        "modelConfiguration": {
            "modelArn": "arn:aws:bedrock:us-east-1::foundation-model/cohere.rerank-v3-5:0"
        }
    },
}
TEXT = {"type": "TEXT", "textQuery": {"text": "Hello!"}}
SOURCE = {"type": "INLINE", "inlineDocumentSource": {"type": "TEXT", "textDocument": {"text": "x"}}}

# method, parameters, answer, span name, knowledge base, metric of its duration
OTHERS = {
    "retrieve": (
        {"knowledgeBaseId": "KB12345678", "retrievalQuery": {"text": "Hello!"}},
        {"retrievalResults": []},
        "retrieval",
        "KB12345678",
        DURATION,
    ),
    "rerank": (
        {"queries": [TEXT], "sources": [SOURCE], "rerankingConfiguration": RERANK},
        {"results": []},
        "retrieval cohere.rerank-v3-5:0",
        None,
        DURATION,
    ),
    "retrieve_and_generate": (
        {"input": {"text": "Hello!"}, "retrieveAndGenerateConfiguration": RAG},
        {"output": {"text": "Hi."}, "sessionId": "s"},
        f"chat {SONNET}",
        "KB12345678",
        "gen_ai.client.inference.duration",
    ),
}


@pytest.mark.parametrize("method", OTHERS)
def test_knowledge_bases_have_a_span_and_a_duration(method):
    parameters, answer, name, knowledge_base, duration = OTHERS[method]
    with _answering(json.dumps(answer).encode()) as client, capture() as captured:
        getattr(client, method)(**parameters)
        span = captured.span
        assert span.name == name
        assert span.attributes.get("aws.bedrock.knowledge_base.id") == knowledge_base
        assert captured.total(duration) > 0
        assert captured.total("bedrock.client.usage.missing") is None
        assert captured.total("gen_ai.client.inference.usage.input_tokens") is None


_GUARDED = {
    "generationConfiguration": {
        "guardrailConfiguration": {"guardrailId": "gr12345678", "guardrailVersion": "1"}
    }
}
_SOURCES = {
    "type": "EXTERNAL_SOURCES",
    "externalSourcesConfiguration": {
        "modelArn": SONNET_ARN,
        "sources": [{"sourceType": "S3", "s3Location": {"uri": "s3://b/k"}}],
    },
}


def _guarded(configuration, member):
    return {**configuration, member: {**configuration[member], **_GUARDED}}


@pytest.mark.parametrize(
    "configuration",
    [
        _guarded(RAG, "knowledgeBaseConfiguration"),
        _guarded(_SOURCES, "externalSourcesConfiguration"),
    ],
)
def test_the_guardrail_of_a_knowledge_base_is_told(configuration):
    """Asked in the request, and what it did, whether the answer streams or not."""
    request = {"input": {"text": "Hello!"}, "retrieveAndGenerateConfiguration": configuration}
    whole = {"output": {"text": "No."}, "sessionId": "s", "guardrailAction": "INTERVENED"}
    events = encode_event("guardrail", {"action": "INTERVENED"})
    with _answering(json.dumps(whole).encode()) as client, capture() as captured:
        client.retrieve_and_generate(**request)
        _assert_guarded(captured, "gr12345678")
    with _answering(events, "application/vnd.amazon.eventstream") as client, capture() as captured:
        list(client.retrieve_and_generate_stream(**request)["stream"])
        _assert_guarded(captured, "gr12345678")


@pytest.mark.parametrize("actions", [["INTERVENED", "NONE"], ["NONE", "INTERVENED"]])
def test_a_guardrail_in_an_agents_trace_is_told(actions):
    body = b"".join(
        encode_event("trace", {"trace": {"guardrailTrace": {"action": action}}})
        for action in actions
    )
    with _answering(body, "application/vnd.amazon.eventstream") as client, capture() as captured:
        _invoke_agent(client)
        _assert_guarded(captured, None)


def _assert_guarded(captured, guardrail):
    attributes = captured.span.attributes
    assert attributes.get("aws.bedrock.guardrail.id") == guardrail
    assert attributes["bedrock.guardrail.action"] == "INTERVENED"
    assert captured.total("bedrock.client.guardrail.interventions") == 1
