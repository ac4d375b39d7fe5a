"""Usage: the one place where it is decided which count is true.

A `Report` is what one place (usage member, headers, body, invocation metrics) said;
`decide` makes a Usage of several, the most trusted first. Rules, and the evidence for each:

- Counts are merged field by field, never added: `message_delta` of Claude is cumulative, and
  `amazon-bedrock-invocationMetrics` repeats what the chunks said (langchain-aws#164 added).
- Headers come before the body: Nova under a guardrail sent `{"inputTokens": 30}` alone in the
  body while the header knew 51 output tokens.
- In a stream the provider's own usage comes before the invocation metrics: Claude 3.5 tool
  calls ended with 133 output tokens where the metrics said 97, and the same call without a
  stream was billed 135. Not so the output that a stream opens with: it is a count so far.
- Bedrock's own counts, and most bodies, exclude cache tokens from the input; bodies in
  OpenAI's shape include them. `Usage.input_tokens` is always the total.
- An answer that tells the total says so by its shape, and then that total holds, also over
  a header: header and body agree on it wherever nothing is cached.
- A TTL split of the cache write counts only where its parts sum to the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from otel_bedrock.call import Usage
from otel_bedrock.frozen import dataclass
from otel_bedrock.paths import dig, first, walk
from otel_bedrock.shapes import (
    BODY_SHAPES,
    CONVERSE,
    HEADER_NAMES,
    INVOCATION_METRICS,
    INVOCATION_RECORD,
    ROOTS,
    USAGE_SHAPES,
    Shape,
)

USAGE = "usage"
HEADERS = "headers"
BODY = "body"
METRICS = "metrics"
TRACE = "trace"
LOG = "log"

METRICS_KEY = "amazon-bedrock-invocationMetrics"

# OTLP carries counts as signed 64-bit integers, and a counter adds them up: one that grows past
# them stops the export of all metrics. JSON's numbers are exact up to this; what is larger is no
# count.
_MOST = 2**53 - 1

_TTL_FIELDS = {"5m": "cache_write_5m", "1h": "cache_write_1h"}

_THINKING = "usage.output_tokens_details.thinking_tokens"


@dataclass(frozen=True, slots=True)
class Report:
    """What one place said: its counts by the names of FIELDS, those it reported."""

    source: str
    counts: Mapping[str, int]
    inclusive: bool = False


def whole(value: Any) -> int | None:
    """Return `value` as a token count, or None where it is none.

    Whole floats count (Titan under a guardrail sends 28.0); booleans, fractions, negatives,
    text and what is absurdly large do not. A list is summed where every item counts.
    """
    if type(value) is int:
        return value if 0 <= value <= _MOST else None
    if isinstance(value, float):
        return int(value) if value.is_integer() and 0 <= value <= _MOST else None
    if isinstance(value, list):
        # One level: several results, each with its count. Deeper, nothing says what it means.
        parts = [None if isinstance(item, list) else whole(item) for item in value]
        if not parts or None in parts:
            return None
        total = sum(part for part in parts if part is not None)
        return total if total <= _MOST else None
    return None


def number(text: Any) -> int | None:
    """Return the whole number that a header says, or None where it says none."""
    # isdecimal() takes digits of every script; int() would read them, and refuses thousands.
    if isinstance(text, str) and text.isdecimal() and text.isascii() and len(text) <= 19:
        count = int(text)
        return count if count <= _MOST else None
    return None


def read_headers(headers: Mapping[str, Any]) -> Report | None:
    """Read the token-count headers of an InvokeModel answer; names in lower case.

    They stand in no service model; every provider of the recordings sets them.
    """
    counts = {}
    for name, header in HEADER_NAMES:
        count = number(headers.get(header))
        if count is not None:
            counts[name] = count
    return Report(HEADERS, counts) if counts else None


def lay_over(spent: Usage | None, headers: Report | None, body: Report | None) -> Usage | None:
    """Return what `decide` makes of headers and body; `spent` is what it made of headers alone.

    It stays where the body says nothing that they do not, which is the rule.
    """
    if body is None:
        return spent
    if headers is not None and not body.inclusive and body.counts.keys() <= headers.counts.keys():
        return spent
    return decide((headers, body))


def held(headers: Report | None, *, splits: bool, includes: bool) -> frozenset[str]:
    """Return which counters wait for the body of an answer with these headers.

    A cache write waits where the body `splits` it by TTL. The input waits where the body
    `includes` cached tokens in its own count, and the headers say nothing of a cache.
    """
    counts = headers.counts if headers is not None else {}
    split = splits and counts.get("cache_write")
    mend = includes and "cache_read" not in counts
    if not split and not mend:
        return _NONE
    return frozenset((*(("cache_write",) if split else ()), *(("input",) if mend else ())))


_NONE: frozenset[str] = frozenset()


def read_usage(answer: Any, *, inclusive: bool = False) -> Report | None:
    """Read a Converse answer, or the metadata event of its stream.

    `inclusive` is the provider row's word that its input may count cache tokens as well;
    it holds only where the input is at least as large as they are.
    """
    spent = answer.get("usage") if type(answer) is dict else dig(answer, "usage")
    report = _read(CONVERSE, spent, USAGE)
    if report is None or not inclusive:
        return report
    counts = report.counts
    cached = counts.get("cache_read", 0) + counts.get("cache_write", 0)
    counted_in = cached > 0 and counts.get("input", 0) >= cached
    return Report(USAGE, counts, counted_in)


def read_additional(fields: Any) -> Report | None:
    """Read `additionalModelResponseFields`: thinking tokens, where the caller asked for them."""
    count = whole(dig(fields, _THINKING)) if fields is not None else None
    return None if count is None else Report(USAGE, {"reasoning": count})


def read_body(body: Any) -> Report | None:
    """Read the usage of an InvokeModel body or of one chunk of its stream, by its shape."""
    if type(body) is not dict and not isinstance(body, Mapping):
        return None
    spent = body.get("usage")
    if spent is None:
        spent = first(body, ROOTS)
    for rows, data in ((USAGE_SHAPES, spent), (BODY_SHAPES, body)):
        for shape in rows if isinstance(data, Mapping) else ():
            report = _read(shape, data, BODY)
            if report is not None:
                return report
    return None


def read_metrics(chunk: Any) -> Report | None:
    """Read the `amazon-bedrock-invocationMetrics` of a stream's last chunk."""
    metrics = chunk.get(METRICS_KEY) if isinstance(chunk, Mapping) else None
    return None if metrics is None else _read(INVOCATION_METRICS, metrics, METRICS)


def read_log(record: Any) -> Report | None:
    """Read the token counts of a model invocation log's record, which exclude cache tokens."""
    return _read(INVOCATION_RECORD, record, LOG)


def merge(older: Report | None, newer: Report | None) -> Report | None:
    """Merge what two events of one stream said: field by field, the newer where it speaks."""
    if older is None or newer is None:
        return newer or older
    return Report(
        newer.source, {**older.counts, **newer.counts}, older.inclusive or newer.inclusive
    )


def split_opening(opening: Report | None) -> tuple[Report | None, Report | None]:
    """Take the output apart from what a stream's first message said.

    Claude's `message_start` tells the output so far, which is 1. It holds where nothing that comes
    later tells the output: neither `message_delta` nor the invocation metrics.
    """
    if opening is None or "output" not in opening.counts:
        return opening, None
    counts = dict(opening.counts)
    so_far = {"output": counts.pop("output")}
    rest = Report(opening.source, counts, opening.inclusive) if counts else None
    return rest, Report(opening.source, so_far)


# What a stream that was broken off does not know: it is what it was to spend, up to its end.
_LAST = ("output", "reasoning")


def decide(reports: Iterable[Report | None], *, final: bool = True) -> Usage | None:
    """Make one Usage of `reports`, the most trusted first; None where nobody said anything.

    `final` is False where a stream was broken off before its last event: its output count is
    then a count so far, which is not what is billed, and is left out.
    """
    source = total = None
    counts: Mapping[str, int] = {}
    for report in reports:
        if report is None or not report.counts:
            continue
        if source is None:
            source, counts = report.source, report.counts
        else:
            counts = {**report.counts, **counts}
        if report.inclusive and total is None:
            total = report.counts.get("input")
    if source is None:
        return None
    if not final:
        counts = {name: count for name, count in counts.items() if name not in _LAST}
        if not counts:
            return None
    read, write = counts.get("cache_read"), counts.get("cache_write")
    cached = (read or 0) + (write or 0)
    uncached = None
    # A total below its own cached part is none, whatever the shape says.
    if total is not None and total >= cached:
        uncached = total - cached
    elif "input" in counts:
        uncached = counts["input"]
        total = uncached + cached
    short, long = counts.get("cache_write_5m"), counts.get("cache_write_1h")
    if (short or 0) + (long or 0) != write:
        short = long = None
    return Usage(
        input_tokens=total,
        output_tokens=counts.get("output"),
        cache_read_tokens=read,
        cache_write_tokens=write,
        cache_write_5m_tokens=short,
        cache_write_1h_tokens=long,
        reasoning_tokens=counts.get("reasoning"),
        uncached_tokens=uncached,
        source=source,
    )


def _read(shape: Shape, data: Any, source: str) -> Report | None:
    if type(data) is not dict and not isinstance(data, Mapping):
        return None
    get = data.get
    for key, tail in shape.signs:
        value = get(key)
        if value is not None and (not tail or walk(value, tail) is not None):
            break
    else:
        return None
    # A plain loop: what C has for it (map, zip, min, max) takes five times as long.
    counts: dict[str, Any] = {}
    for name, key, tail in shape.places:
        value = get(key)
        if value is not None and tail:
            value = walk(value, tail)
        if value is not None:
            counts[name] = whole(value)
    if None in counts.values():
        counts = {name: count for name, count in counts.items() if count is not None}
    for path in shape.details:
        details = get(path)
        if details is not None:
            counts.update(_by_ttl(details))
            break
    return Report(source, counts, shape.inclusive) if counts else None


def _by_ttl(details: Any) -> dict[str, int]:
    """Sum `cacheDetails` by TTL; nothing where one of its items is not understood."""
    sums: dict[str, int] = {}
    for item in details if isinstance(details, list) else ():
        ttl = dig(item, "ttl")
        name = _TTL_FIELDS.get(ttl) if isinstance(ttl, str) else None
        count = whole(dig(item, "inputTokens"))
        if name is None or count is None:
            return {}
        sums[name] = sums.get(name, 0) + count
    return sums
