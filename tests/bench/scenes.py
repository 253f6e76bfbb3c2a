"""What the bench measures on: validation cameras, and validation photographs turned back into raw.

The readers of `frames.csv` are those of the training (models/train/data.py); a photograph becomes a raw by fixpix's
own simulator, behind sensors and colour filters that no camera of the data folder has.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import imagecodecs
import numpy as np

from fixpix_cli import score
from fixpix_cli.cfa import BAYER, MONO, XTRANS, Cfa
from fixpix_cli.mosaic import Area, Array, Bool, Mosaic
from fixpix_cli.noise import NoiseModel
from fixpix_cli.simulate import Sensor

sys.path.append(str(Path(__file__).resolve().parents[2] / "models" / "train"))
import data as tables

#: Large frames are measured on their central part, of this side in pixels.
SIDE = 800
#: white, black (DN), electrons per DN, read noise (DN), exposure (1: white of the photograph saturates green), and
#: what a pixel receives of each of its neighbours' light (the lens; half of the sensors see photographs as sharp as
#: they are, as the training does)
SENSORS = (
    (16383, 512, 2.0, 4.0, 0.6, 0.0),
    (4095, 256, 0.5, 3.0, 1.8, 0.15),
    (1023, 64, 4.0, 1.0, 0.9, 0.2),
    (65535, 1000, 0.8, 12.0, 0.3, 0.0),
)
#: Relative standard deviation of the simulated pixels' response, which no repair can foresee either.
SPREAD = 0.01
PHOTOS = {"photos, Bayer": (BAYER, 8), "photos, mono": ((MONO,), 4), "photos, X-Trans": ((XTRANS,), 4)}


@dataclass(frozen=True, eq=False)
class Shot:
    """One undamaged frame.

    Parameters
    ----------
    camera : str
        Frames of one camera are one line of every table.
    name : str
    mosaic : Mosaic
        Without masked borders, even numbers of rows and columns.
    made_with : NoiseModel, optional
        The noise of a made frame; that of a real one is estimated.
    """

    camera: str
    name: str
    mosaic: Mosaic
    made_with: NoiseModel | None = None

    @cached_property
    def _noise(self) -> NoiseModel:
        return self.made_with or NoiseModel.of(self.mosaic)

    def variance(self, signal: Array) -> Array:
        """Noise variance in DN^2 at a signal in DN above black; of made frames with their spread of response."""
        return self._noise.sigma(signal) ** 2 + (0.0 if self.made_with is None else (SPREAD * signal) ** 2)

    @cached_property
    def native(self) -> Bool:
        """(H, W) bool: pixels that stand out by themselves and count for nothing."""
        return score.native_outliers(self.mosaic)

    @property
    def megapixels(self) -> float:
        return self.mosaic.samples.size / 1e6

    def centre(self, side: int) -> Shot:
        """The central side x side pixels, or what there is of them, with the same CFA phase."""
        (height, width), period = self.mosaic.shape, self.mosaic.cfa.period
        top, left = (max(0, n - side) // 2 // p * p for n, p in zip((height, width), period, strict=True))
        area = Area(top, left, *(start + min(n, side) // 2 * 2 for start, n in ((top, height), (left, width))))
        return replace(self, mosaic=self.mosaic.cropped(area))


def cameras(folder: Path, quick: bool = False) -> list[Shot]:
    """Up to two light frames of every validation camera (quick: one, smaller)."""
    found: list[Shot] = []
    for camera, name, mosaic in tables.frames(folder, "validate"):
        if sum(shot.camera == camera for shot in found) < (1 if quick else 2):
            found.append(Shot(camera, name, mosaic).centre(SIDE // 2 if quick else SIDE))
    return found


def photographs(folder: Path) -> list[tuple[str, Array]]:
    """Name and (H, W, 3) uint8 samples of the validation photographs."""
    return [
        (row["file"], imagecodecs.imread(folder / row["file"])[:, :, :3])
        for row in tables.table(folder, "photos.csv", "validate")
    ]


def from_photographs(folder: Path, quick: bool = False) -> list[Shot]:
    """Photographs behind every Bayer phase, mono and X-Trans, and behind sensors from clean to noisy."""
    photos, found = photographs(folder), []
    for camera, (patterns, count) in PHOTOS.items():
        for number in range(count // 2 if quick else count):
            name, rgb = photos[(7 * len(found) + 3) % len(photos)]
            sensor = SENSORS[(number + number // len(SENSORS)) % len(SENSORS)]
            raw = unprocessed(rgb, patterns[number % len(patterns)], sensor, seed=len(found))
            noise = NoiseModel(1 / sensor[2], sensor[3] ** 2 + 1 / 12)
            found.append(Shot(camera, f"{name} {number}", raw, noise).centre(SIDE // 2 if quick else SIDE))
    return found


def colour_planes(folder: Path, quick: bool = False) -> list[Shot]:
    """The R, G and B planes of photographs, each as a mono frame of 8 bits."""
    return [
        Shot("photos, RGB planes", f"{name} {'RGB'[plane]}", Mosaic(rgb[:, :, plane].copy(), MONO, white=255.0))
        for number, (name, rgb) in enumerate(photographs(folder)[1 :: 16 if quick else 6])
        for plane in ([number % 3] if quick else range(3))
    ]


def unprocessed(rgb: Array, cfa: Cfa, sensor: tuple[float, ...], seed: int) -> Mosaic:
    """A raw mosaic of a photograph.

    Parameters
    ----------
    rgb : (H, W, 3) uint8 array
        sRGB.
    cfa : Cfa
        Mono takes the green plane.
    sensor : one of `SENSORS`
    seed : int
        Of the noise, and of the sensor's small differences between pixels.
    """
    white, black, gain, read, exposure, blur = sensor
    x = rgb / 255.0
    light = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    for axis in (0, 1):
        light = (1 - 2 * blur) * light + blur * (np.roll(light, 1, axis) + np.roll(light, -1, axis))
    scene = np.empty(light.shape[:2])
    rows, cols = cfa.period
    for r, c in cfa.positions:
        scene[r::rows, c::cols] = light[r::rows, c::cols, "RGB".find(cfa.colour(r, c).replace("L", "G"))]
    made = Sensor(scene.shape, cfa, seed, defects=0.0, black=int(black), white=int(white), gain=gain, read_noise=read)
    return made.expose(scene * (white - black), exposure)


#: The real sequence of one field: nobody knows all of its camera's own hot pixels.
NIGHT = "MicroObservatory, one night"


def isolated(shots: Sequence[Shot]) -> Bool:
    """Pixels that stand out, alone and on the same place, in most of some undamaged frames whose scene moves.

    The median over the frames of a pixel's excess over its 8 neighbours of one colour passes over what the moving sky
    brings; it must exceed 5 sigma of one frame, and ten times that of the second least of the direct neighbours, which
    share a star's light. An outermost row or column that stands off from the next one ten times as far as rows and
    columns do elsewhere is one whole defect. Mono only.
    """
    around = [(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if r or c]
    excesses = []
    for shot in shots:
        samples = shot.mosaic.samples.astype(np.float64)
        excesses.append(samples - np.median([_moved(samples, *offset) for offset in around], axis=0))
    staying = np.median(excesses, axis=0)
    sigma = 1.4826 * np.median(np.abs(np.array(excesses) - staying))
    beside = np.sort([_moved(staying, *offset) for offset in around if 0 in offset], axis=0)[1]
    found = (staying > 5 * sigma) & (beside < 0.1 * staying)
    middle = np.median([shot.mosaic.samples for shot in shots], axis=0)
    for axis, turned in ((1, found), (0, found.T)):
        steps = np.abs(np.diff(np.median(middle, axis=axis)))
        for edge in (0, -1):
            turned[edge] |= steps[edge] > 10 * np.median(steps)
    return found


def _moved(image: Array, row: int, col: int) -> Array:
    """The image as seen from its neighbour at (row, col); edges are repeated."""
    padded = np.pad(image, 1, mode="edge")
    return padded[1 + row : 1 + row + image.shape[0], 1 + col : 1 + col + image.shape[1]]


def sequences(folder: Path, quick: bool = False) -> dict[str, list[Shot]]:
    """Frames of one camera with another scene in each, and the real sequences; all frames of one have one shape."""
    from fixpix_cli import files

    photos = [(name, rgb) for name, rgb in photographs(folder) if min(rgb.shape[:2]) >= 500]
    mirrored = [(f"{name}, mirrored", rgb[:, ::-1]) for name, rgb in photos]
    found = {
        "photos, Bayer": [
            Shot("photos, Bayer", name, unprocessed(rgb, BAYER[0], SENSORS[0], seed=7)).centre(500)
            for name, rgb in (photos + mirrored)[:30]
        ],
        "photos, mono": [
            Shot("photos, mono", name, unprocessed(rgb, MONO, SENSORS[1], seed=8)).centre(500)
            for name, rgb in photos[:9]
        ],
    }
    for camera in ("Canon EOS Kiss X4", "openISP test sensor"):
        mosaic = next(m for name, _, m in tables.frames(folder, "validate") if name == camera)
        found[f"{camera}, crops"] = [Shot(camera, f"crop {n}", crop) for n, crop in enumerate(_crops(mosaic, 9, 500))]
    bands = [m for name, _, m in tables.frames(folder, "validate") if name == "MicaSense RedEdge"]
    found["MicaSense RedEdge, 5 bands"] = [Shot("MicaSense RedEdge", f"band {n}", m) for n, m in enumerate(bands)]
    rows = [row for row in tables.table(folder, "frames.csv", "measure") if row["camera"].startswith("MicroObs")]
    found[NIGHT] = [
        Shot("MicroObservatory", row["file"], files.load(folder / row["file"]).mosaics[0].light()) for row in rows[:9]
    ]
    if quick:
        found = {name: [shot.centre(300) for shot in shots] for name, shots in found.items()}
    return found


def _crops(mosaic: Mosaic, count: int, side: int) -> list[Mosaic]:
    """`count` square parts spread over a frame, at even places, so that all have its CFA phase."""
    across = int(np.ceil(np.sqrt(count)))
    tops, lefts = ((np.linspace(0, n - side, across) // 2 * 2).astype(int) for n in mosaic.shape)
    return [mosaic.cropped(Area(t, x, t + side, x + side)) for t in tops for x in lefts][:count]
