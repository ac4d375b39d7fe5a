"""Small programs in processes of their own: what touches OpenTelemetry's global state."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"

# What every program begins with: a client of the FakeBedrock that its environment names.
PRELUDE = """
import logging, os, sys
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
for name in ("botocore", "urllib3", "boto3"):
    logging.getLogger(name).setLevel(logging.ERROR)
import boto3, otel_bedrock
from opentelemetry import metrics, trace
def client():
    return boto3.client("bedrock-runtime", endpoint_url=os.environ["FAKE_BEDROCK"])
def ask(bedrock, model="us.anthropic.claude-sonnet-4-5-20250929-v1:0"):
    message = {"role": "user", "content": [{"text": "How many tokens is this?"}]}
    return bedrock.converse(modelId=model, messages=[message])["usage"]
"""


def run(code, *, bedrock=None, timeout=60, python=sys.executable, prelude=PRELUDE, **environ):
    """Run `code` after PRELUDE in a process of its own; return it when it has ended."""
    return subprocess.run(
        [python, "-c", prelude + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={
            **os.environ,
            "OTEL_METRIC_EXPORT_INTERVAL": "60000",
            "FAKE_BEDROCK": bedrock.url if bedrock is not None else "",
            **environ,
        },
    )


def server(name):
    """Return the path of a server that tests/debian finds or gets; skip where it cannot.

    OTEL_BEDROCK_REQUIRE_E2E=1 makes that a failure.
    """
    script = Path(__file__).with_name("debian")
    done = subprocess.run([sys.executable, script, name], capture_output=True, text=True)
    if done.returncode == 0:
        return done.stdout.strip()
    if os.environ.get("OTEL_BEDROCK_REQUIRE_E2E") == "1":
        pytest.fail(done.stderr)
    return pytest.skip(done.stderr)


def free_port():
    """Return a port of loopback that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
