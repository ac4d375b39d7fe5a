"""Abandoned: streams and bodies that were collected without an end, told about afterwards.

Recording from a finalizer deadlocks the metrics SDK: the collector may run on the thread
that holds the reader's lock. So a finalizer only appends its observer to a deque, which takes
no lock, and the deque is emptied by the next call, by `flush()`, at interpreter exit, and, so
that an idle process reports too, by a daemon thread that does nothing else and holds no lock
while it waits. The thread is started with the first stream or body, never from a finalizer,
and anew in a fork.
"""

from __future__ import annotations

import atexit
import gc
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from otel_bedrock import shield

# How often the thread looks, and how long anybody waits for it at most (seconds).
_LOOK_EVERY = 1.0
_WAIT = 1.0


class Abandoned(Protocol):
    """An observer that can settle what it was told."""

    def settle(self) -> None:
        """Finish the recording; not in the garbage collector, so locks are allowed."""

    def give_up(self) -> None:
        """End the span at least: `settle` has failed."""


class _State:
    """What was collected, and what is still being watched."""

    def __init__(self) -> None:
        self.collected: deque[Abandoned] = deque()
        self.open: dict[Abandoned, Callable[[], bool] | None] = {}
        # Taking the one item is atomic: of two threads, one starts ours.
        self.once = [True]
        # Held for each that is settled: `look` returns when those are told that others had
        # begun, and no fork happens in the middle of one. Never taken in a finalizer.
        self.settling = threading.RLock()


_state = _State()


def watch(observer: Abandoned, closed: Callable[[], bool] | None = None) -> None:
    """Note that `observer` waits for its end; `closed` tells of an end that it cannot see."""
    start()
    _state.open[observer] = closed


def start() -> None:
    """Start what looks after the abandoned; does nothing where that was done. Never raises."""
    state = _state
    if not state.once:
        return
    try:
        state.once.pop()
    except IndexError:
        return
    try:
        atexit.register(finish_all)
        # Made together: gevent may have replaced all of these by now, and a greenlet that
        # waits for a native lock would block all others.
        state.settling = threading.RLock()
        thread = threading.Thread(
            target=_run, args=(state, threading.Event()), name="otel-bedrock-abandoned", daemon=True
        )
        thread.start()
    except Exception as error:
        # No more threads may be had. The next call, flush() and the exit do the same work.
        shield.stop("abandoned.thread", error)


def forget(observer: Abandoned) -> None:
    """Note that `observer` has seen its end."""
    _state.open.pop(observer, None)


def put(observer: Abandoned) -> None:
    """Hand over what is to be settled. Safe in a finalizer: takes no lock."""
    _state.collected.append(observer)


def collected(observer: Abandoned) -> None:
    """Hand over an observer whose object was collected. Safe in a finalizer: takes no lock.

    One that has seen its end has nothing to tell, nor has one that another process watches:
    in a fork, the streams of the parent are the parent's.
    """
    if observer in _state.open:
        put(observer)


def drain() -> None:
    """Settle what was collected. Costs next to nothing where there is nothing, and never waits:
    where another thread is at it, that one goes on. Never raises.
    """
    state = _state
    try:
        while state.collected and _settle_next(state, 0):
            pass
    except Exception as error:
        shield.stop("abandoned.drain", error)


def look(*, collect: bool = False) -> None:
    """Settle what was collected, and what was closed where we cannot see it. Never raises.

    `collect` says that it is waited for: botocore's streams hold on to themselves, so that one that
    was broken off is open until the garbage collector comes by.
    """
    try:
        if collect and _state.open:
            gc.collect()
        _settle_all(_is_over)
    except Exception as error:
        shield.stop("abandoned.look", error)


def finish_all() -> None:
    """Settle everything, also what is still open: the interpreter is about to exit."""
    try:
        _settle_all(None)
    except Exception as error:
        # At exit it would be printed as the program's own.
        shield.stop("abandoned.exit", error)


def _settle_all(which: Callable[[Callable[[], bool] | None], bool] | None) -> None:
    state = _state
    while _settle_next(state, _WAIT):
        pass
    # A copy is made in one step; a list of the items would be made in several.
    for observer, closed in state.open.copy().items():
        if which is None or which(closed):
            with _settling(state, _WAIT):
                _settle(observer)


def _is_over(closed: Callable[[], bool] | None) -> bool:
    try:
        return closed is not None and closed()
    except Exception as error:
        shield.stop("abandoned.closed", error)
        return False


@contextmanager
def _settling(state: _State, wait: float) -> Iterator[bool]:
    """Wait for whoever settles, but not for good: an exporter may hang."""
    held = state.settling.acquire(timeout=wait)
    try:
        yield held
    finally:
        if held:
            state.settling.release()


def _settle_next(state: _State, wait: float) -> bool:
    """Settle one of the collected; False where none is left, or another thread is at it."""
    with _settling(state, wait) as held:
        if not held:
            return False
        try:
            observer = state.collected.popleft()
        except IndexError:
            return False
        _settle(observer)
        return True


def _settle(observer: Abandoned) -> None:
    try:
        forget(observer)
        observer.settle()
    except Exception as error:
        observer.give_up()
        shield.stop("abandoned.settle", error)
    except BaseException:
        # An interrupt, in a thread of the user's that looks after them by the way.
        observer.give_up()
        raise


def _run(state: _State, never: threading.Event) -> None:
    while state is _state:
        never.wait(_LOOK_EVERY)
        look()


_forking: list[threading.RLock] = []


def _before_fork() -> None:
    # Not while our thread records: the child would inherit a lock of the SDK that nobody in it
    # will ever release.
    settling = _state.settling
    if settling.acquire(timeout=_WAIT):
        _forking.append(settling)


def _after_fork() -> None:
    while _forking:
        _forking.pop().release()


def _after_fork_in_child() -> None:
    # The child has neither the thread nor a right to what the parent has open.
    global _state
    _forking.clear()
    _state = _State()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
    )
