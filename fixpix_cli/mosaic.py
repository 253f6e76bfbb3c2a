"""Floor 1. A sensor's samples and the frame that carries them.

`Mosaic.samples` is always the full stored frame, never a crop; masked borders
lie outside `active`. The samples are in DN as the file stores them: black is
not subtracted, nothing is scaled.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

from .cfa import MONO, Cfa

Array = npt.NDArray[Any]
Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]


T = TypeVar("T")


class Lazy(Sequence[T], Generic[T]):
    """A sequence whose items are made when they are asked for; only the last one is kept.

    Parameters
    ----------
    length : int
    make : callable
        Makes item number n, 0 <= n < length.
    first : optional
        Item number 0, where it is made already.
    """

    def __init__(self, length: int, make: Callable[[int], T], first: T | None = None) -> None:
        self._length, self._make = length, make
        self._kept: tuple[int, T] | None = None if first is None else (0, first)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...

    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            numbers = range(self._length)[index]
            return Lazy(len(numbers), lambda n: self[numbers[n]])
        number = range(self._length)[index]
        if self._kept is None or self._kept[0] != number:
            self._kept = None  # the old item may be large: let it go before the next is made
            self._kept = (number, self._make(number))
        return self._kept[1]


@dataclass(frozen=True)
class Area:
    """A rectangle ``[top, bottom) x [left, right)`` in stored coordinates."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclass(frozen=True, eq=False)
class Mosaic:
    """One plane of samples behind one colour filter array.

    Parameters
    ----------
    samples : (H, W) uint8, uint16, int16, int32, uint32, float32 or float64 array, DN
        The full stored frame in native byte order. NaN marks missing data in floats.
    cfa : Cfa
        The pattern as seen from stored pixel (0, 0).
    black : (R, C) float tuple of tuples, DN
        Black level, repeating from stored pixel (0, 0).
    white : float, DN
        The level at which the sensor saturates.
    active : Area
        The light-sensitive pixels.
    limit : float or None, DN
        The greatest value that the file can hold where that is less than the stored type's (packed
        depths, linearisation tables).
    """

    samples: Array
    cfa: Cfa = MONO
    black: tuple[tuple[float, ...], ...] = ((0.0,),)
    white: float = 65535.0
    active: Area = field(default=Area(0, 0, 0, 0))
    limit: float | None = None

    def __post_init__(self) -> None:
        if self.samples.ndim != 2:
            raise ValueError(f"a mosaic has two dimensions, not {self.samples.ndim}")
        if self.active == Area(0, 0, 0, 0):
            object.__setattr__(self, "active", Area(0, 0, *self.samples.shape))

    @property
    def shape(self) -> tuple[int, int]:
        return self.samples.shape[0], self.samples.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the samples."""
        return self.samples.dtype

    @property
    def is_integer(self) -> bool:
        return self.dtype.kind in "iu"

    @property
    def legal_range(self) -> tuple[float, float]:
        """The least and the greatest value that the stored type can hold, in DN."""
        if self.is_integer:
            info = np.iinfo(self.dtype)
            return float(info.min), float(info.max if self.limit is None else self.limit)
        return -np.inf, np.inf

    def with_samples(self, samples: Array) -> Mosaic:
        """The same plane with other samples of the same shape."""
        if samples.shape != self.samples.shape:
            raise ValueError(f"shape {samples.shape} is not {self.samples.shape}")
        return replace(self, samples=samples)

    def described(
        self,
        cfa: Cfa,
        black: tuple[tuple[float, ...], ...],
        white: float,
        active: Area | None = None,
        limit: float | None = None,
    ) -> Mosaic:
        """The same samples with other colours and levels."""
        return Mosaic(self.samples, cfa, black, white, active or Area(0, 0, *self.shape), limit)

    def at(self, rows: Array, cols: Array) -> Array:
        """(N,) samples of the pixels (rows, cols), DN."""
        return np.asarray(self.samples[rows, cols])

    def cropped(self, area: Area) -> Mosaic:
        """The pixels of `area` as a mosaic of their own; CFA and black shift with the origin."""
        return Mosaic(
            samples=self.samples[area.slices],
            cfa=self.cfa.shifted(area.top, area.left),
            black=shifted_black(self.black, area.top, area.left),
            white=self.white,
            limit=self.limit,
        )

    def upside_down(self) -> Mosaic:
        """The plane with its rows in the opposite order."""
        height = self.shape[0]
        top, bottom = height - self.active.bottom, height - self.active.top
        return Mosaic(
            self.samples[::-1],
            self.cfa.flipped_rows(height),
            tuple(self.black[(height - 1 - row) % len(self.black)] for row in range(len(self.black))),
            self.white,
            Area(top, self.active.left, bottom, self.active.right),
            self.limit,
        )

    def light(self) -> Mosaic:
        """The active area alone (masked borders cut off)."""
        if self.active == Area(0, 0, *self.shape):
            return self
        return self.cropped(self.active)

    def black_frame(self, rows: slice = slice(None)) -> Float32:
        """(len(rows), W) float32 black level in DN; a broadcast view where it can be."""
        level = np.asarray(self.black, dtype=np.float32)
        height = len(range(*rows.indices(self.shape[0])))
        if level.size == 1:
            return np.broadcast_to(level, (height, self.shape[1]))
        index = np.arange(*rows.indices(self.shape[0])) % level.shape[0]
        repeat = -(-self.shape[1] // level.shape[1])
        return np.tile(level, (1, repeat))[index, : self.shape[1]]

    def black_at(self, rows: Array, cols: Array) -> Float32:
        """Black level in DN at the pixels (rows, cols), float32."""
        level = np.asarray(self.black, dtype=np.float32)
        return level[rows % level.shape[0], cols % level.shape[1]]


class Stored(Mosaic):
    """A mosaic whose samples stay in their file until they are asked for.

    `samples` reads all of them, once; `at` reads single ones, and a crop is again one that reads nothing yet: a
    repair of known pixels so touches their neighbourhoods only.

    Parameters
    ----------
    stored : (H, W) array
        What the file holds, mapped into memory: any byte order, any strides.
    decode : callable
        Turns any part of `stored` into samples in DN, native byte order, each value by itself.
    cfa, black, white, active, limit
        As for `Mosaic`.
    """

    stored: Array
    decode: Callable[[Array], Array]
    kind: np.dtype[Any]

    def __init__(
        self,
        stored: Array,
        decode: Callable[[Array], Array],
        cfa: Cfa = MONO,
        black: tuple[tuple[float, ...], ...] = ((0.0,),),
        white: float = 65535.0,
        active: Area | None = None,
        limit: float | None = None,
    ) -> None:
        facts = {"stored": stored, "decode": decode, "cfa": cfa, "black": black, "white": white, "limit": limit}
        facts |= {"active": active or Area(0, 0, *stored.shape), "kind": decode(stored[:1, :1]).dtype}
        for name, value in facts.items():
            object.__setattr__(self, name, value)

    @cached_property
    def samples(self) -> Array:
        samples = np.ascontiguousarray(self.decode(self.stored))
        if not np.may_share_memory(samples, self.stored):
            _let_go(self.stored)
        return samples

    @property
    def shape(self) -> tuple[int, int]:
        return self.stored.shape[0], self.stored.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.kind

    def described(
        self,
        cfa: Cfa,
        black: tuple[tuple[float, ...], ...],
        white: float,
        active: Area | None = None,
        limit: float | None = None,
    ) -> Mosaic:
        return Stored(self.stored, self.decode, cfa, black, white, active, limit)

    def at(self, rows: Array, cols: Array) -> Array:
        return self.decode(self.stored[rows, cols])

    def with_samples(self, samples: Array) -> Mosaic:
        if samples.shape != self.shape:
            raise ValueError(f"shape {samples.shape} is not {self.shape}")
        return Mosaic(samples, self.cfa, self.black, self.white, self.active, self.limit)

    def cropped(self, area: Area) -> Mosaic:
        if "samples" in self.__dict__:  # all of them are here: no part is decoded again
            return super().cropped(area)
        return Stored(
            self.stored[area.slices],
            self.decode,
            self.cfa.shifted(area.top, area.left),
            shifted_black(self.black, area.top, area.left),
            self.white,
            limit=self.limit,
        )


def _let_go(stored: Array) -> None:
    """Give the memory of a mapped file back: what was read once of it is as large as the samples."""
    owner: Any = stored
    while isinstance(owner, np.ndarray):
        owner = owner.base
    owner = owner.obj if isinstance(owner, memoryview) else owner
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)  # who asks again gets it from the file


def shifted_black(black: tuple[tuple[float, ...], ...], row: int, col: int) -> tuple[tuple[float, ...], ...]:
    """The repeating black pattern as seen from (row, col)."""
    rows, cols = len(black), len(black[0])
    return tuple(tuple(black[(row + r) % rows][(col + c) % cols] for c in range(cols)) for r in range(rows))


@dataclass(frozen=True)
class Identity:
    """Which sensor, read out how. Two frames with equal identities share one defect map."""

    make: str = ""
    model: str = ""
    serial: str = ""
    shape: tuple[int, int] = (0, 0)
    cfa: str = "MONO"
    binning: tuple[int, int] = (1, 1)
    readout: str = ""
    planes: int = 1

    @property
    def camera(self) -> str:
        """A name for people: make and model without the repetition, and the serial number."""
        make = "" if self.model.lower().startswith(self.make.lower()) else self.make
        name = " ".join(part for part in (make, self.model) if part) or "unknown camera"
        return f"{name} #{self.serial}" if self.serial else name


@dataclass(frozen=True)
class Conditions:
    """Under which conditions a frame was taken; None where the file does not say.

    exposure in s, gain in the camera's own units or ISO, temperature in C, time
    as the file's ISO 8601 text, kind one of dark, flat, bias, light or None.
    """

    exposure: float | None = None
    gain: float | None = None
    temperature: float | None = None
    time: str | None = None
    kind: str | None = None


@dataclass(frozen=True)
class Assume:
    """What the user says where a file is silent. None: use the file, else the defaults.

    planes: the pages of a stack or the layers of a cube are detectors of their own, not moments of one.
    hdu: the image HDUs of a FITS file to work on; empty: all of them.
    """

    cfa: Cfa | None = None
    black: tuple[float, ...] | None = None
    white: float | None = None
    camera: str | None = None
    planes: bool = False
    hdu: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Frame:
    """One file: its planes, who took it and how.

    A series (a stack of pages, a cube, a video) holds the same planes several
    times: evidence of its moments sums up into one map of `planes` planes, as if
    each moment were a file of its own, and each moment is repaired by itself.

    Parameters
    ----------
    mosaics : sequence of Mosaic
        One per image plane: one for a raw, one per image HDU of a FITS file, three for RGB. In a series those
        of the first moment, then those of the next; each is read when it is asked for (`Lazy`).
    keys : tuple of int
        What the container calls each plane of one moment (FITS: the HDU index; else 0).
    source : Path
    identity, conditions
    container : str
        The keeper's name for the format: ``fits``, ``tiff``, ``dng``, ``raw``.
    row_order : str
        ``TOP-DOWN``, ``BOTTOM-UP`` or empty where the file does not say.
    assumed : tuple of str
        What the file did not say and the defaults filled in.
    layout : object
        The keeper's private note of where the samples lie, for the rewrite.
    moments : int
        How many moments a series has; 1 for anything else. All have the planes' shapes.
    notes : tuple of str
        What a user should know of the file.
    prior : (H, W) bool array or None
        Pixels of the frame's one plane that the file itself calls bad.
    """

    mosaics: Sequence[Mosaic]
    source: Path
    keys: tuple[int, ...] = (0,)
    identity: Identity = Identity()
    conditions: Conditions = Conditions()
    container: str = ""
    row_order: str = ""
    assumed: tuple[str, ...] = ()
    layout: Any = None
    moments: int = 1
    notes: tuple[str, ...] = ()
    prior: Bool | None = None

    @property
    def planes(self) -> int:
        """Planes of one moment."""
        return len(self.mosaics) // self.moments

    def moment(self, number: int) -> tuple[Mosaic, ...]:
        """The planes of one moment."""
        return tuple(self.mosaics[number * self.planes : (number + 1) * self.planes])

    @cached_property
    def shapes(self) -> list[tuple[int, int]]:
        """Shape of each plane of one moment."""
        return [m.shape for m in self.moment(0)]

    @property
    def pixels(self) -> int:
        """Stored pixels of all planes and moments."""
        return sum(rows * cols for rows, cols in self.shapes) * self.moments

    @property
    def digest(self) -> str:
        """SHA-256 over dtype, shape and little-endian samples of every plane (CONTRACT.md)."""
        return digest(self.mosaics)


def digest(mosaics: Iterable[Mosaic]) -> str:
    """SHA-256 over dtype, shape and little-endian samples of some planes, as 64 hexadecimal digits."""
    total = hashlib.sha256()
    for mosaic in mosaics:
        little = mosaic.samples.dtype.newbyteorder("<")
        total.update(f"{little.str} {mosaic.shape[0]} {mosaic.shape[1]}\n".encode())
        data = np.ascontiguousarray(mosaic.samples.astype(little, copy=False))
        total.update(data.view(np.uint8).reshape(-1).data)
    return total.hexdigest()


@dataclass(frozen=True, eq=False)
class Edit:
    """New values for some pixels of one plane, in the stored type.

    Parameters
    ----------
    rows, cols : (N,) int64 arrays
        Stored coordinates, each pixel once.
    values : (N,) array of the mosaic's dtype, DN
    """

    rows: Array
    cols: Array
    values: Array

    @classmethod
    def between(cls, before: Array, after: Array) -> Edit:
        """The edit that turns `before` into `after` (NaN equals NaN)."""
        differs = before != after
        if before.dtype.kind == "f":
            differs &= ~(np.isnan(before) & np.isnan(after))
        rows, cols = np.nonzero(differs)
        return cls(rows, cols, after[rows, cols])

    @classmethod
    def of(cls, mosaic: Mosaic, rows: Array, cols: Array, values: Array) -> Edit:
        """The edit that gives some pixels of a mosaic these values, without those that have them already."""
        before = mosaic.at(rows, cols)
        differs = before != values
        if before.dtype.kind == "f":
            differs &= ~(np.isnan(before) & np.isnan(values))
        return cls(rows[differs], cols[differs], values[differs])

    def applied(self, samples: Array) -> Array:
        """A copy of the (H, W) samples with the edit in it."""
        after = samples.copy()
        after[self.rows, self.cols] = self.values
        return after

    def __len__(self) -> int:
        return len(self.rows)
