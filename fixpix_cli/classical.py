"""Floor 1. Detection by rule, answered as a calibrated probability.

The evidence of a pixel is how far it lies outside the range of its eight
nearest same-colour neighbours, against what such a range, the signal and the
noise make of an ordinary pixel::

    t = (excess - c sigma) / (0.5 range + 0.3 |level| + sigma)

At damage rates beyond a fraction of a percent neighbours are bad, too. Then
the range is first taken without the extremes and, in a second pass, without
the neighbours that the first one suspected. Beyond a few percent it is first
that of the middle six of sixteen neighbours, then without the suspects and
the extremes of the others, then without the new suspects.

A table turns t into a log-likelihood ratio; with the frame's own damage rate
as the prior that gives a probability. So the threshold in t moves with the
rate by itself. The tables were fitted on the training cameras by
``python models/train/rules.py``, with bright and dark excess in one table,
since the rarer side would else be judged by too few cases.

The level is counted from the black level or, where that is higher, from the
frame's own floor: a dark frame whose header states no black level would
otherwise hide its hot pixels below 30 % of the bias.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from . import background, stars
from .cfa import Offset
from .detection import Detection
from .levels import Levels, Statistics, levels
from .mosaic import Array, Bool, Float32, Mosaic
from .planes import Band, band_of, ranked, same_phase, spans
from .repair import by_position
from .tables import RULE_TABLES
from .tiles import blocks, each

#: Above this damage rate neighbours are taken for suspects, too.
CROWDED = 0.003
#: stage -> how many of the nearest same-colour neighbours make the range, from the how many-th least to the
#: how many-th greatest, and c. What noise alone does must stay below t = 0: in a dark frame, which is nothing
#: but noise, half the pixels would else count as suspects and vouch for each other.
STAGES = {
    "extreme": (8, 1, 2.5),
    "light": (8, 2, 3.0),
    "trimmed": (16, 6, 3.5),
    "second": (8, 2, 3.0),
    "third": (8, 1, 2.5),
}
#: The passes below and from the rate `DENSE` on. The wide look of "trimmed" takes thin lines for damage, whose
#: pixels then lose each other as witnesses: it is for frames in which damage is the greater part of what it sees.
DENSE = 0.03
PATHS = {False: ("light", "third"), True: ("trimmed", "second", "third", "third")}
LEAST_RATE, GREATEST_RATE = 1e-6, 0.95


def detect(mosaic: Mosaic, kind: str | None = None, threads: int = 1) -> Detection:
    """Find bad pixels in one plane by its own samples alone.

    Parameters
    ----------
    mosaic : Mosaic
        Any CFA and size.
    kind : str, optional
        What the frame shows. In a dark, bias or flat there are no stars to spare.
    threads : int
    """
    return detection_of(mosaic, ratios_of(levels(mosaic.light()), kind, threads))


def detection_of(mosaic: Mosaic, ratios: Float32, rate: float | None = None, method: str = "rules") -> Detection:
    """Log-likelihood ratios of the active area as probabilities, with the rate (default: theirs) as the prior."""
    rate = rate_of(ratios) if rate is None else rate
    active = mosaic.active
    return Detection.of(probability_of(ratios, rate), rate, method).shifted(mosaic.shape, active.top, active.left)


def ratios_of(seen: Levels, kind: str | None = None, threads: int = 1) -> Float32:
    """Log-likelihood ratios of bad against good, (h, w) float32; -inf where NaN. The same for any number of threads."""
    ratios = _ratios(seen, "extreme", threads=threads)
    rate = rate_of(ratios)
    if rate >= CROWDED:
        first, *others = PATHS[rate >= DENSE]
        ratios = _ratios(seen, first, threads=threads)
        for stage in others:
            ratios = _ratios(seen, stage, trusted(seen.samples, ratios), fallback=ratios, threads=threads)
        rate = rate_of(ratios)
    if rate < DENSE and kind not in STARLESS:
        _spare_stars(seen, ratios, rate)
    if kind in PICTURELESS:  # there bad pixels that touch hide each other, but not from the smooth background
        noise = {p: float(seen.sigma(np.zeros(1, np.float32), p)[0]) for p in seen.cfa.positions}
        np.maximum(ratios, background.evidence(seen.samples, seen.cfa, noise), out=ratios, where=np.isfinite(ratios))
    return ratios


#: Kinds of frames without an image in them.
STARLESS = ("dark", "bias", "flat")
#: Kinds without a picture, whose background is smooth.
PICTURELESS = ("dark", "bias")


def _spare_stars(seen: Levels, ratios: Float32, rate: float) -> None:
    """Take back the evidence against pixels that share their light with their neighbours, in place."""
    floor, (pr, pc) = seen.floor, seen.cfa.period
    # The samples are counted from the floor already.
    plane = Mosaic(seen.samples, seen.cfa, tuple(tuple(-floor[r, c] for c in range(pc)) for r in range(pr)))
    pixels = np.flatnonzero(ratios > -3.0 - logit(rate))
    ratios.reshape(-1)[pixels[stars.share_their_light(plane, seen, pixels)]] = _LEAST


def trusted(samples: Float32, ratios: Float32) -> Float32:
    """The samples without those that the ratios make suspect at their own rate: NaN there."""
    return np.where(trusted_of(ratios, rate_of(ratios)), samples, np.float32(np.nan))


def trusted_of(ratios: Float32, rate: float) -> Bool:
    """The pixels that are probably good (p <= 0.27) with the rate as the prior, and hold a value."""
    return (ratios <= -1 - logit(rate)) & np.isfinite(ratios)


def scores(
    seen: Levels, stage: str, neighbours_of: Float32 | None = None, span: tuple[int, int] | None = None
) -> Iterator[tuple[Band, Offset, Float32]]:
    """Band by band and tile position by tile position, the evidence t.

    Parameters
    ----------
    seen : Levels
    stage : str
        One of `STAGES`.
    neighbours_of : (H, W) float32 array, optional
        Where the neighbours are taken from; NaN ones count for nothing.
    span : (int, int), optional
        Only this band: its first row and its number of rows, one of `planes.spans`.

    Yields
    ------
    band, position, t : the (h, w) float32 scores, NaN where undecidable
    """
    count, depth, allowed = STAGES[stage]
    samples, cfa = seen.samples, seen.cfa
    near = {position: cfa.nearest(*position, count) for position in cfa.positions}
    radius = max(max(abs(r), abs(c)) for offsets in near.values() for r, c in offsets)
    for top, rows in [span] if span else spans(samples.shape, cfa):
        own = band_of(samples, cfa, radius, top, rows)
        others = own if neighbours_of is None else band_of(neighbours_of, cfa, radius, top, rows)
        for position in cfa.positions:
            pixel = own.view(position)
            if pixel.size:
                low, high = ranked([others.view(position, o) for o in near[position]], depth)
                yield own, position, _score(seen, position, pixel, low, high, allowed)


def _score(seen: Statistics, position: Offset, pixel: Float32, low: Float32, high: Float32, allowed: float) -> Float32:
    """How far the pixels of a tile position lie outside low..high; every step in place, in the processor's cache."""
    with np.errstate(invalid="ignore"):
        sigma = seen.sigma((high + low) / 2, position)
        common = high - low
        np.maximum(common, 0, out=common)
        common *= np.float32(0.5)
        common += sigma
        sigma *= np.float32(allowed)
        sides = []
        for excess, end in ((pixel - high, high), (low - pixel, low)):
            excess -= sigma
            np.abs(end, out=end)
            end *= np.float32(0.3)
            end += common
            excess /= end
            sides.append(excess)
        return np.maximum(sides[0], sides[1], out=sides[0])


def _ratios(
    seen: Levels,
    stage: str,
    neighbours_of: Float32 | None = None,
    fallback: Float32 | None = None,
    threads: int = 1,
) -> Float32:
    """(H, W) float32 log-likelihood ratios of bad against good; -inf where the sample is NaN.

    Below some t the table has one value for all: only the few pixels above it are looked up.
    """
    out = np.empty(seen.samples.shape, np.float32)
    edges, values = (np.asarray(RULE_TABLES[key], np.float32) for key in ("edges", stage))
    flat = edges[np.flatnonzero(values == values[0])[-1]]

    def fill(span: tuple[int, int]) -> None:
        for band, position, t in scores(seen, stage, neighbours_of, span):
            ratios = np.full(t.shape, values[0])
            chosen = np.flatnonzero(~(t <= flat))
            found = np.interp(t.reshape(-1)[chosen], edges, values).astype(np.float32)
            undecided = np.isnan(found)
            if undecided.any():
                where = np.unravel_index(chosen[undecided], t.shape)
                known = _LEAST if fallback is None else band.part(fallback, position)[where]
                known = np.where(np.isnan(known), _LEAST, known)
                found[undecided] = np.where(np.isfinite(band.view(position)[where]), known, -np.inf)
            ratios.reshape(-1)[chosen] = found
            band.put(out, position, ratios)

    each(fill, spans(seen.samples.shape, seen.cfa), threads)
    return out


def ratios_at(light: Mosaic, seen: Statistics, pixels: Array, stage: str, own: Array | None = None) -> Float32:
    """What one stage says of some pixels alone: `_ratios` there, without a whole frame's work.

    Parameters
    ----------
    light : Mosaic
        Without masked borders; floats as `levels.comparable` makes them.
    seen : Statistics
    pixels : (N,) integer array
        Row * W + column.
    stage : str
        One of `STAGES`.
    own : (N,) array, optional
        What they hold themselves, where `light` holds something else there.

    Returns
    -------
    (N,) float32 log-likelihood ratios
    """
    count, depth, allowed = STAGES[stage]
    edges, values = (np.asarray(RULE_TABLES[key], np.float32) for key in ("edges", stage))
    rows, cols = np.divmod(pixels, light.shape[1])
    out, margin = np.empty(len(pixels), np.float32), 2 * max(light.cfa.period) + 4
    index = [same_phase(-margin, n + margin, n, p) for n, p in zip(light.shape, light.cfa.period, strict=True)]
    for position, mine in by_position(light, rows, cols):
        if not mine.size:
            continue
        offsets = np.array([(0, 0), *light.cfa.nearest(*position, count)])
        r, c = (
            i[offsets[:, axis, None] + (a[mine] + margin)]
            for axis, (i, a) in enumerate(zip(index, (rows, cols), strict=True))
        )
        near = light.samples[r, c].astype(np.float32)
        if own is not None:
            near[0] = own[mine]
        near -= light.black_at(r, c)
        near -= np.float32(seen.floor[position])
        low, high = ranked(list(near[1:]), depth)
        t = _score(seen, position, near[0], low, high, allowed)
        found = np.interp(t, edges, values).astype(np.float32)
        out[mine] = np.where(np.isnan(found), np.where(np.isfinite(near[0]), _LEAST, -np.inf), found)
    return out


#: Ratio of a pixel that cannot be judged, and from which on a case is clear.
_LEAST, _CLEAR = np.float32(-12.0), np.float32(3.0)


#: Bins per nat of the histogram that a damage rate is estimated from.
_BINS = 24


def rate_of(ratios: Float32, clear: float = float(_CLEAR), others: int = 0) -> float:
    """The damage rate under which the ratios explain themselves (expectation maximisation).

    Parameters
    ----------
    ratios : array of log-likelihood ratios of bad against good; those that are not finite count for nothing
    clear : float
        Weaker ratios are left out. The rules need that: in a frame of pure noise ordinary pixels have many
        weak ratios, and the iteration would run away to a rate of one half. -inf: all count, as they may
        where the ratios are calibrated.
    others : int
        Pixels that are good beyond doubt and not among the ratios.
    """
    # Most ratios are alike: a histogram makes the iteration cheap.
    lowest, highest = max(clear, -20.0), 20.0
    bins = round((highest - lowest) * _BINS)
    counts, total = np.zeros(bins, np.int64), others
    for part in blocks(ratios):
        finite = part[np.isfinite(part)]
        total += len(finite)
        places = finite[finite >= np.float32(clear)]
        places -= np.float32(lowest)
        places *= np.float32(_BINS)
        counts += np.bincount(np.clip(places, 0, bins - 1, out=places).astype(np.intp), minlength=bins)
    centres, total = lowest + (np.arange(bins) + 0.5) / _BINS, max(1, total)
    rate = 0.01
    for _ in range(200):
        update = float((counts * _sigmoid(centres + logit(rate))).sum() / total)
        update = min(max(update, LEAST_RATE), GREATEST_RATE)
        if abs(update - rate) < 1e-3 * rate:
            break
        rate = update
    return rate


def probability_of(ratios: Float32, rate: float) -> Float32:
    """Log-likelihood ratios of bad against good as probabilities, with the damage rate as the prior."""
    out, prior = np.empty(ratios.shape, np.float32), np.float32(logit(rate))
    for part, answer in zip(blocks(ratios), blocks(out), strict=True):
        answer[...] = _sigmoid(part + prior)
    return out


def logit(p: float) -> float:
    """The log-odds of a probability."""
    return float(np.log(p / (1 - p)))


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))
