"""Floor 2. Detection that asks nets, too.

Rules and net fail on different pixels: the rules flag sharp texture, the net weak outliers that are the frame's own.
So a pixel needs both: the mean of their log-likelihood ratios, but at most a little more than the lesser one
(``python models/train/detections.py`` shows it beside others). From some damage rate on the rules are lost, and
another net looks a second time (and a third), without the suspects of the first; so it does where suspects stand
close together, since in clusters and lines bad pixels hide each other (of 5 x 5 clusters a first look finds two
thirds). Darks, CFAs that the nets do not know, and
frames with gaps are the rules' alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from .. import classical
from ..cfa import Cfa
from ..classical import STARLESS, detection_of, rate_of, trusted_of
from ..detection import Detection
from ..errors import FrameError, ModelError
from ..levels import Levels
from ..mosaic import Array, Bool, Float32, Mosaic
from ..normalise import features, second
from ..tiles import blocks, each
from . import registry
from .sessions import Session

#: Rows and columns of a tile's core, in pixels of the mosaic.
TILE = 512


@dataclass(frozen=True, eq=False)
class UnetDetector:
    """Bad pixels of a plane by a net that answers log-likelihood ratios.

    The ratio says nothing of how common bad pixels are. The frame's own damage rate, estimated from
    all its ratios, is the prior that turns it into a probability.

    Parameters
    ----------
    session : Session
    """

    session: Session

    @classmethod
    def open(cls, name: str | Path = "unet", threads: int = 1) -> UnetDetector:
        """A shipped model by name (verified) or a user's own .onnx by path: of the first look or the second.

        Raises
        ------
        ModelError
        """
        looks = {look.NORMALISATION: look.CHANNELS for look in (features, second)}
        inputs: dict[str, dict[str, tuple[int | str, ...]]] = {
            contract: {"features": ("n", channels, "h", "w"), "mono": ("n", 1, 1, 1)}
            for contract, channels in looks.items()
        }
        session = registry.open_model(name, "detect", "unet", inputs, threads)
        for key in ("multiple", "halo", "temperature"):
            if not session.card.number(key, session.source) > 0:
                raise ModelError(f"{session.source}: the card's serving[{key!r}] is not above 0")
        return cls(session)

    def supports(self, cfa: Cfa) -> bool:
        """Whether the net knows this pattern: mono and Bayer; not X-Trans, not Quad-Bayer."""
        return self.session.card.knows(cfa)

    def __call__(self, mosaic: Mosaic) -> Detection:
        """Find bad pixels in one plane by its own samples alone.

        Raises
        ------
        FrameError
            The net does not know the CFA.
        """
        ratios = self.ratios(mosaic)
        return detection_of(mosaic, ratios, rate_of(ratios, clear=-np.inf), "unet")

    def serving(self, key: str) -> float:
        """A number of the card's serving section."""
        return self.session.card.number(key, self.session.source)

    def ratios(self, mosaic: Mosaic) -> Float32:
        """Log-likelihood ratios of bad against good of the active pixels; -inf where the sample is NaN.

        Returns
        -------
        (h, w) float32 array, of the active area
        """
        if not self.supports(mosaic.cfa):
            raise FrameError(f"the unet detector does not know {mosaic.cfa.name}")
        return self.ratios_of(features.Seen.of(mosaic.light()))

    def ratios_of(self, seen: features.Seen | second.Second, wanted: Bool | None = None, threads: int = 1) -> Float32:
        """The same for a plane whose features are known.

        Parameters
        ----------
        seen : features.Seen or second.Second
        wanted : (h, w) bool array, optional
            Where answers are wanted; tiles without such a pixel are left out, and 0.
        threads : int
            Tiles that are worked on at the same time; the result does not depend on it.
        """
        card, source = self.session.card, self.session.source
        multiple, halo = (int(card.number(key, source)) for key in ("multiple", "halo"))
        halo = -(-halo // multiple) * multiple
        size = int(card.serving.get("tile", TILE))
        samples = seen.levels.samples
        (top, left), (height, width) = seen.phase, samples.shape
        flag = np.full((1, 1, 1, 1), seen.levels.cfa.is_mono, np.float32)
        temperature = np.float32(card.number("temperature", source))
        out = np.zeros((height, width), np.float32)

        def fill(corner: tuple[int, int]) -> None:
            row, col = corner
            inside = (slice(max(0, row - top), row - top + size), slice(max(0, col - left), col - left + size))
            if wanted is not None and not wanted[inside].any():
                return
            tall, wide = (
                -(-min(size, n - start) // multiple) * multiple
                for n, start in ((height + top, row), (width + left, col))
            )
            given = seen.features((row - halo, row + tall + halo), (col - halo, col + wide + halo))
            answer = self.session.run(features=given[None], mono=flag)["ratio"][0]
            edge = halo // 2
            whole = features.unpack(answer[:, edge : edge + tall // 2, edge : edge + wide // 2])
            r, c = max(0, top - row), max(0, left - col)
            part = whole[r : height + top - row, c : width + left - col]
            part /= temperature
            place = (slice(row + r - top, row + r - top + len(part)), slice(col + c - left, None))
            view = out[place][:, : part.shape[1]]
            view[...] = part
            missing = np.isnan(samples[place][:, : part.shape[1]])
            if missing.any():
                view[missing] = -np.inf

        corners = [(r, c) for r in range(0, height + top, size) for c in range(0, width + left, size)]
        each(fill, corners, threads)
        return out


@cache
def shipped_unet() -> UnetDetector:
    """The shipped unet, opened once per process.

    Raises
    ------
    ModelError
        It is missing or not what SHA256SUMS says.
    """
    return UnetDetector.open("unet")


@cache
def shipped_dense() -> UnetDetector:
    """The shipped unet of the second look, opened once per process; raises as `shipped_unet`."""
    return UnetDetector.open("unet-dense")


#: Of crowds: rows and columns of a block; the least suspects in 3 x 3 blocks, and the greatest probability that so
#: many stand there by chance; blocks around them that belong to the crowd. Chosen on the validation cameras.
_CROWDS = ((2, 3, 1e-3, 2), (4, 4, 1e-4, 3))
#: The least share of a crowd that is darker than its surroundings.
_DARK_SHARE = 0.2
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
    threads: int = 1,
) -> Detection:
    """Find bad pixels in one plane by its own samples: by the rules and, where it helps, by the nets as well.

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
        For the first and the second look. Default: the shipped ones.
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
    net = net or shipped_unet()
    if kind in STARLESS or not net.supports(mosaic.cfa) or _gaps(light) > GAPS:
        return classical.detect(mosaic, kind, threads)
    seen = features.Seen.of(light, kind, threads)
    first = net.ratios_of(seen, threads=threads)
    rate = rate_of(first, clear=-np.inf)
    if rate >= net.serving("dense_rate"):
        return _looked_again(mosaic, light, first, rate, dense or shipped_dense(), threads)
    closer = _looked_closer(light, seen.levels, first, rate, dense, threads)
    rate, cautious = rate_of(seen.rules), exposure is None or exposure < LONG
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


def _looked_closer(
    light: Mosaic, levels: Levels, first: Float32, rate: float, dense: UnetDetector | None, threads: int
) -> Float32 | None:
    """What two more looks say, on average, where suspects stand close together; NaN elsewhere, None if nowhere.

    The second of them sees what the first of them still hid: of 5 x 5 clusters it finds 1 to 3 points more.
    """
    ratios, out = first, None
    for _ in range(2):
        suspects = ~trusted_of(ratios, rate) & np.isfinite(ratios)
        crowded = crowds(suspects, classical.below_surroundings(levels, suspects), rate)
        if not crowded.any():
            return None
        looked = (dense or shipped_dense()).ratios_of(second.Second.of(light, ratios, rate), crowded, threads)
        before = looked if out is None else np.where(np.isfinite(out), out, looked)
        out = np.where(crowded, (looked + before) / 2, np.float32(np.nan))
        ratios = np.where(crowded, looked, ratios)
    return out


def crowds(suspects: Bool, below: Bool, rate: float) -> Bool:
    """Where suspects stand so close together that they hide each other: clusters and lines, and what is near them.

    In squares of 6 x 6 and of 12 x 12 pixels (of 3 x 3 blocks), more of them than the frame's rate explains. Some
    must be too dark: what is only too bright may be a star or its bleeding, and a second look that forgets its core
    takes it apart (of fields of stars 1.5 pixels wide it took 30 to 60 pixels a frame).

    Parameters
    ----------
    suspects : (H, W) bool array
    below : (H, W) bool array
        Those of them that are darker than their surroundings.
    rate : float
        The frame's damage rate.

    Returns
    -------
    (H, W) bool array
    """
    (height, width), found = suspects.shape, np.zeros(suspects.shape, bool)
    for side, least, chance, reach in _CROWDS:
        count, dark = (_spread(_counted(a, side), 1, np.add) for a in (suspects, below))
        crowded = count >= max(least, _beyond_chance(9 * side * side * rate, chance))
        crowded &= dark >= np.maximum(1, _DARK_SHARE * count)
        wide = _spread(crowded, reach, np.logical_or)
        found |= wide.repeat(side, axis=0).repeat(side, axis=1)[:height, :width]
    return found


def _counted(marked: Bool, side: int) -> Array:
    """How many pixels of each block of side x side are marked."""
    padded = np.pad(marked, [(0, -n % side) for n in marked.shape])
    return padded.reshape(padded.shape[0] // side, side, -1, side).sum(axis=(1, 3), dtype=np.int32)


def _beyond_chance(mean: float, chance: float) -> int:
    """The least count that a Poisson variable of this mean reaches with at most this probability."""
    count, term, tail = 0, math.exp(-mean), 1.0
    while tail > chance:
        tail -= term
        count += 1
        term *= mean / count
    return count


def _spread(blocks: Array, reach: int, join: np.ufunc) -> Array:
    """Every block joined with those up to `reach` rows and columns away."""
    for axis in (0, 1):
        margin = [(reach, reach) if a == axis else (0, 0) for a in (0, 1)]
        blocks = join.reduce(np.lib.stride_tricks.sliding_window_view(np.pad(blocks, margin), 2 * reach + 1, axis), -1)
    return blocks


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


def together(rules: Float32, net: Float32, agreement: float) -> Float32:
    """The mean of two log-likelihood ratios, but at most `agreement` more than the lesser one."""
    return np.minimum((rules + net) / np.float32(2), np.minimum(rules, net) + np.float32(agreement))


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
