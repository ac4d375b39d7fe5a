"""Frozen: `dataclass` for what nobody may change, which the type checker sees to.

At run time `frozen=True` is left out. A frozen one sets each field through `object.__setattr__`,
which for the 40 fields of a call costs 2 µs of 130, and making such a class takes twice as long,
which is a quarter of the time that importing us takes. What must be hashable by its value, as
ModelId, is made by the standard library's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    import dataclasses

    def dataclass(*, frozen, **options):
        """Decorate as the standard library's does, without what freezes."""
        return dataclasses.dataclass(**options)


__all__ = ["dataclass"]
