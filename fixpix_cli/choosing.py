"""Floor 1. Which of a camera's known pixels are bad in one frame: by the nearest conditions, or the model.

The rule, for a frame of given exposure, gain and temperature:

1. The darks (with biases) and the lights (with frames of unknown kind) whose conditions are nearest count as they are
   if they lie within `NEAR`, one step of exposure, in what both state; each kind by itself, since a dark shows what
   a scene hides.
2. Where no dark is that near, but the darks of this gain state their exposures, the dark-current model takes their
   place: pixels that scale are bad with the probability that their predicted excess stands out of this frame's noise
   (`limits`); of the others stands what the nearest darks say. Pixels that are stuck or saturated are bad everywhere.
3. Where neither is to be had, the nearest evidence of any kind counts as it is, and a note says how far it is.
4. Flats tell dead pixels and those of low response, at any distance; of hot ones they say nothing to other frames.
   A flat is served by flats first.

A pixel's probability is the greatest that one of these gives; `--threshold`, `--max-false`
and `--confidence` choose from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from . import kinds
from .darkcurrent import Kind, Model, probability
from .defects import DQ, DefectMap
from .evidence import DARK, DEFAULT_THRESHOLD, FLAT, LIGHT, Bin, Evidence, Tally
from .mosaic import Array, Conditions, Mosaic
from .noise import NoiseModel
from .suspects import STEP
from .tally import above

#: Conditions are near within so many stops: one step of exposure.
NEAR = 0.5
#: Beyond so many stops the user is told, where nothing better than the nearest evidence is to be had.
FAR = 2.0
#: A predicted excess is bad above so many sigma of the frame's noise where the darks do not show where they draw
#: that line themselves, and above this share of the range in any case.
SIGMAS, SHARE = 5.0, 0.05
#: Fewest bad pixels that show the line, and its bounds in sigma.
_FEW, _LOW, _HIGH = 20, 3.5, 10.0
#: Probability of a pixel that is known as stuck.
_SURE = 0.99


@dataclass(frozen=True, eq=False)
class Choice:
    """The flags of one plane, and what a user should know of how they came about."""

    view: DefectMap
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Part:
    """Suspects of one origin: (N,) flat places, (N,) probabilities, and their DQ bits by index."""

    pixels: Array
    confidence: Array
    flags: Callable[[Array], Array]


def choose(
    evidence: Evidence,
    plane: int,
    wanted: Conditions,
    mosaic: Callable[[], Mosaic],
    model: Callable[[int | None], Model | None],
    threshold: float = DEFAULT_THRESHOLD,
    max_false: float | None = None,
    precision: float | None = None,
) -> Choice | None:
    """The bad pixels of one plane of a frame, by the rule above.

    Parameters
    ----------
    evidence : Evidence
    plane : int
    wanted : Conditions
        The frame's.
    mosaic : callable
        Gives the frame's plane, turned like the map; asked only where the model serves.
    model : callable
        Gives the dark current of this plane for a gain (of `Bin.gain`).
    threshold, max_false, precision
        As of `Tally.chosen`.

    Returns
    -------
    Choice or None
        None where nothing is known of the plane.
    """
    keep = partial(above, threshold=threshold, max_false=max_false, precision=precision)
    bin_ = Bin.of(wanted)
    nearest = evidence.nearest(plane, bin_)
    if nearest is None:
        return None
    families = (FLAT,) if wanted.kind == FLAT else (DARK,) if wanted.kind in (DARK, "bias") else (DARK, LIGHT)
    found = {family: evidence.nearest(plane, bin_, family) for family in (*families, DARK)}
    near = {
        family: told
        for family, told in found.items()
        if told and told[0][0].distance(bin_, unstated=0) <= NEAR and family in families
    }
    parts, notes = [_measured(tally) for _, tally in near.values()], []
    darks = found[DARK]
    if FLAT not in near and DARK not in near and darks is not None and (law := _law(darks[0], wanted, model)):
        part, note = _predicted(law, darks, wanted, mosaic(), keep)
        parts.append(part)
        where = " and ".join(_said(b.kind, *evidence.conditions(b)) for b in darks[0])
        notes.append(f"nearest darks are {where}; this frame is {note}")
    if not parts:
        own = [told for family in families if (told := found[family]) is not None]
        bins, tally = min(own or [nearest], key=lambda told: told[0][0].distance(bin_))
        parts.append(_measured(tally))
        if (distance := bins[0].distance(bin_)) >= FAR:
            notes.append(f"nearest conditions are {_named(bins)}, {distance:.1f} stops from this frame's")
    if FLAT not in near:
        parts += [_unresponsive(t) for (n, b), t in evidence.tallies.items() if n == plane and b.kind == FLAT]
    return Choice(_view(parts, nearest[1].shape, keep), tuple(notes))


def _law(bins: tuple[Bin, ...], wanted: Conditions, model: Callable[[int | None], Model | None]) -> Model | None:
    """The model that can speak for a frame: of its gain, where exposures are known."""
    if wanted.exposure is None and wanted.kind != "bias":
        return None
    gain = Bin.of(wanted).gain
    return model(gain if gain is not None else bins[0].gain)


def _named(bins: tuple[Bin, ...]) -> str:
    return " and ".join(map(str, bins))


def _measured(tally: Tally) -> _Part:
    entries = tally.entries
    return _Part(entries["pixel"], tally.confidence, lambda at: kinds.flags(entries[at], tally.frames, tally.pictures))


def _unresponsive(tally: Tally) -> _Part:
    """The dead pixels and those of low response."""
    whole = _measured(tally)
    dim = np.flatnonzero(tally.entries["excess"] < 0)
    return _Part(whole.pixels[dim], whole.confidence[dim], lambda at: whole.flags(dim[at]))


def limits(model: Model, predicted: Array, mosaic: Mosaic, sigmas: float) -> Array:
    """(N,) float64, DN: the excess from which each pixel of a model is bad in this frame.

    `sigmas` times the frame's noise at the pixel's own signal less the predicted excess, but at most `SHARE` of the
    range from black to white.
    """
    rows, cols = np.divmod(model.pixels, mosaic.shape[1])
    black = mosaic.black_at(rows, cols).astype(np.float64)
    signal = mosaic.samples[rows, cols].astype(np.float64) - black - np.nan_to_num(predicted)
    noise = NoiseModel.of(mosaic).sigma(np.nan_to_num(signal))
    limit: Array = np.minimum(sigmas * noise, SHARE * (mosaic.white - black))
    return limit


def line_of(tally: Tally) -> float:
    """Where a tally draws the line between good and bad: the excess in sigma that errs least about its own choice."""
    sigmas = tally.entries["excess"] / np.maximum(tally.entries["suspected"], 1) / STEP
    order = np.argsort(sigmas)
    bad = tally.chosen()[order] & (sigmas[order] > 0)
    if np.count_nonzero(bad) < _FEW:
        return SIGMAS
    wrong = np.cumsum(bad) + np.cumsum(~bad[::-1])[::-1] - ~bad
    return float(np.clip(sigmas[order][np.argmin(wrong)], _LOW, _HIGH))


def _predicted(
    model: Model,
    darks: tuple[tuple[Bin, ...], Tally],
    wanted: Conditions,
    mosaic: Mosaic,
    keep: Callable[[Array], Array],
) -> tuple[_Part, str]:
    """The nearest darks' suspects with the model's word on those that scale, and the note on the difference."""
    tally = darks[1]
    exposure = 0.0 if wanted.kind == "bias" else wanted.exposure or 0.0
    excess, error = model.predict(exposure, wanted.temperature)
    line = line_of(tally)
    limit = limits(model, excess, mosaic, line)
    scaling = model.kind == Kind.SCALING
    told = np.where(scaling, probability(np.nan_to_num(excess), np.nan_to_num(error, nan=1.0), limit), 0.0)
    told[np.isin(model.kind, (Kind.STUCK, Kind.SATURATED))] = _SURE
    measured = _measured(tally)
    known = np.isin(measured.pixels, model.pixels[scaling], assume_unique=True)
    rest = np.flatnonzero(~known)
    hot = np.where(np.nan_to_num(excess) >= kinds.HOT_SIGMA / line * limit, int(DQ.HOT), int(DQ.WARM))
    hot[model.kind == Kind.STUCK] = int(DQ.OTHER_BAD_PIXEL)
    hot[model.kind == Kind.SATURATED] = int(DQ.SATURATED)
    pixels = np.concatenate([model.pixels, measured.pixels[rest]])
    confidence = np.concatenate([told, measured.confidence[rest]])

    def flags(at: Array) -> Array:
        out = np.empty(len(at), np.int64)
        own = at < len(model.pixels)
        out[own] = hot[at[own]] | int(DQ.DO_NOT_USE)
        out[~own] = measured.flags(rest[at[~own] - len(model.pixels)])
        return out

    now = model.pixels[keep(told) & scaling]
    before = measured.pixels[keep(measured.confidence)]
    new = len(now) - len(np.intersect1d(now, before, assume_unique=True))
    gone = len(np.setdiff1d(np.intersect1d(before, model.pixels[scaling]), now))
    note = (
        f"{_said(wanted.kind, wanted.exposure, wanted.temperature)}: {len(now):,} bad pixels predicted from the "
        f"dark current (doubling in {model.doubling:.1f} +- {model.doubling_error:.1f} C, "
        f"{'measured' if model.fitted else 'assumed'}), of which {new:,} are not bad in those darks; "
        f"{gone:,} that are bad there drop out"
    )
    faintest = model.limit * model.dose(exposure, wanted.temperature)
    if len(limit) and faintest > (least := float(np.median(limit))):
        note += (
            f"; the darks show dark currents down to what gives {faintest:.0f} DN here, weaker ones that this frame's "
            f"noise does not hide (above {least:.0f} DN) are not known"
        )
    return _Part(pixels, confidence, flags), note


def _said(kind: str | None, exposure: float | None, temperature: float | None) -> str:
    time = "a bias" if kind == "bias" else "of unknown exposure" if exposure is None else f"{exposure:.3g} s"
    return f"{time}, {'of unknown temperature' if temperature is None else f'{temperature:.0f} C'}"


def _view(parts: list[_Part], shape: tuple[int, int], keep: Callable[[Array], Array]) -> DefectMap:
    """The flags of the pixels that the parts together find bad."""
    pixels, place = np.unique(np.concatenate([part.pixels for part in parts]), return_inverse=True)
    confidence = np.concatenate([part.confidence for part in parts])
    best = np.zeros(len(pixels))
    np.maximum.at(best, place, confidence)
    chosen = keep(best)[place] & (confidence >= best[place])
    flags = np.zeros(len(pixels), np.int32)
    start = 0
    for part in parts:
        at = np.flatnonzero(chosen[start : start + len(part.pixels)])
        flags[place[start + at]] |= part.flags(at).astype(np.int32)
        start += len(part.pixels)
    return DefectMap.listed(shape, pixels[flags != 0], flags[flags != 0])
