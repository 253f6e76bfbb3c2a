"""The baselines: what others do to find and to repair bad pixels, on the same pixels as ours.

A finder answers ``find(mosaics) -> flags``, a repairer ``repair(mosaic, bad) -> samples``. Libraries and programs
that are not installed are missing from the dictionaries, and named by `missing`.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from fixpix_cli import repair
from fixpix_cli.cfa import Cfa
from fixpix_cli.mosaic import Array, Bool, Mosaic
from fixpix_cli.planes import bands
from fixpix_cli.score import plane_neighbours

Finder = Callable[[Sequence[Mosaic]], list[Bool]]


@dataclass(frozen=True)
class Peer:
    """One baseline: its function, and the CFAs it is made for."""

    call: Callable[..., Any]
    knows: Callable[[Cfa], bool] = lambda cfa: True


def _plain(cfa: Cfa) -> bool:
    return cfa.is_mono or cfa.is_bayer


# ---------------------------------------------------------------- rules


def _by_neighbours(mosaic: Mosaic, rule: Callable[[Array, Array], Array]) -> Bool:
    """Flags by a rule of (pixel, (8, ...) same-colour neighbours), both in DN above black."""
    light = mosaic.samples.astype(np.float32) - mosaic.black_frame()
    out = np.zeros(mosaic.shape, bool)
    for band in bands(light, mosaic.cfa, 6):
        for position in mosaic.cfa.positions:
            around = np.stack([band.view(position, o) for o in plane_neighbours(mosaic.cfa, position)])
            band.put(out, position, rule(band.view(position), around))
    return out


def _each(find: Callable[[Mosaic], Bool]) -> Finder:
    return lambda mosaics: [find(mosaic) for mosaic in mosaics]


def median_sigma(mosaic: Mosaic, sigmas: float = 5.0) -> Bool:
    """The NumPy/SciPy recipe on each colour plane: |x - median of 3 x 3| > 5 standard deviations of the difference.

    The standard deviation follows from the median absolute one, which the damage itself does not widen.
    """
    light = mosaic.samples.astype(np.float32)
    difference = np.zeros_like(light)
    for band in bands(light, mosaic.cfa, 6):
        for position in mosaic.cfa.positions:
            pixel = band.view(position)
            around = [band.view(position, o) for o in plane_neighbours(mosaic.cfa, position)]
            band.put(difference, position, pixel - np.median(np.stack([pixel, *around]), axis=0))
    out = np.zeros(mosaic.shape, bool)
    rows, cols = mosaic.cfa.period
    for r, c in mosaic.cfa.positions:
        plane = difference[r::rows, c::cols]
        spread = 1.4826 * np.median(np.abs(plane - np.median(plane)))
        out[r::rows, c::cols] = np.abs(plane) > sigmas * max(float(spread), 1.0)
    return out


def relative(mosaic: Mosaic, share: float = 0.3) -> Bool:
    """More than 30 % away from the median of the 8 same-colour neighbours."""

    def rule(pixel: Array, around: Array) -> Array:
        middle = np.median(around, axis=0)
        return np.abs(pixel - middle) > share * np.maximum(np.abs(middle), 1.0)

    return _by_neighbours(mosaic, rule)


def relative_extremum(mosaic: Mosaic, share: float = 0.3, least: float = 0.002) -> Bool:
    """Beyond the extremes of the 8 same-colour neighbours by more than their range, and by 30 % + 0.2 % of white."""
    floor = least * (mosaic.white - float(np.mean(mosaic.black)))

    def rule(pixel: Array, around: Array) -> Array:
        low, high = around.min(axis=0), around.max(axis=0)
        wide = high - low
        bright = pixel - high > np.maximum(wide, share * np.abs(high) + floor)
        return bright | (low - pixel > np.maximum(wide, share * np.abs(low) + floor))

    return _by_neighbours(mosaic, rule)


def pinto(mosaic: Mosaic) -> Bool:
    """Pinto's rule: the highest or the lowest of its 3 x 3 same-colour neighbourhood."""
    return _by_neighbours(mosaic, lambda pixel, around: (pixel > around.max(axis=0)) | (pixel < around.min(axis=0)))


# ---------------------------------------------------------------- libraries


def has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _enhance() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-image, for which it takes OpenCV instead
        from rawpy import enhance
    return enhance


def _rawpy_view(mosaic: Mosaic) -> SimpleNamespace:
    """What rawpy.enhance asks of a raw with a 2 x 2 pattern (of mono: four equal planes, as it has no mono)."""
    return SimpleNamespace(raw_pattern=np.zeros((2, 2)), raw_image_visible=mosaic.samples.astype(np.uint16))


def rawpy_find(mosaic: Mosaic) -> Bool:
    """rawpy.enhance's candidates of one frame, hot and dead called apart (together its uint16 difference wraps)."""
    enhance, raw = _enhance(), _rawpy_view(mosaic)
    threshold = max(int(raw.raw_image_visible.max()) // 150, 20)
    out = np.zeros(mosaic.shape, bool)
    for hot in (True, False):

        def candidate(values: Array, median: Array, hot: bool = hot) -> Any:
            # In floats: an unsigned median minus the threshold would wrap, too.
            return enhance._is_candidate(values.astype(np.float32), median.astype(np.float32), hot, not hot, threshold)

        for found in enhance._find_bad_pixel_candidates(raw, candidate):
            out[found[:, 0], found[:, 1]] = True
    return out


def rawpy_repair(mosaic: Mosaic, bad: Bool) -> Array:
    """rawpy.enhance.repair_bad_pixels on a Bayer plane."""
    raw = _rawpy_view(mosaic)
    _enhance()._repair_bad_pixels_bayer2x2(raw, np.argwhere(bad))
    return raw.raw_image_visible.astype(mosaic.samples.dtype)


def lacosmic(mosaic: Mosaic) -> Bool:
    """L.A.Cosmic by astroscrappy, with its defaults, the gain and read noise of the frame's noise model."""
    import astroscrappy

    from fixpix_cli.noise import NoiseModel

    noise = NoiseModel.of(mosaic)
    gain = 1 / max(noise.gain, 1e-3)
    mask, _ = astroscrappy.detect_cosmics(
        mosaic.samples.astype(np.float32) - mosaic.black_frame(),
        gain=gain,
        readnoise=float(np.sqrt(max(noise.offset, 1e-6)) * gain),
        satlevel=float(mosaic.white) * gain,
    )
    return np.asarray(mask, bool)


def opencv(mosaic: Mosaic, bad: Bool) -> Array:
    """OpenCV's inpainting (Telea, radius 3) on each plane of the 2 x 2 pattern, or on the mono plane."""
    import cv2

    out = mosaic.samples.copy()
    rows, cols = mosaic.cfa.period
    for r, c in mosaic.cfa.positions:
        plane = np.ascontiguousarray(out[r::rows, c::cols])
        kind = np.uint8 if plane.dtype == np.uint8 else np.uint16
        mask = np.ascontiguousarray(bad[r::rows, c::cols]).astype(np.uint8)
        filled = cv2.inpaint(plane.astype(kind), mask, 3, cv2.INPAINT_TELEA)
        out[r::rows, c::cols] = np.where(mask != 0, filled, plane)
    return out


# ---------------------------------------------------------------- Siril, as a process of its own


def _siril(mosaics: Sequence[Mosaic], commands: Callable[[int], str]) -> list[Array]:
    """Run Siril once over some frames; `commands(n)` is what it does to frame n."""
    from astropy.io import fits

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = ["requires 1.0.0", "set16bits", "setext fits"]
        for n, mosaic in enumerate(mosaics):
            fits.PrimaryHDU(mosaic.samples.astype(np.uint16)).writeto(folder / f"in{n}.fits")
            lines += [f"load in{n}", commands(n), f"save out{n}"]
        (folder / "run.ssf").write_text("\n".join([*lines, ""]))
        command = ["siril-cli", "-s", str(folder / "run.ssf"), "-d", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not (folder / f"out{len(mosaics) - 1}.fits").exists():
            raise RuntimeError(f"siril-cli failed: {done.stdout[-400:]}")
        return [fits.getdata(folder / f"out{n}.fits") for n in range(len(mosaics))]


#: Sigmas of Siril's cold and hot test: those that its window offers.
SIRIL_SIGMA = 3


def siril_find(mosaics: Sequence[Mosaic]) -> list[Bool]:
    """The pixels that find_cosme_cfa (mono: find_cosme) changes."""
    verb = "find_cosme" if mosaics[0].cfa.is_mono else "find_cosme_cfa"
    found = _siril(mosaics, lambda n: f"{verb} {SIRIL_SIGMA} {SIRIL_SIGMA}")
    return [np.asarray(a != m.samples) for a, m in zip(found, mosaics, strict=True)]


def siril_repair(mosaic: Mosaic, bad: Bool) -> Array:
    """Siril's cosme_cfa (mono: cosme) with the list of bad pixels; its rows count from the bottom."""
    with tempfile.NamedTemporaryFile("w", suffix=".lst") as file:
        file.writelines(f"P {col} {len(bad) - 1 - row}\n" for row, col in np.argwhere(bad))
        file.flush()
        verb = "cosme" if mosaic.cfa.is_mono else "cosme_cfa"
        samples = _siril([mosaic], lambda n: f"{verb} {file.name}")[0]
    return np.asarray(np.where(bad, samples, mosaic.samples).astype(mosaic.samples.dtype))


# ---------------------------------------------------------------- who is there


def nearest(mosaic: Mosaic, bad: Bool) -> Array:
    """The nearest good same-colour pixel; among equally near ones the first in row order."""
    good = repair.usable(mosaic, bad)
    rows, cols = np.nonzero(bad)
    values = np.full(len(rows), np.nan)
    for position, index in repair.by_position(mosaic, rows, cols):
        for dr, dc in mosaic.cfa.nearest(*position, 24):
            r, c = rows[index] + dr, cols[index] + dc
            inside = np.isnan(values[index]) & (r >= 0) & (r < bad.shape[0]) & (c >= 0) & (c < bad.shape[1])
            inside[inside] = good[r[inside], c[inside]]
            values[index[inside]] = mosaic.samples[r[inside], c[inside]]
    return values


def _ours(corrector: repair.Corrector) -> Callable[[Mosaic, Bool], Array]:
    return lambda mosaic, bad: repair.repair(mosaic, bad, corrector)


@cache
def _paper() -> Any:
    """The FixPix paper's own MLP, trained on our data, which sees no mask; None where it is not there."""
    from fixpix_cli.nets import registry

    if not any((registry.folder() / "reference").glob("paper-mlp-*.onnx")):
        return None
    from fixpix_cli.nets.references import PaperMlp

    return PaperMlp.open()


def finders() -> dict[str, Peer]:
    """Name -> detection baseline, of those that are installed."""
    found = {
        "median3 + 5 sigma": Peer(_each(median_sigma)),
        "relative": Peer(_each(relative)),
        "relative + extremum": Peer(_each(relative_extremum)),
        "Pinto 3 x 3": Peer(_each(pinto)),
    }
    if has("cv2"):
        found["rawpy"] = Peer(_each(rawpy_find), lambda cfa: cfa.is_bayer)
    if shutil.which("siril-cli"):
        found["Siril"] = Peer(siril_find, _plain)
    if has("astroscrappy"):
        found["L.A.Cosmic"] = Peer(_each(lacosmic), lambda cfa: cfa.is_mono)
    return found


def repairers() -> dict[str, Peer]:
    """Name -> repair baseline, of those that are installed."""
    found = {
        "nearest": Peer(_ours(nearest)),
        "linear": Peer(_ours(repair.linear)),
        "median": Peer(_ours(repair.median)),
        "gradient": Peer(_ours(repair.gradient)),
        "least squares": Peer(_ours(repair.least_squares)),
    }
    if _paper() is not None:
        found["paper's MLP"] = Peer(_ours(lambda mosaic, bad: _paper()(mosaic, bad)), _plain)
    if has("cv2"):
        found["OpenCV"] = Peer(opencv, _plain)
        found["rawpy"] = Peer(rawpy_repair, lambda cfa: cfa.is_bayer)
    if shutil.which("siril-cli"):
        found["Siril"] = Peer(siril_repair, _plain)
    return found


def missing() -> list[str]:
    """The baselines that are not installed, with what they need."""
    wanted = {"cv2": "OpenCV and rawpy.enhance (opencv-python-headless)", "astroscrappy": "L.A.Cosmic (astroscrappy)"}
    absent = [what for module, what in {**wanted, "sep": "star photometry (sep)"}.items() if not has(module)]
    absent += [] if _paper() is not None else ["the paper's MLP (models/reference/paper-mlp-*.onnx)"]
    return absent + ([] if shutil.which("siril-cli") else ["Siril (the program siril-cli)"])
