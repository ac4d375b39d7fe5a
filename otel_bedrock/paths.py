"""Paths into JSON-like data: `dig(data, "results.*.tokenCount")`.

A path is a list of keys joined by dots. `*` stands for every item of a list and makes the
answer a list; a final `#` stands for the length of a list. What is not there is None, never
an error: the data comes from a wire that we do not control.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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


class Paths:
    """Several paths, read from one object in one go: those of one key by C, the others after it."""

    __slots__ = ("_deep", "_keys")

    def __init__(self, paths: Iterable[str]) -> None:
        steps = [_steps(path) for path in paths]
        self._keys = tuple(key for key, _ in steps)
        self._deep = tuple((place, tail) for place, (_, tail) in enumerate(steps) if tail)

    def read(self, data: Mapping[str, Any]) -> list[Any]:
        """Return what each path leads to in `data`, None where it leads to nothing."""
        values = list(map(data.get, self._keys))
        for place, tail in self._deep:
            if values[place] is not None:
                values[place] = _walk(values[place], tail)
        return values


class Index:
    """Names, each with the paths that may lead to its value, by the keys that paths begin with.

    An object has few of those keys, and only those that it has cost anything.
    """

    __slots__ = ("_by_key",)

    def __init__(self, rows: Mapping[str, tuple[str, ...]]) -> None:
        self._by_key: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
        for name, paths in rows.items():
            for key in dict.fromkeys(_steps(path)[0] for path in paths):
                self._by_key.setdefault(key, []).append((name, paths))

    def read(self, data: Any) -> dict[str, Any]:
        """Return what is there in `data`, by name: what the first of each name's paths leads to."""
        found: dict[str, Any] = {}
        if type(data) is not dict and not isinstance(data, Mapping):
            return found
        by_key = self._by_key
        for key in data:
            for name, paths in by_key.get(key, ()):
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
