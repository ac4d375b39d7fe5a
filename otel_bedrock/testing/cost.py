"""What one exchange costs, before any family spells it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cost:
    """Disjoint counts; None is what the exchange does not report."""

    uncached: int
    output: int | None = None
    read: int | None = None
    write: int | None = None
    # (ttl, tokens) of the writes, longest ttl first.
    writes: tuple[tuple[str, int], ...] = ()
    reasoning: int = 0

    @property
    def cached(self) -> int:
        return sum(count for count in (self.read, self.write) if count is not None)

    @property
    def input(self) -> int:
        return self.uncached + self.cached

    @property
    def total(self) -> int:
        return self.input + (0 if self.output is None else self.output)

    def write_of(self, ttl: str) -> int:
        return sum(count for key, count in self.writes if key == ttl)
