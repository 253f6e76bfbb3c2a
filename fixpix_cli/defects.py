"""Floor 1. What is wrong with a pixel, in the data-quality bits of JWST.

Bit values and names: stdatamodels ``dqflags.py`` (STScI). A pixel is bad if and
only if DO_NOT_USE is set; fixpix sets no other bit without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

import numpy as np
import numpy.typing as npt

from .mosaic import Array, Bool


class DQ(IntFlag):
    """The JWST bits that fixpix writes."""

    DO_NOT_USE = 1 << 0
    SATURATED = 1 << 1
    DEAD = 1 << 10
    HOT = 1 << 11
    WARM = 1 << 12
    LOW_QE = 1 << 13
    TELEGRAPH = 1 << 15
    OTHER_BAD_PIXEL = 1 << 30


DESCRIPTIONS: dict[DQ, str] = {
    DQ.DO_NOT_USE: "Bad pixel, do not use",
    DQ.SATURATED: "Always saturated",
    DQ.DEAD: "Does not respond, stays at the black level",
    DQ.HOT: "High dark signal",
    DQ.WARM: "Raised dark signal",
    DQ.LOW_QE: "Low response",
    DQ.TELEGRAPH: "Switches between levels (random telegraph signal)",
    DQ.OTHER_BAD_PIXEL: "Bad in another way",
}

TYPES = tuple(flag for flag in DESCRIPTIONS if flag is not DQ.DO_NOT_USE)


#: Of so many pixels one at most may have flags for a mask to be kept as a list: a listed pixel takes three times the
#: room of one in the image.
_FEW = 16


@dataclass(frozen=True, eq=False)
class DefectMap:
    """Flags of every pixel of one plane.

    Parameters
    ----------
    dq : (H, W) int32 array of DQ bits
        In the stored frame's shape and row order.
    """

    dq: npt.NDArray[np.int32]

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> DefectMap:
        return cls.listed(shape, np.empty(0, np.int64), np.empty(0, np.int32))

    @classmethod
    def listed(cls, shape: tuple[int, int], pixels: Array, flags: Array) -> DefectMap:
        """Of a list of pixels; see `ListedMap`."""
        return ListedMap(shape, pixels.astype(np.int64, copy=False), flags.astype(np.int32, copy=False))

    @classmethod
    def of(cls, bad: Bool, kind: DQ = DQ.DO_NOT_USE) -> DefectMap:
        """Flag the pixels of a mask, all with the same type."""
        flag = np.int32(DQ.DO_NOT_USE | kind)
        if _FEW * np.count_nonzero(bad) <= bad.size:
            pixels = np.flatnonzero(bad)
            return cls.listed((bad.shape[0], bad.shape[1]), pixels, np.full(len(pixels), flag))
        return cls(np.where(bad, flag, np.int32(0)))

    @property
    def shape(self) -> tuple[int, int]:
        return self.dq.shape[0], self.dq.shape[1]

    @property
    def bad(self) -> Bool:
        """(H, W) bool: DO_NOT_USE is set."""
        # The low byte holds the bit: a quarter of the memory of testing the whole word.
        low = np.ascontiguousarray(self.dq, "<i4").view(np.uint8).reshape(*self.dq.shape, 4)[..., 0]
        return (low & np.uint8(DQ.DO_NOT_USE)).view(np.bool_)

    @property
    def pixels(self) -> npt.NDArray[np.int64]:
        """(N,) int64: row * W + col of the pixels with flags, ascending."""
        return np.flatnonzero(self.dq)

    @property
    def flags(self) -> npt.NDArray[np.int32]:
        """(N,) int32: DQ bits of `pixels`."""
        return self.at(self.pixels)

    @property
    def bad_pixels(self) -> npt.NDArray[np.int64]:
        """(N,) int64: row * W + col of the bad pixels, ascending."""
        return np.flatnonzero(self.bad)

    def at(self, pixels: Array) -> npt.NDArray[np.int32]:
        """(N,) int32: DQ bits of some pixels, given by row * W + col."""
        return self.dq.reshape(-1)[pixels]

    def upside_down(self) -> DefectMap:
        """The flags with the rows in the opposite order."""
        return DefectMap(self.dq[::-1])

    def __len__(self) -> int:
        return int(np.count_nonzero(self.dq & np.int32(DQ.DO_NOT_USE)))

    def __or__(self, other: DefectMap) -> DefectMap:
        if isinstance(self, ListedMap) and isinstance(other, ListedMap) and self.shape == other.shape:
            pixels = np.union1d(self.pixels, other.pixels)
            return DefectMap.listed(self.shape, pixels, self.at(pixels) | other.at(pixels))
        return DefectMap(self.dq | other.dq)

    def counts(self) -> dict[str, int]:
        """Bad pixels by type; one pixel may count under several types."""
        flagged = self.at(self.bad_pixels)
        found = {flag.name or "": int(np.count_nonzero(flagged & np.int32(flag))) for flag in TYPES}
        return {name: count for name, count in found.items() if count}


class ListedMap(DefectMap):
    """The flags of one plane as a list of its pixels that have any.

    A frame of 24 megapixels has some thousand bad pixels, and its image of flags 96 MB. That image is made anew each
    time somebody asks for it, and is read-only: to change it would not change the map.

    Parameters
    ----------
    extent : (H, W)
    pixels : (N,) int64 array
        row * W + col, ascending, each once.
    flags : (N,) int32 array of DQ bits
    """

    extent: tuple[int, int]
    listed_pixels: npt.NDArray[np.int64]
    listed_flags: npt.NDArray[np.int32]

    def __init__(self, extent: tuple[int, int], pixels: Array, flags: Array) -> None:
        for name, value in (("extent", extent), ("listed_pixels", pixels), ("listed_flags", flags)):
            object.__setattr__(self, name, value)

    @property
    def pixels(self) -> npt.NDArray[np.int64]:
        return self.listed_pixels

    @property
    def flags(self) -> npt.NDArray[np.int32]:
        return self.listed_flags

    @property
    def shape(self) -> tuple[int, int]:
        return self.extent

    @property
    def dq(self) -> npt.NDArray[np.int32]:
        dq = np.zeros(self.shape, np.int32)
        dq.reshape(-1)[self.pixels] = self.flags
        dq.flags.writeable = False
        return dq

    @property
    def bad(self) -> Bool:
        bad = np.zeros(self.shape, bool)
        bad.reshape(-1)[self.bad_pixels] = True
        return bad

    @property
    def bad_pixels(self) -> npt.NDArray[np.int64]:
        return self.pixels[self.flags & np.int32(DQ.DO_NOT_USE) != 0]

    def at(self, pixels: Array) -> npt.NDArray[np.int32]:
        found = np.zeros(np.shape(pixels), np.int32)
        if len(self.pixels):
            place = np.minimum(np.searchsorted(self.pixels, pixels), len(self.pixels) - 1)
            found[...] = np.where(self.pixels[place] == pixels, self.flags[place], np.int32(0))
        return found

    def upside_down(self) -> DefectMap:
        (height, width), (rows, cols) = self.shape, np.divmod(self.pixels, max(1, self.shape[1]))
        turned = (height - 1 - rows) * width + cols
        order = np.argsort(turned)
        return DefectMap.listed(self.shape, turned[order], self.flags[order])

    def __len__(self) -> int:
        return len(self.bad_pixels)
