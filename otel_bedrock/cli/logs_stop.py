"""Stop: Ctrl-C and SIGTERM, heard where nothing is lost by it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from types import FrameType

from otel_bedrock.invocation_logs.reading import LogObject, Source


class Stop:
    """Ends at the next place where nothing is lost; asked twice, at once."""

    def __init__(self) -> None:
        self._asked = False
        self._at_once = False

    def wanted(self) -> bool:
        """Say whether it was asked to stop."""
        return self._asked

    def _ask(self, _: int, __: FrameType | None) -> None:
        again, self._asked = self._asked, True
        if again or self._at_once:
            raise KeyboardInterrupt

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Do something that may be ended anywhere, and is where that is asked for."""
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listen to Ctrl-C and SIGTERM."""
        before = {each: signal.signal(each, self._ask) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


class Stoppable:
    """A source whose looking for objects ends when it is to stop: that alone may take minutes."""

    def __init__(self, source: Source, stop: Stop) -> None:
        self.name = source.name
        self.recent = source.recent
        self._source = source
        self._stop = stop

    @property
    def passed_over(self) -> int:
        """How many files were left alone."""
        return self._source.passed_over

    def objects(self, since: datetime | None, until: datetime | None) -> Iterator[LogObject]:
        """Give the objects of the source, until it is to stop."""
        found = self._source.objects(since, until)
        while not self._stop.wanted():
            try:
                with self._stop.at_once():
                    log = next(found, None)
            except KeyboardInterrupt:
                return
            if log is None:
                return
            yield log
