"""`otel-bedrock signals`: the tables of everything that leaves a process, as Markdown."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def run(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    argparse.ArgumentParser(
        prog="otel-bedrock signals",
        description="List every span attribute and metric that otel_bedrock emits, as Markdown.",
    ).parse_args(argv)

    from otel_bedrock.signals import render

    print(render(), end="")
    return 0
