"""tfrecord files, and the `tf.train.Example` in their records, read from the bytes alone.

A file is a sequence of records: the payload's length (uint64, little-endian), the length's masked
crc32c (uint32), the payload, the payload's masked crc32c. A payload is a protocol buffer: a map
from names to lists of bytes, floats or integers.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, Int64, UInt

from cinnema.data.records import BadRecord

Values: TypeAlias = list[bytes] | Float32[np.ndarray, "n"] | Int64[np.ndarray, "n"]
"""What a feature of an example holds, by its kind."""

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, the lowest bit for the highest power
_ALL_ONES = 0xFFFFFFFF
_MASK = 0xA282EAD8

# x^A + x^B + x^C + 1 is a multiple of Castagnoli's polynomial, and none of four terms has a much
# smaller A. So are its powers by 8 and 64, which over GF(2) have the exponents 8 or 64 times
# larger. Hence a byte, or eight bytes, may be taken out of a message and added (XOR) to those A,
# A - B and A - C places further on without a change of the remainder.
_A, _B, _C = 5321, 3574, 2491

_LENGTH_BYTES, _CRC_BYTES = 8, 4
_HEADER_BYTES = _LENGTH_BYTES + _CRC_BYTES

_VARINT, _FIXED_64, _DELIMITED, _FIXED_32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED_64: 8, _FIXED_32: 4}


@dataclass(frozen=True)
class Span:
    """Where in its file a record's payload lies, in bytes.

    Attributes:
        offset: Of its first byte.
        length: Of the payload.
    """

    offset: int
    length: int


def crc32c(data: bytes) -> int:
    """Return the Castagnoli checksum of `data`, at hundreds of megabytes a second.

    It is the remainder of the message, as a polynomial over GF(2), with the first four bytes
    inverted. Instead of dividing byte by byte, the message is first folded to its last 5321
    bytes by XORs of long arrays.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    state, rest = _ALL_ONES, np.frombuffer(data, np.uint8)
    if len(data) > _A:
        padding = -len(data) % 8  # zeros in front change no remainder
        message = np.zeros(padding + len(data), np.uint8)
        message[padding:] = rest
        message[padding : padding + 4] ^= 0xFF  # what the initial state of all ones does
        state, rest = 0, _fold(_fold(message.view(np.uint64)).view(np.uint8))
    for byte in rest.tobytes():
        state = _TABLE[(state ^ byte) & 0xFF] ^ (state >> 8)
    return state ^ _ALL_ONES


def _fold(words: UInt[np.ndarray, "n"]) -> UInt[np.ndarray, "m"]:
    """Return the at most A last words, changed so that the remainder is that of all of them."""
    num_folded = max(0, len(words) - _A)
    step = _A - _B  # so many words at once do not reach each other
    for start in range(0, num_folded, step):
        folded = words[start : min(start + step, num_folded)]
        for distance in (_A - _B, _A - _C, _A):
            words[start + distance : start + distance + len(folded)] ^= folded
    return words[num_folded:]


def _remainder_of(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = [_remainder_of(byte) for byte in range(256)]


def _masked_crc32c(data: bytes) -> int:
    """Rotated and shifted, so that a checksum of data that holds checksums is no special case."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + _MASK) & _ALL_ONES


def find_records(path: Path, *, name: str) -> Iterator[Span | BadRecord]:
    """Find the records of a file by their headers alone; no payload is read.

    Args:
        path: The file.
        name: What to call it in a `BadRecord`.

    Yields:
        Where each record is. A `BadRecord` is the last: behind a damaged header, or where the file
        is cut short, no further record can be found.

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
    """Return what is wrong with a record's header, given how many bytes the file still has."""
    if len(header) < _HEADER_BYTES:
        return "the file is cut short in a record's header"
    length, crc = struct.unpack("<QI", header)
    if _masked_crc32c(header[:_LENGTH_BYTES]) != crc:
        return "the checksum of its length is wrong"
    if _HEADER_BYTES + length + _CRC_BYTES > available:
        missing = _HEADER_BYTES + length + _CRC_BYTES - available
        return f"the file is cut short: {missing} bytes of it are missing"
    return None


def read_records(
    path: Path, *, name: str, expected: int | None = None
) -> Iterator[bytes | BadRecord]:
    """Read the payloads of a file, one at a time, and check both checksums of each.

    Args:
        path: The file.
        name: What to call it in a `BadRecord`; records are counted from 1.
        expected: How many records there should be at least; None takes any number.

    Yields:
        Each payload, or a `BadRecord` in its place: where only the payload's checksum is wrong,
        reading goes on behind it. A `BadRecord` for all that is missing is the last.
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

    Lists of numbers may be packed or not; fields that an example does not have are passed over; of
    a feature that is there twice the last counts.

    Args:
        payload: The serialised message.

    Returns:
        The features by name.

    Raises:
        ValueError: It is no protocol buffer, or one of another kind; a clause says how.
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
        raise ValueError(f"a list of floats has {len(packed)} bytes, no multiple of 4")
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
            raise ValueError(f"it is no example: it has a field of wire type {wire_type}")
        if length > len(message) - at:
            raise ValueError("it is no example: a field is longer than what holds it")
        yield number, message[at : at + length]
        at += length


def _message(content: memoryview | int) -> memoryview:
    if isinstance(content, int):
        raise ValueError("it is no example: a number stands where a message should")  # noqa: TRY004
    return content


def _varints(packed: memoryview) -> list[int]:
    values, at = [], 0
    while at < len(packed):
        value, at = _varint(packed, at)
        values.append(value)
    return values


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the number at a place, seven bits a byte, lowest first, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("it is no example: it ends within a number")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise ValueError("it is no example: a number has more than ten bytes")
