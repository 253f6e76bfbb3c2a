"""Floor 2. EDF images (ESRF), as pyFAI and fabio read masks: 1 = masked.

A header of ``key = value ;`` lines in braces, padded to 512 bytes, then the rows
from the first stored one (fabio, edfimage.py).
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...defects import DefectMap
from ...errors import UnreadableError
from ...mosaic import Array
from .image import from_image
from .places import Flags, Listed, Sensor, check_shape, untyped

SUFFIX = ".edf"
IMAGE = True
_TYPES = {
    **dict.fromkeys(("signedbyte",), "i1"),
    **dict.fromkeys(("unsignedbyte",), "u1"),
    **dict.fromkeys(("signedshort",), "i2"),
    **dict.fromkeys(("unsignedshort",), "u2"),
    **dict.fromkeys(("signedinteger", "signedlong"), "i4"),
    **dict.fromkeys(("unsignedinteger", "unsignedlong"), "u4"),
    **dict.fromkeys(("signed64",), "i8"),
    **dict.fromkeys(("unsigned64",), "u8"),
    **dict.fromkeys(("float", "floatvalue", "real"), "f4"),
    **dict.fromkeys(("double", "doublevalue"), "f8"),
}
_MOST_HEADER = 2**20


def keeps(flags: Flags) -> Flags:
    """No types."""
    return untyped(flags)


def write(path: Path, plane: DefectMap, sensor: Sensor) -> list[str]:
    """Write the mask; returns notes."""
    height, width = plane.shape
    cards = {
        "EDF_DataBlockID": "0.Image.Psd",
        "EDF_BinarySize": height * width,
        "ByteOrder": "LowByteFirst",
        "DataType": "UnsignedByte",
        "Dim_1": width,
        "Dim_2": height,
        "Image": 0,
        "HeaderID": "EH:000000:000000:000000",
        "Size": height * width,
    }
    text = "{\n" + "".join(f"{key} = {value} ;\n" for key, value in cards.items())
    header = text.ljust(512 * -(-(len(text) + 2) // 512) - 2) + "}\n"
    path.write_bytes(header.encode("ascii") + plane.bad.astype(np.uint8).tobytes())
    return []


def load(path: Path) -> tuple[Array, list[str]]:
    """The image of the first block, and notes.

    Raises
    ------
    UnreadableError
        No EDF, cut off, or compressed.
    """
    data = path.read_bytes()
    end = data.find(b"}\n", 0, _MOST_HEADER)
    if not data.lstrip()[:1] == b"{" or end < 0:
        raise UnreadableError(f"{path}: is no EDF file")
    cards = {
        key.lower(): value.strip() for key, value in re.findall(r"(\w+)\s*=\s*([^;]*);", data[:end].decode("latin-1"))
    }
    if cards.get("compression", "none").lower() not in ("none", "nocompression", ""):
        raise UnreadableError(f"{path}: is compressed ({cards['compression'][:20]}); save it without")
    kind = _TYPES.get(cards.get("datatype", "").lower())
    if kind is None or not all(cards.get(key, "").isdigit() for key in ("dim_1", "dim_2")):
        raise UnreadableError(f"{path}: its header names no known DataType, Dim_1 and Dim_2")
    if cards.get("dim_3", "1") != "1":
        raise UnreadableError(f"{path}: holds a volume; a mask is one plane")
    order = ">" if cards.get("byteorder", "LowByteFirst").lower() == "highbytefirst" else "<"
    height, width = check_shape(path, (int(cards["dim_2"]), int(cards["dim_1"])))
    dtype = np.dtype(order + kind)
    if len(data) - end - 2 < height * width * dtype.itemsize:
        raise UnreadableError(f"{path}: is cut off: its header promises {height} x {width} pixels")
    image = np.frombuffer(data, dtype, height * width, end + 2).reshape(height, width)
    more = data[end + 2 + image.nbytes :].lstrip(b" \n\r\0")
    return image, ["lost: further images behind the first one"] if more[:1] == b"{" else []


def read(path: Path, sensor: Sensor, good: bool = False, limit: bool = True) -> Listed:
    """Read a mask; see `fixpix_cli.maps.foreign.read`."""
    image, notes = load(path)
    listed = from_image(path, image, good=good, limit=limit)
    return replace(listed, notes=(*listed.notes, *notes))
