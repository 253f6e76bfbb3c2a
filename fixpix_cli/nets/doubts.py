"""Floor 2. Doubtful pixels judged by their repair: a small net weighs their value against what would replace it.

Detectors compare a pixel with its neighbours by rules and convolutions; the mlp corrector predicts it better than
either can. Where a frame is densely damaged that decides many cases that the detectors leave open, and only those are
asked about: a twentieth of the pixels at 20 % damage, a third at 70 %. What is doubtful is repaired from what is good
beyond doubt alone, so that no doubtful pixel speaks for itself or for another.

Up to 3.5 % of scattered damage (`spots`) candidates have a judge of their own (`verdicts`): this one cost as much
precision there as it gave recall. A second round gave nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from ..mosaic import Array, Float32, Mosaic
from ..normalise import doubts, windows
from ..tiles import Tile
from .correctors import MlpCorrector
from .judges import Judge, in_parts

#: Rows and columns of the parts in which a plane is repaired and judged.
TILE = 1024
#: Power of the share of good pixels that the caution is times: at 5 % damage 73 % of it are left, at 20 % a quarter.
FADING = 6


@dataclass(frozen=True, eq=False)
class DoubtDetector(Judge):
    """A detector of what others are not sure of."""

    FAMILY = "doubt"
    NORMALISATION, LENGTH = doubts.NORMALISATION, doubts.LENGTH
    NUMBERS = ("least_rate", "caution")

    def judge(self, light: Mosaic, odds: Float32, rate: float, threads: int = 1) -> None:
        """Judge the doubtful pixels of a plane anew, in place.

        Parameters
        ----------
        light : Mosaic
            Without masked borders, of a CFA that it supports.
        odds : (H, W) float32 array
            Log-odds of bad, the damage rate included; those of doubtful pixels are replaced.
        rate : float
            The damage rate.
        threads : int
            Parts that are worked on at the same time; the result does not depend on it.
        """
        before = odds.copy()

        def part(tile: Tile) -> None:
            around = tile.area
            seen = doubts.Doubts(light.cropped(around), np.ascontiguousarray(before[tile.outer]), rate)
            pixels = seen.doubtful
            rows, cols = np.divmod(pixels, seen.light.shape[1])
            (r0, r1), (c0, c1) = ((s.start, s.stop) for s in tile.inner)
            mine = (rows >= r0) & (rows < r1) & (cols >= c0) & (cols < c1)
            rows, cols = rows[mine], cols[mine]
            if len(rows):
                odds[rows + around.top, cols + around.left] = self.told(seen, pixels[mine])

        in_parts(light, TILE, part, threads)

    def told(self, seen: doubts.Doubts, pixels: Array) -> Float32:
        """Log-odds of some doubtful pixels, (N,) float32, less the card's ``caution``, the more the less is bad.

        Frames have outliers of their own that are no damage, and where damage is the rule, or stands together, they are
        the fewer.
        """
        caution = self.serving("caution") * (1 - seen.rate) ** FADING if seen.crowd < doubts.TOGETHER else 0.0
        return self.session.run(features=features_of(seen, pixels, self.mlp))["odds"] - np.float32(caution)


def features_of(seen: doubts.Doubts, pixels: Array, mlp: MlpCorrector) -> Float32:
    """The net's input for some doubtful pixels, (N, doubts.LENGTH)."""
    width = seen.light.shape[1]
    filled = windows.first(seen.light, seen.holes, mlp.radius)
    doubtful, held = (mlp.refine(filled, *np.divmod(flat, width)) for flat in (pixels, seen.held))
    return seen.encode(filled, pixels, doubtful, held)


@cache
def shipped_doubt() -> DoubtDetector:
    """The shipped net for doubtful pixels, opened once per process.

    Raises
    ------
    ModelError
        It is missing or not what SHA256SUMS says.
    """
    return DoubtDetector.open()
