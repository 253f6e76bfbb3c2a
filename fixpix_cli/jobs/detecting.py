"""``detect``: a mask per frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import files, maps, safe
from ..defects import DefectMap
from ..errors import UsageError
from ..evidence import Tally
from ..mosaic import Lazy
from .frames import assumed, detected, load, methods_of, per_key, threshold_of
from .inputs import find, plan
from .known import _fit, listed_in
from .outcomes import DONE, PLANNED, Common, Outcome, attempt, lost
from .working import Begun, place_of


def detect(
    paths: Sequence[str | Path],
    common: Common,
    *,
    out: Path = Path("masks"),
    map_file: Path | None = None,
    probability: bool = False,
    overwrite: bool = True,
    recurse: bool = False,
    begun: Begun | None = None,
) -> Iterator[Outcome]:
    """Write a mask per frame: its own bad pixels, and those of a map where one is given."""
    sources = find(paths, recurse=recurse, exclude=[out])
    targets = plan(sources, out, lambda p: f"{files.stem_of(p)}.mask.fits")
    if map_file is not None and not map_file.is_file():
        raise UsageError(f"{map_file}: no such map")
    if not common.dry_run:
        safe.ensure_folder(out)
    common = common.shared(len(sources))
    given = [map_file] if map_file is not None else []
    with place_of(common, [s.path for s in sources], [] if common.dry_run else [out], given, begun=begun) as place:
        items = [(s.path, t, common, map_file, probability, overwrite) for s, t in zip(sources, targets, strict=True)]
        yield from place.each(_detect_one, items, lost)


def _detect_one(
    path: Path, target: Path, common: Common, map_file: Path | None, probability: bool, overwrite: bool
) -> Outcome:
    def work() -> Outcome:
        frame = load(path, common)
        if common.dry_run:
            return Outcome(path, target, PLANNED, notes=assumed(frame))
        tallies, images, methods, notes = [], [], [], list(assumed(frame))
        for mosaic in frame.mosaics:
            found = detected(mosaic, frame.conditions, common.threads)
            methods.append(found.method)
            tallies.append(Tally.of(mosaic, found))
            if probability:
                images.append(found.probability)
        known: list[DefectMap] = []
        if map_file is not None:
            known, warnings = _fit(maps.read_mask(map_file), frame, common)
            notes += warnings
        if frame.prior is not None:
            listed, said = listed_in(frame)
            known = [listed | known[0] if known else listed]
            notes.append(said)

        def flagged(number: int) -> DefectMap:
            mine = tallies[number].view(threshold_of(common), common.max_false, common.precision)
            return mine | known[number] if known else mine

        flags = Lazy(len(tallies), flagged)
        defects = sum(map(len, flags))
        target.parent.mkdir(parents=True, exist_ok=True)
        maps.write_mask(
            target,
            flags,
            keys=frame.keys,
            per_key=per_key(frame),
            row_order=frame.row_order,
            cards=[("FPXSRC", path.name.encode("ascii", "replace").decode(), "frame"), ("FPXN", defects, "bad pixels")],
            probability=images,
            overwrite=overwrite,
        )
        return Outcome(
            path, target, DONE, None, defects, defects / frame.pixels, methods_of(methods), map_file, notes=tuple(notes)
        )

    return attempt(path, work)
