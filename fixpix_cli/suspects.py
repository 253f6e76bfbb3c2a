"""Floor 1. What one frame's samples say of its suspected pixels, as integers that add exactly.

A pixel gets an entry from a frame that suspects it, and all sums of an entry
run over those frames only: what a pixel did in frames that did not suspect it
is not known (a sum over all frames from the first suspicion on would depend on
their order). For a pixel that every frame suspects, such as a hot one in darks,
the sums are over all frames and its mean level is unbiased. For one that only
some frames suspect they are those of its conspicuous moments, so that its mean
level is too high; ``suspected`` against the tally's frames says so.

DN are kept in quarters. That is exact for integer samples, since the median of
eight of them lies on half DN. Floats that are normalised to 1 are counted in
65536ths of it. Levels are cut at 2**20 DN and variances at 2**34 DN^2, so that
a quarter of a million frames of such extremes (and 10**8 of 16 bits) do not overflow.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .mosaic import Array, Bool, Mosaic
from .noise import NoiseModel
from .repair import by_position, masked_median
from .tiles import neighbours

#: Excess is kept in quarters of a sigma, cut at +-8000 sigma.
STEP, _CUT = 4, 32_000
#: Levels are kept in quarters of a DN, variances in 256ths of a DN^2.
QUARTERS, VARIANCE = 4, 256
_MOST_DN, _MOST_VARIANCE = 1 << 20, 1 << 34
#: A sample counts as full from this share of the span between black and white on.
_FULL = 0.99
#: A frame shows a picture where local medians exceed their own median by so many times the noise; the fewest of them.
_PICTURE, _FEW = 5.0, 200

DTYPE = np.dtype(
    [
        ("pixel", np.int64),  # row * W + col, ascending
        ("probability", np.int64),  # sum, fixed point
        ("hits", np.int64),  # frames with probability >= 1/2
        ("low", np.int64),  # frames at the black level under a signal
        ("excess", np.int64),  # sum over suspecting frames, 1/4 sigma
        ("squares", np.int64),  # sum of squares of the same
        ("suspected", np.int64),  # frames with an entry
        ("support", np.int64),  # sum of the log-likelihood ratios of the frames that support it, 1/256 nat
        ("supported", np.int64),  # frames that support it
        ("measured", np.int64),  # suspecting frames that the sums below know; maps of older formats lack them
        ("level", np.int64),  # sum of sample - median of the 8 nearest of its colour, 1/4 DN
        ("level2", np.int64),  # sum of squares of the same, 1/16 DN^2
        ("value", np.int64),  # sum of sample - black, 1/4 DN
        ("value2", np.int64),  # sum of squares of the same, 1/16 DN^2
        ("noise", np.int64),  # sum of the noise variance that is the least a working pixel has, 1/256 DN^2
        ("beside", np.int64),  # sum of the second least excess among its four direct neighbours, 1/4 DN
        ("full", np.int64),  # frames at the white level
    ]
)
FIELDS: tuple[str, ...] = DTYPE.names or ()
#: What maps of the older formats hold.
FIELDS_1 = FIELDS[: FIELDS.index("support")]
FIELDS_2 = FIELDS[: FIELDS.index("measured")]

_CHUNK = 100_000
_EDGES = np.array(((-1, 0), (0, -1), (0, 1), (1, 0)))


def measure(entries: Any, mosaic: Mosaic, noise: NoiseModel, beside: bool = True) -> None:
    """Fill in what one frame says of its suspected pixels: ``low`` to ``squares``, and the fields from ``measured`` on.

    Parameters
    ----------
    entries : (N,) structured array of `DTYPE`
        With their pixels; altered in place.
    mosaic : Mosaic
    noise : NoiseModel
        Of that mosaic.
    beside : bool
        Whether the neighbours are looked at. ``beside`` is the second least of the direct neighbours' excesses over
        their own colours: a star's light is in all of them, while up to two bad neighbours in a cluster do not count.
        In frames with dense damage it says nothing.
    """
    good = None if mosaic.is_integer else np.isfinite(mosaic.samples)
    for start in range(0, len(entries), _CHUNK):  # so that memory does not follow the number of suspects
        part = entries[start : start + _CHUNK]
        rows, cols = np.divmod(part["pixel"], mosaic.shape[1])
        for name, values in _sums(mosaic, good, noise, rows, cols).items():
            part[name] = values
        if beside:
            part["beside"] = _integers(_beside(mosaic, good, rows, cols) * _scale(mosaic), QUARTERS, _MOST_DN)


def _sums(mosaic: Mosaic, good: Bool | None, noise: NoiseModel, rows: Array, cols: Array) -> dict[str, Array | int]:
    black, scale = mosaic.black_at(rows, cols).astype(np.float64), _scale(mosaic)
    sample = mosaic.samples[rows, cols].astype(np.float64)
    sample = np.where(np.isfinite(sample), sample, black)
    middle = _middle(mosaic, good, rows, cols, sample)
    sigma = noise.sigma(middle - black)
    excess = _integers((sample - middle) / sigma, STEP, _CUT / STEP)
    level, value = (_integers(dn * scale, QUARTERS, _MOST_DN) for dn in (sample - middle, sample - black))
    least = noise.sigma(np.minimum(sample, middle) - black) * scale
    return {
        "low": (sample - black <= 0.1 * (middle - black)) & (middle - black > 10 * sigma),
        "excess": excess,
        "squares": excess**2,
        "measured": 1,
        "level": level,
        "level2": level**2,
        "value": value,
        "value2": value**2,
        "noise": _integers(least**2, VARIANCE, _MOST_VARIANCE),
        "full": sample >= black + _FULL * (mosaic.white - black),
    }


def shows_picture(mosaic: Mosaic, noise: NoiseModel) -> bool:
    """Whether medians over small neighbourhoods spread by more than noise does, unlike those of darks and biases.

    Stars count as a picture where at least one pixel in a thousand has their light; hot pixels, which the medians
    pass over, do not.
    """
    light = mosaic.light()
    grid = [np.arange(1, n - 1, max(1, n // 200) | 1) for n in light.shape]
    rows, cols = (axis.reshape(-1) for axis in np.meshgrid(*grid, indexing="ij"))
    good = None if light.is_integer else np.isfinite(light.samples)
    middle = _middle(light, good, rows, cols, np.full(len(rows), np.nan)) - light.black_at(rows, cols)
    for _, index in by_position(light, rows, cols):
        known = middle[index][np.isfinite(middle[index])]
        if known.size < _FEW:
            continue
        half, high = np.quantile(known, (0.5, 0.999))
        if high - half > _PICTURE * float(noise.sigma(np.array([half]))[0]):
            return True
    return False


def _scale(mosaic: Mosaic) -> float:
    return 1.0 if mosaic.is_integer or mosaic.white > 1 else 65536.0


def _integers(values: Array, steps: int, most: float) -> Array:
    """Fixed point: `values` in units of 1 / steps, cut at +-most."""
    return np.rint(np.clip(values, -most, most) * steps).astype(np.int64)


def _middle(mosaic: Mosaic, good: Bool | None, rows: Array, cols: Array, otherwise: Array) -> Array:
    """(N,) float64 medians of the 8 nearest samples of the same colour, DN."""
    middle = np.empty(len(rows))
    for position, index in by_position(mosaic, rows, cols):
        offsets = np.array(mosaic.cfa.nearest(*position, 8))
        v, ok = neighbours(mosaic.samples, good, rows[index], cols[index], offsets)
        middle[index] = masked_median(v.astype(np.float64), ok)
    return np.where(np.isfinite(middle), middle, otherwise)


def _beside(mosaic: Mosaic, good: Bool | None, rows: Array, cols: Array) -> Array:
    """(N,) float64: the second least excess among the four direct neighbours, DN; 0 where there are fewer than three.

    One that is missing counts as the least: of a 2 x 2 cluster at the frame's edge the second least of three was bad.
    """
    near = np.stack([rows, cols], axis=1)[:, None, :] + _EDGES
    inside = ((near >= 0) & (near < mosaic.shape)).all(axis=2)
    near = np.where(inside[:, :, None], near, np.stack([rows, cols], axis=1)[:, None, :])
    r, c = near[..., 0].reshape(-1), near[..., 1].reshape(-1)
    sample = mosaic.samples[r, c].astype(np.float64)
    excess = (sample - _middle(mosaic, good, r, c, sample)).reshape(inside.shape)
    usable = inside if good is None else inside & good[near[..., 0], near[..., 1]]
    second = np.sort(np.where(usable, excess, -np.inf), axis=1)[:, 1]
    return np.where(usable.sum(axis=1) >= 3, second, 0.0)


def zeros(count: int) -> Any:
    """Entries that say nothing yet."""
    return np.zeros(count, DTYPE)
