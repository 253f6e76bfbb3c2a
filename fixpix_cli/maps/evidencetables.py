"""Floor 2. The tables of a camera map: evidence by plane and condition bin, its parts, the frames counted.

With fitsmap.py a keeper of astropy. Tables hold the suspected pixels rather
than images of all: exact, a hundred times smaller, and the time to read them
follows the number of defects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..evidence import Bin, Counted, Evidence, Tally
from ..mosaic import Array, Conditions
from ..suspects import FIELDS, FIELDS_1, FIELDS_2, zeros
from .parts import Part, total

#: 3: levels in DN (MEASURED to FULL, PICTURES). 2: none of them; such entries are typed by their excess alone, and
#: MEASURED counts the frames since. 1: no log-odds either (SUPPORT, SUPPORTED, RATES); those maps go by the mean
#: probability until frames with log-odds come in, for which the older frames then count as silent. A map that is
#: written becomes 3.
FORMAT = 3
VERSIONS = {1: FIELDS_1, 2: FIELDS_2, 3: FIELDS}
_GROUPS = ("EVIDENCE", "PART", "NFRAMES", "RATES", "PICTURES", "ENTRIES")


def tally_hdus(evidence: Evidence, parts: Sequence[Part]) -> list[Any]:
    """One EVIDENCE table per plane and condition bin; where several parts have evidence of one, PART and GROUPS.

    PART holds the entries of all such parts one after the other, GROUPS how many belong to which: a table
    each would cost more time than what is in it.
    """
    from astropy.io import fits

    hdus, groups = [], []
    for number, ((plane, bin_), tally) in enumerate(evidence.tallies.items(), 1):
        told = [n for n, part in enumerate(parts) if (plane, bin_) in part.evidence.tallies]
        hdu = _entries_hdu(tally.entries, "EVIDENCE")
        hdu.header["EXTVER"] = number
        if len(told) == 1:
            hdu.header["PART"] = (told[0], "all of it belongs to this row of PARTS")
        else:
            groups += [(number, n, parts[n].evidence.tallies[plane, bin_]) for n in told]
        hdu.header["PLANE"], hdu.header["NFRAMES"], hdu.header["RATES"] = plane, tally.frames, tally.rates
        hdu.header["PICTURES"] = tally.pictures
        for card, value in _bin_cards(bin_).items():
            hdu.header[card] = value
        hdus.append(hdu)
    if groups:
        hdus.append(_entries_hdu(np.concatenate([tally.entries for _, _, tally in groups]), "PART"))
        counts = [(number, n, t.frames, t.rates, t.pictures, len(t.entries)) for number, n, t in groups]
        columns = [
            fits.Column(name, "K", array=values) for name, values in zip(_GROUPS, np.array(counts).T, strict=True)
        ]
        hdus.append(fits.BinTableHDU.from_columns(columns, name="GROUPS"))
    return hdus


def _entries_hdu(entries: Array, name: str) -> Any:
    from astropy.io import fits

    return fits.BinTableHDU.from_columns(
        [fits.Column(field.upper(), "K", array=entries[field]) for field in FIELDS], name=name
    )


def _entries_of(hdu: Any, version: int, shape: tuple[int, int]) -> Array:
    table = hdu.data
    entries = zeros(len(table))
    for name in VERSIONS[version]:
        entries[name] = table[name.upper()]
    if len(entries) and not 0 <= entries["pixel"].min() <= entries["pixel"].max() < shape[0] * shape[1]:
        raise ValueError("its evidence lies outside the frame")
    return entries


def tally_of(hdu: Any, version: int, shape: tuple[int, int]) -> tuple[tuple[int, Bin], Tally]:
    """The tally of one EVIDENCE table, and its plane and bin."""
    counts = (int(hdu.header.get(name, 0)) for name in ("RATES", "PICTURES"))
    key = (int(hdu.header["PLANE"]), _bin_of(hdu.header))
    return key, Tally(shape, int(hdu.header["NFRAMES"]), _entries_of(hdu, version, shape), *counts)


def parts_hdu(parts: Sequence[Part]) -> Any:
    """Which parts there are."""
    from astropy.io import fits

    hdu = fits.BinTableHDU.from_columns(
        [
            fits.Column("WRITER", "16A", array=np.array([part.writer for part in parts], "U16")),
            fits.Column("MONTH", "7A", array=np.array([part.month for part in parts], "U7")),
            fits.Column("NFRAMES", "J", array=[len(part.evidence.frames) for part in parts]),
        ]
    )
    hdu.header["EXTNAME"] = "PARTS"
    return hdu


def parts_of(hdus: Any, version: int, whole: Evidence, shape: tuple[int, int]) -> tuple[Part, ...]:
    """The evidence in parts; they must add up to the whole."""
    table, numbers = hdus["PARTS"].data, hdus["FRAMES"].data["PART"]
    tallies: list[dict[tuple[int, Bin], Tally]] = [{} for _ in table]
    frames: list[dict[str, Counted]] = [{} for _ in table]
    keys: dict[int, tuple[int, Bin]] = {}
    for hdu in hdus:
        if hdu.name == "EVIDENCE":
            key = keys[int(hdu.header["EXTVER"])] = (int(hdu.header["PLANE"]), _bin_of(hdu.header))
            if "PART" in hdu.header:
                tallies[int(hdu.header["PART"])][key] = whole.tallies[key]
    if "GROUPS" in hdus:
        entries, start = _entries_of(hdus["PART"], version, shape), 0
        for number, part, *counts, size in zip(*(hdus["GROUPS"].data[name].tolist() for name in _GROUPS), strict=True):
            n, rates, pictures = counts
            tallies[part][keys[number]] = Tally(shape, n, entries[start : start + size], rates, pictures)
            start += size
    for digest, number in zip(hdus["FRAMES"].data["DIGEST"], numbers, strict=True):
        frames[int(number)][str(digest).strip()] = whole.frames[str(digest).strip()]
    parts = tuple(
        Part(str(row["WRITER"]).strip(), str(row["MONTH"]).strip(), Evidence(tallies[number], frames[number]))
        for number, row in enumerate(table)
    )
    if total(parts) != whole:
        raise ValueError("the parts of its evidence do not add up")
    return parts


def _bin_cards(bin_: Bin) -> dict[str, Any]:
    cards = {"BINKIND": bin_.kind, "BINEXP": bin_.exposure, "BINGAIN": bin_.gain, "BINTEMP": bin_.temperature}
    return {key: value for key, value in cards.items() if value not in (None, "")}


def _bin_of(header: Any) -> Bin:
    return Bin(str(header.get("BINKIND", "")), header.get("BINEXP"), header.get("BINGAIN"), header.get("BINTEMP"))


def frames_hdu(evidence: Evidence, parts: Sequence[Part]) -> Any:
    """The frames counted, and in which part."""
    from astropy.io import fits

    frames = list(evidence.frames.values())
    part_of = {digest: number for number, part in enumerate(parts) for digest in part.evidence.frames}

    def numbers(name: str) -> list[float]:
        return [np.nan if (v := getattr(f.conditions, name)) is None else v for f in frames]

    def text(name: str, width: int) -> Any:
        values = [ascii_of(getattr(f.conditions, name) or "") for f in frames]
        return fits.Column(name.upper(), f"{width}A", array=np.array(values, f"U{width}"))

    hdu = fits.BinTableHDU.from_columns(
        [
            fits.Column("DIGEST", "64A", array=np.array([f.digest for f in frames], "U64")),
            fits.Column("NAME", "128A", array=np.array([ascii_of(f.name)[:128] for f in frames], "U128")),
            text("kind", 8),
            fits.Column("EXPOSURE", "D", unit="s", array=numbers("exposure")),
            fits.Column("GAIN", "D", array=numbers("gain")),
            fits.Column("TEMPERATURE", "D", unit="deg_C", array=numbers("temperature")),
            text("time", 40),
            fits.Column("PART", "J", array=[part_of.get(frame.digest, 0) for frame in frames]),
        ]
    )
    hdu.header["EXTNAME"] = "FRAMES"
    return hdu


def read_frames(table: Any) -> Iterator[Counted]:
    """The frames of the FRAMES table."""

    def number(value: float) -> float | None:
        return None if np.isnan(value) else float(value)

    for row in table:
        conditions = Conditions(
            number(row["EXPOSURE"]),
            number(row["GAIN"]),
            number(row["TEMPERATURE"]),
            str(row["TIME"]).strip() or None,
            str(row["KIND"]).strip() or None,
        )
        yield Counted(str(row["DIGEST"]).strip(), str(row["NAME"]).strip(), Bin.of(conditions), conditions)


def ascii_of(text: str) -> str:
    """FITS headers hold ASCII only; other letters are written as ``?``."""
    return text.encode("ascii", "replace").decode()
