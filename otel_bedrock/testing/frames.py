"""Event-stream frames as Bedrock writes them, with both of their checksums.

https://smithy.io/2.0/aws/amazon-eventstream.html: total length, header length, CRC of those
eight bytes, headers, payload, CRC of all before it.
"""

from __future__ import annotations

import base64
import json
import random
import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache
from zlib import crc32

# Bedrock pads each event by a random prefix of this under the key `p`, so that the length of
# the ciphertext does not give the text away.
_PADDING = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_STRING = 7
# Encoders made once: json.dumps with arguments makes one for each call.
_encode = json.JSONEncoder(separators=(",", ":")).encode
_encode_sorted = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode


@lru_cache(maxsize=128)
def _headers(kind: str, name: str) -> bytes:
    fields = (
        (f":{kind}-type", name),
        (":content-type", "application/json"),
        (":message-type", kind),
    )
    return b"".join(
        struct.pack(">B", len(key))
        + key.encode()
        + struct.pack(">BH", _STRING, len(value))
        + value.encode()
        for key, value in fields
    )


def encode_frame(kind: str, name: str, payload: bytes) -> bytes:
    """One message; kind is `event` or `exception`."""
    headers = _headers(kind, name)
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = b"".join((prelude, struct.pack(">I", crc32(prelude)), headers, payload))
    return message + struct.pack(">I", crc32(message))


def padding() -> str:
    """Make a padding of random length."""
    return _PADDING[: 1 + int(random.random() * len(_PADDING))]  # noqa: S311 - no secret


def encode_event(name: str, payload: dict[str, object]) -> bytes:
    """A Converse event: keys sorted, padded."""
    return encode_frame("event", name, _encode_sorted({**payload, "p": padding()}).encode())


def encode_chunk(body: dict[str, object]) -> bytes:
    """An InvokeModelWithResponseStream chunk: the model's own JSON in base64, padded."""
    return encode_chunk_bytes(_encode(body).encode())


def encode_chunk_bytes(body: bytes) -> bytes:
    """Wrap bytes as an InvokeModelWithResponseStream chunk, padded."""
    coded = base64.b64encode(body).decode()
    return encode_frame("event", "chunk", f'{{"bytes":"{coded}","p":"{padding()}"}}'.encode())


def encode_exception(name: str, members: dict[str, object]) -> bytes:
    """Encode an exception event."""
    return encode_frame("exception", name, json.dumps(members, separators=(",", ":")).encode())


def corrupt(frame: bytes) -> bytes:
    """The frame with a wrong message checksum; its lengths still hold."""
    return frame[:-1] + bytes((frame[-1] ^ 0xFF,))


def split_frames(frames: Iterable[bytes], size: int | None) -> Iterator[bytes]:
    """The frames as writes: one each, or pieces of `size` bytes that straddle frames."""
    if size is None:
        yield from frames
        return
    rest = b""
    for frame in frames:
        rest += frame
        while len(rest) >= size:
            yield rest[:size]
            rest = rest[size:]
    if rest:
        yield rest
