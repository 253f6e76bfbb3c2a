"""Floor 2. The spot detector: a small net on the few candidates of a frame, where a unet judges every pixel.

At damage rates up to a few percent nothing but candidates (`candidates`) can be bad and be found. They are a percent
of the pixels of an ordinary frame, so the net may look at each of them more closely than a unet can afford.

Net and rules fail on different pixels: the rules flag sharp texture, the net what stands out of a noise that it takes
for less than it is (of a camera with a strong fixed pattern, four fifths of what the net alone flagged was good). So a
pixel needs both: the mean of their log-likelihood ratios, but at most a little more than the lesser one. Where a judge
knows the CFA (`verdicts`), it decides instead, except in crowds and in long exposures.

In clusters and lines bad pixels hide each other. There all pixels are judged, without the suspects around them, and
that again until no suspect is new: layer after layer comes off.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from ..candidates import beside, candidates
from ..cfa import Cfa
from ..classical import CROWDED, logit, rate_of, ratios_at
from ..crowds import below_surroundings, crowded_pixels
from ..levels import Statistics
from ..mosaic import Array, Bool, Float32, Mosaic
from ..normalise import spots, verdicts
from ..repair import by_position, masked_median
from ..stars import share_their_light
from ..tiles import each, neighbours
from . import registry
from .sessions import Session
from .verdicts import VerdictDetector

#: Log odds from which a pixel is a suspect, without which those beside it are judged again, and the damage rate from
#: which they are: where damage is rarer the suspects beside each other are mostly of the few sharp stars taken for bad.
_PROBABLE, _FREQUENT = 4.0, 0.002
#: Candidates that a thread works on at a time.
PART = 8192
#: Log-likelihood ratio of the net below which a candidate is good whatever the rules say.
_DOUBTFUL = -6.0
#: The same from which candidates may make a crowd, and from which a pixel of a crowd is a suspect. Chosen on the
#: validation cameras, as are the numbers below.
_STRONG, _SUSPECT = 6.0, 4.0
#: The least candidates of a crowd (`crowds.crowds`), and the least damage rate that they are compared with.
_FEWEST, _SPARSE = (2, 4), 1e-4
#: How often the pixels of a crowd are judged at most; by how many nats they may be likelier bad than others.
_ROUNDS, _LIKELIER = 4, 2.0
#: What stands in the place of a suspect: the median of so many trusted ones among so many of its colour.
_TRUSTED, _AROUND = 6, 24
#: What the net says of no star (of 1,631 pixels of stars 1.5 pixels wide and wider that it takes for bad, of one).
#: What a judge says in its place is no better: bad pixels beside edges, which seem to share their light, would be a
#: seventh less error at 1 % damage, but of stars 1.3 pixels wide behind colour filters it took hundreds for bad.
_NO_STAR = 12.0
#: Log-likelihood ratio of a pixel that is good beyond doubt.
GOOD = np.float32(-12.0)


@dataclass(frozen=True, eq=False)
class Spots:
    """The candidates of a plane and what the net says of them.

    Parameters
    ----------
    pixels : (N,) int64 array
        Row * W + column in the plane without masked borders, ascending.
    ratios : (N,) float32 array
        Log-likelihood ratios of bad against good.
    rate : float
        The damage rate under which they explain themselves; the other pixels count as good.
    peeled : bool
        Whether some crowd, so that they hid each other.
    """

    pixels: Array
    ratios: Float32
    rate: float
    peeled: bool = False

    def replaced(self, pixels: Array, ratios: Float32, size: int, least: float) -> Spots:
        """With other answers for some pixels, in a plane of `size` pixels, and the rate that they make, or `least`."""
        outside = ~np.isin(self.pixels, pixels, assume_unique=True)
        whole = np.concatenate([self.pixels[outside], pixels])
        both = np.concatenate([self.ratios[outside], ratios])
        order = np.argsort(whole, kind="stable")
        rate = max(least, rate_of(both, clear=-np.inf, others=size - len(whole)))
        return Spots(whole[order], both[order], rate, self.peeled)


@dataclass(frozen=True, eq=False)
class SpotDetector:
    """Bad pixels among the candidates of a plane.

    Parameters
    ----------
    session : Session
    """

    session: Session

    @classmethod
    def open(cls, name: str | Path = "spot", threads: int = 1) -> SpotDetector:
        """The shipped model by name (verified) or a user's own .onnx by path.

        Raises
        ------
        ModelError
        """
        inputs: dict[str, tuple[int | str, ...]] = {
            "window": (spots.LENGTH, "n"),
            "pattern": (1, len(spots.patterns())),
        }
        session = registry.open_model(name, "detect", "spot", {spots.NORMALISATION: inputs}, threads)
        keys = ("most_rate", "most_share", "most_crowded", "temperature", "agreement", "doubt", "alone", "caution")
        session.card.require_above_zero(session.source, keys)
        return cls(session)

    def serving(self, key: str) -> float:
        """A number of the card's serving section."""
        return self.session.card.number(key, self.session.source)

    def supports(self, cfa: Cfa) -> bool:
        """Whether the net has weights for every position of this pattern: mono, Bayer, X-Trans, Quad-Bayer."""
        return spots.views(cfa) is not None

    def __call__(
        self,
        light: Mosaic,
        seen: Statistics,
        long: bool = False,
        alone: bool = False,
        threads: int = 1,
        judge: VerdictDetector | None = None,
    ) -> Spots | None:
        """Judge a plane's candidates.

        Weak outliers of long exposures are warm and hot pixels, and as many as the rules say: their rate is the prior,
        and the net, which knows faint stars that look like them, may lower the rules' evidence less (the card's
        ``doubt``). Without that, of 150 hot pixels of 8 to 15 sigma in a frame of 120 s four were left.

        Parameters
        ----------
        light : Mosaic
            Without masked borders, of a CFA that it supports; floats as `levels.comparable` makes them. Damage of
            more than a few percent must be out of the question: at 70 % little stands out of its neighbours, and the
            noise seems to be so great that nothing is a candidate.
        seen : Statistics
        long : bool
            Whether the exposure is a long one.
        alone : bool
            Whether no other net knows the CFA: then crowds are peeled however many there are.
        threads : int
            Parts that are worked on at the same time; the result does not depend on it.
        judge : VerdictDetector, optional
            Who has the last word on doubtful candidates outside of crowds; of a CFA that it supports.

        Returns
        -------
        Spots, or None
            None where there is more damage, or texture, than the card says the net is for.
        """
        light = light.with_samples(np.ascontiguousarray(light.samples))
        pixels = candidates(light, seen, threads)
        if len(pixels) > self.serving("most_share") * light.samples.size:
            return None
        told = self.told(light, seen, pixels, threads)
        good = light.samples.size - len(pixels)
        first = rate_of(told, clear=-np.inf, others=good)
        stage, doubtful = ("extreme" if first < CROWDED else "light"), np.flatnonzero(told > _DOUBTFUL)
        rules = np.full(len(pixels), GOOD)
        rules[doubtful] = ratios_at(light, seen, pixels[doubtful], stage)
        asked = verdicts.Verdicts(light, seen, pixels, told)
        ratios = self._weighed(asked, rules, doubtful, long, judge, threads)
        bright = doubtful[((ratios[doubtful] > 0) | (long & (rules[doubtful] > 0))) & (told[doubtful] < _NO_STAR)]
        stars = np.zeros(len(pixels), bool)
        stars[bright] = share_their_light(light, seen, pixels[bright])
        ratios[stars] = GOOD
        clear = doubtful[~stars[doubtful]]
        least = rate_of(rules[clear], others=light.samples.size - len(doubtful)) if long else 0.0
        found = Spots(pixels, ratios, max(least, rate_of(ratios, clear=-np.inf, others=good)))
        found = self._uncovered(asked, found, rules, long, least, judge, threads)
        agreement = self.serving("doubt" if long else "agreement")
        strong = pixels[told > _STRONG]
        expected = min(max(first, _SPARSE), self.serving("most_rate"))
        region = crowded_pixels(light.shape, strong, below_surroundings(light, strong), expected, _FEWEST)
        if not alone and len(region) > self.serving("most_crowded") * light.samples.size:
            return None
        if len(region):
            found = self._peeled(light, seen, found, pixels[told > _SUSPECT], region, agreement, least, threads)
        return found if found.rate <= self.serving("most_rate") else None

    def _weighed(
        self,
        asked: verdicts.Verdicts,
        rules: Float32,
        wanted: Array,
        long: bool,
        judge: VerdictDetector | None,
        threads: int,
    ) -> Float32:
        """(N,) log-likelihood ratios: net and rules together, of `wanted`; what a judge says of the doubtful ones."""
        told = asked.told
        ratios = told.copy()
        ratios[wanted] = together(rules[wanted], told[wanted], self.serving("doubt" if long else "agreement"))
        # In pairs and threes bad pixels hide each other from the rules: there the net may decide, if it is very sure.
        np.maximum(ratios, told - np.float32(self.serving("alone")), out=ratios)
        if judge:
            clear = told > verdicts.MOST
            np.maximum(ratios, (told + rules) / 2, out=ratios, where=clear)
            ratios[asked.index] = judge.ratios(asked, rules[asked.index], threads)
        return ratios

    def _uncovered(
        self,
        asked: verdicts.Verdicts,
        found: Spots,
        rules: Float32,
        long: bool,
        least: float,
        judge: VerdictDetector | None,
        threads: int,
    ) -> Spots:
        """Candidates that touch suspects, and what two suspects hide, judged again in surroundings without them."""
        if found.rate < _FREQUENT:
            return found
        light, seen = asked.light, asked.seen
        suspects = found.pixels[found.ratios + np.float32(logit(found.rate)) > _PROBABLE]
        hidden, touching = beside(light, suspects)
        again = np.union1d(hidden, np.intersect1d(touching, found.pixels, assume_unique=True))
        if not len(again):
            return found
        good = np.ones(light.shape, bool) if light.is_integer else np.isfinite(light.samples)
        clean = light.with_samples(light.samples.copy())
        fill(light, good, suspects, clean.samples)
        own = light.samples.reshape(-1)[again]
        pixels = np.union1d(found.pixels, again)
        old, new = (np.searchsorted(pixels, mine) for mine in (found.pixels, again))
        told, both = np.empty(len(pixels), np.float32), np.empty(len(pixels), np.float32)
        told[old], both[old] = asked.told, rules
        told[new] = self.told(clean, seen, again, threads, own)
        both[new] = ratios_at(clean, seen, again, "light", own)
        whole = verdicts.Verdicts(light, seen, pixels, told)
        ratios = self._weighed(whole, both, new, long, judge, threads)[new]
        bright = np.flatnonzero((ratios > 0) & (told[new] < _NO_STAR))
        stars = bright[share_their_light(clean, seen, again[bright], own[bright])]
        ratios[stars] = GOOD
        return found.replaced(again, ratios, light.samples.size, least)

    def told(self, light: Mosaic, seen: Statistics, pixels: Array, threads: int, own: Array | None = None) -> Float32:
        """What the net alone says of some pixels, (N,) log-likelihood ratios; `own` as in `normalise.spots.encode`."""
        ratios, which = np.empty(len(pixels), np.float32), np.eye(len(spots.patterns()), dtype=np.float32)
        temperature = np.float32(self.serving("temperature"))

        def judge(start: int) -> None:
            part = slice(start, start + PART)
            mine = None if own is None else own[part]
            for pattern, index, features in spots.encode(light, seen, pixels[part], mine):
                answer = self.session.run(window=features, pattern=which[pattern : pattern + 1])["ratio"]
                ratios[part][index] = answer / temperature

        each(judge, range(0, len(pixels), PART), threads)
        return ratios

    def _peeled(
        self,
        light: Mosaic,
        seen: Statistics,
        found: Spots,
        suspects: Array,
        region: Array,
        agreement: float,
        least: float,
        threads: int,
    ) -> Spots:
        """Every pixel of the crowds judged again, in surroundings without the suspects, until these stay the same.

        Where damage is that dense it is also likelier: the prior there is the region's own, up to a limit.
        """
        own = light.samples.reshape(-1)[region]
        suspects = suspects[np.isin(suspects, region, assume_unique=True)]
        good = np.ones(light.shape, bool) if light.is_integer else np.isfinite(light.samples)
        clean = light.with_samples(light.samples.copy())
        filled = suspects[:0]
        for _ in range(_ROUNDS):
            clean.samples.reshape(-1)[filled] = light.samples.reshape(-1)[filled]
            fill(light, good, suspects, clean.samples)
            alone = self.told(clean, seen, region, threads, own)
            filled, suspects = suspects, region[alone > _SUSPECT]
            if np.array_equal(filled, suspects):
                break
        ratios = together(ratios_at(clean, seen, region, "extreme", own), alone, agreement)
        found = found.replaced(region, ratios, light.samples.size, least)
        likelier = logit(rate_of(ratios, clear=-np.inf)) - logit(found.rate)
        mine = np.isin(found.pixels, region, assume_unique=True)
        found.ratios[mine] += np.float32(min(max(likelier, 0.0), _LIKELIER))
        return replace(found, peeled=True)


def fill(light: Mosaic, good: Bool, suspects: Array, out: Array) -> None:
    """Put the median of the nearest trusted pixels of the colour in the place of each suspect.

    Parameters
    ----------
    light : Mosaic
    good : (H, W) bool array
        Where it has samples.
    suspects : (N,) integer array
        Row * W + column.
    out : (H, W) array
        Filled in there alone.
    """
    good.reshape(-1)[suspects] = False
    rows, cols = np.divmod(suspects, light.shape[1])
    for position, index in by_position(light, rows, cols):
        r, c = rows[index], cols[index]
        v, ok = neighbours(light.samples, good, r, c, np.array(light.cfa.nearest(*position, _AROUND)))
        ok &= np.cumsum(ok, axis=1) <= _TRUSTED
        middle = masked_median(v.astype(np.float64), ok)
        if light.is_integer:
            middle = np.rint(middle)
        out[r, c] = np.where(np.isfinite(middle), middle, light.samples[r, c])
    good.reshape(-1)[suspects] = light.is_integer | np.isfinite(light.samples.reshape(-1)[suspects])


def together(rules: Float32, net: Float32, agreement: float) -> Float32:
    """The mean of two log-likelihood ratios, but at most `agreement` more than the lesser one."""
    return np.minimum((rules + net) / np.float32(2), np.minimum(rules, net) + np.float32(agreement))


@cache
def shipped_spot() -> SpotDetector:
    """The shipped spot detector, opened once per process.

    Raises
    ------
    ModelError
        It is missing or not what SHA256SUMS says.
    """
    return SpotDetector.open("spot")
