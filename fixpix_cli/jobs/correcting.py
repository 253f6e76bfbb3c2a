"""``correct``: repaired frames."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, files, maps, safe, strategy, workers
from ..defects import DefectMap
from ..errors import FixpixError, FrameError, RefusedError, UsageError
from ..mosaic import Bool, Edit, Frame
from .frames import assumed, load, methods_of, per_key, threshold_of
from .inputs import find, plan
from .known import bad_pixels
from .looking import REMEMBERED, Looked, Packed, camera_key, look
from .outcomes import DONE, PLANNED, SKIPPED, Common, Outcome, attempt, lost
from .repairing import NETS, Repair, net_of, repair_plane
from .working import Begun, place_of


def correct(
    paths: Sequence[str | Path],
    common: Common,
    how: Repair,
    *,
    store: Path,
    recurse: bool = False,
    begun: Begun | None = None,
) -> Iterator[Outcome]:
    """Repair frames: bad = the maps given, else the store's map of the camera; with `auto` also what each shows.

    With `auto` and several frames of a camera the frames are looked at first,
    and what they say together adds weak persistent pixels. The store is only read.
    """
    exclude = [how.out] if how.out is not None else []
    sources = find(paths, recurse=recurse, exclude=exclude)
    for given in how.maps:
        if not given.exists():
            raise UsageError(f"{given}: no such map, mask or folder")
    if how.method not in strategy.METHODS:
        raise UsageError(f"unknown method {how.method!r}: use {', '.join(strategy.METHODS)}")
    if how.out is None and common.cluster is not None:
        raise UsageError("--in-place does not go with --cluster, which may do a frame twice; use --out")
    if how.out is None:
        targets = [s.path for s in sources]
    else:
        targets = plan(sources, how.out, lambda p: files.output_name(p))
        if not common.dry_run:
            safe.ensure_folder(how.out)
    if not common.dry_run:
        for folder in {target.parent for target in targets}:
            safe.sweep(folder)
    if how.method in NETS:
        net_of(how.method)  # a missing or damaged model stops the run before any frame
    remembered: dict[Path, Any] = {}
    weak: dict[str, list[Packed]] = {}
    passes = how.auto and len(sources) > 1 and not common.dry_run
    beside = list(how.maps) or [store] * store.is_dir()
    writes = [how.out] if how.out is not None and not common.dry_run else []
    common = common.shared(len(sources))
    # A cluster does a frame again when its worker dies: then what is there is the frame's own output.
    again = replace(how, overwrite=True) if common.cluster is not None else how
    new = [not t.exists() for t in targets]
    with place_of(common, [s.path for s in sources], writes, beside, REMEMBERED * passes, begun) as place:
        if passes:
            remembered, weak = look(sources, common, place)
        items = [
            (s.path, t, common, again if n else how, store, seen, weak.get(camera_key(seen)), common.threads)
            for s, t, n in zip(sources, targets, new, strict=True)
            for seen in [remembered.get(s.path)]
        ]
        here = common.cluster is None and common.device == "cpu"
        if here and len(items) == 1 and _is_plain(sources[0].path, how, common):
            yield workers.run_here(_correct_one, items[0], common.budget, lost)
        else:
            yield from place.each(_correct_one, items, lost)


def _is_plain(path: Path, how: Repair, common: Common) -> bool:
    """True if the frame and its maps are read by nothing but our own code, as `workers.run_here` demands.

    A frame that is searched for bad pixels keeps to limits that the user set only in a process of its own.
    """
    limited = common.budget.memory is not None or common.budget.seconds is not None
    return not (how.auto and limited) and files.is_plain(path) and all(map(maps.is_listed, how.maps))


def _correct_one(
    path: Path,
    target: Path,
    common: Common,
    how: Repair,
    store: Path,
    looked: Looked | None,
    weak: list[Packed] | None,
    threads: int = 1,
) -> Outcome:
    def work() -> Outcome:
        if how.out is None and files.is_native(path):
            raise RefusedError(f"{path}: a camera raw cannot be rewritten in place; use --out, the result is a DNG")
        existing = how.out is not None and target.exists() and not how.overwrite and not common.dry_run
        if existing and not how.resume:
            raise FrameError(f"{target}: exists already; use --overwrite, --resume or another --out")
        frame = load(path, common)
        notes = list(assumed(frame))
        marks: dict[int, DefectMap] = {}
        masks, used, warnings = bad_pixels(frame, common, how, store, looked, weak, marks)
        notes += warnings
        if how.dng == "opcode" and target.suffix.lower() == ".dng":
            return _annotated(frame, list(masks), target, common, how, used, notes)
        if existing and _is_finished(frame, target, common, how, masks):
            return Outcome(path, target, SKIPPED, method="done before, verified", map=used, notes=tuple(notes))
        methods, edits, defects = [], [], 0
        for number, mosaic in enumerate(frame.mosaics):
            bad = masks[number]
            method, edit = repair_plane(mosaic, bad, how, path, threads)
            methods.append(method)
            defects += int(np.count_nonzero(bad))
            edits.append(edit)
        method = methods_of(methods)
        if common.dry_run:
            return Outcome(
                path, target, PLANNED, None, defects, defects / frame.pixels, method, used, notes=tuple(notes)
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        replacing = how.out is None or how.overwrite or how.resume
        said = _said(common, method, defects, used) if how.provenance else None
        flags = b""
        if how.dq and any(map(len, edits)):
            views = [marks[number] for number in range(len(marks))]
            flags = maps.dq_extensions(views, keys=frame.keys, per_key=per_key(frame))
        notes += files.save(frame, edits, target, overwrite=replacing, provenance=said, extension=flags)
        return Outcome(path, target, DONE, None, defects, defects / frame.pixels, method, used, notes=tuple(notes))

    return attempt(path, work)


def _annotated(
    frame: Frame, bad: list[Bool], target: Path, common: Common, how: Repair, used: Path | None, notes: list[str]
) -> Outcome:
    """Write the bad pixels into the DNG's OpcodeList1 instead of repairing them."""
    defects = sum(int(np.count_nonzero(plane)) for plane in bad)
    if defects:
        notes.append(
            "bad pixels are listed in OpcodeList1, not repaired: Adobe's programs and darktable honour the list, "
            "RawTherapee, dcraw and LibRaw (rawpy) ignore it"
        )
    if how.provenance:
        notes.append("nothing was repaired, so --provenance added nothing")
    if not common.dry_run:
        target.parent.mkdir(parents=True, exist_ok=True)
        notes += files.annotate(frame, bad, target, overwrite=how.out is None or how.overwrite or how.resume)
    status = PLANNED if common.dry_run else DONE
    rate = defects / frame.pixels
    return Outcome(frame.source, target, status, None, defects, rate, "opcode", used, notes=tuple(notes))


def _said(common: Common, method: str, defects: int, used: Path | None) -> files.Provenance:
    """What a repaired file says of its repair: with which map, above which threshold, by which model."""
    from ..nets import registry

    limit = f"threshold {threshold_of(common):g}" if common.max_false is None else f"max-false {common.max_false:g}"
    if common.precision is not None:
        limit = f"confidence {common.precision:g}"
    details = [f"fixpix {limit}"]
    if used is not None:
        details.append(f"fixpix map {used.name} sha256 {hashlib.sha256(used.read_bytes()).hexdigest()[:16]}")
    for name in method.split(", "):
        if name in registry.SHIPPED:
            details.append(f"fixpix model {name} sha256 {registry.read(name).sha256[:16]}")
    return files.Provenance(__version__, defects, method, used.name if used else "", tuple(details))


def _is_finished(frame: Frame, target: Path, common: Common, how: Repair, masks: Sequence[Bool]) -> bool:
    """True if `target` is whole and holds this frame's pixels with those of `masks` repaired, and no others.

    A bad pixel that has its old value may have been repaired to just that: then the repair itself decides.
    """
    try:
        after = files.load(target, common.assume)
    except FixpixError:
        return False
    kinds = [(f.moments, f.shapes, [m.dtype for m in f.moment(0)]) for f in (frame, after)]
    if kinds[0] != kinds[1]:
        return False
    repacked = files.is_native(frame.source) or frame.source.suffix.lower() == ".gz"
    if not repacked and target.stat().st_size < frame.source.stat().st_size:  # cut short behind its pixels
        return False
    for mosaic, there, bad in zip(frame.mosaics, after.mosaics, masks, strict=True):
        changed = Edit.between(mosaic.samples, there.samples)
        if not bad[changed.rows, changed.cols].all():
            return False
        if len(changed) < np.count_nonzero(bad):
            _, edit = repair_plane(mosaic, bad, how, frame.source)
            if len(Edit.between(edit.applied(mosaic.samples), there.samples)):
                return False
    return True
