"""Media: what may be said of data that is no text: its modality, type, size, or where it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Part = dict[str, Any]
Clean = Callable[[Any], Any]

# What may stand where the conventions have a word: roles, types, ids, names of tools. Anything
# else there is text in disguise.
_WORD = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)

# Base64 has no colon: what has no scheme where a URL is expected is the data itself.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")

# Converse's formats whose media type is not `<modality>/<format>`.
_MIME_TYPES = {
    "pdf": "application/pdf",
    "csv": "text/csv",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "html": "text/html",
    "txt": "text/plain",
    "md": "text/markdown",
    "jpg": "image/jpeg",
    "mp3": "audio/mpeg",
    "mkv": "video/x-matroska",
    "mov": "video/quicktime",
    "flv": "video/x-flv",
    "wmv": "video/x-ms-wmv",
    "mpg": "video/mpeg",
    "three_gp": "video/3gpp",
}


def word(value: Any) -> str | None:
    """Return `value` where it is a word of a protocol, None where it may be somebody's text."""
    return value if isinstance(value, str) and _WORD.fullmatch(value) else None


def mime_type(modality: str, form: Any) -> str | None:
    """Return the media type of Converse's `format`, None where it says too little."""
    kind = word(form)
    if kind is None:
        return None
    return _MIME_TYPES.get(kind, None if modality == "document" else f"{modality}/{kind}")


def describe(
    modality: str, clean: Clean, *, data: Any = None, uri: Any = None, mime: Any = None
) -> Part:
    """Make the part of something that is no text: where it is, or how large."""
    if isinstance(uri, str) and uri[:5].lower() == "data:":
        head, _, data = uri.partition(",")
        mime, uri = head[5:].partition(";")[0], None
    elif not isinstance(uri, str) or not _SCHEME.match(uri):
        data, uri = (uri if data is None else data), None
    part: Part = {"type": "blob" if uri is None else "uri", "modality": modality}
    if word(mime):
        part["mime_type"] = mime
    if uri is not None:
        part["uri"] = clean(uri)
    else:
        size = _size(data)
        if size is not None:
            part["byte_size"] = size
    return part


def _size(data: Any) -> int | None:
    """Return how many bytes `data` is: bytes as they are, text as base64."""
    if isinstance(data, memoryview):
        return data.nbytes
    if isinstance(data, (bytes, bytearray)):
        return len(data)
    if isinstance(data, str):
        return len(data) * 3 // 4 - data[-2:].count("=")
    return None
