"""Floor 2. FITS frames: read the stored values, patch the stored bytes.

astropy finds the data; the values are read and written by our own few lines,
since astropy's write-back touches headers and padding of real files. Row order
is kept as stored; ROWORDER and the Bayer offsets only name the colours.

Tile-compressed images can be read, not rewritten. A file's content decides what
it is, not its name: gzip and tile compression also come as plain ``.fits``, where
an offset into the unpacked bytes would read and patch the wrong ones.
"""

from __future__ import annotations

import contextlib
import gzip
import re
import shutil
import warnings
import zlib
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
    """Where a plane's values lie: byte offset in the (gunzipped) file, stored dtype, BZERO.

    Tile-compressed planes have none.
    """

    offset: int
    stored: str
    zero: int


#: First bytes of packers that astropy would open without a word.
_PACKERS = {b"BZh": "bzip2", b"PK\x03\x04": "zip", b"\xfd7zXZ": "xz", b"\x1f\x9d": "compress"}
#: Samples per byte of a compressed file; a header that claims more is damaged.
_MOST_PER_BYTE = 2000
#: Bytes that a gunzipped file may hold behind its images: this many, and so many for each of its own bytes.
_MOST_BEHIND, _BEHIND_PER_BYTE = 64 << 20, 100


def _is_gzip(path: Path) -> bool:
    """True for gzip content, whatever the name says.

    Raises
    ------
    UnreadableError
        The file is packed in another way.
    """
    with open(path, "rb") as stream:
        head = stream.read(6)
    for magic, name in _PACKERS.items():
        if head.startswith(magic):
            raise UnreadableError(f"{path}: is packed with {name}; unpack it first")
    return head.startswith(b"\x1f\x8b")


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
                ignore_missing_simple=False,
            ) as hdus:
                if hdus[0].header.get("SIMPLE") is False:
                    raise UnreadableError(f"{path}: says of itself that it is not standard FITS (SIMPLE = F)")
                yield hdus
    except (
        *(ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OverflowError),
        *(zlib.error, fits.VerifyError),
    ) as error:
        raise UnreadableError(f"{path}: is damaged or not FITS ({_first_line(error)})") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise UnreadableError(f"{path}: is damaged or not FITS ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    # astropy's advice to Python programmers is of no use to somebody with a broken file.
    return text[0].split(", this file")[0].rstrip(".") if text else type(error).__name__


def load(path: Path, assume: Assume) -> Frame:
    """Read every two-dimensional image of a FITS file; see `fixpix_cli.files.load`."""
    zipped = _is_gzip(path)
    with _opened(path) as hdus, contextlib.ExitStack() as closing:
        unpacked = closing.enter_context(gzip.open(path, "rb")) if zipped else None
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
            layout: Layout | None = None
            if _is_tiled(hdu):
                samples = _compressed(path, hdu)
            else:
                samples, layout = _plain(path, hdu, unpacked)
            mosaic, assumed = _mosaic(path, samples, main, header, assume)
            mosaics.append(mosaic)
            layouts.append(layout)
            keys.append(index)
        first = found[0][1].header
        identity = _identity(main, first, mosaics, assume)
        conditions = conditions_of(main, first)
        order = _text(main, first, "ROWORDER").upper()
        if unpacked is not None:
            _to_the_end(path, unpacked)
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


def _to_the_end(path: Path, unpacked: Any) -> None:
    """Read the rest of a gunzipped stream: only its end tells damaged data, by a CRC.

    Raises
    ------
    UnreadableError
        Far more follows than a file of this size would hold behind its images.
    """
    most = _MOST_BEHIND + _BEHIND_PER_BYTE * path.stat().st_size
    while block := unpacked.read(1 << 20):
        most -= len(block)
        if most < 0:
            raise UnreadableError(f"{path}: unpacks to far more than its images; unpack it yourself if you trust it")


def _is_tiled(hdu: Any) -> bool:
    """True for tile-compressed images."""
    return type(hdu).__name__ == "CompImageHDU"


def _is_image(hdu: Any) -> bool:
    """True for image HDUs with pixels that are not fixpix's own extensions."""
    header = hdu.header
    name = str(header.get("XTENSION", "IMAGE")).strip()
    plain = name == "IMAGE" or _is_tiled(hdu)
    return plain and header.get("NAXIS", 0) >= 2 and hdu.name not in OURS and "GROUPS" not in header


def _plain(path: Path, hdu: Any, unpacked: Any) -> tuple[Array, Layout]:
    """(H, W) samples in native byte order, read at the place that astropy found.

    `unpacked` is the gunzipped stream, or None for a plain file.
    """
    header = hdu.header
    bitpix, shape = header["BITPIX"], _shape(path, header)
    if bitpix not in _STORED:
        raise UnreadableError(f"{path}: BITPIX = {bitpix} is not in the FITS standard")
    stored = np.dtype(_STORED[bitpix])
    zero = _zero(path, header, bitpix)
    offset = hdu.fileinfo()["datLoc"]
    count = shape[0] * shape[1]
    size = count * stored.itemsize
    there = path.stat().st_size
    if unpacked is None:
        there = max(0, there - offset)
    elif size <= there * _MOST_PER_BYTE:
        unpacked.seek(offset)
        raw = unpacked.read(size)
        there = len(raw)
    if there < size:
        raise UnreadableError(f"{path}: is truncated: the header promises {size} bytes of pixels, {there} are there")
    values = np.fromfile(path, stored, count, offset=offset) if unpacked is None else np.frombuffer(raw, stored)
    return _native(values.reshape(shape), bitpix, zero), Layout(offset, stored.str, zero)


def _shape(path: Path, header: Any) -> tuple[int, int]:
    """Rows and columns of an image."""
    rows, cols = header["NAXIS2"], header["NAXIS1"]
    if not (isinstance(rows, int) and isinstance(cols, int) and rows > 0 and cols > 0):
        raise UnreadableError(f"{path}: is damaged (an image of {cols} x {rows})")
    return rows, cols


def _compressed(path: Path, hdu: Any) -> Array:
    """(H, W) samples of a tile-compressed image, in native byte order."""
    header = hdu.header
    shape, zero = _shape(path, header), _zero(path, header, header["BITPIX"])
    size = path.stat().st_size
    if shape[0] * shape[1] > size * _MOST_PER_BYTE:
        raise UnreadableError(f"{path}: claims {shape[1]} x {shape[0]} pixels, too many for a file of {size} bytes")
    try:
        values = np.asarray(hdu.data)
    except MemoryError:
        raise
    except Exception as error:  # the codecs raise classes of their own, which astropy does not publish
        raise UnreadableError(f"{path}: a compressed tile is damaged ({_first_line(error)})") from error
    if values.shape != shape:
        raise UnreadableError(f"{path}: is damaged (its compressed tiles do not make up the image)")
    return _native(values, header["BITPIX"], zero)


def _zero(path: Path, header: Any, bitpix: int) -> int:
    """BZERO of the unsigned conventions, else 0; other scalings are refused."""
    zero, scale = float(header.get("BZERO", 0)), float(header.get("BSCALE", 1))
    if (zero, scale) == (0.0, 1.0):
        return 0
    if scale == 1 and zero.is_integer() and (bitpix, int(zero)) in _OFFSETS:
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


def _mosaic(path: Path, samples: Array, main: Any, header: Any, assume: Assume) -> tuple[Mosaic, tuple[str, ...]]:
    assumed = []
    cfa = assume.cfa or _cfa(path, main, header, samples.shape[0])
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
    if white is None or not np.isfinite(white) or white <= 0:
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


def _cfa(path: Path, main: Any, header: Any, height: int) -> Cfa | None:
    """The pattern from BAYERPAT and its offsets, anchored as ROWORDER says (missing: TOP-DOWN)."""
    stated = _text(main, header, "BAYERPAT").upper()
    if stated in ("NONE", "NULL", "N/A", "F", "FALSE"):
        stated = ""
    word = stated or _text(main, header, "COLORTYP", "CFAIMAGE").upper()
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


_BINNING = (("YBINNING", "BINY", "CCDYBIN"), ("XBINNING", "BINX", "CCDXBIN"))


def _identity(main: Any, header: Any, mosaics: Sequence[Mosaic], assume: Assume) -> Identity:
    model = _text(main, header, "INSTRUME", "CAMERA", "CAMMODEL")
    serial = _text(main, header, "CAMSN", "SERIALNO", "CAM_SN", "SERNUM", "CAMERASN", "INTSN")
    if set(model.upper()) <= {"X"}:
        model = ""
    if assume.camera is not None:
        model, serial = assume.camera, ""
    binning = [_number(main, header, *keys) for keys in _BINNING]
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


_TEMPERATURES = ("CCD-TEMP", "CCD_TEMP", "CCDTEMP", "TEMPERAT", "CAMTCCD", "CAMTEMP", "SET-TEMP")


def _temperature(main: Any, header: Any) -> float | None:
    """Of the sensor, in C. Above 150 it is kelvin; a bare CAMTEMP of -1 is 'no data' (MicroObservatory)."""
    for key in _TEMPERATURES:
        value = _number(main, header, key)
        if value is None or (key == "CAMTEMP" and re.fullmatch(r"-1(\.0*)?( *K)?", _text(main, header, key))):
            continue
        return round(value - 273.15, 3) if value > 150 else value
    return None


def conditions_of(main: Any, header: Any) -> Conditions:
    """Exposure, gain, temperature, time and kind from header cards (any mapping), `header` before `main`."""
    word = _text(main, header, "IMAGETYP", "FRAMETYP", "FRAME").lower()
    return Conditions(
        exposure=_number(main, header, "EXPTIME", "EXPOSURE"),
        gain=_number(main, header, "GAIN", "ISOSPEED", "ISO"),
        temperature=_temperature(main, header),
        time=_text(main, header, "DATE-OBS") or None,
        kind=next((kind for part, kind in _KINDS if part in word), None),
    )


def rewrite(frame: Frame, edits: Sequence[Edit], temporary: Path) -> None:
    """Copy the file and patch the edited pixels' bytes; checksum cards follow, if there are any."""
    source = frame.source
    if any(len(edit) and layout is None for edit, layout in zip(edits, frame.layout, strict=True)):
        raise RefusedError(f"{source}: tile-compressed FITS cannot be rewritten bit-exactly yet; funpack it first")
    if not _is_gzip(source):
        shutil.copyfile(source, temporary)
        _patch(frame, edits, temporary)
        return
    plain = temporary.with_name(temporary.name + ".plain")
    try:
        with _gunzipped(source) as packed, open(plain, "wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
        _patch(frame, edits, plain)
        name, when, level = _gzip_header(source)
        with (
            open(plain, "rb") as stream,
            open(temporary, "wb") as out,
            gzip.GzipFile(fileobj=out, mode="wb", mtime=when, filename=name, compresslevel=level) as packed_out,
        ):
            shutil.copyfileobj(stream, packed_out, 1 << 20)
    finally:
        plain.unlink(missing_ok=True)


@contextlib.contextmanager
def _gunzipped(path: Path) -> Iterator[Any]:
    """The unpacked bytes of a gzip file; damage is an UnreadableError."""
    try:
        with gzip.open(path, "rb") as stream:
            yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UnreadableError(f"{path}: is damaged ({_first_line(error)})") from error


def _gzip_header(path: Path) -> tuple[str, int, int]:
    """Name, time and level that a gzip file states of itself (RFC 1952)."""
    with open(path, "rb") as stream:
        head = stream.read(1024)
    flags, when, extra = head[3], int.from_bytes(head[4:8], "little"), head[8]
    end = head.find(b"\0", 10)
    # Only a name that follows at once; the rarer extra fields are not carried over.
    name = head[10:end].decode("latin-1") if flags & 0x0C == 0x08 and end > 0 else ""
    return name, when, {2: 9, 4: 1}.get(extra, 6)


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
    """Put a string value into an 80-byte card, keeping its comment where the old value gave it room.

    The quote goes to column 11: CHECKSUM's letters count by their place in a 4-byte word.
    """
    text = bytes(header[card : card + 80]).decode("latin-1")
    match = re.match(r".{8}= +'(?:[^']|'')*'(.*)$", text)
    new = f"{text[:10]}'{value:<8}'"
    if match is not None:
        rest = match[1]
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
    if _is_gzip(path):
        return False
    with _opened(path) as hdus:
        end = hdus[0].fileinfo()["datLoc"]
    data = path.read_bytes()
    header = data[:end]
    last = next((c for c in range(0, end, 80) if header[c : c + 80].rstrip(b" \0") == b"END"), None)
    if last is None:
        return False
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
