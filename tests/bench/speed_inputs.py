"""What the speed bench measures on: one made scene as FITS, TIFF, DNG, with masks in everybody's spelling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from astropy.io import fits

from fixpix_cli import maps
from fixpix_cli.cfa import RGGB
from fixpix_cli.defects import DefectMap
from fixpix_cli.files.raw import write_dng
from fixpix_cli.mosaic import Array, Bool, Conditions, Frame, Identity, Mosaic

#: XYZ to camera, for programs that insist on developing a DNG.
_MATRIX = np.array([[0.9, -0.3, -0.1], [-0.4, 1.2, 0.2], [0.0, 0.1, 0.7]])


def scene(megapixels: float) -> Array:
    """(H, W) uint16, 3:2, even sides: smooth light and noise, 12 bits in use."""
    rows = round((megapixels * 1e6 / 1.5) ** 0.5 / 2) * 2
    cols = round(megapixels * 1e6 / rows / 2) * 2
    y, x = np.arange(rows, dtype=np.float32)[:, None], np.arange(cols, dtype=np.float32)
    light = 2000 + 800 * np.sin(x / 300) + 500 * np.cos(y / 200)
    light += 30 * np.random.default_rng(0).standard_normal((rows, cols), np.float32)
    return light.astype(np.uint16)


def damage(shape: tuple[int, int], rate: float) -> Bool:
    """(H, W) bool: scattered bad pixels, at least one."""
    bad = np.zeros(shape, bool)
    count = max(1, round(rate * bad.size))
    bad.reshape(-1)[np.random.default_rng(1).choice(bad.size, count, replace=False)] = True
    return bad


def hurt(samples: Array, bad: Bool) -> None:
    """Put any value of 12 bits into the bad pixels, in place."""
    samples[bad] = np.random.default_rng(2).integers(0, 4096, np.count_nonzero(bad), samples.dtype)


def write_fits(path: Path, samples: Array) -> None:
    """A plain FITS frame."""
    hdu = fits.PrimaryHDU(samples)
    hdu.header["BAYERPAT"] = "RGGB"
    hdu.writeto(path, overwrite=True)


def write_tiff(path: Path, samples: Array) -> None:
    """A plain TIFF."""
    tifffile.imwrite(path, samples, photometric="minisblack")


def write_plain_dng(path: Path, samples: Array) -> None:
    """A DNG without compression."""
    matrix = [n for value in _MATRIX.reshape(-1) for n in (round(value * 10000), 10000)]
    tags = [
        (50706, 1, 4, b"\1\4\0\0", True),
        (50707, 1, 4, b"\1\1\0\0", True),
        (50708, 2, 0, "bench", True),
        (271, 2, 0, "bench", True),
        (272, 2, 0, "bench", True),
        (33421, 3, 2, (2, 2), True),
        (33422, 1, 4, b"\0\1\1\2", True),
        (50710, 1, 3, b"\0\1\2", True),
        (50714, 5, 1, (0, 1), True),
        (50717, 4, 1, 4095, True),
        (50721, 10, 9, matrix, True),
        (50778, 3, 1, 21, True),
    ]
    tifffile.imwrite(path, samples, photometric=32803, extratags=tags, rowsperstrip=samples.shape[0])


def write_ljpeg_dng(path: Path, samples: Array) -> None:
    """A DNG with tiles of lossless JPEG, as fixpix itself writes raws."""
    mosaic = Mosaic(samples, RGGB, white=4095.0)
    frame = Frame((mosaic,), path, (0,), Identity("bench", "bench", shape=mosaic.shape), Conditions(1.0, 100.0))
    write_dng(path, frame, samples, _MATRIX, np.array([1.0, 1.0, 1.0]))


WRITERS = {"fits": write_fits, "tif": write_tiff, "dng": write_plain_dng, "ljpeg.dng": write_ljpeg_dng}


def write_masks(place: Path, bad: Bool, name: str) -> None:
    """The bad pixels for fixpix (.fits), Siril (.lst, rows from the bottom) and dcraw (.txt, column row time)."""
    maps.write_mask(place / f"{name}.mask.fits", [DefectMap.of(bad)], overwrite=True)
    rows, cols = np.nonzero(bad)
    if len(rows) > 100_000:
        return
    siril = (f"P {col} {len(bad) - 1 - row}\n" for row, col in zip(rows, cols, strict=True))
    (place / f"{name}.lst").write_text("".join(siril))
    (place / f"{name}.txt").write_text("".join(f"{col} {row} 0\n" for row, col in zip(rows, cols, strict=True)))
    np.save(place / f"{name}.npy", np.stack([rows, cols], axis=1))
