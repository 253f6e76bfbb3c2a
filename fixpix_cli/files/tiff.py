"""Floor 2. TIFF frames: one-channel images and mosaics, and RGB images, in strips or tiles; stacks of such pages.

An RGB image is a frame of three mono planes; a fourth sample (alpha) is no part of the frame and stays as it is.

The pages of a stack are moments of one camera, or with `Assume.planes` detectors of their own. OME and ImageJ
hyperstacks are such stacks, whatever their axes are called. ImageJ and tifffile also write stacks with a single
directory, the other pages' pixels lying behind the first one's; only the description tells.
"""

from __future__ import annotations

import html
import json
import math
import mmap
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..cfa import MONO, Cfa
from ..errors import RefusedError, UnreadableError
from ..mosaic import Area, Array, Assume, Conditions, Edit, Frame, Identity, Lazy, Mosaic, Stored, shifted_black
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


@dataclass(frozen=True)
class Page:
    """One full-size image: its directory, and how far behind that directory's pixels its own lie, in bytes."""

    ifd: Ifd
    behind: int = 0


def load(path: Path, assume: Assume) -> Frame:
    """Read the image or the stack of a TIFF; see `fixpix_cli.files.load`."""
    tree = opened(path)
    pages = _pages(tree)
    ifd = pages[0].ifd
    colours = _colours(tree, ifd)
    if colours > 1:
        if assume.cfa is not None:
            raise RefusedError(f"{path}: is an RGB image: it has no colour filter array, leave --cfa out for it")
        assume = replace(assume, cfa=MONO)
    first, assumed = _planes(tree, pages[0], colours, assume)
    moments = 1 if assume.planes else len(pages)
    if moments > 1:  # all moments are of one camera: what the first one says goes for all
        assume = replace(assume, cfa=first[0].cfa, white=first[0].white)
    read = Lazy(len(pages), lambda number: _planes(tree, pages[number], colours, assume)[0], first)
    mosaics: Sequence[Mosaic] = first
    if len(pages) > 1:
        mosaics = Lazy(len(pages) * colours, lambda number: read[number // colours][number % colours])
    planes = len(mosaics) // moments
    identity = replace(identity_of(tree, ifd, first, assume), planes=planes)
    conditions = conditions_of(tree, ifd)
    return Frame(mosaics, path, tuple(range(planes)), identity, conditions, "tiff", assumed=assumed, moments=moments)


def _planes(tree: Tree, page: Page, colours: int, assume: Assume) -> tuple[tuple[Mosaic, ...], tuple[str, ...]]:
    """The planes of a page, and what had to be assumed of them."""
    raster = _raster(tree, page)
    planes = planes_of(tree, raster, colours)
    told = [describe(tree, page.ifd, plane, assume, raster.bits, n) for n, plane in enumerate(planes)]
    return tuple(mosaic for mosaic, _ in told), tuple(dict.fromkeys(text for _, texts in told for text in texts))


def planes_of(tree: Tree, raster: segments.Raster, colours: int) -> list[Mosaic]:
    """The first samples of each pixel as planes; integers that lie plainly in the file stay there until asked for."""
    samples = segments.mapped(tree, raster)
    if samples is not None and samples.dtype.kind in "iu":
        return [Stored(samples[..., n], segments.native) for n in range(colours)]
    samples = segments.read(tree, raster)
    return [Mosaic(np.ascontiguousarray(samples[..., n])) for n in range(colours)]


def is_plain(path: Path) -> bool:
    """True for files whose pixels lie plainly in them."""
    tree = opened(path)
    return all(segments.mapped(tree, _raster(tree, page)) is not None for page in _pages(tree))


def _raster(tree: Tree, page: Page) -> segments.Raster:
    """How a page is stored.

    Raises
    ------
    RefusedError
        The pixels of the other pages do not simply follow those of the first.
    UnreadableError
        They end too early.
    """
    raster = segments.raster_of(tree, page.ifd)
    if not page.behind:
        return raster
    ends = [offset + count for offset, count in zip(raster.offsets, raster.counts, strict=True)]
    if raster.compression != segments.NONE or tuple(ends[:-1]) != raster.offsets[1:]:
        raise RefusedError(f"{tree.path}: is a stack with one directory whose pages do not follow each other")
    if ends[-1] + page.behind > len(tree.data):
        raise UnreadableError(f"{tree.path}: is truncated (pages are missing)")
    return replace(raster, offsets=tuple(offset + page.behind for offset in raster.offsets))


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


#: Tags in which the pages of a stack must agree: size, depth, photometric, samples, layout, format.
_ALIKE = (256, 257, 258, 262, 277, 284, 339)


def _pages(tree: Tree) -> list[Page]:
    """The full-size images of the file; thumbnails and transparency masks are none.

    They are told by NewSubFileType 1 and 4 and by the old SubfileType 2 (TIFF 6.0).

    Raises
    ------
    RefusedError
        They are of different kinds.
    """
    full = [
        ifd
        for ifd in tree.chain
        if 256 in ifd.entries and not int(tree.number(ifd, 254) or 0) & 5 and tree.number(ifd, 255) != 2
    ]
    if not full:
        raise UnreadableError(f"{tree.path}: holds no image")
    if len(full) == 1:
        return _undirected(tree, full[0])
    if len({tuple(tree.values(ifd, tag) for tag in _ALIKE) for ifd in full}) > 1:
        raise RefusedError(
            f"{tree.path}: has {len(full)} pages of different sizes or kinds; split it into single images or stacks"
        )
    return [Page(ifd) for ifd in full]


def _undirected(tree: Tree, ifd: Ifd) -> list[Page]:
    """The pages of a stack with one directory: ImageJ's ``images=N``, tifffile's ``{"shape": [N, ...]}``."""
    description = tree.text(ifd, 270)
    number = 1
    if description.startswith("ImageJ="):
        if match := re.search(r"^images=(\d{1,9})\s*$", description, re.MULTILINE):
            number = int(match[1])
    elif description.startswith("{"):
        number = _shaped(tree, ifd, description)
    if number <= 1:
        return [Page(ifd)]
    raster = segments.raster_of(tree, ifd)
    size = sum(raster.counts)
    if raster.offsets[0] + size * number > len(tree.data):
        raise UnreadableError(f"{tree.path}: is truncated (it promises {number} pages)")
    return [Page(ifd, size * n) for n in range(number)]


def _shaped(tree: Tree, ifd: Ifd, description: str) -> int:
    """How many pages a description of tifffile's promises in one directory."""
    try:
        facts = json.loads(description)
        total = math.prod(int(n) for n in facts["shape"]) if facts.get("truncated") else 1
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return 1
    one = math.prod(int(tree.number(ifd, tag) or 1) for tag in (256, 257, 277))
    return total // one if one and total % one == 0 else 1


def describe(
    tree: Tree, ifd: Ifd, plane: Mosaic, assume: Assume, bits: int, channel: int = 0
) -> tuple[Mosaic, tuple[str, ...]]:
    """A plane with what the tags, or else the user and the defaults, say of it."""
    from .fits_words import default_white, number_of

    assumed = []
    height, width = plane.shape
    active = Area(0, 0, height, width)
    if len(box := tree.values(ifd, 50829)) == 4:
        top, left, bottom, right = map(int, box)
        if 0 <= top < bottom <= height and 0 <= left < right <= width:
            active = Area(top, left, bottom, right)
    cards = astro_tiff(tree)
    cfa = assume.cfa or cfa_of(tree, ifd, active) or _astro_cfa(tree.path, cards, plane)
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
    if white is None and cards:
        white = _positive(number_of(cards, cards, "SATURATE", "SATLEVEL"))
    if white is None:
        white = float((1 << bits) - 1) if plane.dtype.kind == "u" and bits <= 16 else default_white(plane)
        assumed.append(f"white {white:g}")
    packed = plane.dtype.kind == "u" and bits < 8 * plane.dtype.itemsize
    limit = float((1 << bits) - 1) if packed else None
    return plane.described(cfa, black, white, active, limit), tuple(assumed)


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
    serial = tree.text(first, 50735)
    if not (make or model):
        if cards := astro_tiff(tree):
            from .fits_words import identity_of as of_cards

            return of_cards(cards, cards, mosaics, assume)
        make, model, serial = _ome_detector(tree)
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
    from .fits_words import conditions_of as of_cards

    ome = re.search(r"<(?:\w+:)?Plane\b[^>]*", _ome(tree))
    exif = next((place.exif for place in (tree.chain[0], ifd) if place.exif), None)
    first = tree.chain[0]
    cards = astro_tiff(tree)
    told = of_cards(cards, cards)
    return Conditions(
        exposure=tree.number(exif, 33434) or tree.number(first, 33434) or told.exposure or _ome_exposure(ome),
        gain=tree.number(exif, 34855) or tree.number(first, 34855) or told.gain,
        temperature=told.temperature,
        time=tree.text(exif, 36867) or tree.text(first, 306) or told.time,
        kind=told.kind,
    )


def _positive(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) and value > 0 else None


def _astro_cfa(path: Path, cards: dict[str, str], plane: Mosaic) -> Cfa | None:
    """The pattern of an Astro-TIFF header, as seen from (0, 0) of the TIFF.

    The specification turns the image upside down: the TIFF's first row is the
    last one of the FITS file of which the header speaks. Not every writer does.
    In a Bayer mosaic the pixels tell: both greens of a tile are nearly equal,
    and turning an even number of rows moves them to the other diagonal. Where
    they do not tell (darks), the letters are taken as they stand.
    """
    from .fits_words import cfa_of as of_cards

    stated = of_cards(path, cards, cards, plane.shape[0]) if cards else None
    if stated is None or not stated.is_bayer or min(plane.shape) < 2:
        return stated
    turned = stated.flipped_rows(plane.shape[0])
    return turned if _green_gap(plane.samples, turned) < 0.8 * _green_gap(plane.samples, stated) else stated


def _green_gap(samples: Array, cfa: Cfa) -> float:
    """Mean absolute difference in DN between the two greens of a tile."""
    green = max(cfa.colours, key="".join(cfa.tile).count)
    a, b = (place for place in cfa.positions if cfa.colour(*place) == green)
    rows, cols = (size // 2 * 2 for size in samples.shape)
    one, two = (samples[r:rows:2, c:cols:2].astype(np.float32) for r, c in (a, b))
    return float(np.nanmean(np.abs(one - two)))


def _ome(tree: Tree) -> str:
    """The OME-XML in ImageDescription, or an empty text."""
    description = tree.text(tree.chain[0], 270)
    return description if "<OME" in description[:4000] or "<ome:OME" in description[:4000] else ""


def _ome_detector(tree: Tree) -> tuple[str, str, str]:
    """Maker, model and serial number of the first OME detector."""
    found = re.search(r"<(?:\w+:)?Detector\b[^>]*", _ome(tree))
    text = found[0] if found else ""
    make, model, serial = (_attribute(text, name) for name in ("Manufacturer", "Model", "SerialNumber"))
    return make, model, serial


def _ome_exposure(plane: re.Match[str] | None) -> float | None:
    """Exposure of the first OME plane, s."""
    if plane is None:
        return None
    scale = {"": 1.0, "s": 1.0, "ms": 1e-3, "\N{MICRO SIGN}s": 1e-6, "min": 60.0}
    scale_of = scale.get(_attribute(plane[0], "ExposureTimeUnit"))
    try:
        value = float(_attribute(plane[0], "ExposureTime"))
    except ValueError:
        return None
    return _positive(value * scale_of) if scale_of is not None else None


def _attribute(element: str, name: str) -> str:
    """The value of an XML attribute in the text of its opening tag."""
    found = re.search(rf"\b{name}=(\"([^\"]*)\"|'([^']*)')", element)
    return html.unescape(found[2] or found[3] or "").strip() if found else ""


def rewrite(frame: Frame, edits: Sequence[Edit], temporary: Path) -> None:
    """Copy the file and patch the strips or tiles that hold edited samples."""
    tree = opened(frame.source)
    pages = _pages(tree)
    colours = len(edits) // len(pages)
    rasters = [_raster(tree, page) for page in pages] if len(pages) > 1 else []
    if len({offset for raster in rasters for offset in set(raster.offsets)}) < sum(
        len(set(r.offsets)) for r in rasters
    ):
        raise RefusedError(f"{frame.source}: some of its pages share their pixels; they cannot be repaired apart")
    changes: list[segments.Patch] = []
    end = len(tree.data)
    for number, page in enumerate(pages):
        mine = edits[number * colours : (number + 1) * colours]
        if any(map(len, mine)):
            patches = segments.patches(tree, _raster(tree, page), mine, end)
            end = max(end, *(patch.place + len(patch.data) for patch in patches))
            changes += patches
    segments.write(frame.source, temporary, changes)


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
