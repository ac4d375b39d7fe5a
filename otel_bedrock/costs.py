"""Costs: what a call cost, told when it has ended; only where the user gave a price source."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

from otel_bedrock import signals
from otel_bedrock.call import Outcome
from otel_bedrock.pricing import Prices, PriceSource, open_prices, price_call
from otel_bedrock.shield import log

if TYPE_CHECKING:
    from otel_bedrock.recording import Recording


class Costs:
    """Tells what calls cost by one price source; a call without a known cost tells nothing."""

    def __init__(self, prices: Prices) -> None:
        self._prices = prices

    def tell(self, recording: Recording, outcome: Outcome, at: int) -> None:
        """Tell the cost of a call that ended `at` nanoseconds since the epoch."""
        call, recorder = recording.call, recording.recorder
        when = datetime.fromtimestamp(at / 1e9, timezone.utc)
        cost = price_call(call, outcome, self._prices, when, batch=recording.batch)
        if cost is None:
            return
        base, _ = recorder.bases(call, outcome)
        # As a double, which is what OTLP has; the sum up to here was exact.
        recorder.measure((("cost", float(cost.amount), base),), recording.context)
        if recording.span.is_recording():
            told: dict[str, float | str | None] = {
                "usd": float(cost.amount),
                "source": cost.source,
                "date": cost.date,
            }
            for field, key in signals.COSTS:
                value = told[field]
                if value is not None:
                    recording.span.set_attribute(key, value)


def open_costs(source: PriceSource) -> Costs | None:
    """Return Costs by the price source that the setting names; None, and a warning, without it."""
    try:
        return Costs(open_prices(source))
    except ValueError as error:
        log.warning("%s; no costs are reported (prices, OTEL_BEDROCK_PRICES)", error)
        return None
