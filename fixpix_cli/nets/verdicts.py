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

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ..cfa import Cfa
from ..errors import ModelError
from ..mosaic import Array, Float32
from ..normalise import verdicts, windows
from ..tiles import Tile, each, tiles
from . import registry
from .correctors import MlpCorrector, shipped_mlp
from .sessions import Session

#: Nats by which net and rules together may exceed net and spot detector. Without, of stars 1.3 pixels wide behind
#: colour filters eight times as many were taken for bad; with it, nothing is lost on the validation cameras.
AGREEMENT = 1.0
#: Up to so many doubtful candidates only their neighbourhoods are repaired, without parts.
WHOLE = 20_000
#: Rows and columns of the parts of a frame with more, and of what is seen around them.
TILE, HALO = 2048, 32


@dataclass(frozen=True, eq=False)
class VerdictDetector:
    """A judge of candidates.

    Parameters
    ----------
    session : Session
    mlp : MlpCorrector
        It makes the repairs.
    """

    session: Session
    mlp: MlpCorrector

    @classmethod
    def open(cls, name: str | Path = "verdict", threads: int = 1) -> VerdictDetector:
        """The shipped model by name (verified) or a user's own .onnx by path; repairs are the shipped mlp's.

        Raises
        ------
        ModelError
        """
        inputs: dict[str, tuple[int | str, ...]] = {"features": ("n", verdicts.LENGTH)}
        session = registry.open_model(name, "detect", "verdict", {verdicts.NORMALISATION: inputs}, threads)
        if not session.card.number("caution", session.source) > 0:
            raise ModelError(f"{session.source}: the card's serving['caution'] is not above 0")
        return cls(session, shipped_mlp())

    def supports(self, cfa: Cfa) -> bool:
        """Whether there are repairs for this pattern to judge by: mono and Bayer."""
        return self.mlp.supports(cfa)

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
        caution = np.float32(self.session.card.number("caution", self.session.source))
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

    each(part, tiles(light.shape, TILE, HALO, math.lcm(*light.cfa.period, 2)), threads)
    return values, sigma


@cache
def shipped_verdict() -> VerdictDetector:
    """The shipped judge of candidates, opened once per process.

    Raises
    ------
    ModelError
        It is missing or not what SHA256SUMS says.
    """
    return VerdictDetector.open("verdict")
