"""Which pixels of a frame are bad: by maps and masks, by the store, by its own list, by what it shows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import files, maps
from ..defects import DefectMap
from ..errors import FrameError, NoMapError
from ..mosaic import Array, Bool, Frame, Lazy, Mosaic
from ..repair import repairable
from .frames import tallies_of
from .looking import Looked, Packed, bad_of, single, spare
from .outcomes import Common
from .repairing import Repair

if TYPE_CHECKING:
    from .. import darkcurrent


def bad_pixels(
    frame: Frame,
    common: Common,
    how: Repair,
    store: Path,
    looked: Looked | None,
    weak: list[Packed] | None,
    marks: dict[int, DefectMap],
) -> tuple[Sequence[Bool], Path | None, list[str]]:
    """Which pixels are bad in each plane of each moment, from which map, with warnings.

    With `how.dq` the flags of each plane are added to `marks` when its mask is made.
    """
    known, notes, used = _given(frame, common, how)
    if not known and not how.maps:
        stored, notes, used = _stored(frame, common, store)
        known = [stored] if stored is not None else []
    if not known and not how.auto:
        where = "none of the given maps belongs to it"
        if not how.maps:
            near = maps.Store(store).near(frame.identity)
            where = f"the store has no map of {frame.identity.camera}" + "".join(f", {why}" for why in near[:2])
        raise NoMapError(f"{frame.source}: {where}; run `fixpix calibrate` on its darks, give --map, or use --auto")
    if how.auto and frame.moments > 1 and looked is None:
        looked = Looked.of(frame, common)
        together = looked.weak(common)
    else:
        together = [packed.view() for packed in weak] if how.auto and weak is not None else None
    if together is not None:
        known.append([bad_of(plane) for plane in together] * frame.moments)
    if frame.prior is not None and (how.auto or not how.maps):
        listed, said = listed_in(frame)
        known.append([listed])
        notes.append(said)
    shown = looked.flags if looked is not None else ()

    def bad(number: int) -> Bool:
        mosaic = frame.mosaics[number]
        views = [planes[number] for planes in known]
        if how.auto:
            if shown:
                alone = shown[number].view()
            else:
                alone = single(tallies_of([mosaic], frame.conditions, common.threads)[0], common)
            views.append(alone if together is None else spare(alone, together[number % len(together)]))
        found = np.zeros(mosaic.shape, bool)
        pixels = [_repairable(mosaic, view.bad_pixels) for view in views]
        for part in pixels:
            found.reshape(-1)[part] = True
        if how.dq:
            every = np.unique(np.concatenate(pixels)) if pixels else np.empty(0, np.int64)
            flags = np.zeros(len(every), np.int32)
            for view in views:
                flags |= view.at(every)
            marks[number] = DefectMap.listed(mosaic.shape, every, flags)
        return found

    if frame.moments == 1:  # at once, so that the maps' flags need not be kept
        return [bad(number) for number in range(len(frame.mosaics))], used, notes
    return Lazy(len(frame.mosaics), bad), used, notes


def _repairable(mosaic: Mosaic, pixels: Array) -> Array:
    """Those of some pixels, given by row * W + col, that a repair touches; see `repair.repairable`."""
    rows, cols = np.divmod(pixels, max(1, mosaic.shape[1]))
    area = mosaic.active
    inside = (rows >= area.top) & (rows < area.bottom) & (cols >= area.left) & (cols < area.right)
    if not mosaic.is_integer:
        inside &= np.isfinite(mosaic.at(rows, cols))
    return pixels[inside]


def _fit(mask: maps.MaskFile, frame: Frame, common: Common) -> tuple[list[DefectMap], list[str]]:
    """A mask as it fits a frame; a camera map must be of the same camera."""
    if mask.camera is not None and common.assume.camera is None:
        mine, theirs = frame.identity, mask.camera
        if (mine.model, mine.serial) != (theirs.model, theirs.serial) and mine.model and theirs.model:
            raise FrameError(
                f"{frame.source}: is of {mine.camera}, the map {mask.path} of {theirs.camera}; "
                "give that camera's map, or --camera to state the camera yourself"
            )
    try:
        planes, notes = maps.for_frame(mask, frame.shapes, frame.row_order, frame.moments)
    except FrameError as error:
        raise type(error)(f"{frame.source}: {error}") from error
    if mask.camera is not None:
        other = [d for d in maps.differences(mask.camera, frame.identity) if d.startswith(("binning", "read-out"))]
        notes += [f"{mask.path}: was made with {', '.join(other)}"] if other else []
    return planes, notes


def _given(frame: Frame, common: Common, how: Repair) -> tuple[list[list[DefectMap]], list[str], Path | None]:
    """The planes of every explicit map that belongs to this frame."""
    found, notes, used = [], [], None
    for given in how.maps:
        candidates = [given]
        if given.is_dir():
            stem = files.stem_of(frame.source)
            candidates = [p for s in files.SIDECARS if (p := given / f"{stem}{s}").is_file()]
        for candidate in candidates:
            planes, warnings = _given_planes(candidate, frame, common)
            found.append(planes)
            notes += warnings
            used = used or candidate
    return found, notes, used


def _given_planes(path: Path, frame: Frame, common: Common) -> tuple[list[DefectMap], list[str]]:
    mask = maps.read_mask(path)
    if mask.camera is None:
        return _fit(mask, frame, common)
    views, notes = _chosen(path, maps.read_map(path), frame, common)
    known = [
        plane if view is None else view for view, plane in itertools.zip_longest(views[: len(mask.planes)], mask.planes)
    ]
    planes, warnings = _fit(replace(mask, planes=tuple(known)), frame, common)
    return planes, notes + warnings


def _stored(frame: Frame, common: Common, store: Path) -> tuple[list[DefectMap] | None, list[str], Path | None]:
    """The store's map of this camera under the frame's conditions."""
    path = maps.Store(store).find(frame.identity)
    if path is None:
        return None, [], None
    camera = maps.read_map(path)
    found, notes = _chosen(path, camera, frame, common)
    views = [DefectMap.empty(shape) if view is None else view for view, shape in zip(found, frame.shapes, strict=True)]
    mask = maps.MaskFile(path, tuple(views), camera.row_order, camera.identity)
    planes, warnings = maps.for_frame(mask, frame.shapes, frame.row_order, frame.moments)
    return planes, notes + warnings, path


def _chosen(
    path: Path, camera: maps.CameraMap, frame: Frame, common: Common
) -> tuple[list[DefectMap | None], list[str]]:
    """What a camera map says of each of a frame's planes (None: nothing), in the map's row order, and the notes."""
    from .. import choosing

    turned = bool(frame.row_order and camera.row_order and frame.row_order != camera.row_order)
    threshold = camera.threshold if common.threshold is None else common.threshold
    views: list[DefectMap | None] = []
    notes: list[str] = []
    for plane, shape in enumerate(frame.shapes):
        if shape != camera.identity.shape:
            views.append(None)
            continue

        def mosaic(plane: int = plane) -> Mosaic:
            own = frame.moment(0)[plane]
            return own.upside_down() if turned else own

        def model(gain: int | None, plane: int = plane) -> darkcurrent.Model | None:
            return _model(path, camera, plane, gain)

        choice = choosing.choose(
            camera.evidence, plane, frame.conditions, mosaic, model, threshold, common.max_false, common.precision
        )
        views.append(None if choice is None else choice.view)
        if choice is not None:
            notes += [f"{path.name}: {note}" for note in choice.notes if plane == 0]
    return views, notes


def _model(path: Path, camera: maps.CameraMap, plane: int, gain: int | None) -> darkcurrent.Model | None:
    """The dark current of a camera, fitted once per process and state of the map."""
    from .. import darkcurrent, darks

    status = path.stat()
    key = (path, status.st_mtime_ns, status.st_ino, plane, gain)
    if key not in _models:
        if len(_models) >= 8:
            _models.clear()
        _models[key] = darkcurrent.fit(darks.levels_of(camera.evidence, plane, gain))
    return _models[key]


_models: dict[Any, darkcurrent.Model | None] = {}


def listed_in(frame: Frame) -> tuple[DefectMap, str]:
    """The bad pixels that the file itself lists, and a note on them."""
    bad = np.zeros(frame.mosaics[0].shape, bool) if frame.prior is None else frame.prior
    found = DefectMap.of(repairable(frame.mosaics[0], bad))
    return found, f"{len(found)} pixels that its OpcodeList1 calls bad were counted as bad"
