"""Inflate: chunks of bytes, gzip or plain, as plain chunks in bounded memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

_MAGIC = b"\x1f\x8b"
_GZIP = 31  # zlib's word for a gzip header
_MOST = 1 << 18


class Broken(ValueError):
    """The compressed data ends early or is damaged; what came before was good."""


def inflate(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the content of `chunks`, whatever its name says of compression.

    Members of gzip may follow each other (Firehose writes such objects), and may hold gzip.

    Raises:
        Broken: the data ends early or is damaged, after all that could be read was yielded.
    """
    return _once(_once(iter(chunks)))


def _once(chunks: Iterator[bytes]) -> Iterator[bytes]:
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= len(_MAGIC):
            break
    if head.startswith(_MAGIC):
        yield from _members(head, chunks)
    else:
        if head:
            yield head
        yield from chunks


def _members(data: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    while data:
        member = zlib.decompressobj(_GZIP)
        while not member.eof:
            try:
                plain = member.decompress(data, _MOST)
            except zlib.error as error:
                raise Broken(f"damaged gzip data: {error}") from None
            if plain:
                yield plain
            data = member.unconsumed_tail
            if not data and not member.eof:
                data = next(chunks, b"")
                # What the member holds back comes out with an empty piece at the latest.
                if not data and not plain:
                    raise Broken("the gzip data ends in the middle")
        data = member.unused_data or next(chunks, b"")
        # Padding after the last member is allowed.
        while data and not data.strip(b"\0"):
            data = next(chunks, b"")
        data = data.lstrip(b"\0")
