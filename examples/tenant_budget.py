"""A web service in which each tenant may spend so many tokens a minute.

    python examples/tenant_budget.py 8080
    curl -H 'X-Tenant: acme' -d 'How many tokens is this?' http://localhost:8080/

Over its budget a tenant gets 429 with Retry-After, others go on, and nothing was sent to Bedrock.
TOKENS_PER_MINUTE (6,000) is the budget of each; REDIS_URL, where it is set, lets all processes of
the service share it (pip install 'otel-bedrock[redis]').
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIServer, make_server

import boto3

import otel_bedrock
from otel_bedrock import BudgetExceeded, Limit, TokenBudget, attribution

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


def make_budget() -> TokenBudget:
    """Return the budget of all tenants, in this process or in Redis."""
    limit = Limit(per_minute=int(os.environ.get("TOKENS_PER_MINUTE", "6000")), by="tenant")
    url = os.environ.get("REDIS_URL")
    if url is None:
        return TokenBudget(limit)
    from otel_bedrock.budget_redis import RedisStore

    return TokenBudget(limit, store=RedisStore(url))


class Service:
    """The WSGI application: what is posted is asked, for the tenant that the header names."""

    def __init__(self) -> None:
        self.client = boto3.client("bedrock-runtime")

    def __call__(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        # Your own gateway sets it, after it has checked who calls.
        tenant = environ.get("HTTP_X_TENANT", "")
        text = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode()
        if not tenant or not text:
            return reply(start, "400 Bad Request", {"error": "post a text, with X-Tenant"})
        try:
            with attribution(tenant=tenant):
                return reply(start, "200 OK", {"answer": self.ask(text)})
        except BudgetExceeded as refused:
            told: dict[str, Any] = {"error": str(refused), "left": refused.left}
            if refused.frees_in is None:
                return reply(start, "413 Content Too Large", told)
            wait = str(math.ceil(refused.frees_in))
            return reply(start, "429 Too Many Requests", told, ("Retry-After", wait))

    def ask(self, text: str) -> str:
        answer = self.client.converse(
            modelId=MODEL,
            messages=[{"role": "user", "content": [{"text": text}]}],
            # Reserved until the answer is there: what is not set reserves the model's maximum.
            inferenceConfig={"maxTokens": 500},
        )
        return str(answer["output"]["message"]["content"][0]["text"])


def reply(
    start: StartResponse, status: str, body: dict[str, Any], *headers: tuple[str, str]
) -> list[bytes]:
    """Answer with JSON."""
    data = json.dumps(body).encode()
    length = ("Content-Length", str(len(data)))
    start(status, [("Content-Type", "application/json"), length, *headers])
    return [data]


class Server(ThreadingMixIn, WSGIServer):
    """One thread for each request."""

    daemon_threads = True


def main() -> None:
    """Serve until interrupted."""
    otel_bedrock.instrument(
        budget=make_budget(),
        attribution_metric_keys=("tenant",),
        otlp_endpoint=os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"),
    )
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    with make_server("127.0.0.1", port, Service(), server_class=Server) as server:
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
