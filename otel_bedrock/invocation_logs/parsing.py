"""Parsing: JSON by the fastest parser that is there, with one kind of failure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

_quick: Callable[[bytes], Any]
try:
    _quick = import_module("orjson").loads
except ModuleNotFoundError:
    _quick = json.loads

# What may be half of a surrogate pair: escaped, and as the bytes of UTF-8.
_ESCAPED = re.compile(rb"\\u[dD][89a-fA-F]")
_RAW = b"\xed"


def loads(text: bytes) -> Any:
    """Parse JSON; everything that cannot be parsed is a ValueError.

    What orjson refuses is given to the standard library, which takes more (`NaN`, numbers of
    any size, half a surrogate pair, which becomes a question mark), so that one parser does not
    call corrupt what the other reads.
    """
    if _quick is not json.loads:
        try:
            return _quick(text)
        except ValueError:
            pass
        except RecursionError:
            raise ValueError("nested too deeply") from None
    try:
        value = json.loads(text)
        return _mend(value) if _RAW in text or _ESCAPED.search(text) else value
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _mend(value: Any) -> Any:
    """Return a value without halves of surrogate pairs, which nothing can print or encode."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.loads(text.encode(errors="replace"))
    return value
