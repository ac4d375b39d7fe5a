"""Paths into JSON-like data, and the JSON that such data is read from."""

from __future__ import annotations

import json

import pytest

from otel_bedrock.paths import Index, as_object


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "b": [2.5, null, true], "c": {"d": "é ☃ \\ud83d"}}',
        ' {"a": 1}',
        '{"a": 1}\n\t ',
        "{}",
        '{"a": 1, "a": 2}',
        '{"a": NaN, "b": 1e999, "c": 12345678901234567890}',
    ],
)
@pytest.mark.parametrize("encoding", [None, "utf-8", "utf-8-sig", "utf-16", "utf-32-le"])
def test_an_object_is_what_json_says_in_every_encoding(text, encoding):
    data = text if encoding is None else text.encode(encoding)
    assert repr(as_object(data)) == repr(json.loads(data))


@pytest.mark.parametrize(
    "data",
    [
        *("", " ", "null", "[]", '"{}"', "{", '{"a": 1', '{"a": 1} {}', "{'a': 1}", "no JSON"),
        *(b"", b"\xff", b'{"a": "\xff"}', b"\xef\xbb\xbf", bytearray(b"[1]")),
        *('{"a":' * 100_000, '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"),
    ],
    ids=lambda data: repr(data[:12]),
)
def test_what_is_no_object_is_none(data):
    assert as_object(data) is None


def test_an_index_finds_what_the_first_of_its_paths_leads_to():
    index = Index({"model": ("model", "message.model"), "reason": ("stop", "choices.*.stop")})
    assert index.read({"message": {"model": "m"}, "stop": None, "choices": [{"stop": "s"}]}) == {
        "model": "m",
        "reason": ["s"],
    }
    assert index.read({"model": "first", "message": {"model": "second"}, "other": 1}) == {
        "model": "first"
    }
    assert index.read({"other": 1}) == {}
    assert index.read(["model"]) == {}
    assert index.read(None) == {}
