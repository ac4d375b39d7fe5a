"""`otel-bedrock fake`: the fake Bedrock of otel_bedrock.testing in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence


def run(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    from otel_bedrock.testing.__main__ import serve

    return serve(argv)
