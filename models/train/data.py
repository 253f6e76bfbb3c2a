"""Training data of the correctors: raw mosaics and photographs turned back into raw, damaged, as net input.

Which files may train is the column `use` of frames.csv and photos.csv; the split is by camera and photograph.
Damage is positions only (`fixpix_cli.inject.positions`): what a bad pixel holds never reaches the net.
"""

from __future__ import annotations

import contextlib
import csv
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import rawpy
import tifffile

from fixpix_cli.cfa import BAYER, GRBG, MONO, QUAD_RGGB, RGGB, XTRANS, Cfa
from fixpix_cli.inject import Injection, positions
from fixpix_cli.mosaic import Area, Mosaic
from fixpix_cli.normalise import windows
from fixpix_cli.simulate import Sensor, stars

RAW = (".crw", ".kdc", ".dng")
PATTERNS = {"RGGB": RGGB, "GRBG": GRBG, "mono": MONO, "GRBG or GBRG": GRBG}


def table(data: Path, name: str, use: str) -> list[dict[str, str]]:
    """The rows of frames.csv or photos.csv that are marked `use`."""
    with (data / name).open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["use"] == use]


def mosaic(data: Path, row: dict[str, str]) -> Mosaic:
    """One file of frames.csv as a mosaic without masked borders."""
    path = data / row["file"]
    if path.suffix.lower() in RAW:
        with rawpy.imread(str(path)) as raw:
            samples = raw.raw_image_visible.copy()
    elif ".fits" in path.name:
        samples = _fits(path)
    else:
        samples = tifffile.imread(path)
    black = float((row["black"] or "0").split("/")[0])
    white = float(row["white"]) if row["white"] else float((1 << int(samples.max()).bit_length()) - 1)
    return Mosaic(np.ascontiguousarray(samples), PATTERNS[row["cfa"]], ((black,),), white)


def _fits(path: Path) -> Any:
    from astropy.io import fits

    with fits.open(io.BytesIO(path.read_bytes())) as hdus:
        image = next(hdu for hdu in hdus if hdu.data is not None and hdu.data.ndim == 2)
        return np.asarray(image.data).astype(np.uint16)


def camera(row: dict[str, str]) -> str:
    return row["camera"].split(",")[0].split(" (")[0]


def frames(data: Path, use: str) -> list[tuple[str, str, Mosaic]]:
    """(camera, file, mosaic) of the light frames marked `use`."""
    rows = [row for row in table(data, "frames.csv", use) if "light" in row["kind"]]
    return [(camera(row), row["file"], mosaic(data, row)) for row in rows]


@dataclass(frozen=True, eq=False)
class Scene:
    """A mosaic, and its (H, W) samples without noise (of real frames: the samples themselves), DN."""

    mosaic: Mosaic
    clean: np.ndarray


def drawn_cfa(rng: np.random.Generator, others: float = 0.0) -> Cfa:
    """Mono or a Bayer phase; of the share `others`, X-Trans or (a quarter of them) Quad-Bayer in any phase."""
    if others and rng.random() < others:
        cfa = QUAD_RGGB if rng.random() < 0.25 else XTRANS
        return cfa.shifted(int(rng.integers(6)), int(rng.integers(6)))
    return MONO if rng.random() < 0.4 else BAYER[int(rng.integers(4))]


def unprocess(rgb: np.ndarray, rng: np.random.Generator, others: float = 0.0) -> Scene:
    """A raw mosaic from an sRGB photograph.

    Inverse sRGB curve, random blur, white balance, exposure and colour mixing; the CFA as `drawn_cfa` gives it;
    Poisson-Gaussian noise; sometimes a tone curve; 8 to 16 bits, black level, clipping.

    Parameters
    ----------
    rgb : (H, W, 3) uint8 array
    """
    x = rgb.astype(np.float32) / 255
    light = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    light = light[:: int(rng.choice([-1, 1])), :: int(rng.choice([-1, 1]))]
    if rng.random() < 0.5:
        light = _blur(light, float(rng.uniform(0.0, 0.25)))
    mix = np.eye(3) + rng.uniform(0, 0.35, (3, 3)) * (1 - np.eye(3))
    light = light @ (mix / mix.sum(axis=1, keepdims=True)).T.astype(np.float32)
    light /= np.array([rng.uniform(1.0, 2.8), 1.0, rng.uniform(1.0, 2.6)], np.float32)
    light *= np.exp(rng.uniform(np.log(0.08), np.log(1.6)))
    cfa = drawn_cfa(rng, others)
    return _expose(_sampled(light, cfa, rng), cfa, rng)


def _blur(light: np.ndarray, side: float) -> np.ndarray:
    for axis in (0, 1):
        light = (1 - 2 * side) * light + side * (np.roll(light, 1, axis) + np.roll(light, -1, axis))
    return light


def _sampled(light: np.ndarray, cfa: Cfa, rng: np.random.Generator) -> np.ndarray:
    if cfa.is_mono:
        return light @ rng.dirichlet((1, 1, 1))
    out, (down, across) = np.empty(light.shape[:2]), cfa.period
    for r, c in cfa.positions:
        out[r::down, c::across] = light[r::down, c::across, "RGB".index(cfa.colour(r, c))]
    return out


def _expose(light: np.ndarray, cfa: Cfa, rng: np.random.Generator) -> Scene:
    full = np.exp(rng.uniform(np.log(200), np.log(50_000)))
    read = np.exp(rng.uniform(np.log(0.5), np.log(8)))
    noisy = rng.poisson(np.maximum(light, 0) * full) / full + rng.standard_normal(light.shape) * read / full
    bits = int(rng.choice([8, 10, 10, 12, 12, 14, 14, 16]))
    white = float(2**bits - 1)
    black = float(np.round(white * rng.choice([0.0, rng.uniform(0, 0.15)])))
    gamma = float(rng.choice([1.0, 1.0, 1.0, rng.uniform(0.35, 0.8)]))
    stored, clean = (_coded(a, gamma, black, white) for a in (noisy, light))
    kind = np.uint8 if bits == 8 else np.uint16
    return Scene(Mosaic(np.rint(stored).astype(kind), cfa, ((black,),), white), clean.astype(np.float32))


def _coded(light: np.ndarray, gamma: float, black: float, white: float) -> np.ndarray:
    """Light (1 saturates) as DN, not yet rounded."""
    light = np.minimum(light, 1.0)
    if gamma != 1:
        light = np.maximum(light, 0.0) ** gamma
    return np.clip(light * (white - black) + black, 0, white)


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples for training, for windows of one radius.

    features : (N, windows.length(radius)) float32 or float16; target : (N,) float32, units: what the repair
    should be; stored : (N,) float32, units: the sample itself with its noise, which a sigma must cover (of
    real frames the same); scale : (N,) float32, from units to root mean square errors of the first estimate
    in the sample's crop.
    """

    features: np.ndarray
    target: np.ndarray
    stored: np.ndarray
    scale: np.ndarray


def sample(
    scene: Scene, spec: Injection, limit: int, radii: Sequence[int], rng: np.random.Generator
) -> list[Batch] | None:
    """Damage a scene and take up to `limit` of its bad pixels; None where the first estimate is perfect.

    The same pixels for every radius, in the same order.
    """
    bad = np.zeros(scene.mosaic.shape, bool)
    rows, cols = positions(scene.mosaic, spec)
    bad[rows, cols] = True
    filled = windows.fill(scene.mosaic, bad)
    if len(rows) > limit:
        chosen = np.sort(rng.choice(len(rows), limit, replace=False))
        rows, cols = rows[chosen], cols[chosen]
    encoded = [windows.encode(filled, rows, cols, radius) for radius in radii]
    seen = np.all([unit > 0 for _, unit in encoded], axis=0)
    first = filled.at(rows[seen], cols[seen])
    residual, stored = (a[rows[seen], cols[seen]] - first for a in (scene.clean, scene.mosaic.samples))
    if not len(residual):
        return None
    rms = float(np.sqrt(np.mean(np.minimum(residual**2, 25 * np.mean(residual**2)))))
    if not rms > 0:
        return None
    batches = []
    for features, unit in encoded:
        arrays = (residual / unit[seen], stored / unit[seen], unit[seen] / rms)
        batches.append(Batch(features[seen].astype(np.float16), *(a.astype(np.float32) for a in arrays)))
    return batches


class Scenes:
    """Crops without end of what may train (or, for choosing, validate): cameras, photographs, skies, darks.

    Parameters
    ----------
    data : Path
    use : ``train`` or ``validate``
    """

    def __init__(self, data: Path, use: str = "train") -> None:
        self.by_camera: dict[str, list[Mosaic]] = {}
        for name, _, frame in frames(data, use):
            self.by_camera.setdefault(name, []).append(frame)
        self.cameras = sorted(self.by_camera)
        self.photos = [data / row["file"] for row in table(data, "photos.csv", use)]

    def draw(self, rng: np.random.Generator, side: int, photo_share: float, others: float = 0.0) -> Scene:
        """A crop of at most side x side pixels that is not all one value.

        Parameters
        ----------
        photo_share : float
            Share of photographs turned into raw; the rest are camera frames.
        others : float
            Share of the photographs onto X-Trans and Quad-Bayer.
        """
        while True:
            if rng.random() < photo_share:
                photo = imagecodecs.imread(self.photos[int(rng.integers(len(self.photos)))])
                scene = unprocess(_part(photo[:, :, :3], side, rng), rng, others)
            else:
                mine = self.by_camera[self.cameras[int(rng.integers(len(self.cameras)))]]
                frame = mine[int(rng.integers(len(mine)))]
                scene = Scene(frame, frame.samples)
            scene = _crop(scene, side, rng)
            if np.ptp(scene.mosaic.samples) > 0:
                return scene


def made(side: int, rng: np.random.Generator, others: float = 0.0) -> Scene:
    """A simulated star field or dark frame of a sensor without defects; its CFA as `drawn_cfa` gives it."""
    shape = (side, side)
    cfa = drawn_cfa(rng, others)
    sensor = Sensor(
        shape=shape,
        cfa=cfa,
        seed=int(rng.integers(2**31)),
        defects=0.0,
        black=int(rng.choice([0, 64, 512, 1000, 2048])),
        white=int(rng.choice([4095, 16383, 65535])),
        gain=float(np.exp(rng.uniform(np.log(0.2), np.log(5)))),
        read_noise=float(np.exp(rng.uniform(np.log(1), np.log(15)))),
        dark_current=float(np.exp(rng.uniform(np.log(0.005), np.log(2)))),
    )
    exposure = float(np.exp(rng.uniform(np.log(1), np.log(300))))
    sky = None
    if rng.random() < 0.75:
        count = int(np.exp(rng.uniform(np.log(2), np.log(side * side / 60))))
        sky = stars(shape, int(rng.integers(2**31)), count, float(rng.uniform(1.3, 5))) * rng.uniform(0.2, 3)
    mosaic = sensor.expose(sky, exposure, float(rng.uniform(-20, 20)))
    if rng.random() < 0.3:
        mosaic = Mosaic(mosaic.samples, cfa, ((0.0,),), mosaic.white)  # a header that states no black level
    return Scene(mosaic, mosaic.samples)


def drawn_damage(table: Sequence[Sequence[Any]], rng: np.random.Generator) -> tuple[list[str], float]:
    """A line of a recipe's table, [share of the draws, words, lowest rate, highest rate]: its words, and a rate."""
    shares = np.array([line[0] for line in table])
    _, *words, low, high = table[int(rng.choice(len(table), p=shares / shares.sum()))]
    return words, float(np.exp(rng.uniform(np.log(low), np.log(high))))


def draws(data: Path, settings: dict[str, Any], seed: int, use: str = "train") -> Iterator[list[Batch]]:
    """Damaged crops without end, from cameras, photographs and simulated skies; one batch per radius."""
    rng = np.random.default_rng(seed)
    scenes = Scenes(data, use)
    while True:
        (pattern,), rate = drawn_damage(settings["damage"], rng)
        side = int(rng.choice(settings["sides"] if rate <= 0.03 else settings["sides_dense"]))
        if use == "train" and rng.random() < settings["sky_share"]:
            scene = made(min(side, 384), rng)
        else:
            scene = scenes.draw(rng, side, settings["photo_share"] if use == "train" else 1.0)
        spec = Injection(rate, pattern=pattern, seed=int(rng.integers(2**31)))
        batches = sample(scene, spec, settings["targets"], settings["radii"], rng)
        if batches is not None:
            yield batches


def _area(shape: tuple[int, ...], side: int, rng: np.random.Generator) -> Area:
    h, w = (min(side, n) for n in shape[:2])
    top, left = int(rng.integers(shape[0] - h + 1)), int(rng.integers(shape[1] - w + 1))
    return Area(top, left, top + h, left + w)


def _part(image: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    return image[_area(image.shape, side, rng).slices]


def _crop(scene: Scene, side: int, rng: np.random.Generator) -> Scene:
    area = _area(scene.mosaic.shape, side, rng)
    return Scene(scene.mosaic.cropped(area), scene.clean[area.slices])


def pool(data: Path, settings: dict[str, Any], seed: int, folder: Path, use: str = "train") -> None:
    """As many draws as the settings say, or as fit into their time, kept in `folder` for every radius.

    Of validation photographs (`use` = ``validate``) a twentieth as many. Features go to disk as they come: all
    radii together would not fit into memory.
    """
    started, found, count = time.monotonic(), [], 0
    share = 1.0 if use == "train" else 0.05
    folder.mkdir(parents=True, exist_ok=True)
    radii = settings["radii"]
    with contextlib.ExitStack() as files:
        parts = [files.enter_context((folder / f"{use}-{radius}.part").open("wb")) for radius in radii]
        for batches in draws(data, settings, seed, use):
            for part, batch in zip(parts, batches, strict=True):
                part.write(batch.features.tobytes())
            found.append([(b.target, b.stored, b.scale) for b in batches])
            count += 1
            if count % 100 == 0:
                print(f"drawn {count} crops, {time.monotonic() - started:.0f} s", flush=True)
            if count >= share * settings["draws"] or time.monotonic() - started > share * settings["seconds"]:
                break
    for number, radius in enumerate(radii):
        rest = [np.concatenate(arrays) for arrays in zip(*(batches[number] for batches in found), strict=True)]
        np.save(folder / f"{use}-{radius}.npy", np.stack(rest))
        (folder / f"{use}-{radius}.part").replace(folder / f"{use}-{radius}.features")


def stored_pool(folder: Path, use: str, radius: int) -> Batch:
    """What `pool` kept for one radius; the features stay on disk and are read as they are used."""
    features = np.memmap(folder / f"{use}-{radius}.features", np.float16, "r")
    return Batch(features.reshape(-1, windows.length(radius)), *np.load(folder / f"{use}-{radius}.npy"))
