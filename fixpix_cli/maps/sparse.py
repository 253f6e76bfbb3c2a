"""Floor 2. Masks and maps with few bad pixels, read without astropy and without the pixels between them.

A DQ image of 24 megapixels is 96 MB, of which a mask of 2,400 pixels sets 10 kB; RICE_1 stores a block of 32 equal
pixels as five zero bits, so that runs of zeros in the file are runs of good pixels, and only what lies between them
is decoded (R. L. White, P. Greenfield, ADASS 1999; FITS standard 4.0, section 10.4.1). What is not laid out as
`fitsmap.write_mask` does it, or has more than `_MOST_BLOCKS` blocks with bad pixels, is astropy's.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .. import fitsheader
from ..defects import DefectMap
from ..mosaic import Array

#: More blocks than this take longer here than astropy takes for the whole image.
_MOST_BLOCKS = 20_000
#: RICE_1 of 4-byte integers: pixels of a block, bits of its code, the code of a block that is not compressed.
_BLOCK, _CODE, _PLAIN = 32, 5, 26


def is_listed(path: Path) -> bool:
    """True for a mask or map that is read here."""
    try:
        return path.is_file() and read(path) is not None
    except OSError:
        return False


def read(path: Path) -> tuple[Mapping[str, Any], list[DefectMap]] | None:
    """The primary header and the planes of all DQ extensions of a mask or map; None: ask astropy.

    The last file that was read is remembered: the frames of a run often share their map.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    status = path.stat()
    return _read(path, status.st_mtime_ns, status.st_size, status.st_ino)


@lru_cache(maxsize=1)
def _read(path: Path, *_: int) -> tuple[Mapping[str, Any], list[DefectMap]] | None:
    hdus = fitsheader.read(path, tables=True)
    if hdus is None:
        return None
    planes: list[DefectMap] = []
    with open(path, "rb") as stream:
        for hdu in hdus:
            if hdu.name != "DQ":
                continue
            stream.seek(hdu.data)
            found = _planes(hdu.header, stream.read(hdu.span))
            if found is None:
                return None
            planes += found
    return hdus[0].header, planes


#: What the header of such a DQ extension says, besides sizes.
_LAID_OUT = {
    "ZIMAGE": True,
    "ZCMPTYPE": "RICE_1",
    "ZBITPIX": 32,
    "NAXIS1": 8,
    "TFIELDS": 1,
    "TTYPE1": "COMPRESSED_DATA",
    "ZNAME1": "BLOCKSIZE",
    "ZVAL1": _BLOCK,
    "ZNAME2": "BYTEPIX",
    "ZVAL2": 4,
}


def _planes(header: Mapping[str, Any], data: bytes) -> list[DefectMap] | None:
    axes = header.get("ZNAXIS")
    if any(header.get(key) != value for key, value in _LAID_OUT.items()) or axes not in (2, 3):
        return None
    if not str(header.get("TFORM1", "")).startswith("1PB") or any(
        key in header for key in ("ZBLANK", "ZSCALE", "ZZERO", "BZERO", "BSCALE", "THEAP", "ZQUANTIZ")
    ):
        return None
    sizes = [header.get(f"{name}{n}", 1) for name in ("ZNAXIS", "ZTILE") for n in (1, 2, 3)]
    if any(type(size) is not int or size < 1 for size in sizes):
        return None
    width, height, depth, across, down, deep = sizes
    bands = -(-height // down)
    count = header["NAXIS2"]
    if across != width or deep != 1 or count != bands * depth or len(data) < 8 * count:
        return None  # tiles of whole rows only
    heap, most = data[8 * count :], [_MOST_BLOCKS]
    planes: list[DefectMap] = []
    for layer in range(depth):
        places, flags = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
        for band in range(bands):
            size, start = struct.unpack_from(">II", data, 8 * (layer * bands + band))
            pixels = min(down, height - band * down) * width
            found = _tile(heap[start : start + size], pixels, most) if start + size <= len(heap) else None
            if found is None:
                return None
            places.append(found[0] + band * down * width)
            flags.append(found[1])
        planes.append(DefectMap.listed((height, width), np.concatenate(places), np.concatenate(flags)))
    return planes


def _tile(data: bytes, pixels: int, most: list[int]) -> tuple[Array, Array] | None:
    """Numbers and values of the pixels of one tile that are not 0; None where it holds too much or is damaged.

    A run of pixels of one value other than 0 that is longer than a block is too much, too. `most` counts down the
    blocks that may be decoded.
    """
    if len(data) < 4:
        return None
    value = struct.unpack_from(">i", data)[0]
    bits = np.unpackbits(np.frombuffer(data, np.uint8, offset=4))
    end = len(bits)
    where = np.flatnonzero(bits.view(bool))
    ones = [*where.tolist(), end]
    gaps = [*np.flatnonzero(np.diff(where) > 1).tolist(), end]
    here, pixel, one = 0, 0, 0  # the bit, the pixel, and the first of `ones` at or behind the bit
    places: list[int] = []
    values: list[int] = []
    while pixel < pixels:
        blocks = min((ones[one] - here) // _CODE, -(-(pixels - pixel) // _BLOCK))
        if blocks:
            if value:
                return None
            here, pixel = here + _CODE * blocks, pixel + _BLOCK * blocks
            continue
        most[0] -= 1
        if most[0] < 0 or here + _CODE > end:
            return None
        here += _CODE
        code = 0
        while ones[one] < here:
            code |= 1 << (here - 1 - ones[one])
            one += 1
        count = min(_BLOCK, pixels - pixel)
        if code == _PLAIN:
            stop = here + 32 * count
            if stop > end:
                return None
            mapped = np.packbits(bits[here:stop]).view(">u4").tolist()
            steps = [(number, step) for number, step in enumerate(mapped) if step]
        else:
            if code == 1:
                steps, stop = _unary(ones, gaps, one, here, count)
            else:
                steps, stop = _split(data, ones, one, here, count, code - 1)
            if stop > end:
                return None
        one = bisect_left(ones, stop, one)
        here, since = stop, pixel
        for number, step in (*steps, (count, 0)):
            if value:
                places += range(since, pixel + number)
                values += [value] * (pixel + number - since)
            since = pixel + number
            value += ~(step >> 1) if step & 1 else step >> 1
            if not -(1 << 31) <= value < 1 << 31:  # differences run over, as in C
                value = (value + (1 << 31)) % (1 << 32) - (1 << 31)
        pixel += count
    return np.array(places, np.int64), np.array(values, np.int32)


def _unary(ones: list[int], gaps: list[int], one: int, here: int, count: int) -> tuple[list[tuple[int, int]], int]:
    """As `_split` does, where no bits follow a one: what lies between two ones is a difference.

    `gaps` are the numbers of those of `ones` behind which zeros follow, and a last one that is never reached.
    """
    if one + count >= len(ones):
        return [], ones[-1] + 1
    steps = [(0, ones[one] - here)] if ones[one] > here else []
    near = bisect_left(gaps, one)
    while (gap := gaps[near]) < one + count - 1:
        steps.append((gap + 1 - one, ones[gap + 1] - ones[gap] - 1))
        near += 1
    return steps, ones[one + count - 1] + 1


def _split(
    data: bytes, ones: list[int], one: int, here: int, count: int, low: int
) -> tuple[list[tuple[int, int]], int]:
    """The mapped differences of a block that are not 0, with their numbers; and the bit behind the block.

    Each of `count` differences is a run of zeros ended by a one, then `low` bits: that of equal pixels a one and `low`
    zeros. As one long number such a run differs from the block for the first time where the next pixel does. A block
    that is cut off ends behind the last of `ones`, which stands for the end of the bits.
    """
    steps: list[tuple[int, int]] = []
    size, place = low + 1, 0
    while place < count:
        length = (count - place) * size
        differs = _number(data, here, length) ^ _equal(count - place, size)
        same = (length - differs.bit_length()) // size
        place, here = place + same, here + same * size
        if place == count:
            break
        one = bisect_left(ones, here, one)
        if one >= len(ones) - 1:
            return steps, ones[-1] + 1
        top = ones[one]
        steps.append((place, (top - here) << low | _number(data, top + 1, low)))
        place, here = place + 1, top + 1 + low
    return steps, here


def _number(data: bytes, start: int, length: int) -> int:
    """`length` bits from bit `start` on, behind the tile's first 4 bytes; behind their end they are zeros."""
    first, stop = 4 + (start >> 3), 4 + (start + length + 7 >> 3)
    word = int.from_bytes(data[first:stop], "big")
    if stop > len(data):
        word <<= 8 * (stop - max(first, len(data)))
    return word >> 8 * (stop - 4) - start - length & (1 << length) - 1


@lru_cache(maxsize=1024)
def _equal(count: int, size: int) -> int:
    """The bits of a run of equal pixels: so many times a one and size - 1 zeros."""
    return int(("1" + "0" * (size - 1)) * count, 2)
