"""``calibrate``: evidence of frames into their cameras' maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import files, maps, safe, workers
from ..errors import FixpixError, StoreError, UnusableError, UsageError
from ..evidence import Bin, Counted, Evidence, Tally
from ..maps.parts import flipped
from ..mosaic import Frame, Identity, digest
from .frames import assumed, load, methods_of, moment_name, threshold_of, told_by
from .inputs import Source, find
from .outcomes import DONE, FAILED, PLANNED, SKIPPED, Common, Outcome, attempt, lost
from .working import Begun, Place, place_of

#: Frames whose evidence `calibrate` holds before it writes the map, and suspects of theirs (100 bytes and more each).
_FLUSH, _SUSPECTS = 16, 1_000_000
#: Bytes that reading and writing a map takes, for each byte of a frame's file (24 MP of 16 bits: 200 MB).
_PER_BYTE = 5


@dataclass
class Calibrated:
    """The maps that a calibrate run fed, for its summary."""

    maps: dict[Path, maps.CameraMap] = field(default_factory=dict)


def calibrate(
    paths: Sequence[str | Path],
    common: Common,
    *,
    store: Path,
    map_file: Path | None = None,
    kind: str | None = None,
    recurse: bool = False,
    result: Calibrated | None = None,
    begun: Begun | None = None,
) -> Iterator[Outcome]:
    """Add frames to their cameras' maps in the store, or to one map file.

    Frames are counted once: their digest decides. With `map_file` frames of
    two cameras are a usage error, found before anything is written.
    """
    sources = find(paths, recurse=recurse)
    result = result if result is not None else Calibrated()
    folder = maps.Store(store)

    def target_of(identity: Identity) -> Path:
        return map_file or folder.path_of(identity)

    inputs = [s.path for s in sources]
    home = map_file.absolute().parent if map_file is not None else store
    reserve = _PER_BYTE * workers.largest(inputs)
    with place_of(common, inputs, reads=[home] * home.is_dir(), reserve=reserve, begun=begun) as place:
        if map_file is not None:
            _one_camera(sources, common, map_file, place)
        if not common.dry_run:
            _usable_store(home)
        pending: dict[tuple[Path, str], list[tuple[Outcome, Any, _Facts]]] = {}  # by map and the frames' row order
        items = [(s.path, common, kind, map_file, store) for s in sources]
        count = suspects = 0
        for outcome, evidence, facts in place.evidence(
            _calibrate_one, items, lambda item, why: (lost(item, why), None, None)
        ):
            if evidence is None:
                if outcome.status == SKIPPED and outcome.map is not None and outcome.map not in result.maps:
                    result.maps[outcome.map] = maps.read_map(outcome.map)
                yield outcome
                continue
            pending.setdefault((target_of(facts.identity), facts.row_order), []).append((outcome, evidence, facts))
            count, suspects = count + 1, suspects + facts.suspects
            if count >= _FLUSH or suspects >= _SUSPECTS:
                yield from _flush(pending, common, result, place)
                count = suspects = 0
        yield from _flush(pending, common, result, place)


@dataclass(frozen=True)
class _Facts:
    """What `calibrate` must know of a frame beside its evidence; suspects: entries of its tallies."""

    identity: Identity
    row_order: str
    keys: Any
    suspects: int


def _usable_store(folder: Path) -> None:
    try:
        safe.ensure_folder(folder)
    except UnusableError as error:
        raise StoreError(
            f"{folder}: the map store cannot be written; use --store or FIXPIX_STORE for another"
        ) from error


def _one_camera(sources: Sequence[Source], common: Common, map_file: Path, place: Place) -> None:
    """Refuse frames of two cameras into one file, before any work."""
    cameras: dict[str, tuple[Path, Identity]] = {}
    if map_file.exists():
        identity = maps.read_map(map_file).identity
        cameras[maps.key_of(identity)] = (map_file, identity)
    items = [(s.path, common) for s in sources]
    told = place.each(_identity_one, items, lambda item, why: None)
    for source, identity in zip(sources, told, strict=True):
        if identity is None:
            continue  # reported as this frame's failure when its turn comes
        cameras.setdefault(maps.key_of(identity), (source.path, identity))
        if len(cameras) > 1:
            (a, one), (b, two) = list(cameras.values())[:2]
            raise UsageError(
                f"two cameras into one map: {a} is {_describe(one)}, {b} is {_describe(two)}; "
                "give one --map per camera, or none to use the store"
            )


def _identity_one(path: Path, common: Common) -> Identity | None:
    try:
        return files.load(path, common.assume).identity
    except FixpixError:
        return None


def _describe(identity: Identity) -> str:
    rows, cols = identity.shape
    return f"{identity.camera} ({cols} x {rows}, binning {identity.binning[1]} x {identity.binning[0]})"


def _calibrate_one(
    path: Path, common: Common, kind: str | None, map_file: Path | None, store: Path
) -> tuple[Outcome, Evidence | None, Any]:
    carried: list[Any] = []

    def work() -> Outcome:
        frame = load(path, common)
        target = map_file or maps.Store(store).path_of(frame.identity)
        notes = assumed(frame)
        if common.dry_run:
            return Outcome(path, target, PLANNED, map=target, notes=notes)
        evidence, method = evidence_of(frame, kind, _digests(target) if target.exists() else frozenset())
        if not evidence.frames:
            return Outcome(path, None, SKIPPED, method="already counted", map=target, notes=notes)
        if len(evidence.frames) < frame.moments:
            notes = (
                *notes,
                f"{frame.moments - len(evidence.frames)} of its {frame.moments} moments were counted before",
            )
        suspects = sum(len(tally.entries) for tally in evidence.tallies.values())
        carried.append((evidence, _Facts(frame.identity, frame.row_order, frame.keys, suspects)))
        defects = sum(int(t.chosen(threshold_of(common)).sum()) for t in evidence.tallies.values())
        rate = defects * frame.moments / frame.pixels
        return Outcome(path, target, DONE, None, defects, rate, method, target, notes=notes)

    outcome = attempt(path, work)
    return (outcome, *carried[0]) if carried else (outcome, None, None)


def evidence_of(frame: Frame, kind: str | None, known: frozenset[str]) -> tuple[Evidence, str]:
    """What a frame says, each moment of a series by itself; those with `known` digests are left out."""
    conditions = replace(frame.conditions, kind=kind or frame.conditions.kind)
    bin_, methods = Bin.of(conditions), []
    tallies: dict[tuple[int, Bin], Tally] = {}
    counted: dict[str, Counted] = {}
    for number in range(frame.moments):
        mosaics = frame.moment(number)
        mark = digest(mosaics)
        if mark in known or mark in counted:
            continue
        told, method = told_by(mosaics, conditions, thorough=True)
        methods.append(method)
        for plane, tally in enumerate(told):
            key = (plane, bin_)
            tallies[key] = tallies[key] + tally if key in tallies else tally
        counted[mark] = Counted(mark, moment_name(frame, number), bin_, conditions)
    return Evidence(tallies, counted), methods_of(methods)


def _digests(path: Path) -> frozenset[str]:
    """Digests already in a map, cached for the file as it is now."""
    status = path.stat()
    key = (path, status.st_mtime_ns, status.st_ino)
    if key not in _digest_cache:
        _digest_cache.clear()
        _digest_cache[key] = frozenset(maps.read_map(path).evidence.frames)
    return _digest_cache[key]


_digest_cache: dict[Any, frozenset[str]] = {}


def _compared(target: Path, row_order: str, waiting: list[Any], place: Place) -> list[Any]:
    """What is pending for a map, compared with each other and with what it holds."""
    known = Evidence()
    if target.exists():
        camera = maps.read_map(target)
        opposite = row_order and camera.row_order and row_order != camera.row_order
        known = flipped(camera.evidence) if opposite else camera.evidence
    checked = place.compared(known, [evidence for _, evidence, _ in waiting])
    return [
        (replace(outcome, notes=(*outcome.notes, *notes)), evidence, facts)
        for (outcome, _, facts), (notes, evidence) in zip(waiting, checked, strict=True)
    ]


def _flush(pending: dict[Any, list[Any]], common: Common, result: Calibrated, place: Place) -> Iterator[Outcome]:
    """Write what is pending into the maps; frames that another process counted meanwhile are skipped."""
    for (target, row_order), waiting in list(pending.items()):
        del pending[target, row_order]
        try:
            yield from _flush_one(target, row_order, waiting, common, result, place)
        except StoreError as error:  # the other cameras' maps may be whole
            for outcome, _, _ in waiting:
                yield replace(
                    outcome, output=None, status=FAILED, error=f"{outcome.path}: {error}", defects=0, rate=0.0,
                    exit_code=error.exit_code,
                )  # fmt: skip


def _flush_one(
    target: Path, row_order: str, waiting: list[Any], common: Common, result: Calibrated, place: Place
) -> Iterator[Outcome]:
    facts: _Facts = waiting[0][2]
    waiting = _compared(target, row_order, waiting, place)
    parts: list[Any] = []
    taken: set[str] = set()
    for _, evidence, _ in waiting:
        if taken.isdisjoint(evidence.frames):
            parts.append(evidence)
            taken.update(evidence.frames)
    settings = {"row_order": row_order, "threshold": threshold_of(common), "keys": facts.keys}
    misfits: list[Any] = []
    try:
        camera, known = maps.add(target, facts.identity, place.together(parts), **settings)
        apart = bool(known) and place.sums  # a sum that holds one known frame is left out as a whole
    except ValueError:  # a further image of one of them has another size: add them one by one
        apart = True
    if apart:
        known = set()
        for part in parts:
            try:
                camera, again = maps.add(target, facts.identity, [place.fetched(part)], **settings)
                known |= again
            except ValueError:
                misfits.append(part)
                camera = maps.read_map(target)
    result.maps[target] = camera
    notes: tuple[str, ...] = ()
    if row_order and row_order != camera.row_order:
        notes = (f"{target.name}: frames of row order {row_order} were flipped to the map's {camera.row_order}",)
    for outcome, evidence, _ in waiting:
        if any(evidence is part for part in misfits):
            error = f"{outcome.path}: its images have other sizes than those that {target} counted; give another --map"
            outcome = replace(outcome, output=None, status=FAILED, error=error, defects=0, rate=0.0, exit_code=1)
        elif not known.isdisjoint(evidence.frames) or not any(evidence is part for part in parts):
            whole = all(digest in camera.evidence.frames for digest in evidence.frames)
            why = "already counted" if whole else "some of its moments came in meanwhile; run it again for the rest"
            outcome = replace(outcome, status=SKIPPED, output=None, defects=0, rate=0.0, method=why)
        yield replace(outcome, notes=(*outcome.notes, *notes))
