"""Injection: every function of ours made to fail, one at a time, wherever it is referred to.

A function is found by its module's names, a method by its class's: a new one is covered without
a word here. A module's function gets other code, for tables and other modules hold it by
reference; a method is replaced on its class.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import otel_bedrock


class Injected(Exception):
    """What a function of ours was made to raise."""


_FOLDER = otel_bedrock.__path__[0]

# Stands for a piece of somebody's prompt.
SECRET = "a word that was said to the model"

# Side doors, which no call goes through, what runs when it is imported, what has tests of its own
# faults, and what only an asynchronous client reaches.
_ELSEWHERE = (
    *("__main__", "aio_streams", "asking", "aws_lambda", "budget_redis", "cli", "config"),
    *(
        "control_plane",
        "count_input",
        "countable",
        "counting",
        "elsewhere",
        "frozen",
        "instrumentor",
    ),
    *("invocation_logs", "past_call"),
    *("lookup", "mantle", "messages_api", "otlp", "otlp_server", "price_library", "received"),
    *("receiver", "sdk", "service_quotas", "setting_values", "shapes", "testing", "threads"),
    "trimming",
)
# The shields themselves: what they shield is injected one by one.
_RIM = (
    "shield.",
    "patch.",
    "observers._Observer.ended",
    "observers._Observer.dropped",
    "observers.BodyObserver.see",
    "abandoned.drain",
    "abandoned.look",
    "abandoned.finish_all",
    "bracket.begin",
    "bracket.reserve_ahead",
    "bracket.Begun.__enter__",
    "bracket.Begun.__exit__",
    "preflight.Preflight.count",
    "abandoned._settle",
    "streams.Tether.__del__",
    "bodies._is_closed",
    # The caller's own reading runs through it.
    "streams._until_end",
    "streams._Parsing.parse_event",
    "streams._Parsing.await_event",
    "streams.Ending.close",
    "bodies._Reads.read",
    "bodies._Reads._alive",
    "bodies._Reads._watched",
    "bodies._Reads._until_last",
    "bodies._Reads._failed",
)


@dataclass(frozen=True)
class Site:
    """One function: where it lives, and what it is called there."""

    id: str
    owner: Any
    name: str
    function: FunctionType


def _modules() -> Iterator[Any]:
    for found in pkgutil.walk_packages(otel_bedrock.__path__, "otel_bedrock."):
        short = found.name.removeprefix("otel_bedrock.")
        if short.split(".")[0] not in _ELSEWHERE:
            yield importlib.import_module(found.name)


def sites() -> list[Site]:
    """Return every function and method of the layers that a call goes through."""
    found: list[Site] = []
    for module in _modules():
        short = module.__name__.removeprefix("otel_bedrock.")
        for name, value in vars(module).items():
            if getattr(value, "__module__", None) != module.__name__:
                continue
            value = inspect.unwrap(value) if callable(value) else value
            if isinstance(value, FunctionType):
                found.append(Site(f"{short}.{name}", module, name, value))
            elif inspect.isclass(value) and not getattr(value, "_is_protocol", False):
                found.extend(_methods(f"{short}.{name}", value))
    return [site for site in found if not site.id.startswith(_RIM)]


def _methods(prefix: str, kind: Any) -> Iterator[Site]:
    for name, value in vars(kind).items():
        function = value.fget if isinstance(value, property) else value
        function = getattr(function, "__func__", function)
        # How an object shows itself is on no call's path.
        if not isinstance(function, FunctionType) or name == "__repr__":
            continue
        # Of what dataclasses make, the constructor alone is ours to call.
        if function.__code__.co_filename.startswith(_FOLDER) or name == "__init__":
            yield Site(f"{prefix}.{name}", kind, name, function)


class _Present:
    """What happens when the injected function is called."""

    def __init__(self) -> None:
        self.calls = 0
        self.when: Callable[[int], bool] = lambda call: True
        self.original: FunctionType | None = None


_present = _Present()


def meet(*args: Any, **kwargs: Any) -> Any:
    """Stand in for the injected function."""
    _present.calls += 1
    if _present.when(_present.calls):
        raise Injected(SECRET)
    assert _present.original is not None
    return _present.original(*args, **kwargs)


# What a function's code is exchanged for, with one of its kind; it runs with that function's
# own globals.
def _function(*args: Any, **kwargs: Any) -> Any:
    return __import__("injection").meet(*args, **kwargs)


def _generator(*args: Any, **kwargs: Any) -> Any:
    return (yield from __import__("injection").meet(*args, **kwargs))


@contextmanager
def injected(
    site: Site, when: Callable[[int], bool] = lambda call: True
) -> Iterator[Callable[[], int]]:
    """Make `site` raise at the calls that `when` picks; gives how often it was called."""
    global _present
    present = _present = _Present()
    present.when = when
    function = site.function
    # What it returned before is not asked of it again where somebody remembers it.
    caches = [
        value
        for module in _modules()
        for value in vars(module).values()
        if hasattr(value, "cache_clear")
    ]
    for cached in caches:
        cached.cache_clear()
    if inspect.isclass(site.owner):
        value = vars(site.owner)[site.name]
        present.original = function
        stand_in: Any = lambda *args, **kwargs: meet(*args, **kwargs)  # noqa: E731
        if isinstance(value, property):
            stand_in = property(stand_in)
        elif isinstance(value, staticmethod):
            stand_in = staticmethod(stand_in)
        setattr(site.owner, site.name, stand_in)
        try:
            yield lambda: present.calls
        finally:
            setattr(site.owner, site.name, value)
        return
    code = function.__code__
    present.original = FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    present.original.__kwdefaults__ = function.__kwdefaults__
    stand = _generator if inspect.isgeneratorfunction(function) else _function
    function.__code__ = stand.__code__
    try:
        yield lambda: present.calls
    finally:
        function.__code__ = code
        for cached in caches:
            cached.cache_clear()
