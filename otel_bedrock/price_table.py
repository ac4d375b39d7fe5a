"""Price tables: the user's own prices, as a mapping, a JSON file or a function.

A table, in US dollars for a million tokens (write prices as strings, or as JSON numbers, which
are read exactly; a Python float is taken as it prints):

    {
      "source": "our agreement with AWS",          # both go on the span
      "date": "2026-11-01",
      "models": {
        "anthropic.claude-sonnet-4-5-20250929-v1:0": {
          "input": "3.30", "output": "16.50", "cache_read": "0.33",
          "cache_write_5m": "4.125", "cache_write_1h": "6.60",
          "long_context": {"above": 200000, "input": "6.60", "output": "24.75", …},
          "flex": {…}, "priority": {…}, "reserved": {…}, "batch": {…}, "optimized": {…}
        },
        "global.anthropic.claude-sonnet-4-5-20250929-v1:0": {"input": "3.00", …}
      }
    }

A key of `models` is a model id as called (with its geo prefix; `application-inference-profile/ID`
for opaque ids), which comes first, or the bare id, which holds for every profile of that model
without a key of its own; not for provisioned, custom and imported models. `cache_write` is the
price of cache writes whatever their TTL. A tier, `batch` or `optimized` has prices and a
`long_context` of its own; one that is not there has no price. Without `long_context` the prices
hold at any length; with it, its prices hold for the whole call where the input, cache included,
is above.

A function gets a `pricing.Question` and returns what stands under one key of `models` (or None);
its name is the source.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from otel_bedrock.model_id import is_on_demand
from otel_bedrock.pricing import GENAI_PRICES, Prices, Question, Rates

log = logging.getLogger("otel_bedrock")

_RATES = tuple(field.name for field in fields(Rates))
_VARIANTS = ("flex", "priority", "reserved", "batch", "optimized")
_LONG = "long_context"


class Invalid(ValueError):
    """A table is not as described above; the message says where, what was found, what is right."""


@dataclass(frozen=True, slots=True)
class _Variant:
    """The rates of one tier of one model: `usual`, and `long` where the input is above `above`."""

    usual: Rates
    above: int | None = None
    long: Rates | None = None

    def of(self, input_tokens: int) -> Rates | None:
        return self.long if self.above is not None and input_tokens > self.above else self.usual


_Entry = Mapping["str | None", _Variant]


class Table:
    """A table that was read and found right."""

    def __init__(self, data: Any, name: str) -> None:
        _check(data, name, ("source", "date", "models"))
        models = data.get("models")
        if not isinstance(models, Mapping):
            raise Invalid(f"{name}.models: expected an object with a model id as key of each entry")
        for key in ("source", "date"):
            if not isinstance(data.get(key, ""), str):
                raise Invalid(f"{name}.{key}: expected a text, got {data[key]!r}")
        self.source: str = data.get("source") or name
        self.date: str | None = data.get("date")
        self._entries = {
            str(model): _read_entry(entry, f"{name}.models[{str(model)!r}]")
            for model, entry in models.items()
        }

    def rates(self, question: Question) -> Rates | None:
        model = question.model
        names = [model.name, model.arn, model.profile_id]
        if is_on_demand(model):
            names.append(model.base_id)
        for name in names:
            entry = self._entries.get(name) if name else None
            if entry is not None:
                return _choose(entry, question)
        return None


class Function:
    """A function of the user's; what goes wrong in it is said once, and there is no price."""

    date: str | None = None

    def __init__(self, ask: Callable[[Question], Any]) -> None:
        self.source: str = getattr(ask, "__name__", type(ask).__name__)
        self._ask = ask
        self._said = False

    def rates(self, question: Question) -> Rates | None:
        try:
            entry = self._ask(question)
            if entry is None:
                return None
            return _choose(_read_entry(entry, f"{self.source}()"), question)
        except Exception as error:
            if not self._said:
                self._said = True
                why = error if isinstance(error, Invalid) else type(error).__name__
                log.warning("no cost where the function %s fails: %s", self.source, why)
            return None


def open_table(source: Any) -> Prices:
    """Open a mapping, the path of a JSON file, or a function.

    Raises:
        Invalid: it is none of them, or not as described above.
    """
    if isinstance(source, Mapping):
        return Table(source, "prices")
    if callable(source):
        return Function(source)
    if not isinstance(source, (str, os.PathLike)):
        raise Invalid(
            f"prices: expected {GENAI_PRICES!r}, a JSON file's path, a mapping or a function;"
            f" got {source!r}"
        )
    path = Path(source).expanduser()
    try:
        # Decimal takes each number as it is written.
        data = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except OSError as error:
        raise Invalid(
            f"prices: {os.fspath(source)!r} cannot be read ({error.strerror}): expected"
            f" {GENAI_PRICES!r} or the path of a JSON file with prices"
        ) from None
    except ValueError as error:
        raise Invalid(f"{path.name}: no JSON: {error}") from None
    return Table(data, path.name)


def _choose(entry: _Entry, question: Question) -> Rates | None:
    """Return the rates of the one thing that is special about the call; two have no price."""
    special = [
        name
        for name in (question.tier, question.latency, "batch" if question.batch else None)
        if name is not None
    ]
    if len(special) > 1:
        return None
    variant = entry.get(special[0] if special else None)
    return None if variant is None else variant.of(question.input_tokens)


def _read_entry(data: Any, place: str) -> _Entry:
    _check(data, place, (*_RATES, _LONG, *_VARIANTS))
    entry: dict[str | None, _Variant] = {None: _read_variant(data, place)}
    for name in _VARIANTS:
        if name in data:
            _check(data[name], f"{place}.{name}", (*_RATES, _LONG))
            entry[name] = _read_variant(data[name], f"{place}.{name}")
    return entry


def _read_variant(data: Mapping[str, Any], place: str) -> _Variant:
    usual = _read_rates(data, place)
    if _LONG not in data:
        return _Variant(usual)
    long, place = data[_LONG], f"{place}.{_LONG}"
    _check(long, place, (*_RATES, "above"))
    above = long.get("above")
    if not isinstance(above, int) or isinstance(above, bool) or above < 0:
        raise Invalid(f"{place}.above: expected a whole number of tokens, got {above!r}")
    return _Variant(usual, above, _read_rates(long, place))


def _read_rates(data: Mapping[str, Any], place: str) -> Rates:
    found = {name: _rate(data[name], f"{place}.{name}") for name in _RATES if name in data}
    whatever = found.get("cache_write")
    if whatever is not None:
        found.setdefault("cache_write_5m", whatever)
        found.setdefault("cache_write_1h", whatever)
    elif found.get("cache_write_5m") == found.get("cache_write_1h"):
        found["cache_write"] = found.get("cache_write_5m")
    return Rates(**found)


def _rate(value: Any, place: str) -> Decimal | None:
    if value is None:
        return None
    try:
        # A float as it prints: 0.1 is what was meant.
        rate = None if isinstance(value, bool) else Decimal(str(value))
    except InvalidOperation:
        rate = None
    if rate is None or not rate.is_finite() or rate < 0:
        raise Invalid(
            f"{place}: expected US dollars for a million tokens, as '3.00'; got {value!r}"
        )
    return rate


def _check(data: Any, place: str, known: tuple[str, ...]) -> None:
    if not isinstance(data, Mapping):
        raise Invalid(f"{place}: expected an object, got {type(data).__name__}")
    for key in data:
        if key not in known:
            raise Invalid(f"{place}.{key}: no such key; known are {', '.join(known)}")
