"""Floor 2. Camera-native raws: read with LibRaw (rawpy), written as a fresh DNG.

The keeper of rawpy and, for the DNG, of tifffile. `raw_image` is the full
stored frame. LibRaw's colour pattern is asked for at the corner of the visible
area, where its answer is right also for X-Trans with odd margins, and then
moved to the stored corner. Black levels come by colour, not by position. LibRaw
folds patterns that it does not know (Quad-Bayer, white pixels) into wrong
Bayer ones: a TIFF tag that says otherwise wins, and what is still no pattern
that LibRaw handles is refused by name.

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
from . import exiftool
from .ifd import Tree
from .tiff import cfa_of, opened, sign

_CODES = {"R": 0, "G": 1, "B": 2, "C": 3, "M": 4, "Y": 5, "W": 6}
#: XYZ (D65) to linear sRGB, for cameras of which LibRaw knows no matrix (IEC 61966-2-1).
_SRGB = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
#: The primaries that a colour lets through.
_MIXED = {"R": (1, 0, 0), "G": (0, 1, 0), "B": (0, 0, 1), "C": (0, 1, 1), "M": (1, 0, 1), "Y": (1, 1, 0)}
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
    cfa = assume.cfa or _tagged(path) or _known(path, seen).shifted(-top, -left)
    if assume.black is not None:
        given = assume.black
        black: tuple[tuple[float, ...], ...] = (given,) if len(given) == 1 else (given[:2], given[2:])
    else:
        black = shifted_black(tile, -top, -left)
    make, model, serial = ("", assume.camera, "") if assume.camera else _camera(path)
    mosaic = Mosaic(samples, cfa, black, white, active)
    identity = Identity(make, model, serial, mosaic.shape, cfa.name)
    return Frame((mosaic,), path, (0,), identity, conditions, "raw")


def _pattern(raw: Any, top: int, left: int) -> tuple[Cfa, tuple[tuple[int, ...], ...]]:
    """The CFA as seen from the visible corner, and the colour indices behind its letters."""
    if raw.num_colors == 1 or raw.raw_pattern is None or raw.raw_pattern.size == 1:
        return MONO, ((0,),)
    rows, cols = raw.raw_pattern.shape
    indices = tuple(tuple(raw.raw_color(top + r, left + c) for c in range(cols)) for r in range(rows))
    letters = raw.color_desc.decode("ascii")
    return Cfa(tuple("".join(letters[i] for i in row) for row in indices)), indices


def _tagged(path: Path) -> Cfa | None:
    """The pattern of a raw that is a TIFF with CFAPattern tags other than a Bayer tile, which LibRaw would misread."""
    with contextlib.suppress(UnreadableError):
        tree = opened(path)
        for ifd in (ifd for top in tree.chain for ifd in top.all()):
            corner = tree.values(ifd, 50829)[:2] or (0, 0)  # LibRaw rounds margins
            cfa = cfa_of(tree, ifd, Area(int(corner[0]), int(corner[1]), 0, 0))
            if cfa is not None and not cfa.is_bayer and cfa.period != (6, 6):
                return cfa
    return None


def _known(path: Path, cfa: Cfa) -> Cfa:
    """The pattern, if it is one that LibRaw tells reliably: mono, Bayer, X-Trans, or four colours in equal shares."""
    letters = "".join("".join(row) for row in cfa.tile)
    shares = sorted((letter, letters.count(letter)) for letter in set(letters))
    equal = set(letters) == set("GMCY") and len({count for _, count in shares}) == 1
    if cfa.is_grid or equal or shares == [("B", 8), ("G", 20), ("R", 8)]:
        return cfa
    raise RefusedError(
        f"{path}: has a colour filter array that fixpix does not know (LibRaw shows {letters}); state it with --cfa"
    )


def _conditions(raw: Any) -> Conditions:
    """What LibRaw knows of the exposure; zero means that it does not know."""
    other = getattr(raw, "other", None)
    shutter, iso, stamp = (getattr(other, name, 0) or 0 for name in ("shutter_speed", "iso_speed", "timestamp"))
    if isinstance(stamp, datetime.datetime):
        time: str | None = stamp.isoformat()
    else:
        time = datetime.datetime.fromtimestamp(stamp, datetime.UTC).isoformat() if stamp else None
    return Conditions(exposure=float(shutter) or None, gain=float(iso) or None, time=time)


def _camera(path: Path) -> tuple[str, str, str]:
    """Make, model and serial number: from the TIFF tags or, in Canon's CRW, from its heap (rawpy does not tell)."""
    with contextlib.suppress(UnreadableError):
        tree = opened(path)
        first = tree.chain[0]
        exif = [ifd.exif for ifd in first.all() if ifd.exif]
        serial = tree.text(first, 50735) or next(filter(None, (tree.text(place, 42033) for place in exif)), "")
        return tree.text(first, 271), tree.text(first, 272), serial
    data = path.read_bytes()
    if match := re.search(rb"(Canon)\0(Canon [ -~]{2,40})\0", data):
        return match[1].decode(), match[2].decode(), ""
    return "", "", ""


def rewrite(frame: Frame, edits: Sequence[Edit], temporary: Path) -> tuple[str, ...]:
    """Write a fresh DNG of the camera raw with the edits in it; what it lacks of the raw's metadata is a note."""
    mosaic = frame.mosaics[0]
    samples = mosaic.samples.copy()
    samples[edits[0].rows, edits[0].cols] = edits[0].values
    with _opened(frame.source) as raw:
        letters = raw.color_desc.decode("ascii")
        planes = letters if set(letters) == set("GMCY") else "RGB"
        matrix = np.asarray(raw.rgb_xyz_matrix, float)[: len(planes)]
        if not np.any(matrix) and planes == "RGB" and not mosaic.cfa.is_mono:
            matrix = _rendered_matrix(raw)
        balance = _balance(raw, len(planes))
        flip, aspect = raw.sizes.flip, float(raw.sizes.pixel_aspect)
    write_dng(temporary, frame, samples, matrix, balance, {3: 3, 5: 8, 6: 6}.get(flip, 1), planes, aspect)
    try:
        whole = exiftool.carried(frame.source, temporary)
        if _image(temporary.read_bytes(), temporary) != _image(whole, temporary):
            raise ValueError("exiftool changed the image")
    except (ValueError, UnreadableError) as error:
        return (
            f"{error}: of the metadata only camera, exposure, ISO and orientation are in the DNG; "
            "lens, dates, GPS, XMP, IPTC and maker notes are left out",
        )
    temporary.write_bytes(whole)
    return ()


def _rendered_matrix(raw: Any) -> Array:
    """(3, 3) XYZ (D65) to camera, from what LibRaw renders.

    For some cameras it has colours that it does not tell (`rgb_xyz_matrix` is
    zero): the matrix between its linear renderings in the camera's colours and in
    sRGB is those. Zero where the frame has too few colours to see it.
    """
    import rawpy

    spaces = (rawpy.ColorSpace.raw, rawpy.ColorSpace.sRGB)
    camera, srgb = (
        raw.postprocess(
            output_color=space, gamma=(1, 1), user_wb=[1, 1, 1, 1], no_auto_bright=True, half_size=True, output_bps=16
        )
        .reshape(-1, 3)
        .astype(float)
        for space in spaces
    )
    clear = np.all((camera > 500) & (camera < 60000) & (srgb > 500) & (srgb < 60000), axis=1)
    if np.count_nonzero(clear) < 1000:
        return np.zeros((3, 3))
    turned, _, rank, _ = np.linalg.lstsq(srgb[clear], camera[clear], rcond=1e-3)
    return turned.T @ _SRGB if rank == 3 else np.zeros((3, 3))


def _image(data: bytes, path: Path) -> tuple[Any, ...]:
    """All of a fresh DNG that makes its image: the encoded tiles, and the values of the tags behind them."""
    tree = Tree.of(path, data)
    first = tree.chain[0]
    tags = (256, 257, 258, 259, 262, 274, 277, 322, 323, 33421, 33422, *range(50706, 50740), 50778, 50829)
    where = zip(tree.values(first, 324), tree.values(first, 325), strict=True)
    tiles = [bytes(data[start : start + size]) for start, size in where]
    return tiles, [tree.values(first, tag) for tag in tags]


def _balance(raw: Any, count: int) -> Array | None:
    """White balance multipliers of the colours as shot, or None where the file has none."""
    wb = np.asarray(raw.camera_whitebalance[:count], float)
    return wb if np.all(wb > 0) else None


def write_dng(
    path: Path,
    frame: Frame,
    samples: Array,
    matrix: Array,
    balance: Array | None,
    orientation: int = 1,
    planes: str = "RGB",
    aspect: float = 1.0,
) -> None:
    """Write a mosaic as a DNG 1.4.

    Parameters
    ----------
    path : Path
    frame : Frame
        For camera, CFA, levels, active area and conditions.
    samples : (H, W) uint8 or uint16 array, DN
    matrix : (C, 3) array
        XYZ (D65) to camera; all zero: that of sRGB.
    balance : (C,) array or None
        White balance multipliers as shot; None: unknown, and the reader's to choose as it is for the raw.
    orientation : int
        EXIF's number.
    planes : str of C letters
        The colours of the mosaic in the order of `matrix` and `balance`.
    aspect : float
        Width of a pixel over its height.

    Raises
    ------
    RefusedError
        Samples or colours that do not go into a DNG.
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
    if len({level for row in black for level in row}) == 1:
        black = ((black[0][0],),)
    name = " ".join(dict.fromkeys(f"{frame.identity.make} {frame.identity.model}".split())) or "unknown camera"
    if not cfa.is_mono and not set(cfa.colours) <= set(planes):
        raise RefusedError(f"{frame.source}: the colours of {cfa.name} are unknown; a DNG of them would be wrong")
    if not np.any(matrix):
        mixed = np.array([_MIXED[letter] for letter in planes], float)
        matrix = mixed / mixed.sum(axis=1, keepdims=True) @ _SRGB
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
        tags += [
            (33421, 3, 2, (rows, cols), True),
            (33422, 1, len(pattern), pattern, True),
            (50710, 1, len(planes), bytes(_CODES[letter] for letter in planes), True),
            (50711, 3, 1, 1, True),
            (50721, 10, matrix.size, _rationals(list(matrix.reshape(-1)), 10000), True),
            (50778, 3, 1, 21, True),
        ]
        if balance is not None:
            tags.append((50728, 5, len(planes), _rationals(list(balance[1] / balance), 1_000_000), True))
    if aspect != 1.0:
        tags.append((50718, 5, 2, _rationals([aspect, 1.0], 1_000_000), True))
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
