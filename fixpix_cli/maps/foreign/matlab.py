"""Floor 2. A mask as a MATLAB matrix: ``.mat`` of version 5 (``save -v6`` or ``-v7``), 0 good, anything else bad.

128 bytes of header, then elements of type, size and data, padded to 8 bytes, in
the byte order that ``IM`` or ``MI`` tells; compressed ones are zlib streams. A
matrix holds its class, dimensions, name and values, column by column (MathWorks,
MAT-File Format). Matrices other than one real numeric one of two dimensions are
refused by name.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...defects import DefectMap
from ...errors import UnreadableError
from ...mosaic import Array
from .image import from_image
from .places import MOST_PIXELS, Flags, Listed, Sensor, check_shape, untyped

SUFFIX = ".mat"
IMAGE = True
MAGIC = b"MATLAB "
_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_UINT8, _INT8, _INT32, _UINT32 = 2, 1, 5, 6
#: Numeric classes double, single, int8 to uint64.
_NUMERIC = range(6, 16)
_COMPLEX, _LOGICAL = 0x800, 0x200
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NAME = b"DefectivePixels"


def keeps(flags: Flags) -> Flags:
    """No types."""
    return untyped(flags)


def _element(kind: int, data: bytes) -> bytes:
    return struct.pack("<2I", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def write(path: Path, plane: DefectMap, sensor: Sensor) -> list[str]:
    """Write a logical matrix named DefectivePixels; returns notes."""
    matrix = b"".join(
        (
            _element(_UINT32, struct.pack("<2I", 9 | _LOGICAL, 0)),
            _element(_INT32, struct.pack("<2i", *plane.shape)),
            _element(_INT8, _NAME),
            _element(_UINT8, plane.bad.astype(np.uint8).tobytes(order="F")),
        )
    )
    header = b"MATLAB 5.0 MAT-file, by fixpix".ljust(124) + b"\x00\x01IM"
    path.write_bytes(header + _element(_MATRIX, matrix))
    return []


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, data) of each element; ValueError where it is cut off."""
    place = 0
    while place + 8 <= len(data):
        first, size = struct.unpack_from(f"{order}2I", data, place)
        if first >> 16:  # a small element: the size lies in the upper half of the type
            yield first & 0xFFFF, data[place + 4 : place + 4 + (first >> 16)]
            place += 8
            continue
        if place + 8 + size > len(data):
            raise ValueError("it is cut off")
        yield first, data[place + 8 : place + 8 + size]
        place += 8 + size + (0 if first == _COMPRESSED else -size % 8)


def _matrix(data: bytes, order: str) -> tuple[str, Array | None]:
    """Name and values of a matrix; None where they are not real numbers in two dimensions."""
    parts = list(_elements(data, order))
    if len(parts) < 3:
        raise ValueError("a matrix of it is cut off")
    flags = struct.unpack_from(f"{order}I", parts[0][1])[0]
    dims = np.frombuffer(parts[1][1], f"{order}i4")
    name = parts[2][1].decode("latin-1")
    if flags & 0xFF not in _NUMERIC or flags & _COMPLEX or len(dims) != 2 or len(parts) < 4:
        return name, None
    kind, values = parts[3]
    if kind not in _TYPES:
        raise ValueError(f"the values of {name} have the unknown type {kind}")
    array = np.frombuffer(values, order + _TYPES[kind])
    if array.size != int(dims[0]) * int(dims[1]):
        raise ValueError(f"{name} holds {array.size} values for {dims[0]} x {dims[1]}")
    return name, array.reshape((int(dims[0]), int(dims[1])), order="F")


def load(path: Path) -> Array:
    """The only matrix of two dimensions.

    Raises
    ------
    UnreadableError
        Damaged, of another version, or not one such matrix.
    """
    data = path.read_bytes()
    if not data.startswith(MAGIC) or len(data) < _HEADER or data[126:128] not in (b"IM", b"MI"):
        raise UnreadableError(f"{path}: is no MATLAB file of version 5")
    order = "<" if data[126:128] == b"IM" else ">"
    if struct.unpack_from(f"{order}H", data, 124)[0] != 0x0100:
        raise UnreadableError(f"{path}: is no MATLAB file of version 5; save it with -v7")
    found: dict[str, Array | None] = {}
    try:
        for kind, part in _elements(data[_HEADER:], order):
            if kind == _COMPRESSED:
                inflate = zlib.decompressobj()
                part = inflate.decompress(part, 8 * MOST_PIXELS)
                if not inflate.eof:
                    raise ValueError("a compressed part is cut off, or larger than any sensor's map")
                kind, part = next(_elements(part, order))
            if kind == _MATRIX:
                name, array = _matrix(part, order)
                found[name] = array
    except (ValueError, struct.error, zlib.error, StopIteration, TypeError, OverflowError) as error:
        raise UnreadableError(f"{path}: is damaged ({str(error) or type(error).__name__})") from error
    masks = [array for array in found.values() if array is not None]
    if len(masks) != 1:
        names = ", ".join(list(found)[:8]) or "nothing"
        raise UnreadableError(f"{path}: must hold one matrix of two dimensions, has {names}")
    check_shape(path, (masks[0].shape[0], masks[0].shape[1]))
    return masks[0]


def read(path: Path, sensor: Sensor, good: bool = False, limit: bool = True) -> Listed:
    """Read a mask; see `fixpix_cli.maps.foreign.read`."""
    return from_image(path, load(path), good=good, limit=limit)
