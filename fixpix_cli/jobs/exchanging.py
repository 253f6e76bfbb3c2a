"""``maps export`` and ``maps import``: maps of other programs.

An import becomes a mask, not a camera's map: a foreign list tells places, but no
evidence that further frames could add to. `correct --map` takes the mask as it is.

A foreign file and the frame of ``--like`` are read in a worker, within its limits.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import files, maps, safe, workers
from ..defects import DefectMap
from ..errors import MismatchError, OutputExistsError, UnreadableError, UsageError
from ..maps import foreign
from ..mosaic import Area, Frame
from .known import _fit
from .outcomes import DONE, PLANNED, Common, Outcome, attempt, lost

#: Bad lines that an error names; the others are counted.
_SHOWN = 10


@dataclass(frozen=True)
class Wanted:
    """What an exchange is told.

    Parameters
    ----------
    out : file or folder to write, None: a file by the format's rules in this folder
    format : name in `foreign.FORMATS`; empty: by the file (import)
    like : a frame of the camera, which tells shape, visible area, row order and name
    shape : (H, W) of the sensor
    plane : the only plane to export
    zero_is_bad : polarity of mask images; None: as the format has it
    skip_bad : leave bad lines out instead of refusing the file
    """

    out: Path | None = None
    format: str = ""
    like: Path | None = None
    shape: tuple[int, int] | None = None
    plane: int | None = None
    zero_is_bad: bool | None = None
    skip_bad: bool = False
    overwrite: bool = False
    common: Common = field(default_factory=Common)


def export_map(path: Path, wanted: Wanted) -> Outcome:
    """Write a map, mask or truth in a foreign format."""
    foreign.keeper(wanted.format)
    return _apart(_export, path, wanted)


def import_map(path: Path, wanted: Wanted) -> Outcome:
    """Write the mask that a foreign file means."""
    return _apart(_import, path, wanted)


def _apart(work: Any, path: Path, wanted: Wanted) -> Outcome:
    (outcome,) = workers.run(work, [(path, wanted)], 1, wanted.common.budget, lost)
    return outcome


def _export(path: Path, wanted: Wanted) -> Outcome:
    return attempt(path, lambda: _exported(path, wanted))


def _import(path: Path, wanted: Wanted) -> Outcome:
    return attempt(path, lambda: _imported(path, wanted))


# ---------------------------------------------------------------- out


def _exported(path: Path, wanted: Wanted) -> Outcome:
    mask = maps.read_mask(path)
    planes, notes = _flags(mask, wanted.common)
    order = mask.row_order
    frame = files.load(wanted.like, wanted.common.assume) if wanted.like is not None else None
    if frame is not None:
        planes, said = _fit(replace(mask, planes=tuple(planes)), frame, wanted.common)
        planes, notes = planes[: frame.planes], notes + said
        order = frame.row_order or order
    if wanted.plane is not None:
        if not 0 <= wanted.plane < len(planes):
            raise UsageError(f"{path}: has {len(planes)} planes, counted from 0; there is no plane {wanted.plane}")
        planes = [planes[wanted.plane]]
    shape = planes[0].shape
    sensor = _sensor(frame, wanted.plane or 0, shape)
    sensor = replace(sensor, row_order=order)
    if mask.camera is not None and frame is None:
        sensor = replace(sensor, make=mask.camera.make, model=mask.camera.model, serial=mask.camera.serial)
    target = _target(path, wanted, sensor)
    gone = str(foreign.losses(planes, wanted.format))
    notes += [f"lost: types that {wanted.format} does not tell: {gone}"] if gone else []
    if not wanted.common.dry_run:
        with safe.replacing(target, overwrite=wanted.overwrite) as temporary:
            notes += foreign.write(temporary, planes, sensor, wanted.format)
    return _outcome(path, target, planes, wanted, wanted.format, notes)


def _flags(mask: maps.MaskFile, common: Common) -> tuple[list[DefectMap], list[str]]:
    """The planes at the threshold that is asked for, and what of a camera's map stays behind."""
    if mask.camera is None:
        if common.threshold is not None or common.max_false is not None:
            raise UsageError(f"{mask.path}: is a mask without probabilities; no threshold can be chosen")
        return list(mask.planes), []
    note = "lost: probabilities and conditions, which only a fixpix map keeps"
    if common.threshold is None and common.max_false is None:
        return list(mask.planes), [note]
    camera = maps.read_map(mask.path)
    level = camera.threshold if common.threshold is None else common.threshold
    views = [camera.evidence.view(n, level, common.max_false) for n in range(camera.identity.planes)]
    return [view or DefectMap.empty(camera.identity.shape) for view in views], [note]


def _sensor(frame: Frame | None, plane: int, shape: tuple[int, int] | None) -> foreign.Sensor:
    if frame is None:
        return foreign.Sensor(shape)
    mosaic, who = frame.mosaics[plane], frame.identity
    # Programs cut the borders off raws; of TIFF and FITS they show all that is stored.
    area = mosaic.active if frame.container in ("dng", "raw") else Area(0, 0, *mosaic.shape)
    fits = frame.container == "fits"
    return foreign.Sensor(mosaic.shape, area, fits, frame.row_order, who.make, who.model, who.serial)


def _target(path: Path, wanted: Wanted, sensor: foreign.Sensor) -> Path:
    """Where the output goes; never over the input."""
    out = wanted.out
    if out is None or out.is_dir():
        module = foreign.keeper(wanted.format)
        name = module.default_name(sensor) if hasattr(module, "default_name") else ""
        stem = path.name.partition(".map.fits")[0].partition(".mask.fits")[0].partition(".truth.fits")[0]
        stem = stem if stem != path.name else path.stem
        out = (out or Path()) / (name or f"{stem}{module.SUFFIX}")
    return _free(path, out, wanted)


def _free(path: Path, out: Path, wanted: Wanted) -> Path:
    if out.exists():
        if os.path.samefile(path, out):
            raise UsageError(f"{out}: is the file to read; choose another --out")
        if not wanted.overwrite:
            raise OutputExistsError(f"{out}: exists already; use --overwrite or another --out")
    return out


# ---------------------------------------------------------------- in


def _imported(path: Path, wanted: Wanted) -> Outcome:
    if wanted.out is None:
        raise UsageError("say with --out where the mask goes")
    target = _free(path, wanted.out, wanted)
    frame = files.load(wanted.like, wanted.common.assume) if wanted.like is not None else None
    sensor = _sensor(frame, 0, wanted.shape)
    if wanted.shape is not None and sensor.shape != wanted.shape:
        raise UsageError(f"--shape {wanted.shape[0]}x{wanted.shape[1]} is not the shape of {wanted.like}")
    listed, name = foreign.read(path, sensor, wanted.format, zero_is_bad=wanted.zero_is_bad)
    _check(path, listed, wanted)
    _check_shape(path, listed, sensor)
    if frame is not None and len(listed.planes) == 1 < frame.planes and set(frame.shapes) == {sensor.shape}:
        said = f"it speaks of one plane; its pixels count as bad in all {frame.planes} planes of the frame"
        listed = replace(listed, planes=listed.planes * frame.planes, notes=(*listed.notes, said))
    notes = [*listed.notes, *(f"left out: {problem}" for problem in listed.problems)]
    if not wanted.common.dry_run:
        cards = [("FPXFROM", name, "format that this mask was imported from")]
        alike = len({plane.shape for plane in listed.planes}) == 1
        maps.write_mask(
            target,
            listed.planes,
            keys=range(1, len(listed.planes) + 1),
            per_key=not alike,
            row_order=listed.row_order or sensor.row_order,
            cards=cards,
            overwrite=wanted.overwrite,
        )
    left_out = [str(problem) for problem in listed.problems]
    return _outcome(path, target, listed.planes, wanted, name, notes, left_out=left_out)


def _check(path: Path, listed: foreign.Listed, wanted: Wanted) -> None:
    """Refuse a file with bad lines, unless they are to be left out and others remain."""
    if not listed.problems:
        return
    shown = "; ".join(map(str, listed.problems[:_SHOWN]))
    more = len(listed.problems) - _SHOWN
    named = f"{shown}{f'; and {more} more' if more > 0 else ''}"
    if not wanted.skip_bad:
        raise UnreadableError(f"{path}: {named}; --skip-bad leaves such lines out")
    if not any(map(len, listed.planes)):
        raise UnreadableError(f"{path}: no line of it can be used: {named}")


def _check_shape(path: Path, listed: foreign.Listed, sensor: foreign.Sensor) -> None:
    for plane in listed.planes:
        if sensor.shape is not None and plane.shape != sensor.shape:
            (rows, cols), (own_rows, own_cols) = sensor.shape, plane.shape
            raise MismatchError(f"{path}: is of {own_rows} x {own_cols} pixels, not {rows} x {cols}")


def _outcome(
    path: Path,
    target: Path,
    planes: Sequence[DefectMap],
    wanted: Wanted,
    name: str,
    notes: Sequence[str],
    **metrics: Any,
) -> Outcome:
    total = sum(map(len, planes))
    types: dict[str, int] = {}
    for plane in planes:
        for kind, count in plane.counts().items():
            types[kind] = types.get(kind, 0) + count
    pixels = int(sum(np.prod(plane.shape) for plane in planes))
    facts = {"format": name, "types": types, "shape": list(planes[0].shape), "planes": len(planes)}
    lost_ = [note.removeprefix("lost: ") for note in notes if note.startswith("lost: ")]
    return Outcome(
        path,
        target,
        PLANNED if wanted.common.dry_run else DONE,
        defects=total,
        rate=total / pixels,
        method=name,
        notes=tuple(notes),
        metrics={**facts, "lost": lost_, **metrics},
    )
