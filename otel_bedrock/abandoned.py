"""Abandoned: streams and bodies that were collected without an end, told about afterwards.

Recording from a finalizer deadlocks the metrics SDK: the collector may run on the thread
that holds the reader's lock. So a finalizer only puts its observer on a queue, and the queue
is emptied by the next call, by `flush()`, at interpreter exit, and, so that an idle process
reports too, by a daemon thread that does nothing else and holds no lock while it waits. The
thread is started with the first stream or body, never from a finalizer, and anew in a fork.

`queue.SimpleQueue.put` is the one hand-over that the standard library documents as safe in
finalizers: it is re-entrant.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
from collections.abc import Callable
from typing import Protocol

from otel_bedrock import shield

# How often the thread looks for bodies that were closed where we cannot see it (seconds).
_LOOK_EVERY = 1.0


class Abandoned(Protocol):
    """An observer that can settle what it was told."""

    def settle(self) -> None:
        """Finish the recording; not in the garbage collector, so locks are allowed."""


class _State:
    """The queue, the thread that empties it, and what is still being watched.

    Queue and thread are made together, with the first stream: gevent may have replaced the
    modules' classes by then, and a native queue would block all of its greenlets.
    """

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[Abandoned] | None = None
        self.open: dict[Abandoned, Callable[[], bool] | None] = {}
        self.once = threading.Lock()


_state = _State()


def watch(observer: Abandoned, closed: Callable[[], bool] | None = None) -> None:
    """Note that `observer` waits for its end; `closed` tells of an end that it cannot see."""
    state = _state
    if state.queue is None and state.once.acquire(blocking=False):
        state.queue = queue.SimpleQueue()
        atexit.register(finish_all)
        threading.Thread(
            target=_run, args=(state,), name="otel-bedrock-abandoned", daemon=True
        ).start()
    state.open[observer] = closed


def forget(observer: Abandoned) -> None:
    """Note that `observer` has seen its end."""
    _state.open.pop(observer, None)


def put(observer: Abandoned) -> None:
    """Hand over an observer whose object was collected. Safe in a finalizer: takes no lock."""
    waiting = _state.queue
    if waiting is not None:
        waiting.put(observer)


def drain() -> None:
    """Settle what was collected. Costs next to nothing where there is nothing."""
    waiting = _state.queue
    while waiting is not None and not waiting.empty():
        try:
            observer = waiting.get_nowait()
        except queue.Empty:
            return
        _settle(observer)


def look() -> None:
    """Settle what was collected, and what was closed where we cannot see it."""
    drain()
    for observer, closed in list(_state.open.items()):
        if closed is not None and closed():
            _settle(observer)


def finish_all() -> None:
    """Settle everything, also what is still open: the interpreter is about to exit."""
    drain()
    for observer in list(_state.open):
        _settle(observer)


def _settle(observer: Abandoned) -> None:
    try:
        forget(observer)
        observer.settle()
    except Exception as error:
        shield.stop("abandoned", error)


def _run(state: _State) -> None:
    waiting = state.queue
    while waiting is not None and state is _state:
        try:
            observer = waiting.get(timeout=_LOOK_EVERY)
        except queue.Empty:
            pass
        else:
            _settle(observer)
            del observer
        try:
            look()
        except Exception as error:
            shield.stop("abandoned.look", error)


def _after_fork() -> None:
    # The child has neither the thread nor a right to what the parent has open.
    global _state
    _state = _State()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
