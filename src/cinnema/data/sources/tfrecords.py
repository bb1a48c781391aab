"""tfrecord files, and the `tf.train.Example` in their records, read without TensorFlow.

A file is a sequence of records: the payload's length (uint64, little-endian), the length's masked
crc32c (uint32), the payload, the payload's masked crc32c. A payload is a protocol buffer: a map
from names to lists of bytes, floats or integers.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import google_crc32c
import numpy as np
from jaxtyping import Float32, Int64

from cinnema.data.records import BadRecord

Values: TypeAlias = list[bytes] | Float32[np.ndarray, "n"] | Int64[np.ndarray, "n"]
"""Values of a feature of an example, by kind."""

_MASK = 0xA282EAD8
_LENGTH_BYTES, _CRC_BYTES = 8, 4
_HEADER_BYTES = _LENGTH_BYTES + _CRC_BYTES

_VARINT, _FIXED_64, _DELIMITED, _FIXED_32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED_64: 8, _FIXED_32: 4}


@dataclass(frozen=True)
class Span:
    """Position of a record's payload in its file.

    Attributes:
        offset: Position of its first byte.
        length: Number of bytes.
    """

    offset: int
    length: int


def _masked_crc32c(data: bytes) -> int:
    """Return the checksum, rotated and shifted, so that data may contain checksums themselves."""
    crc: int = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFF_FFFF


def find_records(path: Path, *, name: str) -> Iterator[Span | BadRecord]:
    """Find the records of a file by their headers; no payload is read.

    Args:
        path: The file.
        name: Name of the file in a `BadRecord`.

    Yields:
        The position of each record. A `BadRecord` is the last: after a damaged header, or where
        the file is truncated, no further record can be found.

    Raises:
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        offset, number = 0, 1
        while offset < size:
            file.seek(offset)
            header = file.read(_HEADER_BYTES)
            damage = _header_damage(header, size - offset)
            if damage:
                yield BadRecord(name=f"{name} record {number} and all after it", reason=damage)
                return
            (length,) = struct.unpack_from("<Q", header)
            yield Span(offset + _HEADER_BYTES, length)
            offset += _HEADER_BYTES + length + _CRC_BYTES
            number += 1


def _header_damage(header: bytes, available: int) -> str | None:
    """Return the damage of a record's header, or None, given the bytes left in the file."""
    if len(header) < _HEADER_BYTES:
        return "the file is truncated in a record's header"
    length, crc = struct.unpack("<QI", header)
    if _masked_crc32c(header[:_LENGTH_BYTES]) != crc:
        return "the checksum of its length is wrong"
    if _HEADER_BYTES + length + _CRC_BYTES > available:
        missing = _HEADER_BYTES + length + _CRC_BYTES - available
        return f"the file is truncated: {missing} bytes of it are missing"
    return None


def read_records(
    path: Path, *, name: str, expected: int | None = None
) -> Iterator[bytes | BadRecord]:
    """Read the payloads of a file one at a time and verify both checksums of each.

    Args:
        path: The file.
        name: Name of the file in a `BadRecord`; records are counted from 1.
        expected: Smallest expected number of records; None accepts any number.

    Yields:
        Each payload, or a `BadRecord` in its place. If only the payload's checksum is wrong,
        reading continues after it. A `BadRecord` for all missing records is the last.
    """
    number = 0
    try:
        with path.open("rb") as file:
            for number, span in enumerate(find_records(path, name=name), start=1):
                if isinstance(span, BadRecord):
                    yield span
                    return
                file.seek(span.offset)
                yield _checked(file.read(span.length + _CRC_BYTES), f"{name} record {number}")
    except OSError as error:
        yield BadRecord(name=name, reason=f"it cannot be read ({error.strerror})")
        return
    if expected is not None and number < expected:
        yield BadRecord(
            name=f"{name} records {number + 1} to {expected}",
            reason=f"they are missing: the file ends after {number}",
        )


def _checked(record: bytes, name: str) -> bytes | BadRecord:
    payload, crc = record[:-_CRC_BYTES], record[-_CRC_BYTES:]
    if len(crc) < _CRC_BYTES or _masked_crc32c(payload) != struct.unpack("<I", crc)[0]:
        return BadRecord(name=name, reason="its checksum is wrong")
    return payload


def parse_example(payload: bytes) -> dict[str, Values]:
    """Parse a `tf.train.Example`.

    Lists of numbers may be packed or not. Unknown fields are ignored; if a feature occurs twice,
    the last one counts.

    Args:
        payload: The serialised message.

    Returns:
        The features by name.

    Raises:
        ValueError: The payload is not a protocol buffer, or not an example; the message states the
            reason.
    """
    features: dict[str, Values] = {}
    for number, content in _fields(memoryview(payload)):
        if number != 1:
            continue
        for entry_number, entry in _fields(_message(content)):
            if entry_number == 1:
                key, feature = _parse_entry(_message(entry))
                features[key] = _parse_feature(feature)
    return features


def _parse_entry(entry: memoryview) -> tuple[str, memoryview]:
    key, feature = b"", memoryview(b"")
    for number, content in _fields(entry):
        if number == 1:
            key = bytes(_message(content))
        elif number == 2:
            feature = _message(content)
    return key.decode("utf-8"), feature


def _parse_feature(feature: memoryview) -> Values:
    values: Values = []
    for number, content in _fields(feature):
        if number in _PARSERS:
            values = _PARSERS[number](_message(content))
    return values


def _parse_bytes(message: memoryview) -> list[bytes]:
    return [bytes(_message(content)) for number, content in _fields(message) if number == 1]


def _parse_floats(message: memoryview) -> Float32[np.ndarray, "n"]:
    packed = b"".join(_message(content) for number, content in _fields(message) if number == 1)
    if len(packed) % 4:
        raise ValueError(f"a list of floats has {len(packed)} bytes, not a multiple of 4")
    return np.frombuffer(packed, "<f4").astype(np.float32)


def _parse_integers(message: memoryview) -> Int64[np.ndarray, "n"]:
    values: list[int] = []
    for number, content in _fields(message):
        if number == 1:
            values += [content] if isinstance(content, int) else _varints(content)
    return np.array(values, dtype=np.uint64).view(np.int64)


_PARSERS: dict[int, Callable[[memoryview], Values]] = {
    1: _parse_bytes,
    2: _parse_floats,
    3: _parse_integers,
}


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yield number and content of each field: an int for a varint, else its bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire_type == _DELIMITED:
            length, at = _varint(message, at)
        elif wire_type in _FIXED_BYTES:
            length = _FIXED_BYTES[wire_type]
        else:
            raise ValueError(f"it is not an example: it has a field of wire type {wire_type}")
        if length > len(message) - at:
            raise ValueError("it is not an example: a field is longer than what holds it")
        yield number, message[at : at + length]
        at += length


def _message(content: memoryview | int) -> memoryview:
    if isinstance(content, int):
        raise ValueError("it is not an example: a number stands where a message should")  # noqa: TRY004
    return content


def _varints(packed: memoryview) -> list[int]:
    values, at = [], 0
    while at < len(packed):
        value, at = _varint(packed, at)
        values.append(value)
    return values


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the number at a position, seven bits per byte, lowest first, and the next position."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("it is not an example: it ends within a number")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise ValueError("it is not an example: a number has more than ten bytes")
