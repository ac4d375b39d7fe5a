"""Compares the tokens that were counted with those that the fake Bedrock billed. Pure."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence

from otel_bedrock.cli.tokens import ModelTokens, add_up
from otel_bedrock.testing import Billed

COUNTS = ("input", "cache_read", "cache_write", "output")


def tokens_billed(bill: Iterable[Billed]) -> list[ModelTokens]:
    """Put the fake's bill into the receiver's terms."""
    calls: dict[str, list[ModelTokens]] = defaultdict(list)
    for billed in bill:
        if not billed.usage_sent:  # the throttled call
            continue
        calls[billed.model_id].append(
            ModelTokens(
                model=billed.model_id,
                input=billed.input_tokens,
                cache_read=billed.cache_read_tokens,
                cache_write=billed.cache_write_tokens,
                output=billed.output_tokens,
            )
        )
    return [add_up(rows, model) for model, rows in sorted(calls.items())]


def compare(counted: Iterable[ModelTokens], billed: Iterable[ModelTokens]) -> list[str]:
    """Name every count that was billed otherwise. What nobody reported is billed as none."""
    left, right = ({row.model: row for row in rows} for rows in (counted, billed))
    differences = []
    for model in sorted({*left, *right}):
        for kind in COUNTS:
            here, there = (getattr(side.get(model), kind, None) for side in (left, right))
            if (here or 0) != (there or 0):
                differences.append(f"{model}: {kind}: counted {here}, billed {there}")
    return differences


def as_json(counted: Sequence[ModelTokens], billed: Sequence[ModelTokens], seconds: float) -> str:
    """Tell scripts. A count is null where nobody reported it; `input` includes both cache kinds."""
    models = [
        {
            "model": row.model,
            "input": row.input,
            "uncached": row.uncached,
            "cache_read": row.cache_read,
            "cache_write": row.cache_write,
            "output": row.output,
            "tokens_per_second": round(row.total / seconds, 3) if seconds > 0 else None,
        }
        for row in counted
    ]
    return json.dumps(
        {
            "seconds": round(seconds, 3),
            "models": models,
            "counted_tokens": total(counted),
            "billed_tokens": total(billed),
            "differences": compare(counted, billed),
        },
        indent=2,
    )


def total(rows: Iterable[ModelTokens]) -> int:
    """Add up all rows, input and output."""
    return sum(row.total for row in rows)
