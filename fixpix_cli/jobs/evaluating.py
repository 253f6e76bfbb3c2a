"""``evaluate``: masks and repairs against their truths."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import files, maps
from ..defects import DefectMap
from ..errors import FrameError, UsageError
from ..score import Correction, Detection, correction, detection
from .inputs import natural
from .outcomes import DONE, Common, Outcome, attempt, lost
from .working import place_of


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
        p.name[: -len(".truth.fits")]: p for p in sorted(truth.glob("*.truth.fits"), key=lambda p: natural(p.name))
    }
    if not truths:
        raise UsageError(f"{truth}: holds no *.truth.fits; make some with `fixpix inject`")
    pairs = [(index, folder) for folder in (clean, repaired) if folder is not None for index in [_by_stem(folder)]]
    others = [folder for folder in (masks, clean, repaired, ignore) if folder is not None]
    with place_of(common, list(truths.values()), reads=others) as place:
        items = [
            (path, stem, common, masks, ignore, tuple((index.get(stem), folder) for index, folder in pairs))
            for stem, path in truths.items()
        ]
        for outcome, score in place.each(_evaluate_one, items, lambda item, why: (lost(item, why), None)):
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
        count, pixels = sum(map(len, flags)), sum(math.prod(f.shape) for f in flags)
        if masks is not None:
            kept.append(_score_mask(flags, _required(masks / f"{stem}.mask.fits"), _optional(ignore, stem)))
        else:
            one, two = (_paired(frame, stem, folder) for frame, folder in pair)
            kept.append(_score_repair(flags, one, two, common))
        return Outcome(path, None, DONE, None, count, count / pixels, metrics=kept[0].ratios())

    outcome = attempt(path, work)
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
        if t.shape != f.shape or (i is not None and i.shape != t.shape):
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
        if not t.shape == a.shape == b.shape:
            raise FrameError(f"{repaired}: has another shape than its truth or its clean frame")
        total += correction(a, b.samples, t.bad)
    return total
