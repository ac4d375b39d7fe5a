"""What every test has: no AWS account, no telemetry of the environment, and no hidden bugs."""

from __future__ import annotations

import os

import pytest

from otel_bedrock import shield

# Telemetry bugs raise here, so that none can hide behind the shield that protects users.
os.environ[shield.RAISE_VARIABLE] = "1"
os.environ.update(
    AWS_ACCESS_KEY_ID="testing",
    AWS_SECRET_ACCESS_KEY="testing",
    AWS_DEFAULT_REGION="us-east-1",
    AWS_CONFIG_FILE=os.devnull,
    AWS_SHARED_CREDENTIALS_FILE=os.devnull,
    AWS_EC2_METADATA_DISABLED="true",
)
for _name in list(os.environ):
    if _name.startswith(("OTEL_", "AWS_ENDPOINT")) and _name not in (
        shield.RAISE_VARIABLE,
        "OTEL_BEDROCK_RECORDINGS",
        "OTEL_BEDROCK_TOOLS",
        "OTEL_BEDROCK_REQUIRE_E2E",
    ):
        del os.environ[_name]


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    """Loopback is reached directly, whatever the machine's proxies."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
