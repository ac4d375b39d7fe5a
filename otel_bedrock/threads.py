"""Threads: a few of our own, where the call of an asyncio client has to wait for somebody.

`asyncio.to_thread` has those of the program, which may all be busy with work that waits for this
very call.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")


class Threads:
    """At most `most` threads, started as they are needed, and anew in a forked child.

    It is never let go of: one for each module that needs it.
    """

    def __init__(self, name: str, most: int) -> None:
        self._arguments = most, name
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._pool = ThreadPoolExecutor(*self._arguments)

    def submit(self, work: Callable[..., T], *arguments: object) -> Future[T]:
        """Have `work` done on a thread, in the context of the caller."""
        return self._pool.submit(copy_context().run, work, *arguments)
