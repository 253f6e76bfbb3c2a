"""Training data: the mosaics marked `train`, and photographs turned back into raw.

Split by camera and by photograph, as frames.csv and photos.csv say; nothing
marked validate, measure or format is touched here.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from fixpix_cli import files
from fixpix_cli.cfa import BAYER, MONO, RGGB
from fixpix_cli.mosaic import Area, Assume, Mosaic


def mosaics(data: Path, use: str = "train") -> dict[str, list[Mosaic]]:
    """Mosaics by camera, active area only."""
    found: dict[str, list[Mosaic]] = {}
    with open(data / "frames.csv", newline="") as table:
        for row in csv.DictReader(table):
            if row["use"] != use or row["kind"] not in ("light", "astro-light") or row["file"].endswith(".fz"):
                continue
            cfa = {"RGGB": RGGB, "GRBG": BAYER[1], "mono": MONO}.get(row["cfa"].split()[0])
            black = tuple(float(x) for x in row["black"].split("/")) if row["black"][:1].isdigit() else None
            known = Assume(cfa, black, float(row["white"]) if row["white"] else None)
            mosaic = files.load(data / row["file"], known).mosaics[0].light()
            found.setdefault(row["camera"], []).append(mosaic)
    return found


def photographs(data: Path, use: str = "train") -> list[np.ndarray]:
    """(H, W, 3) uint8 sRGB photographs."""
    from PIL import Image

    with open(data / "photos.csv", newline="") as table:
        names = [row["file"] for row in csv.DictReader(table) if row["use"] == use]
    return [np.asarray(Image.open(data / name).convert("RGB")) for name in names]


def unprocess(photo: np.ndarray, rng: np.random.Generator) -> Mosaic:
    """A raw mosaic that could have given this photograph (Brooks et al., "Unprocessing Images", 2019).

    Inverse smoothstep tone curve and sRGB gamma, random colour matrix mixing,
    inverse white balance, exposure; CFA phase or mono; Poisson-Gaussian noise
    from clean to high ISO; 8 to 16 bits; black level; clipping.
    """
    x = photo.astype(np.float64) / 255
    if rng.random() < 0.7:
        x = 0.5 - np.sin(np.arcsin(np.clip(1 - 2 * x, -1, 1)) / 3)
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    mix = np.eye(3) * 0.7 + 0.1 + rng.uniform(-0.05, 0.05, (3, 3))
    linear = np.clip(linear @ (mix / mix.sum(axis=1, keepdims=True)).T, 0, 1)
    gains = np.array([rng.uniform(1.2, 2.6), 1.0, rng.uniform(1.2, 2.6)])
    linear = linear / gains * 10 ** rng.uniform(-1.0, 0.2)
    choice = int(rng.integers(0, 5))
    cfa = MONO if choice == 4 else BAYER[choice]
    height, width = linear.shape[:2]
    if cfa is MONO:
        plane = linear.mean(axis=2)
    else:
        plane = np.empty((height, width))
        for r, c in cfa.positions:
            plane[r::2, c::2] = linear[r::2, c::2, "RGB".index(cfa.colour(r, c))]
    bits = int(rng.integers(8, 17))
    black = float(rng.choice([0, 0, round(rng.uniform(0.005, 0.14) * 2**bits)]))
    white = float(2**bits - 1)
    shot, read = 10 ** rng.uniform(-5, -2.2), 10 ** rng.uniform(-4, -2.2)
    noisy = plane + rng.standard_normal(plane.shape) * np.sqrt(shot * plane + read**2)
    stored = np.clip(np.rint(black + noisy * (white - black)), 0, white)
    return Mosaic(stored.astype(np.uint8 if bits == 8 else np.uint16), cfa, ((black,),), white)


def crop(mosaic: Mosaic, size: int, rng: np.random.Generator) -> Mosaic:
    """A random square, its phase following."""
    height, width = mosaic.shape
    top, left = int(rng.integers(0, height - size + 1)), int(rng.integers(0, width - size + 1))
    return mosaic.cropped(Area(top, left, top + size, left + size))
