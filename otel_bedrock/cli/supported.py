"""Supported: the models and Regions for which AWS documents counting, with source and date."""

from __future__ import annotations

import json

from otel_bedrock.countable import (
    REGIONS,
    REGIONS_DATE,
    REGIONS_SOURCE,
    RUNTIME,
    TABLE,
)


def show(*, as_json: bool = False) -> None:
    """Print the table."""
    if as_json:
        print(json.dumps(_data(), indent=2))
        return
    from rich.table import Table
    from rich.text import Text

    from otel_bedrock.cli.render import make_console

    console = make_console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model")
    table.add_column("counted by", no_wrap=True)
    table.add_column("source", justify="right", no_wrap=True)
    table.add_column("as of", no_wrap=True)
    sources: dict[str, int] = {}
    for row in TABLE:
        number = sources.setdefault(row.source, len(sources) + 1) if row.source else None
        table.add_row(
            Text(row.title, style="bold" if row.source else "dim"),
            row.endpoints[0] if row.source else "not documented: asking shows",
            "" if number is None else f"[{number}]",
            row.date,
        )
    console.print(table)
    console.print()
    console.print(Text(f"Regions of CountTokens on {RUNTIME}", style="bold"))
    console.print(Text(", ".join(REGIONS)))
    console.print(
        f"as of {REGIONS_DATE} [{sources[REGIONS_SOURCE]}]; since then the model cards say it for"
        " each model. bedrock-mantle counts where it serves the model."
    )
    console.print()
    for source, number in sources.items():
        console.print(Text(f"[{number}] {source}", style="dim"), soft_wrap=True)


def _data() -> dict[str, object]:
    return {
        "models": [
            {
                "title": row.title,
                "pattern": row.pattern,
                "endpoints": row.endpoints,
                "documented": bool(row.source),
                "source": row.source or None,
                "date": row.date or None,
            }
            for row in TABLE
        ],
        "regions": {
            "bedrock-runtime": REGIONS,
            "source": REGIONS_SOURCE,
            "date": REGIONS_DATE,
        },
    }
