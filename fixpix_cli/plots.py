"""Floor 4. Pictures of maps, as PNG, without a plotting library."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import safe
from .defects import DQ, DefectMap
from .mosaic import Array

#: Colours of the types, the most important last: in a picture's pixel it covers the others.
COLOURS: tuple[tuple[DQ, tuple[int, int, int]], ...] = (
    (DQ.DO_NOT_USE, (200, 200, 200)),
    (DQ.OTHER_BAD_PIXEL, (90, 200, 90)),
    (DQ.LOW_QE, (80, 200, 255)),
    (DQ.WARM, (255, 160, 40)),
    (DQ.TELEGRAPH, (255, 80, 255)),
    (DQ.HOT, (255, 60, 50)),
    (DQ.SATURATED, (255, 255, 255)),
    (DQ.DEAD, (70, 110, 255)),
)
_GROUND, _GAP = (24, 24, 28), 8


def picture(planes: Sequence[DefectMap], longest: int = 1600) -> Array:
    """A map as a picture: (h, w, 3) uint8 RGB, the planes side by side.

    A frame larger than `longest` pixels is shown smaller: each pixel of the picture stands for a square of
    the frame and takes the colour of the most important defect in it, so that no single defect gets lost.
    """
    images = []
    for plane in planes:
        height, width = plane.shape
        step = -(-max(height, width) // longest)
        image = np.empty((-(-height // step), -(-width // step), 3), np.uint8)
        image[:] = _GROUND
        pixels = plane.bad_pixels
        rows, cols = np.divmod(pixels, width)
        flags = plane.at(pixels)
        for flag, colour in COLOURS:
            chosen = (flags & np.int32(flag)) != 0
            image[rows[chosen] // step, cols[chosen] // step] = colour
        images.append(image)
    if len(images) == 1:
        return images[0]
    tall = max(image.shape[0] for image in images)
    wide = sum(image.shape[1] for image in images) + _GAP * (len(images) - 1)
    sheet, left = np.zeros((tall, wide, 3), np.uint8), 0
    for image in images:
        sheet[: image.shape[0], left : left + image.shape[1]] = image
        left += image.shape[1] + _GAP
    return sheet


def write_png(path: Path, image: Array, *, overwrite: bool = False) -> None:
    """Write (h, w, 3) uint8 RGB as a PNG (W3C PNG, third edition: 8 bits, colour type 2, no filter).

    Raises
    ------
    OutputExistsError, OutputFolderError, FrameError
        See `fixpix_cli.safe.replacing`.
    """
    height, width = image.shape[:2]
    lines = np.zeros((height, 1 + 3 * width), np.uint8)
    lines[:, 1:] = image.reshape(height, -1)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines.tobytes(), 6)),
        (b"IEND", b""),
    )
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    with safe.replacing(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(data)
