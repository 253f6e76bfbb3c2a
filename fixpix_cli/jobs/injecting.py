"""``inject``: damaged frames and their truths."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import files, maps, safe
from ..defects import DefectMap
from ..errors import FrameError, UsageError
from ..inject import Injection, inject
from ..mosaic import Edit
from .frames import assumed, load, moment_name, per_key
from .inputs import find, plan
from .outcomes import DONE, PLANNED, Common, Outcome, attempt, lost
from .working import Begun, place_of


def inject_frames(
    paths: Sequence[str | Path],
    common: Common,
    spec: Injection,
    *,
    out: Path,
    where: Path | None = None,
    per_frame: bool = False,
    overwrite: bool = False,
    recurse: bool = False,
    begun: Begun | None = None,
) -> Iterator[Outcome]:
    """Write damaged copies and their truths."""
    sources = find(paths, recurse=recurse, exclude=[out])
    targets = plan(sources, out, lambda p: files.output_name(p))
    plan(sources, out, lambda p: f"{files.stem_of(p)}.truth.fits")
    if where is not None and not where.is_file():
        raise UsageError(f"{where}: no such map")
    if not common.dry_run:
        safe.ensure_folder(out)
    with place_of(common, [s.path for s in sources], [out], begun=begun) as place:
        items = [(s.path, t, common, spec, where, per_frame, overwrite) for s, t in zip(sources, targets, strict=True)]
        yield from place.each(_inject_one, items, lost)


def _inject_one(
    path: Path, target: Path, common: Common, spec: Injection, where: Path | None, per_frame: bool, overwrite: bool
) -> Outcome:
    def work() -> Outcome:
        truth = target.with_name(f"{files.stem_of(path)}.truth.fits")
        frame = load(path, common)
        notes = assumed(frame)
        if common.dry_run:
            return Outcome(path, target, PLANNED, method=spec.kind, notes=notes)
        if not overwrite and (target.exists() or truth.exists()):
            raise FrameError(
                f"{target if target.exists() else truth}: exists already; use --overwrite or another --out"
            )
        chosen = None
        if where is not None:
            chosen, _ = maps.for_frame(maps.read_mask(where), frame.shapes, frame.row_order, frame.moments)
        exposure = 1.0 if frame.conditions.exposure is None else frame.conditions.exposure
        edits, marks = [], []
        for number, mosaic in enumerate(frame.mosaics):
            name = moment_name(frame, number // frame.planes)
            seed = zlib.crc32(f"{spec.seed} {name}".encode()) if per_frame else spec.seed
            damage = inject(
                mosaic,
                replace(spec, seed=seed + 7919 * (number % frame.planes)),
                frame_key=name,
                exposure=exposure,
                where=chosen[number].bad if chosen else None,
            )
            edits.append(Edit.between(mosaic.samples, damage.samples))
            places = np.flatnonzero(damage.dq)
            marks.append(DefectMap.listed(mosaic.shape, places, damage.dq.reshape(-1)[places]))
        count = sum(map(len, marks))
        target.parent.mkdir(parents=True, exist_ok=True)
        maps.write_mask(
            truth,
            marks,
            keys=frame.keys,
            per_key=per_key(frame),
            row_order=frame.row_order,
            cards=[
                ("FPXRATE", spec.rate, "requested share of the active pixels"),
                ("FPXREAL", count / frame.pixels, "realised share of all pixels"),
                ("FPXDELTA", spec.delta, "d"),
                ("FPXKIND", spec.kind, "kind of damage"),
                ("FPXPATT", spec.pattern, "pattern"),
                ("FPXWHITE", frame.mosaics[0].white, "white level, DN"),
                ("FPXSEED", spec.seed, "seed"),
                ("FPXNPIX", count, "pixels changed"),
            ],
            overwrite=overwrite,
        )
        try:
            notes = (*notes, *files.save(frame, edits, target, overwrite=overwrite))
        except BaseException:
            truth.unlink(missing_ok=True)
            raise
        return Outcome(path, target, DONE, None, count, count / frame.pixels, spec.kind, notes=notes)

    return attempt(path, work)
