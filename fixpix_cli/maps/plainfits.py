"""Floor 2. Masks with few bad pixels, written without astropy and without the pixels between them.

The same bytes as `fitsmap` writes by astropy: a DQ image compressed by RICE_1 in tiles of whole rows, and the
DQ_DEF table. Blocks of 32 equal pixels are five zero bits; only the others are looked at (`sparse` reads them so; R. L.
White, P. Greenfield, ADASS 1999; FITS standard 4.0, section 10.4.1). astropy takes 0.3 s to be imported and 200 MB to
compress the 24 megapixels of a mask with 2,400 bad ones.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..defects import DESCRIPTIONS, DefectMap, ListedMap
from ..mosaic import Array

#: A plane with more flagged pixels than one in so many is astropy's.
_FEW = 64
#: Pixels of a tile, bytes of a FITS block.
TILE_PIXELS, BLOCK = 3_000_000, 2880
#: RICE_1 of 4-byte integers: pixels of a block, bits of its code, the least shift for which it is not compressed.
_PIXELS, _CODE, _MOST_SHIFT = 32, 5, 25


def mask(
    groups: Sequence[tuple[Sequence[DefectMap], int]], cards: Sequence[tuple[str, Any, str]]
) -> tuple[bytes, bytes] | None:
    """The primary HDU of a mask, and its extensions; None where that is astropy's to do.

    Parameters
    ----------
    groups : sequence of (planes, EXTVER)
        Each becomes a DQ extension.
    cards : sequence of (keyword, value, comment)
        For the primary header: text, whole numbers, floats.
    """
    written = [_card(*card) for card in cards]
    if any(card is None for card in written):
        return None
    primary = _header(
        [
            "SIMPLE  =                    T / conforms to FITS standard",
            "BITPIX  =                    8 / array data type",
            "NAXIS   =                    0 / number of array dimensions",
            "EXTEND  =                    T",
            *(card for card in written if card is not None),
        ]
    )
    parts = []
    for planes, version in groups:
        part = _dq(planes, version)
        if part is None:
            return None
        parts.append(part)
    return primary, b"".join([*parts, _definitions()])


def _card(keyword: str, value: Any, comment: str) -> str | None:
    """A header card; None for what needs more than one line."""
    if isinstance(value, str):
        quoted = value.replace("'", "''")
        if len(quoted) > 60 - len(comment) or not value.isascii() or not value.isprintable():
            return None
        text = f"'{quoted:8}'" + " " * max(0, 18 - len(quoted)) if value else "''"
        text = f"{text:20}"
    elif isinstance(value, float):
        if not math.isfinite(value):
            return None
        digits, e, power = repr(float(value)).upper().partition("E")
        text = f"{digits[: 20 - len(e + power)] + e + power:>20}"
    else:
        text = f"{int(value):>20}"
    return f"{keyword:8}= {text}" + f" / {comment}" * bool(comment)


def _header(cards: Sequence[str]) -> bytes:
    text = "".join(f"{card:80}" for card in [*cards, "END"])
    return text.encode("ascii").ljust(-(-len(text) // BLOCK) * BLOCK)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def _dq(planes: Sequence[DefectMap], version: int) -> bytes | None:
    """A DQ extension of one plane, or of several as the first axis."""
    streams: list[bytes] = []
    height, width = planes[0].shape
    rows = min(height, max(1, TILE_PIXELS // max(1, width)))
    for plane in planes:
        if not isinstance(plane, ListedMap) or len(plane.pixels) * _FEW > height * width:
            return None
        for top in range(0, height, rows):
            first, last = top * width, min(height, top + rows) * width
            inside = slice(*np.searchsorted(plane.pixels, (first, last)))
            streams.append(_rice(plane.pixels[inside] - first, plane.flags[inside], last - first))
    sizes = np.array([len(stream) for stream in streams], ">i4")
    places = np.concatenate([[0], np.cumsum(sizes[:-1])]).astype(">i4")
    axes = [width, height, len(planes)][: 2 if len(planes) == 1 else 3]
    tile = [width, rows, 1][: len(axes)]
    cards = [
        "XTENSION= 'BINTABLE'           / binary table extension",
        "BITPIX  =                    8 / array data type",
        "NAXIS   =                    2 / number of array dimensions",
        "NAXIS1  =                    8 / width of table in bytes",
        f"NAXIS2  = {len(streams):20} / number of rows in table",
        f"PCOUNT  = {int(sizes.sum()):20} / number of group parameters",
        "GCOUNT  =                    1 / number of groups",
        "TFIELDS =                    1 / number of fields in each row",
        "TTYPE1  = 'COMPRESSED_DATA'",
        f"TFORM1  = '{f'1PB({int(sizes.max())})':8}'",
        "ZIMAGE  =                    T / extension contains compressed image",
        "ZTENSION= 'IMAGE   '           / Image extension",
        "ZBITPIX =                   32 / array data type",
        f"ZNAXIS  = {len(axes):20} / number of array dimensions",
        *(f"ZNAXIS{n} = {size:20}" for n, size in enumerate(axes, 1)),
        "ZPCOUNT =                    0 / number of parameters",
        "ZGCOUNT =                    1 / number of groups",
        *(f"ZTILE{n}  = {size:20} / size of tiles to be compressed" for n, size in enumerate(tile, 1)),
        "ZCMPTYPE= 'RICE_1  '           / compression algorithm",
        "ZNAME1  = 'BLOCKSIZE'          / compression block size",
        "ZVAL1   =                   32 / pixels per block",
        "ZNAME2  = 'BYTEPIX '           / bytes per pixel (1, 2, 4, or 8)",
        "ZVAL2   =                    4 / bytes per pixel (1, 2, 4, or 8)",
        "EXTNAME = 'DQ      '           / name of this binary table extension",
        f"EXTVER  = {version:20}",
        "BUNIT   = '' / JWST data-quality bits, see DQ_DEF",
    ]
    table = np.stack([sizes, places], axis=1).astype(">i4").tobytes()
    return _header(cards) + _padded(table + b"".join(streams))


def _definitions() -> bytes:
    """The DQ_DEF table."""
    rows = [
        struct.pack(">ii24s64s", int(f).bit_length() - 1, int(f), (f.name or "").encode(), text.encode())
        for f, text in DESCRIPTIONS.items()
    ]
    cards = [
        "XTENSION= 'BINTABLE'           / binary table extension",
        "BITPIX  =                    8 / array data type",
        "NAXIS   =                    2 / number of array dimensions",
        f"NAXIS1  = {len(rows[0]):20} / length of dimension 1",
        f"NAXIS2  = {len(rows):20} / length of dimension 2",
        "PCOUNT  =                    0 / number of group parameters",
        "GCOUNT  =                    1 / number of groups",
        "TFIELDS =                    4 / number of table fields",
    ]
    for n, (name, form) in enumerate((("BIT", "J"), ("VALUE", "J"), ("NAME", "24A"), ("DESCRIPTION", "64A")), 1):
        cards += [f"TTYPE{n}  = '{name:8}'", f"TFORM{n}  = '{form:8}'"]
    return _header([*cards, "EXTNAME = 'DQ_DEF  '"]) + _padded(b"".join(rows))


def _rice(places: Array, flags: Array, count: int) -> bytes:
    """A tile of `count` pixels, 0 but at some places, as RICE_1 has it: the first value, then blocks of differences."""
    first = int(flags[0]) if len(places) and places[0] == 0 else 0
    # Differences are 0 but at the listed pixels and behind them.
    at = np.unique(np.concatenate([places, places + 1]))
    at = at[(at > 0) & (at < count)]
    near = np.zeros((2, len(at)), np.int64)
    for values, wanted in zip(near, (at, at - 1), strict=True):
        index = np.minimum(np.searchsorted(places, wanted), max(0, len(places) - 1))
        if len(places):
            values[...] = np.where(places[index] == wanted, flags[index], 0)
    step = (near[0] - near[1]).astype(np.int32).astype(np.int64)
    mapped = np.where(step < 0, ~(step << 1), step << 1) & 0xFFFFFFFF
    numbers, which = np.unique(at[mapped > 0] // _PIXELS, return_inverse=True)
    values = np.zeros((len(numbers), _PIXELS), np.int64)
    values[which, at[mapped > 0] % _PIXELS] = mapped[mapped > 0]
    inside = np.minimum(_PIXELS, count - numbers * _PIXELS)
    return struct.pack(">i", first) + _blocks(values, inside, numbers, -(-count // _PIXELS))


def _blocks(values: Array, inside: Array, numbers: Array, count: int) -> bytes:
    """The bits of `count` blocks of which those with these `numbers` hold (N, 32) differences, the others zeros."""
    mean = np.maximum(0.0, (values.sum(axis=1) - inside // 2 - 1) / inside)
    shift = np.frexp((mean.astype(np.int64) >> 1).astype(np.float64))[1][:, None]
    plain = shift >= _MOST_SHIFT
    real = np.arange(_PIXELS) < inside[:, None]
    zeros = np.where(plain | ~real, 0, values >> shift)  # before the one that ends them
    low = np.where(plain, 32, shift)
    sizes = np.where(real, zeros + ~plain + low, 0)
    ends = np.cumsum(np.concatenate([np.full((len(values), 1), _CODE), sizes], axis=1), axis=1)
    before = numbers * _CODE + np.concatenate([[0], np.cumsum(ends[:, -1] - _CODE)])[:-1]
    starts = before[:, None] + ends[:, :-1]
    bits = np.zeros(count * _CODE + int((ends[:, -1] - _CODE).sum()), np.uint8)
    code = np.where(plain, _MOST_SHIFT + 1, shift + 1)[:, 0]
    for n in range(_CODE):
        bits[before + n] = code >> (_CODE - 1 - n) & 1
    bits[(starts + zeros)[real & ~plain]] = 1
    tails = starts + zeros + ~plain
    for n in range(int(low.max(initial=0))):
        some = real & (n < low)
        bits[(tails + low - 1 - n)[some]] = (values[some] >> n) & 1
    return np.packbits(bits).tobytes()
