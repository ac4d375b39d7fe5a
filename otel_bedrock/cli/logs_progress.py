"""Progress of reading logs: a line on a terminal, and the names of what had to be left out."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from typing_extensions import Self

from otel_bedrock.invocation_logs.reading import LogObject, Skipped

_EVERY = 0.2
# Of one object; a file that is no log at all would fill the screen.
_NAMED = 10


class Progress:
    """Shows on stderr how far reading came, where that is a terminal."""

    def __init__(self, prog: str) -> None:
        self._prog = prog
        self._shows = sys.stderr.isatty()
        self._began = time.monotonic()
        self._told = 0.0
        self._line = ""
        self._objects = 0
        self._bytes = 0
        self._name = ""
        self._here = 0
        self.skipped = 0

    def begin(self, log: LogObject, records: int) -> None:
        """Another object is read."""
        self._rest()
        self._objects += 1
        self._bytes += log.size or 0
        self._name = log.name
        self.tick(records)

    def skip(self, skipped: Skipped) -> None:
        """Something was left out."""
        self.skipped += 1
        self._here += 1
        if self._here <= _NAMED:
            self._say(str(skipped))

    def note(self, what: str) -> None:
        """Say something that is no failure."""
        self._rest()
        self._print(what)

    def tick(self, records: int) -> None:
        """Show how far it came, but not too often."""
        now = time.monotonic()
        if not self._shows or now - self._told < _EVERY:
            return
        self._told = now
        rate = records / max(now - self._began, 1e-9)
        self._draw(
            f"{records:,} records, {self._objects:,} objects, {self._bytes / 1e6:,.0f} MB,"
            f" {rate:,.0f} records/s"
        )

    def _rest(self) -> None:
        if self._here > _NAMED:
            self._say(f"{self._name}: and {self._here - _NAMED:,} more")
        self._here = 0

    def _say(self, what: str) -> None:
        self._print(f"left out {what}")

    def _print(self, what: str) -> None:
        self._draw("")
        print(f"{self._prog}: {what}", file=sys.stderr)

    def _draw(self, line: str) -> None:
        if self._shows and (line or self._line):
            sys.stderr.write(f"\r{line:{len(self._line)}}\r" if not line else f"\r{line}\x1b[K")
            sys.stderr.flush()
        self._line = line

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._rest()
        self._draw("")
