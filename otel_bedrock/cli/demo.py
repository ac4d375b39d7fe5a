"""`otel-bedrock demo`: a fake Bedrock, a real chat program, and what left it over OTLP.

The chat program is chat.py, in a process of its own, as it would be yours. It is compared at the
end with what the fake billed, to the token.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import boto3
from rich.console import Console

from otel_bedrock.cli.arguments import port_number
from otel_bedrock.cli.bill import as_json, compare, tokens_billed, total
from otel_bedrock.cli.commands import CommandError
from otel_bedrock.cli.render import make_console, tokens_table, trace_trees
from otel_bedrock.cli.tokens import ModelTokens, tokens_by_model
from otel_bedrock.cli.top import listening, watch
from otel_bedrock.receiver import Receiver
from otel_bedrock.testing import FakeBedrock

CHAT = Path(__file__).with_name("chat.py")
CHAT_MODULE = "otel_bedrock.cli.chat"
CHAT_TIMEOUT = 120.0
# The first whose Converse takes a cachePoint; the rest of the package does with older ones.
OLDEST_BOTO3 = (1, 37, 24)
# Seconds that the fake takes, so that the durations look like those of models, only shorter.
FIRST_CHUNK, EACH_CHUNK = 0.08, 0.01

# The caller's own settings must not lead the chat program to a real account, past the fake through
# a proxy, or to another collector.
FOREIGN_PREFIXES = ("AWS_", "OTEL_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
# Set by our own tests, so that no telemetry bug hides in a demo that looks well.
KEPT = frozenset({"OTEL_BEDROCK_RAISE_INTERNAL_ERRORS"})

INTRODUCTION = """\
Everything runs on this machine: no AWS account, no network. The answers are
made up; what they cost is billed by the fake, and counted by otel_bedrock.
"""

WHAT_NEXT = """\
What next
  In your own program, once at its start:

    import otel_bedrock

    otel_bedrock.instrument(otlp_endpoint="http://localhost:4318")

  An OpenTelemetry Collector listens there, or `otel-bedrock top`. A program
  that sets up OpenTelemetry by itself leaves the argument out.

  The chat program that you have just seen: {chat}
  Everything tested, in a checkout of the repository: make test
"""
JOIN = """\
Both go on until Ctrl-C. A program of yours that calls otel_bedrock.instrument()
joins in where it finds these in its environment:

  AWS_ENDPOINT_URL_BEDROCK_RUNTIME={fake}
  OTEL_BEDROCK_OTLP_ENDPOINT={receiver}
  AWS_ACCESS_KEY_ID=fake AWS_SECRET_ACCESS_KEY=fake AWS_DEFAULT_REGION=us-east-1
"""


def run(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="otel-bedrock demo",
        description="Run a small chat program against a fake Amazon Bedrock on loopback, and show"
        " what left it over OTLP: the trace, the tokens by model and kind, and whether they equal"
        " what was billed. It needs no AWS account and no network.",
    )
    parser.add_argument(
        "--port",
        type=port_number,
        default=0,
        help="port of the OTLP receiver (default: any that is free)",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="go on after the run, for programs of your own, until Ctrl-C",
    )
    parser.add_argument("--json", action="store_true", help="print the tokens as JSON, only")
    options = parser.parse_args(argv)
    if options.json and options.keep:
        parser.error("--json and --keep: choose one of the two")

    if boto3_is_too_old():
        oldest = ".".join(map(str, OLDEST_BOTO3))
        raise CommandError(
            f"boto3 {boto3.__version__} cannot ask Converse to cache prompts, which the chat"
            f" program of the demo does: pip install 'boto3>={oldest}'"
        )

    console = make_console()
    console.quiet = options.json
    began = time.time()
    with FakeBedrock() as fake, listening(options.port) as receiver:
        fake.throttle(times=1)  # the first call meets it
        fake.slow(first=FIRST_CHUNK, each=EACH_CHUNK, times=None)
        _introduce(console, fake, receiver)
        _chat(console, fake, receiver)
        counted, billed = tokens_by_model(receiver.latest()), tokens_billed(fake.bill)
        differences = compare(counted, billed)
        seconds = _seconds(receiver)
        if options.json:
            print(as_json(counted, billed, seconds))
        _show(console, receiver, counted, seconds)
        if differences:
            raise CommandError("counted and billed differ:\n  " + "\n  ".join(differences))
        calls = sum(line.usage_sent for line in fake.bill)
        console.print(
            f"The fake billed {total(billed):,} tokens in {calls} calls. Counted: the same, to the"
            " token, for every model and kind.\n",
            style="green",
        )
        console.print(WHAT_NEXT.format(chat=_shown(CHAT)))
        if options.keep:
            console.print(JOIN.format(fake=fake.url, receiver=receiver.url), soft_wrap=True)
            fake.clear_faults()
            watch(receiver, console, interval=2.0, began=began)
    return 0


def boto3_is_too_old() -> bool:
    """Tell whether the chat program asks more of boto3 than the installed one can."""
    return tuple(int(part) for part in boto3.__version__.split(".")[:3]) < OLDEST_BOTO3


def _shown(path: Path) -> str:
    """Shorten a path that lies below the current directory."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _seconds(receiver: Receiver) -> float:
    """How long the conversation took, from its first span to its last."""
    spans = receiver.spans
    return (max(span.end_ns for span in spans) - min(span.start_ns for span in spans)) / 1e9


def _introduce(console: Console, fake: FakeBedrock, receiver: Receiver) -> None:
    console.print(INTRODUCTION)
    for what, where in (
        ("fake Amazon Bedrock", fake.url),
        ("OTLP receiver", receiver.url),
        ("chat program", _shown(CHAT)),
    ):
        console.print(f"  {what:20} {where}", soft_wrap=True)
    console.print("\nThe chat program says", style="bold")


def _chat(console: Console, fake: FakeBedrock, receiver: Receiver) -> None:
    """Run the chat program and pass on what it says, while it says it."""
    heard: deque[str] = deque(maxlen=20)
    with subprocess.Popen(  # noqa: S603 - our own module, by our own interpreter
        [sys.executable, "-m", CHAT_MODULE],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env=_environment(fake, receiver),
    ) as process:
        assert process.stdout is not None  # it is a pipe
        timer = threading.Timer(CHAT_TIMEOUT, process.kill)
        timer.start()
        try:
            for line in process.stdout:
                heard.append(line)
                console.print(
                    textwrap.fill(
                        line.rstrip(),
                        width=max(20, console.width),
                        initial_indent="  ",
                        subsequent_indent="    ",
                    )
                )
            code = process.wait()
        finally:
            timer.cancel()
            process.kill()
    if code != 0:
        raise CommandError(
            f"the chat program ended with exit code {code}. It said last:\n\n" + "".join(heard)
        )
    if not receiver.spans or not receiver.points:
        raise CommandError(
            f"nothing arrived at {receiver.url}: {len(receiver.spans)} spans,"
            f" {len(receiver.points)} metric points, {receiver.bad_requests} bad requests."
            " The chat program said last:\n\n" + "".join(heard)
        )


def _environment(fake: FakeBedrock, receiver: Receiver) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in KEPT or not name.upper().startswith(FOREIGN_PREFIXES)
    }
    return {
        **kept,
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": fake.url,
        "AWS_ACCESS_KEY_ID": "fake",
        "AWS_SECRET_ACCESS_KEY": "fake",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        # One attempt, so that the program, and not botocore's retries, meets the throttle.
        "AWS_MAX_ATTEMPTS": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_SERVICE_NAME": "support-desk",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONUNBUFFERED": "1",
    }


def _show(
    console: Console, receiver: Receiver, counted: Sequence[ModelTokens], seconds: float
) -> None:
    console.print("\nWhat left it over OTLP: the trace", style="bold")
    for tree in trace_trees(receiver.spans):
        console.print(tree)
    console.print("\nWhat left it over OTLP: the tokens", style="bold")
    console.print(tokens_table(counted, counted, seconds, width=console.width))
    console.print(
        "\nInput tokens are uncached, read from the cache, or written to it: the indented rows"
        f" add up. Rates are over the {seconds:.2f} s of the conversation.\n",
        style="dim",
    )
