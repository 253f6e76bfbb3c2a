"""Floor 2. The keeper of astropy among the files: where a FITS file's parts lie, and the codecs of its tiles.

Plain files are read without it (`fixpix_cli.fitsheader`); astropy has the others.
astropy's exceptions become ours in `opened`, once. Everything else about FITS
works on bytes and numbers that come from here.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import fitsheader
from ..errors import UnreadableError
from ..mosaic import Array

#: Extensions that fixpix itself writes; they are no image planes.
OURS = ("DQ", "DQ_DEF", "PROB", "EVIDENCE", "FRAMES")


_DAMAGE = (ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OverflowError, zlib.error)


@dataclass(frozen=True, eq=False)
class Place:
    """Where one HDU lies in an unpacked file, in bytes; `span` is the data with its padding."""

    head: int
    data: int
    span: int
    header: Any


@contextlib.contextmanager
def opened(path: Path, *, tables: bool = False) -> Iterator[Any]:
    """The file's HDUs; astropy's exceptions become ours, its warnings are dropped.

    With `tables` a tile-compressed image is the binary table that the file holds.
    """
    plain = fitsheader.read(path)
    try:
        if plain is not None:
            yield plain
            return
    except _DAMAGE as error:
        raise UnreadableError(f"{path}: is damaged or not FITS ({first_line(error)})") from error
    from astropy.io import fits

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(
                path,
                memmap=False,
                do_not_scale_image_data=True,
                ignore_missing_simple=False,
                disable_image_compression=tables,
            ) as hdus:
                if hdus[0].header.get("SIMPLE") is False:
                    raise UnreadableError(f"{path}: says of itself that it is not standard FITS (SIMPLE = F)")
                yield list(_walked(hdus))
    except (*_DAMAGE, fits.VerifyError) as error:
        raise UnreadableError(f"{path}: is damaged or not FITS ({first_line(error)})") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise UnreadableError(f"{path}: is damaged or not FITS ({first_line(error)})") from error


def _walked(hdus: Any) -> Iterator[Any]:
    """The HDUs that follow each other without a gap.

    Left to itself astropy takes whatever lies behind the last one for a header and
    looks for its END card to the end of the file, be it gigabytes of zeros.
    """
    for index in itertools.count():
        try:
            hdu = hdus[index]
        except IndexError:
            return
        yield hdu
        info = hdu.fileinfo()
        info["file"].seek(info["datLoc"] + info["datSpan"])
        if info["file"].read(8) != b"XTENSION":
            return


def first_line(error: Exception) -> str:
    """The first line of an exception's text, or its name."""
    text = str(error).strip().splitlines()
    # astropy's advice to Python programmers is of no use to somebody with a broken file.
    return text[0].split(", this file")[0].rstrip(".") if text else type(error).__name__


def is_tiled(hdu: Any) -> bool:
    """True for tile-compressed images."""
    return type(hdu).__name__ == "CompImageHDU"


def is_image(hdu: Any) -> bool:
    """True for image HDUs with pixels that are not fixpix's own extensions."""
    header = hdu.header
    name = str(header.get("XTENSION", "IMAGE")).strip()
    plain = name == "IMAGE" or is_tiled(hdu)
    return plain and header.get("NAXIS", 0) >= 2 and hdu.name not in OURS and "GROUPS" not in header


def places(path: Path) -> list[Place]:
    """Where the HDUs of an unpacked file lie, tile-compressed images as the tables that they are."""
    found = []
    with opened(path, tables=True) as hdus:
        for hdu in hdus:
            info = hdu.fileinfo()
            found.append(Place(info["hdrLoc"], info["datLoc"], info["datSpan"], hdu.header))
    return found


def tiled_values(path: Path, hdu: Any) -> Array:
    """The stored values of a tile-compressed image, any number of axes, not scaled."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(hdu.data)
    except MemoryError:
        raise
    except Exception as error:  # the codecs raise classes of their own, which astropy does not publish
        raise UnreadableError(f"{path}: a compressed tile is damaged ({first_line(error)})") from error


def encoded(kind: str, tiles: Sequence[Array]) -> list[bytes]:
    """Compress tiles of one shape without loss.

    Parameters
    ----------
    kind : RICE_1, PLIO_1 or HCOMPRESS_1
    tiles : (h, w) native integer arrays; their item size is RICE's BYTEPIX

    Raises
    ------
    ValueError
        The codec cannot hold them (PLIO: negative values).
    """
    from astropy.io import fits

    rows, cols = tiles[0].shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hdu = fits.CompImageHDU(
            np.concatenate(tiles), compression_type=kind, tile_shape=(rows, cols), hcomp_scale=0, hcomp_smooth=0
        )
        stream = io.BytesIO()
        try:
            fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(stream)
        except Exception as error:  # see tiled_values
            raise ValueError(first_line(error)) from error
        stream.seek(0)
        with fits.open(stream, disable_image_compression=True) as hdus:
            cells = hdus[1].data["COMPRESSED_DATA"]
            return [cell.astype(cell.dtype.newbyteorder(">")).tobytes() for cell in cells]


def image_header(path: Path, index: int) -> bytes:
    """The header of a tile-compressed image as it would be without compression, padded."""
    with opened(path) as hdus:
        header = hdus[index].header.copy()
        # fpack keeps a primary image's SIMPLE, but behind the primary HDU it is an extension.
        for key in ("SIMPLE", "XTENSION", "EXTEND", "PCOUNT", "GCOUNT"):
            header.remove(key, ignore_missing=True)
        header.insert(0, ("XTENSION", "IMAGE", "image extension"))
        header.set("PCOUNT", 0, "no parameters", after=f"NAXIS{header['NAXIS']}")
        header.set("GCOUNT", 1, "one group", after="PCOUNT")
        if header["BITPIX"] < 0:
            header.remove("BLANK", ignore_missing=True)
        return bytes(header.tostring(), "latin-1")
