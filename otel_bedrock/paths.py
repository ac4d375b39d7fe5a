"""Paths into JSON-like data: `dig(data, "results.*.tokenCount")`, and how such data is read.

A path is a list of keys joined by dots. `*` stands for every item of a list and makes the
answer a list; a final `#` stands for the length of a list. What is not there is None, never
an error: the data comes from a wire that we do not control.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

_decode = json.JSONDecoder().raw_decode


def as_object(data: str | bytes | bytearray) -> dict[str, Any] | None:
    """Return the JSON object that `data` says, None where it says none."""
    try:
        # What `json.loads` comes to, without what it asks before: a third of a small body's time.
        text = data if isinstance(data, str) else str(data, "utf-8")
        value, end = _decode(text)
        if end == len(text):
            return value if type(value) is dict else None
    except RecursionError:
        return None
    except ValueError:
        pass
    # With space around it, in another encoding, or no JSON.
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if type(value) is dict else None


@lru_cache(maxsize=1024)
def steps(path: str) -> tuple[str, tuple[str, ...]]:
    """Return the first key of `path`, and what `walk` takes from there."""
    head, *tail = path.split(".")
    return head, tuple(tail)


def dig(data: Any, path: str) -> Any:
    """Return what stands at `path` in `data`, or None.

    With `*` the answer is the list of what was found under each item (items without it are
    left out), or None where nothing was found.
    """
    head, tail = steps(path)
    if type(data) is dict:
        # Nearly every path is one key of a plain dict, or ends at its first.
        data = data.get(head)
        return data if data is None or not tail else walk(data, tail)
    return walk(data, (head, *tail))


def walk(data: Any, tail: tuple[str, ...]) -> Any:
    """Return what the `tail` of a path leads to from `data`, or None."""
    rest = iter(tail)
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
            below = tuple(rest)
            found = (walk(item, below) for item in data)
            return [value for value in found if value is not None] or None
        else:
            return None
    return data


class Index:
    """Names, each with the paths that may lead to its value, by the keys that paths begin with.

    An object has few of those keys, and only those that it has cost anything.
    """

    __slots__ = ("_by_key",)

    def __init__(self, rows: Mapping[str, tuple[str, ...]]) -> None:
        self._by_key: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
        for name, paths in rows.items():
            for key in dict.fromkeys(steps(path)[0] for path in paths):
                self._by_key.setdefault(key, []).append((name, paths))

    def read(self, data: Any) -> dict[str, Any]:
        """Return what is there in `data`, by name: what the first of each name's paths leads to."""
        found: dict[str, Any] = {}
        by_key = self._by_key
        if type(data) is not dict and not isinstance(data, Mapping):
            return found
        if by_key.keys().isdisjoint(data):
            return found
        for key in data:
            rows = by_key.get(key)
            if rows is None:
                continue
            for name, paths in rows:
                value = data[key] if paths[0] == key else None
                if value is None:
                    value = first(data, paths)
                if value is not None:
                    found[name] = value
        return found


def first(data: Any, paths: tuple[str, ...]) -> Any:
    """Return the first of `paths` that leads to something in `data`, or None."""
    for path in paths:
        found = dig(data, path)
        if found is not None:
            return found
    return None
