"""Values: the JSON values of a stream of bytes, in bounded memory, over what is corrupt.

Takes newline-delimited JSON, values without anything between them, arrays, and the wrappers of
CloudWatch (a `{"events": […]}` or `{"results": […]}` around all; a time before each line).
Arrays and wrappers at the top are entered, so that a file of one array needs no more memory than
its largest item.

JSON has no raw line break inside a string. So a value that is cut off is recognised by one, or
by a line that is a whole record of its own, and the reading goes on from there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from otel_bedrock.invocation_logs.inflate import Broken
from otel_bedrock.invocation_logs.parsing import loads

# The largest value that is read; larger ones are named and left out. Inline bodies end at 100 KB,
# the payload of a subscription at 1 MB; a page of CloudWatch's output is entered.
LARGEST = 32 * 1024 * 1024


class Position(NamedTuple):
    """Where reading may go on: `skip` values after `offset`, which stands on line `line`."""

    offset: int = 0
    skip: int = 0
    line: int = 1


class Corrupt(NamedTuple):
    """What could not be read: where, and why."""

    line: int
    why: str


# What may stand between values: commas and brackets of arrays, the separators of RFC 7464.
_BETWEEN = re.compile(rb"[\s,\x00\x1e]*")
# A wrapper begins with plain members, such as a token for the next page, and then has its list.
_WRAPPER = re.compile(
    rb'\{(?!\s*"messageType"\s*:\s*"CONTROL)'
    rb'(?:\s*"[^"\\]*"\s*:\s*(?:"[^"\\]*"|[\w.+-]+|\[[^\[\]{}]*\])\s*,){0,8}'
    rb'\s*"(?:events|logEvents|results|Records)"\s*:\s*(?=\[)'
)
# `aws logs tail` and exports of CloudWatch begin each line with a time, the former also with the
# name of the log stream.
_PREFIX = re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S*[ \t]+(?:[^\s{]+[ \t]+)?(?=\{)")
_OUTSIDE = re.compile(rb'["{}\[\]\n]')
_INSIDE = re.compile(rb'["\\\n]')
_BOM = b"\xef\xbb\xbf"
# A line that begins like this is no part of a value that was begun on an earlier one.
_RECORD = re.compile(
    rb'\{"(?:schemaType|schemaVersion|timestamp|accountId|requestId|modelId|messageType)"'
)
_RECORD_LENGTH = 32
_RECORD_KEYS = frozenset(("schemaType", "modelId"))
_LONGEST_LINE = 1 << 20
# As much of a value as it takes to know a wrapper.
_HEAD = 1024
# Where reading goes on after a value that has no end: the next line that begins an object.
_NEXT = b'\n{"'
# Bytes that may be looked through twice for that, so that no file takes for ever.
_MOST_AGAIN = 256 * 1024 * 1024


class Values:
    """The values of `chunks`, each given as it is found; `position` is after the last one.

    Iterating gives parsed values and Corrupts. `line` is where the last one ended, `seen` counts
    the bytes of `chunks`. `torn` turns True where they end in the middle of a value: `position`
    is then before it, for what is being written may be read to its end later. `parse` gives a
    value of its text, or raises ValueError.
    """

    def __init__(
        self,
        chunks: Iterable[bytes],
        start: Position | None = None,
        largest: int = LARGEST,
        parse: Callable[[bytes], Any] = loads,
    ) -> None:
        start = start or Position()
        self._parse = parse
        self._chunks = iter(chunks)
        self._largest = largest
        self._buffer = b""
        # Of the first byte of the buffer.
        self._offset = start.offset
        self.line = start.line
        self._skip = start.skip
        # Arrays that are open at the top, and whether the outermost stands in a wrapper.
        self._arrays = 0
        self._wrapped = False
        # Whether the last value ended with its line.
        self._by_line = True
        self._again = 0
        # The last place between values at which nothing was open, and the values since.
        self._flat_offset, self._flat_line, self._since = start.offset, start.line, 0
        self._at = 0
        self.seen = start.offset
        self.torn = False

    @property
    def position(self) -> Position:
        """Where to go on after the values given by now."""
        return Position(self._flat_offset, self._since, self._flat_line)

    def __iter__(self) -> Iterator[Any]:
        """Give the values after the start, parsed, and a Corrupt for what is none."""
        going = True
        while going:
            found = self._next_line()
            if found is not _NOTHING:
                yield found
                continue
            try:
                if self._offset == 0 and self._at == 0 and not self._buffer:
                    self._begin()
                if not self._reach():
                    return
                found = self._next()
            except Broken as error:
                found = Corrupt(self.line, str(error))
                going, self.torn = False, True
            if found is _NOTHING:
                continue
            if self._arrays or self._wrapped:
                self._since += 1
            elif not self.torn:
                self._since = 0
                self._flat_offset = self._offset + self._at
                self._flat_line = self.line
            if self._skip:
                self._skip -= 1
            else:
                yield found

    def _next_line(self) -> Any:
        """Read a line that is a value, at once where nothing is in the way; else _NOTHING."""
        buffer, at = self._buffer, self._at
        if (
            not buffer.startswith(b"\n{", at)
            or not self._by_line
            or self._arrays
            or self._wrapped
            or self._skip
        ):
            return _NOTHING
        end = buffer.find(b"\n", at + 1)
        if end < 0:
            return _NOTHING
        try:
            value = self._parse(buffer[at + 1 : end])
        except ValueError:
            return _NOTHING
        self._at = end
        self.line += 1
        self._since = 0
        self._flat_offset, self._flat_line = self._offset + end, self.line
        return value

    def _begin(self) -> None:
        while len(self._buffer) < len(_BOM) and self._more():
            pass
        if self._buffer.startswith(_BOM):
            self._at = len(_BOM)

    def _more(self) -> bool:
        """Read another chunk; False at the end."""
        chunk = next(self._chunks, None)
        while chunk is not None and not chunk:
            chunk = next(self._chunks, None)
        if chunk is None:
            return False
        self.seen += len(chunk)
        if self._at:
            self._offset += self._at
            self._buffer = self._buffer[self._at :] + chunk
            self._at = 0
        else:
            self._buffer += chunk
        return True

    def _reach(self) -> bool:
        """Go to where the next value begins; False at the end."""
        while True:
            match = _BETWEEN.match(self._buffer, self._at)
            end = match.end() if match is not None else self._at
            if end > self._at:
                self.line += self._buffer.count(b"\n", self._at, end)
                self._at = end
            if self._at < len(self._buffer):
                return True
            if not self._more():
                return False

    def _next(self) -> Any:
        """Read what begins here: a value, or something around values, which gives _NOTHING."""
        first = self._buffer[self._at]
        if first == 0x7B:  # {
            return self._object()
        if first == 0x5B:  # [
            self._arrays += 1
            self._at += 1
            return _NOTHING
        if first == 0x5D:  # ]
            self._at += 1
            self._arrays = max(0, self._arrays - 1)
            if self._wrapped and not self._arrays:
                self._wrapped = False
                # What follows in the wrapper: tokens for the next page, statistics.
                self._scan(depth=1, keep=False)
            return _NOTHING
        return self._garbage()

    def _object(self) -> Any:
        # Most lines are a record; in an array, or without line breaks, it takes brackets to tell.
        end = self._line_end() if self._by_line else -1
        if end > 0:
            line = self._buffer[self._at : end].rstrip(b", \t\r")
            try:
                value = self._parse(line)
            except ValueError:
                pass
            else:
                self._at = end
                return value
        if not self._arrays and not self._wrapped:
            while len(self._buffer) - self._at < _HEAD and self._more():
                pass
            match = _WRAPPER.match(self._buffer, self._at)
            if match is not None:
                self.line += self._buffer.count(b"\n", self._at, match.end())
                self._at = match.end()
                self._wrapped = True
                return _NOTHING
        return self._scan(depth=0, keep=True)

    def _line_end(self) -> int:
        """Return where the line ends that begins here; -1 where it is too long to tell."""
        searched = self._at
        while True:
            end = self._buffer.find(b"\n", searched)
            if end >= 0:
                return end
            length = len(self._buffer) - self._at
            if length > self._largest:
                return -1
            # A line is looked at whole up to the length of a chunk or so: a file of one line
            # is scanned instead.
            if length > 1 << 20:
                return -1
            if not self._more():
                return len(self._buffer)
            searched = self._at + length

    def _garbage(self) -> Any:
        """Step over the beginning of a line, or name a line that holds no JSON."""
        end = self._line_end()
        match = _PREFIX.match(self._buffer, self._at)
        if match is not None:
            self._at = match.end()
            return _NOTHING
        line = self.line
        while end < 0:
            self._at = len(self._buffer)
            if not self._more():
                break
            end = self._buffer.find(b"\n", self._at)
        self._at = end if end >= 0 else len(self._buffer)
        return Corrupt(line, "expected a JSON object")

    def _scan(self, *, depth: int, keep: bool) -> Any:
        """Find the end of the value that begins here by its brackets, and parse it."""
        begun, line = self.line, self.line
        position, inside, large, escaped = self._at, False, False, False
        while True:
            if escaped and position < len(self._buffer):
                # A value may be cut off in the middle of an escape.
                position += self._buffer[position] != 0x0A
                escaped = False
            match = (_INSIDE if inside else _OUTSIDE).search(self._buffer, position)
            if match is None:
                position = len(self._buffer)
            else:
                position = match.end()
                mark = match.group()
                if mark == b"\n":
                    line += 1
                    begins = False
                    if keep and not inside:
                        begins, position = self._begins_record(position)
                    if inside or begins:
                        self._at, self.line = position, line
                        return Corrupt(begun, "cut off at the end of a line")
                elif mark == b'"':
                    inside = not inside
                elif mark == b"\\":
                    escaped = True
                elif mark in b"{[":
                    depth += 1
                else:
                    depth -= 1
                    if depth <= 0:
                        return self._found(position, begun, line, keep=keep, large=large)
                continue
            if keep and position - self._at > self._largest:
                if self._leave(begun):
                    return Corrupt(begun, "cut off at the end of a line")
                keep, large = False, True
            if not keep:
                self._at = len(self._buffer)
            before = position - self._at
            if not self._more():
                if keep and self._leave(begun):
                    return Corrupt(begun, "cut off at the end of a line")
                self._at, self.line = len(self._buffer), line
                self.torn = True
                return Corrupt(begun, "ends in the middle of a value")
            position = self._at + before

    def _leave(self, begun: int) -> bool:
        """Go on after a value without an end where a later line begins an object."""
        found = self._buffer.find(_NEXT, self._at)
        self._again += len(self._buffer) - self._at
        if found < 0 or self._again > _MOST_AGAIN:
            return False
        self.line = begun + self._buffer.count(b"\n", self._at, found + 1)
        self._at = found + 1
        self._by_line = True
        return True

    def _begins_record(self, position: int) -> tuple[bool, int]:
        """Say whether a record begins at `position`; and where that is after reading on."""
        before = position - self._at
        while len(self._buffer) - self._at - before < _RECORD_LENGTH and self._more():
            pass
        position = self._at + before
        if _RECORD.match(self._buffer, position):
            return True, position
        if not self._buffer.startswith(b'{"', position):
            return False, position
        # Its keys may come in any order.
        while (end := self._buffer.find(b"\n", position)) < 0:
            if len(self._buffer) - position > _LONGEST_LINE or not self._more():
                end = len(self._buffer)
                break
            position = self._at + before
        try:
            value = loads(self._buffer[position:end].rstrip(b", \t\r"))
        except ValueError:
            return False, position
        return isinstance(value, dict) and not _RECORD_KEYS.isdisjoint(value), position

    def _found(self, end: int, begun: int, line: int, *, keep: bool, large: bool) -> Any:
        text = self._buffer[self._at : end]
        self._at, self.line = end, line
        rest = self._buffer[end : end + 2].lstrip(b",\r ")
        self._by_line = not rest or rest.startswith(b"\n")
        if large:
            return Corrupt(begun, f"larger than {self._largest:,} bytes")
        if not keep:
            return _NOTHING
        try:
            return self._parse(text)
        except ValueError as error:
            return Corrupt(begun, f"no JSON: {error}")


_NOTHING = object()
