"""What a command loads before and while it works. Lost otherwise: a repair of a tenth of a second begins with a second
of imports."""

import ast
import json
import os
import subprocess
import sys

import pytest
from conftest import textured, write_fits

from fixpix_cli import maps
from fixpix_cli.cfa import RGGB
from fixpix_cli.defects import DefectMap

HEAVY = (
    "astropy", "imagecodecs", "matplotlib", "multiprocessing", "onnxruntime", "pydantic", "rawpy", "rich", "tifffile",
)  # fmt: skip


def loaded(arguments, cwd):
    """Top-level modules that a command has loaded when it ends."""
    code = (
        "import sys\n"
        "from fixpix_cli.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as done:\n    assert not done.code, done.code\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=True,
        env={**os.environ, "FIXPIX_STORE": str(cwd / "store")}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return set(ast.literal_eval(done.stdout.splitlines()[-1])), done.stdout


def test_help_loads_no_library_of_arrays_or_files(tmp_path):
    found, _ = loaded(["--version"], tmp_path)
    assert not found & {*HEAVY, "numpy"}


@pytest.fixture
def plain(tmp_path):
    """A frame as FITS, TIFF and DNG without compression, and a mask."""
    from tifffile import imwrite

    samples = textured(RGGB, (96, 120)).samples
    write_fits(tmp_path / "a.fits", samples, BAYERPAT="RGGB")
    imwrite(tmp_path / "a.tif", samples, photometric="minisblack")
    tags = [(50706, 1, 4, b"\1\4\0\0", True), (33421, 3, 2, (2, 2), True), (33422, 1, 4, b"\0\1\1\2", True)]
    imwrite(tmp_path / "a.dng", samples, photometric=32803, extratags=tags, rowsperstrip=32)
    bad = samples != samples
    bad[20, 30] = bad[50, 61] = bad[95, 119] = True
    maps.write_mask(tmp_path / "a.mask.fits", [DefectMap.of(bad)])
    return tmp_path


@pytest.mark.parametrize("name", ["a.fits", "a.tif", "a.dng"])
def test_a_plain_frame_with_a_known_map_needs_numpy_alone(plain, name):
    found, said = loaded(["correct", name, "--map", "a.mask.fits", "--json"], plain)
    frame = json.loads(said.splitlines()[0])
    assert frame["status"] == "done" and frame["defects"] == 3 and frame["method"] == "mlp"
    assert "numpy" in found and not found & set(HEAVY)


def test_one_frame_alone_and_in_a_batch_come_out_the_same(plain, run):
    """The one is repaired in the leading process, the other in a worker."""
    for name in ("a.fits", "a.tif", "a.dng"):
        assert run("correct", name, "--map", "a.mask.fits", "--out", "alone")[0] == 0
    assert run("correct", "a.fits", "a.tif", "a.dng", "--map", "a.mask.fits", "--out", "together")[0] == 0
    for name in ("a.fits", "a.tif", "a.dng"):
        alone = (plain / "alone" / name).read_bytes()
        assert alone == (plain / "together" / name).read_bytes() and alone != (plain / name).read_bytes()


def test_a_frame_that_needs_more_memory_than_it_may_take_is_tried_in_a_worker_and_then_fails_by_name(plain, run):
    """Lost otherwise: the run ends with a traceback instead of the frame's error."""
    code, _, err = run("correct", "a.fits", "--map", "a.mask.fits", "--max-memory", "200M")
    assert code == 0, err
    import numpy as np

    write_fits(plain / "big.fits", np.zeros((9000, 9000), np.float64))
    code, _, err = run("correct", "big.fits", "--map", "a.mask.fits", "--max-memory", "200M")
    assert code == 1 and "big.fits" in err and "memory" in err
