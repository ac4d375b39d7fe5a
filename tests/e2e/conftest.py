"""The collector, Jaeger and Prometheus for every test in this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from stack import Stack, ToolsMissing


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The running programs, or a skip that says how to get them."""
    try:
        ready = Stack()
    except ToolsMissing as missing:
        # CI sets the variable, so that a build that broke cannot pass as a skip.
        if os.environ.get("OTEL_BEDROCK_REQUIRE_E2E") == "1":
            pytest.fail(f"OTEL_BEDROCK_REQUIRE_E2E=1, but {missing}", pytrace=False)
        pytest.skip(str(missing))
    with ready:
        yield ready
