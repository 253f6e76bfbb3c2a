"""What the detector sees of a densely damaged plane at a second look: nine or fifteen features of every pixel.

A first look (`features`) leaves suspects. Without them, level, noise and neighbours mean something again, where at
40 % damage every one of eight neighbours' extremes is bad. Per pixel p, from the trusted pixels of its own tile
position within one step (8) and within two (24)::

    level    asinh(10 p / median of the colour) / 4
    near     asinh((p - mean of the trusted of 8) / 2 sigma) / 2
    far      asinh((p - mean of the trusted of 24) / 2 sigma) / 2
    above    asinh((p - greatest trusted of 24) / 2 sigma) / 2
    below    asinh((least trusted of 24 - p) / 2 sigma) / 2
    first    the first look's log-likelihood ratio / 8, -1.5 to 1.5
    trusted  share of the 24
    alike    log of the distance to the second most alike of the 8, as a share of p
    alikes   the same to the fourth most alike of the 24, trusted or not

in DN above the floor, level and sigma taken from the trusted pixels alone. What has no trusted neighbour is 0.
Phases, packing, edges and neighbours where colours are no grid are those of `features`. The net of dense damage sees
those of `modes`, too.

Why `alike` and `alikes`: where the scene is brighter than half of white, damage at d = 0.7 is dark alone, and at 70 %
the majority. Nets without them took it for the scene and the good pixels for the damage, whole regions at once (of the
brightest third of a test frame they found 56 %, 57 % of what they flagged was bad). Good pixels are fewer there but
alike, and nothing that is measured against the trusted ones says so. They did not do where the surroundings are dark:
see `modes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from ..classical import trusted_of
from ..levels import Levels, levels
from ..mosaic import Bool, Float32, Mosaic
from . import modes, patterns
from .features import CHUNK, Part, half_sigma, level_feature, pack, phase_of, ratio_feature, step_of

#: Name and version of this input contract.
NORMALISATION = "second-3"
FEATURES = 9 + modes.FEATURES
CHANNELS = 4 * FEATURES
#: The contract without `modes`.
PLAIN, PLAIN_CHANNELS = "second-2", 4 * 9


@dataclass(frozen=True, eq=False)
class Second:
    """A plane ready to be looked at again.

    Parameters
    ----------
    levels : Levels
        From the trusted pixels.
    first : (H, W) float32 array
        Log-likelihood ratios of the first look.
    trusted : (H, W) bool array
    phase : (int, int)
        As in `features.Seen`.
    contract : str
        NORMALISATION or PLAIN.
    """

    levels: Levels
    first: Float32
    trusted: Bool
    phase: tuple[int, int]
    contract: str = NORMALISATION

    @classmethod
    def of(cls, light: Mosaic, first: Float32, rate: float, contract: str = NORMALISATION) -> Second:
        """From the ratios of the first look and the damage rate that they have as the prior."""
        trusted = trusted_of(first, rate)
        return cls(levels(light, ~trusted), first, trusted, phase_of(light.cfa), contract)

    @cached_property
    def scale(self) -> float:
        """What `modes` compares values by, DN."""
        floors = self.levels.floor.values()
        return modes.scale_of(self.levels.samples) + sum(floors) / len(floors) / 32

    def features(self, rows: tuple[int, int], cols: tuple[int, int]) -> Float32:
        """The packed features of a rectangle; see `features.Seen.features`.

        Returns
        -------
        (channels of the contract, h, w) float32 array
        """
        (top, bottom), width = rows, cols[1] - cols[0]
        channels = PLAIN_CHANNELS if self.contract == PLAIN else CHANNELS
        out = np.empty((channels, (bottom - top) // 2, width // 2), np.float32)
        tall = max(2, CHUNK // width // 2 * 2) if self.levels.cfa.is_grid else bottom - top
        for row in range(top, bottom, tall):
            end = min(row + tall, bottom)
            out[:, (row - top) // 2 : (end - top) // 2] = self._features((row, end), cols)
        return out

    def _features(self, rows: tuple[int, int], cols: tuple[int, int]) -> Float32:
        """A few rows of the same: their arrays stay in the processor's cache."""
        cfa = self.levels.cfa
        step = step_of(cfa)
        part = Part.of(self.levels, self.phase, rows, cols, 2 * step if cfa.is_grid else patterns.reach(cfa, 24))
        ok, agreed = self.trusted[part.outer], []
        around: tuple[Float32, ...]
        if self.contract != PLAIN:
            wide = Part.of(self.levels, self.phase, rows, cols, 2 * modes.reach(cfa))
            above = wide.samples + wide.floor_around
            agreed = modes.modes(above, self.scale, step) if cfa.is_grid else modes.among(above, self.scale, wide.cfa)
        if cfa.is_grid:
            around, unlike = _around(part.samples, ok, step), _unlike(part.samples, part.own, step)
        else:
            around, unlike = patterns.trusted(part.samples, ok, part.cfa), patterns.unlike(part.samples, part.cfa)
        near, far, count, greatest, least = around
        x = part.own
        near, far, greatest, least = (np.where(np.isfinite(a), a, x) for a in (near, far, greatest, least))
        scale, half = half_sigma(self.levels, far + part.floor), np.float32(0.5)
        return pack(
            level_feature(x, part.middle),
            np.arcsinh((x - near) * scale) * half,
            np.arcsinh((x - far) * scale) * half,
            np.arcsinh((x - greatest) * scale) * half,
            np.arcsinh((least - x) * scale) * half,
            ratio_feature(self.first[part.inner]),
            count / np.float32(24),
            *_alike(unlike, x, part.middle),
            *agreed,
        )


def _alike(unlike: tuple[Float32, Float32], x: Float32, middle: Float32) -> list[Float32]:
    """Distances to alike neighbours as shares of the pixels, logarithmic, -1.75 to 0.25."""
    floor = middle / np.float32(512)
    share = np.float32(1) / (np.maximum(x, 0) + floor)
    return [np.clip(np.log((apart + floor) * share), np.float32(-7), np.float32(1)) / np.float32(4) for apart in unlike]


def _unlike(p: Float32, x: Float32, step: int) -> tuple[Float32, Float32]:
    """The distance to the second most alike of 8 neighbours and to the fourth most alike of 24."""
    height, width = x.shape
    least: list[Float32] = []
    out = []
    within = product((-1, 0, 1), repeat=2)
    beyond = [(r, c) for r, c in product(range(-2, 3), repeat=2) if 2 in (abs(r), abs(c))]
    for offsets, rank in ((list(within), 2), (beyond, 4)):
        for dr, dc in offsets:
            if not (dr or dc):
                continue
            top, left = (2 + dr) * step, (2 + dc) * step
            unlike = np.abs(p[top : top + height, left : left + width] - x)
            for number, other in enumerate(least):
                least[number], unlike = np.minimum(other, unlike), np.maximum(other, unlike)
            if len(least) < 4:
                least.append(unlike)
        out.append(least[rank - 1])
    return out[0], out[1]


def _around(p: Float32, ok: Bool, step: int) -> tuple[Float32, Float32, Float32, Float32, Float32]:
    """Of the trusted ones without the pixel: the mean within one step; mean, count, greatest and least within two.

    NaN or an infinity where there is none.
    """
    edge = 2 * step
    height, width = p.shape[0] - 2 * edge, p.shape[1] - 2 * edge
    known = ok.astype(np.float32)
    value, least, greatest = p * known, *(np.where(ok, p, np.float32(end)) for end in (np.inf, -np.inf))

    def shifted(array: Float32, dr: int, dc: int) -> Float32:
        return array[edge + dr * step : edge + dr * step + height, edge + dc * step : edge + dc * step + width]

    totals, counts = [], []
    for reach in (1, 2):
        total, count = np.zeros((2, height, width), np.float32)
        for dr in range(-reach, reach + 1):
            for dc in range(-reach, reach + 1):
                if dr or dc:
                    total += shifted(value, dr, dc)
                    count += shifted(known, dr, dc)
        totals.append(total)
        counts.append(count)
    ends = []  # of the lines of five above and below, and of the pixel's own without itself
    for array, extreme in ((greatest, np.maximum), (least, np.minimum)):
        lines = extreme(array[:, : -4 * step], array[:, step : -3 * step])
        extreme(lines, array[:, 3 * step : -step], out=lines)
        extreme(lines, array[:, 4 * step :], out=lines)
        end = lines[edge : edge + height].copy()
        extreme(lines, array[:, 2 * step : -2 * step], out=lines)
        for dr in (-2, -1, 1, 2):
            extreme(end, lines[edge + dr * step : edge + dr * step + height], out=end)
        ends.append(end)
    with np.errstate(invalid="ignore", divide="ignore"):
        return totals[0] / counts[0], totals[1] / counts[1], counts[1], ends[0], ends[1]
