"""Floor 2. Correctors that ask a net. They answer; `repair.repair` writes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ..cfa import Cfa
from ..errors import FrameError, ModelError
from ..mosaic import Array, Bool, Mosaic
from ..normalise import windows
from ..repair import places, repairable
from . import registry
from .cards import Card
from .sessions import Session

#: Windows per call of the net: small enough for the processor's cache.
BATCH = 4096


@dataclass(frozen=True, eq=False)
class MlpCorrector:
    """A `repair.Corrector` that refines the frame's own linear prediction by a small net.

    Parameters
    ----------
    session : Session
    threads : int
        For the linear prediction to begin from; the answers do not depend on it.
    """

    session: Session
    threads: int = 1

    @classmethod
    def open(cls, name: str | Path = "mlp", threads: int = 1) -> MlpCorrector:
        """A shipped model by name (verified) or a user's own .onnx by path.

        Raises
        ------
        ModelError
        """
        return cls(registry.open_model(name, "correct", "mlp", {f"filled-{windows.NORMALISATION}": _inputs}, threads))

    @property
    def radius(self) -> int:
        """The net looks at windows of 2 radius + 1 rows and columns."""
        return _radius(self.session.card, self.session.source)

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
        return self.answers(mosaic, bad)[0]

    def answers(self, mosaic: Mosaic, bad: Bool) -> tuple[Array, Array]:
        """Values for the bad pixels, and how far off they may be.

        Parameters
        ----------
        mosaic : Mosaic
        bad : (H, W) bool array

        Returns
        -------
        values : (N,) float64 array, DN
            As `__call__` gives them.
        sigma : (N,) float64 array, DN
            Standard error: how far, noise of the pixel included, the value lies from what a good pixel would
            have stored there. The card says in how many cases it is within one and two sigma. NaN where the
            value is NaN.

        Raises
        ------
        FrameError
            The net does not know the CFA.
        """
        if not self.supports(mosaic.cfa):
            raise FrameError(f"the mlp corrector does not know {mosaic.cfa.name}: use least-squares")
        rows, cols = places(bad)
        inside = repairable(mosaic, bad)
        open_ = inside[rows, cols]
        values, sigma = np.full((2, len(rows)), np.nan)
        if open_.any():
            area = mosaic.active
            filled = windows.first(mosaic.light(), inside[area.slices], self.radius, self.threads)
            values[open_], sigma[open_] = self.refine(filled, rows[open_] - area.top, cols[open_] - area.left)
        return values, sigma

    def refine(self, filled: windows.Filled | windows.Near, rows: Array, cols: Array) -> tuple[Array, Array]:
        """Values and sigmas, (N,) float64 arrays in DN, of some holes of a filled frame."""
        values, sigma = np.empty(len(rows)), np.empty(len(rows))
        for start in range(0, len(rows), BATCH):
            part = slice(start, start + BATCH)
            r, c = rows[part], cols[part]
            features, unit = windows.encode(filled, r, c, self.radius)
            net = self.session.run(window=features)
            values[part], sigma[part] = windows.decode(filled, r, c, net["residual"], net["sigma"], unit)
        return values, sigma


def _radius(card: Card, source: str) -> int:
    radius = card.number("radius", source)
    if radius not in windows.RADII:
        raise ModelError(f"{source}: the card's radius is {radius:g}; known are {windows.RADII}")
    return int(radius)


def _inputs(card: Card, source: str) -> registry.Shapes:
    if set(card.outputs) != {"residual", "sigma"}:
        raise ModelError(f"{source}: its outputs are {list(card.outputs)}, not residual and sigma")
    return {"window": ("n", windows.length(_radius(card, source)))}


@cache
def shipped_mlp() -> MlpCorrector:
    """The shipped mlp corrector, opened once per process.

    Raises
    ------
    ModelError
        It is missing or not what SHA256SUMS says.
    """
    return MlpCorrector.open("mlp")
