"""The collector, Jaeger and Prometheus for every test in this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack import Stack, ToolsMissing, find_tools


@pytest.fixture(scope="session")
def tools() -> Path:
    """The folder of the built programs, or a skip that says how to get them."""
    try:
        return find_tools()
    except ToolsMissing as missing:
        # CI sets the variable, so that a build that broke cannot pass as a skip.
        if os.environ.get("OTEL_BEDROCK_REQUIRE_E2E") == "1":
            pytest.fail(f"OTEL_BEDROCK_REQUIRE_E2E=1, but {missing}", pytrace=False)
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def stack(tools: Path) -> Iterator[Stack]:
    """The programs of the quick start, running."""
    with Stack() as ready:
        yield ready
