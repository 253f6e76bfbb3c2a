"""Floor 2. Camera-native raws: read with LibRaw (rawpy), written as a fresh DNG.

The keeper of rawpy and, for the DNG, of tifffile. `raw_image` is the full
stored frame. LibRaw's colour pattern is asked for at the corner of the visible
area, where its answer is right also for X-Trans with odd margins, and then
moved to the stored corner. Black levels come by colour, not by position.

The DNG follows what Adobe's validator, LibRaw, dcraw, darktable and RawTherapee
accept: lossless JPEG in tiles of 256 x 256 with two components, 16 bits stated,
ColorMatrix1 and AsShotNeutral always present, classic TIFF.
"""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..cfa import MONO, Cfa
from ..errors import RefusedError, UnreadableError
from ..mosaic import Area, Array, Assume, Conditions, Edit, Frame, Identity, Mosaic, shifted_black
from .tiff import opened, sign

_CODES = {"R": 0, "G": 1, "B": 2, "C": 3, "M": 4, "Y": 5, "W": 6}
#: XYZ (D65) to linear sRGB, for cameras of which LibRaw knows no matrix (IEC 61966-2-1).
_SRGB = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
_TILE = 256
#: Pixels per byte of a camera raw at most: one bit each, the shortest code there is.
_MOST_PER_BYTE = 8


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The raw file, unpacked; LibRaw's errors become ours."""
    import rawpy

    try:
        with rawpy.imread(str(path)) as raw:
            _check_size(path, raw.sizes)  # before LibRaw makes room for the pixels
            yield raw
    except rawpy.LibRawFileUnsupportedError as error:
        raise UnreadableError(f"{path}: is damaged, or a camera raw that LibRaw does not know") from error
    except rawpy.LibRawUnsufficientMemoryError as error:
        raise MemoryError(f"{path}: LibRaw") from error
    except rawpy.LibRawError as error:
        text = error.args[0] if error.args else ""
        words = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
        raise UnreadableError(f"{path}: is damaged or truncated (LibRaw: {words or type(error).__name__})") from error


def _check_size(path: Path, sizes: Any) -> None:
    """Refuse a header that claims more pixels than a lossless code can put into the file's bytes."""
    size = path.stat().st_size
    if sizes.raw_width * sizes.raw_height > size * _MOST_PER_BYTE:
        raise UnreadableError(
            f"{path}: claims {sizes.raw_width} x {sizes.raw_height} pixels, too many for a file of {size} bytes"
        )


def load(path: Path, assume: Assume) -> Frame:
    """Read a camera raw; see `fixpix_cli.files.load`."""
    import rawpy

    with _opened(path) as raw:
        if raw.raw_type != rawpy.RawType.Flat or raw.raw_image.ndim != 2:
            raise RefusedError(f"{path}: is no mosaic (sRAW, YCC or a layered sensor); fixpix repairs mosaics")
        size = raw.sizes
        samples = raw.raw_image.copy()
        top, left = size.top_margin, size.left_margin
        active = Area(top, left, min(top + size.height, samples.shape[0]), min(left + size.width, samples.shape[1]))
        seen, indices = _pattern(raw, top, left)
        levels = raw.black_level_per_channel
        tile = tuple(tuple(float(levels[i]) for i in row) for row in indices)
        white = assume.white or float(raw.white_level)
        conditions = _conditions(raw)
    cfa = assume.cfa or seen.shifted(-top, -left)
    if assume.black is not None:
        given = assume.black
        black: tuple[tuple[float, ...], ...] = (given,) if len(given) == 1 else (given[:2], given[2:])
    else:
        black = shifted_black(tile, -top, -left)
    make, model = ("", assume.camera) if assume.camera else _camera(path)
    mosaic = Mosaic(samples, cfa, black, white, active)
    identity = Identity(make, model, "", mosaic.shape, cfa.name)
    return Frame((mosaic,), path, (0,), identity, conditions, "raw")


def _pattern(raw: Any, top: int, left: int) -> tuple[Cfa, tuple[tuple[int, ...], ...]]:
    """The CFA as seen from the visible corner, and the colour indices behind its letters."""
    if raw.num_colors == 1 or raw.raw_pattern is None or raw.raw_pattern.size == 1:
        return MONO, ((0,),)
    rows, cols = raw.raw_pattern.shape
    indices = tuple(tuple(raw.raw_color(top + r, left + c) for c in range(cols)) for r in range(rows))
    letters = raw.color_desc.decode("ascii")
    return Cfa(tuple("".join(letters[i] for i in row) for row in indices)), indices


def _conditions(raw: Any) -> Conditions:
    """What LibRaw knows of the exposure; zero means that it does not know."""
    other = getattr(raw, "other", None)
    shutter, iso, stamp = (getattr(other, name, 0) or 0 for name in ("shutter_speed", "iso_speed", "timestamp"))
    if isinstance(stamp, datetime.datetime):
        time: str | None = stamp.isoformat()
    else:
        time = datetime.datetime.fromtimestamp(stamp, datetime.UTC).isoformat() if stamp else None
    return Conditions(exposure=float(shutter) or None, gain=float(iso) or None, time=time)


def _camera(path: Path) -> tuple[str, str]:
    """Make and model: from the TIFF tags or, in Canon's CRW, from its heap (rawpy does not tell)."""
    with contextlib.suppress(UnreadableError):
        tree = opened(path)
        return tree.text(tree.chain[0], 271), tree.text(tree.chain[0], 272)
    data = path.read_bytes()
    if match := re.search(rb"(Canon)\0(Canon [ -~]{2,40})\0", data):
        return match[1].decode(), match[2].decode()
    return "", ""


def rewrite(frame: Frame, edits: Sequence[Edit], temporary: Path) -> None:
    """Write a fresh DNG of the camera raw with the edits in it."""
    mosaic = frame.mosaics[0]
    samples = mosaic.samples.copy()
    samples[edits[0].rows, edits[0].cols] = edits[0].values
    with _opened(frame.source) as raw:
        matrix = np.asarray(raw.rgb_xyz_matrix)[:3]
        balance = _balance(raw)
        flip = raw.sizes.flip
    write_dng(temporary, frame, samples, matrix, balance, {3: 3, 5: 8, 6: 6}.get(flip, 1))


def _balance(raw: Any) -> Array:
    """White balance multipliers of red, green and blue; those for daylight, or ones, where the file has none."""
    for given in (raw.camera_whitebalance, raw.daylight_whitebalance):
        wb = np.asarray(given[:3], float)
        if np.all(wb > 0):
            return wb
    return np.ones(3)


def write_dng(path: Path, frame: Frame, samples: Array, matrix: Array, balance: Array, orientation: int = 1) -> None:
    """Write a mosaic as a DNG 1.4.

    Parameters
    ----------
    path : Path
    frame : Frame
        For camera, CFA, levels, active area and conditions.
    samples : (H, W) uint8 or uint16 array, DN
    matrix : (3, 3) array
        XYZ (D65) to camera; all zero: that of sRGB.
    balance : (3,) array
        White balance multipliers.
    """
    import tifffile

    mosaic = frame.mosaics[0]
    height, width = samples.shape
    area, cfa = mosaic.active, mosaic.cfa
    if samples.dtype not in (np.uint8, np.uint16):
        raise RefusedError(f"{frame.source}: {samples.dtype} samples do not go into a DNG")
    samples = samples.astype(np.uint16)
    seen = cfa.shifted(area.top, area.left)
    rows, cols = seen.period
    black = shifted_black(mosaic.black, area.top, area.left)
    if (len(black), len(black[0])) == (1, 1):
        black = ((black[0][0],),)
    name = " ".join(dict.fromkeys(f"{frame.identity.make} {frame.identity.model}".split())) or "unknown camera"
    if not np.any(matrix):
        matrix = _SRGB
    crop = (area.bottom - area.top, area.right - area.left)
    tags: list[tuple[int, int, int, Any, bool]] = [
        (50706, 1, 4, b"\1\4\0\0", True),
        (50707, 1, 4, b"\1\1\0\0", True),
        (50708, 2, 0, name, True),
        (50713, 3, 2, (len(black), len(black[0])), True),
        (50714, 5, len(black) * len(black[0]), _rationals([v for row in black for v in row], 100), True),
        (50717, 4, 1, round(mosaic.white), True),
        (50829, 4, 4, (area.top, area.left, area.bottom, area.right), True),
        (50719, 4, 2, (0, 0), True),
        (50720, 4, 2, (crop[1], crop[0]), True),
        (274, 3, 1, orientation, True),
    ]
    if not cfa.is_mono:
        pattern = bytes(_CODES[seen.colour(r, c)] for r in range(rows) for c in range(cols))
        neutral = balance[1] / balance
        tags += [
            (33421, 3, 2, (rows, cols), True),
            (33422, 1, len(pattern), pattern, True),
            (50710, 1, 3, b"\0\1\2", True),
            (50711, 3, 1, 1, True),
            (50721, 10, 9, _rationals(list(matrix.reshape(-1)), 10000), True),
            (50778, 3, 1, 21, True),
            (50728, 5, 3, _rationals(list(neutral), 1_000_000), True),
        ]
    if frame.identity.make:
        tags.append((271, 2, 0, frame.identity.make, True))
    if frame.identity.model:
        tags.append((272, 2, 0, frame.identity.model, True))
    if frame.identity.serial:
        tags.append((50735, 2, 0, frame.identity.serial, True))
    if frame.conditions.exposure:
        tags.append((33434, 5, 1, _rationals([frame.conditions.exposure], 1_000_000), True))
    if frame.conditions.gain:
        tags.append((34855, 3, 1, min(65535, round(frame.conditions.gain)), True))
    with tifffile.TiffWriter(path, bigtiff=False, byteorder="<") as writer:
        writer.write(
            _tiles(samples),
            shape=(height, width),
            dtype=np.uint16,
            photometric="minisblack" if cfa.is_mono else 32803,
            compression=7,
            tile=(_TILE, _TILE),
            bitspersample=16,
            subfiletype=0,
            metadata=None,
            software=f"fixpix {__version__}",
            extratags=tags,
        )
    if cfa.is_mono:  # tifffile refuses LinearRaw of one sample
        with tifffile.TiffFile(path, mode="r+") as file:
            file.pages.first.tags[262].overwrite(34892)


def _tiles(samples: Array) -> Iterator[bytes]:
    """Encoded tiles, row by row; the last ones repeat the frame's edge."""
    import imagecodecs

    height, width = samples.shape
    padded = np.pad(samples, ((0, -height % _TILE), (0, -width % _TILE)), mode="edge")
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            tile = np.ascontiguousarray(padded[top : top + _TILE, left : left + _TILE])
            block = tile.reshape(_TILE, _TILE // 2, 2)
            yield bytes(imagecodecs.jpeg8_encode(block, lossless=True, predictor=1, bitspersample=16))


def _rationals(values: Sequence[float], denominator: int) -> tuple[int, ...]:
    """Numerators and denominators in turn."""
    return tuple(part for v in values for part in (round(v * denominator), denominator))


__all__ = ["load", "rewrite", "sign", "write_dng"]
