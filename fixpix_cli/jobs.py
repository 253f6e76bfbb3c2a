"""Floor 3. One generator per verb: frames in, outcomes out.

A job plans (which file goes where), does the frames one by one or in worker
processes, and yields an `Outcome` for each. A frame that fails becomes an
outcome with its error; what makes the whole run impossible raises.

Nothing here prints; the faces do.
"""

from __future__ import annotations

import glob
import hashlib
import importlib
import os
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
from .mosaic import Array, Assume, Bool, Conditions, Edit, Frame, Identity, Lazy, Mosaic, digest
from .repair import CLASSICAL, Corrector, in_tiles, noise_fill, otherwise, repair, repairable
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
    budget: workers.Budget = field(default_factory=workers.Budget)


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
    left_out: list[Path] = []
    barred = [folder.resolve() for folder in exclude]

    def take(path: Path, below: Path) -> None:
        real = Path(os.path.realpath(path))  # Path.resolve raises on links that run in a circle
        if any(real.is_relative_to(folder) for folder in barred):
            left_out.append(path)
        else:
            found.setdefault(real, Source(path, below))

    for text in map(str, paths):
        path = Path(text)
        if path.exists() or path.is_symlink():
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
                    # A pipe, a socket or a broken link by a frame's name is taken, too, and fails by its name.
                    folder_of_frames = recurse and child.is_dir()
                    if not hidden and not folder_of_frames and files.is_supported(child):
                        take(child, child.relative_to(match).parent)
            elif not match.name.lower().endswith(files.SIDECARS) and not (
                match.name.startswith(".") and len(matches) > 1
            ):
                take(match, Path())
    if not found and left_out:
        raise UsageError(f"{left_out[0]}: lies in the output folder itself; choose another --out, or use --in-place")
    if not found:
        raise UsageError(f"nothing to read in {', '.join(map(str, paths))}")
    return list(found.values())


def plan(sources: Sequence[Source], folder: Path, name: Callable[[Path], str]) -> list[Path]:
    """Where each output goes: below `folder`, in the structure of the directory arguments.

    Raises
    ------
    UsageError
        Two inputs would have one output name, or an output is one of the inputs (by a link, say).
    """
    targets = [folder / source.below / name(source.path) for source in sources]
    first: dict[str, Path] = {}
    originals = {os.path.realpath(source.path) for source in sources}
    for target in targets:
        if os.path.realpath(target) in originals:
            raise UsageError(f"{target}: is one of the frames to read; choose another --out")
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
        raise  # the worker's leader knows the limit, and whether there is more to try with
    except Exception as error:  # the one broad net: a fault of ours may not stop a batch either
        error_text = f"{path}: internal error, please report it ({type(error).__name__}: {error})"
        outcome = Outcome(path, status=FAILED, error=error_text, exit_code=1)
    return replace(outcome, seconds=round(time.perf_counter() - start, 4))


def _lost(item: tuple[Any, ...], why: str) -> Outcome:
    path = item[0]
    return Outcome(path, status=FAILED, error=f"{path}: {why}", exit_code=1)


def _assumed(frame: Frame) -> tuple[str, ...]:
    return (*frame.notes, f"assumed {', '.join(frame.assumed)}") if frame.assumed else frame.notes


def _check_levels(frame: Frame) -> None:
    for mosaic in frame.moment(0):
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


def tallies_of(mosaics: Iterable[Mosaic], conditions: Conditions) -> list[Tally]:
    """What each of some planes shows."""
    return _told(mosaics, conditions)[0]


def _told(mosaics: Iterable[Mosaic], conditions: Conditions) -> tuple[list[Tally], str]:
    """What each of some planes shows, and by what method."""
    tallies, methods = [], []
    for mosaic in mosaics:
        found = _detected(mosaic, conditions)
        tallies.append(Tally.of(mosaic, found.probability, found.rate))
        methods.append(found.method)
    return tallies, _methods(methods)


def _detected(mosaic: Mosaic, conditions: Conditions) -> classical.Detection:
    from .nets.detectors import detect

    return detect(mosaic, conditions.kind, conditions.exposure)


def _methods(of_planes: Iterable[str]) -> str:
    """The methods of a frame's planes, each once."""
    return ", ".join(dict.fromkeys(of_planes))


def _threshold(common: Common) -> float:
    return DEFAULT_THRESHOLD if common.threshold is None else common.threshold


def _evidence_of(frame: Frame, kind: str | None, known: frozenset[str]) -> tuple[Evidence, str]:
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
        told, method = _told(mosaics, conditions)
        methods.append(method)
        for plane, tally in enumerate(told):
            key = (plane, bin_)
            tallies[key] = tallies[key] + tally if key in tallies else tally
        counted[mark] = Counted(mark, _moment_name(frame, number), bin_, conditions)
    return Evidence(tallies, counted), _methods(methods)


def _moment_name(frame: Frame, number: int) -> str:
    """The name of a file, or of one moment of a series."""
    return frame.source.name if frame.moments == 1 else f"{frame.source.name}[{number}]"


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
    yield from workers.run(_detect_one, items, common.jobs, common.budget, _lost)


def _detect_one(
    path: Path, target: Path, common: Common, map_file: Path | None, probability: bool, overwrite: bool
) -> Outcome:
    def work() -> Outcome:
        frame = _load(path, common)
        if common.dry_run:
            return Outcome(path, target, PLANNED, notes=_assumed(frame))
        tallies, images, methods, notes = [], [], [], list(_assumed(frame))
        for mosaic in frame.mosaics:
            found = _detected(mosaic, frame.conditions)
            methods.append(found.method)
            tallies.append(Tally.of(mosaic, found.probability, found.rate))
            if probability:
                images.append(found.probability)
        known: list[DefectMap] = []
        if map_file is not None:
            known, warnings = _fit(maps.read_mask(map_file), frame, common)
            notes += warnings
        if frame.prior is not None:
            listed, said = _listed(frame)
            known = [listed | known[0] if known else listed]
            notes.append(said)

        def flagged(number: int) -> DefectMap:
            mine = tallies[number].view(_threshold(common), common.max_false)
            return mine | known[number] if known else mine

        flags = Lazy(len(tallies), flagged)
        defects = sum(map(len, flags))
        target.parent.mkdir(parents=True, exist_ok=True)
        maps.write_mask(
            target,
            flags,
            keys=frame.keys,
            per_key=_per_key(frame),
            row_order=frame.row_order,
            cards=[("FPXSRC", path.name.encode("ascii", "replace").decode(), "frame"), ("FPXN", defects, "bad pixels")],
            probability=images,
            overwrite=overwrite,
        )
        return Outcome(
            path, target, DONE, None, defects, defects / frame.pixels, _methods(methods), map_file, notes=tuple(notes)
        )

    return _attempt(path, work)


def _per_key(frame: Frame) -> bool:
    """Whether a mask gets one extension per plane; the planes of a series are the first axis of one."""
    return frame.container == "fits" and frame.moments == 1


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
        _calibrate_one, items, common.jobs, common.budget, lambda item, why: (_lost(item, why), None, None)
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
    items = [(s.path, common) for s in sources]
    told = workers.run(_identity_one, items, common.jobs, common.budget, lambda item, why: None)
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
        frame = _load(path, common)
        target = map_file or maps.Store(store).path_of(frame.identity)
        notes = _assumed(frame)
        if common.dry_run:
            return Outcome(path, target, PLANNED, map=target, notes=notes)
        evidence, method = _evidence_of(frame, kind, _digests(target) if target.exists() else frozenset())
        if not evidence.frames:
            return Outcome(path, None, SKIPPED, method="already counted", map=target, notes=notes)
        if len(evidence.frames) < frame.moments:
            notes = (
                *notes,
                f"{frame.moments - len(evidence.frames)} of its {frame.moments} moments were counted before",
            )
        carried.append((evidence, (frame.identity, frame.row_order, frame.keys)))
        defects = sum(int(t.chosen(_threshold(common)).sum()) for t in evidence.tallies.values())
        rate = defects * frame.moments / frame.pixels
        return Outcome(path, target, DONE, None, defects, rate, method, target, notes=notes)

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
        parts: list[Evidence] = []
        taken: set[str] = set()
        for _, evidence, _ in waiting:
            if not evidence.frames.keys() & taken:
                parts.append(evidence)
                taken |= evidence.frames.keys()
        settings = {"row_order": row_order, "threshold": _threshold(common), "keys": keys}
        misfits: list[Evidence] = []
        try:
            camera, known = maps.add(target, identity, parts, **settings)
        except ValueError:  # a further image of one of them has another size: add them one by one
            known = set()
            for part in parts:
                try:
                    camera, again = maps.add(target, identity, [part], **settings)
                    known |= again
                except ValueError:
                    misfits.append(part)
                    camera = maps.read_map(target)
        result.maps[target] = camera
        for outcome, evidence, _ in waiting:
            if any(evidence is part for part in misfits):
                error = (
                    f"{outcome.path}: its images have other sizes than those that {target} counted; give another --map"
                )
                outcome = replace(outcome, output=None, status=FAILED, error=error, defects=0, rate=0.0, exit_code=1)
            elif evidence.frames.keys() & known or not any(evidence is part for part in parts):
                whole = evidence.frames.keys() <= camera.evidence.frames.keys()
                why = "already counted" if whole else "some of its moments came in meanwhile; run it again for the rest"
                outcome = replace(outcome, status=SKIPPED, output=None, defects=0, rate=0.0, method=why)
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
    dq : bool
        Put the repaired pixels' flags into the output, where it is FITS.
    dng : repair, or opcode: list the bad pixels in the DNG's OpcodeList1 and leave them as they are
    """

    auto: bool = False
    maps: tuple[Path, ...] = ()
    out: Path | None = Path("repaired")
    method: str = "auto"
    fill: str = "interpolate"
    overwrite: bool = False
    resume: bool = False
    provenance: bool = False
    dq: bool = False
    dng: str = "repair"


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
    if how.method in _NETS:
        _net(how.method)  # a missing or damaged model stops the run before any frame
    remembered: dict[Path, Any] = {}
    weak: dict[str, list[DefectMap]] = {}
    if how.auto and len(sources) > 1 and not common.dry_run:
        remembered, weak = _look(sources, common)
    items = [
        (s.path, t, common, how, store, remembered.get(s.path), weak.get(_camera_key(remembered.get(s.path))))
        for s, t in zip(sources, targets, strict=True)
    ]
    yield from workers.run(_correct_one, items, common.jobs, common.budget, _lost)


@dataclass(frozen=True, eq=False)
class Looked:
    """What the first pass of ``correct --auto`` keeps of a frame.

    tallies: of every plane of every moment, or () where they are too many to remember; sums: over the moments.
    """

    key: str
    tallies: tuple[Tally, ...]
    complete: bool
    sums: tuple[Tally, ...] = ()

    @classmethod
    def of(cls, frame: Frame) -> Looked:
        """Look at a frame, moment by moment."""
        sums: list[Tally] = []
        each: list[Tally] = []
        remembered, complete = 0, True
        for number in range(frame.moments):
            told = tallies_of(frame.moment(number), frame.conditions)
            sums = [a + b for a, b in zip(sums, told, strict=True)] if sums else told
            remembered += sum(len(t.entries) for t in told)
            complete = remembered <= _REMEMBERED
            each = [*each, *told] if complete else []
        return cls(maps.key_of(frame.identity), tuple(each), complete, tuple(sums))

    def weak(self, common: Common) -> list[DefectMap] | None:
        """The pixels that at least three moments together find bad; None where there are fewer."""
        return _weak(self.sums, common)


def _weak(sums: Sequence[Tally], common: Common) -> list[DefectMap] | None:
    if sums[0].frames < 3:
        return None
    return [tally.view(_threshold(common), common.max_false) for tally in sums]


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
    found = workers.run(_look_one, items, common.jobs, common.budget, lambda item, why: None)
    for source, looked in zip(sources, found, strict=True):
        if looked is None:
            continue
        if looked.key in sums:
            sums[looked.key] = [a + b for a, b in zip(sums[looked.key], looked.sums, strict=True)]
        else:
            sums[looked.key] = list(looked.sums)
        remembered[source.path] = replace(looked, sums=())
    weak = {key: view for key, tallies in sums.items() if (view := _weak(tallies, common)) is not None}
    return remembered, weak


def _look_one(path: Path, common: Common) -> Looked | None:
    try:
        return Looked.of(_load(path, common))
    except FixpixError:
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
        existing = how.out is not None and target.exists() and not how.overwrite and not common.dry_run
        if existing and not how.resume:
            raise FrameError(f"{target}: exists already; use --overwrite, --resume or another --out")
        frame = _load(path, common)
        notes = list(_assumed(frame))
        marks: list[Marks] = []
        masks, used, warnings = _bad(frame, common, how, store, looked, weak, marks)
        notes += warnings
        if how.dng == "opcode" and target.suffix.lower() == ".dng":
            return _annotated(frame, list(masks), target, common, how, used, notes)
        if existing and _is_finished(frame, target, common, how, masks):
            return Outcome(path, target, SKIPPED, method="done before, verified", map=used, notes=tuple(notes))
        marks.clear()  # the look at what is there has made masks, too
        methods, edits, defects = [], [], 0
        for number, mosaic in enumerate(frame.mosaics):
            bad = masks[number]
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
        said = _said(common, method, defects, used) if how.provenance else None
        flags = b""
        if how.dq and any(map(len, edits)):
            views = Lazy(len(marks), lambda n: marks[n].view())
            flags = maps.dq_extensions(views, keys=frame.keys, per_key=_per_key(frame))
        notes += files.save(frame, edits, target, overwrite=replacing, provenance=said, extension=flags)
        return Outcome(path, target, DONE, None, defects, defects / frame.pixels, method, used, notes=tuple(notes))

    return _attempt(path, work)


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
    from .nets import registry

    limit = f"threshold {_threshold(common):g}" if common.max_false is None else f"max-false {common.max_false:g}"
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
    kinds = [(f.moments, f.shapes, [m.samples.dtype for m in f.moment(0)]) for f in (frame, after)]
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
            _, samples = _repair(mosaic, bad, how, frame.source)
            if len(Edit.between(samples, there.samples)):
                return False
    return True


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
            camera.evidence.view(n, _threshold(common), common.max_false) or DefectMap.empty(shape)
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


def _bad(
    frame: Frame,
    common: Common,
    how: Repair,
    store: Path,
    looked: Looked | None,
    weak: list[DefectMap] | None,
    marks: list[Marks],
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
        listed, said = _listed(frame)
        known.append([listed])
        notes.append(said)
    tallies = looked.tallies if looked is not None and looked.complete else ()

    def bad(number: int) -> Bool:
        mosaic = frame.mosaics[number]
        found = np.zeros(mosaic.shape, bool)
        views = [planes[number] for planes in known]
        if how.auto:
            tally = tallies[number] if tallies else tallies_of([mosaic], frame.conditions)[0]
            views.append(tally.view(_threshold(common), common.max_false))
        for view in views:
            found |= repairable(mosaic, view.bad)
        if how.dq:
            marks.append(Marks.of(found, views))
        return found

    if frame.moments == 1:  # at once, so that the maps' flags need not be kept
        return [bad(number) for number in range(len(frame.mosaics))], used, notes
    return Lazy(len(frame.mosaics), bad), used, notes


def _listed(frame: Frame) -> tuple[DefectMap, str]:
    """The bad pixels that the file itself lists, and a note on them."""
    bad = np.zeros(frame.mosaics[0].shape, bool) if frame.prior is None else frame.prior
    found = DefectMap.of(repairable(frame.mosaics[0], bad))
    return found, f"{len(found)} pixels that its OpcodeList1 calls bad were counted as bad"


#: method -> (module, name) of what opens its net
_NETS = {
    "mlp": ("nets.correctors", "shipped_mlp"),
    "vit": ("nets.reconstructors", "shipped_vit"),
    "cnn": ("nets.holes", "shipped_cnn"),
}


def _net(method: str) -> Any:
    """The shipped net of a method, opened when first asked for."""
    module, name = _NETS[method]
    return getattr(importlib.import_module(f".{module}", __package__), name)()


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
    """The corrector of a method, and the method's name as the report gives it."""
    if method == "auto":
        mlp = _net("mlp")
        rate = int(np.count_nonzero(bad)) / bad.size
        method = strategy.choose(rate, mlp.default_up_to if mlp.supports(mosaic.cfa) else None)
    if method in CLASSICAL:
        return method, CLASSICAL[method]
    net = _net(method)
    if not net.supports(mosaic.cfa):
        return f"least-squares (the {method} does not know {mosaic.cfa.name})", CLASSICAL["least-squares"]
    name = method
    if method == "cnn":
        name, net = "cnn, mlp elsewhere", otherwise(net, _net("mlp"))
    return name, in_tiles(net, strategy.TILE, strategy.HALO)


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
    yield from workers.run(_inject_one, items, common.jobs, common.budget, _lost)


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
            chosen, _ = maps.for_frame(maps.read_mask(where), frame.shapes, frame.row_order, frame.moments)
        exposure = 1.0 if frame.conditions.exposure is None else frame.conditions.exposure
        edits, marks = [], []
        for number, mosaic in enumerate(frame.mosaics):
            name = _moment_name(frame, number // frame.planes)
            seed = zlib.crc32(f"{spec.seed} {name}".encode()) if per_frame else spec.seed
            damage = inject(
                mosaic,
                replace(spec, seed=seed + 7919 * (number % frame.planes)),
                frame_key=name,
                exposure=exposure,
                where=chosen[number].bad if chosen else None,
            )
            edits.append(Edit.between(mosaic.samples, damage.samples))
            marks.append((mosaic.shape, np.flatnonzero(damage.dq), damage.dq[damage.dq != 0]))

        def truth_of(number: int) -> DefectMap:
            shape, places, flags = marks[number]
            empty = DefectMap.empty(shape)
            empty.dq.reshape(-1)[places] = flags
            return empty

        count = sum(len(places) for _, places, _ in marks)
        target.parent.mkdir(parents=True, exist_ok=True)
        maps.write_mask(
            truth,
            Lazy(len(marks), truth_of),
            keys=frame.keys,
            per_key=_per_key(frame),
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
    pairs = [(index, folder) for folder in (clean, repaired) if folder is not None for index in [_by_stem(folder)]]
    items = [
        (path, stem, common, masks, ignore, tuple((index.get(stem), folder) for index, folder in pairs))
        for stem, path in truths.items()
    ]
    for outcome, score in workers.run(
        _evaluate_one, items, common.jobs, common.budget, lambda item, why: (_lost(item, why), None)
    ):
        if isinstance(score, Detection):
            result.detection += score
        elif isinstance(score, Correction):
            result.correction += score
        yield outcome


def _evaluate_one(
    path: Path,
    stem: str,
    common: Common,
    masks: Path | None,
    ignore: Path | None,
    pair: tuple[tuple[Path | None, Path], ...],
) -> tuple[Outcome, Detection | Correction | None]:
    kept: list[Detection | Correction] = []

    def work() -> Outcome:
        flags = maps.read_mask(path).planes
        count, pixels = sum(map(len, flags)), sum(f.dq.size for f in flags)
        if masks is not None:
            kept.append(_score_mask(flags, _required(masks / f"{stem}.mask.fits"), _optional(ignore, stem)))
        else:
            one, two = (_paired(frame, stem, folder) for frame, folder in pair)
            kept.append(_score_repair(flags, one, two, common))
        return Outcome(path, None, DONE, None, count, count / pixels, metrics=kept[0].ratios())

    outcome = _attempt(path, work)
    return outcome, kept[0] if kept and outcome.status == DONE else None


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and files.is_supported(path):
            found.setdefault(files.stem_of(path), path)
    return found


def _paired(frame: Path | None, stem: str, folder: Path) -> Path:
    if frame is None:
        raise FrameError(f"{folder}: holds no frame named {stem}.*")
    return frame


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
    for t, f, i in zip(truth, _repeated(flagged, truth), _repeated(ignored, truth), strict=False):
        if t.dq.shape != f.dq.shape or (i is not None and i.dq.shape != t.dq.shape):
            raise FrameError(f"{mask}: has another shape than its truth")
        total += detection(f.bad, t.bad, i.bad if i is not None else None)
    return total


def _repeated(planes: Sequence[Any], truth: Sequence[DefectMap]) -> Sequence[Any]:
    """One moment's planes, once for every moment of the truth."""
    times, rest = divmod(len(truth), len(planes))
    return planes if rest else [*planes] * times


def _score_repair(truth: Sequence[DefectMap], clean: Path, repaired: Path, common: Common) -> Correction:
    before, after = files.load(clean, common.assume), files.load(repaired, common.assume)
    total = Correction()
    for t, a, b in zip(truth, before.mosaics, after.mosaics, strict=False):
        if not t.dq.shape == a.shape == b.shape:
            raise FrameError(f"{repaired}: has another shape than its truth or its clean frame")
        total += correction(a, b.samples, t.bad)
    return total
