"""Floor 2. Changes of whole maps: merge, prune, remove, recover. The version before a change is kept beside the map."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .. import safe
from ..errors import FixpixError, MismatchError, StoreError, UsageError
from ..evidence import Evidence, Tally
from ..mosaic import Array
from .fitsmap import CameraMap, previous_of, read_map, write_map
from .parts import Part, flipped, joined, total
from .store import change, differences, forget, key_of, locked


@dataclass(frozen=True, eq=False)
class Merged:
    """What a merge made.

    Parameters
    ----------
    camera : CameraMap
    left_out : tuple of Part
        Parts whose frames are not all in the result.
    notes : tuple of str
        What a user should know.
    """

    camera: CameraMap
    left_out: tuple[Part, ...] = ()
    notes: tuple[str, ...] = ()


def merge(paths: Sequence[Path], out: Path, *, overwrite: bool = False, leave_out: bool = False) -> Merged:
    """Merge maps of one camera into the file `out`; it may be one of them.

    Exact: the evidence is that of all their frames together, each counted
    once, whatever the order and however often maps of the same machines have
    been merged before (`fixpix_cli.maps.parts`).

    Parameters
    ----------
    paths : two or more map files
    out : Path
    overwrite : bool
        Replace an `out` that is not among `paths`.
    leave_out : bool
        Of parts that overlap leave out the smaller one instead of refusing.

    Raises
    ------
    UsageError
        Maps of two cameras, or `out` exists.
    MismatchError
        Parts overlap and cannot be told apart.
    StoreError
        A map is damaged or `out` cannot be written.
    """
    inside = out.exists() and any(os.path.samefile(out, path) for path in paths if path.exists())
    if out.exists() and not inside and not overwrite:
        raise UsageError(f"{out}: exists already; name it among the maps to let it grow, or use --overwrite")
    with locked(out):
        result = joined_maps(paths, leave_out)
        write_map(out, result.camera)
    return result


def joined_maps(paths: Sequence[Path], leave_out: bool = False) -> Merged:
    """What `merge` would write."""
    cameras = [read_map(path, parts=True) for path in paths]
    first, notes, parts = cameras[0], [], list[Part]()
    row_order = next((camera.row_order for camera in cameras if camera.row_order), "")
    for path, camera in zip(paths, cameras, strict=True):
        if key_of(camera.identity) != key_of(first.identity):
            told = ", ".join(differences(camera.identity, first.identity))
            raise UsageError(f"{path}: does not belong to {paths[0]}: {told}")
        if camera.row_order and camera.row_order != row_order:
            notes.append(f"{path}: row order {camera.row_order} flipped to {row_order}")
            parts += [replace(part, evidence=flipped(part.evidence)) for part in camera.apart]
        else:
            parts += camera.apart
        if camera.threshold != first.threshold:
            notes.append(f"{path}: its threshold {camera.threshold:g} gives way to {first.threshold:g}")
    try:
        kept, left = joined(parts, leave_out)
        evidence = total(kept)
    except MismatchError as error:
        raise MismatchError(f"{', '.join(map(str, paths))}: {error}") from error
    except ValueError as error:
        raise MismatchError(f"{', '.join(map(str, paths))}: their images have different sizes ({error})") from error
    left = tuple(part for part in left if not part.digests <= evidence.frames.keys())
    return Merged(replace(first, evidence=evidence, row_order=row_order, parts=kept), left, tuple(notes))


def pruned(
    camera: CameraMap, *, conditions: Sequence[str] = (), before: str = "", below: float | None = None
) -> CameraMap:
    """A map without some of its evidence.

    Parameters
    ----------
    conditions : sequence of str
        Leave out bins whose text begins with one of these: ``dark``, ``dark, 60 s``.
    before : str
        Leave out the frames of months before this ``YYYY-MM``; those without a time stay.
    below : float
        Leave out suspects whose probability in the whole map is below this. Their frames stay counted.
    """
    parts = [part for part in camera.apart if not part.month or part.month >= before]
    parts = [replace(part, evidence=_without(part.evidence, conditions)) for part in parts]
    if below is not None:
        whole = total(parts)
        weak = {key: tally.entries["pixel"][tally.confidence < below] for key, tally in whole.tallies.items()}
        parts = [
            replace(
                part,
                evidence=replace(
                    part.evidence,
                    tallies={key: _cleared(tally, weak[key]) for key, tally in part.evidence.tallies.items()},
                ),
            )
            for part in parts
        ]
    parts = [part for part in parts if part.evidence.frames or part.evidence.tallies]
    return replace(camera, evidence=total(parts), parts=tuple(parts))


def _without(evidence: Evidence, conditions: Sequence[str]) -> Evidence:
    if not conditions:
        return evidence
    gone = {bin_ for _, bin_ in evidence.tallies if str(bin_).startswith(tuple(conditions))}
    tallies = {(plane, bin_): tally for (plane, bin_), tally in evidence.tallies.items() if bin_ not in gone}
    frames = {digest: counted for digest, counted in evidence.frames.items() if counted.bin not in gone}
    return Evidence(tallies, frames)


def _cleared(tally: Tally, pixels: Array) -> Tally:
    return replace(tally, entries=tally.entries[~np.isin(tally.entries["pixel"], pixels)])


def prune(
    path: Path, *, conditions: Sequence[str] = (), before: str = "", below: float | None = None
) -> tuple[CameraMap, CameraMap]:
    """Prune a map file under its lock; the map before and after.

    Raises
    ------
    UsageError
        A condition that no bin of the map begins with.
    StoreError
        The map is damaged or cannot be written.
    """
    seen: list[CameraMap] = []

    def how(camera: CameraMap) -> CameraMap:
        texts = sorted({str(bin_) for _, bin_ in camera.evidence.tallies})
        for wanted in conditions:
            if not any(text.startswith(wanted) for text in texts):
                raise UsageError(f"{path}: has no conditions {wanted!r}; there are {'; '.join(texts)}")
        seen.append(camera)
        return pruned(camera, conditions=conditions, before=before, below=below)

    after = change(path, how)
    return seen[0], after


def remove(path: Path) -> None:
    """Remove a map, its previous version and its lock.

    Raises
    ------
    StoreError
        It cannot be removed.
    """
    path = Path(os.path.realpath(path))
    with locked(path):
        try:
            path.unlink()
            previous_of(path).unlink(missing_ok=True)
            path.with_name(f".{path.name}.lock").unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{path}: cannot be removed ({safe.reason(error)})") from error


def recover(path: Path, *, back: bool = False) -> CameraMap:
    """Bring a map's previous version back; the damaged file is kept as ``NAME.damaged``.

    The map then writes under a new mark, so that what it counts from now on is
    not taken for a later state of what it had counted before the damage.

    Parameters
    ----------
    back : bool
        Also where the map is whole: go back to before its last change.

    Raises
    ------
    UsageError
        The map is whole.
    StoreError
        No previous version, or it is damaged too, or the folder cannot be written.
    """
    path = Path(os.path.realpath(path))
    previous = previous_of(path)
    if not path.exists() and not previous.exists():
        raise UsageError(f"{path}: no such map, and no previous version of it")
    with locked(path):
        if path.exists() and not back:
            try:
                read_map(path, parts=True)
            except FixpixError:
                pass
            else:
                raise UsageError(f"{path}: is whole; --back goes back to before its last change")
        if not previous.exists():
            raise StoreError(f"{path}: has no previous version; remove it and calibrate its frames again")
        camera = read_map(previous, parts=True)
        try:
            if path.exists():
                os.replace(path, path.with_name(f"{path.name}.damaged") if not back else previous_of(previous))
            os.replace(previous, path)
            if back:
                os.replace(previous_of(previous), previous)
            forget(path)
        except OSError as error:
            raise StoreError(f"{path}: cannot be recovered ({safe.reason(error)})") from error
    return camera
