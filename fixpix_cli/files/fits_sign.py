"""Floor 2. What a repaired FITS file says of its repair: HISTORY and FPX cards, and extensions at its end.

All other cards and HDUs stay as they are; FPX cards of an earlier repair take
the new values, HISTORY grows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import fits_cards
from .fits_io import OURS, Place, places


def add_cards(path: Path, provenance: Any) -> bool:
    """Add HISTORY and FPX cards to an unpacked file; False if its header has no END card.

    They go into the primary header; where that is empty and one compressed image
    follows, into the image's: funpack keeps that one and may drop the other.
    """
    found = places(path)
    tiled = [n for n, place in enumerate(found) if "ZIMAGE" in place.header and name_of(place) not in OURS]
    place = found[1 if tiled == [1] and not found[0].span else 0]
    with open(path, "rb") as stream:
        data = stream.read()
    header = bytearray(data[place.head : place.data])
    last = fits_cards.end_of(header)
    if last is None:
        return False
    lines = [str(provenance), *provenance.details]
    new = [f"HISTORY {line[i : i + 72]}" for line in lines for i in range(0, len(line), 72)]
    for key, card in (
        ("FPXVER", f"FPXVER  = {_quoted(provenance.version)} / fixpix version"),
        ("FPXNPIX", f"FPXNPIX = {provenance.pixels:>20} / bad pixels repaired"),
        ("FPXMAP", f"FPXMAP  = {_quoted(provenance.map[:60])}"),
    ):
        old = fits_cards.find(header[:last], key)
        if old is None:
            new.append(card)
        else:
            header[old : old + 80] = _bytes(card)
    signed = bytes(header[:last]) + b"".join(map(_bytes, new)) + b"END".ljust(80)
    # Blank cards and blocks behind END are room that some writers leave on purpose.
    signed = signed.ljust(len(header)) + b" " * (-len(signed.ljust(len(header))) % fits_cards.BLOCK)
    _splice(path, data, place, signed)
    return True


def name_of(place: Place) -> str:
    """EXTNAME in capitals, or empty."""
    return str(place.header.get("EXTNAME", "")).strip().upper()


def _splice(path: Path, data: bytes, place: Place, header: bytes) -> None:
    with open(path, "r+b") as stream:
        stream.seek(place.head)
        stream.write(header)
        if len(header) != place.data - place.head:
            stream.write(data[place.data :])
        stream.flush()
        fits_cards.renew_checksums(stream, place.head, place.head + len(header), place.span)


def _bytes(card: str) -> bytes:
    return f"{card[:80]:<80}".encode("ascii", "replace")


def _quoted(text: str) -> str:
    doubled = text.replace("'", "''")
    return f"'{doubled:<8}'"


def add_extensions(path: Path, hdus: bytes) -> bool:
    """Put whole HDUs behind the last one of an unpacked file; False if it has a DQ extension already."""
    found = places(path)
    if any(name_of(place) in OURS[:2] for place in found):
        return False
    end = found[-1].data + found[-1].span
    with open(path, "r+b") as stream:
        stream.seek(end)
        rest = stream.read()  # what careless writers leave behind the last block
        stream.seek(0, 2)
        stream.write(b"\0" * max(0, end - stream.tell()))
        stream.seek(end)
        stream.write(hdus + rest)
    return True
