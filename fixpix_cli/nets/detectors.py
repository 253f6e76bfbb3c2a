"""Floor 2. Detection by nets and rules: which of them looks at a frame.

Up to a few percent of damage only the candidates of a frame are looked at, by the spot detector (`spots`). Beyond
that, or where texture makes candidates of too many pixels, rules and a unet look at every pixel. They fail on
different ones: the rules flag sharp texture, the net weak outliers that are the frame's own. So a pixel needs both: the
mean of their log-likelihood ratios, but at most a little more than the lesser one. From some damage rate on the rules
are lost, and another net looks a second time (and a third), without the suspects of the first; so it does where
suspects crowd (`unets.looked_closer`). ``python models/train/detections.py`` shows them side by side. Darks, CFAs
that the nets do not know, and frames with gaps are the rules' alone.
"""

from __future__ import annotations

import numpy as np

from .. import classical
from ..classical import STARLESS, detection_of, probability_of, rate_of
from ..detection import Detection
from ..mosaic import Float32, Mosaic
from ..normalise import features, second
from ..tiles import blocks
from .spots import SpotDetector, shipped_spot, together
from .unets import UnetDetector, looked_closer, shipped_dense, shipped_unet

#: With more missing samples than this share the nets, which have never seen gaps, are not asked.
GAPS = 0.02
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
) -> Detection:
    """Find bad pixels in one plane by its own samples.

    The prior of rules and net together is the rate that the rules estimate. Their own estimate is too low: on a
    night sky it dropped nearly all of the hot pixels of 4 to 10 sigma that rules and net both speak for.

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
        For the first and the second look at every pixel. Default: the shipped ones.
    spot : SpotDetector, optional
        For the candidates of frames with little damage. Default: the shipped one.
    threads : int
        Bands and tiles that are worked on at the same time; the result does not depend on it.

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
    if spot.supports(mosaic.cfa) and (found := spot(light, not cautious, threads)) is not None:
        caution = np.float32(spot.serving("caution") if cautious else 0.0)
        probability = probability_of(found.ratios - caution, found.rate)
        method = "spot, crowds peeled" if found.peeled else "spot"
        sparse = Detection(light.shape, found.rate, method, found.pixels, probability)
        return sparse.shifted(mosaic.shape, mosaic.active.top, mosaic.active.left)
    if not net.supports(mosaic.cfa):
        return classical.detect(mosaic, kind, threads)
    seen = features.Seen.of(light, kind, threads)
    first = net.ratios_of(seen, threads=threads)
    rate = rate_of(first, clear=-np.inf)
    if rate >= net.serving("dense_rate"):
        return _looked_again(mosaic, light, first, rate, dense or shipped_dense(), threads)
    closer = looked_closer(light, first, rate, dense, threads)
    rate = rate_of(seen.rules)
    for rules, alone in zip(blocks(seen.rules), blocks(first), strict=True):
        both = together(rules, alone, net.serving("agreement"))
        if cautious:
            both -= np.float32(net.serving("caution"))
        # In clusters and lines bad pixels hide each other from the rules: there the net may decide, if it is very sure.
        alone -= np.float32(net.serving("alone"))
        np.maximum(both, alone, out=alone)
    del seen  # its arrays are as large as the answer
    method = "rules+unet"
    if closer is not None:
        np.copyto(first, closer, where=np.isfinite(closer))
        method = "rules+unet, second look at clusters"
        del closer
    return detection_of(mosaic, first, rate, method)


def _looked_again(
    mosaic: Mosaic, light: Mosaic, ratios: Float32, rate: float, dense: UnetDetector, threads: int
) -> Detection:
    """A second look at dense damage and, where it is denser still, a third."""
    looks = "second look"
    if rate >= dense.serving("third_rate"):
        ratios = dense.ratios_of(second.Second.of(light, ratios, rate), threads=threads)
        rate, looks = rate_of(ratios, clear=-np.inf), "third look"
    ratios = dense.ratios_of(second.Second.of(light, ratios, rate), threads=threads)
    rate = rate_of(ratios, clear=-np.inf)
    return detection_of(mosaic, ratios - np.float32(dense.serving("caution")), rate, f"unet, {looks}")


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
