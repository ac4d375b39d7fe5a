"""Adds up received metric points to tokens by model and kind. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from otel_bedrock.received import ReceivedPoint

USAGE = "gen_ai.client.inference.usage."
MODEL = "gen_ai.request.model"
ORIGIN = "bedrock.usage.origin"
UNKNOWN_MODEL = "(no model)"

# The field of ModelTokens that each counter feeds.
COUNTERS = {
    USAGE + "input_tokens": "input",
    USAGE + "cache_read.input_tokens": "cache_read",
    USAGE + "cache_write.input_tokens": "cache_write",
    USAGE + "output_tokens": "output",
}


@dataclass(frozen=True, slots=True)
class ModelTokens:
    """The tokens of one model; None is what nobody reported. `input` includes both cache kinds."""

    model: str
    input: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    output: int | None = None
    origin: str = ""
    """Where the counts come from if not from the calling process: `invocation_log`, `batch`."""

    @property
    def uncached(self) -> int | None:
        """The input that was neither read from the cache nor written to it."""
        if self.input is None:
            return None
        return self.input - (self.cache_read or 0) - (self.cache_write or 0)

    @property
    def total(self) -> int:
        """Input and output; what nobody reported counts as none."""
        return (self.input or 0) + (self.output or 0)

    @property
    def hit_share(self) -> float | None:
        """How much of the input was read from the cache, 0 to 1; None without cache or input."""
        if self.cache_read is None or not self.input:
            return None
        return self.cache_read / self.input


def tokens_by_model(points: Iterable[ReceivedPoint]) -> list[ModelTokens]:
    """One row per model (and origin: the two see the same calls and are never summed)."""
    sums: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for point in points:
        field = COUNTERS.get(point.metric)
        if field is None or point.value is None:
            continue
        row = sums[
            str(point.attributes.get(MODEL, UNKNOWN_MODEL)), str(point.attributes.get(ORIGIN, ""))
        ]
        row[field] = row.get(field, 0) + int(point.value)
    return [
        ModelTokens(model=model, origin=origin, **fields)
        for (model, origin), fields in sorted(sums.items())
    ]


def add_up(rows: Sequence[ModelTokens], name: str) -> ModelTokens:
    """All rows as one."""

    def total(counts: list[int | None]) -> int | None:
        known = [count for count in counts if count is not None]
        return sum(known) if known else None

    return ModelTokens(
        model=name,
        input=total([row.input for row in rows]),
        cache_read=total([row.cache_read for row in rows]),
        cache_write=total([row.cache_write for row in rows]),
        output=total([row.output for row in rows]),
    )


def since(points: Iterable[ReceivedPoint], start_ns: int) -> list[ReceivedPoint]:
    """Work out what each counter gained after `start_ns`, from its points.

    A series that began after `start_ns` began at zero. One that is older, and whose value at that
    time is not known, counts from the first value seen: too little for once, instead of a jump by
    everything that its process has ever used.
    """
    series: dict[tuple[object, ...], list[ReceivedPoint]] = defaultdict(list)
    for point in points:
        if point.metric in COUNTERS and point.value is not None:
            is_cumulative = point.temporality == "cumulative"
            series[(*point.series, point.start_ns if is_cumulative else None)].append(point)
    return [gain for history in series.values() for gain in _gain(history, start_ns)]


def _gain(history: list[ReceivedPoint], start_ns: int) -> list[ReceivedPoint]:
    inside = [point for point in history if point.time_ns > start_ns]
    if not inside or inside[0].temporality == "delta":
        return inside
    newest = max(inside, key=lambda point: point.time_ns)
    older = [point for point in history if point.time_ns <= start_ns]
    if older:
        base = max(older, key=lambda point: point.time_ns).value
    elif newest.start_ns >= start_ns:
        base = 0
    else:
        base = min(inside, key=lambda point: point.time_ns).value
    return [replace(newest, value=(newest.value or 0) - (base or 0))]
