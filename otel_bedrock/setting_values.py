"""Setting values: what each kind of setting may be, from an argument or from text.

Each function returns the value that Config has, and raises Invalid, in the words
`expected …; got …`, where it is none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

SERVICE_QUOTAS = "service-quotas"

NO_CONTENT = "NO_CONTENT"
SPAN_ONLY = "SPAN_ONLY"
EVENT_ONLY = "EVENT_ONLY"
SPAN_AND_EVENT = "SPAN_AND_EVENT"


class Invalid(ValueError):
    """A setting has a value that it cannot have; the message names both and what is allowed."""


def choice(*allowed: str) -> Callable[[Any], str]:
    """Return the parser of a setting that is one of `allowed`."""

    def parse(value: Any) -> str:
        if value not in allowed:
            raise Invalid(f"expected one of {', '.join(allowed)}; got {value!r}")
        return str(value)

    return parse


def flag(value: Any) -> bool:
    """Return True or False; as text `true`, `false` and their like."""
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    found = words.get(value.strip().lower()) if isinstance(value, str) else None
    if found is None:
        raise Invalid(f"expected true or false; got {value!r}")
    return found


def whole(value: Any) -> int:
    """Return a whole number, 0 or more."""
    try:
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise Invalid(f"expected a whole number, 0 or more; got {value!r}")
    return number


def seconds(value: Any) -> float:
    """Return `value`, a time in seconds; raise Invalid where it is none."""
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else -1.0
    # Written so that NaN is refused as well.
    if not number >= 0:
        raise Invalid(f"expected seconds, 0 or more; got {value!r}")
    return number


def names(value: Any) -> tuple[str, ...]:
    """Return names; as text with commas between them."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, (list, tuple, set, frozenset)) or not all(
        isinstance(item, str) for item in items
    ):
        raise Invalid(f"expected names, as a list or joined by commas; got {value!r}")
    return tuple(item.strip() for item in items if item.strip())


def _pairs(value: str, expected: str) -> Mapping[str, str]:
    pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
    if not all(sign and key.strip() and name.strip() for key, sign, name in pairs):
        raise Invalid(f"expected {expected} pairs joined by commas; got {value!r}")
    return {key.strip(): name.strip() for key, _, name in pairs}


def mapping(value: Any) -> Mapping[str, str]:
    """Return a mapping from model id to model id; as text `id=model,…`."""
    if isinstance(value, str):
        return _pairs(value, "id=model")
    if not isinstance(value, Mapping) or not all(
        isinstance(key, str) and isinstance(name, str) for key, name in value.items()
    ):
        raise Invalid(f"expected a mapping from id to model id; got {value!r}")
    return dict(value)


def factors(value: Any) -> Mapping[str, int]:
    """Return a mapping from model id to a whole number; as text `id=factor,…`."""
    pairs = _pairs(value, "id=factor") if isinstance(value, str) else value
    if not isinstance(pairs, Mapping) or not all(isinstance(key, str) for key in pairs):
        raise Invalid(f"expected a mapping from model id to a whole number; got {value!r}")
    return {key: whole(number) for key, number in pairs.items()}


def limits(value: Any) -> Mapping[str, Mapping[str, int]] | str:
    """Return quotas by model id and period, or SERVICE_QUOTAS; as text `id=tokens,…`."""
    if value == SERVICE_QUOTAS:
        return SERVICE_QUOTAS
    if isinstance(value, str):
        value = _pairs(value, f"{SERVICE_QUOTAS!r} or id=tokens")
    if not isinstance(value, Mapping):
        raise Invalid(f"expected {SERVICE_QUOTAS!r} or a mapping from model id; got {value!r}")
    found = {}
    for model, limit in value.items():
        periods = limit if isinstance(limit, Mapping) else {"minute": limit}
        if not isinstance(model, str) or not set(periods) <= {"minute", "day"}:
            raise Invalid(f"expected model ids with tokens by minute and day; got {value!r}")
        found[model] = {period: whole(tokens) for period, tokens in periods.items()}
    return found


def prices(value: Any) -> Any:
    """Return a source of prices as it was given; `costs.open_costs` opens it."""
    kinds = (str, os.PathLike, Mapping)
    if not isinstance(value, kinds) and not callable(value) and not hasattr(value, "rates"):
        raise Invalid(
            f"expected 'genai-prices', a JSON file's path, a mapping or a function; got {value!r}"
        )
    return value


def budget(value: Any) -> Any:
    """Return a TokenBudget as it was given."""
    # The class has the method too, and is no budget yet.
    if isinstance(value, type) or not hasattr(value, "reserve"):
        raise Invalid(f"expected a TokenBudget; got {value!r}")
    return value


def content(value: Any) -> str:
    """Return where content goes, one of the four modes."""
    modes = (NO_CONTENT, SPAN_ONLY, EVENT_ONLY, SPAN_AND_EVENT)
    words = {mode: mode for mode in modes}
    words |= {"TRUE": SPAN_ONLY, "1": SPAN_ONLY, "YES": SPAN_ONLY}
    words |= {"FALSE": NO_CONTENT, "0": NO_CONTENT, "NO": NO_CONTENT, "": NO_CONTENT}
    found = words.get(str(value).strip().upper())
    if found is None:
        raise Invalid(f"expected one of {', '.join(modes)}; got {value!r}")
    return found


def function(value: Any) -> Callable[[str], str]:
    """Return a function as it was given."""
    if not callable(value):
        raise Invalid(f"expected a function that takes a text and returns one; got {value!r}")
    found: Callable[[str], str] = value
    return found


def chooser(value: Any) -> Callable[[Mapping[str, Any]], bool] | float:
    """Return a function of a request, or the share of calls that are chosen."""
    if callable(value):
        chooser: Callable[[Mapping[str, Any]], bool] = value
        return chooser
    try:
        share = float(value) if not isinstance(value, bool) else -1.0
    except (TypeError, ValueError):
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise Invalid(
            "expected a share of the calls between 0 and 1, or a function that takes a request;"
            f" got {value!r}"
        )
    return share


_SIGNAL_PATHS = ("/v1/traces", "/v1/metrics", "/v1/logs")


def endpoint(value: Any) -> str:
    """Return the base URL of an OTLP endpoint, without a slash at its end."""
    url = value.strip().rstrip("/") if isinstance(value, str) else ""
    if not _is_url(url):
        raise Invalid(
            "expected the base URL of an OTLP endpoint, such as http://localhost:4318;"
            f" got {value!r}"
        )
    path = next((path for path in _SIGNAL_PATHS if url.endswith(path)), None)
    if path is not None:
        base = url.removesuffix(path)
        raise Invalid(f"expected the base URL, {base}, to which {path} is added; got {value!r}")
    return url


def _is_url(url: str) -> bool:
    if any(map(str.isspace, url)):
        return False
    try:
        parts = urlsplit(url)
        # To ask for the port is what looks at it.
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
