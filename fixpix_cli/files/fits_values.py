"""Floor 2. FITS values: from the stored numbers of a file to samples in DN, and back.

Unsigned integers by BZERO become unsigned samples. Integers with any other
BZERO and BSCALE stay the codes that the file stores, since only codes can be
written back exactly; black and white are then turned into codes. Integers of
which some are BLANK become floats with NaN there, as float images have it.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RefusedError, UnreadableError
from ..mosaic import Array
from . import fits_cards

STORED = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
#: Bytes between two values that are written as one piece, and of the longest piece.
_NEAR, _PIECE = 4096, 1 << 20
_OFFSETS = {(8, -128): np.int8, (16, 32768): np.uint16, (32, 2147483648): np.uint32}


@dataclass(frozen=True)
class Layout:
    """How a plane's values are stored.

    Parameters
    ----------
    offset : int
        Of the plane's first value in the unpacked file, in bytes; -1 in compressed tiles.
    stored : str
        dtype in the file.
    zero : int
        BZERO of the unsigned convention, else 0.
    blank : int or None
        The code of missing pixels, where the header names one.
    """

    offset: int
    stored: str
    zero: int
    blank: int | None = None


@dataclass(frozen=True)
class Scale:
    """DN = zero + step x code: (0, 1) wherever the samples are DN already."""

    zero: float = 0.0
    step: float = 1.0

    def code(self, value: float) -> float:
        """The code of a value in DN."""
        return (value - self.zero) / self.step

    def value(self, code: float) -> float:
        """The value in DN of a code."""
        return self.zero + self.step * code


def scaling(path: Path, header: Any) -> tuple[int, Scale]:
    """BZERO of the unsigned conventions (else 0), and the scale of the samples.

    Raises
    ------
    RefusedError
        A scale that turns dark into bright, or a 64-bit offset that floats cannot follow.
    UnreadableError
        BZERO or BSCALE are no numbers.
    """
    bitpix = header["BITPIX"]
    try:
        zero, step = float(header.get("BZERO", 0)), float(header.get("BSCALE", 1))
    except (TypeError, ValueError):
        raise UnreadableError(f"{path}: its BZERO or BSCALE is not a number") from None
    if not (np.isfinite(zero) and np.isfinite(step)):
        raise UnreadableError(f"{path}: its BZERO or BSCALE is not a number")
    if (zero, step) == (0.0, 1.0):
        return 0, Scale()
    if step == 1 and zero.is_integer() and (bitpix, int(zero)) in _OFFSETS:
        return int(zero), Scale()
    if step <= 0 or (bitpix == 64 and abs(zero) > 2.0**53 * step):
        raise RefusedError(
            f"{path}: pixels scaled by BSCALE = {step:g}, BZERO = {zero:g} are not handled; convert the file first"
        )
    return 0, Scale(zero, step)


def to_samples(values: Array, bitpix: int, layout: Layout) -> Array:
    """(H, W) samples in DN, or in codes where they are scaled, from stored values of either byte order."""
    same = np.asarray(values.astype(values.dtype.newbyteorder("="), copy=False))
    samples = same
    if layout.zero:
        turn = same.dtype.type(0x80 if bitpix == 8 else -layout.zero)
        mine = None if layout.blank is not None or np.may_share_memory(same, values) else same
        samples = np.bitwise_xor(same, turn, out=mine).view(_OFFSETS[bitpix, layout.zero])
    if layout.blank is None or same.dtype.kind not in "iu":
        return np.asarray(samples)
    missing = same == layout.blank
    if not missing.any():
        return np.asarray(samples)
    floats = samples.astype(np.float32 if samples.dtype.itemsize <= 2 else np.float64)
    floats[missing] = np.nan
    return floats


def to_store(values: Array, layout: Layout) -> Array:
    """Values in the type and byte order of the file."""
    stored = np.dtype(layout.stored)
    if values.dtype.kind == "f" and stored.kind in "iu":
        return _with_blanks(values, layout, stored)
    if not layout.zero:
        return values.astype(stored)
    if stored.itemsize == 1:
        return values.view(np.uint8) ^ np.uint8(0x80)
    signed = values.view(stored.newbyteorder("="))
    return (signed ^ signed.dtype.type(-layout.zero)).astype(stored)


def _with_blanks(values: Array, layout: Layout, stored: np.dtype[Any]) -> Array:
    """Floats as codes: rounded, NaN as BLANK, and nothing else as BLANK."""
    range_, blank = np.iinfo(stored), layout.blank
    if blank is None:
        raise ValueError("floats for an image of integers without BLANK")
    missing = ~np.isfinite(values)
    codes = np.rint(np.where(missing, 0, values.astype(np.float64))) - layout.zero
    codes = np.clip(codes, range_.min, range_.max)
    codes[codes == blank] += 1 if blank < range_.max else -1
    codes[missing] = blank
    return codes.astype(stored)


def put(stream: Any, start: int, flat: Array, stored: Array, summed: bool) -> tuple[int, int]:
    """Write values of the file's type to their places, numbers of values from byte `start` on, rising.

    Those that lie close together are written as one piece. With `summed` the sums of the pieces' words as they were
    and as they are come back; words that did not change are in both.
    """
    size = stored.itemsize
    begin = flat * size
    cuts = np.flatnonzero((np.diff(begin) > _NEAR) | (np.diff(begin // _PIECE) != 0)) + 1
    first, last = np.append(0, cuts), np.append(cuts, len(flat)) - 1
    alone = (flat[last] - flat[first] == last - first) & (not summed)
    low = np.where(alone, begin[first], begin[first] // 4 * 4)
    high = np.where(alone, begin[last] + size, -(-(begin[last] + size) // 4) * 4)
    raw, before, after = stored.tobytes(), 0, 0
    for a, b, left, right, whole in zip(*(each.tolist() for each in (first, last, low, high, alone)), strict=True):
        if whole:
            piece: bytes | bytearray = raw[a * size : (b + 1) * size]
        else:
            stream.seek(start + left)
            piece = bytearray(stream.read(right - left))
            before = fits_cards.ones_complement(piece, before) if summed else 0
            bytes_of = np.frombuffer(piece, np.uint8)
            where = (begin[a : b + 1] - left)[:, None] + np.arange(size)
            bytes_of[where] = stored[a : b + 1].view(np.uint8).reshape(-1, size)
            after = fits_cards.ones_complement(piece, after) if summed else 0
        stream.seek(start + left)
        if stream.write(piece) != len(piece):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return before, after
