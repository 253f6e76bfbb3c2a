"""Floor 2. What FITS cards say of a frame: camera, conditions, colours, saturation.

Headers are any mapping with `in` and `[]`; the image's own cards go before
those of the primary header. Many writers, many spellings: INTERCHANGE names
the aliases. What cannot be read says nothing; what fixpix cannot follow
although it matters (an unknown BAYERPAT) is refused by name.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..cfa import Cfa
from ..errors import RefusedError, UsageError
from ..mosaic import Assume, Conditions, Identity, Mosaic

_BINNING = (("YBINNING", "BINY", "CCDYBIN"), ("XBINNING", "BINX", "CCDXBIN"))
_MODELS = ("INSTRUME", "CAMERA", "CAMMODEL", "DETECTOR")
_SERIALS = ("CAMSN", "SERIALNO", "CAM_SN", "CAM-SN", "SERNUM", "CAMERASN", "DET_SER", "DETSERNO", "INTSN")
_EXPOSURES = ("EXPTIME", "EXPOSURE", "EXP_TIME", "EXPOTIME", "ITIME")
#: The camera's setting before the e-/ADU that follow from it.
_GAINS = ("GAIN", "ISOSPEED", "ISO", "EGAIN", "E-GAIN", "CVF")
_TEMPERATURES = ("CCD-TEMP", "CCD_TEMP", "CCDTEMP", "TEMPERAT", "CAMTCCD", "CAMTEMP", "DET-TEMP", "DETTEMP", "SET-TEMP")
_KINDS = (
    ("dark", "dark"),
    ("bias", "bias"),
    ("zero", "bias"),
    ("flat", "flat"),
    ("light", "light"),
    ("object", "light"),
)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eEdD][+-]?\d+)?")


def text_of(main: Any, header: Any, *keys: str) -> str:
    """The first non-empty text among the keys, or an empty one."""
    for key in keys:
        for cards in (header, main):
            with contextlib.suppress(Exception):  # a header that cannot even be searched says nothing
                if key in cards and (text := _value(cards, key)):
                    return text
    return ""


def _value(cards: Any, key: str) -> str:
    """A card's value as text; one that is not standard FITS (30,5) as it is spelled."""
    try:
        return str(cards[key]).strip()
    except Exception:  # astropy's complaint about the card
        image = str(cards.cards[key].image)
        return image.partition("=")[2].partition("/")[0].strip().strip("'").strip()


def number_of(main: Any, header: Any, *keys: str) -> float | None:
    """The first number among the keys; text such as ``11 C`` counts by its number."""
    for key in keys:
        if match := _NUMBER.match(text_of(main, header, key).replace(",", ".")):
            return float(match.group().upper().replace("D", "E"))
    return None


def identity_of(main: Any, header: Any, mosaics: Sequence[Mosaic], assume: Assume) -> Identity:
    """Which camera, read out how; `mosaics` are the planes of one moment."""
    model, serial = text_of(main, header, *_MODELS), text_of(main, header, *_SERIALS)
    if set(model.upper()) <= {"X"}:
        model = ""
    if assume.camera is not None:
        model, serial = assume.camera, ""
    binning = [number_of(main, header, *keys) for keys in _BINNING]
    return Identity(
        model=model,
        serial=serial,
        shape=mosaics[0].shape,
        cfa=mosaics[0].cfa.name,
        binning=(int(binning[0] or 1), int(binning[1] or 1)),
        readout=text_of(main, header, "READOUTM"),
        planes=len(mosaics),
    )


def conditions_of(main: Any, header: Any) -> Conditions:
    """Exposure, gain, temperature, time and kind from header cards (any mapping), `header` before `main`."""
    word = text_of(main, header, "IMAGETYP", "FRAMETYP", "FRAME").lower()
    return Conditions(
        exposure=number_of(main, header, *_EXPOSURES),
        gain=number_of(main, header, *_GAINS),
        temperature=_temperature(main, header),
        time=_time(main, header),
        kind=next((kind for part, kind in _KINDS if part in word), None),
    )


def _temperature(main: Any, header: Any) -> float | None:
    """Of the sensor, in C. Above 150 it is kelvin; a bare CAMTEMP of -1 is 'no data' (MicroObservatory)."""
    for key in _TEMPERATURES:
        value, text = number_of(main, header, key), text_of(main, header, key)
        if value is None or (key == "CAMTEMP" and re.fullmatch(r"-1(\.0*)?( *K)?", text)):
            continue
        unit = text.upper().rstrip(". ")[-1:]
        if unit == "F":
            return round((value - 32) / 1.8, 3)
        return round(value - 273.15, 3) if unit == "K" or value > 150 else value
    return None


def _time(main: Any, header: Any) -> str | None:
    """DATE-OBS; where it is a day alone, with the time of day from its neighbour."""
    date = text_of(main, header, "DATE-OBS", "DATE_OBS", "DATEOBS")
    if re.fullmatch(r"\d{4}-\d\d-\d\d", date):
        clock = text_of(main, header, "TIME-OBS", "TIME_OBS", "UT", "UTC", "UT-OBS")
        if re.match(r"\d\d?:\d\d", clock):
            return f"{date}T{clock}"
    return date or None


def row_order(main: Any, header: Any) -> str:
    """``TOP-DOWN``, ``BOTTOM-UP``, or empty where the file does not say."""
    order = text_of(main, header, "ROWORDER").upper()
    return order if order in ("TOP-DOWN", "BOTTOM-UP") else ""


def is_coloured(header: Any) -> bool:
    """True if the third axis holds colours: debayered frames are planes, no exposures."""
    return text_of({}, header, "CTYPE3").upper().startswith(("RGB", "COLOR", "COLOUR"))


def cfa_of(path: Path, main: Any, header: Any, height: int) -> Cfa | None:
    """The pattern from BAYERPAT and its offsets, anchored as ROWORDER says (missing: TOP-DOWN).

    Raises
    ------
    RefusedError
        A BAYERPAT that fixpix does not know.
    """
    stated = text_of(main, header, "BAYERPAT").upper()
    if stated in ("NONE", "NULL", "N/A", "F", "FALSE"):
        stated = ""
    word = stated or text_of(main, header, "COLORTYP", "CFAIMAGE").upper()
    if not stated and len(word) not in (4, 36):
        return None
    try:
        cfa = Cfa.parse(word)
    except UsageError as error:
        if not stated:
            return None
        raise RefusedError(
            f"{path}: its BAYERPAT {stated!r:.50} is no pattern that fixpix knows; give --cfa"
        ) from error
    x, y = (int(number_of(main, header, key) or 0) for key in ("XBAYROFF", "YBAYROFF"))
    cfa = cfa.shifted(y, x)
    return cfa.flipped_rows(height) if row_order(main, header) == "BOTTOM-UP" else cfa


def white_of(main: Any, header: Any) -> float | None:
    """Saturation level in DN, where the file states a sensible one."""
    white = number_of(main, header, "SATURATE", "SATLEVEL")
    return white if white is not None and np.isfinite(white) and white > 0 else None


def default_white(mosaic: Mosaic) -> float:
    """The greatest value of the integer type; 1.0 or the frame's maximum for floats."""
    if mosaic.is_integer:
        return float(np.iinfo(mosaic.dtype).max)
    finite = mosaic.samples[np.isfinite(mosaic.samples)]
    top = float(finite.max()) if finite.size else 1.0
    return 1.0 if top <= 1 else top


def blank_of(header: Any) -> int | None:
    """The code of missing pixels in an image of integers, or None."""
    blank = number_of({}, header, "BLANK") if header["BITPIX"] > 0 else None
    return int(blank) if blank is not None and float(blank).is_integer() else None


def repaired_before(main: Any, headers: Sequence[Any]) -> str:
    """What an earlier run of fixpix said of itself in the file, or empty."""
    for header in (main, *headers):
        version, count = text_of({}, header, "FPXVER"), text_of({}, header, "FPXNPIX")
        if version and count:
            return f"was repaired before by fixpix {version} ({count} pixels)"
    return ""
