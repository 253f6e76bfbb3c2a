"""Floor 2. Correctors that ask a net. They answer; `repair.repair` writes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ..cfa import Cfa
from ..errors import FrameError
from ..mosaic import Array, Bool, Mosaic
from ..normalise import windows
from ..repair import repairable
from . import registry
from .sessions import Session

#: Windows per call of the net: small enough for the processor's cache.
BATCH = 4096


@dataclass(frozen=True, eq=False)
class MlpCorrector:
    """A `repair.Corrector` that refines the frame's own linear prediction by a small net.

    Parameters
    ----------
    session : Session
    """

    session: Session

    @classmethod
    def open(cls, name: str | Path = "mlp", threads: int = 1) -> MlpCorrector:
        """A shipped model by name (verified) or a user's own .onnx by path.

        Raises
        ------
        ModelError
        """
        inputs: dict[str, tuple[int | str, ...]] = {"window": ("n", windows.FEATURES)}
        return cls(registry.open_model(name, "correct", "mlp", {f"filled-{windows.NORMALISATION}": inputs}, threads))

    def supports(self, cfa: Cfa) -> bool:
        """Whether the net knows this pattern: mono and Bayer; not X-Trans, not Quad-Bayer."""
        return self.session.card.knows(cfa)

    @property
    def default_up_to(self) -> float | None:
        """The greatest damage rate up to which the card shows that it beats least squares; None: nowhere."""
        return self.session.card.serving.get("best_below_rate")

    def __call__(self, mosaic: Mosaic, bad: Bool) -> Array:
        """Values for the bad pixels.

        Parameters
        ----------
        mosaic : Mosaic
        bad : (H, W) bool array

        Returns
        -------
        (N,) float64 array, DN
            In row order; NaN where the net has no answer (no good pixel in the
            window, outside the active area): `repair` then widens.

        Raises
        ------
        FrameError
            The net does not know the CFA.
        """
        if not self.supports(mosaic.cfa):
            raise FrameError(f"the mlp corrector does not know {mosaic.cfa.name}: use least-squares")
        values = np.full(mosaic.shape, np.nan)
        area = mosaic.active.slices
        inside = repairable(mosaic, bad)[area]
        if inside.any():
            rows, cols = np.nonzero(inside)
            values[area][rows, cols] = self._answers(mosaic.light(), inside, rows, cols)
        return values[np.nonzero(bad)]

    def _answers(self, light: Mosaic, bad: Bool, rows: Array, cols: Array) -> Array:
        filled = windows.fill(light, bad)
        out = np.empty(len(rows))
        for start in range(0, len(rows), BATCH):
            part = slice(start, start + BATCH)
            r, c = rows[part], cols[part]
            features, unit = windows.encode(filled, r, c)
            out[part] = windows.decode(filled, r, c, self.session.run(window=features)["residual"], unit)
        return out


@cache
def shipped_mlp() -> MlpCorrector:
    """The shipped mlp corrector, opened once per process.

    Raises
    ------
    ModelError
        It is missing or not what SHA256SUMS says.
    """
    return MlpCorrector.open("mlp")
