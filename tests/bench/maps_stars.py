"""Does a star become a defect? Simulated fields with truth, and a real night."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import scenes

from fixpix_cli import files
from fixpix_cli.cfa import MONO, RGGB
from fixpix_cli.defects import DQ
from fixpix_cli.mosaic import Array
from fixpix_cli.nets.detectors import detect
from fixpix_cli.simulate import Sensor, stars
from fixpix_cli.tally import Tally

_WIDTHS = (1.5, 1.8, 2.4, 3.0)
_FRAMES = 10


def shifts(how: str, rng: np.random.Generator) -> tuple[float, float]:
    """How far the sky lies from where it was in the first frame, in pixels."""
    size = {"tracked": 0.0, "guided, 0.3 px rms": 0.3, "dithered, whole pixels": 8.0, "dithered": 8.0}[how]
    row, col = rng.normal(0, size, 2) if size < 1 else rng.uniform(-size, size, 2)
    return (round(row), round(col)) if "whole" in how else (float(row), float(col))


def measure(folder: Path | None, quick: bool) -> dict[str, Any]:
    """Every field, and the night where the data folder is given."""
    fields = []
    for cfa in (MONO, RGGB):
        for width in _WIDTHS[1::2] if quick else _WIDTHS:
            for how in ("tracked", "guided, 0.3 px rms", "dithered, whole pixels", "dithered"):
                name = f"{cfa.name}, FWHM {width}, {how}"
                fields.append({"field": name} | field(cfa, width, how, 300 if quick else 400))
    return {"fields": fields} | ({} if folder is None else {"night": night(folder)})


def field(cfa: Any, width: float, how: str, side: int) -> dict[str, Any]:
    """Ten frames of 30 s of one field on a sensor with defects: together, and each by itself."""
    shape, rng = (side, side), np.random.default_rng(1)
    sensor, total, single = Sensor(shape, cfa, seed=3, defects=0.001), None, 0
    good = sensor.truth == 0
    for n in range(_FRAMES):
        mosaic = sensor.expose(stars(shape, 7, 250, width, shifts(how, rng)), 30.0, 0.0, n)
        found = detect(mosaic, None, 30.0, thorough=True)
        tally = Tally.of(mosaic, found)
        total = tally if total is None else total + tally
        single += int(np.count_nonzero(tally.view().bad & good))
    bad, hot = total.view().bad, (sensor.truth & int(DQ.HOT)) != 0
    counts = {"hot": hot, "found": bad & hot, "false": bad & good}
    return {name: int(np.count_nonzero(mask)) for name, mask in counts.items()} | {"single": single / _FRAMES}


def night(folder: Path) -> dict[str, Any]:
    """The real sequence: what becomes a defect, and how much of it stays on its pixel while the sky drifts."""
    rows = [r for r in scenes.tables.table(folder, "frames.csv", "measure") if r["camera"].startswith("MicroObs")]
    shots = [scenes.Shot("", r["file"], files.load(folder / r["file"]).mosaics[0].light()) for r in rows]
    total = None
    for shot in shots:
        found = detect(shot.mosaic, None, 60.0, thorough=True)
        tally = Tally.of(shot.mosaic, found)
        total = tally if total is None else total + tally
    flagged = total.view().bad
    return {
        "frames": len(shots),
        "drift": drift([shot.mosaic.samples for shot in shots]),
        "flagged": int(np.count_nonzero(flagged)),
        "staying": int(np.count_nonzero(flagged & scenes.isolated(shots))),
    }


def drift(images: list[Array]) -> float:
    """The least distance in pixels that the sky moves from one frame to the next, by cross-correlation."""
    spectra = []
    for image in images:
        padded = np.pad(image.astype(np.float64), 1, mode="reflect")
        parts = [padded[r : r + image.shape[0], c : c + image.shape[1]] for r in range(3) for c in range(3)]
        calm = np.median(parts, axis=0)  # without hot pixels
        spectra.append(np.fft.rfft2(np.clip(calm - np.median(calm), 0, 200)))
    moved = []
    for one, two in pairwise(spectra):
        match = np.fft.irfft2(two * np.conj(one), images[0].shape)
        place = np.unravel_index(np.argmax(match), match.shape)
        moved.append(np.hypot(*((p + n // 2) % n - n // 2 for p, n in zip(place, match.shape, strict=True))))
    return float(min(moved))
