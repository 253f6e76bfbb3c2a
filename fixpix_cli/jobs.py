"""Floor 3. One generator per verb: frames in, outcomes out.

A job plans (which file goes where), does the frames one by one or in worker
processes, and yields an `Outcome` for each. A frame that fails becomes an
outcome with its error; what makes the whole run impossible raises.

Nothing here prints; the faces do.
"""

from __future__ import annotations

import glob
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__, classical, files, maps, safe, strategy, workers
from .defects import DefectMap
from .errors import FixpixError, FrameError, NoMapError, RefusedError, StoreError, UnusableError, UsageError
from .evidence import DEFAULT_THRESHOLD, Bin, Counted, Evidence, Tally
from .inject import Injection, inject
from .mosaic import Array, Assume, Bool, Edit, Frame, Identity, Mosaic
from .repair import CLASSICAL, Corrector, in_tiles, noise_fill, repair, repairable
from .score import Correction, Detection, correction, detection

DONE, SKIPPED, FAILED, PLANNED = "done", "skipped", "failed", "planned"
#: Frames whose evidence `calibrate` holds before it writes the map.
_FLUSH = 16
#: Suspects per frame that the first pass of `correct --auto` remembers for the second.
_REMEMBERED = 500_000


@dataclass(frozen=True)
class Outcome:
    """What became of one frame.

    Parameters
    ----------
    path, output : path of the frame, and of what was written (None: nothing)
    status : done, skipped, failed or planned
    error : one line, or None
    defects : pixels repaired or flagged
    rate : defects / pixels of the frame
    method : how, in one word, with what was assumed behind it
    map : the camera map that was used or fed
    seconds : time spent on the frame
    notes : warnings for the user
    metrics : evaluate's figures
    """

    path: Path
    output: Path | None = None
    status: str = DONE
    error: str | None = None
    defects: int = 0
    rate: float = 0.0
    method: str | None = None
    map: Path | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)
    exit_code: int = 0


@dataclass(frozen=True)
class Common:
    """Settings that all verbs share."""

    assume: Assume = field(default_factory=Assume)
    threshold: float | None = None
    max_false: float | None = None
    jobs: int = 1
    dry_run: bool = False


# ---------------------------------------------------------------- inputs and outputs


@dataclass(frozen=True)
class Source:
    """One input: its path, and its place below the directory argument it came from."""

    path: Path
    below: Path


def _natural(text: str) -> list[Any]:
    return [(int(part), "") if part.isdigit() else (-1, part.lower()) for part in re.split(r"(\d+)", text)]


def find(paths: Sequence[str | Path], *, recurse: bool = False, exclude: Sequence[Path] = ()) -> list[Source]:
    """The frames that some path arguments mean, in natural order, each once.

    Parameters
    ----------
    paths : files, directories (their supported files), and globs
    recurse : bool
        Go into subdirectories.
    exclude : folders whose contents are never inputs (the output folder)

    Raises
    ------
    UsageError
        A path does not exist, a glob matches nothing, or there is nothing to read.
    """
    found: dict[Path, Source] = {}
    barred = [folder.resolve() for folder in exclude]

    def take(path: Path, below: Path) -> None:
        real = path.resolve()
        if not any(real.is_relative_to(folder) for folder in barred):
            found.setdefault(real, Source(path, below))

    for text in map(str, paths):
        path = Path(text)
        if path.exists():
            matches = [path]
        elif glob.has_magic(text):
            matches = [Path(p) for p in sorted(glob.glob(text, recursive=recurse), key=_natural)]
            if not matches:
                raise UsageError(f"{text}: nothing matches")
        else:
            raise UsageError(f"{text}: no such file or directory")
        for match in matches:
            if match.is_dir():
                pattern = "**/*" if recurse else "*"
                inside = sorted(match.glob(pattern), key=lambda p: _natural(str(p)))
                for child in inside:
                    hidden = any(part.startswith(".") for part in child.relative_to(match).parts)
                    if child.is_file() and not hidden and files.is_supported(child):
                        take(child, child.relative_to(match).parent)
            elif not match.name.lower().endswith(files.SIDECARS) and not (
                match.name.startswith(".") and len(matches) > 1
            ):
                take(match, Path())
    if not found:
        raise UsageError(f"nothing to read in {', '.join(map(str, paths))}")
    return list(found.values())


def plan(sources: Sequence[Source], folder: Path, name: Callable[[Path], str]) -> list[Path]:
    """Where each output goes: below `folder`, in the structure of the directory arguments.

    Raises
    ------
    UsageError
        Two inputs would have one output name.
    """
    targets = [folder / source.below / name(source.path) for source in sources]
    first: dict[str, Path] = {}
    for source, target in zip(sources, targets, strict=True):
        key = str(target).casefold()
        if key in first:
            raise UsageError(
                f"{first[key]} and {source.path} would both become {target}; run them apart, with different --out"
            )
        first[key] = source.path
    return targets


def _attempt(path: Path, work: Callable[[], Outcome]) -> Outcome:
    """Run one frame's work; an error of ours or of the machine becomes its outcome."""
    start = time.perf_counter()
    try:
        outcome = work()
    except FixpixError as error:
        outcome = Outcome(path, status=FAILED, error=str(error), exit_code=error.exit_code)
    except MemoryError:
        error_text = f"{path}: needs more memory than there is; use --jobs 1"
        outcome = Outcome(path, status=FAILED, error=error_text, exit_code=1)
    except Exception as error:  # the one broad net: a fault of ours may not stop a batch either
        error_text = f"{path}: internal error, please report it ({type(error).__name__}: {error})"
        outcome = Outcome(path, status=FAILED, error=error_text, exit_code=1)
    return replace(outcome, seconds=round(time.perf_counter() - start, 4))


def _lost(item: tuple[Any, ...]) -> Outcome:
    path = item[0]
    return Outcome(
        path, status=FAILED, error=f"{path}: the worker process died on it (memory?); try --jobs 1", exit_code=1
    )


def _assumed(frame: Frame) -> tuple[str, ...]:
    return (f"assumed {', '.join(frame.assumed)}",) if frame.assumed else ()


def _check_levels(frame: Frame) -> None:
    for mosaic in frame.mosaics:
        if not mosaic.white > float(np.max(mosaic.black)):
            raise FrameError(
                f"{frame.source}: black level {np.max(mosaic.black):g} is not below white level {mosaic.white:g}; "
                "give --black and --white"
            )


def _load(path: Path, common: Common) -> Frame:
    frame = files.load(path, common.assume)
    _check_levels(frame)
    return frame


# ---------------------------------------------------------------- detection


def tallies_of(frame: Frame) -> list[Tally]:
    """What one frame says about each of its planes."""
    return _told(frame)[0]


def _told(frame: Frame) -> tuple[list[Tally], str]:
    """The tallies of a frame's planes, and by what method."""
    found = [_detected(m, frame) for m in frame.mosaics]
    tallies = [Tally.of(m, one.probability, one.rate) for m, one in zip(frame.mosaics, found, strict=True)]
    return tallies, _methods(one.method for one in found)


def _detected(mosaic: Mosaic, frame: Frame) -> classical.Detection:
    from .nets.detectors import detect

    return detect(mosaic, frame.conditions.kind, frame.conditions.exposure)


def _methods(of_planes: Iterable[str]) -> str:
    """The methods of a frame's planes, each once."""
    return ", ".join(dict.fromkeys(of_planes))


def _threshold(common: Common) -> float:
    return DEFAULT_THRESHOLD if common.threshold is None else common.threshold


def _evidence_of(frame: Frame, kind: str | None) -> tuple[Evidence, str]:
    if kind:
        frame = replace(frame, conditions=replace(frame.conditions, kind=kind))
    conditions = frame.conditions
    digest = frame.digest
    bin_ = Bin.of(conditions)
    told, method = _told(frame)
    tallies = {(plane, bin_): tally for plane, tally in enumerate(told)}
    return Evidence(tallies, {digest: Counted(digest, frame.source.name, bin_, conditions)}), method


def detect(
    paths: Sequence[str | Path],
    common: Common,
    *,
    out: Path = Path("masks"),
    map_file: Path | None = None,
    probability: bool = False,
    overwrite: bool = True,
    recurse: bool = False,
) -> Iterator[Outcome]:
    """Write a mask per frame: its own bad pixels, and those of a map where one is given."""
    sources = find(paths, recurse=recurse, exclude=[out])
    targets = plan(sources, out, lambda p: f"{files.stem_of(p)}.mask.fits")
    if map_file is not None and not map_file.is_file():
        raise UsageError(f"{map_file}: no such map")
    if not common.dry_run:
        safe.ensure_folder(out)
    items = [(s.path, t, common, map_file, probability, overwrite) for s, t in zip(sources, targets, strict=True)]
    yield from workers.run(_detect_one, items, common.jobs, _lost)


def _detect_one(
    path: Path, target: Path, common: Common, map_file: Path | None, probability: bool, overwrite: bool
) -> Outcome:
    def work() -> Outcome:
        frame = _load(path, common)
        if common.dry_run:
            return Outcome(path, target, PLANNED, notes=_assumed(frame))
        flags, images, methods, notes = [], [], [], list(_assumed(frame))
        for mosaic in frame.mosaics:
            found = _detected(mosaic, frame)
            methods.append(found.method)
            flags.append(Tally.of(mosaic, found.probability, found.rate).view(_threshold(common), common.max_false))
            if probability:
                images.append(found.probability)
        if map_file is not None:
            known, warnings = _fit(maps.read_mask(map_file), frame, common)
            flags = [mine | other for mine, other in zip(flags, known, strict=True)]
            notes += warnings
        defects = sum(map(len, flags))
        target.parent.mkdir(parents=True, exist_ok=True)
        maps.write_mask(
            target,
            flags,
            keys=frame.keys,
            per_key=frame.container == "fits",
            row_order=frame.row_order,
            cards=[("FPXSRC", path.name.encode("ascii", "replace").decode(), "frame"), ("FPXN", defects, "bad pixels")],
            probability=images,
            overwrite=overwrite,
        )
        return Outcome(
            path, target, DONE, None, defects, defects / frame.pixels, _methods(methods), map_file, notes=tuple(notes)
        )

    return _attempt(path, work)


# ---------------------------------------------------------------- calibrate


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

    if map_file is not None:
        _one_camera(sources, common, map_file)
    if not common.dry_run:
        _usable_store(map_file.absolute().parent if map_file is not None else store)
    pending: dict[Path, list[tuple[Outcome, Evidence, Frame]]] = {}
    items = [(s.path, common, kind, map_file, store) for s in sources]
    count = 0
    for outcome, evidence, identity in workers.run(
        _calibrate_one, items, common.jobs, lambda item: (_lost(item), None, None)
    ):
        if evidence is None:
            if outcome.status == SKIPPED and outcome.map is not None and outcome.map not in result.maps:
                result.maps[outcome.map] = maps.read_map(outcome.map)
            yield outcome
            continue
        pending.setdefault(target_of(identity[0]), []).append((outcome, evidence, identity))
        count += 1
        if count >= _FLUSH:
            yield from _flush(pending, common, result)
            count = 0
    yield from _flush(pending, common, result)


def _usable_store(folder: Path) -> None:
    try:
        safe.ensure_folder(folder)
    except UnusableError as error:
        raise StoreError(
            f"{folder}: the map store cannot be written; use --store or FIXPIX_STORE for another"
        ) from error


def _one_camera(sources: Sequence[Source], common: Common, map_file: Path) -> None:
    """Refuse frames of two cameras into one file, before any work."""
    cameras: dict[str, tuple[Path, Identity]] = {}
    if map_file.exists():
        identity = maps.read_map(map_file).identity
        cameras[maps.key_of(identity)] = (map_file, identity)
    for source in sources:
        try:
            identity = files.load(source.path, common.assume).identity
        except FixpixError:
            continue  # reported as this frame's failure when its turn comes
        cameras.setdefault(maps.key_of(identity), (source.path, identity))
        if len(cameras) > 1:
            (a, one), (b, two) = list(cameras.values())[:2]
            raise UsageError(
                f"two cameras into one map: {a} is {_describe(one)}, {b} is {_describe(two)}; "
                "give one --map per camera, or none to use the store"
            )


def _describe(identity: Identity) -> str:
    rows, cols = identity.shape
    return f"{identity.camera} ({cols} x {rows}, binning {identity.binning[1]} x {identity.binning[0]})"


def _calibrate_one(
    path: Path, common: Common, kind: str | None, map_file: Path | None, store: Path
) -> tuple[Outcome, Evidence | None, Any]:
    carried: list[Any] = []

    def work() -> Outcome:
        frame = _load(path, common)
        target = map_file or maps.Store(store).path_of(frame.identity)
        notes = _assumed(frame)
        if common.dry_run:
            return Outcome(path, target, PLANNED, map=target, notes=notes)
        if target.exists() and frame.digest in _digests(target):
            return Outcome(path, None, SKIPPED, method="already counted", map=target, notes=notes)
        evidence, method = _evidence_of(frame, kind)
        carried.append((evidence, (frame.identity, frame.row_order, frame.keys)))
        defects = sum(int(t.chosen(_threshold(common)).sum()) for t in evidence.tallies.values())
        return Outcome(path, target, DONE, None, defects, defects / frame.pixels, method, target, notes=notes)

    outcome = _attempt(path, work)
    return (outcome, *carried[0]) if carried else (outcome, None, None)


def _digests(path: Path) -> frozenset[str]:
    """Digests already in a map, cached for the file as it is now."""
    status = path.stat()
    key = (path, status.st_mtime_ns, status.st_ino)
    if key not in _digest_cache:
        _digest_cache.clear()
        _digest_cache[key] = frozenset(maps.read_map(path).evidence.frames)
    return _digest_cache[key]


_digest_cache: dict[Any, frozenset[str]] = {}


def _flush(pending: dict[Path, list[Any]], common: Common, result: Calibrated) -> Iterator[Outcome]:
    """Write what is pending into the maps; frames that another process counted meanwhile are skipped."""
    for target, waiting in list(pending.items()):
        identity, row_order, keys = waiting[0][2]
        unique: dict[str, Evidence] = {}
        for _, evidence, _ in waiting:
            unique.setdefault(next(iter(evidence.frames)), evidence)
        camera, known = maps.add(
            target, identity, list(unique.values()), row_order=row_order, threshold=_threshold(common), keys=keys
        )
        result.maps[target] = camera
        seen: set[str] = set()
        for outcome, evidence, _ in waiting:
            digest = next(iter(evidence.frames))
            if digest in known or digest in seen:
                outcome = replace(outcome, status=SKIPPED, output=None, defects=0, rate=0.0, method="already counted")
            seen.add(digest)
            yield outcome
        del pending[target]


# ---------------------------------------------------------------- correct


@dataclass(frozen=True)
class Repair:
    """How `correct` works.

    Parameters
    ----------
    auto : bool
        Detect in the frame itself, too.
    maps : paths of map files, masks, truths, or folders of them
    out : Path or None
        None: in place.
    method : one of `strategy.METHODS`
    fill : interpolate, noise or nan
    """

    auto: bool = False
    maps: tuple[Path, ...] = ()
    out: Path | None = Path("repaired")
    method: str = "auto"
    fill: str = "interpolate"
    overwrite: bool = False
    resume: bool = False
    provenance: bool = False


def correct(
    paths: Sequence[str | Path], common: Common, how: Repair, *, store: Path, recurse: bool = False
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
    if how.out is None:
        targets = [s.path for s in sources]
    else:
        targets = plan(sources, how.out, lambda p: files.output_name(p))
        if not common.dry_run:
            safe.ensure_folder(how.out)
    if how.method in NETS:
        NETS[how.method]()  # a missing or damaged model stops the run before any frame
    remembered: dict[Path, Any] = {}
    weak: dict[str, list[DefectMap]] = {}
    if how.auto and len(sources) > 1 and not common.dry_run:
        remembered, weak = _look(sources, common)
    items = [
        (s.path, t, common, how, store, remembered.get(s.path), weak.get(_camera_key(remembered.get(s.path))))
        for s, t in zip(sources, targets, strict=True)
    ]
    yield from workers.run(_correct_one, items, common.jobs, _lost)


@dataclass(frozen=True, eq=False)
class Looked:
    """What the first pass of ``correct --auto`` keeps of a frame."""

    key: str
    tallies: tuple[Tally, ...]
    complete: bool


def _camera_key(looked: Looked | None) -> str:
    return looked.key if looked else ""


def _look(sources: Sequence[Source], common: Common) -> tuple[dict[Path, Looked], dict[str, list[DefectMap]]]:
    """The first pass: what every frame shows, and the pixels that a camera's frames together find bad.

    At least three frames of one camera must agree; moving scenes are taken for
    granted no further than the mean probability goes.
    """
    remembered: dict[Path, Looked] = {}
    sums: dict[str, list[Tally]] = {}
    items = [(s.path, common) for s in sources]
    for source, looked in zip(sources, workers.run(_look_one, items, common.jobs, lambda item: None), strict=True):
        if looked is None:
            continue
        if looked.key in sums:
            sums[looked.key] = [a + b for a, b in zip(sums[looked.key], looked.tallies, strict=True)]
        else:
            sums[looked.key] = list(looked.tallies)
        small = sum(len(t.entries) for t in looked.tallies) <= _REMEMBERED
        remembered[source.path] = looked if small else replace(looked, tallies=(), complete=False)
    weak = {
        key: [tally.view(_threshold(common), common.max_false) for tally in tallies]
        for key, tallies in sums.items()
        if tallies[0].frames >= 3
    }
    return remembered, weak


def _look_one(path: Path, common: Common) -> Looked | None:
    try:
        frame = _load(path, common)
        return Looked(maps.key_of(frame.identity), tuple(tallies_of(frame)), True)
    except (FixpixError, MemoryError):
        return None  # the second pass meets the same error and reports it


def _correct_one(
    path: Path,
    target: Path,
    common: Common,
    how: Repair,
    store: Path,
    looked: Looked | None,
    weak: list[DefectMap] | None,
) -> Outcome:
    def work() -> Outcome:
        if how.out is None and files.is_native(path):
            raise RefusedError(f"{path}: a camera raw cannot be rewritten in place; use --out, the result is a DNG")
        if target.exists() and how.out is not None and not how.overwrite and not common.dry_run:
            if how.resume and _is_finished(path, target, common):
                return Outcome(path, target, SKIPPED, method="done before")
            if not how.resume:
                raise FrameError(f"{target}: exists already; use --overwrite, --resume or another --out")
        frame = _load(path, common)
        notes = list(_assumed(frame))
        masks, used, warnings = _bad(frame, common, how, store, looked, weak)
        notes += warnings
        methods, edits, defects = [], [], 0
        for mosaic, bad in zip(frame.mosaics, masks, strict=True):
            method, samples = _repair(mosaic, bad, how, path)
            methods.append(method)
            defects += int(np.count_nonzero(bad))
            edits.append(Edit.between(mosaic.samples, samples))
        method = _methods(methods)
        if common.dry_run:
            return Outcome(
                path, target, PLANNED, None, defects, defects / frame.pixels, method, used, notes=tuple(notes)
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        replacing = how.out is None or how.overwrite or how.resume
        said = files.Provenance(__version__, defects, method, used.name if used else "") if how.provenance else None
        if not files.save(frame, edits, target, overwrite=replacing, provenance=said):
            notes.append("this file has no place for provenance; nothing was added")
        return Outcome(path, target, DONE, None, defects, defects / frame.pixels, method, used, notes=tuple(notes))

    return _attempt(path, work)


def _is_finished(path: Path, target: Path, common: Common) -> bool:
    """True if `target` is a whole file that carries the input's time and shape."""
    try:
        before, after = files.load(path, common.assume), files.load(target, common.assume)
    except FixpixError:
        return False
    same = [m.shape for m in before.mosaics] == [m.shape for m in after.mosaics]
    return same and path.stat().st_mtime_ns == target.stat().st_mtime_ns


def _fit(mask: maps.MaskFile, frame: Frame, common: Common) -> tuple[list[DefectMap], list[str]]:
    """A mask as it fits a frame; a camera map must be of the same camera."""
    if mask.camera is not None and common.assume.camera is None:
        mine, theirs = frame.identity, mask.camera
        if (mine.model, mine.serial) != (theirs.model, theirs.serial) and mine.model and theirs.model:
            raise FrameError(
                f"{frame.source}: is of {mine.camera}, the map {mask.path} of {theirs.camera}; "
                "give that camera's map, or --camera to state the camera yourself"
            )
    return maps.for_frame(mask, [m.shape for m in frame.mosaics], frame.row_order)


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
            camera.evidence.view(n, _threshold(common), common.max_false) or DefectMap.empty(m.shape)
            for n, m in enumerate(frame.mosaics)
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
    for plane, mosaic in enumerate(frame.mosaics):
        nearest = camera.evidence.nearest(plane, wanted)
        if nearest is None:
            views.append(DefectMap.empty(mosaic.shape))
            continue
        bin_, tally = nearest
        threshold = camera.threshold if common.threshold is None else common.threshold
        views.append(tally.view(threshold, common.max_false))
        if plane == 0 and (distance := bin_.distance(wanted)) >= 2:
            notes.append(f"{path.name}: nearest conditions are {bin_}, {distance:.1f} stops from this frame's")
    mask = maps.MaskFile(path, tuple(views), camera.row_order, camera.identity)
    planes, warnings = maps.for_frame(mask, [m.shape for m in frame.mosaics], frame.row_order)
    return planes, notes + warnings, path


def _bad(
    frame: Frame, common: Common, how: Repair, store: Path, looked: Looked | None, weak: list[DefectMap] | None
) -> tuple[list[Bool], Path | None, list[str]]:
    """Which pixels are bad in each plane, from which map, with warnings."""
    known, notes, used = _given(frame, common, how)
    if not known and not how.maps:
        stored, notes, used = _stored(frame, common, store)
        known = [stored] if stored is not None else []
    if not known and not how.auto:
        where = (
            "none of the given maps belongs to it" if how.maps else f"the store has no map of {frame.identity.camera}"
        )
        raise NoMapError(f"{frame.source}: {where}; run `fixpix calibrate` on its darks, give --map, or use --auto")
    if how.auto:
        tallies = looked.tallies if looked is not None and looked.complete else tallies_of(frame)
        known.append([tally.view(_threshold(common), common.max_false) for tally in tallies])
        if weak is not None:
            known.append(weak)
    bad = [repairable(m, plane.bad) for m, plane in zip(frame.mosaics, known[0], strict=True)]
    for planes in known[1:]:
        for n, (mosaic, plane) in enumerate(zip(frame.mosaics, planes, strict=True)):
            bad[n] |= repairable(mosaic, plane.bad)
    return bad, used, notes


def _mlp() -> Any:
    from .nets.correctors import shipped_mlp

    return shipped_mlp()


def _vit() -> Any:
    from .nets.reconstructors import shipped_vit

    return shipped_vit()


def _vit_blind() -> Any:
    from .nets.reconstructors import shipped_blind

    return shipped_blind()


#: method -> what opens its nets
NETS: dict[str, Callable[[], Any]] = {"mlp": _mlp, "vit": _vit, "vit-blind": _vit_blind}


def _repair(mosaic: Mosaic, bad: Bool, how: Repair, path: Path) -> tuple[str, Array]:
    """Repair one plane; the method's name and the new samples."""
    if how.fill == "nan":
        if mosaic.is_integer:
            raise RefusedError(f"{path}: --fill nan needs floating-point samples, these are {mosaic.samples.dtype}")
        samples = mosaic.samples.copy()
        samples[bad] = np.nan
        return "nan", samples
    name, corrector = _corrector(mosaic, bad, how.method)
    if how.fill == "noise":
        seed = zlib.crc32(path.name.encode())
        name, corrector = f"{name}, noise", noise_fill(corrector, seed)
    if not bad.any():
        return name, mosaic.samples
    try:
        return name, repair(mosaic, bad, corrector)
    except FrameError as error:
        raise type(error)(f"{path}: {error}") from error


def _corrector(mosaic: Mosaic, bad: Bool, method: str) -> tuple[str, Corrector]:
    if method in CLASSICAL:
        return method, CLASSICAL[method]
    if method in ("vit", "vit-blind"):
        vit = NETS[method]()
        if not vit.supports(mosaic.cfa):
            return f"least-squares (the {method} does not know {mosaic.cfa.name})", CLASSICAL["least-squares"]
        return method, vit
    mlp = _mlp()
    supported = mlp.supports(mosaic.cfa)
    if method == "mlp" and not supported:
        return f"least-squares (the mlp does not know {mosaic.cfa.name})", CLASSICAL["least-squares"]
    if method == "auto":
        rate = int(np.count_nonzero(bad)) / bad.size
        method = strategy.choose(rate, mlp.default_up_to if supported else None)
    return method, CLASSICAL.get(method) or in_tiles(mlp, strategy.TILE, strategy.HALO)


# ---------------------------------------------------------------- inject


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
) -> Iterator[Outcome]:
    """Write damaged copies and their truths."""
    sources = find(paths, recurse=recurse, exclude=[out])
    targets = plan(sources, out, lambda p: files.output_name(p))
    plan(sources, out, lambda p: f"{files.stem_of(p)}.truth.fits")
    if where is not None and not where.is_file():
        raise UsageError(f"{where}: no such map")
    if not common.dry_run:
        safe.ensure_folder(out)
    items = [(s.path, t, common, spec, where, per_frame, overwrite) for s, t in zip(sources, targets, strict=True)]
    yield from workers.run(_inject_one, items, common.jobs, _lost)


def _inject_one(
    path: Path, target: Path, common: Common, spec: Injection, where: Path | None, per_frame: bool, overwrite: bool
) -> Outcome:
    def work() -> Outcome:
        truth = target.with_name(f"{files.stem_of(path)}.truth.fits")
        frame = _load(path, common)
        notes = _assumed(frame)
        if common.dry_run:
            return Outcome(path, target, PLANNED, method=spec.kind, notes=notes)
        if not overwrite and (target.exists() or truth.exists()):
            raise FrameError(
                f"{target if target.exists() else truth}: exists already; use --overwrite or another --out"
            )
        chosen = None
        if where is not None:
            planes, _ = maps.for_frame(maps.read_mask(where), [m.shape for m in frame.mosaics], frame.row_order)
            chosen = [plane.bad for plane in planes]
        mine = replace(spec, seed=zlib.crc32(f"{spec.seed} {path.name}".encode())) if per_frame else spec
        exposure = 1.0 if frame.conditions.exposure is None else frame.conditions.exposure
        damages = [
            inject(
                mosaic,
                replace(mine, seed=mine.seed + 7919 * number),
                frame_key=path.name,
                exposure=exposure,
                where=chosen[number] if chosen else None,
            )
            for number, mosaic in enumerate(frame.mosaics)
        ]
        edits = [Edit.between(m.samples, d.samples) for m, d in zip(frame.mosaics, damages, strict=True)]
        count = sum(d.count for d in damages)
        target.parent.mkdir(parents=True, exist_ok=True)
        maps.write_mask(
            truth,
            [DefectMap(d.dq) for d in damages],
            keys=frame.keys,
            per_key=frame.container == "fits",
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
            files.save(frame, edits, target, overwrite=overwrite)
        except BaseException:
            truth.unlink(missing_ok=True)
            raise
        return Outcome(path, target, DONE, None, count, count / frame.pixels, spec.kind, notes=notes)

    return _attempt(path, work)


# ---------------------------------------------------------------- evaluate


@dataclass
class Scores:
    """Sums over the frames of an evaluate run."""

    detection: Detection = field(default_factory=Detection)
    correction: Correction = field(default_factory=Correction)


def evaluate(
    common: Common,
    *,
    truth: Path,
    masks: Path | None = None,
    clean: Path | None = None,
    repaired: Path | None = None,
    ignore: Path | None = None,
    result: Scores | None = None,
) -> Iterator[Outcome]:
    """Score masks, or repaired frames against clean ones; files pair by STEM."""
    result = result if result is not None else Scores()
    for folder in (truth, masks, clean, repaired, ignore):
        if folder is not None and not folder.is_dir():
            raise UsageError(f"{folder}: no such folder")
    truths = {
        p.name[: -len(".truth.fits")]: p for p in sorted(truth.glob("*.truth.fits"), key=lambda p: _natural(p.name))
    }
    if not truths:
        raise UsageError(f"{truth}: holds no *.truth.fits; make some with `fixpix inject`")
    indexes = [_by_stem(clean), _by_stem(repaired)] if clean and repaired else []
    for stem, path in truths.items():
        kept: list[Any] = []

        def work(stem: str = stem, path: Path = path, kept: list[Any] = kept) -> Outcome:
            flags = maps.read_mask(path).planes
            count, pixels = sum(map(len, flags)), sum(f.dq.size for f in flags)
            if masks is not None:
                kept.append(_score_mask(flags, _required(masks / f"{stem}.mask.fits"), _optional(ignore, stem)))
            else:
                one, two = (
                    _paired(index, stem, folder) for index, folder in zip(indexes, (clean, repaired), strict=True)
                )
                kept.append(_score_repair(flags, one, two, common))
            return Outcome(path, None, DONE, None, count, count / pixels, metrics=kept[0].ratios())

        outcome = _attempt(path, work)
        if kept and outcome.status == DONE:
            if isinstance(kept[0], Detection):
                result.detection += kept[0]
            else:
                result.correction += kept[0]
        yield outcome


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and files.is_supported(path):
            found.setdefault(files.stem_of(path), path)
    return found


def _paired(index: dict[str, Path], stem: str, folder: Path | None) -> Path:
    if stem not in index:
        raise FrameError(f"{folder}: holds no frame named {stem}.*")
    return index[stem]


def _required(path: Path) -> Path:
    if not path.is_file():
        raise FrameError(f"{path}: no such mask; run `fixpix detect` first")
    return path


def _optional(ignore: Path | None, stem: str) -> Path | None:
    if ignore is None:
        return None
    path = ignore / f"{stem}.mask.fits"
    return path if path.is_file() else None


def _score_mask(truth: Sequence[DefectMap], mask: Path, ignore: Path | None) -> Detection:
    flagged = maps.read_mask(mask).planes
    ignored = maps.read_mask(ignore).planes if ignore else [None] * len(truth)
    total = Detection()
    for t, f, i in zip(truth, flagged, ignored, strict=False):
        if t.dq.shape != f.dq.shape or (i is not None and i.dq.shape != t.dq.shape):
            raise FrameError(f"{mask}: has another shape than its truth")
        total += detection(f.bad, t.bad, i.bad if i is not None else None)
    return total


def _score_repair(truth: Sequence[DefectMap], clean: Path, repaired: Path, common: Common) -> Correction:
    before, after = files.load(clean, common.assume), files.load(repaired, common.assume)
    total = Correction()
    for t, a, b in zip(truth, before.mosaics, after.mosaics, strict=False):
        if not t.dq.shape == a.shape == b.shape:
            raise FrameError(f"{repaired}: has another shape than its truth or its clean frame")
        total += correction(a, b.samples, t.bad)
    return total
