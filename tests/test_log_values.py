"""Streams of log records: every form they come in, and what is corrupt in them."""

from __future__ import annotations

import base64
import gzip
import json
import os
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_bedrock.invocation_logs import Reading, Record, Skipped, open_source, read_logs
from otel_bedrock.invocation_logs.inflate import Broken, inflate
from otel_bedrock.invocation_logs.layout import holds_records, hour_of
from otel_bedrock.invocation_logs.reading import LogObject, SourceError
from otel_bedrock.invocation_logs.values import Corrupt, Values
from otel_bedrock.invocation_logs.wrappers import unwrap


def make(number, **members):
    return {
        "schemaType": "ModelInvocationLog",
        "timestamp": f"2026-11-26T10:00:{number % 60:02}Z",
        "requestId": f"r-{number}",
        "operation": "Converse",
        "modelId": "amazon.nova-pro-v1:0",
        "input": {"inputTokenCount": number},
        "output": {"outputTokenCount": 1, "outputBodyJson": {"text": 'a "}{][" \\ \n é'}},
        **members,
    }


RECORDS = [make(number) for number in range(5)]
IDS = [each["requestId"] for each in RECORDS]


def lines(values=RECORDS):
    return "".join(json.dumps(each) + "\n" for each in values)


def events(values=RECORDS):
    return [{"timestamp": 1, "message": json.dumps(each), "ingestionTime": 2} for each in values]


def payload(values=RECORDS):
    return {
        "messageType": "DATA_MESSAGE",
        "owner": "111122223333",
        "logGroup": "bedrock",
        "logStream": "aws/bedrock/modelinvocations",
        "subscriptionFilters": ["f"],
        "logEvents": [{"id": "1", **each} for each in events(values)],
    }


def packed(value):
    return base64.b64encode(gzip.compress(json.dumps(value).encode())).decode()


def insights(values=RECORDS):
    return {
        "results": [
            [{"field": "@message", "value": json.dumps(each)}, {"field": "@ptr", "value": "x"}]
            for each in values
        ],
        "statistics": {"recordsMatched": 5.0},
        "status": "Complete",
    }


FORMS = {
    "lines": lines(),
    "lines without the last break": lines().rstrip("\n"),
    "lines of Windows": lines().replace("\n", "\r\n"),
    "lines with a BOM": "\ufeff" + lines(),
    "blank lines": "\n\n" + lines().replace("\n", "\n\n \n"),
    "one after the other": "".join(map(json.dumps, RECORDS)),
    "one after the other, indented": "".join(json.dumps(each, indent=2) for each in RECORDS),
    "indented": "\n".join(json.dumps(each, indent=2) for each in RECORDS),
    "an array": json.dumps(RECORDS),
    "an array, indented": json.dumps(RECORDS, indent=2),
    "an array of lines": "[\n" + ",\n".join(map(json.dumps, RECORDS)) + "\n]\n",
    "arrays of arrays": json.dumps([RECORDS[:2], RECORDS[2:]], indent=1),
    "get-log-events": json.dumps({"events": events(), "nextForwardToken": "f/{[1"}),
    "get-log-events, indented": json.dumps(
        {"events": events(), "nextForwardToken": "f/1", "more": {"a": [{}]}}, indent=4
    ),
    "two pages of filter-log-events": json.dumps({"events": events(RECORDS[:2]), "nextToken": "x"})
    + "\n"
    + json.dumps({"events": events(RECORDS[2:]), "searchedLogStreams": []}, indent=1),
    "a page that begins with its token": json.dumps(
        {"nextToken": "f/1", "searchedLogStreams": [], "more": None, "events": events()}, indent=2
    ),
    "a payload, indented": json.dumps(
        {"messageType": "CONTROL_MESSAGE", "logEvents": [{"message": "check"}]}, indent=1
    )
    + json.dumps(payload(), indent=1),
    "messages as JSON": json.dumps({"events": [{"message": each} for each in RECORDS]}),
    "a subscription's payload": json.dumps(payload()),
    "payloads one after the other": json.dumps(payload(RECORDS[:2]))
    + json.dumps({"messageType": "CONTROL_MESSAGE", "logEvents": [{"message": "check"}]})
    + json.dumps(payload(RECORDS[2:])),
    "a Lambda event": json.dumps({"awslogs": {"data": packed(payload())}}),
    "Kinesis": json.dumps({"Records": [{"kinesis": {"data": packed(payload())}}]}),
    "Logs Insights": json.dumps(insights()),
    "Logs Insights, indented": json.dumps(insights(), indent=2),
    "an export of CloudWatch": "".join(
        f"2026-11-26T10:00:0{each['input']['inputTokenCount']}.123Z {json.dumps(each)}\n"
        for each in RECORDS
    ),
    "aws logs tail": "".join(
        f"2026-11-26T10:00:00+00:00 aws/bedrock/modelinvocations {json.dumps(each)}\n"
        for each in RECORDS
    ),
}


def read(data, size=1 << 16, start=None):
    """Return (ids, what was skipped) of bytes that come in pieces of `size`."""
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    found = list(Reading(LogObject("here", "m", len(data), lambda _: iter(pieces)), start))
    return (
        [each.request_id for each in found if isinstance(each, Record)],
        [str(each) for each in found if isinstance(each, Skipped)],
    )


@pytest.mark.parametrize("packing", ["plain", "gzip", "members", "twice"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_records_however_it_is_packed_and_cut(form, packing):
    data = FORMS[form].encode()
    half = len(data) // 2
    data = {
        "plain": data,
        "gzip": gzip.compress(data),
        "members": gzip.compress(data[:half]) + gzip.compress(data[half:]) + b"\0\0",
        "twice": gzip.compress(gzip.compress(data)),
    }[packing]
    for size in (1, 7, 64, 1 << 16):
        assert read(data, size) == (IDS, []), size


CORRUPT = {
    "a line that is cut off in a string": (
        lines(RECORDS[:2]) + lines()[:-1][: lines().index("\n") - 20] + "\n" + lines(RECORDS[2:]),
        3,
        "cut off at the end of a line",
    ),
    "a line that is cut off outside one": (
        lines(RECORDS[:2]) + '{"schemaType": "ModelInvocationLog", "input": {\n'
        + lines(RECORDS[2:]),
        3,
        "cut off at the end of a line",
    ),
    "a line that is cut off among lines that begin with something else": (
        "".join(json.dumps({"eventId": "1", **each}) + "\n" for each in events(RECORDS[:2]))
        + '{"eventId": "1", "message": [\n'
        + "".join(json.dumps({"eventId": "1", **each}) + "\n" for each in events(RECORDS[2:])),
        3,
        "cut off at the end of a line",
    ),
    "a line of text": (
        lines(RECORDS[:1]) + "Traceback {most recent\n" + lines(RECORDS[1:]),
        2,
        "expected a JSON object",
    ),
    "a number": (lines(RECORDS[:1]) + "12\n" + lines(RECORDS[1:]), 2, "expected a JSON object"),
    "brackets that do not fit": (
        lines(RECORDS[:1]) + "}\n" + lines(RECORDS[1:]),
        2,
        "expected a JSON object",
    ),
    "a value that is no JSON": (
        lines(RECORDS[:1]) + "{'a': 1}\n" + lines(RECORDS[1:]),
        2,
        "no JSON",
    ),
    "an object of something else": (
        lines(RECORDS[:1]) + '{"eventName": "x"}\n' + lines(RECORDS[1:]),
        2,
        "an object that is no invocation log record",
    ),
    "a message of something else": (
        lines(RECORDS[:1]) + '{"message": "START RequestId"}\n' + lines(RECORDS[1:]),
        2,
        "a log event whose message is no JSON",
    ),
    "a payload that is damaged": (
        lines(RECORDS[:1]) + '{"awslogs": {"data": "H4sIAAAA"}}\n' + lines(RECORDS[1:]),
        2,
        "a payload that is no JSON in gzip and base64",
    ),
    "an end in the middle": (lines() + '{"schemaType": "Mod', 6, "ends in the middle of a value"),
    "bytes of no text": (lines() + '{"a": "\udcff"}', 6, "no JSON"),
}  # fmt: skip


@pytest.mark.parametrize("case", CORRUPT)
def test_what_is_corrupt_is_named_by_its_line_and_the_rest_goes_on(case):
    text, line, why = CORRUPT[case]
    data = text.encode("utf-8", "surrogateescape")
    for packed_data in (data, gzip.compress(data)):
        for size in (1, 7, 1 << 16):
            ids, skipped = read(packed_data, size)
            assert ids == IDS
            assert len(skipped) == 1
            assert skipped[0].startswith(f"here: line {line}: {why}"), skipped


def test_damaged_gzip_is_named_after_what_could_be_read():
    data = gzip.compress(lines().encode())
    ids, skipped = read(data[:-12])
    assert ids == IDS[: len(ids)]
    assert "the gzip data ends in the middle" in skipped[-1]
    whole = gzip.compress(lines().encode()) + gzip.compress(lines().encode())[:20] + b"x" * 50
    ids, skipped = read(whole)
    assert ids[:5] == IDS
    assert len(skipped) == 1
    assert "damaged gzip data" in skipped[0]


def test_a_file_that_cannot_be_read_is_skipped_with_its_reason():
    def refuse(_):
        raise PermissionError(13, "Permission denied")
        yield b""

    assert [str(each) for each in Reading(LogObject("here", "m", 1, refuse))] == [
        "here: Permission denied"
    ]


@pytest.mark.parametrize("form", FORMS)
def test_reading_goes_on_where_it_was_left(form):
    data = FORMS[form].encode()
    for stop in range(1, 5):
        reading = Reading(LogObject("here", "m", None, lambda _: iter([data])))
        before = []
        positions = [reading.position]
        for found in reading:
            before.append(found.request_id)
            positions.append(reading.position)
            if len(before) > stop:
                break
        # The position is moved on only after a whole value: go on from it.
        ids, skipped = read(data, start=positions[-1])
        assert skipped == []
        again = before[: IDS.index(ids[0])] if ids else IDS
        assert again + ids == IDS


def test_a_value_that_is_being_written_is_read_when_it_is_whole():
    data = lines().encode()
    torn = data[:-20]
    reading = Reading(LogObject("here", "m", None, lambda _: iter([torn])))
    assert [each.why for each in reading if isinstance(each, Skipped)] == [
        "ends in the middle of a value"
    ]
    assert read(data, start=reading.position) == (["r-4"], [])


def test_a_value_that_is_too_large_is_named_and_left_out():
    large = make(9, pad="x" * 5000)
    data = (lines(RECORDS[:2]) + json.dumps(large, indent=1) + "\n" + lines(RECORDS[2:])).encode()
    for size in (64, 1 << 16):
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        found = list(Values(pieces, largest=2000))
        ids = [each["requestId"] for each in found if isinstance(each, dict)]
        # In one piece it is there already, and costs nothing more.
        assert ids == IDS if size == 64 else ids in (IDS, [*IDS[:2], "r-9", *IDS[2:]])
        assert all(isinstance(each, (dict, Corrupt)) for each in found)


def test_memory_is_bounded_whatever_the_size_of_an_array():
    def pieces():
        yield b"["
        item = json.dumps(make(1, pad="x" * 20_000)).encode() + b","
        for _ in range(200):
            yield item * 10
        yield json.dumps(make(2)).encode() + b"]"

    tracemalloc.start()
    count = sum(1 for _ in Values(pieces()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 2_001
    assert peak < 15_000_000


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from([json.dumps(each).encode() for each in RECORDS]),
            st.sampled_from([b"{", b"}", b"[", b"]", b'"', b"\\", b"\n", b",", b'{"events": [']),
            st.binary(max_size=8),
        ),
        max_size=12,
    ),
    st.integers(1, 80),
)
def test_nothing_raises_and_nothing_hangs_whatever_the_bytes(pieces, size):
    data = b"".join(pieces)
    cut = [data[at : at + size] for at in range(0, len(data), size)]
    for value in Values(inflate(cut)):
        for found in unwrap(value):
            assert isinstance(found, (dict, Corrupt))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 50))
def test_inflate_gives_back_what_was_packed(data, size):
    whole = gzip.compress(b"{" + data)
    assert b"".join(inflate(whole[at : at + size] for at in range(0, len(whole), size))) == (
        b"{" + data
    )
    with pytest.raises(Broken):
        list(inflate([whole[:-1]]))


BASE = "AWSLogs/1/BedrockModelInvocationLogs/us-east-1/2026/11/26"


def test_a_folder_gives_its_files_in_order_and_leaves_bodies_and_checks_out(tmp_path):
    def write(name, values):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(lines(values).encode()))

    write(f"{BASE}/11/late.json.gz", RECORDS[2:])
    write(f"{BASE}/10/early.json.gz", RECORDS[:2])
    write(f"{BASE}/10/data/r-1_output.json.gz", [{"body": 1}])
    write(f"{BASE}/10/amazon-bedrock-logs-permission-check", [{"check": 1}])
    write("AWSLogs/aws-logs-write-test", [{"check": 1}])
    write(".hidden/x.json", [{"check": 1}])
    write("readme.md", [{"check": 1}])
    skipped = []
    found = read_logs([open_source(str(tmp_path))], skipped=skipped.append)
    assert ([each.request_id for each in found], skipped) == (IDS, [])


def test_a_folder_named_data_is_no_reason_to_leave_its_files_out(tmp_path):
    folder = tmp_path / "data" / "logs"
    folder.mkdir(parents=True)
    (folder / "mine.jsonl").write_text(lines())
    assert len(list(read_logs([open_source(str(tmp_path))]))) == 5
    assert holds_records("data/prefix/AWSLogs/1/x/2026/11/26/10/a.json.gz")
    assert not holds_records("prefix/2026/11/26/10/data/a_output.json.gz")
    assert hour_of("2020/01/01/00/AWSLogs/2026/11/26/10/a.json.gz").year == 2026


def test_a_body_that_was_copied_beside_its_records_is_found(tmp_path):
    folder = tmp_path / BASE / "10"
    (folder / "data").mkdir(parents=True)
    path = f"s3://elsewhere/{BASE}/10/data/r-7_output.json.gz"
    (folder / "a.json").write_text(
        json.dumps(make(7, input={}, output={"outputBodyS3Path": path})) + "\n"
    )
    body = {"usage": {"inputTokens": 12, "outputTokens": 34}}
    (folder / "data/r-7_output.json.gz").write_bytes(gzip.compress(json.dumps(body).encode()))
    (found,) = read_logs([open_source(str(tmp_path))])
    assert found.read_usage().output_tokens == 34


@pytest.mark.parametrize(
    ("body", "says"), [(None, "has no copy here, such as "), (b"no JSON", "r-7_output.json.gz: ")]
)
def test_a_body_that_tells_nothing_is_named(body, says, tmp_path):
    path = f"s3://elsewhere/{BASE}/10/data/r-7_output.json.gz"
    (tmp_path / "a.json").write_text(
        json.dumps(make(7, input={}, output={"outputBodyS3Path": path})) + "\n"
    )
    if body is not None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data/r-7_output.json.gz").write_bytes(body)
    skipped = []
    (found,) = read_logs([open_source(str(tmp_path / "a.json"))], skipped=skipped.append)
    assert found.read_usage() is None
    (named,) = skipped
    assert says in str(named)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_pipe_is_read_as_a_file_is(pack):
    end, start = os.pipe()
    os.write(start, pack(lines().encode()))
    os.close(start)
    found = list(read_logs([open_source(f"/dev/fd/{end}")], skipped=pytest.fail))
    os.close(end)
    assert [each.request_id for each in found] == IDS


def test_a_path_that_is_not_there_is_an_error_that_names_it(tmp_path):
    with pytest.raises(SourceError, match="nowhere: there is no such file or folder"):
        list(read_logs([open_source(str(tmp_path / "nowhere"))]))


def test_records_are_of_the_time_that_was_asked_for(tmp_path):
    from datetime import datetime, timezone

    (tmp_path / "a.jsonl").write_text(lines())
    since = datetime(2026, 11, 26, 10, 0, 1, tzinfo=timezone.utc)
    until = datetime(2026, 11, 26, 10, 0, 3, tzinfo=timezone.utc)
    found = read_logs([open_source(str(tmp_path))], since, until)
    assert [each.request_id for each in found] == ["r-1", "r-2"]
    # Bounds may lie where no record can.
    last, first = since.replace(year=9000), since.replace(year=1900)
    assert list(read_logs([open_source(str(tmp_path))], last)) == []
    assert list(read_logs([open_source(str(tmp_path))], None, first)) == []


@pytest.mark.parametrize("indent", [None, 2])
def test_a_query_s_result_without_records_is_named(indent):
    row = [{"field": "modelId", "value": "m"}, {"field": "@ptr", "value": "p"}]
    records, skipped = read(json.dumps({"results": [row]}, indent=indent).encode())
    assert records == []
    assert ["without its record: ask for `fields @message`" in each for each in skipped] == [True]


def test_what_looks_like_a_body_or_a_check_or_has_another_name_is_read(tmp_path):
    root = tmp_path / "permission-check-team"
    body = "data/0a1b2c3d-1111-4222-8333-444455556666_output.json.gz"
    names = (
        "stream-1-2026-11-26-10-00-00-0a1b2c",  # of Firehose
        "X.JSON",
        "data/nightly_output.json",
        "permission-check/a.json",
        body,
    )
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lines([make(number)]))
    (tmp_path / "elsewhere").mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / ".hidden.json").touch()
    (root / "readme.md").touch()
    source = open_source(str(root))
    found = [each.request_id for each in read_logs([source], skipped=pytest.fail)]
    assert sorted(found) == [f"r-{number}" for number, name in enumerate(names) if name != body]
    assert source.passed_over == 3


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_a_record_cut_off_anywhere_takes_no_other_with_it(size):
    """Whatever the next record begins with: the keys of JSON have no order."""
    whole = json.dumps(make(1))
    shuffled = json.dumps(dict(reversed(make(2).items())))
    for end in range(1, len(whole), 1 if size > 7 else 23):
        text = f"{whole[:end]}\n{shuffled}\n".encode()
        found = list(Values(text[at : at + size] for at in range(0, len(text), size)))
        assert found[-1] == make(2), whole[:end]
        assert all(isinstance(value, Corrupt) for value in found[:-1])
