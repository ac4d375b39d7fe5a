"""Draws what `count` found: one model's lines, a table of several, and what trimming comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from otel_bedrock.cli.estimate import UNKNOWN, Estimate, money, share, tokens
from otel_bedrock.cli.prompt import TITLES, Prompt
from otel_bedrock.cli.render import make_console, show
from otel_bedrock.trimming import Trimmed

# Messages that go are listed up to these; the others are said to be there.
_LISTED = 12
_EXCERPT = 48


def show_one(row: Estimate, prompt: Prompt, *, unpriced: str | None) -> None:
    """Print the lines of one model; `unpriced` says why there is no price source."""
    console = make_console()
    count = row.count
    assert count is not None

    def line(label: str, value: str, more: str = "", style: str = "") -> None:
        text = Text.assemble((f"{label:9}", "dim"), (value, "dim" if value == UNKNOWN else style))
        if more:
            text.append(f"  {more}", style="dim")
        # Whole, for who searches it, or copies a command out of it.
        console.print(text, soft_wrap=True)

    line("model", row.model)
    line("counted", f"as {count.counted_as}, by {count.endpoint}")
    line("input", f"{tokens(count.input_tokens)} tokens", _origin(row, prompt), "bold")
    if row.window is None:
        line("context", UNKNOWN, "no window in the table for this model")
    else:
        full = row.share is not None and row.share > 1
        line("context", share(row.share), f"of {tokens(row.window)} tokens", "red" if full else "")
    cost = row.cost
    if cost is None:
        line("cost", UNKNOWN, unpriced or "no price for this model and this call")
    else:
        dated = f", {cost.date}" if cost.date else ""
        line("cost", money(cost), f"before output ({cost.source}{dated})")
        if row.most is not None:
            line("", money(row.most), f"with {tokens(row.output)} tokens of output, the most")
    if row.limit is None:
        line("quota", UNKNOWN, "no limit known; see --quota")
    else:
        over = row.quota_share is not None and row.quota_share > 1
        line(
            "quota",
            share(row.quota_share),
            f"of {tokens(row.limit)} tokens a minute: {tokens(row.reserved)} are reserved",
            "red" if over else "",
        )


def _origin(row: Estimate, prompt: Prompt) -> str:
    origin = f"from {TITLES[prompt.form]}"
    if row.count is None or row.count.exact:
        return origin
    return f"about: {origin}, a tool's JSON result counted as text"


def show_table(rows: Sequence[Estimate], prompt: Prompt, *, unpriced: str | None) -> None:
    """Print several models side by side, cheapest input marked."""
    console = make_console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model", overflow="fold")
    limited = any(row.limit is not None for row in rows)
    for name in ("input", "context", "cost", "with output", *(["quota"] if limited else ())):
        table.add_column(name, justify="right", no_wrap=True)
    known = [row.cost.amount for row in rows if row.cost is not None]
    cheapest = min(known) if len(known) > 1 else None
    notes = []
    for row in rows:
        if row.count is None:
            notes.append(str(row.problem))
            table.add_row(Text(row.model), Text("not counted", style="yellow"))
            continue
        best = row.cost is not None and row.cost.amount == cheapest
        about = "" if row.count.exact else "about "
        table.add_row(
            Text(row.model, style="bold" if best else ""),
            about + tokens(row.count.input_tokens),
            _cell(share(row.share)),
            _cell(money(row.cost), "bold green" if best else ""),
            _cell(money(row.most)),
            *([_cell(share(row.quota_share))] if limited else ()),
        )
    show(console, table)
    console.print()
    sources = sorted({f"{row.cost.source}, {row.cost.date}" for row in rows if row.cost})
    said = f"Counted from {TITLES[prompt.form]}."
    if sources:
        said += f" Cost: input alone, then with the most output; prices of {'; '.join(sources)}."
    if unpriced:
        said += f" Cost: {unpriced}."
    show(console, Text(said, style="dim"))
    for note in notes:
        show(console, Text(note, style="yellow"))


def _cell(text: str, style: str = "") -> Text:
    return Text(text, style="dim" if text == UNKNOWN else style)


def show_trim(trimmed: Trimmed, prompt: Prompt, limit: int) -> None:
    """Print which messages have to go."""
    console = make_console()
    console.print()
    total = len(prompt.messages)
    times = f"{trimmed.counts} count{'' if trimmed.counts == 1 else 's'}"
    if trimmed.fits and trimmed.dropped == 0:
        console.print(Text(f"It fits {tokens(limit)} tokens as it is.", style="green"))
        return
    if trimmed.fits:
        title = (
            f"To fit {tokens(limit)} tokens, the first {trimmed.dropped} of {total} messages"
            f" have to go ({times}):"
        )
        style = "bold"
    elif trimmed.dropped == 0:
        title = f"It does not fit {tokens(limit)} tokens, and there is no message that can go."
        show(console, Text(title, style="bold red"))
        return
    else:
        title = (
            f"It does not fit {tokens(limit)} tokens: without the first {trimmed.dropped} of"
            f" {total} messages, which is all that can go, it has"
            f" {tokens(trimmed.input_tokens)} ({times})."
        )
        style = "bold red"
    show(console, Text(title, style=style))
    if not trimmed.fits:
        return
    for index, message in enumerate(prompt.messages[: trimmed.dropped]):
        if index == _LISTED and trimmed.dropped > _LISTED + 1:
            console.print(Text(f"  … and {trimmed.dropped - _LISTED} more", style="dim"))
            break
        console.print(
            Text(f"  {index:>3}  {message.get('role', ''):<9}  {_excerpt(message)}".rstrip()),
            no_wrap=True,
            overflow="ellipsis",
        )
    show(
        console,
        f"The other {total - trimmed.dropped} have {tokens(trimmed.input_tokens)} tokens;"
        f" all have {tokens(trimmed.before)}.",
    )


def trim_json(trimmed: Trimmed, prompt: Prompt, limit: int) -> dict[str, Any]:
    """Return what trimming found, for scripts."""
    return {
        "limit": limit,
        "fits": trimmed.fits,
        "drop_first": trimmed.dropped,
        "keep": len(prompt.messages) - trimmed.dropped,
        "input_tokens": trimmed.input_tokens,
        "input_tokens_before": trimmed.before,
        "counts": trimmed.counts,
    }


def _excerpt(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        words = content
    else:
        words = " ".join(_words(block) for block in content or ())
    words = " ".join(words.split())
    return words if len(words) <= _EXCERPT else f"{words[: _EXCERPT - 1]}…"


def _words(block: Any) -> str:
    if not isinstance(block, Mapping):
        return ""
    text = block.get("text")
    if isinstance(text, str):
        return text
    return f"[{block.get('type') or next(iter(block), '')}]"
