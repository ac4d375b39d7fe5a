"""Sources on the command line: what commands that read logs have in common."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from otel_bedrock.cli.commands import CommandError
from otel_bedrock.cli.logs_times import read_bound
from otel_bedrock.invocation_logs.reading import Source, SourceError
from otel_bedrock.invocation_logs.sources import KINDS, open_source

_BATCH = (
    "  Bedrock is asked for the model of batch output; where it is not, a job.json",
    "  beside the manifest says it (aws bedrock get-model-invocation-job), or what is",
    "  written behind the source: s3://BUCKET/JOB#MODEL.",
)


def describe_sources() -> str:
    """Return the kinds of sources, for the help."""
    width = max(len(kind.form) for kind in KINDS)
    rows = [f"  {kind.form:{width}}  {kind.sentence}" for kind in KINDS]
    return "\n".join(["sources, any number of them:", *rows, *_BATCH])


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Add SOURCE…, --since and --until."""
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="where logs are; see below")
    parser.add_argument(
        "--since",
        type=read_bound,
        metavar="TIME",
        help="only calls from then on: 2026-11-01, 2026-11-01T12:00Z, or 36h or 7d ago (UTC)",
    )
    parser.add_argument("--until", type=read_bound, metavar="TIME", help="only calls before then")


def check_range(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """See that a range does not end before it begins."""
    since, until = options.since, options.until
    if since is not None and until is not None and since > until:
        parser.error(f"--until {until:%Y-%m-%dT%H:%MZ} is before --since {since:%Y-%m-%dT%H:%MZ}")


def open_sources(texts: Sequence[str]) -> list[Source]:
    """Make the sources, or say which of them is wrong."""
    try:
        return [open_source(text) for text in texts]
    except SourceError as error:
        raise CommandError(str(error)) from error


def passed_over(sources: Sequence[Source]) -> Iterator[str]:
    """Say of which folders files were left alone."""
    for source in sources:
        count = source.passed_over
        if count:
            yield (
                f"passed over {count:,} in {source.name} that are hidden, links to folders, or not"
                " named as logs are; a file that is named itself is read"
            )
