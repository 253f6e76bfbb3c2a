"""Floor 2. Detectors that ask a net for the evidence of every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..cfa import Cfa
from ..classical import Detection, probability_of, rate_of
from ..errors import FrameError, ModelError
from ..mosaic import Float32, Mosaic
from ..normalise import features
from . import registry
from .sessions import Session, open_session

#: Rows and columns of a tile's core, in pixels of the mosaic.
TILE = 512


@dataclass(frozen=True, eq=False)
class UnetDetector:
    """Bad pixels of a plane by a net that answers log-likelihood ratios.

    The ratio says nothing of how common bad pixels are. The frame's own damage rate, estimated from
    the clear cases, is the prior that turns it into a probability.

    Parameters
    ----------
    session : Session
    """

    session: Session

    @classmethod
    def open(cls, name: str | Path = "unet", threads: int = 1) -> UnetDetector:
        """A shipped model by name (verified) or a user's own .onnx by path.

        Raises
        ------
        ModelError
        """
        blob = registry.read(str(name))
        session = open_session(blob.data, str(blob.path), blob.sha256, threads)
        session.card.require(str(blob.path), "detect", "unet", features.NORMALISATION)
        wanted = {"features": ("n", features.CHANNELS, "h", "w"), "mono": ("n", 1, 1, 1)}
        if {k: tuple(v) for k, v in session.card.inputs.items()} != wanted:
            raise ModelError(f"{blob.path}: its inputs are {session.card.inputs}, not {wanted}")
        for key in ("multiple", "halo", "temperature"):
            if not session.card.number(key, str(blob.path)) > 0:
                raise ModelError(f"{blob.path}: the card's serving[{key!r}] is not above 0")
        return cls(session)

    def supports(self, cfa: Cfa) -> bool:
        """Whether the net knows this pattern: mono and Bayer; not X-Trans, not Quad-Bayer."""
        return features.supports(cfa) and ("MONO" if cfa.is_mono else "RGGB") in self.session.card.cfa

    def __call__(self, mosaic: Mosaic) -> Detection:
        """Find bad pixels in one plane by its own samples alone.

        Raises
        ------
        FrameError
            The net does not know the CFA.
        """
        ratios = self.ratios(mosaic)
        rate = rate_of(ratios)
        probability = np.zeros(mosaic.shape, np.float32)
        probability[mosaic.active.slices] = probability_of(ratios, rate)
        return Detection(probability, rate)

    def ratios(self, mosaic: Mosaic) -> Float32:
        """Log-likelihood ratios of bad against good of the active pixels; -inf where the sample is NaN.

        Returns
        -------
        (h, w) float32 array, of the active area
        """
        if not self.supports(mosaic.cfa):
            raise FrameError(f"the unet detector does not know {mosaic.cfa.name}")
        light = mosaic.light()
        card, source = self.session.card, self.session.source
        multiple, halo = (int(card.number(key, source)) for key in ("multiple", "halo"))
        halo = -(-halo // multiple) * multiple
        seen = features.Seen.of(light)
        (top, left), (height, width) = seen.phase, light.shape
        flag = np.full((1, 1, 1, 1), light.cfa.is_mono, np.float32)
        out = np.empty((height, width), np.float32)
        for row in range(0, height + top, TILE):
            for col in range(0, width + left, TILE):
                tall, wide = (
                    -(-min(TILE, n - start) // multiple) * multiple
                    for n, start in ((height + top, row), (width + left, col))
                )
                given = seen.features((row - halo, row + tall + halo), (col - halo, col + wide + halo))
                answer = self.session.run(features=given[None], mono=flag)["ratio"][0]
                whole = features.unpack(answer)[halo : halo + tall, halo : halo + wide]
                r, c = max(0, top - row), max(0, left - col)
                part = whole[r : height + top - row, c : width + left - col]
                out[row + r - top : row + r - top + part.shape[0], col + c - left : col + c - left + part.shape[1]] = (
                    part
                )
        out /= np.float32(card.number("temperature", source))
        out[~np.isfinite(light.samples)] = -np.inf
        return out
