"""Floor 1. Detection by rule, answered as a calibrated probability.

The evidence of a pixel is how far it lies outside the range of its eight
nearest same-colour neighbours, against what such a range, the signal and the
noise make of an ordinary pixel::

    t = excess / (0.5 range + 0.3 |level| + 3 sigma)

At damage rates beyond a fraction of a percent neighbours are bad, too. Then
the range is first taken without the two greatest and the two least, in a
second pass without the neighbours that the first one suspected and without
the extremes of the others, in a third without those that the second suspected.

A table turns t into a log-likelihood ratio; with the frame's own damage rate
as the prior that gives a probability. So the threshold in t moves with the
rate by itself. The tables were fitted on the training cameras by
``python models/train/rules.py`` (bright and dark excess apart).

The level is counted from the black level or, where that is higher, from the
frame's own floor: a dark frame whose header states no black level would
otherwise hide its hot pixels below 30 % of the bias.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .cfa import Offset
from .mosaic import Array, Float32, Mosaic
from .noise import NoiseModel
from .planes import Band, bands, ranked
from .tables import RULE_TABLES

#: Offsets reach this far at most (X-Trans red and blue), in pixels.
_RADIUS = 6
_NEIGHBOURS = 8
#: Above this damage rate neighbours are taken for suspects, too. The extremes of a crowded
#: neighbourhood hide its damage, so the trimmed range has a say; it overrates textures.
CROWDED, SURELY_CROWDED = 0.003, 0.03
#: stage -> the range runs from the depth-th least to the depth-th greatest neighbour
DEPTHS = {"extreme": 1, "trimmed": 3, "second": 2, "third": 1}
LEAST_RATE, GREATEST_RATE = 1e-6, 0.95


@dataclass(frozen=True, eq=False)
class Detection:
    """What a detector found in one plane.

    Parameters
    ----------
    probability : (H, W) float32 array
        That each pixel is bad; 0 in masked borders and where samples are NaN.
    rate : float
        The estimated share of bad pixels, which served as the prior.
    """

    probability: Float32
    rate: float


def detect(mosaic: Mosaic) -> Detection:
    """Find bad pixels in one plane by its own samples alone.

    Parameters
    ----------
    mosaic : Mosaic
        Any CFA and size.
    """
    light = mosaic.light()
    noise = NoiseModel.of(light)
    samples = _above_floor(light)
    ratios = _ratios(samples, light, noise, "extreme")
    rate = _rate(ratios)
    if rate < CROWDED:
        suspects = _ratios(samples, light, noise, "trimmed")
        crowded = _rate(suspects) >= SURELY_CROWDED
    else:
        suspects, crowded = _ratios(samples, light, noise, "trimmed"), True
    if crowded:
        ratios = suspects
        for stage in ("second", "third", "third"):
            ratios = _ratios(samples, light, noise, stage, trusted(samples, ratios), fallback=ratios)
        rate = _rate(ratios)
    probability = np.zeros(mosaic.shape, np.float32)
    probability[mosaic.active.slices] = _sigmoid(ratios + np.float32(_logit(rate)))
    return Detection(probability, rate)


def _above_floor(light: Mosaic) -> Float32:
    """(H, W) float32 samples above the black level or the frame's floor, in DN."""
    samples = light.samples.astype(np.float32) - light.black_frame()
    for r, c in light.cfa.positions:
        plane = samples[r :: light.cfa.period[0], c :: light.cfa.period[1]]
        sparse = plane[:: max(1, plane.shape[0] // 256), :: max(1, plane.shape[1] // 256)]
        finite = sparse[np.isfinite(sparse)]
        if finite.size:
            plane -= max(0.0, float(np.quantile(finite, 0.005)))
    return samples


def trusted(samples: Float32, ratios: Float32) -> Float32:
    """The samples without those that the ratios make suspect (p > 0.27 at their own rate): NaN there."""
    return np.where(ratios > -1 - _logit(_rate(ratios)), np.float32(np.nan), samples)


def scores(
    samples: Float32, light: Mosaic, noise: NoiseModel, depth: int, neighbours_of: Float32 | None = None
) -> Iterator[tuple[Band, Offset, Float32, Float32]]:
    """Band by band and tile position by tile position, the evidence t of bright and of dark excess.

    Parameters
    ----------
    samples : (H, W) float32 array, DN above the floor
    light : Mosaic
        Its CFA is used.
    depth : int
        The range runs from the depth-th least to the depth-th greatest neighbour.
    neighbours_of : (H, W) float32 array, optional
        Where the neighbours are taken from; NaN ones count for nothing.

    Yields
    ------
    band, position, bright, dark : the (h, w) float32 scores, NaN where undecidable
    """
    pairs = zip(
        bands(samples, light.cfa, _RADIUS),
        bands(samples if neighbours_of is None else neighbours_of, light.cfa, _RADIUS),
        strict=True,
    )
    for own, others in pairs:
        for position in light.cfa.positions:
            pixel = own.view(position)
            if not pixel.size:
                continue
            near = light.cfa.nearest(*position, _NEIGHBOURS)
            least, greatest = ranked([others.view(position, o) for o in near], depth)
            low, high = least[-1], greatest[-1]
            with np.errstate(invalid="ignore"):
                common = 0.5 * np.maximum(high - low, 0) + 3 * noise.sigma((high + low) / 2).astype(np.float32)
                bright = (pixel - high) / (common + 0.3 * np.abs(high))
                dark = (low - pixel) / (common + 0.3 * np.abs(low))
            lost = ~(np.isfinite(high) & np.isfinite(low))
            bright[lost] = dark[lost] = np.nan
            yield own, position, bright, dark


def _ratios(
    samples: Float32,
    light: Mosaic,
    noise: NoiseModel,
    stage: str,
    neighbours_of: Float32 | None = None,
    fallback: Float32 | None = None,
) -> Float32:
    """(H, W) float32 log-likelihood ratios of bad against good; -inf where the sample is NaN."""
    out = np.empty(samples.shape, np.float32)
    edges = np.asarray(RULE_TABLES["edges"], np.float32)
    values = {side: np.asarray(RULE_TABLES[f"{stage} {side}"], np.float32) for side in ("bright", "dark")}
    for band, position, bright, dark in scores(samples, light, noise, DEPTHS[stage], neighbours_of):
        with np.errstate(invalid="ignore"):
            side_bright = bright >= dark
        t = np.where(side_bright, bright, dark)
        ratio = np.where(side_bright, np.interp(t, edges, values["bright"]), np.interp(t, edges, values["dark"]))
        band.put(out, position, ratio)
    undecided = np.isnan(out)
    if fallback is not None:
        out[undecided] = fallback[undecided]
        undecided = np.isnan(out)
    out[undecided] = _LEAST
    out[~np.isfinite(samples)] = -np.inf
    return out


#: Ratio of a pixel that cannot be judged, and from which on a case is clear.
_LEAST, _CLEAR = np.float32(-12.0), np.float32(3.0)


def _rate(ratios: Float32) -> float:
    """The damage rate under which the clear cases explain themselves (expectation maximisation).

    Weak ratios are left out: in a frame of pure noise ordinary pixels have
    many of them, and the iteration would run away to a rate of one half.
    """
    clear = ratios[ratios >= _CLEAR]
    # Most ratios are alike: a histogram makes the iteration cheap.
    counts, edges = np.histogram(clear, bins=400, range=(float(_CLEAR), 20.0))
    centres, total = (edges[:-1] + edges[1:]) / 2, max(1, int(np.count_nonzero(np.isfinite(ratios))))
    rate = 0.01
    for _ in range(60):
        update = float((counts * _sigmoid(centres + _logit(rate))).sum() / total)
        update = min(max(update, LEAST_RATE), GREATEST_RATE)
        if abs(update - rate) < 1e-3 * rate:
            break
        rate = update
    return rate


def _logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))
