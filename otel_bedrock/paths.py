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
def _steps(path: str) -> tuple[str, ...]:
    return tuple(path.split("."))


def dig(data: Any, path: str) -> Any:
    """Return what stands at `path` in `data`, or None.

    With `*` the answer is the list of what was found under each item (items without it are
    left out), or None where nothing was found.
    """
    return _walk(data, _steps(path), 0)


def _walk(data: Any, steps: tuple[str, ...], at: int) -> Any:
    for index in range(at, len(steps)):
        step = steps[index]
        if step == "*":
            if not isinstance(data, list):
                return None
            found = (_walk(item, steps, index + 1) for item in data)
            return [value for value in found if value is not None] or None
        if step == "#":
            return len(data) if isinstance(data, list) else None
        if not isinstance(data, Mapping):
            return None
        data = data.get(step)
        if data is None:
            return None
    return data


def first(data: Any, paths: tuple[str, ...]) -> Any:
    """Return the first of `paths` that leads to something in `data`, or None."""
    for path in paths:
        found = dig(data, path)
        if found is not None:
            return found
    return None
