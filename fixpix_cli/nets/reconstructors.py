"""Floor 2. The vit reconstructor: frames of which 40 to 85 % are bad, clusters, columns; with the mask or blind.

It answers; `repair.repair` writes. Only tiles that hold damage are rebuilt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ..cfa import Cfa
from ..errors import FrameError
from ..mosaic import Array, Bool, Float32, Mosaic
from ..normalise import patches
from ..repair import repairable
from . import registry
from .correctors import MlpCorrector
from .detectors import detect
from .sessions import Session

#: Tiles per call of a net.
BATCH = 16

_HALF = patches.SIDE // 2
_INPUTS: dict[str, tuple[int | str, ...]] = {
    "tiles": ("n", patches.CHANNELS, _HALF, _HALF),
    "flags": ("n", 2, 1, 1),
}


@dataclass(frozen=True, eq=False)
class VitCorrector:
    """A `repair.Corrector` that rebuilds whole tiles, from the samples, the mask and what the mlp makes of them.

    Parameters
    ----------
    session : Session
    mlp : MlpCorrector
        Of the first estimates.
    """

    session: Session
    mlp: MlpCorrector

    @classmethod
    def open(cls, name: str | Path = "vit", threads: int = 1) -> VitCorrector:
        """A shipped model by name (verified) or a user's own .onnx by path.

        Raises
        ------
        ModelError
        """
        session = registry.open_model(name, "correct", "vit", {patches.NORMALISATION: _INPUTS}, threads)
        session.card.number("suspect", session.source)
        return cls(session, MlpCorrector.open("mlp", threads))

    def supports(self, cfa: Cfa) -> bool:
        """Whether the nets know this pattern: mono and Bayer; not X-Trans, not Quad-Bayer."""
        return self.session.card.knows(cfa) and self.mlp.supports(cfa)

    def __call__(self, mosaic: Mosaic, bad: Bool) -> Array:
        """Values for the bad pixels, whose stored values are never looked at.

        Parameters
        ----------
        mosaic : Mosaic
        bad : (H, W) bool array

        Returns
        -------
        (N,) float64 array, DN
            In row order; NaN outside the active area, where a sample is NaN, and where no pixel is good.

        Raises
        ------
        FrameError
            The net does not know the CFA.
        """
        return self.rebuild(mosaic, bad, lambda light, inside: patches.Seen.known(light, inside, self.mlp.refine))

    def rebuild(self, mosaic: Mosaic, bad: Bool, look: Callable[[Mosaic, Bool], patches.Seen]) -> Array:
        """Values as of `__call__`, from what `look` makes of the active area and its bad pixels."""
        if not self.supports(mosaic.cfa):
            raise FrameError(f"the vit corrector does not know {mosaic.cfa.name}: use least-squares")
        values = np.full(mosaic.shape, np.nan)
        inside = repairable(mosaic, bad)[mosaic.active.slices]
        if inside.any():
            values[mosaic.active.slices][inside] = self._answers(look(mosaic.light(), inside), inside)
        return values[np.nonzero(bad)]

    def _answers(self, seen: patches.Seen, wanted: Bool) -> Array:
        out = np.full(wanted.shape, np.nan)
        if seen.filled.good.any():
            tops, lefts = patches.tiles_of(wanted, seen.filled.cfa)
            for start in range(0, len(tops), BATCH):
                t, c = tops[start : start + BATCH], lefts[start : start + BATCH]
                tiles, unit = patches.encode(seen, t, c)
                answer = self.session.run(tiles=tiles, flags=np.repeat(seen.flags, len(t), 0))["residual"]
                patches.decode(seen, t, c, answer, unit, out)
        return out[wanted]


@dataclass(frozen=True, eq=False)
class BlindVit:
    """The same without the mask: what is bad, the detector finds by itself.

    Parameters
    ----------
    vit : VitCorrector
    doubt : callable
        A plane without masked borders -> the (H, W) float32 probability that each sample is bad.
    """

    vit: VitCorrector
    doubt: Callable[[Mosaic], Float32]

    def supports(self, cfa: Cfa) -> bool:
        return self.vit.supports(cfa)

    def __call__(self, mosaic: Mosaic, bad: Bool) -> Array:
        """As `VitCorrector`, but `bad` only says where answers are wanted: the net never sees it."""
        return self.vit.rebuild(mosaic, bad, self._look)

    def _look(self, light: Mosaic, _: Bool) -> patches.Seen:
        suspect = self.vit.session.card.number("suspect", self.vit.session.source)
        return patches.Seen.unknown(light, self.doubt(light), suspect, self.vit.mlp.refine)


@cache
def shipped_vit() -> VitCorrector:
    """The shipped vit, opened once per process.

    Raises
    ------
    ModelError
        It is missing or not what SHA256SUMS says.
    """
    return VitCorrector.open("vit")


@cache
def shipped_blind() -> BlindVit:
    """The shipped vit behind the program's own detector; raises as `shipped_vit`."""
    return BlindVit(shipped_vit(), lambda light: detect(light).probability)
