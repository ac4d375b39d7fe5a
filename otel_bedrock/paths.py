"""Paths into JSON-like data: `dig(data, "results.*.tokenCount")`.

A path is a list of keys joined by dots. `*` stands for every item of a list and makes the
answer a list; a final `#` stands for the length of a list. What is not there is None, never
an error: the data comes from a wire that we do not control.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=1024)
def _steps(path: str) -> tuple[str, tuple[str, ...]]:
    head, *tail = path.split(".")
    return head, tuple(tail)


def dig(data: Any, path: str) -> Any:
    """Return what stands at `path` in `data`, or None.

    With `*` the answer is the list of what was found under each item (items without it are
    left out), or None where nothing was found.
    """
    head, tail = _steps(path)
    if type(data) is dict:
        # Nearly every path is one key of a plain dict, or ends at its first.
        data = data.get(head)
        return data if data is None or not tail else _walk(data, tail)
    return _walk(data, (head, *tail))


def _walk(data: Any, steps: tuple[str, ...]) -> Any:
    rest = iter(steps)
    for step in rest:
        # Nearly everything is a plain dict; asking for a Mapping costs as much as the look-up.
        if type(data) is dict or isinstance(data, Mapping):
            data = data.get(step)
            if data is None:
                return None
        elif not isinstance(data, list):
            return None
        elif step == "#":
            return len(data)
        elif step == "*":
            tail = tuple(rest)
            found = (_walk(item, tail) for item in data)
            return [value for value in found if value is not None] or None
        else:
            return None
    return data


def first(data: Any, paths: tuple[str, ...]) -> Any:
    """Return the first of `paths` that leads to something in `data`, or None."""
    for path in paths:
        found = dig(data, path)
        if found is not None:
            return found
    return None
