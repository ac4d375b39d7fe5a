"""Estimate: what is known of a request before it is sent: tokens, window, cost, quota. Pure.

What nobody knows is None, is printed as `unknown`, and is never 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from otel_bedrock.call import Usage
from otel_bedrock.context_window import context_window, max_output
from otel_bedrock.counting import TokenCount
from otel_bedrock.model_id import ModelId
from otel_bedrock.pricing import Cost, Prices, price

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Estimate:
    """One model's row; `problem` says why there is no count."""

    model: str
    count: TokenCount | None
    problem: str | None = None
    window: int | None = None
    output: int | None = None
    cost: Cost | None = None
    most: Cost | None = None
    limit: int | None = None

    @property
    def share(self) -> float | None:
        """The share of the context window that the input takes."""
        if self.count is None or not self.window:
            return None
        return self.count.input_tokens / self.window

    @property
    def reserved(self) -> int | None:
        """What Bedrock takes from the quota when the call begins: input and max_tokens."""
        if self.count is None or self.output is None:
            return None
        return self.count.input_tokens + self.output

    @property
    def quota_share(self) -> float | None:
        """The share of a minute's quota that is reserved."""
        if self.reserved is None or not self.limit:
            return None
        return self.reserved / self.limit

    def as_json(self) -> dict[str, Any]:
        """Return it for scripts: what is unknown is null."""
        count = self.count
        return {
            "model": self.model,
            "counted_as": count and count.counted_as,
            "endpoint": count and count.endpoint,
            "exact": count and count.exact,
            "input_tokens": count and count.input_tokens,
            "problem": self.problem,
            "context_window": self.window,
            "context_share": self.share,
            "max_output_tokens": self.output,
            "cost": _cost(self.cost),
            "cost_with_max_output": _cost(self.most),
            "quota": None
            if self.limit is None
            else {
                "tokens_per_minute": self.limit,
                "reserved": self.reserved,
                "share": self.quota_share,
            },
        }


def estimate(
    model_id: str,
    model: ModelId,
    count: TokenCount,
    *,
    max_tokens: int | None,
    prices: Prices | None,
    region: str | None,
    limit: int | None,
) -> Estimate:
    """Put together what is known of a request whose tokens were counted.

    `model` is what the id stands for. The most that may be generated is `max_tokens`, else what
    the model generates at most, which is what Bedrock reserves then.
    """
    output = max_output(model) if max_tokens is None else max_tokens

    def costs(generated: int | None) -> Cost | None:
        if prices is None or generated is None:
            return None
        usage = Usage(input_tokens=count.input_tokens, output_tokens=generated)
        return price(usage, model, prices, region=region)

    return Estimate(
        model=model_id,
        count=count,
        window=context_window(model),
        output=output,
        cost=costs(0),
        most=costs(output),
        limit=limit,
    )


def _cost(cost: Cost | None) -> dict[str, Any] | None:
    if cost is None:
        return None
    return {
        # A text, for a binary fraction would not be exact.
        "amount": str(cost.amount),
        "currency": cost.currency,
        "source": cost.source,
        "date": cost.date,
    }


def tokens(value: int | None) -> str:
    """Write a number of tokens."""
    return UNKNOWN if value is None else f"{value:,}"


def share(value: float | None) -> str:
    """Write a share: of small ones what still says something."""
    if value is None:
        return UNKNOWN
    percent = value * 100
    if 0 < percent < 0.01:
        return "under 0.01 %"
    return f"{percent:,.2f} %" if percent < 10 else f"{percent:,.1f} %"


def money(cost: Cost | None) -> str:
    """Write an amount of dollars to four digits that say something, at least to the cent."""
    if cost is None:
        return UNKNOWN
    amount = cost.amount
    if amount == 0:
        return "$0.00"
    places = max(2, 3 - amount.adjusted())
    text = f"{amount.quantize(Decimal(1).scaleb(-places)):,f}"
    whole, _, fraction = text.partition(".")
    return f"${whole}.{fraction.rstrip('0').ljust(2, '0')}"
