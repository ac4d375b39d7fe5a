"""Utf8: a text as UTF-8 can carry it.

Half of a surrogate pair is fine in Python and in JSON, and in a span it would fail the whole
batch that the exporter sends.
"""

from __future__ import annotations


def sendable(text: str) -> str:
    """Return `text` with a question mark for each half of a surrogate pair."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
