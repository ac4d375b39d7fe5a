"""Budget store: how many tokens were spent in the last minute or day, counted exactly.

The window slides: at no moment were more than `limit` tokens admitted in the `seconds` before it.
It is kept in slots (a second of a minute, a minute of a day), so that its size does not grow with
the calls: a slot counts until all of it has left the window, a slot too long rather than too short.

A reservation stands in the slot of its beginning. When it is settled, what was not spent leaves
that slot, and what was spent above it counts from the moment of settling.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakSet


@dataclass(frozen=True, slots=True)
class Window:
    """One counter: at most `limit` tokens within `seconds`, in slots of `slot` seconds.

    `key` names it, for all processes that share a store.
    """

    key: str
    limit: int
    seconds: int
    slot: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Window number `window` has `left` tokens; what was asked for fits in `frees_in` seconds.

    `frees_in` is None where it can never fit.
    """

    window: int
    left: int
    frees_in: float | None


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a reservation: the slot in each window, or who refused."""

    slots: tuple[int, ...] = ()
    refusals: tuple[Refusal, ...] = ()


class Store(Protocol):
    """Counts for one process or several. Both methods are atomic over all windows."""

    @property
    def blocks(self) -> bool:
        """Whether it may wait for somebody else, as for the network."""

    def reserve(self, windows: Sequence[Window], tokens: int, enforce: bool) -> Taken:
        """Take `tokens` from each window, or from none where one refuses; without `enforce`
        from each whoever refuses.
        """

    def settle(
        self, windows: Sequence[Window], slots: Sequence[int], reserved: int, spent: int
    ) -> None:
        """Put what was spent in the place of what was reserved in `slots`."""


class _Spent:
    """The tokens of one window, by slot, oldest first."""

    __slots__ = ("by_slot", "total", "window")

    def __init__(self, window: Window) -> None:
        self.window = window
        self.by_slot: OrderedDict[int, int] = OrderedDict()
        self.total = 0

    def prune(self, window: Window, now: float) -> None:
        while self.by_slot:
            slot = next(iter(self.by_slot))
            if _leaves(slot, window) > now:
                return
            self.total -= self.by_slot.pop(slot)

    def add(self, window: Window, now: float, tokens: int) -> int:
        slot = int(now // window.slot)
        if self.by_slot:
            # A clock that was set back does not reopen what came before.
            slot = max(slot, next(reversed(self.by_slot)))
        self.by_slot[slot] = self.by_slot.get(slot, 0) + tokens
        self.total += tokens
        return slot

    def frees_in(self, window: Window, now: float, tokens: int) -> float | None:
        if tokens > window.limit:
            return None
        excess = self.total + tokens - window.limit
        for slot, spent in self.by_slot.items():
            excess -= spent
            if excess <= 0:
                return _leaves(slot, window) - now
        return None


def _leaves(slot: int, window: Window) -> float:
    """Return when all of `slot` has left the window."""
    return (slot + 1) * window.slot + window.seconds


class MemoryStore:
    """The counts of this process; a fork goes on from a copy of them."""

    blocks = False
    # Windows of tenants that are not seen any more are let go of.
    _SWEEP = 1024

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._spent: dict[str, _Spent] = {}
        self._sweep_at = self._SWEEP
        renew_in_child(self)

    def after_fork(self) -> None:
        """Go on in a forked child, where whoever held the lock is not."""
        self._lock = threading.Lock()

    def reserve(self, windows: Sequence[Window], tokens: int, enforce: bool) -> Taken:
        with self._lock:
            now = self._clock()
            if len(self._spent) >= self._sweep_at:
                self._sweep(now)
            counts = [self._spent.setdefault(window.key, _Spent(window)) for window in windows]
            refusals = []
            for index, (window, spent) in enumerate(zip(windows, counts, strict=True)):
                spent.prune(window, now)
                if spent.total + tokens > window.limit:
                    left = max(0, window.limit - spent.total)
                    frees_in = spent.frees_in(window, now, tokens)
                    refusals.append(Refusal(index, left, frees_in))
            if refusals and enforce:
                return Taken((), tuple(refusals))
            slots = [
                spent.add(window, now, tokens)
                for window, spent in zip(windows, counts, strict=True)
            ]
            return Taken(tuple(slots), tuple(refusals))

    def settle(
        self, windows: Sequence[Window], slots: Sequence[int], reserved: int, spent: int
    ) -> None:
        with self._lock:
            now = self._clock()
            for window, slot in zip(windows, slots, strict=True):
                count = self._spent.setdefault(window.key, _Spent(window))
                count.prune(window, now)
                if spent > reserved:
                    count.add(window, now, spent - reserved)
                elif slot in count.by_slot:
                    count.by_slot[slot] -= reserved - spent
                    count.total -= reserved - spent

    def _sweep(self, now: float) -> None:
        for key, spent in list(self._spent.items()):
            spent.prune(spent.window, now)
            if spent.total == 0:
                del self._spent[key]
        self._sweep_at = max(self._SWEEP, 2 * len(self._spent))


class Forked(Protocol):
    """A store that has something to do in a forked child."""

    def after_fork(self) -> None: ...


_stores: WeakSet[Forked] = WeakSet()


def renew_in_child(store: Forked) -> None:
    """Call `store.after_fork()` in each forked child, as long as it lives."""
    _stores.add(store)


def _after_fork() -> None:
    for store in tuple(_stores):
        store.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
