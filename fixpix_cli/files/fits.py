"""Floor 2. FITS frames: read the stored values, patch the stored bytes.

astropy finds the data; the values are read and written by our own few lines,
since astropy's write-back touches headers and padding of real files. Row order
is kept as stored; ROWORDER and the Bayer offsets only name the colours.

Tile-compressed files (.fz) can be read, not rewritten.
"""

from __future__ import annotations

import contextlib
import gzip
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..cfa import MONO, Cfa
from ..errors import RefusedError, UnreadableError, UsageError
from ..mosaic import Array, Assume, Conditions, Edit, Frame, Identity, Mosaic

#: Extensions that fixpix itself writes; they are no image planes.
OURS = ("DQ", "DQ_DEF", "PROB", "EVIDENCE", "FRAMES")
_STORED = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_OFFSETS = {(8, -128): np.int8, (16, 32768): np.uint16, (32, 2147483648): np.uint32}


@dataclass(frozen=True)
class Layout:
    """Where a plane's values lie: byte offset in the (unpacked) file, stored dtype, BZERO."""

    offset: int
    stored: str
    zero: int


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file's HDUs; astropy's exceptions become ours, its warnings are dropped."""
    from astropy.io import fits

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(
                path,
                memmap=False,
                do_not_scale_image_data=True,
                disable_image_compression=path.suffix.lower() != ".fz",
                ignore_missing_simple=False,
            ) as hdus:
                yield hdus
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OverflowError) as error:
        raise UnreadableError(f"{path}: is damaged or not FITS ({_first_line(error)})") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise UnreadableError(f"{path}: is damaged or not FITS ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0].rstrip(".") if text else type(error).__name__


def load(path: Path, assume: Assume) -> Frame:
    """Read every two-dimensional image of a FITS file; see `fixpix_cli.files.load`."""
    packed = path.suffix.lower() == ".fz"
    with _opened(path) as hdus:
        found = [(i, hdu) for i, hdu in enumerate(hdus) if _is_image(hdu)]
        if not found:
            raise UnreadableError(f"{path}: holds no image")
        mosaics, layouts, keys = [], [], []
        assumed: tuple[str, ...] = ()
        main = hdus[0].header
        for index, hdu in found:
            header = hdu.header
            if header["NAXIS"] != 2:
                raise RefusedError(
                    f"{path}: image {index} has {header['NAXIS']} axes; fixpix handles two-dimensional images"
                )
            samples, layout = _compressed(path, hdu) if packed else _plain(path, hdu)
            mosaic, assumed = _mosaic(samples, main, header, assume)
            mosaics.append(mosaic)
            layouts.append(layout)
            keys.append(index)
        first = found[0][1].header
        identity = _identity(main, first, mosaics, assume)
        conditions = _conditions(main, first)
        order = _text(main, first, "ROWORDER").upper()
    return Frame(
        tuple(mosaics),
        path,
        tuple(keys),
        identity,
        conditions,
        "fits",
        order if order in ("TOP-DOWN", "BOTTOM-UP") else "",
        assumed,
        tuple(layouts),
    )


def _is_image(hdu: Any) -> bool:
    """True for image HDUs with pixels that are not fixpix's own extensions."""
    header = hdu.header
    name = str(header.get("XTENSION", "IMAGE")).strip()
    plain = name == "IMAGE" or type(hdu).__name__ == "CompImageHDU"
    return plain and header.get("NAXIS", 0) >= 2 and hdu.name not in OURS and "GROUPS" not in header


def _plain(path: Path, hdu: Any) -> tuple[Array, Layout]:
    """(H, W) samples in native byte order, read at the place that astropy found."""
    header = hdu.header
    bitpix, shape = header["BITPIX"], (header["NAXIS2"], header["NAXIS1"])
    if bitpix not in _STORED:
        raise UnreadableError(f"{path}: BITPIX = {bitpix} is not in the FITS standard")
    stored = np.dtype(_STORED[bitpix])
    zero = _zero(path, header, bitpix)
    offset = hdu.fileinfo()["datLoc"]
    size = int(shape[0]) * int(shape[1]) * stored.itemsize
    if path.suffix.lower() == ".gz":
        with gzip.open(path, "rb") as stream:
            stream.seek(offset)
            raw = stream.read(size)
    else:
        if offset + size > path.stat().st_size:
            raise UnreadableError(
                f"{path}: is truncated: the header promises {size} bytes of pixels, "
                f"{max(0, path.stat().st_size - offset)} are there"
            )
        raw = None
    if raw is not None:
        if len(raw) < size:
            raise UnreadableError(f"{path}: is truncated")
        values = np.frombuffer(raw, stored)
    else:
        values = np.fromfile(path, stored, int(shape[0]) * int(shape[1]), offset=offset)
    return _native(values.reshape(shape), bitpix, zero), Layout(offset, stored.str, zero)


def _compressed(path: Path, hdu: Any) -> tuple[Array, None]:
    header = hdu.header
    zero = _zero(path, header, header["BITPIX"])
    return _native(np.asarray(hdu.data), header["BITPIX"], zero), None


def _zero(path: Path, header: Any, bitpix: int) -> int:
    """BZERO of the unsigned conventions, else 0; other scalings are refused."""
    zero, scale = float(header.get("BZERO", 0)), float(header.get("BSCALE", 1))
    if (zero, scale) == (0.0, 1.0):
        return 0
    if scale == 1 and (bitpix, int(zero)) in _OFFSETS:
        return int(zero)
    raise RefusedError(f"{path}: scaled pixels (BSCALE = {scale:g}, BZERO = {zero:g}) cannot be rewritten exactly")


def _native(values: Array, bitpix: int, zero: int) -> Array:
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    if not zero:
        return native
    target = _OFFSETS[bitpix, zero]
    if bitpix == 8:
        return (native ^ 0x80).view(target)
    flip = native.dtype.type(-zero)
    return (native ^ flip).view(target)


def _store(values: Array, layout: Layout) -> Array:
    """Values in the type and byte order of the file."""
    stored = np.dtype(layout.stored)
    if not layout.zero:
        return values.astype(stored)
    if stored.itemsize == 1:
        return values.view(np.uint8) ^ np.uint8(0x80)
    signed = values.view(stored.newbyteorder("="))
    return (signed ^ signed.dtype.type(-layout.zero)).astype(stored)


def _mosaic(samples: Array, main: Any, header: Any, assume: Assume) -> tuple[Mosaic, tuple[str, ...]]:
    assumed = []
    cfa = assume.cfa or _cfa(main, header, samples.shape[0])
    if cfa is None:
        cfa = MONO
        assumed.append("cfa MONO")
    if assume.black is not None:
        levels = assume.black
        black: tuple[tuple[float, ...], ...] = (levels,) if len(levels) == 1 else (levels[:2], levels[2:])
    else:
        black = ((0.0,),)
        assumed.append("black 0")
    white = assume.white
    if white is None:
        white = _number(main, header, "SATURATE", "SATLEVEL")
    if white is None or not np.isfinite(white):
        white = default_white(samples)
        assumed.append(f"white {white:g}")
    return Mosaic(samples, cfa, black, float(white)), tuple(assumed)


def default_white(samples: Array) -> float:
    """The greatest value of the integer type; 1.0 or the frame's maximum for floats."""
    if samples.dtype.kind in "iu":
        return float(np.iinfo(samples.dtype).max)
    finite = samples[np.isfinite(samples)]
    top = float(finite.max()) if finite.size else 1.0
    return 1.0 if top <= 1 else top


def _cfa(main: Any, header: Any, height: int) -> Cfa | None:
    """The pattern from BAYERPAT and its offsets, anchored as ROWORDER says (missing: TOP-DOWN)."""
    word = _text(main, header, "BAYERPAT", "COLORTYP", "CFAIMAGE").upper()
    if len(word) not in (4, 36):
        return None
    try:
        cfa = Cfa.parse(word)
    except UsageError:
        return None
    x, y = (int(_number(main, header, key) or 0) for key in ("XBAYROFF", "YBAYROFF"))
    cfa = cfa.shifted(y, x)
    if _text(main, header, "ROWORDER").upper() == "BOTTOM-UP":
        return cfa.flipped_rows(height)
    return cfa


def _text(main: Any, header: Any, *keys: str) -> str:
    for key in keys:
        for cards in (header, main):
            with contextlib.suppress(Exception):  # a card that astropy cannot parse says nothing
                if key in cards and str(cards[key]).strip():
                    return str(cards[key]).strip()
    return ""


def _number(main: Any, header: Any, *keys: str) -> float | None:
    """The first number among the keys; text such as ``11 C`` counts by its number."""
    for key in keys:
        if match := re.match(r"[+-]?(\d+\.?\d*|\.\d+)([eEdD][+-]?\d+)?", _text(main, header, key).replace(",", ".")):
            return float(match.group().upper().replace("D", "E"))
    return None


def _identity(main: Any, header: Any, mosaics: Sequence[Mosaic], assume: Assume) -> Identity:
    model = _text(main, header, "INSTRUME", "CAMERA", "CAMMODEL")
    serial = _text(main, header, "CAMSN", "SERIALNO", "CAM_SN", "SERNUM", "CAMERASN", "INTSN")
    if set(model.upper()) <= {"X"}:
        model = ""
    if assume.camera is not None:
        model, serial = assume.camera, ""
    binning = [_number(main, header, *keys) for keys in (("YBINNING", "BINY"), ("XBINNING", "BINX"))]
    return Identity(
        model=model,
        serial=serial,
        shape=mosaics[0].shape,
        cfa=mosaics[0].cfa.name,
        binning=(int(binning[0] or 1), int(binning[1] or 1)),
        readout=_text(main, header, "READOUTM"),
        planes=len(mosaics),
    )


_KINDS = (
    ("dark", "dark"),
    ("bias", "bias"),
    ("zero", "bias"),
    ("flat", "flat"),
    ("light", "light"),
    ("object", "light"),
)


def _conditions(main: Any, header: Any) -> Conditions:
    temperature = _number(main, header, "CCD-TEMP", "CCD_TEMP", "CCDTEMP", "TEMPERAT", "CAMTCCD", "CAMTEMP", "SET-TEMP")
    if temperature is not None and temperature > 150:  # kelvin
        temperature = round(temperature - 273.15, 3)
    word = _text(main, header, "IMAGETYP", "FRAMETYP", "FRAME").lower()
    return Conditions(
        exposure=_number(main, header, "EXPTIME", "EXPOSURE"),
        gain=_number(main, header, "GAIN", "ISOSPEED", "ISO"),
        temperature=temperature,
        time=_text(main, header, "DATE-OBS") or None,
        kind=next((kind for part, kind in _KINDS if part in word), None),
    )


def rewrite(frame: Frame, edits: Sequence[Edit], temporary: Path) -> None:
    """Copy the file and patch the edited pixels' bytes; checksum cards follow, if there are any."""
    source = frame.source
    if source.suffix.lower() == ".fz":
        raise RefusedError(f"{source}: tile-compressed FITS cannot be rewritten bit-exactly yet; funpack it first")
    gz = source.suffix.lower() == ".gz"
    if gz:
        plain = temporary.with_name(temporary.name + ".plain")
        try:
            with gzip.open(source, "rb") as packed, open(plain, "wb") as out:
                shutil.copyfileobj(packed, out, 1 << 20)
            _patch(frame, edits, plain)
            with (
                open(plain, "rb") as stream,
                open(temporary, "wb") as out,
                gzip.GzipFile(fileobj=out, mode="wb", mtime=0, filename="") as packed_out,
            ):
                shutil.copyfileobj(stream, packed_out, 1 << 20)
        finally:
            plain.unlink(missing_ok=True)
    else:
        shutil.copyfile(source, temporary)
        _patch(frame, edits, temporary)


def _patch(frame: Frame, edits: Sequence[Edit], path: Path) -> None:
    with open(path, "r+b") as stream:
        for key, mosaic, edit, layout in zip(frame.keys, frame.mosaics, edits, frame.layout, strict=True):
            if not len(edit):
                continue
            stored = np.dtype(layout.stored)
            count = mosaic.shape[0] * mosaic.shape[1]
            view = np.memmap(stream, stored, "r+", layout.offset, (count,))
            view[edit.rows * mosaic.shape[1] + edit.cols] = _store(edit.values, layout)
            view.flush()
            del view
            _renew_checksums(stream, key, path)


def _renew_checksums(stream: Any, index: int, path: Path) -> None:
    """Rewrite the DATASUM and CHECKSUM cards of one HDU in place, where it has them."""
    from astropy.io import fits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(path, memmap=False, do_not_scale_image_data=True, disable_image_compression=True) as hdus:
            info = hdus[index].fileinfo()
            keys = [card.keyword for card in hdus[index].header.cards]
    start, data, span = info["hdrLoc"], info["datLoc"], info["datSpan"]
    if "DATASUM" not in keys and "CHECKSUM" not in keys:
        return
    stream.seek(start)
    header = bytearray(stream.read(data - start))
    stream.seek(data)
    total = ones_complement(stream.read(span))
    for card in range(0, len(header), 80):
        if header[card : card + 10] == b"DATASUM = ":
            _replace_string(header, card, str(total))
    place = next((c for c in range(0, len(header), 80) if header[c : c + 10] == b"CHECKSUM= "), None)
    if place is not None:
        _replace_string(header, place, "0" * 16)
        _replace_string(header, place, encode_checksum(ones_complement(bytes(header), total)))
    stream.seek(start)
    stream.write(header)
    stream.flush()


def _replace_string(header: bytearray, card: int, value: str) -> None:
    """Put a string value into an 80-byte card, keeping its comment where the old value gave it room."""
    text = bytes(header[card : card + 80]).decode("latin-1")
    match = re.match(r"(.{8}= +)'(?:[^']|'')*'(.*)$", text)
    if match is None:
        new = f"{text[:10]}'{value:<8}'"
    else:
        new = f"{match[1]}'{value:<8}'"
        rest = match[2]
        shrink = len(new) + len(rest) - 80
        if shrink > 0 and rest.startswith(" " * (shrink + 1)):
            rest = rest[shrink:]
        elif shrink < 0 and rest.lstrip().startswith("/"):
            rest = " " * -shrink + rest
        new += rest
    header[card : card + 80] = f"{new:<80}"[:80].encode("latin-1")


def ones_complement(data: bytes, total: int = 0) -> int:
    """The 32-bit ones' complement sum of FITS checksums (FITS standard 4.0, appendix J)."""
    padded = data + b"\0" * (-len(data) % 4)
    total += int(np.frombuffer(padded, ">u4").sum(dtype=np.uint64))
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def encode_checksum(total: int) -> str:
    """The 16 letters of a CHECKSUM card (FITS standard 4.0, appendix J.2)."""
    value = ~total & 0xFFFFFFFF
    letters = [[0] * 4 for _ in range(4)]
    for i in range(4):
        byte = value >> (24 - 8 * i) & 0xFF
        quotient, remainder = byte // 4 + 48, byte % 4
        four = [quotient + remainder, quotient, quotient, quotient]
        barred = set(range(0x3A, 0x41)) | set(range(0x5B, 0x61))
        while any(c in barred for c in four):
            for j in (0, 2):
                if four[j] in barred or four[j + 1] in barred:
                    four[j] += 1
                    four[j + 1] -= 1
        for j in range(4):
            letters[j][i] = four[j]
    text = "".join(chr(letters[j][i]) for j in range(4) for i in range(4))
    return text[-1] + text[:-1]


def sign(path: Path, provenance: Any) -> bool:
    """Add HISTORY and FPX cards to the primary header; all other cards stay as they are."""
    if path.suffix.lower() == ".gz":
        return False
    with _opened(path) as hdus:
        end = hdus[0].fileinfo()["datLoc"]
    data = path.read_bytes()
    header = data[:end]
    last = next(c for c in range(0, end, 80) if header[c : c + 80].rstrip() == b"END")
    line = str(provenance).encode("ascii", "replace").decode()
    cards = [f"HISTORY {line[i : i + 72]}" for i in range(0, len(line), 72)]
    cards += [
        f"FPXVER  = {_quoted(provenance.version)} / fixpix version",
        f"FPXNPIX = {provenance.pixels:>20} / bad pixels repaired",
        f"FPXMAP  = {_quoted(provenance.map[:60])}",
    ]
    signed = header[:last] + b"".join(f"{card[:80]:<80}".encode("ascii", "replace") for card in cards)
    signed += b"END".ljust(80)
    signed += b" " * (-len(signed) % 2880)
    with open(path, "r+b") as stream:
        stream.write(signed.ljust(end) if len(signed) < end else signed)
        if len(signed) > end:
            stream.write(data[end:])
        stream.flush()
        _renew_checksums(stream, 0, path)
    return True


def _quoted(text: str) -> str:
    doubled = text.replace("'", "''")
    return f"'{doubled:<8}'"
