"""The price source genai-prices: its rates for Bedrock, taken only where they can be told.

The library (extra `cost`, Python 3.11 or newer) has on-demand rates, `global.` apart from the
others, and long-context rates of some models. It knows no other tier, no batch and no
latency-optimised inference of Bedrock, so such calls have no cost; nor has a long context of a
model whose entry has no rate for it, unless the model's price is known to be flat. Its matching
is by parts of ids, so what it finds must name the same model and version as what was called.
Where the id does not tell whether a call was global (an application profile), the two must agree.
"""

from __future__ import annotations

import re
import sys
from datetime import date, datetime, timezone
from decimal import Decimal
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from otel_bedrock.model_id import is_on_demand
from otel_bedrock.pricing import Prices, Question, Rates

# First match wins: inputs above this many tokens may have another price, None where they have
# not. Amazon Bedrock pricing, and the comments of genai-prices 0.2.3, as of November 2026.
LONG_CONTEXT = (
    (r"anthropic\.claude-haiku-5-5", 100_000),
    (r"anthropic\.claude-sonnet-5", None),
    (r"anthropic\.", 200_000),
    (r"openai\.gpt-oss", None),
    (r"openai\.", 272_000),
    (r"(amazon|meta|mistral|cohere|ai21|deepseek|writer)\.", None),
    # The lowest of the known ones, for models that nobody has looked at.
    (r"", 100_000),
)

_FIELDS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write_5m": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
}
# Callers may make up any number of ids.
_MOST_NAMES = 1024
_DAY = re.compile(r"\b20\d\d-[01]\d-[0-3]\d\b")


class Library:
    """genai-prices as it is installed; one that updates itself is asked anew each time."""

    def __init__(self) -> None:
        from genai_prices.data_snapshot import get_snapshot

        self._snapshot: Any = get_snapshot
        self.source = f"genai-prices {version('genai-prices')}"
        self._data: _Data | None = None

    def _current(self) -> _Data:
        snapshot = self._snapshot()
        data = self._data
        if data is None or data.snapshot is not snapshot:
            data = self._data = _Data(snapshot)
        return data

    @property
    def date(self) -> str | None:
        """The day of the data: of their download, else the newest that they name."""
        return self._current().date

    def rates(self, question: Question) -> Rates | None:
        model = question.model
        if question.tier or question.latency or question.batch:
            return None
        if model.base_id is None or not is_on_demand(model):
            return None
        data = self._current()
        if model.kind == "application-inference-profile":
            ids = [model.base_id, f"global.{model.base_id}"]
        else:
            ids = [f"{model.geo}.{model.base_id}" if model.geo else model.base_id]
        entries = [entry for entry in map(data.find, ids) if entry is not None]
        found = {_rates(entry, question) for entry in entries}
        return found.pop() if len(found) == 1 else None


class _Data:
    """One state of the library's data, and what was found in it."""

    def __init__(self, snapshot: Any) -> None:
        self.snapshot = snapshot
        self.date = _day_of(snapshot)
        self._provider = next((each for each in snapshot.providers if each.id == "aws"), None)
        self._found: dict[str, Any] = {}

    def find(self, name: str) -> Any:
        """Return the library's entry of the model that `name` names, and of no other."""
        if name not in self._found:
            if len(self._found) >= _MOST_NAMES:
                self._found.clear()
            entry = None if self._provider is None else self._provider.find_model(name)
            same = entry is not None and _same(entry.id.removeprefix("regional."), name)
            self._found[name] = entry if same else None
        return self._found.get(name)


def open_library() -> Prices:
    """Return genai-prices as a price source.

    Raises:
        ValueError: it cannot be had here; the message says what to do.
    """
    if sys.version_info < (3, 11):
        raise ValueError(
            "prices: genai-prices needs Python 3.11 or newer, and this is"
            f" {sys.version_info[0]}.{sys.version_info[1]}; give a table of your own instead"
            " (otel_bedrock.price_table describes it)"
        )
    try:
        return Library()
    except ImportError as error:
        if error.name is not None and error.name.split(".")[0] == "genai_prices":
            raise ValueError(
                "prices: genai-prices is not installed: pip install 'otel-bedrock[cost]'"
            ) from None
        raise ValueError(f"prices: genai-prices cannot be imported: {error}") from error


def _rates(entry: Any, question: Question) -> Rates | None:
    prices = entry.get_prices(question.at or datetime.now(timezone.utc))
    given = {key: value for key, value in vars(prices).items() if value is not None}
    # By modality, for instance, which no usage tells.
    if set(given) - set(_FIELDS.values()):
        return None
    total, tiered = question.input_tokens, False
    rates: dict[str, Decimal | None] = {}
    for ours, theirs in _FIELDS.items():
        rate = given.get(theirs)
        tiers = getattr(rate, "tiers", None)
        if tiers is not None:
            tiered = True
            above = [tier.price for tier in tiers if total > tier.start]
            rate = above[-1] if above else getattr(rate, "base", None)
        rates[ours] = rate
    limit = _limit(question.model.base_id or "")
    if not tiered and limit is not None and total > limit:
        return None
    hour = rates["cache_write_1h"]
    if hour is None or hour == rates["cache_write_5m"]:
        rates["cache_write"] = rates["cache_write_5m"]
    return Rates(**rates)


@lru_cache(maxsize=1024)
def _limit(base_id: str) -> int | None:
    return next(limit for pattern, limit in LONG_CONTEXT if re.match(pattern, base_id))


_ID = re.compile(r"(?P<stem>.+?)(-(?P<date>\d{8}))?(-v(?P<version>\d+(:\d+)?))?(:\d+k?)?$")


def _same(theirs: str, ours: str) -> bool:
    """Say whether two ids name one model: a date or a version that one lacks is no difference."""
    a, b = (_ID.fullmatch(name) for name in (theirs, ours))
    if a is None or b is None:
        return False
    stems = [found["stem"] for found in (a, b)]
    if stems[0] != stems[1] and stems[0] != stems[1].partition(".")[2]:
        return False
    return all(
        left is None or right is None or left == right
        for left, right in (
            (a["date"], b["date"]),
            (_whole(a["version"]), _whole(b["version"])),
        )
    )


def _whole(version: str | None) -> str | None:
    return version if version is None or ":" in version else f"{version}:0"


def _day_of(snapshot: Any) -> str | None:
    if snapshot.from_auto_update:
        return str(snapshot.timestamp.date().isoformat())
    days: set[str] = set()
    for provider in snapshot.providers:
        for entry in provider.models if provider.id == "aws" else ():
            days.update(_DAY.findall(entry.price_comments or ""))
            prices = entry.prices if isinstance(entry.prices, list) else ()
            starts = (getattr(each.constraint, "start_date", None) for each in prices)
            days.update(str(start) for start in starts if start is not None)
    return max((day for day in days if day <= date.today().isoformat()), default=None)  # noqa: DTZ011
