"""Floor 2. SER video: a series of uncompressed frames after a header of 178 bytes.

Source: SER format description version 3 (H. Wilkens, G. Hahn, 2014). Frames are
read one at a time and repaired pixels are patched in a copy, so that memory does
not follow the length of the video; the time stamps behind the frames stay.

The header's LittleEndian cannot be trusted: the description says 1 for little
endian, the first programs wrote 0, and later ones (Siril, among others) follow
them. So the pixels decide: an image is smooth in the right byte order only.
"""

from __future__ import annotations

import datetime
import shutil
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .. import safe
from ..cfa import MONO, Cfa
from ..errors import RefusedError, UnreadableError
from ..mosaic import Array, Assume, Conditions, Edit, Frame, Identity, Lazy, Mosaic

_HEADER = struct.Struct("<14s7i40s40s40sqq")
_MAGIC = b"LUCAM-RECORDER"
#: ColorID -> the tile at the upper left pixel.
_MOSAICS = {
    0: MONO,
    8: Cfa(("RG", "GB")),
    9: Cfa(("GR", "BG")),
    10: Cfa(("GB", "RG")),
    11: Cfa(("BG", "GR")),
    16: Cfa(("CY", "YM")),
    17: Cfa(("YC", "MY")),
    18: Cfa(("YM", "CY")),
    19: Cfa(("MY", "YC")),
}
#: ColorIDs of three samples per pixel, RGB and BGR.
_COLOURS = (100, 101)
#: Ticks of 100 ns from the year 1 to the Unix epoch.
_EPOCH = 621_355_968_000_000_000


@dataclass(frozen=True)
class Layout:
    """How the frames are stored: count, height, width, samples per pixel, and the type of a sample."""

    frames: int
    height: int
    width: int
    samples: int
    dtype: str

    @property
    def size(self) -> int:
        """Samples of one frame."""
        return self.height * self.width * self.samples

    @property
    def bytes(self) -> int:
        """Bytes of one frame."""
        return self.size * np.dtype(self.dtype).itemsize

    def read(self, path: Path, number: int) -> Array:
        """(H, W, S) samples of one frame, in native byte order.

        Raises
        ------
        UnreadableError
            The file has become shorter, or cannot be read.
        """
        try:
            values = np.fromfile(path, self.dtype, self.size, offset=_HEADER.size + number * self.bytes)
        except OSError as error:
            raise UnreadableError(f"{path}: cannot be read ({safe.reason(error)})") from error
        if len(values) < self.size:
            raise UnreadableError(f"{path}: is truncated (frame {number} is missing)")
        native = values.astype(values.dtype.newbyteorder("="), copy=False)
        return native.reshape(self.height, self.width, self.samples)


def load(path: Path, assume: Assume) -> Frame:
    """Read a SER video; its frames are read when they are asked for; see `fixpix_cli.files.load`."""
    with open(path, "rb") as stream:
        head = stream.read(_HEADER.size)
    if len(head) < _HEADER.size or not head.startswith(_MAGIC):
        raise UnreadableError(f"{path}: is not a SER video")
    _, _, colour, _, width, height, depth, frames, _, instrument, _, local, utc = _HEADER.unpack(head)
    layout = _layout(path, colour, width, height, depth, frames)
    assumed = []
    white = assume.white
    if white is None:
        white = float((1 << depth) - 1)
        if (top := int(layout.read(path, 0).max())) > white:  # some programs shift the samples to the top
            white = float(np.iinfo(layout.dtype).max)
            assumed.append(f"white {white:g} (its samples reach {top}, in spite of {depth} bits)")
    if assume.black is None:
        assumed.append("black 0")
    levels = assume.black or (0.0,)
    black = (levels,) if len(levels) == 1 else (levels[:2], levels[2:])
    cfa = assume.cfa or _MOSAICS.get(colour, MONO)
    if colour in _COLOURS and assume.cfa is not None:
        raise RefusedError(f"{path}: is an RGB video: it has no colour filter array, leave --cfa out for it")
    pages = Lazy(layout.frames, lambda number: layout.read(path, number))

    def mosaic(number: int) -> Mosaic:
        samples = pages[number // layout.samples][..., number % layout.samples]
        return Mosaic(np.ascontiguousarray(samples), cfa, black, white)

    moments = 1 if assume.planes else layout.frames
    planes = layout.frames * layout.samples // moments
    model = assume.camera or instrument.split(b"\0")[0].decode("utf-8", "replace").strip()
    identity = Identity(model=model, shape=(layout.height, layout.width), cfa=cfa.name, planes=planes)
    return Frame(
        Lazy(layout.frames * layout.samples, mosaic), path, tuple(range(planes)), identity,
        Conditions(time=_time(utc) or _time(local)), "ser", assumed=tuple(assumed), layout=layout, moments=moments,
    )  # fmt: skip


def _layout(path: Path, colour: int, width: int, height: int, depth: int, frames: int) -> Layout:
    """What the header says of the frames, checked against the file.

    Raises
    ------
    UnreadableError
        It contradicts itself or the file.
    RefusedError
        A kind of pixel that is not handled.
    """
    if width <= 0 or height <= 0 or not 1 <= depth <= 16:
        raise UnreadableError(f"{path}: is damaged (frames of {width} x {height} with {depth} bits)")
    if colour not in _MOSAICS and colour not in _COLOURS:
        raise RefusedError(f"{path}: ColorID {colour} is not in the SER format description")
    samples = 3 if colour in _COLOURS else 1
    size = width * height * samples * (1 if depth <= 8 else 2)
    there = max(0, path.stat().st_size - _HEADER.size)
    if frames <= 0:
        raise UnreadableError(
            f"{path}: its header counts {frames} frames ({there // size} would fit): it was not closed in order"
        )
    if frames * size > there:
        raise UnreadableError(f"{path}: is truncated ({there // size} of {frames} frames are there)")
    layout = Layout(frames, height, width, samples, "u1" if depth <= 8 else "<u2")
    if depth <= 8:
        return layout
    little = layout.read(path, 0)
    return replace(layout, dtype=">u2") if _roughness(little.byteswap()) < _roughness(little) else layout


def _roughness(samples: Array) -> float:
    """Mean absolute difference of (H, W, S) samples to those two columns on, in DN: of one colour in any mosaic."""
    wide = samples.astype(np.float32)
    return float(np.abs(wide[:, 2:] - wide[:, :-2]).mean()) if wide.shape[1] > 2 else 0.0


def _time(ticks: int) -> str | None:
    """ISO 8601 text of a SER date (100 ns since the year 1); None where there is none."""
    try:
        moment = datetime.datetime.fromtimestamp((ticks - _EPOCH) / 1e7, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") if ticks > 0 else None


def rewrite(frame: Frame, edits: Sequence[Edit], temporary: Path) -> None:
    """Copy the video and patch the edited samples."""
    layout: Layout = frame.layout
    size = np.dtype(layout.dtype).itemsize
    shutil.copyfile(frame.source, temporary)
    with open(temporary, "r+b") as stream:
        for number in range(layout.frames):
            mine = edits[number * layout.samples : (number + 1) * layout.samples]
            places = [(e.rows * layout.width + e.cols) * layout.samples + n for n, e in enumerate(mine)]
            for place, values in zip(places, mine, strict=True):
                if len(values):
                    start = _HEADER.size + number * layout.bytes + int(place.min()) * size
                    _patch(stream, start, (place - place.min()), values.values.astype(layout.dtype))


def _patch(stream: BinaryIO, start: int, places: Array, values: Array) -> None:
    """Overwrite single samples; `places` count samples from byte `start`."""
    stream.seek(start)
    part = np.frombuffer(bytearray(stream.read((int(places.max()) + 1) * values.itemsize)), values.dtype)
    part[places] = values
    stream.seek(start)
    stream.write(part.tobytes())


def sign(path: Path, provenance: Any) -> bool:
    """A SER header has no place for it."""
    return False
