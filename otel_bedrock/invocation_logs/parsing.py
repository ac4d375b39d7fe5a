"""Parsing: JSON by the fastest parser that is there, with one kind of failure."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from typing import Any

_quick: Callable[[bytes], Any]
try:
    _quick = import_module("orjson").loads
except ModuleNotFoundError:
    _quick = json.loads


def loads(text: bytes) -> Any:
    """Parse JSON; everything that cannot be parsed is a ValueError.

    What orjson refuses is given to the standard library, which takes more (`NaN`, numbers of
    any size), so that one parser does not call corrupt what the other reads.
    """
    try:
        return _quick(text)
    except ValueError:
        if _quick is json.loads:
            raise
    except RecursionError:
        raise ValueError("nested too deeply") from None
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
