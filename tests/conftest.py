"""Shared by the tests: where the measuring data lies, scenes, and running the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fixpix_cli.cfa import RGGB
from fixpix_cli.mosaic import Mosaic

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ["FIXPIX_DATA"]) if os.environ.get("FIXPIX_DATA") else None


def pytest_collection_modifyitems(items):
    """Tests marked `data` are left out where the measuring data is not at hand."""
    if DATA is None or not DATA.is_dir():
        for item in items:
            if item.get_closest_marker("data"):
                item.add_marker(pytest.mark.skip(reason="FIXPIX_DATA is not set"))


@pytest.fixture
def data():
    """The folder of the measuring data; without it the test is skipped."""
    if DATA is None:
        pytest.skip("FIXPIX_DATA is not set")
    return DATA


def scene(cfa=RGGB, shape=(120, 160), seed=0, black=200.0, white=16383.0, noise=8.0):
    """A smooth coloured scene with noise, as a mosaic."""
    from fixpix_cli.simulate import landscape

    rng = np.random.default_rng(seed)
    base = landscape(shape, seed)
    tint = {colour: 0.5 + 0.5 * n / 3 for n, colour in enumerate("LRGBCMYW")}
    image = np.empty(shape)
    for r, c in cfa.positions:
        image[r :: cfa.period[0], c :: cfa.period[1]] = (
            base[r :: cfa.period[0], c :: cfa.period[1]] * tint[cfa.colour(r, c)]
        )
    dn = black + image + noise * rng.standard_normal(shape)
    return Mosaic(np.clip(np.rint(dn), 0, white).astype(np.uint16), cfa, ((black,),), white)


@pytest.fixture
def run(tmp_path):
    """Run the real command in a folder of its own; returns (exit code, stdout, stderr)."""

    def call(*arguments, cwd=tmp_path, **environment):
        env = {**os.environ, "FIXPIX_STORE": str(tmp_path / "store"), **environment}
        done = subprocess.run(
            [sys.executable, "-m", "fixpix_cli", *map(str, arguments)],
            cwd=cwd, env=env, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    return call


def json_lines(text):
    """The records and the summary of a --json run."""
    lines = [json.loads(line) for line in text.splitlines()]
    return lines[:-1], lines[-1]["summary"]


def write_fits(path, samples, **cards):
    """A FITS file as cameras write it."""
    from astropy.io import fits

    hdu = fits.PrimaryHDU(samples)
    for key, value in cards.items():
        hdu.header[key.replace("_", "-")] = value
    hdu.writeto(path, overwrite=True)
    return path


def textured(cfa, shape=(96, 120), seed=0):
    """A smooth, gently textured scene with weak noise behind a CFA; uint16, black 500, white 16383."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    light = 3000 + 1500 * np.sin(x / 3.1 + y / 9) + 900 * np.cos(y / 4.3) + 8 * x
    gain = {"R": 0.6, "G": 1.0, "B": 0.45, "L": 1.0}
    table = np.array([[gain[c] for c in row] for row in cfa.tile])
    repeats = (shape[0] // table.shape[0] + 1, shape[1] // table.shape[1] + 1)
    gains = np.tile(table, repeats)[: shape[0], : shape[1]]
    samples = np.rint(500 + light * gains + rng.normal(0, 8, shape)).astype(np.uint16)
    return Mosaic(samples, cfa, ((500.0,),), 16383.0)
