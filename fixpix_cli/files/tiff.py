"""Floor 2. TIFF frames: one-channel images and mosaics, and RGB images, in strips or tiles.

An RGB image is a frame of three mono planes; a fourth sample (alpha) is no part of the frame and stays as it is.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..cfa import MONO, Cfa
from ..errors import RefusedError, UnreadableError
from ..mosaic import Area, Array, Assume, Conditions, Edit, Frame, Identity, Mosaic, shifted_black
from . import segments
from .ifd import Ifd, Tree

_LETTERS = "RGBCMYW"
#: PhotometricInterpretation (TIFF 6.0, section 8; TIFF/EP) of what is handled, and names of the others.
ONE_CHANNEL, RGB = (0, 1, 32803), 2
_KINDS = {0: "gray", 1: "gray", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "CIELab", 9: "ICCLab",
          10: "ITULab", 32803: "CFA", 34892: "LinearRaw"}  # fmt: skip


def opened(path: Path) -> Tree:
    """The directories of a TIFF or DNG, over a memory map of the file."""
    if not path.stat().st_size:
        raise UnreadableError(f"{path}: is empty")
    with open(path, "rb") as stream:
        return Tree.of(path, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))


def load(path: Path, assume: Assume) -> Frame:
    """Read the image of a TIFF; see `fixpix_cli.files.load`."""
    tree = opened(path)
    ifd = _image(tree)
    colours = _colours(tree, ifd)
    if colours > 1:
        if assume.cfa is not None:
            raise RefusedError(f"{path}: is an RGB image: it has no colour filter array, leave --cfa out for it")
        assume = replace(assume, cfa=MONO)
    raster = segments.raster_of(tree, ifd)
    samples = segments.read(tree, raster)
    planes = [np.ascontiguousarray(samples[..., n]) for n in range(colours)]
    told = [describe(tree, ifd, plane, assume, raster.bits, n) for n, plane in enumerate(planes)]
    mosaics = tuple(mosaic for mosaic, _ in told)
    assumed = tuple(dict.fromkeys(text for _, texts in told for text in texts))
    identity, conditions = identity_of(tree, ifd, mosaics, assume), conditions_of(tree, ifd)
    return Frame(mosaics, path, tuple(range(colours)), identity, conditions, "tiff", assumed=assumed)


def _colours(tree: Tree, ifd: Ifd) -> int:
    """How many samples of a pixel are the image: 1, or 3 of an RGB image.

    Raises
    ------
    RefusedError
        Another kind of picture, by name.
    """
    samples, photometric = int(tree.number(ifd, 277) or 1), int(tree.number(ifd, 262) or 0)
    if photometric in ONE_CHANNEL and samples == 1:
        return 1
    if photometric == RGB and samples in (3, 4):
        return 3
    kind = _KINDS.get(photometric, f"photometric {photometric}")
    raise RefusedError(
        f"{tree.path}: has {samples} channels ({kind}); fixpix handles one-channel TIFFs (mono images and mosaics) "
        "and RGB with or without alpha"
    )


def _image(tree: Tree) -> Ifd:
    """The one full-size image of the file.

    Raises
    ------
    RefusedError
        Several full-size pages.
    """
    full = [ifd for ifd in tree.chain if not int(tree.number(ifd, 254) or 0) & 1]
    pages = [ifd for ifd in full if 256 in ifd.entries]
    if not pages:
        raise UnreadableError(f"{tree.path}: holds no image")
    if len(pages) > 1:
        raise RefusedError(f"{tree.path}: has {len(pages)} pages; split it into single images")
    return pages[0]


def describe(
    tree: Tree, ifd: Ifd, samples: Array, assume: Assume, bits: int, channel: int = 0
) -> tuple[Mosaic, tuple[str, ...]]:
    """A mosaic with what the tags, or else the user and the defaults, say of it."""
    from .fits import default_white

    assumed = []
    height, width = samples.shape
    active = Area(0, 0, height, width)
    if len(box := tree.values(ifd, 50829)) == 4:
        top, left, bottom, right = map(int, box)
        if 0 <= top < bottom <= height and 0 <= left < right <= width:
            active = Area(top, left, bottom, right)
    cfa = assume.cfa or cfa_of(tree, ifd, active)
    if cfa is None:
        cfa = MONO
        if tree.number(ifd, 262) != 34892:
            assumed.append("cfa MONO")
    if assume.black is not None:
        levels = assume.black
        black: tuple[tuple[float, ...], ...] = (levels,) if len(levels) == 1 else (levels[:2], levels[2:])
    else:
        black = black_of(tree, ifd, active, channel)
        if not black:
            black = ((0.0,),)
            assumed.append("black 0")
    white = assume.white
    if white is None and (values := tree.values(ifd, 50717)):
        white = float(values[min(channel, len(values) - 1)])
    if white is None:
        white = float((1 << bits) - 1) if samples.dtype.kind == "u" and bits <= 16 else default_white(samples)
        assumed.append(f"white {white:g}")
    return Mosaic(samples, cfa, black, white, active), tuple(assumed)


def cfa_of(tree: Tree, ifd: Ifd, active: Area) -> Cfa | None:
    """The pattern of CFAPattern (33422), which is anchored at the active area, as seen from (0, 0)."""
    dims, pattern = tree.values(ifd, 33421), tree.raw(ifd, 33422)
    if len(dims) != 2 or not pattern or dims[0] * dims[1] != len(pattern):
        return None
    if max(pattern) >= len(_LETTERS):
        raise RefusedError(f"{tree.path}: its colour filter array has colours that fixpix does not know")
    letters = "".join(_LETTERS[code] for code in pattern)
    rows, cols = map(int, dims)
    cfa = Cfa(tuple(letters[r * cols : (r + 1) * cols] for r in range(rows)))
    return cfa.shifted(-active.top, -active.left)


def black_of(tree: Tree, ifd: Ifd, active: Area, channel: int) -> tuple[tuple[float, ...], ...]:
    """BlackLevel (50714) as a tile seen from (0, 0); () where the file does not say."""
    values = tree.values(ifd, 50714)
    if not values:
        return ()
    rows, cols = map(int, tree.values(ifd, 50713) or (1, 1))
    samples = max(1, len(values) // max(1, rows * cols))
    if rows * cols * samples != len(values) or not rows or not cols:
        rows, cols, samples = 1, 1, len(values)
    pick = min(channel, samples - 1)
    tile = tuple(tuple(float(values[(r * cols + c) * samples + pick]) for c in range(cols)) for r in range(rows))
    return shifted_black(tile, -active.top, -active.left)


def identity_of(tree: Tree, ifd: Ifd, mosaics: Sequence[Mosaic], assume: Assume) -> Identity:
    """Camera, serial number and shape."""
    first = tree.chain[0]
    places = [first, *(child for child in first.all() if child.exif), ifd]
    make, model = tree.text(first, 271), tree.text(first, 272) or tree.text(first, 50708)
    if not (make or model):
        model = astro_tiff(tree).get("INSTRUME", "")
    serial = tree.text(first, 50735)
    for place in places:
        serial = serial or tree.text(place.exif, 42033)
    if assume.camera is not None:
        make, model, serial = "", assume.camera, ""
    return Identity(make, model, serial, mosaics[0].shape, mosaics[0].cfa.name, planes=len(mosaics))


def astro_tiff(tree: Tree) -> dict[str, str]:
    """The cards of a FITS header in ImageDescription (Astro-TIFF 1.0), as text; {} where there is none."""
    description = tree.text(tree.chain[0], 270)
    if not description.startswith("SIMPLE"):
        return {}
    cards: dict[str, str] = {}
    for line in description.splitlines():
        if match := re.match(r"([A-Z0-9_-]{1,8}) *= *(?:'((?:[^']|'')*)'|([^/]*))", line):
            value = match[2] if match[2] is not None else match[3]
            cards.setdefault(match[1], value.replace("''", "'").strip())
    return cards


def conditions_of(tree: Tree, ifd: Ifd) -> Conditions:
    """Exposure, ISO and time from EXIF; the rest from a FITS header in the description, if there is one."""
    from .fits import conditions_of as of_cards

    exif = next((place.exif for place in (tree.chain[0], ifd) if place.exif), None)
    first = tree.chain[0]
    cards = astro_tiff(tree)
    told = of_cards(cards, cards)
    return Conditions(
        exposure=tree.number(exif, 33434) or tree.number(first, 33434) or told.exposure,
        gain=tree.number(exif, 34855) or tree.number(first, 34855) or told.gain,
        temperature=told.temperature,
        time=tree.text(exif, 36867) or tree.text(first, 306) or told.time,
        kind=told.kind,
    )


def rewrite(frame: Frame, edits: Sequence[Edit], temporary: Path) -> None:
    """Copy the file and patch the strips or tiles that hold edited samples."""
    tree = opened(frame.source)
    ifd = _image(tree)
    raster = segments.raster_of(tree, ifd)
    segments.write(frame.source, temporary, segments.patches(tree, raster, edits))


SOFTWARE = 305


def sign(path: Path, provenance: Any) -> bool:
    """Append to the Software tag of the first directory; False where the file has none.

    The longer text goes to the end of the file, and the tag points there.
    """
    tree = opened(path)
    entry = tree.chain[0].entries.get(SOFTWARE)
    if entry is None or entry.type != 2:
        return False
    old = tree.raw(tree.chain[0], SOFTWARE).rstrip(b"\0")
    text = old + b"; " + str(provenance).encode("ascii", "replace") + b"\0"
    end = len(tree.data) + len(tree.data) % 2
    word, code = (8, "Q") if tree.big else (4, "I")
    if end + len(text) >= 1 << 32 and not tree.big:
        return False
    with open(path, "r+b") as stream:
        stream.seek(end)
        stream.write(text)
        stream.seek(entry.slot + 4)
        stream.write(struct.pack(f"{tree.order}{code}", len(text)))
        stream.seek(entry.slot + 4 + word)
        stream.write(struct.pack(f"{tree.order}{code}", end))
    return True
