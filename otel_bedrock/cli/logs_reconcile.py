"""`otel-bedrock logs reconcile`: what logs say against what live metrics say."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from otel_bedrock.cli.commands import CommandError
from otel_bedrock.cli.logs_output import Column, count, text, visible, write
from otel_bedrock.cli.logs_progress import Progress
from otel_bedrock.cli.logs_report import add_format, read_all
from otel_bedrock.cli.logs_sources import (
    add_sources,
    check_range,
    describe_sources,
    open_sources,
)
from otel_bedrock.invocation_logs.live import HOUR, Prometheus, PrometheusError
from otel_bedrock.invocation_logs.reading import SourceError
from otel_bedrock.invocation_logs.reconcile import Comparison, Counts, compare
from otel_bedrock.invocation_logs.report import Report

PROG = "otel-bedrock logs reconcile"
INCOMPLETE, DIFFERENT = 3, 4
# As metrics name models past the setting model_limit.
OTHER_MODELS = "other"
_HOUR_FORMAT = "%Y-%m-%dT%H:00Z"

_ABOUT = """\
Compares invocation logs with the metrics of instrumented processes in Prometheus, by model and
hour, and says who made the difference: the console's playground, the AWS CLI, another language.
"""
_TEACH = f"""\
{describe_sources()}

what is compared:
  successful calls, input, output, cache read and cache write tokens of metrics of the default
  set of names, without those that came from logs; of the hours from --since to --until, or else
  those of the records. Metrics come after their calls: those of the {{settle}} after the last hour
  count too. Over hours with much traffic at their edges, allow for it with --tolerance.

exit codes:
  0  no difference
  1  a source or Prometheus cannot be read
  2  wrong usage
  3  no difference, but some input could not be read; it is named on stderr
  4  a difference

examples:
  otel-bedrock logs reconcile AWSLogs/ --prometheus http://localhost:9090
  otel-bedrock logs reconcile s3://my-bucket/bedrock --since 2026-11-25 --until 2026-11-26 \\
    --prometheus https://prometheus.example.com --header "Authorization: Bearer $TOKEN"
"""


def run(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    check_range(parser, options)
    since, until = _whole_hours(options.since, options.until)
    report = Report(
        by=("model", "hour", "identity", "reporter", "region"), since=since, until=until
    )
    try:
        sources = open_sources(options.sources)
        with report.seen, Progress(PROG) as progress:
            read_all(report, sources, progress)
        rows = _compare(report, since, until, options)
    except (SourceError, PrometheusError) as error:
        raise CommandError(str(error)) from error
    shown = rows if options.format != "table" else _worth_showing(rows, options.tolerance)
    write(_COLUMNS, shown, options.format)
    different = [row for row in rows if row.hour is None and row.differs(options.tolerance)]
    if options.format == "table":
        _conclude(rows, different)
    if progress.skipped:
        print(f"{PROG}: left out {progress.skipped:,} that could not be read", file=sys.stderr)
    if different:
        return DIFFERENT
    return INCOMPLETE if progress.skipped else 0


def _compare(
    report: Report, since: datetime | None, until: datetime | None, options: argparse.Namespace
) -> list[Comparison]:
    lines = report.lines()
    times = sorted(line.key[1] for line in lines if line.key[1] is not None)
    if since is None or until is None:
        if not times:
            raise CommandError("there are no records with a time, so no hours to compare")
        since = since or _read_hour(times[0])
        until = until or _read_hour(times[-1]) + HOUR
    live: dict[tuple[str, str | None], Counts] = {}
    regions = {line.key[4] for line in lines if line.key[4]}
    prometheus = Prometheus(options.prometheus, _read_headers(options.header), options.match)
    hours = (until - since) // HOUR
    for (model, hour), counts in prometheus.by_hour(since, hours, regions).items():
        live[model, f"{hour.astimezone(timezone.utc):{_HOUR_FORMAT}}"] = counts
    settle = timedelta(seconds=options.settle)
    for model, counts in prometheus.after(until, settle, regions).items():
        live[model, None] = counts
    return compare(lines, live, tolerance=options.tolerance / 100)


def _worth_showing(rows: list[Comparison], tolerance: float) -> list[Comparison]:
    return [row for row in rows if row.hour is None or row.differs()]


def _conclude(rows: list[Comparison], different: list[Comparison]) -> None:
    models = sum(row.hour is None for row in rows)
    print()
    if not different:
        print(f"No difference: {models:,} {'model' if models == 1 else 'models'}.")
    for row in different:
        more = {name: row.difference(name) for name in ("requests", "input_tokens")}
        amounts = (
            f"{more['requests']:+,} calls, {more['input_tokens']:+,} input and"
            f" {row.difference('output_tokens'):+,} output tokens in the logs"
        )
        print(visible(f"{row.model}: {amounts}.{_blame(row)}"))


def _blame(row: Comparison) -> str:
    if row.certain:
        return f" Exactly the calls of {' and '.join(row.callers)}."
    if row.callers:
        return f" Called by {', '.join(row.callers)}; the sums do not tell by whom of them."
    if row.model == OTHER_MODELS:
        return " There the metrics of models past model_limit are, whatever they are in the logs."
    if row.difference("requests") < 0:
        return " The metrics saw calls that are not in these logs (another Region or account?)."
    return ""


def _whole_hours(
    since: datetime | None, until: datetime | None
) -> tuple[datetime | None, datetime | None]:
    """Widen a range to whole hours, which is what both sides can be asked for."""
    if since is not None:
        since = since.astimezone(timezone.utc).replace(minute=0, second=0, microsecond=0)
    if until is not None:
        until = until.astimezone(timezone.utc)
        whole = until.replace(minute=0, second=0, microsecond=0)
        until = whole if whole == until else whole + HOUR
    return since, until


def _read_hour(text: str) -> datetime:
    return datetime.strptime(text, _HOUR_FORMAT).replace(tzinfo=timezone.utc)


def _read_headers(given: Sequence[str]) -> dict[str, str]:
    headers = {}
    for header in given:
        name, colon, value = header.partition(":")
        if not colon:
            raise CommandError(f"--header: expected 'Name: value', got {name!r}")
        headers[name.strip()] = value.strip()
    return headers


def _side(side: str, name: str) -> Any:
    return lambda row: getattr(row, side).get(name)


def _difference(name: str) -> Any:
    return lambda row: row.difference(name)


def _signed(value: Any) -> str:
    return "0" if value == 0 else f"{value:+,}"


_TITLES = {
    "requests": "calls",
    "input_tokens": "input",
    "output_tokens": "output",
    "cache_read_tokens": "cache read",
    "cache_write_tokens": "cache write",
}
_COLUMNS: list[Column[Comparison]] = [
    Column("model", lambda row: row.model, text),
    Column("hour", lambda row: row.hour, lambda value: "all" if value is None else value),
    *(
        column
        for name, title in _TITLES.items()
        for column in (
            Column(title, _side("logs", name), count, name=f"logs_{name}"),
            Column("live", _side("live", name), count, name=f"live_{name}"),
            Column("diff", _difference(name), _signed, name=f"difference_{name}"),
        )
    ),
    Column("", lambda row: list(row.callers), text, name="callers"),
    Column("", lambda row: row.certain, text, name="certain"),
]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROG,
        description=_ABOUT,
        epilog=_TEACH.replace("{settle}", "--settle seconds"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_sources(parser)
    add_format(parser)
    parser.add_argument(
        "--prometheus", required=True, metavar="URL", help="Prometheus, or what speaks its API"
    )
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="send this with each query; may be given several times",
    )
    parser.add_argument(
        "--match",
        default="",
        metavar="LABELS",
        help="""only series with these labels, as in PromQL: service_name="chat\"""",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        metavar="PERCENT",
        help="differences up to this share of the log's count are none (default: 0)",
    )
    parser.add_argument(
        "--settle",
        type=int,
        default=180,
        metavar="SECONDS",
        help="how long after the last hour its metrics may come (default: 180)",
    )
    return parser
