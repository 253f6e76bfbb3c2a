"""Floor 2. A mask as a gray PNG: 0 good, anything else bad; written with 255. A keeper of imagecodecs."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from ...defects import DefectMap
from ...errors import UnreadableError
from ...mosaic import Array
from .image import from_image
from .places import Flags, Listed, Sensor, check_shape, untyped

SUFFIX = ".png"
IMAGE = True
MAGIC = b"\x89PNG\r\n\x1a\n"
_GRAY = 0


def keeps(flags: Flags) -> Flags:
    """No types."""
    return untyped(flags)


def load(path: Path) -> Array:
    """The gray samples.

    Raises
    ------
    UnreadableError
        Damaged, or colour, palette, or with an alpha channel.
    """
    import imagecodecs

    data = path.read_bytes()
    if not data.startswith(MAGIC) or len(data) < 33:
        raise UnreadableError(f"{path}: is no PNG")
    width, height, _, kind = struct.unpack_from(">2I2B", data, 16)
    if kind != _GRAY:
        raise UnreadableError(f"{path}: is no plain gray PNG; save the mask as gray, without alpha and palette")
    check_shape(path, (height, width))
    _check_sums(path, data)
    try:
        return np.asarray(imagecodecs.png_decode(data))
    except (imagecodecs.PngError, ValueError, RuntimeError) as error:
        raise UnreadableError(f"{path}: is damaged ({error})") from error


def _check_sums(path: Path, data: bytes) -> None:
    """Every chunk's CRC, which libpng only warns about."""
    place = len(MAGIC)
    while place + 12 <= len(data):
        size = struct.unpack_from(">I", data, place)[0]
        end = place + 8 + size
        if end + 4 > len(data) or zlib.crc32(data[place + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise UnreadableError(f"{path}: is damaged (a chunk's checksum is wrong)")
        place = end + 4


def dump(path: Path, image: Array) -> None:
    """Write uint8 samples."""
    import imagecodecs

    path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(image)))


def write(path: Path, plane: DefectMap, sensor: Sensor) -> list[str]:
    """Write the mask; returns notes."""
    dump(path, plane.bad.astype(np.uint8) * np.uint8(255))
    return []


def read(path: Path, sensor: Sensor, good: bool = False, limit: bool = True) -> Listed:
    """Read a mask; see `fixpix_cli.maps.foreign.read`."""
    return from_image(path, load(path), good=good, limit=limit)
