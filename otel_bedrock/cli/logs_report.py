"""`otel-bedrock logs report`: what was used, by model, identity, day, operation or metadata."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from otel_bedrock.cli.commands import CommandError
from otel_bedrock.cli.logs_output import FORMATS, Column, count, ratio, text, usd, write
from otel_bedrock.cli.logs_progress import Progress
from otel_bedrock.cli.logs_sources import (
    add_sources,
    check_range,
    describe_sources,
    open_sources,
    passed_over,
)
from otel_bedrock.invocation_logs.brief import make_parse, read_briefly
from otel_bedrock.invocation_logs.rates import RateBook
from otel_bedrock.invocation_logs.reading import Skipped, Source, SourceError, bodies_of
from otel_bedrock.invocation_logs.report import (
    FIELDS,
    METADATA,
    Line,
    NoSuchField,
    Report,
    field_of,
)
from otel_bedrock.pricing import open_prices

PROG = "otel-bedrock logs report"
# Some of the input could not be read; it is named on stderr.
INCOMPLETE = 3

_ABOUT = """\
Sums up invocation logs: requests, tokens by kind, cache hit ratio, cost, first and last time.
A call is counted once, however often its record is there. A dash is what no record told, which
is not 0. Input is all of the input; uncached, cache read and cache write are its parts.
"""
_TEACH = f"""\
{describe_sources()}

grouping, any number of --by:
  {", ".join(FIELDS)}, {METADATA}KEY

exit codes:
  0  everything was read
  1  a source cannot be read at all
  2  wrong usage
  3  the report leaves out what is named on stderr: corrupt or unreadable input

examples:
  otel-bedrock logs report AWSLogs/ --by model --by day
  otel-bedrock logs report s3://my-bucket/bedrock --since 2026-11-01 --by identity --format csv
  otel-bedrock logs report AWSLogs/ --by metadata:team --prices genai-prices
"""


def run(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    check_range(parser, options)
    by = tuple(options.by or ("model",))
    book = _open_prices(options.prices)
    report = Report(by=by, since=options.since, until=options.until, book=book)
    try:
        sources = open_sources(options.sources)
        with report.seen, Progress(PROG) as progress:
            # A table has no columns for the TTLs of what was written.
            splits = book is not None or options.format != "table"
            parse = make_parse(splits=splits, variants=book is not None)
            read_all(report, sources, progress, parse)
            write(_columns(report), report.lines(), options.format, total=report.total())
    except SourceError as error:
        raise CommandError(str(error)) from error
    if progress.skipped:
        print(f"{PROG}: left out {progress.skipped:,} that could not be read", file=sys.stderr)
        return INCOMPLETE
    return 0


def read_all(
    report: Report,
    sources: Sequence[Source],
    progress: Progress,
    parse: Callable[[bytes], Any] | None = None,
) -> None:
    """Take all records of the sources; what is none goes to the progress, to be named."""
    parse = parse or make_parse()
    take = report.take
    for source in sources:
        for log in source.objects(report.since, report.until):
            progress.begin(log, report.records)
            named = replace(log, fetch=bodies_of(log, progress.skip))
            for found in read_briefly(named, parse):
                if type(found) is Skipped:
                    progress.skip(found)
                else:
                    take(found)
                    if not report.records & 0xFFF:
                        progress.tick(report.records)
    for note in passed_over(sources):
        progress.note(note)


def add_format(parser: argparse.ArgumentParser) -> None:
    """Add --format."""
    parser.add_argument(
        "--format", choices=FORMATS, default="table", help="how to write it (default: table)"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROG,
        description=_ABOUT,
        epilog=_TEACH,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_sources(parser)
    add_format(parser)
    parser.add_argument(
        "--by",
        action="append",
        type=_field,
        metavar="FIELD",
        help="what to sum up by; several make a line for each combination (default: model)",
    )
    parser.add_argument(
        "--prices",
        default=os.environ.get("OTEL_BEDROCK_PRICES"),
        metavar="SOURCE",
        help="show costs: genai-prices, or a JSON file of your own prices"
        " (default: OTEL_BEDROCK_PRICES; without it there are none)",
    )
    return parser


def _field(name: str) -> str:
    try:
        field_of(name)
    except NoSuchField as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return name


def _open_prices(source: str | None) -> RateBook | None:
    if not source:
        return None
    try:
        return RateBook(open_prices(source))
    except (ValueError, OSError) as error:
        raise CommandError(f"--prices: {error}") from error


def _columns(report: Report) -> list[Column[Line]]:
    def of(name: str) -> Any:
        return lambda line: getattr(line, name)

    def part(index: int) -> Any:
        return lambda line: line.key[index] if line.key else ""

    keys = [Column(name, part(index), text) for index, name in enumerate(report.by)]
    tokens = [
        Column("input", of("input_tokens"), count, name="input_tokens"),
        Column("uncached", of("uncached_tokens"), count, name="uncached_tokens"),
        Column("cache read", of("cache_read_tokens"), count, name="cache_read_tokens"),
        Column("cache write", of("cache_write_tokens"), count, name="cache_write_tokens"),
        Column("", of("cache_write_5m_tokens"), count, name="cache_write_5m_tokens"),
        Column("", of("cache_write_1h_tokens"), count, name="cache_write_1h_tokens"),
        Column("output", of("output_tokens"), count, name="output_tokens"),
        Column("from cache", of("cache_hit_ratio"), ratio, name="cache_hit_ratio"),
    ]
    costs = [
        Column("cost, USD", of("cost"), usd, name="cost_usd"),
        Column("no price", of("unpriced"), count, name="unpriced_requests"),
    ]
    return [
        *keys,
        Column("requests", of("requests"), count),
        Column("errors", of("errors"), count),
        Column("no counts", of("uncounted"), count, name="uncounted_requests"),
        *tokens,
        *(costs if report.book is not None else ()),
        Column("first", of("first"), text),
        Column("last", of("last"), text),
    ]
