"""Fit the tables of the classical detector on the training cameras.

    FIXPIX_DATA=... python models/train/rules.py

writes fixpix_cli/tables.py: for each stage of the detector the log-likelihood
ratio of bad against good at some values of the evidence t. Every training
camera weighs the same; native outliers are left out; the damage is our own
injection, relative and sensor kinds, d 0.3 to 0.9.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import rawpy
import tifffile

from fixpix_cli import classical, files, score
from fixpix_cli.cfa import RGGB
from fixpix_cli.inject import Injection, inject
from fixpix_cli.levels import levels
from fixpix_cli.mosaic import Area, Mosaic

_FAR = (3, 3.5, 4, 5, 6, 8, 11, 16, 24, 40)
EDGES = np.concatenate([[-1.0, -0.5, -0.2], np.arange(0.0, 1.0, 0.05), np.arange(1.0, 3.0, 0.125), _FAR])
#: stage -> damage rates at which it is used
STAGES = {
    "extreme": (3e-4, 1e-3),
    "light": (0.005, 0.02),
    "trimmed": (0.03, 0.2),
    "second": (0.03, 0.2),
    "third": (0.01, 0.2),
}
DAMAGE = [("relative", 0.3), ("relative", 0.6), ("relative", 0.9), ("sensor", 0.7)]


def cameras(data: Path) -> dict[str, list[Mosaic]]:
    """The training mosaics by camera; large frames are cut into a few crops."""
    found: dict[str, list[Mosaic]] = {"S40": []}
    for path in sorted((data / "raw").glob("canon_s40*.CRW"))[::2]:
        with rawpy.imread(str(path)) as raw:
            found["S40"].append(Mosaic(raw.raw_image_visible.copy(), RGGB, ((32.0,),), 1023.0))
    for name in ("gopro_hero7", "gopro_hero7black_a", "gopro_fusion_front"):
        frame = Mosaic(tifffile.imread(data / "mosaic" / f"{name}.tif"), RGGB, ((0.0,),), 16383.0)
        found[name] = [frame.cropped(Area(t, x, t + 1000, x + 2000)) for t, x in ((0, 0), (2000, 400))]
    frame = files.load(data / "dng" / "gopro_hero6_adobe_ljpeg.dng").mosaics[0]
    found["gopro_hero6"] = [frame.cropped(Area(t, x, t + 1000, x + 2000)) for t, x in ((0, 0), (2000, 400))]
    return found


def histograms(frames: list[Mosaic], stage: str) -> dict[str, np.ndarray]:
    """Counts of good and of bad pixels over EDGES."""
    counts = {what: np.zeros(len(EDGES) + 1) for what in ("good", "bad")}
    ratios = np.empty(0)
    for number, mosaic in enumerate(frames):
        native = score.native_outliers(mosaic)
        for rate in STAGES[stage]:
            for kind, delta in DAMAGE:
                spec = Injection(rate, delta, kind, seed=1000 * number + round(rate * 1e5))
                damage = inject(mosaic, spec, frame_key=f"{number} {delta}")
                bad = damage.dq != 0
                seen = levels(mosaic.with_samples(damage.samples))
                others = None
                path = classical.PATHS[rate >= classical.DENSE]
                for earlier in path[: path.index(stage)] if stage in path else ():
                    ratios = classical._ratios(seen, earlier, others, fallback=None if others is None else ratios)
                    others = classical.trusted(seen.samples, ratios)
                scores = np.full(mosaic.shape, np.nan, np.float32)
                for band, position, t in classical.scores(seen, stage, others):
                    band.put(scores, position, t)
                for what, chosen in (("good", ~bad & ~native), ("bad", bad)):
                    v = scores[chosen]
                    v = v[np.isfinite(v)]
                    counts[what] += np.bincount(np.searchsorted(EDGES, v), minlength=len(EDGES) + 1)
    return counts


def ratio(good: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Log-likelihood ratio at EDGES from counts between them, smoothed and made to rise with t."""
    kernel = np.array([0.25, 0.5, 0.25])
    g, b = (np.convolve(c, kernel, "same") for c in (good, bad))
    g, b = (g[1:] + g[:-1]) / 2, (b[1:] + b[:-1]) / 2
    r = np.log((b + 1e-7) / (g + 1e-7))
    weight = g + b + 1e-9
    for _ in range(len(r)):  # pool adjacent violators
        fall = np.flatnonzero(np.diff(r) < -1e-9)
        if not len(fall):
            break
        for i in fall:
            mean = (r[i] * weight[i] + r[i + 1] * weight[i + 1]) / (weight[i] + weight[i + 1])
            r[i] = r[i + 1] = mean
    return np.maximum.accumulate(np.clip(r, -12, 16))


def main() -> None:
    data = Path(os.environ.get("FIXPIX_DATA") or sys.exit("set FIXPIX_DATA to the data folder"))
    target = Path(classical.__file__).with_name("tables.py")
    mosaics = cameras(data)
    tables = {"edges": EDGES}
    for stage in STAGES:
        per_camera = [histograms(frames, stage) for frames in mosaics.values()]
        good, bad = (np.mean([c[what] / c[what].sum() for c in per_camera], axis=0) for what in ("good", "bad"))
        tables[stage] = np.where(EDGES < 0, np.minimum(ratio(good, bad), -3), ratio(good, bad))
        write(target, tables)
        classical.RULE_TABLES.update({key: tuple(map(float, value)) for key, value in tables.items()})
        print(stage, "fitted")


def write(target: Path, tables: dict[str, np.ndarray]) -> None:
    title = '"""Floor 1. Log-likelihood ratios of the classical detector; written by models/train/rules.py."""'
    lines = [title, "", "# fmt: off"]
    lines += ["RULE_TABLES: dict[str, tuple[float, ...]] = {"]
    for key, values in tables.items():
        lines.append(f'    "{key}": (')
        text = [f"{v:.4g}," for v in values]
        lines += ["        " + " ".join(text[i : i + 10]) for i in range(0, len(text), 10)]
        lines.append("    ),")
    target.write_text("\n".join([*lines, "}", ""]))


if __name__ == "__main__":
    main()
