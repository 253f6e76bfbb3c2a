"""Row h, second part: a star field before and after `correct --auto`, measured with sep.

Simulated fields, whose sensors have no defect, and the real night sky; as they are and with 0.01 % of damage. On a
Bayer sensor the sources are those of its 2 x 2 sums.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import scenes
from rows_correction import corrected
from tasks import Task

from fixpix_cli.cfa import GBRG, MONO, RGGB
from fixpix_cli.inject import Injection, inject
from fixpix_cli.jobs import Repair
from fixpix_cli.mosaic import Array, Mosaic
from fixpix_cli.simulate import Sensor, stars

ROW = "stars"
#: CFA, full width at half maximum of the stars in pixels
FIELDS = ((MONO, 1.8), (MONO, 2.6), (RGGB, 2.2), (GBRG, 3.2))
#: A source has at least so many pixels above so many sigma of the background; it is kept within this distance.
_AREA, _SIGMA, _DISTANCE = 5, 3.0, 1.5


def tasks(folder: Path, quick: bool = False) -> list[Task]:
    """One task per field; none where sep is not installed."""
    if importlib.util.find_spec("sep") is None:
        return []
    made = {f"simulated {cfa.name}, FWHM {fwhm}": field(cfa, fwhm) for cfa, fwhm in FIELDS[: 1 if quick else None]}
    sky = {shot.name: shot.mosaic for shot in scenes.cameras(folder) if "100D" in shot.camera}
    return [
        Task(ROW, name, 2e-6 * mosaic.samples.size, lambda name=name, mosaic=mosaic: measure(name, mosaic))
        for name, mosaic in {**made, **sky}.items()
    ]


def field(cfa: Any, fwhm: float, side: int = 700) -> Mosaic:
    """400 stars over a sky gradient, 30 s, on a sensor without defects."""
    seed = round(10 * fwhm)
    sensor = Sensor((side, side), cfa, seed, defects=0.0)
    return sensor.expose(stars((side, side), seed, 400, fwhm), 30.0)


def measure(name: str, mosaic: Mosaic) -> list[dict[str, Any]]:
    """The field repaired as it is, and after damage.

    Returns
    -------
    list of dict
        field, damaged (bool), changed (pixels that the repair changed and that were not damaged), stars (of the
        undamaged frame), kept, new (sources that the undamaged frame does not have), and of the stars' fluxes the
        median and the greatest relative change, and how many changed by more than 1 %.
    """
    import sep

    before = _superpixels(mosaic.samples, mosaic)
    known, background = _sources(before)
    flux, _, _ = sep.sum_circle(before - background, known["x"], known["y"], 5.0)
    out = []
    for damaged in (False, True):
        damage = inject(mosaic, Injection(0.0001 if damaged else 0.0, seed=400), frame_key=name)
        samples, _ = corrected(mosaic.with_samples(damage.samples), Repair(auto=True))
        after = _superpixels(samples, mosaic)
        found, _ = _sources(after)
        apart = np.hypot(known["x"][:, None] - found["x"][None], known["y"][:, None] - found["y"][None])
        again, _, _ = sep.sum_circle(after - background, known["x"], known["y"], 5.0)
        change = np.abs(again / flux - 1)[flux > 0]
        out.append(
            {
                "field": name,
                "damaged": damaged,
                "changed": int(np.count_nonzero((samples != mosaic.samples) & (damage.dq == 0))),
                "stars": len(known),
                "kept": int(np.count_nonzero((apart <= _DISTANCE).any(axis=1))),
                "new": int(np.count_nonzero(~(apart <= _DISTANCE).any(axis=0))),
                "median_change": float(np.median(change)),
                "greatest_change": float(change.max()),
                "beyond_1_percent": int(np.count_nonzero(change > 0.01)),
            }
        )
    return out


def _superpixels(samples: Array, mosaic: Mosaic) -> Array:
    """(h, w) float64: the samples, of Bayer patterns sums of 2 x 2."""
    image = np.ascontiguousarray(samples, np.float64)
    if mosaic.cfa.is_mono:
        return image
    return np.ascontiguousarray(sum(image[r::2, c::2] for r in (0, 1) for c in (0, 1)))


def _sources(image: Array) -> tuple[Any, Array]:
    import sep

    background = sep.Background(image)
    found = sep.extract(image - background.back(), _SIGMA, err=background.globalrms, minarea=_AREA)
    return found, background.back()
