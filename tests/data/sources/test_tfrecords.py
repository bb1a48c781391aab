"""tfrecords: checksums, framing, and the examples in them, against a writer of the tests' own."""

import struct
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinnema.data.records import BadRecord
from cinnema.data.sources.tfrecords import (
    Span,
    find_records,
    parse_example,
    read_records,
)

PAYLOADS = [b"first", b"", b"a third one, longer than the others"]


def read(content: bytes, **options: Any) -> list[bytes | BadRecord]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "some.tfrecords"
        path.write_bytes(content)
        return list(read_records(path, name="some", **options))


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_records_come_back(tfrecord: Any, payloads: list[bytes]) -> None:
    assert read(b"".join(map(tfrecord.framed, payloads))) == payloads


def test_records_are_found_without_reading_them(tmp_path: Path, tfrecord: Any) -> None:
    content = bytearray(b"".join(map(tfrecord.framed, PAYLOADS)))
    content[12] ^= 1  # in the first payload, which is not looked at
    (tmp_path / "some").write_bytes(content)
    spans = list(find_records(tmp_path / "some", name="some"))
    assert spans == [Span(12, 5), Span(33, 0), Span(49, len(PAYLOADS[2]))]


def test_a_wrong_checksum_of_a_payload_costs_that_record_only(tfrecord: Any) -> None:
    records = [bytearray(tfrecord.framed(payload)) for payload in PAYLOADS]
    records[0][13] ^= 1  # in the payload
    records[1][-1] ^= 1  # in its checksum
    assert read(b"".join(records)) == [
        BadRecord(name="some record 1", reason="its checksum is wrong"),
        BadRecord(name="some record 2", reason="its checksum is wrong"),
        PAYLOADS[2],
    ]


def test_a_wrong_length_costs_the_rest_of_the_file(tfrecord: Any) -> None:
    records = [bytearray(tfrecord.framed(payload)) for payload in PAYLOADS]
    records[1][0] ^= 1
    first, bad = read(b"".join(records), expected=3)
    assert first == PAYLOADS[0]
    assert bad == BadRecord(
        name="some record 2 and all after it", reason="the checksum of its length is wrong"
    )


def test_a_length_beyond_the_file_is_not_believed(tfrecord: Any) -> None:
    length = struct.pack("<Q", 2**63)
    (bad,) = read(length + tfrecord.masked(length) + b"few")
    assert bad.name == "some record 1 and all after it"
    assert f"{2**63 + 1} bytes of it are missing" in bad.reason


def test_missing_records_are_counted(tmp_path: Path, tfrecord: Any) -> None:
    content = b"".join(map(tfrecord.framed, PAYLOADS))
    assert read(content, expected=3) == PAYLOADS
    assert read(content, expected=5)[3:] == [
        BadRecord(name="some records 4 to 5", reason="they are missing: the file ends after 3")
    ]
    assert read(b"", expected=1)[0].name == "some records 1 to 1"  # type: ignore[union-attr]


def test_a_missing_file_is_a_bad_record(tmp_path: Path) -> None:
    (bad,) = read_records(tmp_path / "none", name="none")
    assert bad == BadRecord(name="none", reason="it cannot be read (No such file or directory)")


@given(st.data())
def test_a_file_cut_short_anywhere_keeps_what_is_whole(tfrecord: Any, data: Any) -> None:
    records = [tfrecord.framed(payload) for payload in PAYLOADS]
    content = b"".join(records)
    length = data.draw(st.integers(0, len(content) - 1))
    *whole, bad = read(content[:length], expected=3)
    assert isinstance(bad, BadRecord)
    assert whole == PAYLOADS[: len(whole)]
    assert len(b"".join(records[: len(whole)])) <= length
    assert len(b"".join(records[: len(whole) + 1])) > length


@given(st.data())
def test_no_changed_byte_passes_unnoticed(tfrecord: Any, data: Any) -> None:
    content = bytearray(b"".join(map(tfrecord.framed, PAYLOADS)))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    found = read(bytes(content))
    assert sum(isinstance(record, BadRecord) for record in found) == 1
    for record, payload in zip(found, PAYLOADS, strict=False):
        assert isinstance(record, BadRecord) or record == payload


VALUES = st.one_of(
    st.lists(st.binary(max_size=20), max_size=3),
    st.lists(st.floats(width=32, allow_nan=False), max_size=5).map(lambda v: np.array(v, "f4")),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5).map(lambda v: np.array(v, "i8")),
)


def equal(found: Any, expected: Any) -> bool:
    if isinstance(expected, np.ndarray):
        return found.dtype == expected.dtype and np.array_equal(found, expected)
    return bool(found == expected)


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=4), st.booleans())
def test_an_example_comes_back_packed_or_not(tfrecord: Any, features: Any, packed: Any) -> None:
    found = parse_example(tfrecord.example(features, packed=packed))
    assert found.keys() == features.keys()
    for key, values in features.items():
        assert equal(found[key], values) or (len(values) == 0 and len(found[key]) == 0)


def test_an_example_has_the_bytes_that_protocol_buffers_write() -> None:
    # By hand: "ab" holds the bytes "xyz", "c" the float 1.5, "d" the integers 3, 2^32 - 1, 0.
    payload = bytes.fromhex(
        "0a30"
        "0a0d" "0a026162" "1207" "0a05" "0a0378797a"
        "0a0d" "0a0163" "1208" "1206" "0a040000c03f"
        "0a10" "0a0164" "120b" "1a09" "0a07" "03ffffffff0f00"
    )  # fmt: skip
    found = parse_example(payload)
    assert found["ab"] == [b"xyz"]
    assert equal(found["c"], np.array([1.5], "f4"))
    assert equal(found["d"], np.array([3, 2**32 - 1, 0]))


def test_unknown_fields_are_passed_over(tfrecord: Any) -> None:
    known = tfrecord.example({"a": [b"x"]})
    fixed = b"\x3d1234" + b"\x3912345678" + b"\x38\x05"  # numbers 7 in 4 and 8 bytes and a varint
    assert parse_example(fixed + known + tfrecord.field(9, b"?")) == {"a": [b"x"]}


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"\x0a\x05abc", "longer than what holds it"),
        (b"\x0a", "ends within a number"),
        (b"\xff" * 11, "more than ten bytes"),
        (b"\x0b", "wire type 3"),
        (b"\x08\x01", "a number stands where a message should"),
        (b"\x0a\x0b\x0a\x09\x12\x07\x12\x05\x0a\x03abc", "3 bytes, not a multiple of 4"),
        (b"\x0a\x05\x0a\x03\x0a\x01\xff", "utf-8"),
    ],
)
def test_what_is_no_example_is_a_value_error(payload: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_example(payload)


@given(st.binary(max_size=40), st.data())
def test_damaged_examples_raise_nothing_but_value_errors(
    tfrecord: Any, noise: bytes, data: Any
) -> None:
    features = {"a": [b"xyz"], "b": np.ones(2, "f4"), "c": np.ones(2, "i8")}
    payload = bytearray(tfrecord.example(features, packed=data.draw(st.booleans())))
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    messages: Sequence[bytes] = (noise, bytes(payload), bytes(payload) + noise)
    for message in messages:
        with suppress(ValueError):
            assert isinstance(parse_example(message), dict)
