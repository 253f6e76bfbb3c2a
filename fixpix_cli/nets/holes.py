"""Floor 2. The corrector of isolated clusters of bad pixels: all pixels of a hole in one answer of a net."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ..cfa import Cfa
from ..errors import FrameError
from ..mosaic import Array, Bool, Mosaic
from ..normalise import holes, windows
from ..repair import repairable
from . import registry
from .sessions import Session

#: Windows per call of the net.
BATCH = 128


@dataclass(frozen=True, eq=False)
class CnnCorrector:
    """A `repair.Corrector` for holes of up to 6 x 6 pixels in good surroundings; it leaves the others open.

    Parameters
    ----------
    session : Session
    """

    session: Session

    @classmethod
    def open(cls, name: str | Path = "cnn", threads: int = 1) -> CnnCorrector:
        """A shipped model by name (verified) or a user's own .onnx by path.

        Raises
        ------
        ModelError
        """
        inputs: dict[str, tuple[int | str, ...]] = {
            "window": ("n", holes.LAYERS, "h", "w"),
            "about": ("n", holes.ABOUT),
        }
        return cls(registry.open_model(name, "correct", "cnn", {holes.NORMALISATION: inputs}, threads))

    def supports(self, cfa: Cfa) -> bool:
        """Whether the net knows this pattern: mono and Bayer; not X-Trans, not Quad-Bayer."""
        return self.session.card.knows(cfa)

    @property
    def from_side(self) -> int:
        """The side of a square hole from which the card shows that it beats the mlp on the validation cameras."""
        return int(self.session.card.number("from_side", self.session.source))

    def __call__(self, mosaic: Mosaic, bad: Bool) -> Array:
        """Values for the bad pixels.

        Parameters
        ----------
        mosaic : Mosaic
        bad : (H, W) bool array

        Returns
        -------
        (N,) float64 array, DN
            In row order; NaN where the net has no answer: a connected cluster larger than 6 x 6, surroundings
            with too many other bad pixels, outside the active area.

        Raises
        ------
        FrameError
            The net does not know the CFA.
        """
        if not self.supports(mosaic.cfa):
            raise FrameError(f"the cnn corrector does not know {mosaic.cfa.name}: use least-squares")
        values = np.full(mosaic.shape, np.nan)
        area = mosaic.active.slices
        inside = repairable(mosaic, bad)[area]
        if inside.any():
            self._answer(mosaic.light(), inside, values[area])
        return values[np.nonzero(bad)]

    def _answer(self, light: Mosaic, bad: Bool, out: Array) -> None:
        """Write the answers into `out`, (h, w) float64 of the active area."""
        filled = windows.fill(light, bad)
        found = holes.find(filled.good, light.cfa)
        filled = holes.solved(filled, found)
        for start in range(0, len(found), BATCH):
            some = found.part(start, start + BATCH)
            window, about, unit = holes.encode(filled, some)
            answer = self.session.run(window=window, about=about)["residual"]
            values = holes.decode(filled, some, answer, unit)
            out[some.rows, some.cols] = values


@cache
def shipped_cnn() -> CnnCorrector:
    """The shipped cnn corrector, opened once per process.

    Raises
    ------
    ModelError
        It is missing or not what SHA256SUMS says.
    """
    return CnnCorrector.open("cnn")
