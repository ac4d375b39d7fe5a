"""`otel-bedrock logs ingest`: invocation logs into an OTLP endpoint, each record once."""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from otel_bedrock.cli.commands import CommandError
from otel_bedrock.cli.logs_sources import (
    check_range,
    describe_sources,
    open_sources,
    passed_over,
)
from otel_bedrock.cli.logs_stop import Stop, Stoppable
from otel_bedrock.cli.logs_times import read_bound, read_span
from otel_bedrock.cli.render import make_console
from otel_bedrock.config import read_config
from otel_bedrock.invocation_logs.checkpoint import CheckpointError, SQLiteCheckpoint
from otel_bedrock.invocation_logs.ingest import (
    Ingest,
    Plan,
    Tally,
    Watcher,
    read_request_ids,
)
from otel_bedrock.invocation_logs.outlet import ExportError, OtlpOutlet
from otel_bedrock.invocation_logs.reading import LogObject, Skipped, SourceError
from otel_bedrock.setting_values import Invalid

OK, SKIPPED, INTERRUPTED = 0, 3, 130
ENDPOINT = "http://localhost:4318"
_MOST_NAMED = 20

EPILOG = f"""\
{describe_sources()}

exit codes: 0 all is ingested; 1 it could not go on (nothing is lost: run it
again); 2 misuse; 3 all is ingested but what was named as skipped; 130 Ctrl-C.

Metrics are counted once whatever happens, spans may be sent twice after a kill
and are the same then. Their origin is marked (bedrock.usage.origin), for the
same calls may be reported live: leave those out with --only-unseen. Settings
are read from the environment (OTEL_BEDROCK_…), credentials and Region as the
AWS CLI does. Metrics have the time of the ingest, spans that of the call.

examples:
  otel-bedrock logs ingest s3://my-logs --since 24h
  otel-bedrock logs ingest cloudwatch:/bedrock/calls --follow --only-unseen
"""


def run(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.seen and not options.only_unseen:
        parser.error("--seen says what --only-unseen leaves out: give both")
    check_range(parser, options)
    path = options.checkpoint or _default_checkpoint()
    try:
        config = read_config({"otlp_endpoint": options.otlp_endpoint})
    except Invalid as error:
        raise CommandError(str(error)) from error
    stop = Stop()
    screen = _Screen(make_console(stderr=True), quiet=options.quiet)
    plan = Plan(
        sources=[Stoppable(source, stop) for source in open_sources(options.sources)],
        since=options.since,
        until=options.until,
        only_unseen=options.only_unseen,
        was_live=_read_seen(options.seen),
        spans=not options.no_spans,
        overlap=options.overlap,
    )
    try:
        with (
            closing(SQLiteCheckpoint(path)) as checkpoint,
            stop.on_signals(),
            screen.live(),
        ):
            outlet = OtlpOutlet(
                config.otlp_endpoint or ENDPOINT,
                patience=None if options.follow else options.patience.total_seconds(),
                stopping=stop.wanted,
                waiting=screen.waiting,
            )
            watcher = Watcher(
                stop.wanted, screen.began, screen.skipped, screen.moved, screen.troubled
            )
            ingest = Ingest(plan, checkpoint, outlet, config, watcher)
            with closing(ingest):
                if options.follow:
                    tally = ingest.follow(options.poll.total_seconds())
                else:
                    tally = ingest.run()
    except (CheckpointError, SourceError) as error:
        raise CommandError(str(error)) from error
    except sqlite3.Error as error:
        raise CommandError(
            f"{path}: {error}. Is it a checkpoint of this command, and can it be written?"
        ) from error
    except ExportError as error:
        if stop.wanted():
            screen.say("Stopped; what was not handed over is taken up by the next run.")
            return INTERRUPTED
        raise CommandError(str(error)) from error
    for each in passed_over(plan.sources):
        screen.say(each)
    screen.sum_up(tally)
    if stop.wanted() and not options.follow:
        screen.say("Stopped; the next run goes on from here.")
        return INTERRUPTED
    return SKIPPED if tally.skipped else OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="otel-bedrock logs ingest",
        usage="otel-bedrock logs ingest SOURCE... [options]",
        description="Turn the records of model invocation logs into the spans and metrics of live\n"
        "calls, and hand them to an OTLP endpoint. What was ingested is remembered in\n"
        "a checkpoint, so that the command may be killed and run again at any time.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sources", metavar="SOURCE", nargs="+", help="where logs are; see below")
    parser.add_argument(
        "--since",
        type=read_bound,
        metavar="TIME",
        help="only calls from then on: 2026-11-01, 2026-11-01T08:30Z, or 24h for the last day",
    )
    parser.add_argument("--until", type=read_bound, metavar="TIME", help="only calls before that")
    parser.add_argument(
        "--follow", action="store_true", help="go on with what comes, until Ctrl-C or SIGTERM"
    )
    parser.add_argument(
        "--poll",
        type=read_span,
        default=read_span("30s"),
        metavar="TIME",
        help="with --follow: how often to look for more (default: 30s)",
    )
    parser.add_argument(
        "--overlap",
        type=read_span,
        default=read_span("6h"),
        metavar="TIME",
        help="with --follow: how far back to look for what comes late (default: 6h)",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="what was ingested; keep it as long as the logs"
        " (default: ~/.local/state/otel-bedrock/logs.sqlite)",
    )
    parser.add_argument(
        "--otlp-endpoint",
        metavar="URL",
        help=f"where to send (default: OTEL_BEDROCK_OTLP_ENDPOINT, or {ENDPOINT})",
    )
    parser.add_argument(
        "--only-unseen",
        action="store_true",
        help="leave out calls reported live: those made with instrument(correlate_logs=True), and"
        " those of --seen",
    )
    parser.add_argument(
        "--seen",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="with --only-unseen: request ids of calls reported live, one a line, or their spans as"
        " OTLP's JSON",
    )
    parser.add_argument("--no-spans", action="store_true", help="send metrics only")
    parser.add_argument(
        "--patience",
        type=read_span,
        default=read_span("60s"),
        metavar="TIME",
        help="how long to wait for an endpoint that does not answer (default: 60s)",
    )
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    return parser


def _default_checkpoint() -> Path:
    try:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise CommandError("this user has no home folder: give --checkpoint FILE") from error
    return Path(state) / "otel-bedrock" / "logs.sqlite"


class _Seen:
    """The request ids of `--seen`."""

    def __init__(self, ids: set[str]) -> None:
        self._ids = ids

    def __call__(self, request_id: str) -> bool:
        return request_id in self._ids


def _read_seen(paths: Sequence[Path]) -> _Seen | None:
    ids: set[str] = set()
    for path in paths:
        try:
            with path.open(encoding="utf-8", errors="replace") as lines:
                ids |= read_request_ids(lines)
        except OSError as error:
            raise CommandError(f"--seen {path}: {error.strerror}") from error
    return _Seen(ids) if paths else None


class _Screen:
    """What the user sees, all of it on stderr: a line that moves, and what was skipped."""

    def __init__(self, console: Console, *, quiet: bool) -> None:
        self._console = console
        self._quiet = quiet
        self._live: Live | None = None
        self._object = ""
        self._named = 0
        self._waiting = ""

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show the line that moves, where there is a terminal."""
        if self._quiet or not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, transient=True, refresh_per_second=4) as self._live:
            yield
        self._live = None

    def began(self, log: LogObject) -> None:
        self._object = log.name

    def moved(self, tally: Tally) -> None:
        self._waiting = ""
        if self._live is not None:
            self._live.update(Text(f"{_line(tally)}\n  {self._object}", overflow="ellipsis"))

    def waiting(self, why: str) -> None:
        if why != self._waiting:
            self._waiting = why
            self.say(f"Waiting for the endpoint: {why}")

    def troubled(self, why: str) -> None:
        if why != self._waiting:
            self._waiting = why
            self.say(f"Trying again: {why}")

    def skipped(self, what: Skipped) -> None:
        self._named += 1
        if self._named <= _MOST_NAMED:
            print(f"skipped: {what}", file=sys.stderr, flush=True)
        elif self._named == _MOST_NAMED + 1:
            print("skipped: more, which are only counted", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        if not self._quiet:
            # In a file or a pipe a line stays one, however narrow a terminal would be.
            self._console.print(text, soft_wrap=not self._console.is_terminal)

    def sum_up(self, tally: Tally) -> None:
        self.say(_line(tally))


def _line(tally: Tally) -> str:
    parts = [
        f"{tally.records:,} records of {tally.objects:,} objects:"
        f" {tally.input_tokens:,} tokens in, {tally.output_tokens:,} out"
    ]
    for count, what in (
        (tally.duplicates, "seen before"),
        (tally.seen_live, "reported live"),
        (tally.outside, "of another time"),
        (tally.skipped, "skipped"),
        (tally.failed, "objects to be read again"),
    ):
        if count:
            parts.append(f"{count:,} {what}")
    return "; ".join(parts)
