"""Which pixels of a frame are bad: by maps and masks, by the store, by its own list, by what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .. import files, maps
from ..defects import DefectMap
from ..errors import FrameError, NoMapError
from ..evidence import Bin
from ..mosaic import Array, Bool, Frame, Lazy
from ..repair import repairable
from .frames import tallies_of, threshold_of
from .looking import Looked
from .outcomes import Common
from .repairing import Repair


@dataclass(frozen=True, eq=False)
class Marks:
    """The flags of one plane's bad pixels, without the others: shape, flat places, DQ bits."""

    shape: tuple[int, int]
    places: Array
    flags: Array

    @classmethod
    def of(cls, bad: Bool, views: Sequence[DefectMap]) -> Marks:
        """The union of some views' flags at the pixels of a mask."""
        places = np.flatnonzero(bad)
        flags = np.zeros(len(places), np.int32)
        for view in views:
            flags |= view.dq.reshape(-1)[places]
        return cls((bad.shape[0], bad.shape[1]), places, flags)

    def view(self) -> DefectMap:
        """All pixels' flags."""
        whole = DefectMap.empty(self.shape)
        whole.dq.reshape(-1)[self.places] = self.flags
        return whole


def bad_pixels(
    frame: Frame,
    common: Common,
    how: Repair,
    store: Path,
    looked: Looked | None,
    weak: list[DefectMap] | None,
    marks: dict[int, Marks],
) -> tuple[Sequence[Bool], Path | None, list[str]]:
    """Which pixels are bad in each plane of each moment, from which map, with warnings.

    With `how.dq` the flags of each plane are added to `marks` when its mask is made.
    """
    known, notes, used = _given(frame, common, how)
    if not known and not how.maps:
        stored, notes, used = _stored(frame, common, store)
        known = [stored] if stored is not None else []
    if not known and not how.auto:
        where = (
            "none of the given maps belongs to it" if how.maps else f"the store has no map of {frame.identity.camera}"
        )
        raise NoMapError(f"{frame.source}: {where}; run `fixpix calibrate` on its darks, give --map, or use --auto")
    if how.auto and frame.moments > 1 and looked is None:
        looked = Looked.of(frame)
        weak = looked.weak(common)
    if how.auto and weak is not None:
        known.append(weak * frame.moments)
    if frame.prior is not None and (how.auto or not how.maps):
        listed, said = listed_in(frame)
        known.append([listed])
        notes.append(said)
    tallies = looked.tallies if looked is not None and looked.complete else ()

    def bad(number: int) -> Bool:
        mosaic = frame.mosaics[number]
        found = np.zeros(mosaic.shape, bool)
        views = [planes[number] for planes in known]
        if how.auto:
            tally = tallies[number] if tallies else tallies_of([mosaic], frame.conditions, common.threads)[0]
            views.append(tally.view(threshold_of(common), common.max_false))
        for view in views:
            found |= repairable(mosaic, view.bad)
        if how.dq:
            marks[number] = Marks.of(found, views)
        return found

    if frame.moments == 1:  # at once, so that the maps' flags need not be kept
        return [bad(number) for number in range(len(frame.mosaics))], used, notes
    return Lazy(len(frame.mosaics), bad), used, notes


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
        return maps.for_frame(mask, frame.shapes, frame.row_order, frame.moments)
    except FrameError as error:
        raise type(error)(f"{frame.source}: {error}") from error


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
    planes, notes = _fit(mask, frame, common)
    if mask.camera is not None and (common.threshold is not None or common.max_false is not None):
        camera = maps.read_map(path)
        views = [
            camera.evidence.view(n, threshold_of(common), common.max_false) or DefectMap.empty(shape)
            for n, shape in enumerate(frame.shapes)
        ]
        turned = replace(mask, planes=tuple(views))
        planes, notes = _fit(turned, frame, common)
    return planes, notes


def _stored(frame: Frame, common: Common, store: Path) -> tuple[list[DefectMap] | None, list[str], Path | None]:
    """The store's map of this camera under the nearest conditions."""
    path = maps.Store(store).find(frame.identity)
    if path is None:
        return None, [], None
    camera = maps.read_map(path)
    wanted, notes, views = Bin.of(frame.conditions), [], []
    for plane, shape in enumerate(frame.shapes):
        nearest = camera.evidence.nearest(plane, wanted)
        if nearest is None:
            views.append(DefectMap.empty(shape))
            continue
        bin_, tally = nearest
        threshold = camera.threshold if common.threshold is None else common.threshold
        views.append(tally.view(threshold, common.max_false))
        if plane == 0 and (distance := bin_.distance(wanted)) >= 2:
            notes.append(f"{path.name}: nearest conditions are {bin_}, {distance:.1f} stops from this frame's")
    mask = maps.MaskFile(path, tuple(views), camera.row_order, camera.identity)
    planes, warnings = maps.for_frame(mask, frame.shapes, frame.row_order, frame.moments)
    return planes, notes + warnings, path


def listed_in(frame: Frame) -> tuple[DefectMap, str]:
    """The bad pixels that the file itself lists, and a note on them."""
    bad = np.zeros(frame.mosaics[0].shape, bool) if frame.prior is None else frame.prior
    found = DefectMap.of(repairable(frame.mosaics[0], bad))
    return found, f"{len(found)} pixels that its OpcodeList1 calls bad were counted as bad"
