"""Output of the logs commands: rows of one TABLE of columns, as table, CSV or JSON.

What is not known is a dash in a table, empty in CSV, null in JSON; never 0.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Generic, TypeVar

from otel_bedrock.cli.commands import writing

T = TypeVar("T")
FORMATS = ("table", "csv", "json")


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """One column: its title in a table (none: not in tables), and its name in CSV and JSON."""

    title: str
    read: Callable[[T], Any]
    show: Callable[[Any], str]
    name: str = ""

    @property
    def key(self) -> str:
        return self.name or self.title


def text(value: Any) -> str:
    """Show a text."""
    return "-" if value is None else str(value)


def visible(text: str) -> str:
    """Write as codes what a terminal would obey or hide: line breaks, escapes, other directions."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def count(value: Any) -> str:
    """Show a number of things."""
    return "-" if value is None else f"{value:,}"


def ratio(value: Any) -> str:
    """Show a share."""
    return "-" if value is None else f"{value:.1%}"


def usd(value: Any) -> str:
    """Show an amount of dollars, exactly where it is small."""
    if value is None:
        return "-"
    return f"{value:,.2f}" if value >= 100 or value == 0 else f"{value:,.4f}"


def write(
    columns: Sequence[Column[T]], rows: Sequence[T], how: str, *, total: T | None = None
) -> None:
    """Write rows to stdout; `total` is the last line of a table, and of that alone."""
    with writing():
        _WRITERS[how](columns, rows, total)


def _plain(value: Any) -> Any:
    # A dollar's fractions survive as text only.
    return format(value, "f") if isinstance(value, Decimal) else value


def _cell(value: Any) -> Any:
    return " ".join(value) if isinstance(value, list) else _plain(value)


def _write_json(columns: Sequence[Column[T]], rows: Sequence[T], total: T | None) -> None:
    def one(row: T) -> dict[str, Any]:
        return {column.key: _plain(column.read(row)) for column in columns}

    # What another encoding lacks would be written in a way that JSON does not know.
    ascii_only = (sys.stdout.encoding or "").lower() not in ("utf-8", "utf8")
    json.dump([one(row) for row in rows], sys.stdout, indent=2, ensure_ascii=ascii_only)
    print()


def _write_csv(columns: Sequence[Column[T]], rows: Sequence[T], total: T | None) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([column.key for column in columns])
    for row in rows:
        writer.writerow([_cell(column.read(row)) for column in columns])


def _write_table(columns: Sequence[Column[T]], rows: Sequence[T], total: T | None) -> None:
    if not rows:
        print("No records.")
        return
    shown = [column for column in columns if column.title]
    # Not by rich, which would cut numbers to the width of the terminal.
    lines = [[column.title for column in shown]]
    lines += [[column.show(column.read(row)) for column in shown] for row in rows]
    if total is not None and len(rows) > 1:
        lines.append([column.show(column.read(total)) for column in shown])
    lines = [[visible(cell) for cell in line] for line in lines]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    for line in lines:
        cells = (
            cell.ljust(width) if column.show is text else cell.rjust(width)
            for column, cell, width in zip(shown, line, widths, strict=True)
        )
        print("  ".join(cells).rstrip())


_WRITERS: dict[str, Callable[[Any, Any, Any], None]] = {
    "table": _write_table,
    "csv": _write_csv,
    "json": _write_json,
}
