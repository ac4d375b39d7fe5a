"""The example of a budget for each tenant: a service that answers, refuses and says when."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from programs import free_port, server
from test_budget_redis import Server

from otel_bedrock.testing import FakeBedrock

EXAMPLE = Path(__file__).parent.parent / "examples/tenant_budget.py"


class Service:
    """The example, running."""

    def __init__(self, bedrock, **environ):
        self.process = subprocess.Popen(
            [sys.executable, EXAMPLE, str(free_port())],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": bedrock.url, **environ},
        )
        self.url = self.process.stdout.readline().strip()

    def ask(self, tenant, text="How many tokens is this?"):
        request = urllib.request.Request(
            self.url, text.encode(), {"X-Tenant": tenant} if tenant else {}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error), error.headers

    def stop(self):
        self.process.terminate()
        self.process.communicate(timeout=20)


@pytest.fixture
def bedrock():
    with FakeBedrock() as running:
        yield running


def test_a_tenant_over_its_budget_is_told_when_to_come_back(bedrock):
    service = Service(bedrock, TOKENS_PER_MINUTE="900")
    try:
        assert service.ask("acme")[0] == 200
        answers = [service.ask("acme") for _ in range(12)]
        sent = len(bedrock.requests)
        status, told, headers = answers[-1]
        assert status == 429
        assert 0 < int(headers["retry-after"]) <= 62
        assert told["error"].startswith("budget of 900 tokens a minute of tenant acme: ")
        assert service.ask("globex")[0] == 200
        assert len(bedrock.requests) == sent + 1
        # What never fits is not to be tried again.
        assert service.ask("initech", "x" * 1_000)[0] == 413
        assert service.ask("")[0] == 400
    finally:
        service.stop()


def test_two_processes_share_a_budget_in_redis(bedrock):
    redis = Server(server("redis-server"))
    services = [Service(bedrock, TOKENS_PER_MINUTE="900", REDIS_URL=redis.url) for _ in range(2)]
    try:
        while services[0].ask("acme")[0] == 200:
            pass
        status, told, _ = services[1].ask("acme")
        assert status == 429
        assert told["left"] < 900
        assert services[1].ask("globex")[0] == 200
    finally:
        for service in services:
            service.stop()
        redis.stop()
