"""Floor 2. Defects of the LSST pipelines as FITS tables; a keeper of astropy.

Read are the table of boxes (``x0 y0 width height``, see `lsst`) and the FITS
region table (``X Y SHAPE R ROTANG``: centres, 1-based, of a POINT, BOX or ROTBOX
at right angles). Written are two tables of boxes, as lsst.ip.isr does: the
second one names the reasons.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...defects import DefectMap
from ...errors import UnreadableError
from .fits_mask import opened
from .lsst import COLUMNS, add, flags_of, keeps, reason
from .places import Listed, Places, Problem, Sensor, as_kept, check_shape
from .shapes import boxes
from .text import BadLine, shape_of

SUFFIX = ".fits"
REGION = ("X", "Y", "SHAPE", "R")
__all__ = ["SUFFIX", "keeps", "read", "write"]


def write(path: Path, plane: DefectMap, sensor: Sensor) -> list[str]:
    """Write the tables; returns notes."""
    from astropy.io import fits

    found = boxes(as_kept(plane, keeps).dq)
    numbers = np.array([(col, row, wide, high) for row, col, high, wide, _ in found], np.int64).reshape(-1, 4)
    columns = [fits.Column(name, "K", array=numbers[:, n]) for n, name in enumerate(COLUMNS)]
    words = np.array([reason(flags) for *_, flags in found], "U16")
    tables = [
        fits.BinTableHDU.from_columns(columns),
        fits.BinTableHDU.from_columns([*columns, fits.Column("reason", "16A", array=words)]),
    ]
    for table in tables:
        table.header["OBSTYPE"] = "defects"
        table.header["HIERARCH DEFECTS_SCHEMA"] = "Simple"
        table.header["HIERARCH DEFECTS_SCHEMA_VERSION"] = 1
        table.header["FPXROWS"], table.header["FPXCOLS"] = plane.shape
        for key, value in (("INSTRUME", sensor.model), ("DET_SER", sensor.serial)):
            if value:
                table.header[key] = value.encode("ascii", "replace").decode()
    fits.HDUList([fits.PrimaryHDU(), *tables]).writeto(path, overwrite=True)
    return []


def is_defects(columns: list[str]) -> bool:
    """Whether a table's columns are those of LSST's defects."""
    return set(COLUMNS) <= set(columns) or set(REGION) <= {name.upper() for name in columns}


def read(path: Path, sensor: Sensor) -> Listed:
    """Read the tables; see `fixpix_cli.maps.foreign.read`."""
    with opened(path) as hdus:
        tables = [h for h in hdus if getattr(h, "columns", None) is not None and is_defects(h.columns.names)]
        if not tables:
            raise UnreadableError(f"{path}: has no table with x0, y0, width, height, or X, Y, SHAPE, R")
        header = tables[0].header
        if sensor.shape is None and "FPXROWS" in header:
            sensor = replace(sensor, shape=check_shape(path, (int(header["FPXROWS"]), int(header["FPXCOLS"]))))
        shape = shape_of(path, sensor)
        total: Listed | None = None
        for table in tables[:2]:
            places = Places(path)
            names = table.columns.names
            columns = [np.asarray(table.data[name]).tolist() for name in names]
            for number, cells in enumerate(zip(*columns, strict=True), 1):
                try:
                    _take(places, number, dict(zip(names, cells, strict=True)), names)
                except BadLine as error:
                    places.problems.append(Problem(number, f"{error} (row of the table)"))
            listed = places.listed(shape)
            if total is None:
                total = listed
            else:  # the same boxes again, with reasons
                both = (total.planes[0] | listed.planes[0],)
                total = Listed(both, total.problems or listed.problems, total.notes)
    assert total is not None
    return total


def _take(places: Places, number: int, row: Any, names: list[str]) -> None:
    if set(COLUMNS) <= set(names):
        x0, y0, width, height = (int(row[name]) for name in COLUMNS)
        add(places, number, x0, y0, width, height, flags_of(str(row["reason"])) if "reason" in names else 0)
        return
    shape = str(row["SHAPE"]).strip().upper()
    x, y = (float(np.ravel(row[name])[0]) - 1 for name in ("X", "Y"))
    if shape == "POINT":
        wide, high = 1.0, 1.0
    elif shape in ("BOX", "ROTBOX"):
        wide, high = (float(v) for v in np.ravel(row["R"])[:2])
        angle = float(np.ravel(row["ROTANG"])[0]) % 180 if "ROTANG" in names else 0.0
        if shape == "ROTBOX" and angle == 90:
            wide, high = high, wide
        elif shape == "ROTBOX" and angle:
            raise BadLine(f"a box turned by {angle:g} degrees")
    else:
        raise BadLine(f"a {shape[:20] or 'region without shape'}")
    edges = (x - (wide - 1) / 2, y - (high - 1) / 2, wide, high)
    if not all(np.isfinite(v) and v.is_integer() for v in edges):
        raise BadLine("its edges do not lie between pixels")
    add(places, number, int(edges[0]), int(edges[1]), int(wide), int(high), 0)
