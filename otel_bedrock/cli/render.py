"""Draws what a receiver has: the trace tree, and the table of tokens by model and kind. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from rich.console import Console, OverflowMethod, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from otel_bedrock.cli.tokens import ModelTokens, add_up
from otel_bedrock.received import ReceivedSpan

USAGE = "gen_ai.usage."

# What the indented rows of a model show: the label and the field of ModelTokens. They add up to
# the model's own row, for `input` on its own would count both kinds of cache a second time.
KINDS = (
    ("input, uncached", "uncached"),
    ("cache read", "cache_read"),
    ("cache write", "cache_write"),
    ("output", "output"),
)

NAME, COLUMNS = "model and kind", ("tokens", "tokens/s", "tokens/min")
# Columns of rates go before names have less room than this.
NAME_WIDTH = 24


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of the table of tokens: a name, and what stands in each of COLUMNS."""

    name: Text
    cells: tuple[str, ...]
    style: str = ""


def make_console(*, stderr: bool = False) -> Console:
    """NO_COLOR, TERM=dumb and COLUMNS are rich's to obey; without a terminal it has 80 columns."""
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


def show(console: Console, what: RenderableType) -> None:
    """Print it; into a file or a pipe without the blanks with which rich fills up lines."""
    if console.is_terminal:
        console.print(what)
        return
    with console.capture() as drawn:
        console.print(what)
    lines = "\n".join(line.rstrip() for line in drawn.get().splitlines())
    console.print(lines, soft_wrap=True)


def trace_trees(spans: Sequence[ReceivedSpan]) -> list[Tree]:
    """One tree per root, the oldest first. A span whose parent never arrived is a root, too."""
    known = {span.span_id for span in spans}
    children: dict[str | None, list[ReceivedSpan]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: span.start_ns):
        children[span.parent_id if span.parent_id in known else None].append(span)
    trees = []
    for root in children[None]:
        tree = Tree(_span_label(root), guide_style="dim")
        _grow(tree, root, children)
        trees.append(tree)
    return trees


def _grow(tree: Tree, span: ReceivedSpan, children: dict[str | None, list[ReceivedSpan]]) -> None:
    for child in children.get(span.span_id, ()):
        _grow(tree.add(_span_label(child)), child, children)


def _span_label(span: ReceivedSpan) -> Text:
    failed = span.status_code == "error"
    label = Text(span.name, style="red" if failed else "bold")
    label.append(f"  {_duration(span.end_ns - span.start_ns)}", style="not bold cyan")
    if failed:
        what = str(span.attributes.get("error.type") or span.status_message or "error")
        label.append(f"\n{what}", style="bold red")
    counts = _span_counts(span)
    if counts:
        label.append(f"\n{counts}", style="not bold dim")
    return label


def _span_counts(span: ReceivedSpan) -> str:
    def count(name: str) -> str | None:
        value = span.attributes.get(USAGE + name)
        return f"{value:,}" if isinstance(value, int) else None

    total, output = count("input_tokens"), count("output_tokens")
    read, write = count("cache_read.input_tokens"), count("cache_write.input_tokens")
    cached = [
        f"{number} {verb}"
        for number, verb in ((read, "from cache"), (write, "to cache"))
        if number not in (None, "0")
    ]
    words = []
    if total is not None:
        words.append(f"{total} in" + (f" ({', '.join(cached)})" if cached else ""))
    if output is not None:
        words.append(f"{output} out")
    return ", ".join(words)


def _duration(ns: int) -> str:
    return f"{ns / 1e9:,.2f} s" if ns >= 1_000_000_000 else f"{ns / 1e6:.0f} ms"


def tokens_table(
    rows: Sequence[ModelTokens],
    recent: Sequence[ModelTokens],
    seconds: float,
    *,
    width: int = 80,
    height: int | None = None,
) -> Table:
    """Tokens by model and kind, and what `recent` of them come to over `seconds` as rates.

    The sum comes first, then who used most. Where it would be wider than `width`, columns go
    before names are broken; where it would be higher than `height`, kinds, and then models.
    """
    lines = _fit(*_blocks(rows, recent, seconds), None if height is None else height - 1)
    columns, room = _columns(lines, width)
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    # Where the height matters, a row is one line.
    overflow: OverflowMethod = "fold" if height is None else "ellipsis"
    table.add_column(NAME, overflow=overflow, no_wrap=height is not None, max_width=room)
    for column in columns:
        table.add_column(COLUMNS[column], justify="right", no_wrap=True)
    for line in lines:
        cells = [line.cells[column] for column in columns] if line.cells else ()
        table.add_row(line.name, *cells, style=line.style)
    return table


def _columns(lines: Sequence[_Line], width: int) -> tuple[list[int], int]:
    """Choose which of COLUMNS there is room for; the second number is what is left for names."""
    name = max(len(NAME), *(line.name.cell_len for line in lines))
    columns = list(range(len(COLUMNS)))

    def left() -> int:
        """Count what the numbers, and two blanks before each, leave for the name."""
        cells = [(COLUMNS[at], *(line.cells[at] for line in lines if line.cells)) for at in columns]
        return width - sum(2 + max(map(len, of_one)) for of_one in cells)

    for column, wanted in ((1, name), (2, min(name, NAME_WIDTH))):
        if left() < wanted:
            columns.remove(column)
    return columns, max(1, left())


def _fit(
    total: Sequence[_Line], models: Sequence[Sequence[_Line]], height: int | None
) -> Sequence[_Line]:
    """Leave out the kinds of the models, then of the sum, then the models that used least."""
    whole = [*total, *chain.from_iterable(models)]
    if height is None or len(whole) <= height:
        return whole
    short = [model[0] for model in models]
    if len(total) + min(2, len(short)) > height:
        total = total[:1]
    room = height - len(total)
    if len(short) > room:
        kept = max(room - 1, 0 if total else 1)
        short[kept:] = [_Line(Text(f"… and {len(short) - kept:,} more models"), (), "dim")]
    return [*total, *short]


def _blocks(
    rows: Sequence[ModelTokens], recent: Sequence[ModelTokens], seconds: float
) -> tuple[list[_Line], list[list[_Line]]]:
    """Make the lines of the sum, and those of each model."""
    gained = {(row.model, row.origin): row for row in recent}
    models = [
        _block(row, gained.get((row.model, row.origin)), seconds)
        for row in sorted(rows, key=lambda row: -row.total)
    ]
    # Logs see the same calls as the processes do, so the two have no sum.
    if len(rows) > 1 and len({row.origin for row in rows}) == 1:
        return _block(add_up(rows, "all models"), add_up(recent, ""), seconds), models
    return [], models


def _block(row: ModelTokens, gain: ModelTokens | None, seconds: float) -> list[_Line]:
    name = f"{row.model} [{row.origin}]" if row.origin else row.model
    rates = _rates(gain.total if gain else 0, seconds)
    lines = [_Line(Text(name), (f"{row.total:,}", *rates), "bold")]
    for label, field in KINDS:
        count: int | None = getattr(row, field)
        if count is None:  # not reported: nothing is known, which is not zero
            continue
        text = Text(f"  {label}")
        if field == "cache_read" and row.hit_share is not None:
            text.append(f" ({row.hit_share:.0%} of input)", style="green")
        gained = getattr(gain, field) or 0 if gain else 0
        lines.append(_Line(text, (f"{count:,}", *_rates(gained, seconds))))
    return lines


def _rates(tokens: int, seconds: float) -> tuple[str, str]:
    if seconds <= 0:
        return "-", "-"
    return f"{tokens / seconds:,.1f}", f"{tokens * 60 / seconds:,.0f}"
