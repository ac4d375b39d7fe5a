"""Measuring: kinds of call that take turns, each in a process of its own, and the table's row."""

from __future__ import annotations

import gc
import multiprocessing
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

# Makes ready what one kind of call needs, and gives the call.
Setup = Callable[[], Callable[[], Any]]
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
    figure; the last three are what is added to `bare`.
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


class Worker:
    """A process of its own in which one kind of call is made when it is its turn.

    A program is instrumented or it is not. Where both alternate in one process, Python gives up
    what it specialises: botocore's own code, which finds another function each time, ran slower
    for both, and an event of a stream seemed to cost 1.3 µs that costs 0.8.
    """

    def __init__(self, setup: Setup) -> None:
        fork = multiprocessing.get_context("fork")
        self._turns, turns = fork.Pipe()
        self._process = fork.Process(target=_take_turns, args=(setup, turns), daemon=True)
        self._process.start()
        turns.close()

    def turn(self, calls: int) -> list[float]:
        """Return the seconds that each of `calls` took."""
        self._turns.send(calls)
        answer: list[float] | BaseException = self._turns.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def close(self) -> None:
        # Said, for the pipe's end does not tell: those forked later have it open, too.
        self._turns.send(0)
        self._process.join()


def _take_turns(setup: Setup, turns: Any) -> None:
    call = setup()
    gc.collect()
    while calls := turns.recv():
        times: list[float] = []
        try:
            for _ in range(calls):
                started = time.perf_counter()
                call()
                times.append(time.perf_counter() - started)
        except Exception as error:
            turns.send(error)
        else:
            turns.send(times)


def measure(kinds: Mapping[str, Setup], calls: int, slices: int, turn: int = 20) -> list[Round]:
    """Time `kinds` in turns of a few calls: what is slow for a second is slow for all of them.

    A round has `calls` of each kind, and there are `slices` of them, each with new processes: where
    its memory happens to lie makes one 10 µs a call faster or slower for as long as it lives.
    """
    return [_round(kinds, calls, turn) for _ in range(slices)]


def _round(kinds: Mapping[str, Setup], calls: int, turn: int) -> Round:
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    with ExitStack() as stack:
        workers = {
            kind: stack.enter_context(closing(Worker(setup))) for kind, setup in kinds.items()
        }
        for worker in workers.values():
            worker.turn(max(2, calls // 10))
        for _ in range(max(1, calls // turn)):
            for kind in random.sample(list(workers), len(workers)):
                times[kind].extend(workers[kind].turn(turn))
    return {kind: statistics.median(each) * 1e6 for kind, each in times.items()}


def middle(rounds: Iterable[Round], of: Callable[[Round], float]) -> float:
    """Return the median over the rounds of what `of` makes of one: a ratio of neighbours."""
    return statistics.median(of(each) for each in rounds)


def over(each: Round, kind: str = "ours") -> float:
    """Return what a kind adds to bare."""
    return each[kind] - each["bare"]


def row(
    name: str,
    rounds: list[Round],
    share: Callable[[Round], float],
    target: float,
    meaning: str,
) -> Row:
    """Make the line of `rounds`, judged by `share` of each."""

    def added(kind: str) -> float | None:
        return middle(rounds, lambda each: over(each, kind)) if kind in rounds[0] else None

    return Row(
        name,
        middle(rounds, share),
        target,
        meaning,
        bare=middle(rounds, lambda each: each["bare"]),
        ours=added("ours"),
        floor=added("floor"),
        contract=added("contract"),
    )


def render(rows: Iterable[Row]) -> Iterable[str]:
    """Yield the table's lines as Markdown."""
    yield "| scenario | bare, µs | ours adds | the floor | the contract floor | is | target | |"
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
