"""Pricing: what a call's usage costs in US dollars, by a price source that the user chose.

`price()` is the one place where counts meet rates: exact, in Decimal, and None wherever the cost
is not known. A cost is not known where a count that is billed was not reported, and where the
source has no rate for it, or cannot tell the rate that holds for this call: another service tier,
latency-optimised inference, batch, a long context, a cache write of unknown TTL while the TTLs
differ in price. No cost is better than a wrong one, and never 0.

Sources: the library genai-prices (`price_library`), or a table of the user's own (`price_table`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Context, Decimal
from typing import Any, Protocol, TypeAlias, cast

from otel_bedrock.call import Call, Outcome, Usage
from otel_bedrock.model_id import ModelId, parse

GENAI_PRICES = "genai-prices"
CURRENCY = "USD"

# A count has at most 16 digits, a rate of a table rarely ten: products and sums are exact.
_EXACT = Context(prec=60)
_MILLION = Decimal(1_000_000)
_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Question:
    """What a source is asked: which rates hold for a call of this kind.

    `tier` is the service tier that served it, None for the default one; `latency` is
    `optimized` or None. `input_tokens` is the total, by which long contexts are told.
    """

    model: ModelId
    input_tokens: int
    tier: str | None = None
    latency: str | None = None
    batch: bool = False
    region: str | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Rates:
    """US dollars for a million tokens of each kind; None where there is no such rate.

    `cache_write` holds where the answer did not tell the TTL of what it wrote.
    """

    input: Decimal | None = None
    output: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_5m: Decimal | None = None
    cache_write_1h: Decimal | None = None


class Prices(Protocol):
    """A price source; `date` is the day of its data, None where it does not say."""

    @property
    def source(self) -> str: ...

    @property
    def date(self) -> str | None: ...

    def rates(self, question: Question) -> Rates | None:
        """Return the rates that hold; None where the source cannot tell."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one call cost: `amount` is the sum of `parts`, which are named as the rates are."""

    amount: Decimal
    parts: Mapping[str, Decimal]
    source: str
    date: str | None
    currency: str = CURRENCY


PriceSource: TypeAlias = (
    "str | os.PathLike[str] | Mapping[str, Any] | Callable[[Question], Any] | Prices"
)


def price(
    usage: Usage,
    model: ModelId | str,
    prices: PriceSource = GENAI_PRICES,
    *,
    tier: str | None = None,
    latency: str | None = None,
    batch: bool = False,
    region: str | None = None,
    at: datetime | None = None,
) -> Cost | None:
    """Return what `usage` of `model` costs, None where that is not known.

    Args:
        usage: the counts, as `usage.read_usage` gives them.
        model: a model id, as called: the geo prefix may decide the price.
        prices: a source, as `instrument(prices=…)` takes it; for many calls, one that
            `open_prices` has opened.
        tier: the service tier that served the call; None and `default` are the same.
        latency: `optimized` where that is how it was served; None and `standard` are the same.
        batch: whether a batch job made the call.
        region: the Region that was asked; for sources that are functions.
        at: when the call was made; now unless given.
    """
    model = parse(model) if isinstance(model, str) else model
    opened = open_prices(prices)
    counts = _counts(usage)
    if counts is None or usage.input_tokens is None:
        return None
    question = Question(
        model=model,
        input_tokens=usage.input_tokens,
        tier=None if tier == "default" else tier,
        latency=None if latency == "standard" else latency,
        batch=batch,
        region=region,
        at=at or datetime.now(timezone.utc),
    )
    rates = opened.rates(question)
    if rates is None or (usage.output_tokens is None and rates.output):
        return None
    parts: dict[str, Decimal] = {}
    total = _ZERO
    for name, count in counts.items():
        rate: Decimal | None = getattr(rates, name)
        if count == 0:
            continue
        if rate is None:
            return None
        parts[name] = _EXACT.divide(_EXACT.multiply(Decimal(count), rate), _MILLION)
        total = _EXACT.add(total, parts[name])
    return Cost(total, parts, opened.source, opened.date)


def price_call(
    call: Call, outcome: Outcome, prices: Prices, at: datetime, *, batch: bool = False
) -> Cost | None:
    """Return the cost of a call that has ended, None where it is not known.

    A tier or a latency that was asked for and that the answer does not name is not known.
    """
    usage, asked = outcome.usage, call.parameters
    if usage is None:
        return None
    if outcome.complete is False and usage.output_tokens is None:
        return None
    if outcome.service_tier is None and asked.get("service_tier", "default") != "default":
        return None
    if outcome.latency_mode is None and asked.get("latency_mode", "standard") != "standard":
        return None
    return price(
        usage,
        call.model,
        prices,
        tier=outcome.service_tier,
        latency=outcome.latency_mode,
        batch=batch,
        region=call.region,
        at=at,
    )


def open_prices(source: PriceSource) -> Prices:
    """Return the price source that `source` names: `genai-prices`, a JSON file's path, a table
    or a function as `price_table` describes them, or a source that is open already.

    Raises:
        ValueError: there is no such source, or what it says is no table; the message says
            where and what to do.
    """
    if hasattr(source, "rates"):
        opened: Any = source
        return cast("Prices", opened)
    if source == GENAI_PRICES:
        from otel_bedrock.price_library import open_library

        return open_library()
    from otel_bedrock.price_table import open_table

    return open_table(source)


def _counts(usage: Usage) -> dict[str, int] | None:
    """Return the disjoint counts of `usage` by the rates that they are billed at.

    A cache count that was not reported is none: a model without a cache reports none.
    """
    if usage.input_tokens is None:
        return None
    read, written = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
    uncached = usage.uncached_tokens
    if uncached is None:
        uncached = usage.input_tokens - read - written
    if uncached < 0:
        return None
    counts = {"input": uncached, "cache_read": read, "output": usage.output_tokens or 0}
    split = (usage.cache_write_5m_tokens, usage.cache_write_1h_tokens)
    if split == (None, None):
        counts["cache_write"] = written
    else:
        counts["cache_write_5m"], counts["cache_write_1h"] = split[0] or 0, split[1] or 0
    return counts
