"""Options that the commands over invocation logs share: sources and times."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

from otel_bedrock.cli.commands import CommandError
from otel_bedrock.invocation_logs.reading import Source, SourceError
from otel_bedrock.invocation_logs.sources import KINDS, open_source

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SPAN = re.compile(r"(\d{1,6})([smhdw])")


def describe_sources() -> str:
    """Return the kinds of sources, for the help."""
    rows = [(kind.form, kind.sentence) for kind in KINDS]
    width = max(len(form) for form, _ in rows)
    return "\n".join(["sources:", *(f"  {form:{width}}  {what}" for form, what in rows)])


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Add SOURCE…, --since and --until."""
    parser.add_argument("sources", metavar="SOURCE", nargs="+", help="where logs are; see below")
    parser.add_argument(
        "--since",
        type=read_moment,
        metavar="TIME",
        help="only calls from then on: 2026-11-01, 2026-11-01T08:30Z, or 24h for the last day",
    )
    parser.add_argument("--until", type=read_moment, metavar="TIME", help="only calls before that")


def open_sources(texts: Sequence[str]) -> list[Source]:
    """Make the sources, or say which of them is wrong."""
    try:
        return [open_source(text) for text in texts]
    except SourceError as error:
        raise CommandError(str(error)) from error


def read_span(text: str) -> timedelta:
    """Read a length of time such as 30s, 10m, 6h or 7d, for argparse."""
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(
            f"expected a time such as 30s, 10m, 6h or 7d, got {text!r}"
        )
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def read_moment(text: str) -> datetime:
    """Read a date, a time or a length of time before now, for argparse; UTC without a zone."""
    now = datetime.now(timezone.utc)
    if _SPAN.fullmatch(text.strip()):
        return now - read_span(text)
    if text.strip() == "now":
        return now
    try:
        when = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text.strip()))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a time such as 2026-11-01, 2026-11-01T08:30Z or 24h, got {text!r}"
        ) from None
    return when if when.tzinfo is not None else when.replace(tzinfo=timezone.utc)


def default_checkpoint() -> Path:
    """Return where the checkpoint is unless one is named."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "otel-bedrock" / "logs.sqlite"
