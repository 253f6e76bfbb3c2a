"""Floor 1. Damage with known truth: the one place where fixpix makes bad pixels.

Three kinds of values (EVALUATION.md; FixPix section 5.1):

relative
    For a stored value v (black included) and white M the bad value is uniform
    in [0, (1 - d) v] or, with probability 1/2 where (1 + d) v <= M, in
    [(1 + d) v, M].
fixed
    One factor per pixel, kept for all frames: uniform in [0, 1 - d] or [1 + d, 5].
sensor
    What sensors do: hot (dark current x exposure, heavy-tailed), warm (a few
    sigma), dead, stuck, saturated, low response, telegraph noise (two levels,
    switching from frame to frame).

The truth marks exactly the pixels whose stored value changed. A draw that
leaves the value as it was is drawn again; a pixel that cannot change is left
out. Positions, and whatever belongs to the pixel rather than to the frame,
follow from the seed and the frame's shape alone, so that a series of frames
gets one camera's defects; the values also follow from `frame_key`.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .defects import DQ
from .errors import UsageError
from .mosaic import Array, Bool, Edit, Mosaic
from .noise import NoiseModel

KINDS = ("relative", "fixed", "sensor")
#: sensor kind: type, share of the damaged pixels, DQ bits
SENSOR_TYPES: tuple[tuple[str, float, DQ], ...] = (
    ("hot", 0.40, DQ.HOT),
    ("warm", 0.20, DQ.WARM),
    ("dead", 0.10, DQ.DEAD),
    ("stuck", 0.05, DQ.OTHER_BAD_PIXEL),
    ("saturated", 0.05, DQ.SATURATED),
    ("low response", 0.10, DQ.LOW_QE),
    ("telegraph", 0.10, DQ.TELEGRAPH),
)
_TRIES = 64


@dataclass(frozen=True)
class Injection:
    """What damage to make.

    Parameters
    ----------
    rate : float
        Share of the active pixels, 0 to 1.
    delta : float
        d of the relative and fixed kinds, above 0 and below 1.
    kind : str
        One of `KINDS`.
    pattern : str
        ``scattered``, ``cluster:K`` (K x K blocks), ``columns``, ``rows``; or
        ``map`` where the caller gives the positions.
    seed : int
    """

    rate: float = 0.001
    delta: float = 0.7
    kind: str = "relative"
    pattern: str = "scattered"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise UsageError(f"rate {self.rate:g} is not between 0 and 1 (write 0.01% or 0.0001)")
        if not 0 < self.delta < 1:
            raise UsageError(f"delta {self.delta:g} is not between 0 and 1")
        if self.kind not in KINDS:
            raise UsageError(f"unknown kind {self.kind!r}: use {', '.join(KINDS)}")
        cluster_side(self.pattern)


def cluster_side(pattern: str) -> int:
    """K of ``cluster:K``; 1 for the other patterns.

    Raises
    ------
    UsageError
        The pattern is not known.
    """
    if pattern in ("scattered", "columns", "rows", "map"):
        return 1
    name, _, side = pattern.partition(":")
    if name == "cluster" and side.isdigit() and 1 <= int(side) <= 64:
        return int(side)
    raise UsageError(f"unknown pattern {pattern!r}: use scattered, cluster:K, columns, rows or map:FILE")


@dataclass(frozen=True, eq=False)
class Damage:
    """A damaged plane: the samples, and the truth as (H, W) int32 DQ flags."""

    samples: Array
    dq: npt.NDArray[np.int32]

    @property
    def count(self) -> int:
        return int(np.count_nonzero(self.dq))


def positions(mosaic: Mosaic, spec: Injection) -> tuple[Array, Array]:
    """Stored coordinates of the pixels to damage, sorted row by row.

    Returns
    -------
    rows, cols : (N,) int64 arrays
        Inside the active area, without repetition.
    """
    area = mosaic.active
    height, width = area.bottom - area.top, area.right - area.left
    rng = np.random.default_rng([spec.seed, height, width, 1])
    count = _count(spec.rate, height * width)
    if spec.pattern in ("columns", "rows"):
        flat = _lines(rng, height, width, spec)
    elif (side := cluster_side(spec.pattern)) > 1:
        flat = _clusters(rng, height, width, side, count)
    else:
        flat = rng.choice(height * width, count, replace=False, shuffle=False)
    flat = np.sort(flat)
    return flat // width + area.top, flat % width + area.left


def _count(rate: float, pixels: int) -> int:
    return min(pixels, max(1, round(rate * pixels))) if rate > 0 else 0


def _clusters(rng: np.random.Generator, height: int, width: int, side: int, count: int) -> Array:
    """Blocks of side x side whose union has about `count` pixels, cut at the frame's edge."""
    side_r, side_c = min(side, height), min(side, width)
    blocks = max(1, round(count / (side_r * side_c))) if count else 0
    grid = (height - side_r + 1) * (width - side_c + 1)
    corner = rng.choice(grid, min(blocks, grid), replace=False)
    r, c = corner // (width - side_c + 1), corner % (width - side_c + 1)
    block = np.arange(side_r)[:, None] * width + np.arange(side_c)[None, :]
    return np.unique((r * width + c)[:, None] + block.reshape(1, -1))


def _lines(rng: np.random.Generator, height: int, width: int, spec: Injection) -> Array:
    """Whole lines and, every third, a part of one, with about rate x pixels pixels in all."""
    along, across = (height, width) if spec.pattern == "columns" else (width, height)
    lines = min(across, _count(spec.rate, across))
    mask = np.zeros((across, along), bool)
    for order, line in enumerate(rng.choice(across, lines, replace=False)):
        start, stop = sorted(rng.integers(0, along + 1, 2)) if order % 3 == 2 else (0, along)
        mask[line, start : max(stop, start + 1)] = True
    return np.flatnonzero(mask.T if spec.pattern == "columns" else mask)


def inject(
    mosaic: Mosaic,
    spec: Injection,
    *,
    frame_key: str = "",
    exposure: float = 1.0,
    where: Bool | None = None,
) -> Damage:
    """Damage a plane.

    Parameters
    ----------
    mosaic : Mosaic
    spec : Injection
    frame_key : str
        What tells this frame from the others of a series (its name): values
        that change from frame to frame follow from it.
    exposure : float, s
        For the dark current of the sensor kind.
    where : (H, W) bool array, optional
        The pixels to damage instead of drawn positions.

    Returns
    -------
    Damage
    """
    rows, cols = np.nonzero(where) if where is not None else positions(mosaic, spec)
    values = mosaic.samples[rows, cols].astype(np.float64)
    usable = np.isfinite(values)
    rows, cols, values = rows[usable], cols[usable], values[usable]
    frame_rng = np.random.default_rng([spec.seed, zlib.crc32(frame_key.encode()), 2])
    pixel_rng = np.random.default_rng([spec.seed, *mosaic.shape, 3])
    kinds = np.full(len(rows), int(DQ.OTHER_BAD_PIXEL), np.int64)
    if spec.kind == "relative":
        bad = _relative(values, spec.delta, mosaic, frame_rng)
    elif spec.kind == "fixed":
        bad = _fixed(values, spec.delta, mosaic, pixel_rng)
    else:
        bad, kinds = _sensor(values, rows, cols, mosaic, exposure, pixel_rng, frame_rng)
    samples = mosaic.samples.copy()
    samples[rows, cols] = bad.astype(samples.dtype)
    dq = np.zeros(mosaic.shape, np.int32)
    changed = samples[rows, cols] != mosaic.samples[rows, cols]
    dq[rows[changed], cols[changed]] = kinds[changed] | int(DQ.DO_NOT_USE)
    return Damage(samples, dq)


def edit_of(mosaic: Mosaic, damage: Damage) -> Edit:
    """The damage as an edit of the plane."""
    return Edit.between(mosaic.samples, damage.samples)


def _stored(values: Array, mosaic: Mosaic) -> Array:
    """Values as the file can hold them."""
    if not mosaic.is_integer:
        return values.astype(mosaic.samples.dtype).astype(np.float64)
    low, high = mosaic.legal_range
    return np.clip(np.rint(values), low, high)


def _relative(values: Array, delta: float, mosaic: Mosaic, rng: np.random.Generator) -> Array:
    white = np.floor(mosaic.white) if mosaic.is_integer else mosaic.white
    bad = values.copy()
    pending = np.arange(len(values))
    for _ in range(_TRIES):
        v = values[pending]
        high_from = (1 + delta) * v
        high = (high_from <= white) & (rng.random(len(v)) < 0.5)
        draw = rng.random(len(v))
        above, below = high_from + draw * (white - high_from), draw * (1 - delta) * v
        if mosaic.is_integer:  # the bounds hold after rounding, too
            above, below = np.minimum(np.ceil(above), white), np.floor(below)
        bad[pending] = _stored(np.where(high, above, below), mosaic)
        pending = pending[bad[pending] == values[pending]]
        if not len(pending):
            break
    return bad


def _fixed(values: Array, delta: float, mosaic: Mosaic, rng: np.random.Generator) -> Array:
    low = rng.random(len(values)) < 0.5
    draw = rng.random(len(values))
    factor = np.where(low, draw * (1 - delta), 1 + delta + draw * (4 - delta))
    return _stored(np.minimum(values * factor, np.maximum(mosaic.white, values)), mosaic)


def _sensor(
    values: Array,
    rows: Array,
    cols: Array,
    mosaic: Mosaic,
    exposure: float,
    pixel_rng: np.random.Generator,
    frame_rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Values and DQ types; the physics of each pixel follow from `pixel_rng` alone."""
    count = len(values)
    black = mosaic.black_at(rows, cols).astype(np.float64)
    span = mosaic.white - float(np.mean(mosaic.black))
    noise = NoiseModel.of(mosaic).sigma(values - black)
    shares = np.array([share for _, share, _ in SENSOR_TYPES])
    kind = pixel_rng.choice(len(SENSOR_TYPES), count, p=shares / shares.sum())
    current = span * 0.02 * pixel_rng.lognormal(0.0, 1.2, count)  # DN/s, heavy-tailed
    warm = pixel_rng.uniform(4, 10, count)
    level = pixel_rng.uniform(0, 1, count)
    response = pixel_rng.uniform(0.1, 0.8, count)
    step = span * pixel_rng.uniform(0.02, 0.3, count)
    duty = pixel_rng.uniform(0.2, 0.8, count)
    on = frame_rng.random(count) < duty
    scatter = frame_rng.standard_normal(count)
    candidates = np.stack(
        [
            values + current * max(exposure, 0.0) + noise * scatter,
            values + warm * noise,
            black + noise * scatter * 0.5,
            black + level * span,
            np.full(count, mosaic.white),
            black + (values - black) * response,
            values + np.where(on, step, 0.0),
        ]
    )
    bad = candidates[kind, np.arange(count)]
    bits = np.array([int(flag) for _, _, flag in SENSOR_TYPES], np.int64)
    return _stored(np.clip(bad, 0 if mosaic.is_integer else -np.inf, mosaic.white), mosaic), bits[kind]
