"""Floor 1. From windows in DN to what a net sees, and back; training and serving import the same code.

A window is described by what is seen in it, never by a camera's constants: of
each colour the mean of its good pixels is taken off, and the rest is divided
by the spread of the good pixels. So an answer follows any change of gain and
offset of the DN exactly, and a header that is wrong about black or white does
no harm. Bad pixels and pixels beyond the frame enter as 0 with their flag off;
their values have no influence at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .cfa import Cfa, Offset
from .mosaic import Array, Bool, Float32

#: Changes whenever the same window would give other inputs.
VERSION = 1
#: What the net is told of the centre's surroundings: one of these.
CLASSES = ("mono", "chroma", "green")


@dataclass(frozen=True, eq=False)
class Windows:
    """Normalised windows.

    Parameters
    ----------
    inputs : (N, 2 * (n * n - 1) + 3) float32 array
        Values, good flags, one-hot class of the centre.
    base : (N,) float32 array
        A distance-weighted mean of the good same-colour pixels, normalised: the
        net answers the difference from it.
    centre, scale : (N,) float64 arrays, DN
        ``DN = centre + scale * normalised``.
    """

    inputs: Float32
    base: Float32
    centre: Array
    scale: Array

    def to_dn(self, answer: Array) -> Array:
        """(N,) float64 DN from the (N,) answers of the net."""
        return self.centre + self.scale * (self.base + answer.reshape(-1))


def class_of(cfa: Cfa, position: Offset) -> int | None:
    """Index into `CLASSES` for a tile position; None for CFAs that the nets do not know."""
    if cfa.is_mono:
        return 0
    if not cfa.is_bayer:
        return None
    return 2 if cfa.colour(*position) == "G" else 1


def normalise(values: Array, good: Bool, cfa: Cfa, position: Offset) -> Windows:
    """Windows around pixels of one tile position.

    Parameters
    ----------
    values : (N, n, n) array, DN
    good : (N, n, n) bool array
        Usable pixels; the centre's flag is ignored.
    cfa : Cfa
        Mono or Bayer.
    position : (row, col)
        Tile position of the centres.

    Returns
    -------
    Windows
        `centre` is NaN where the window holds no good pixel of the centre's colour.
    """
    count, n, _ = values.shape
    radius, middle = n // 2, n * n // 2
    colours = np.array(
        [cfa.colour(position[0] + r, position[1] + c) for r in range(-radius, radius + 1)
         for c in range(-radius, radius + 1)]
    )  # fmt: skip
    kind = class_of(cfa, position)
    if kind is None:
        raise ValueError(f"no normalisation for {cfa.name}")
    usable = good.reshape(count, -1).copy()
    usable[:, middle] = False
    v = np.where(usable, values.reshape(count, -1), 0).astype(np.float64)
    centre = np.full(count, np.nan)
    for colour in np.unique(colours):
        same = colours == colour
        number = usable[:, same].sum(axis=1)
        mean = v[:, same].sum(axis=1) / np.maximum(number, 1)
        v[:, same] -= mean[:, None]
        if colour == colours[middle]:
            centre = np.where(number > 0, mean, np.nan)
    v *= usable
    number = usable.sum(axis=1)
    spread = np.sqrt((v * v).sum(axis=1) / np.maximum(number, 1))
    # A flat window has no spread; its answer is its mean whatever the net says.
    scale = np.where(spread > 1e-9 * np.abs(np.nan_to_num(centre)), spread, 0.0)
    v /= np.where(scale > 0, scale, 1.0)[:, None]
    rows, cols = np.divmod(np.arange(n * n), n)
    distance = (rows - radius) ** 2 + (cols - radius) ** 2
    nearness = np.where((colours == colours[middle]) & (distance > 0), 1 / np.maximum(distance, 1) ** 1.5, 0.0)
    weight = usable * nearness
    base = (v * weight).sum(axis=1) / np.maximum(weight.sum(axis=1), 1e-12)
    around = np.arange(n * n) != middle
    hot = np.zeros((count, len(CLASSES)), np.float32)
    hot[:, kind] = 1
    inputs = np.concatenate([v[:, around], usable[:, around], hot], axis=1).astype(np.float32)
    return Windows(np.clip(inputs, -8, 8), base.astype(np.float32), centre, scale)
