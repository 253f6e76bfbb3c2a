"""Floor 2. The last word on doubtful candidates: a small net weighs their value against what would replace it.

Where damage is rare, a frame's own sharp details are as many as its bad pixels, and both stand out of their neighbours.
The mlp corrector knows from all colours around what should be there, and the frame's other candidates tell what is
usual in it.

The net knows the rules' answer, yet the mean of both is better on other cameras than those it was trained on: alone it
took a quarter of what it flagged in one camera's lights wrongly, whose own outliers stand alone and are a quarter
brighter than their repair. Rules see one colour and no star as sharp as a pixel, so that the mean is at most a little
more than that of this net and the spot detector's. Several nets together gave nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from ..mosaic import Array, Float32
from ..normalise import verdicts, windows
from ..tiles import Tile
from .correctors import MlpCorrector
from .judges import Judge, in_parts

#: Nats by which net and rules together may exceed net and spot detector. Without, of stars 1.3 pixels wide behind
#: colour filters eight times as many were taken for bad; with it, nothing is lost on the validation cameras.
AGREEMENT = 1.0
#: Up to so many doubtful candidates only their neighbourhoods are repaired, without parts.
WHOLE = 20_000
#: Rows and columns of the parts of a frame with more.
TILE = 2048


@dataclass(frozen=True, eq=False)
class VerdictDetector(Judge):
    """A judge of candidates."""

    FAMILY = "verdict"
    NORMALISATION, LENGTH = verdicts.NORMALISATION, verdicts.LENGTH
    NUMBERS = ("caution",)

    def ratios(self, asked: verdicts.Verdicts, rules: Float32, threads: int = 1) -> Float32:
        """Log-likelihood ratios of the doubtful candidates, (M,) float32, less the card's ``caution``.

        The mean of the net's and the rules', but at most `AGREEMENT` more than that of the net's and the spot
        detector's.

        Parameters
        ----------
        asked : Verdicts
            Of a CFA that it supports.
        rules : (M,) float32 array
            What the rules say of them.
        threads : int
            Parts that are worked on at the same time; the result does not depend on it.
        """
        if not len(asked.index):
            return np.zeros(0, np.float32)
        caution = np.float32(self.serving("caution"))
        features = asked.encode(rules, *repairs(asked, self.mlp, threads))
        mine = self.session.run(features=features)["ratio"]
        mean, limit = (mine + rules) / 2, (mine + asked.told[asked.index]) / 2 + AGREEMENT
        return np.minimum(mean, limit).astype(np.float32) - caution


def repairs(asked: verdicts.Verdicts, mlp: MlpCorrector, threads: int = 1) -> tuple[Array, Array]:
    """What the doubtful candidates would be replaced by, and the standard errors, (M,) float64 arrays, DN."""
    holes, light = asked.holes, asked.light
    rows, cols = np.divmod(asked.doubtful, light.shape[1])
    if len(rows) <= WHOLE:
        return mlp.refine(windows.first(light, holes, mlp.radius, threads), rows, cols)
    values, sigma = np.full((2, len(rows)), np.nan)

    def part(tile: Tile) -> None:
        (r0, r1), (c0, c1) = ((s.start, s.stop) for s in tile.core)
        mine = np.flatnonzero((rows >= r0) & (rows < r1) & (cols >= c0) & (cols < c1))
        if len(mine):
            filled = windows.first(light.cropped(tile.area), holes[tile.outer], mlp.radius)
            values[mine], sigma[mine] = mlp.refine(filled, rows[mine] - tile.area.top, cols[mine] - tile.area.left)

    in_parts(light, TILE, part, threads)
    return values, sigma


@cache
def shipped_verdict() -> VerdictDetector:
    """The shipped judge of candidates, opened once per process.

    Raises
    ------
    ModelError
        It is missing or not what SHA256SUMS says.
    """
    return VerdictDetector.open()
