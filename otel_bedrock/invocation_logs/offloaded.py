"""Offloaded: bodies that lie beside their records, and what is to be said where one is missing.

A body that is not there, or is damaged, will not come: it is named, and what only it tells stays
unknown. One that cannot be had now (a permission, the network) may be had another time: who has
to count each call once waits for it, for what is counted cannot be counted again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from otel_bedrock.invocation_logs.inflate import inflate
from otel_bedrock.invocation_logs.parsing import loads

# Gives the body at an `s3://…` path, parsed. FileNotFoundError: it is not there; ValueError: it
# is no body; any other OSError: it cannot be had now.
Fetch = Callable[[str], Any]

_LARGEST = 64 * 1024 * 1024


class Unavailable(OSError):
    """A body cannot be had now, and may be another time."""


class Bodies:
    """The bodies of the records of one object; call it with a path.

    What is wrong with them is told to `said`, once for each object and kind. `failed` turns True
    where one cannot be had now; with `waits` that raises Unavailable, else it is as unknown as
    one that is not there.
    """

    def __init__(self, fetch: Fetch, said: Callable[[str], None], *, waits: bool = False) -> None:
        self.failed = False
        self._fetch = fetch
        self._said = said
        self._waits = waits
        self._missed = False

    def __call__(self, path: str) -> Any:
        try:
            return self._fetch(path)
        except (FileNotFoundError, ValueError) as error:
            if not self._missed:
                self._missed = True
                self._said(f"counts of an off-loaded body are unknown: {error} (and maybe others)")
        except OSError as error:
            if not self.failed:
                self.failed = True
                self._said(f"an off-loaded body cannot be read: {error} (and maybe others)")
            if self._waits:
                raise Unavailable(str(error)) from error
        return None


def read_body(chunks: Iterable[bytes]) -> Any:
    """Parse a body, compressed or plain; what is none is a ValueError."""
    body = b""
    for chunk in inflate(chunks):
        body += chunk
        if len(body) > _LARGEST:
            raise ValueError(f"larger than {_LARGEST:,} bytes")
    return loads(body)
