"""`otel-bedrock top`: receives OTLP and shows tokens by model and kind while they come in."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from otel_bedrock.cli.arguments import port_number
from otel_bedrock.cli.commands import CommandError
from otel_bedrock.cli.render import make_console, tokens_table
from otel_bedrock.cli.tokens import since, tokens_by_model
from otel_bedrock.receiver import Receiver

WINDOW = 60.0
OTLP_PORT = 4318


def run(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="otel-bedrock top",
        description="Receive OTLP over HTTP on loopback and show tokens by model and kind, with"
        f" the rates of the last {WINDOW:.0f} seconds, until Ctrl-C. Point your program at it with"
        f' otel_bedrock.instrument(otlp_endpoint="http://localhost:{OTLP_PORT}"). Without a'
        " terminal it prints a new table at every interval.",
    )
    parser.add_argument(
        "--port",
        type=port_number,
        default=OTLP_PORT,
        help=f"port to listen on (default: {OTLP_PORT})",
    )
    parser.add_argument(
        "--interval",
        type=_seconds,
        default=2.0,
        metavar="SECONDS",
        help="time between two tables (default: 2)",
    )
    parser.add_argument(
        "--once", action="store_true", help="print one table after one interval, and end"
    )
    options = parser.parse_args(argv)
    with listening(options.port) as receiver:
        watch(receiver, make_console(), interval=options.interval, once=options.once)
    return 0


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 86_400:
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, got {text!r}")
    return seconds


@contextmanager
def listening(port: int) -> Iterator[Receiver]:
    """Run a receiver, or say why that cannot be."""
    with ExitStack() as stack:
        try:
            receiver = stack.enter_context(Receiver(port))
        except OSError as error:
            raise CommandError(
                f"cannot listen on 127.0.0.1:{port}: {error.strerror}. If a collector has that"
                " port, choose another with --port"
            ) from error
        yield receiver


def watch(
    receiver: Receiver,
    console: Console,
    *,
    interval: float,
    once: bool = False,
    began: float | None = None,
) -> None:
    """Show the receiver's tokens at every interval until Ctrl-C, which is how one ends it.

    Rates are over the time since `began` (now, if not given), or the last WINDOW seconds of it.
    """
    began = time.time() if began is None else began
    try:
        console.print(f"OTLP receiver at {receiver.url}; Ctrl-C ends it.")
        if once or not console.is_terminal:
            while True:
                time.sleep(interval)
                console.print(
                    Text(time.strftime("\n%H:%M:%S")), _picture(receiver, began, console), sep="\n"
                )
                if once:
                    return
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(_picture(receiver, began, console, console.height), refresh=True)
                time.sleep(interval)
    except KeyboardInterrupt:
        return


def _picture(
    receiver: Receiver, began: float, console: Console, height: int | None = None
) -> Group:
    """Draw what there is now, in at most `height` lines."""
    now = time.time()
    seconds = min(WINDOW, now - began)
    rows = tokens_by_model(receiver.latest())
    recent = tokens_by_model(since(receiver.points, int((now - seconds) * 1e9)))
    width = console.width
    state = Text(_state(receiver, seconds), style="dim")
    if height is not None:
        height -= len(state.wrap(console, width))
    return Group(
        tokens_table(rows, recent, seconds, width=width, height=height)
        if rows
        else Text("No tokens yet."),
        state,
    )


def _state(receiver: Receiver, seconds: float) -> str:
    """Say below the table what the rates mean, and what went wrong if something did."""
    counts = {
        "requests refused": receiver.bad_requests,
        "old spans dropped": receiver.dropped_spans,
        "series dropped": receiver.dropped_series,
    }
    troubles = [f"{count:,} {what}" for what, count in counts.items() if count]
    return "; ".join([f"rates over the last {seconds:.0f} s", *troubles])
