"""Floor 2, shared by the edges. The headers of a plain FITS file, read without astropy.

Importing astropy takes longer than repairing a frame. This reader knows the
cards that nearly every file has and nothing else: where it meets anything that
could mean something else to astropy (long strings, groups, compressed images
where they are not asked for, letters or values that are not standard), it
answers None, and the caller asks astropy. What it does answer is what astropy
would (`tests/test_fitsheader.py` compares them on every sample).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

BLOCK = 2880
#: More blocks than this in one header, or HDUs in one file, are left to astropy.
_MOST_BLOCKS, _MOST_HDUS = 400, 1000

_CARD = re.compile(rb"(?=.{8}= )([A-Z0-9_-]{1,8}) *= (.*)", re.DOTALL)
_STRING = re.compile(rb" *'((?:[^']|'')*)' *(?:/(.*))?$", re.DOTALL)
_OTHER = re.compile(rb" *([^ /'][^ /]*) *(?:/(.*))?$", re.DOTALL)
_INTEGER = re.compile(rb"[+-]?[0-9]{1,18}$")
_REAL = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[ED][+-]?[0-9]{1,3})?$")
#: Keywords whose cards hold no value, and those that make values out of several cards.
_TEXTS, _LONG = (b"COMMENT ", b"HISTORY ", b"        "), (b"CONTINUE", b"HIERARCH")


class Header(dict[str, Any]):
    """The first value of every keyword, and in `comments` what stands behind it, where units may be."""

    def __init__(self) -> None:
        super().__init__()
        self.comments: dict[str, str] = {}


@dataclass(frozen=True, eq=False)
class Hdu:
    """One header and where it and its data lie, in bytes; `span` is the data with its padding."""

    header: Mapping[str, Any]
    head: int
    data: int
    span: int

    @property
    def name(self) -> str:
        """EXTNAME in capitals, or empty."""
        return str(self.header.get("EXTNAME", "")).strip().upper()

    def fileinfo(self) -> dict[str, int]:
        """As astropy's HDUs say it."""
        return {"hdrLoc": self.head, "datLoc": self.data, "datSpan": self.span}


def read(path: Path, *, tables: bool = False) -> list[Hdu] | None:
    """The HDUs of a plain FITS file that follow each other without a gap, or None: ask astropy.

    With `tables` a tile-compressed image is the binary table that the file holds; without, a file with one is
    astropy's.
    """
    found: list[Hdu] = []
    with open(path, "rb") as stream:
        size = stream.seek(0, 2)
        place = 0
        while True:
            cards = _cards(stream, place)
            if cards is None or len(found) >= _MOST_HDUS:
                return None
            header, data = cards
            span = _span(header, first=not found)
            if span is None or ("ZIMAGE" in header and not tables):
                return None
            found.append(Hdu(header, place, data, span))
            place = data + span
            stream.seek(place)
            if place >= size or stream.read(8) != b"XTENSION":
                return found


def _cards(stream: BinaryIO, place: int) -> tuple[Header, int] | None:
    """The values of a header's cards and where its data begin."""
    header = Header()
    for number in range(_MOST_BLOCKS):
        stream.seek(place + number * BLOCK)
        block = stream.read(BLOCK)
        if len(block) < BLOCK or not block.isascii():
            return None
        for start in range(0, BLOCK, 80):
            card = block[start : start + 80]
            if card.startswith(b"END") and not card[3:].strip():
                if block[start + 80 :].strip():
                    return None
                return header, place + (number + 1) * BLOCK
            if card.startswith(_TEXTS):
                continue
            match = None if card.startswith(_LONG) else _CARD.match(card)
            if match is None or b"\0" in card:
                return None
            value, comment = _value(match[2])
            if value is _ODD:
                return None
            key = match[1].decode()
            header.setdefault(key, value)
            header.comments.setdefault(key, comment)
    return None


_ODD = object()


def _value(text: bytes) -> tuple[Any, str]:
    """A string, bool, int or float, `_ODD` where it is none of them; and the comment."""
    if match := _STRING.match(text):
        return match[1].decode().replace("''", "'").rstrip(), _comment(match)
    match = _OTHER.match(text)
    if match is None:
        return _ODD, ""
    word, comment = match[1], _comment(match)
    if word in (b"T", b"F"):
        return word == b"T", comment
    if _INTEGER.match(word):
        return int(word), comment
    if _REAL.match(word):
        return float(word.replace(b"D", b"E")), comment
    return _ODD, ""


def _comment(match: re.Match[bytes]) -> str:
    return (match[2] or b"").decode().strip()


def _span(header: Mapping[str, Any], *, first: bool) -> int | None:
    """Bytes of the data with their padding (FITS standard 4.0, section 4.4.1); None: not standard."""
    kind = header.get("XTENSION")
    if first != ("SIMPLE" in header) or first == ("XTENSION" in header):
        return None
    if (first and header["SIMPLE"] is not True) or "GROUPS" in header:
        return None
    if not first and kind not in ("IMAGE", "BINTABLE", "TABLE"):
        return None
    numbers = [header.get("BITPIX"), header.get("NAXIS"), header.get("PCOUNT", 0), header.get("GCOUNT", 1)]
    if any(type(number) is not int for number in numbers):
        return None
    bitpix, count, extra, groups = numbers
    if bitpix not in (8, 16, 32, 64, -32, -64) or not 0 <= count <= 9 or extra < 0 or groups != 1:
        return None
    axes = [header.get(f"NAXIS{n}") for n in range(1, count + 1)]
    if any(type(axis) is not int or axis < 0 for axis in axes):
        return None
    size = math.prod(map(int, axes)) if axes else 0  # type: ignore[arg-type]
    size = abs(bitpix) // 8 * (extra + size)
    return size + -size % BLOCK
