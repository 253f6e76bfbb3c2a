"""Floor 2. Fit2D's ``.msk`` masks, as pyFAI and fabio read them: 1 = masked.

1024 bytes of header: 'M', 'A', 'S', 'K' at 0, 4, 8, 12, width at 16, height at 20
(int32, little endian), 1 at 24. Then the rows from the first stored one, one bit
per pixel, the lowest bit first, padded to 32 pixels (fabio, fit2dmaskimage.py).
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from ...defects import DefectMap
from ...errors import UnreadableError
from .image import from_image
from .places import Flags, Listed, Sensor, check_shape, untyped

SUFFIX = ".msk"
IMAGE = True
MAGIC = b"M\0\0\0A\0\0\0S\0\0\0K\0\0\0"
_HEADER = 1024


def keeps(flags: Flags) -> Flags:
    """No types."""
    return untyped(flags)


def write(path: Path, plane: DefectMap, sensor: Sensor) -> list[str]:
    """Write the mask; returns notes."""
    height, width = plane.shape
    padded = np.zeros((height, -(-width // 32) * 32), bool)
    padded[:, :width] = plane.bad
    header = MAGIC + struct.pack("<3i", width, height, 1)
    path.write_bytes(header.ljust(_HEADER, b"\0") + np.packbits(padded, axis=1, bitorder="little").tobytes())
    return []


def read(path: Path, sensor: Sensor, good: bool = False, limit: bool = True) -> Listed:
    """Read a mask; see `fixpix_cli.maps.foreign.read`."""
    data = path.read_bytes()
    if not data.startswith(MAGIC) or len(data) < _HEADER:
        raise UnreadableError(f"{path}: is no Fit2D mask")
    width, height = struct.unpack_from("<2i", data, 16)
    check_shape(path, (height, width))
    stride = -(-width // 32) * 4
    if len(data) < _HEADER + stride * height:
        raise UnreadableError(f"{path}: is cut off: its header promises {height} x {width} pixels")
    rows = np.frombuffer(data, np.uint8, stride * height, _HEADER).reshape(height, stride)
    image = np.unpackbits(rows, axis=1, count=width, bitorder="little")
    return from_image(path, image, good=good, limit=limit)
