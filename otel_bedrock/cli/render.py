"""Draws what a receiver has: the trace tree, and the table of tokens by model and kind. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from rich.console import Console, RenderableType
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
    rows: Sequence[ModelTokens], recent: Sequence[ModelTokens], seconds: float
) -> Table:
    """Tokens by model and kind, and what `recent` of them come to over `seconds` as rates."""
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    table.add_column("model and kind", overflow="fold")
    for name in ("tokens", "tokens/s", "tokens/min"):
        table.add_column(name, justify="right", no_wrap=True)
    gained = {(row.model, row.origin): row for row in recent}
    for row in rows:
        _add_rows(table, row, gained.get((row.model, row.origin)), seconds)
    # Logs see the same calls as the processes do, so the two have no sum.
    if len(rows) > 1 and len({row.origin for row in rows}) == 1:
        _add_rows(table, add_up(rows, "all models"), add_up(recent, ""), seconds)
    return table


def _add_rows(table: Table, row: ModelTokens, gain: ModelTokens | None, seconds: float) -> None:
    name = f"{row.model} [{row.origin}]" if row.origin else row.model
    rates = _rates(gain.total if gain else 0, seconds)
    table.add_row(Text(name), f"{row.total:,}", *rates, style="bold")
    for label, field in KINDS:
        count: int | None = getattr(row, field)
        if count is None:  # not reported: nothing is known, which is not zero
            continue
        text = Text(f"  {label}")
        if field == "cache_read" and row.hit_share is not None:
            text.append(f" ({row.hit_share:.0%} of input)", style="green")
        gained = getattr(gain, field) or 0 if gain else 0
        table.add_row(text, f"{count:,}", *_rates(gained, seconds))


def _rates(tokens: int, seconds: float) -> tuple[str, str]:
    if seconds <= 0:
        return "-", "-"
    return f"{tokens / seconds:,.1f}", f"{tokens * 60 / seconds:,.0f}"
