"""Floor 1. What N frames said about each pixel, in sums that are exact.

For every plane and condition bin a `Tally` keeps, for the pixels that any
frame suspected, the sum of the probabilities in fixed point and a few sums
from which the kind of defect follows. Integers make the sums exact: ``a + b``
of any two parts equals the whole, bit for bit, in any order.

A pixel gets an entry from a frame that gives it a probability of 2**-10 or
evidence of `SUPPORT`. So a tally holds no more entries than there are
suspects, whatever the number of frames, and never more than pixels.

Two measures of N frames stand side by side. The mean of the probabilities
(FixPix section 3) is safe, but a weak defect that shows clearly in no frame
never reaches the threshold. The accumulated log-odds add what the frames say
as if they were independent: with nine frames of moving scenes they found 99 %
of weak defects (d = 0.2) where the mean found 93 %, both without a false one
(``python tests/bench/quality.py --rows multiframe``). They are as wrong as can
be when the scene stands still, since then one texture speaks N times (precision
0.04 on the same photographs). So they count only where the scene moves, which
the tally itself shows (`Tally.moves`): suspects of weak evidence come again and
again in a still scene, and hardly ever twice in a moving one.

Evidence is stored; flags are a view of it (`Tally.view`), made with the
threshold or the false-positive promise of the moment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .defects import DQ, DefectMap
from .mosaic import Array, Bool, Conditions, Float32, Mosaic
from .noise import NoiseModel
from .repair import by_position, masked_median
from .tiles import neighbours

#: Fixed point of a probability.
ONE = 1 << 15
#: The least probability that is kept, in fixed point (2**-10).
LEAST = ONE >> 10
#: Rather low: a calibrated probability of 0.3 costs a few good pixels and saves more bad ones.
DEFAULT_THRESHOLD = 0.3
#: Excess is kept in quarters of a sigma, cut at +-8000 sigma.
_STEP, _CUT = 4, 32_000
#: Log-likelihood ratio of bad against good from which a frame supports a pixel; what it can add at most; and what a
#: frame that does not support it takes away. In nats.
SUPPORT, MOST, ABSENT = 2.0, 6.0, 1.0
#: Fixed points of a nat and of a damage rate.
_NAT, _RATE = 1 << 8, 1 << 30
#: A scene moves where weak suspects return less often than this, beyond chance; weak is a mean support below it.
_RETURNS, _WEAK, _FEW = 0.02, 4.0, 50
#: Mean excess in sigma from which a bright pixel is HOT rather than WARM.
HOT_SIGMA = 20.0

_DTYPE = np.dtype(
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
    ]
)
FIELDS = _DTYPE.names or ()


@dataclass(frozen=True, order=True)
class Bin:
    """A condition bin: what frames must share for their evidence to be summed.

    exposure in half stops (round(2 log2 s)), gain in half stops of the setting
    (for values up to 8 the value itself), temperature in steps of 5 C. None
    where the file does not say.
    """

    kind: str = ""
    exposure: int | None = None
    gain: int | None = None
    temperature: int | None = None

    @classmethod
    def of(cls, conditions: Conditions) -> Bin:
        """The bin of a frame's conditions."""
        exposure, gain, temperature = conditions.exposure, conditions.gain, conditions.temperature
        return cls(
            kind=conditions.kind or "",
            exposure=None if exposure is None or exposure <= 0 else round(2 * math.log2(exposure)),
            gain=None if gain is None or gain < 0 else round(gain if gain <= 8 else 2 * math.log2(gain) + 2),
            temperature=None if temperature is None else round(temperature / 5) * 5,
        )

    def distance(self, other: Bin) -> float:
        """How far two bins are apart, in stops; 6 C double a dark current and count as one stop.

        A condition that one side does not state counts half a stop.
        """
        terms = ((self.exposure, other.exposure, 0.5), (self.gain, other.gain, 0.5))
        total = 0.0
        for mine, theirs, scale in (*terms, (self.temperature, other.temperature, 1 / 6)):
            if mine is None or theirs is None:
                total += 0.0 if mine is theirs else 0.5
            else:
                total += abs(mine - theirs) * scale
        return total

    def __str__(self) -> str:
        parts = [self.kind or "frame"]
        if self.exposure is not None:
            parts.append(f"{2 ** (self.exposure / 2):.3g} s")
        if self.gain is not None:
            parts.append(f"gain {self.gain}" if self.gain <= 8 else f"gain {2 ** ((self.gain - 2) / 2):.3g}")
        if self.temperature is not None:
            parts.append(f"{self.temperature} C")
        return ", ".join(parts)


@dataclass(frozen=True, eq=False)
class Tally:
    """What some frames of one bin said about one plane.

    Parameters
    ----------
    shape : (H, W)
    frames : int
        Frames counted, those without a suspect included.
    entries : structured array with the fields `FIELDS`
        One entry per suspected pixel, in pixel order.
    rates : int
        Sum of the frames' damage rates, in 2**-30; 0 where the log-odds are not known.
    """

    shape: tuple[int, int]
    frames: int = 0
    entries: Array = field(default_factory=lambda: np.empty(0, _DTYPE))
    rates: int = 0

    def __add__(self, other: Tally) -> Tally:
        if self.shape != other.shape:
            raise ValueError(f"tallies of {self.shape} and {other.shape} do not add")
        both = np.concatenate([self.entries, other.entries])
        pixels, place = np.unique(both["pixel"], return_inverse=True)
        entries = np.zeros(len(pixels), _DTYPE)
        entries["pixel"] = pixels
        for name in FIELDS[1:]:
            np.add.at(entries[name], place, both[name])
        return Tally(self.shape, self.frames + other.frames, entries, self.rates + other.rates)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Tally)
            and (self.shape, self.frames, self.rates) == (other.shape, other.frames, other.rates)
            and np.array_equal(self.entries, other.entries)
        )

    @classmethod
    def of(cls, mosaic: Mosaic, probability: Float32, rate: float | None = None) -> Tally:
        """What one frame says.

        Parameters
        ----------
        mosaic : Mosaic
        probability : (H, W) float32 array
            From a detector.
        rate : float, optional
            The damage rate that the probabilities have as their prior. Without it only the mean of the
            probabilities is known of this frame, no log-odds.
        """
        flat = probability.reshape(-1)
        fixed = np.rint(flat * ONE).astype(np.int32)
        least = _sigmoid(SUPPORT + _logit(rate)) if rate else 1.0
        pixels = np.flatnonzero((fixed >= LEAST) | (flat >= least))
        entries = np.zeros(len(pixels), _DTYPE)
        if len(pixels):
            entries["pixel"], entries["probability"] = pixels, fixed[pixels]
            entries["hits"] = fixed[pixels] >= ONE // 2
            entries["suspected"] = 1
            bad = np.zeros(mosaic.shape, bool)
            bad.reshape(-1)[pixels] = True
            excess, low = _excess(mosaic, bad)
            quarters = np.clip(np.rint(excess * _STEP), -_CUT, _CUT).astype(np.int64)
            entries["excess"], entries["squares"], entries["low"] = quarters, quarters**2, low
            if rate:
                ratio = _logit(np.clip(flat[pixels].astype(np.float64), 1e-12, 1 - 1e-12)) - _logit(rate)
                entries["supported"] = ratio >= SUPPORT
                entries["support"] = np.rint(np.minimum(ratio, MOST) * _NAT) * entries["supported"]
        return cls(mosaic.shape, 1, entries, round((rate or 0.0) * _RATE))

    @property
    def mean(self) -> Array:
        """(N,) float64 mean probability of the suspected pixels."""
        return self.entries["probability"] / (ONE * max(1, self.frames))

    @property
    def moves(self) -> bool:
        """Whether the scene moved between the frames: their evidence is then independent.

        The share of the other frames in which a weak suspect of one frame is suspected again, beyond what
        chance gives, is 0.03 to 0.6 for still scenes and 0 to 0.01 for moving ones. What cannot be told
        (few suspects, one frame) counts as standing still, as do darks, whose weak hot pixels return.
        """
        times, pixels = self.entries["supported"], self.shape[0] * self.shape[1]
        weak = (times > 0) & (self.entries["support"] < _WEAK * _NAT * times)
        if self.frames < 2 or not self.rates or np.count_nonzero(weak) < _FEW:
            return False
        again = float((times[weak] - 1).mean()) / (self.frames - 1)
        chance = float(times.sum()) / (self.frames * pixels)
        return again - chance < _RETURNS * (1 - chance)

    @property
    def posterior(self) -> Array:
        """(N,) float64 probability that a suspected pixel is bad, if the frames are independent."""
        support = self.entries["support"] / _NAT - ABSENT * (self.frames - self.entries["supported"])
        prior = np.clip(self.rates / (_RATE * max(1, self.frames)), 1e-9, 1 - 1e-9)
        return _sigmoid(support + _logit(prior))

    @property
    def confidence(self) -> Array:
        """(N,) float64: the accumulated probability where the scene moves, else the mean one."""
        return self.posterior if self.moves else self.mean

    def chosen(self, threshold: float = DEFAULT_THRESHOLD, max_false: float | None = None) -> Array:
        """(N,) bool: which entries count as bad.

        With `max_false` the threshold is the lowest at which the expected
        number of good pixels among the chosen ones stays within it.
        """
        confidence = self.confidence
        if max_false is None:
            return confidence >= threshold
        order = np.argsort(-confidence, kind="stable")
        allowed = np.cumsum(1 - confidence[order]) <= max_false
        keep = np.zeros(len(confidence), bool)
        keep[order[allowed]] = True
        return keep & (confidence > 0)

    def view(self, threshold: float = DEFAULT_THRESHOLD, max_false: float | None = None) -> DefectMap:
        """The flags that follow from this evidence: (H, W) DQ bits."""
        entries = self.entries[self.chosen(threshold, max_false)]
        dq = np.zeros(self.shape, np.int32)
        dq.reshape(-1)[entries["pixel"]] = self._types(entries)
        return DefectMap(dq)

    def _types(self, entries: Array) -> Array:
        """(N,) DQ bits of some entries."""
        times = np.maximum(entries["suspected"], 1)
        excess = entries["excess"] / times / _STEP
        flags = np.full(len(entries), int(DQ.DO_NOT_USE), np.int64)
        flags |= np.where(excess >= HOT_SIGMA, int(DQ.HOT), 0)
        flags |= np.where((excess >= 0) & (excess < HOT_SIGMA), int(DQ.WARM), 0)
        dead = (excess < 0) & (2 * entries["low"] >= times)
        flags |= np.where(dead, int(DQ.DEAD), 0) | np.where((excess < 0) & ~dead, int(DQ.LOW_QE), 0)
        if self.frames >= 5:
            share = entries["hits"] / self.frames
            flags |= np.where((share > 0.2) & (share < 0.8), int(DQ.TELEGRAPH), 0)
        return flags


def _logit(p: Any) -> Any:
    return np.log(p / (1 - p))


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))


def _excess(mosaic: Mosaic, bad: Bool) -> tuple[Array, Bool]:
    """Excess over the same-colour median in sigma, and whether the pixel lies near black under a signal."""
    rows, cols = np.nonzero(bad)
    noise = NoiseModel.of(mosaic)
    black = mosaic.black_at(rows, cols).astype(np.float64)
    value = mosaic.samples[rows, cols].astype(np.float64)
    middle = np.empty(len(rows))
    good = np.broadcast_to(True, mosaic.shape) if mosaic.is_integer else np.isfinite(mosaic.samples)
    for position, index in by_position(mosaic, rows, cols):
        offsets = np.array(mosaic.cfa.nearest(*position, 8))
        v, ok = neighbours(mosaic.samples, np.ascontiguousarray(good), rows[index], cols[index], offsets)
        middle[index] = masked_median(v.astype(np.float64), ok)
    middle = np.where(np.isfinite(middle), middle, value)
    sigma = noise.sigma(middle - black)
    low = (value - black <= 0.1 * (middle - black)) & (middle - black > 10 * sigma)
    return (value - middle) / sigma, low


@dataclass(frozen=True)
class Counted:
    """One frame that has been counted; exposure in s, temperature in C."""

    digest: str
    name: str = ""
    bin: Bin = Bin()
    conditions: Conditions = field(default_factory=Conditions)


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that is known of one camera.

    Parameters
    ----------
    tallies : mapping of (plane number, Bin) to Tally
    frames : mapping of digest to Counted
    """

    tallies: Mapping[tuple[int, Bin], Tally] = field(default_factory=dict)
    frames: Mapping[str, Counted] = field(default_factory=dict)

    def __add__(self, other: Evidence) -> Evidence:
        """The sum of two disjoint sets of frames.

        Raises
        ------
        ValueError
            A frame is in both: it would count twice.
        """
        if shared := self.frames.keys() & other.frames.keys():
            raise ValueError(f"{len(shared)} frames are in both parts and would count twice")
        tallies = dict(self.tallies)
        for key, tally in other.tallies.items():
            tallies[key] = tallies[key] + tally if key in tallies else tally
        frames = {**self.frames, **other.frames}
        return replace(self, tallies=dict(sorted(tallies.items(), key=_order)), frames=dict(sorted(frames.items())))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Evidence)
            and dict(self.frames) == dict(other.frames)
            and self.tallies.keys() == other.tallies.keys()
            and all(tally == other.tallies[key] for key, tally in self.tallies.items())
        )

    @property
    def planes(self) -> tuple[int, ...]:
        return tuple(sorted({plane for plane, _ in self.tallies}))

    def nearest(self, plane: int, wanted: Bin) -> tuple[Bin, Tally] | None:
        """The tally whose conditions are nearest; of equally near ones that with the most frames."""
        mine = [(bin_, tally) for (number, bin_), tally in self.tallies.items() if number == plane]
        if not mine:
            return None
        return min(mine, key=lambda item: (item[0].distance(wanted), -item[1].frames, str(item[0])))

    def view(
        self, plane: int, threshold: float = DEFAULT_THRESHOLD, max_false: float | None = None
    ) -> DefectMap | None:
        """The union of the views of all bins: bad under any of the known conditions."""
        maps = [tally.view(threshold, max_false) for (number, _), tally in self.tallies.items() if number == plane]
        if not maps:
            return None
        union = maps[0]
        for more in maps[1:]:
            union = union | more
        return union


def _order(item: tuple[tuple[int, Bin], Tally]) -> tuple[int, str]:
    (plane, bin_), _ = item
    return plane, repr(bin_)
