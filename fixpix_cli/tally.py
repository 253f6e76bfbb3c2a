"""Floor 1. What N frames said about each pixel, in sums that are exact.

For every plane and condition bin a `Tally` keeps, for the pixels that any
frame suspected, the sum of the probabilities in fixed point and the sums of
`suspects`, from which level, fluctuation and kind of the defect follow. Integers make the sums exact: ``a + b``
of any two parts equals the whole, bit for bit, in any order.

A pixel gets an entry from a frame that gives it a probability of 2**-5 or
evidence of `SUPPORT`. So a tally holds no more entries than there are suspects,
and never more than pixels. Of ten real darks of a megapixel (SBIG STL-1001) the
first gave 18,326 entries and each further one about 900 of what noise and
cosmic rays did; with 2**-10 it was 3,500, and the maps differed in 10 of 17,179
pixels.

Two measures of N frames stand side by side. The mean of the probabilities
(FixPix section 3) is safe, but a weak defect that shows clearly in no frame
never reaches the threshold. The accumulated log-odds add what the frames say
as if they were independent: with nine frames of moving scenes they found 99 %
of weak defects (d = 0.2) where the mean found 93 %, both without a false one
(``python tests/bench/quality.py --rows multiframe``). They are as wrong as can
be when the scene stands still, since then one texture speaks N times (precision
0.04 on the same photographs). So they count only where the scene moves, which
the tally itself shows (`Tally.moves`): suspects of weak evidence come again and
again in a still scene, and hardly ever twice in a moving one. What the frames
together show to be starlight counts in neither (`starlight`).

Evidence is stored; flags are a view of it (`Tally.view`), made with the
threshold or the false-positive promise of the moment.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import kinds, starlight
from .defects import DefectMap
from .detection import Detection
from .mosaic import Array, Mosaic
from .noise import NoiseModel
from .suspects import FIELDS, measure, shows_picture, zeros

#: Fixed point of a probability.
ONE = 1 << 15
#: The least probability that is kept: what rounds to 2**-5 in fixed point.
_LEAST = ((ONE >> 5) - 0.5) / ONE
#: Rather low: a calibrated probability of 0.3 costs a few good pixels and saves more bad ones.
DEFAULT_THRESHOLD = 0.3
#: Log-likelihood ratio of bad against good from which a frame supports a pixel; what it can add at most; and what a
#: frame that does not support it takes away. In nats.
SUPPORT, MOST, ABSENT = 2.0, 6.0, 1.0
#: Fixed points of a nat and of a damage rate.
_NAT, _RATE = 1 << 8, 1 << 30
#: A scene moves where weak suspects return less often than this, beyond chance; weak is a mean support below it; so
#: few that return say nothing.
_RETURNS, _WEAK, _FEW = 0.02, 4.0, 3
#: Entries whose flags are made at a time.
_CHUNK = 100_000


@dataclass(frozen=True, eq=False)
class Tally:
    """What some frames of one bin said about one plane.

    Parameters
    ----------
    shape : (H, W)
    frames : int
        Frames counted, those without a suspect included.
    entries : structured array of `suspects.DTYPE`
        One entry per suspected pixel, in pixel order.
    rates : int
        Sum of the frames' damage rates, in 2**-30; 0 where the log-odds are not known.
    pictures : int
        Frames that show a picture, unlike darks and biases.
    """

    shape: tuple[int, int]
    frames: int = 0
    entries: Array = field(default_factory=lambda: zeros(0))
    rates: int = 0
    pictures: int = 0

    def __add__(self, other: Tally) -> Tally:
        if self.shape != other.shape:
            raise ValueError(f"tallies of {self.shape} and {other.shape} do not add")
        pixels = np.union1d(self.entries["pixel"], other.entries["pixel"])
        entries = zeros(len(pixels))
        entries["pixel"] = pixels
        for part in (self.entries, other.entries):
            place = np.searchsorted(pixels, part["pixel"])
            for name in FIELDS[1:]:
                entries[name][place] += part[name]
        frames, rates, pictures = (
            getattr(self, name) + getattr(other, name) for name in ("frames", "rates", "pictures")
        )
        return Tally(self.shape, frames, entries, rates, pictures)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Tally)
            and (self.shape, self.frames, self.rates, self.pictures)
            == (other.shape, other.frames, other.rates, other.pictures)
            and np.array_equal(self.entries, other.entries)
        )

    @classmethod
    def of(cls, mosaic: Mosaic, found: Detection) -> Tally:
        """What one frame says.

        Parameters
        ----------
        mosaic : Mosaic
        found : Detection
            Of that frame. Where it does not know its damage rate, only the mean of the probabilities is known of this
            frame, no log-odds.
        """
        rate, noise = found.rate, NoiseModel.of(mosaic)
        support = _sigmoid(SUPPORT + _logit(rate)) if rate else 1.0
        pixels, values = found.suspects(min(_LEAST, support))
        entries = zeros(len(pixels))
        if len(pixels):
            fixed = np.rint(values * ONE).astype(np.int32)
            entries["pixel"], entries["probability"] = pixels, fixed
            entries["hits"] = fixed >= ONE // 2
            entries["suspected"] = 1
            measure(entries, mosaic, noise, beside=rate < starlight.SPARSE)
            if rate:
                ratio = _logit(np.clip(values.astype(np.float64), 1e-12, 1 - 1e-12)) - _logit(rate)
                entries["supported"] = ratio >= SUPPORT
                entries["support"] = np.rint(np.minimum(ratio, MOST) * _NAT) * entries["supported"]
        return cls(mosaic.shape, 1, entries, round(rate * _RATE), int(shows_picture(mosaic, noise)))

    @property
    def mean(self) -> Array:
        """(N,) float64 mean probability of the suspected pixels."""
        return self.entries["probability"] / (ONE * max(1, self.frames))

    @property
    def moves(self) -> bool:
        """Whether the scene moved between the frames: their evidence is then independent.

        The share of the other frames in which a weak suspect of one frame is suspected again, beyond what
        chance gives, is 0.03 to 0.6 for still scenes, as for darks, whose weak hot pixels return, and 0 to 0.01 for
        moving ones. Where hardly any weak suspect returns there is hardly anything false to add up in a still scene
        either: those few may be defects.
        """
        times, pixels = self.entries["supported"], self.shape[0] * self.shape[1]
        weak = (times > 0) & (self.entries["support"] < _WEAK * _NAT * times)
        if self.frames < 2 or not self.rates:
            return False
        if np.count_nonzero(weak & (times > 1)) <= _FEW:
            return True
        again = float((times[weak] - 1).mean()) / (self.frames - 1)
        chance = float(times.sum()) / (self.frames * pixels)
        return again - chance < _RETURNS * (1 - chance)

    @property
    def posterior(self) -> Array:
        """(N,) float64 probability that a suspected pixel is bad, if the frames are independent.

        The prior is the share of bad pixels under which all suspects explain themselves (expectation maximisation).
        A single frame's rate would not do: a scene that brings 170 suspects of its own to every frame brings some
        pixels two of them in nine frames, and at that rate two were enough.
        """
        support = self.entries["support"] / _NAT - ABSENT * (self.frames - self.entries["supported"])
        pixels = self.shape[0] * self.shape[1]
        rate = min(max(self.rates / (_RATE * max(1, self.frames)), 1 / (pixels + 1)), 0.95)
        for _ in range(100):
            found = _sigmoid(support + _logit(rate))
            better = min(max(float(found.sum()) / pixels, 1 / (pixels + 1)), 0.95)
            if abs(better - rate) < 0.01 * rate:
                break
            rate = better
        return _sigmoid(support + _logit(rate))

    @property
    def confidence(self) -> Array:
        """(N,) float64: the accumulated probability where the scene moves, else the mean one; 0 for starlight."""
        confidence = self.posterior if self.moves else self.mean
        if not self.pictures or self.rates >= starlight.SPARSE * _RATE * self.frames:
            return confidence
        suspicious = confidence >= starlight.SUSPICIOUS
        return np.where(starlight.of_stars(self.entries, suspicious, self.shape), 0.0, confidence)

    def light(
        self, threshold: float = DEFAULT_THRESHOLD, max_false: float | None = None, precision: float | None = None
    ) -> Array:
        """(N,) int64, row * W + col: suspects of single frames that the frames together show to be light."""
        chosen = self.chosen(threshold, max_false, precision)
        lit = starlight.on_light(self.entries, chosen, self.shape) | (self.confidence == 0)
        return np.asarray(self.entries["pixel"][lit & ~chosen])

    def chosen(
        self, threshold: float = DEFAULT_THRESHOLD, max_false: float | None = None, precision: float | None = None
    ) -> Array:
        """(N,) bool: which entries count as bad.

        With `max_false` the threshold is the lowest at which the expected
        number of good pixels among the chosen ones stays within it.
        With `precision` it is the lowest at which the expected share of bad
        pixels among the chosen ones is as great.
        """
        return above(self.confidence, threshold, max_false, precision)

    def view(
        self, threshold: float = DEFAULT_THRESHOLD, max_false: float | None = None, precision: float | None = None
    ) -> DefectMap:
        """The flags that follow from this evidence."""
        places = np.flatnonzero(self.chosen(threshold, max_false, precision))
        flags = np.empty(len(places), np.int32)
        for start in range(0, len(places), _CHUNK):  # a copy of all of them took as much memory as the tally itself
            part = slice(start, start + _CHUNK)
            flags[part] = kinds.flags(self.entries[places[part]], self.frames, self.pictures)
        return DefectMap.listed(self.shape, self.entries["pixel"][places], flags)


def above(
    confidence: Array,
    threshold: float = DEFAULT_THRESHOLD,
    max_false: float | None = None,
    precision: float | None = None,
) -> Array:
    """(N,) bool: which of some suspects of these probabilities count as bad; see `Tally.chosen`."""
    if max_false is None and precision is None:
        return confidence >= threshold
    order = np.argsort(-confidence, kind="stable")
    good = np.cumsum(1 - confidence[order])  # how many of the first so many are expected to be
    most: Array | float = np.inf if max_false is None else max_false
    if precision is not None:
        most = np.minimum(most, (1 - precision) * np.arange(1, len(order) + 1))
    keep = np.zeros(len(confidence), bool)
    keep[order[good <= most + 1e-9]] = True
    return keep & (confidence > 0)


def _logit(p: Any) -> Any:
    return np.log(p / (1 - p))


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))
