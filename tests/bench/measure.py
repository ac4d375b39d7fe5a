"""Measuring: slices of several kinds of call in turn, and the row of the table they make."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

# Kind -> what is done before a slice of it, and what is timed.
Kinds = dict[str, tuple[Callable[[], None], Callable[[], None]]]
# Kind -> the median microseconds of a call in one slice.
Round = dict[str, float]


@dataclass(frozen=True)
class Effort:
    """How much is measured: calls in a slice, slices of each kind."""

    calls: int = 200
    slices: int = 15


@dataclass(frozen=True)
class Row:
    """One line of the table: `share` is at most `target`, or at least where `least` says so.

    `bare`, `ours`, `floor` and `contract` are microseconds, None where the row has no such
    figure; `ours` is what we add to `bare`.
    """

    name: str
    share: float
    target: float
    meaning: str
    bare: float | None = None
    ours: float | None = None
    floor: float | None = None
    contract: float | None = None
    least: bool = False

    @property
    def met(self) -> bool:
        return self.share >= self.target if self.least else self.share <= self.target


def measure(kinds: Kinds, calls: int, slices: int) -> list[Round]:
    """Time `kinds` in turn, so that what the machine does meanwhile hits all alike."""
    rounds = []
    for prepare, call in kinds.values():
        prepare()
        _slice(call, max(2, calls // 5))
    for _ in range(slices):
        found = {}
        for kind, (prepare, call) in kinds.items():
            prepare()
            gc.collect()
            found[kind] = _slice(call, calls)
        rounds.append(found)
    return rounds


def interleave(kinds: Kinds, calls: int, slices: int) -> list[Round]:
    """Time `kinds` call by call in turn: what is slow for a second is slow for all of them.

    Only where preparing costs next to nothing. Each call then finds the caches as a program leaves
    them, and not as a loop over itself does.
    """
    rounds = []
    for _ in range(slices + 1):
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        gc.collect()
        for _ in range(calls):
            for kind, (prepare, call) in kinds.items():
                prepare()
                started = time.perf_counter()
                call()
                times[kind].append(time.perf_counter() - started)
        rounds.append({kind: statistics.median(each) * 1e6 for kind, each in times.items()})
    return rounds[1:]  # the first one warms up


def _slice(call: Callable[[], None], calls: int) -> float:
    """Return the median microseconds of one call: what interrupts a few does not count."""
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


def middle(rounds: Iterable[Round], of: Callable[[Round], float]) -> float:
    """Return the median over the rounds of what `of` makes of one: a ratio of neighbours."""
    return statistics.median(of(each) for each in rounds)


def over(each: Round) -> float:
    """Return what ours adds to bare."""
    return each["ours"] - each["bare"]


def row(
    name: str,
    rounds: list[Round],
    share: Callable[[Round], float],
    target: float,
    meaning: str,
) -> Row:
    """Make the line of `rounds`, judged by `share` of each."""

    def typical(kind: str) -> float | None:
        return middle(rounds, lambda each: each[kind]) if kind in rounds[0] else None

    return Row(
        name,
        middle(rounds, share),
        target,
        meaning,
        bare=typical("bare"),
        ours=middle(rounds, over),
        floor=typical("floor"),
        contract=typical("contract"),
    )


def render(rows: Iterable[Row]) -> Iterable[str]:
    """Yield the table's lines as Markdown."""
    yield "| scenario | bare, µs | ours over bare | floor | contract floor | is | target | |"
    yield "|---|---|---|---|---|---|---|---|"
    for each in rows:
        figures = " | ".join(
            "" if value is None else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
            for value in (each.bare, each.ours, each.floor, each.contract)
        )
        bound = "at least" if each.least else "at most"
        yield (
            f"| {each.name} | {figures} | {each.share:.3g} {each.meaning} |"
            f" {bound} {each.target:g} | {'met' if each.met else 'MISSED'} |"
        )
