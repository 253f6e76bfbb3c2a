"""Floor 1. What is wrong with a pixel, in the data-quality bits of JWST.

Bit values and names: stdatamodels ``dqflags.py`` (STScI). A pixel is bad if and
only if DO_NOT_USE is set; fixpix sets no other bit without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

import numpy as np
import numpy.typing as npt

from .mosaic import Bool


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
        return cls(np.zeros(shape, np.int32))

    @classmethod
    def of(cls, bad: Bool, kind: DQ = DQ.DO_NOT_USE) -> DefectMap:
        """Flag the pixels of a mask, all with the same type."""
        return cls(np.where(bad, np.int32(DQ.DO_NOT_USE | kind), np.int32(0)))

    @property
    def shape(self) -> tuple[int, int]:
        return self.dq.shape[0], self.dq.shape[1]

    @property
    def bad(self) -> Bool:
        """(H, W) bool: DO_NOT_USE is set."""
        # The low byte holds the bit: a quarter of the memory of testing the whole word.
        low = np.ascontiguousarray(self.dq, "<i4").view(np.uint8).reshape(*self.dq.shape, 4)[..., 0]
        return (low & np.uint8(DQ.DO_NOT_USE)).view(np.bool_)

    def __len__(self) -> int:
        return int(np.count_nonzero(self.dq & np.int32(DQ.DO_NOT_USE)))

    def __or__(self, other: DefectMap) -> DefectMap:
        return DefectMap(self.dq | other.dq)

    def counts(self) -> dict[str, int]:
        """Bad pixels by type; one pixel may count under several types."""
        flagged = self.dq[self.bad]
        found = {flag.name or "": int(np.count_nonzero(flagged & np.int32(flag))) for flag in TYPES}
        return {name: count for name, count in found.items() if count}
