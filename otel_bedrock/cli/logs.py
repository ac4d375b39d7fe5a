"""TABLE: `otel-bedrock logs …`, the commands over Bedrock's model invocation logs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from otel_bedrock.cli.commands import Command, run_named

# In the order of the help.
COMMANDS: tuple[Command, ...] = (
    Command(
        "ingest",
        "Turn logs into the spans and metrics of live calls, each record once.",
        "otel_bedrock.cli.logs_ingest:run",
    ),
    Command(
        "report",
        "Sum up tokens and cost by model, identity, day, operation or metadata.",
        "otel_bedrock.cli.logs_report:run",
    ),
    Command(
        "reconcile",
        "Compare logs with live metrics in Prometheus, and name who made the difference.",
        "otel_bedrock.cli.logs_reconcile:run",
    ),
    Command(
        "enable",
        "Turn logging on for the account, after showing what that changes.",
        "otel_bedrock.cli.logs_setup:enable",
    ),
    Command(
        "status",
        "Say whether logging is on, its destinations are there, and records arrive.",
        "otel_bedrock.cli.logs_setup:status",
    ),
)


def run(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    if not argv or argv[0].startswith("-"):
        parser = _parser()
        parser.parse_args(argv)
        parser.print_help()
        return 0
    return run_named("otel-bedrock logs", COMMANDS, argv)


def _parser() -> argparse.ArgumentParser:
    width = max((len(command.name) for command in COMMANDS), default=0)
    lines = [f"  {command.name:{width}}  {command.sentence}" for command in COMMANDS]
    return argparse.ArgumentParser(
        prog="otel-bedrock logs",
        usage="otel-bedrock logs COMMAND [options]",
        description="Read the model invocation logs that Bedrock writes to S3 or CloudWatch Logs:"
        " the calls of the console, of other languages and of everybody else in the account.",
        epilog="\n".join(["commands:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
