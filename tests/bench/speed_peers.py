"""The other programs' command lines for the same two jobs: repair known pixels; find and repair."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import peers

_OPENCV = """
import cv2, numpy as np
image = cv2.imread("frame.tif", cv2.IMREAD_UNCHANGED)
rows, cols = np.load("known.npy").T
for r in (0, 1):
    for c in (0, 1):
        plane = np.ascontiguousarray(image[r::2, c::2])
        mine = (rows % 2 == r) & (cols % 2 == c)
        mask = np.zeros(plane.shape, np.uint8)
        mask[rows[mine] // 2, cols[mine] // 2] = 1
        image[r::2, c::2] = cv2.inpaint(plane, mask, 3, cv2.INPAINT_TELEA)
cv2.imwrite("opencv.tif", image, [cv2.IMWRITE_TIFF_COMPRESSION, 1])
"""
_OPENCV_FIND = """
import cv2, numpy as np
image = cv2.imread("frame.tif", cv2.IMREAD_UNCHANGED)
for r in (0, 1):
    for c in (0, 1):
        plane = np.ascontiguousarray(image[r::2, c::2])
        median = cv2.medianBlur(plane, 3)
        image[r::2, c::2] = np.where(cv2.absdiff(plane, median) > 200, median, plane)
cv2.imwrite("opencv.tif", image, [cv2.IMWRITE_TIFF_COMPRESSION, 1])
"""
_RAWPY = """
import warnings
import numpy as np, rawpy
warnings.simplefilter("ignore")
from rawpy import enhance
with rawpy.imread("frame.dng") as raw:
    bad = {bad}
    enhance.repair_bad_pixels(raw, bad)
    np.save("rawpy.npy", raw.raw_image)
"""
_ASTROSCRAPPY = """
import astroscrappy
from astropy.io import fits
data = fits.getdata("frame.fits").astype("float32")
_, clean = astroscrappy.detect_cosmics(data)
fits.writeto("astroscrappy.fits", clean.astype("uint16"), overwrite=True)
"""
_RAWTHERAPEE = "[RAW]\nHotPixelFilter=true\nDeadPixelFilter=true\n"

Commands = dict[str, list[str]]


def _script(place: Path, name: str, command: str) -> list[str]:
    lines = ["requires 1.0.0", "set16bits", "setext fits", "load frame", command, "save siril", ""]
    (place / name).write_text("\n".join(lines))
    return ["siril-cli", "-s", str(place / name), "-d", str(place)]


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def known(place: Path, kind: str) -> Commands:
    """Those that repair the pixels of a list in a frame of one kind."""
    found: Commands = {}
    if kind == "fits" and shutil.which("siril-cli"):
        found["Siril cosme_cfa"] = _script(place, "known.ssf", "cosme_cfa known.lst")
    if kind == "tif" and peers.has("cv2"):
        found["OpenCV inpaint"] = _python(_OPENCV)
    if kind == "dng" and shutil.which("dcraw"):
        found["dcraw -P"] = ["dcraw", "-P", "known.txt", "-D", "-4", "-T", "frame.dng"]
    if kind == "dng" and peers.has("cv2") and peers.has("rawpy"):
        found["rawpy.enhance"] = _python(_RAWPY.format(bad='np.load("known.npy")'))
    return found


def find(place: Path, slow: bool) -> Commands:
    """Those that find and repair bad pixels by themselves; `slow`: also those that take ten seconds and more."""
    found: Commands = {}
    if shutil.which("siril-cli"):
        sigma = peers.SIRIL_SIGMA
        found["Siril find_cosme_cfa"] = _script(place, "find.ssf", f"find_cosme_cfa {sigma} {sigma}")
    if peers.has("cv2"):
        found["OpenCV median"] = _python(_OPENCV_FIND)
    if peers.has("cv2") and peers.has("rawpy"):
        found["rawpy.enhance"] = _python(_RAWPY.format(bad='enhance.find_bad_pixels(["frame.dng"])'))
    if shutil.which("rawtherapee-cli"):
        (place / "filter.pp3").write_text(_RAWTHERAPEE)
        found["RawTherapee"] = [
            *("rawtherapee-cli", "-q", "-Y", "-o", "rt.tif", "-p", "filter.pp3", "-t", "-c", "frame.dng")
        ]
    if slow and peers.has("astroscrappy"):
        found["astroscrappy"] = _python(_ASTROSCRAPPY)
    return found


def missing() -> list[str]:
    """What is not installed."""
    wanted: dict[str, Callable[[], bool]] = {
        **{name: (lambda name=name: bool(shutil.which(name))) for name in ("siril-cli", "dcraw", "rawtherapee-cli")},
        **{name: (lambda name=name: peers.has(name)) for name in ("cv2", "rawpy", "astroscrappy")},
    }
    return [name for name, there in wanted.items() if not there()]
