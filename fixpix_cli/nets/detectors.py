"""Floor 2. Detection by nets and rules: which of them looks at a frame.

Up to a few percent of damage only the candidates of a frame are looked at, by the spot detector (`spots`); of those
that it is not sure of, a judge compares the value with its repair (`verdicts`). Beyond that, or where texture makes
candidates of too many pixels, rules and a unet look at every pixel. They fail on different ones: the rules flag sharp
texture, the net weak outliers that are the frame's own. So a pixel needs both: the mean of their log-likelihood ratios,
but at most a little more than the lesser one. From some damage rate on the rules are lost, and another net looks a
second time (up to a fourth), without the suspects of the look before; so does one where suspects crowd
(`unets.looked_closer`). ``python models/train/detections.py`` shows them side by side. Darks, CFAs that the nets do not
know, and frames with gaps are the rules' alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import numpy as np

from .. import classical
from ..classical import STARLESS, detection_of, logit, probability_of, rate_of
from ..detection import Detection
from ..levels import Statistics, comparable
from ..mosaic import Area, Float32, Mosaic
from ..normalise import features
from ..tiles import blocks
from .doubts import DoubtDetector, shipped_doubt
from .spots import SpotDetector, shipped_spot, together
from .unets import MANY, UnetDetector, looked_closer, shipped_dense, shipped_unet
from .verdicts import shipped_verdict

#: With more missing samples than this share the nets, which have never seen gaps, are not asked.
GAPS = 0.02
#: Noise as a share of the median from which a frame may be densely damaged; rows and columns of the parts that are then
#: looked at, the damage rate in them from which it is, and that from which a second look at them decides (of noise
#: alone, in short exposures of the dark, a second look without a hint of damage took a sixth for bad).
NOISY, PART, DENSE, HINTED = 0.25, 96, 0.05, 0.01
#: Looks at dense damage after the first one; the card says from which damage rate on the later ones help.
LOOKS = ("second", "third", "fourth")
#: A hundredth of a frame's pixels must reach this share of white, or it shows little but noise. Dense damage reaches
#: far beyond it, and in noise as great as the signal a second look takes most pixels for bad. There it is at crowds
#: alone, may only add to what is bad, and so many nats are taken off its evidence (of a night's frames it otherwise
#: called some stars bad; whole bad lines are far beyond that).
FAINT, DIM_CAUTION = 0.02, 3.0
#: Exposure in s from which a frame's own weak hot pixels are what its owner wants repaired.
LONG = 5.0


def detect(
    mosaic: Mosaic,
    kind: str | None = None,
    exposure: float | None = None,
    net: UnetDetector | None = None,
    dense: UnetDetector | None = None,
    spot: SpotDetector | None = None,
    threads: int = 1,
    thorough: bool = False,
    judged: bool = True,
) -> Detection:
    """Find bad pixels in one plane by its own samples.

    The prior of rules and net together is the rate that the rules estimate. Their own estimate is too low: on a
    night sky it dropped nearly all of the hot pixels of 4 to 10 sigma that rules and net both speak for. In texture
    that of the rules is too high, 27 times in a photograph of rocks with 0.01 % damage. Where no judge of repairs
    follows, the prior of a single frame of ordinary exposure is the geometric mean of both: in that photograph none of
    the ten good pixels in a quarter of a megapixel is flagged any more, and one in six of the bad ones is missed.

    Ordinary frames have weak outliers that are no damage; the card's ``caution`` is taken off the evidence, or
    every megapixel would lose some good pixels. In long exposures such outliers are warm and hot pixels (on a
    frame of 120 s, 290 of 8 to 20 sigma that caution would spare), so there it does not apply.

    Parameters
    ----------
    mosaic : Mosaic
        Any CFA and size.
    kind : str, optional
        What the frame shows. Darks, biases and flats are judged by the rules alone.
    exposure : float, optional
        Exposure time in s.
    net, dense : UnetDetector, optional
        For the first look at every pixel and for all later ones. Default: the shipped ones, of which clusters and lines
        have another than dense damage.
    spot : SpotDetector, optional
        For the candidates of frames with little damage. Default: the shipped one.
    threads : int
        Bands and tiles that are worked on at the same time; the result does not depend on it.
    thorough : bool
        Look at every pixel also where damage is rare, if a net can: for sums over many frames, to which pixels that
        are no candidates in any of them contribute as well (of the warm pixels in sixteen moving lights the candidates
        alone gave a sixth, all pixels two fifths: ``python tests/bench/maps.py --parts kinds``). It takes ten times as
        long.
    judged : bool
        Whether what rules and nets are not sure of is judged by its repair.

    Raises
    ------
    ModelError
        A shipped net is missing or damaged.
    """
    light = mosaic.light()
    if nothing := _nothing_to_see(light):
        return Detection(mosaic.shape, classical.LEAST_RATE, nothing)
    if kind in STARLESS or _gaps(light) > GAPS:
        return classical.detect(mosaic, kind, threads)
    cautious = exposure is None or exposure < LONG
    spot, net = spot or shipped_spot(), net or shipped_unet()
    plain = comparable(light)
    statistics, known = Statistics.of(plain), net.supports(mosaic.cfa)
    faint = _is_faint(light)
    seems = 0.0 if faint else _seeming_rate(plain, statistics, net, dense)
    if spot.supports(mosaic.cfa) and not (thorough and known):
        judge = shipped_verdict() if cautious and shipped_verdict().supports(mosaic.cfa) else None
        found = None if seems > DENSE else spot(plain, statistics, not cautious, not known, threads, judge)
        if found is not None:
            caution = np.float32(spot.serving("caution") if cautious else 0.0)
            probability = probability_of(found.ratios - caution, found.rate)
            method = "spot+verdict" if judge else "spot"
            method += ", crowds peeled" if found.peeled else ""
            listed = Detection(light.shape, found.rate, method, found.pixels, probability)
            return listed.shifted(mosaic.shape, mosaic.active.top, mosaic.active.left)
    if not net.supports(mosaic.cfa):
        return classical.detect(mosaic, kind, threads)
    ratios, rate, method = _every_pixel(light, kind, cautious, faint, seems, net, dense, threads)
    ordinary = not faint and (cautious or rate > spot.serving("most_rate"))
    doubt = _judge_of(light, rate) if ordinary else None
    if ordinary and cautious and not (thorough or doubt):
        rate = float(np.sqrt(rate * rate_of(ratios, clear=-np.inf)))
    if doubt and judged:
        ratios += np.float32(logit(rate))
        doubt.judge(light, ratios, rate, threads)
        ratios -= np.float32(logit(rate))
        method = f"{method}, judged by repair"
    return detection_of(mosaic, ratios, rate, method)


def _judge_of(light: Mosaic, rate: float) -> DoubtDetector | None:
    """Who judges what is doubtful in a frame, if anyone can."""
    doubt = shipped_doubt()
    return doubt if doubt.supports(light.cfa) and rate >= doubt.serving("least_rate") else None


def _every_pixel(
    light: Mosaic,
    kind: str | None,
    cautious: bool,
    faint: bool,
    seems: float,
    net: UnetDetector,
    dense: UnetDetector | None,
    threads: int,
) -> tuple[Float32, float, str]:
    """What rules and nets say of every pixel: (H, W) log-likelihood ratios, the damage rate, and the method."""
    seen = features.Seen.of(light, kind, threads)
    first = net.ratios_of(seen, threads=threads)
    rate = rate_of(first, clear=-np.inf)
    if not faint and max(rate, seems) >= net.serving("dense_rate"):
        quiet = seen.quieter(NOISY, threads)  # else, at 85 % in bright scenes, every look takes damage for noise
        if quiet is not seen:
            first = net.ratios_of(quiet, threads=threads)
            rate = rate_of(first, clear=-np.inf)
        del seen, quiet  # their arrays are as large as the answer
        return _looked_again(light, first, rate, dense or shipped_dense(), threads)
    closer = looked_closer(light, first, rate, dense, threads, 1.0 if faint else MANY)
    rate = rate_of(seen.rules)
    for rules, alone in zip(blocks(seen.rules), blocks(first), strict=True):
        both = together(rules, alone, net.serving("agreement"))
        if cautious:
            both -= np.float32(net.serving("caution"))
        # In clusters and lines bad pixels hide each other from the rules: there the net may decide, if it is very sure.
        alone -= np.float32(net.serving("alone"))
        np.maximum(both, alone, out=alone)
    if closer is None:
        return first, rate, "rules+unet"
    if faint:
        np.fmax(first, closer - np.float32(DIM_CAUTION), out=first)
    else:
        if cautious and np.isfinite(closer).all():
            closer -= np.float32(net.serving("caution"))
        np.copyto(first, closer, where=np.isfinite(closer))
        rate = max(rate, rate_of(first, clear=-np.inf))
    return first, rate, "rules+unet, second look at clusters"


def _is_faint(light: Mosaic) -> bool:
    """Whether nearly all of a frame is as dark as a bias or a dark; from at most some 256 x 256 of its pixels."""
    rows, cols = (np.arange(0, n, max(1, n // 256 | 1)) for n in light.shape)  # odd steps: pixels of every colour
    samples = light.samples[np.ix_(rows, cols)].astype(np.float64) - light.black_at(rows[:, None], cols)
    return float(np.nanquantile(samples, 0.99)) < FAINT * (light.white - float(np.mean(light.black)))


def _seeming_rate(light: Mosaic, seen: Statistics, net: UnetDetector, dense: UnetDetector | None) -> float:
    """How much seems bad in a frame whose noise may be that of the damage; 0 where it is not, 1 for unknown CFAs.

    On the validation cameras the noise is 1 to 15 % of the median at up to 5 % damage, and 30 % and more from 40 % on;
    in dark frames it is great without damage. There the unets look at some small parts. A first look alone takes most
    of a bright scene with 85 % damage for good.
    """
    if seen.noise_share < NOISY:
        return 0.0
    if not net.supports(light.cfa):
        return 1.0
    parts = []
    for top, left in product(*(_starts(n) for n in light.shape)):
        part = light.cropped(Area(top, left, min(top + PART, light.shape[0]), min(left + PART, light.shape[1])))
        parts.append((part, net.ratios_of(features.Seen.of(part))))
    rate = _rate_of(ratios for _, ratios in parts)
    if not HINTED < rate <= DENSE:
        return rate
    dense = dense or shipped_dense()
    return max(rate, _rate_of(dense.looked_again(part, ratios, rate) for part, ratios in parts))


def _rate_of(ratios: Iterable[Float32]) -> float:
    return rate_of(np.concatenate([part.reshape(-1) for part in ratios]), clear=-np.inf)


def _starts(size: int) -> list[int]:
    """Where three parts of a side begin, at even numbers."""
    return sorted({max(0, (size - PART) * n // 4) // 12 * 12 for n in (1, 2, 3)})


def _looked_again(
    light: Mosaic, ratios: Float32, rate: float, dense: UnetDetector, threads: int
) -> tuple[Float32, float, str]:
    """A second look at dense damage and, where it is denser still, a third and a fourth: the mean of all of them."""
    total, looks = np.zeros_like(ratios), 0
    for number in LOOKS:
        if looks and rate < dense.serving(f"{number}_rate"):
            break
        ratios = dense.looked_again(light, ratios, rate, threads=threads)
        rate, last = rate_of(ratios, clear=-np.inf), number
        total += ratios
        looks += 1
    ratios = total
    ratios /= np.float32(looks)
    rate = rate_of(ratios, clear=-np.inf)
    ratios -= np.float32(dense.serving("caution") * (1 - rate))
    return ratios, rate, f"unet, {last} look"


def _gaps(light: Mosaic) -> float:
    """The share of samples without a value."""
    return 0.0 if light.is_integer else 1 - np.count_nonzero(np.isfinite(light.samples)) / light.samples.size


def _nothing_to_see(light: Mosaic) -> str:
    """Why nothing can be judged in a frame, or nothing."""
    values = light.samples if light.is_integer else light.samples[np.isfinite(light.samples)]
    if not values.size:
        return "none: no sample has a value"
    if values.min() == values.max():
        return f"none: all samples are {values.flat[0]:g}"
    return ""
