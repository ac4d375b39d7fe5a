"""Rates: which prices hold for each of many calls, without asking the source for each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

from otel_bedrock.call import Usage
from otel_bedrock.model_id import parse
from otel_bedrock.pricing import Prices, Question, Rates, price

# What a report's cell has that is not priced.
UNPRICED = -1


@dataclass(slots=True)
class _Span:
    """Inputs from `low` to `high` tokens, which have the same rates."""

    low: int
    high: int
    number: int


@dataclass(frozen=True, slots=True)
class _Fixed:
    """A source that has the rates of one cell, and no others."""

    held: Rates
    source: str
    date: str | None

    def rates(self, question: Question) -> Rates | None:
        return self.held


class RateBook:
    """Numbers the rates that hold for calls; prices sums of calls that have the same."""

    def __init__(self, prices: Prices) -> None:
        self.prices = prices
        self._rates: list[Rates] = []
        self._numbers: dict[Rates, int] = {}
        self._spans: dict[Any, list[_Span]] = {}
        # A source of the user's own may say anything: it is asked for each call.
        self._steps = type(prices).__name__ != "Function"

    def number(
        self,
        model_id: str,
        total: int | None,
        day: str | None,
        *,
        tier: str | None = None,
        latency: str | None = None,
        batch: bool = False,
        region: str | None = None,
    ) -> int:
        """Return the number of the rates for such a call, UNPRICED where nobody knows them."""
        if total is None or day is None:
            return UNPRICED
        key = (model_id, day, tier, latency, batch, region)
        spans = self._spans.get(key)
        if spans is None:
            if len(self._spans) > 10_000:
                self._spans.clear()
            spans = self._spans[key] = []
        for span in spans:
            if span.low <= total <= span.high:
                return span.number
        try:
            at = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=timezone.utc)
        except ValueError:
            return UNPRICED
        rates = self.prices.rates(
            Question(
                model=parse(model_id),
                input_tokens=total,
                tier=None if tier == "default" else tier,
                latency=None if latency == "standard" else latency,
                batch=batch,
                region=region,
                at=at,
            )
        )
        number = UNPRICED
        if rates is not None:
            number = self._numbers.setdefault(rates, len(self._rates))
            if number == len(self._rates):
                self._rates.append(rates)
        if self._steps:
            # Prices change with the length of the input at most once: between two inputs that
            # have the same, all have it.
            for span in spans:
                if span.number == number:
                    span.low, span.high = min(span.low, total), max(span.high, total)
                    return number
            spans.append(_Span(total, total, number))
        return number

    def covers(self, number: int, counts: tuple[int | None, ...]) -> bool:
        """Say whether these rates price a call of these counts."""
        rates = self._rates[number]
        total, uncached, read, written, short, long, output = counts
        if total is None or (output is None and rates.output):
            return False
        if uncached is None:
            uncached = total - (read or 0) - (written or 0)
        priced = [(uncached, rates.input), (read, rates.cache_read), (output, rates.output)]
        if short is None and long is None:
            priced.append((written, rates.cache_write))
        else:
            priced += [(short, rates.cache_write_5m), (long, rates.cache_write_1h)]
        return uncached >= 0 and all(rate is not None or not count for count, rate in priced)

    def cost(self, number: int, model_id: str, usage: Usage) -> Decimal | None:
        """Return what the sum of calls with these rates costs."""
        fixed = _Fixed(self._rates[number], self.prices.source, self.prices.date)
        found = price(usage, parse(model_id), fixed)
        return None if found is None else found.amount
