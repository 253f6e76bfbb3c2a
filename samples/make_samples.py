"""Make the sample frames: a simulated camera's darks, and lights as FITS, DNG and TIFF, with their truths.

python samples/make_samples.py
"""

from pathlib import Path

import numpy as np
import tifffile
from astropy.io import fits

from fixpix_cli import maps
from fixpix_cli.defects import DefectMap
from fixpix_cli.files.raw import write_dng
from fixpix_cli.mosaic import Conditions, Frame, Identity, Mosaic
from fixpix_cli.simulate import Sensor, landscape, stars

HERE = Path(__file__).parent
MODEL, SERIAL, EXPOSURE, TEMPERATURE = "fixpix Simulated 150k", "0001", 30.0, -5.0
DAYLIGHT = np.array([[0.75, -0.25, -0.05], [-0.45, 1.25, 0.22], [-0.08, 0.2, 0.6]])


def write_fits(path: Path, mosaic: Mosaic, kind: str, number: int) -> None:
    hdu = fits.PrimaryHDU(mosaic.samples)
    for key, value in {
        "INSTRUME": MODEL,
        "CAMSN": SERIAL,
        "IMAGETYP": kind,
        "EXPTIME": EXPOSURE,
        "CCD-TEMP": TEMPERATURE + 0.1 * (number % 3 - 1),
        "GAIN": 100,
        "BAYERPAT": mosaic.cfa.name,
        "ROWORDER": "TOP-DOWN",
        "DATE-OBS": f"2026-01-15T22:{number:02d}:00",
        "SATURATE": int(mosaic.white),
    }.items():
        hdu.header[key] = value
    hdu.writeto(path, overwrite=True, checksum=True)


def write_tiff(path: Path, mosaic: Mosaic) -> None:
    (a, b), (c, d) = mosaic.cfa.tile
    tags = [
        (271, 2, 0, "", True),
        (272, 2, 0, MODEL, True),
        (50735, 2, 0, SERIAL, True),
        (33421, 3, 2, (2, 2), True),
        (33422, 1, 4, bytes("RGB".index(x) for x in (a, b, c, d)), True),
        (50714, 3, 1, int(mosaic.black[0][0]), True),
        (50717, 3, 1, int(mosaic.white), True),
        (33434, 5, 1, (int(EXPOSURE), 1), True),
    ]
    tifffile.imwrite(
        path, mosaic.samples, compression="zlib", predictor=2, tile=(128, 128), metadata=None, extratags=tags[1:]
    )


def main() -> None:
    sensor = Sensor(seed=7)
    for folder in ("darks", "lights", "truth"):
        (HERE / folder).mkdir(exist_ok=True)
    for number in range(1, 7):
        dark = sensor.expose(None, EXPOSURE, TEMPERATURE, number)
        write_fits(HERE / "darks" / f"dark_{number:03d}.fits", dark, "Dark Frame", number)
    sky = sensor.expose(stars(sensor.shape, 3), EXPOSURE, TEMPERATURE, 20)
    write_fits(HERE / "lights" / "stars.fits", sky, "Light Frame", 20)
    hills = [sensor.expose(landscape(sensor.shape, n) / 12, EXPOSURE, TEMPERATURE, 30 + n) for n in (1, 2)]
    identity = Identity("", MODEL, SERIAL, sensor.shape, "RGGB")
    frame = Frame((hills[0],), HERE / "hills.dng", (0,), identity, Conditions(EXPOSURE, 100.0))
    write_dng(HERE / "lights" / "hills.dng", frame, hills[0].samples, DAYLIGHT, np.array([1.8, 1.0, 1.5]))
    write_tiff(HERE / "lights" / "valley.tif", hills[1])
    for stem in ("stars", "hills", "valley"):
        maps.write_mask(
            HERE / "truth" / f"{stem}.truth.fits", [DefectMap(sensor.truth)], row_order="TOP-DOWN", overwrite=True
        )


if __name__ == "__main__":
    main()
