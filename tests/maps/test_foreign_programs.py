"""The real programs repair exactly the pixels of the lists that we export: rows, columns, margins are right."""

import os
import shutil
import subprocess

import numpy as np
import pytest
from conftest import ROOT, scene, write_fits

from fixpix_cli import files, maps
from fixpix_cli.cfa import MONO
from fixpix_cli.defects import DQ, DefectMap
from fixpix_cli.jobs.exchanging import Wanted, export_map, import_map
from fixpix_cli.maps import foreign
from fixpix_cli.mosaic import Edit

siril = pytest.mark.skipif(shutil.which("siril-cli") is None, reason="siril-cli is not installed")
dcraw = pytest.mark.skipif(shutil.which("dcraw") is None, reason="dcraw is not installed")
rawtherapee = pytest.mark.skipif(shutil.which("rawtherapee-cli") is None, reason="rawtherapee-cli is not installed")
DNG = ROOT / "samples/lights/hills.dng"


def call(folder, *command, **environment):
    """Run a program; its bytes on stdout."""
    env = {**os.environ, "HOME": str(folder), **environment}
    done = subprocess.run(list(map(str, command)), cwd=folder, env=env, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")[-2000:]
    return done.stdout


def some_bad(shape, seed=0):
    """Scattered bad pixels, none of which a median of 5 x 5 is made of, and all four corners."""
    rng = np.random.default_rng(seed)
    bad = np.zeros(shape, bool)
    bad[6:-6:12, 6:-6:12] = rng.random(bad[6:-6:12, 6:-6:12].shape) < 0.6
    bad[0, 0] = bad[0, -1] = bad[-1, 0] = bad[-1, -1] = True
    return bad


def siril_run(folder, *lines):
    (folder / "run.ssf").write_text("\n".join(["requires 1.0.0", "set16bits", "setext fits", *lines, ""]))
    call(folder, "siril-cli", "-s", folder / "run.ssf", "-d", folder)


@siril
@pytest.mark.parametrize("kind", ["", "TOP-DOWN", "BOTTOM-UP", "tif"])
def test_siril_repairs_the_listed_pixels_and_none_other(tmp_path, kind):
    import tifffile
    from astropy.io import fits

    samples = scene(MONO, shape=(61, 84)).samples
    bad = some_bad(samples.shape)
    samples[bad] = 60000
    name, save = ("in.tif", "savetif") if kind == "tif" else ("in.fits", "save")
    if kind == "tif":
        tifffile.imwrite(tmp_path / name, samples, photometric="minisblack")
    else:
        write_fits(tmp_path / name, samples, **({"ROWORDER": kind} if kind else {}))
    maps.write_mask(tmp_path / "m.mask.fits", [DefectMap.of(bad, DQ.HOT)], row_order="" if kind == "tif" else kind)
    export(tmp_path / "m.mask.fits", "siril", tmp_path / name, tmp_path / "l.lst")
    verbs = ("cosme", "cosme_cfa")
    siril_run(tmp_path, *(line for verb in verbs for line in (f"load {name}", f"{verb} l.lst", f"{save} {verb}")))
    for verb in verbs:
        out = tmp_path / f"{verb}{name[2:]}"
        after = tifffile.imread(out) if kind == "tif" else fits.getdata(out)
        assert np.array_equal(after != samples, bad), verb


@siril
@pytest.mark.parametrize("source", [DNG, pytest.param("dng/canon_550d_packed14.dng", marks=pytest.mark.data)])
def test_siril_repairs_the_listed_pixels_of_a_raw(tmp_path, data, source):
    """Siril cuts the masked borders off, and turns the rest."""
    from astropy.io import fits

    frame, truth = damaged(tmp_path, source, data)
    mosaic = files.load(frame).mosaics[0]
    export(truth, "siril", frame, tmp_path / "l.lst")
    work = tmp_path / "raws"
    work.mkdir()
    shutil.copy(frame, work)
    siril_run(work, "convertraw x", "load x_00001", f"cosme_cfa {tmp_path / 'l.lst'}", "save out")
    before, after = (fits.getdata(work / f"{n}.fits")[::-1] for n in ("x_00001", "out"))
    assert np.array_equal(before, mosaic.samples[mosaic.active.slices])
    bad = maps.read_mask(truth).planes[0].bad[mosaic.active.slices]
    assert not ((before != after) & ~bad).any() and (before != after)[bad].mean() > 0.99


@siril
def test_a_list_that_siril_makes_is_imported_where_the_pixels_are(tmp_path):
    rng = np.random.default_rng(2)
    samples = rng.normal(500, 5, (61, 84))
    samples[4, 10], samples[50, 70], samples[20, 3] = 3000, 4000, 10
    write_fits(tmp_path / "dark.fits", samples.astype(np.uint16))
    siril_run(tmp_path, "load dark", "find_hot found 5 5")
    outcome = import_map(tmp_path / "found.lst", Wanted(tmp_path / "m.mask.fits", like=tmp_path / "dark.fits"))
    assert outcome.status == "done", outcome.error
    flags = maps.read_mask(tmp_path / "m.mask.fits").planes[0].dq
    assert [tuple(p) for p in np.argwhere(flags)] == [(4, 10), (20, 3), (50, 70)]
    assert flags[4, 10] & DQ.HOT and flags[20, 3] & DQ.DEAD


def damaged(folder, source, data):
    """A raw whose light is damaged at known places: (file, mask)."""
    source = source if source is DNG else data / source
    frame = files.load(source)
    mosaic, area = frame.mosaics[0], frame.mosaics[0].active
    bad = np.zeros(mosaic.shape, bool)
    bad[area.slices] = some_bad((area.bottom - area.top, area.right - area.left))
    hurt = mosaic.samples.copy()
    middle = (mosaic.white + np.max(mosaic.black)) / 2
    hurt[bad] = np.where(mosaic.samples[bad] > middle, np.max(mosaic.black), mosaic.white)
    files.save(frame, [Edit.between(mosaic.samples, hurt)], folder / source.name)
    maps.write_mask(folder / "truth.mask.fits", [DefectMap.of(bad, DQ.HOT)])
    return folder / source.name, folder / "truth.mask.fits"


def export(mask, name, like, out):
    """`maps export MASK --format NAME --like FRAME --out OUT`."""
    outcome = export_map(mask, Wanted(out, name, like))
    assert outcome.status == "done", outcome.error


def pgm(data):
    """A 16-bit PGM as an array."""
    magic, size, _, samples = data.split(b"\n", 3)
    width, height = map(int, size.split())
    assert magic == b"P5"
    return np.frombuffer(samples, ">u2", width * height).reshape(height, width)


@dcraw
@pytest.mark.parametrize("source", [DNG, pytest.param("dng/canon_550d_packed14.dng", marks=pytest.mark.data)])
def test_dcraw_repairs_the_listed_pixels_and_none_other(tmp_path, data, source):
    """Of the Canon, whose upper left corner of light lies at row 26, column 152, too."""
    frame, truth = damaged(tmp_path, source, data)
    export(truth, "dcraw", frame, tmp_path / "b.badpixels")
    (tmp_path / "none").write_text("")
    lists = ("b.badpixels", "none")
    with_, without = (pgm(call(tmp_path, "dcraw", "-D", "-4", "-t", "0", "-c", "-P", n, frame)) for n in lists)
    mosaic = files.load(frame).mosaics[0]
    bad = maps.read_mask(truth).planes[0].bad[mosaic.active.slices]
    assert with_.shape == bad.shape
    assert np.array_equal(with_ != without, bad)
    mask = tmp_path / "back.mask.fits"
    assert import_map(tmp_path / "b.badpixels", Wanted(mask, like=frame)).status == "done"
    assert np.array_equal(maps.read_mask(mask).planes[0].bad, maps.read_mask(truth).planes[0].bad)


@dcraw
@pytest.mark.data
def test_dcraw_finds_the_listed_pixels_of_a_camera_raw(tmp_path, data):
    """Its own report names them; a Canon S40 has margins of 6 rows and 12 columns."""
    source = data / "raw/canon_s40_CRW_0101.CRW"
    mosaic = files.load(source).mosaics[0]
    bad = np.zeros(mosaic.shape, bool)
    bad[mosaic.active.slices] = some_bad(mosaic.samples[mosaic.active.slices].shape)
    maps.write_mask(tmp_path / "m.mask.fits", [DefectMap.of(bad)])
    export(tmp_path / "m.mask.fits", "dcraw", source, tmp_path / "b.badpixels")
    command = ["dcraw", "-v", "-D", "-4", "-c", "-P", tmp_path / "b.badpixels", source]
    told = subprocess.run(list(map(str, command)), capture_output=True, check=True).stderr.decode()
    said = told.split("Fixed dead pixels at:")[1].splitlines()[0].split()
    area = mosaic.active
    found = {(int(y) + area.top, int(x) + area.left) for x, y in (word.split(",") for word in said)}
    assert found == set(map(tuple, np.argwhere(bad).tolist()))


@rawtherapee
@pytest.mark.data
def test_rawtherapee_repairs_the_listed_pixels_and_none_other(tmp_path, data):
    """By a list under its default name; the outer rows and columns, which RawTherapee leaves alone, apart."""
    import tifffile

    frame, truth = damaged(tmp_path, "dng/canon_550d_packed14.dng", data)
    (tmp_path / "darks").mkdir()
    (tmp_path / "none").mkdir()
    export(truth, "rawtherapee", frame, tmp_path / "darks")
    assert (tmp_path / "darks/Canon EOS Kiss X4.badpixels").is_file()
    (tmp_path / "p.pp3").write_text("[Version]\nAppVersion=5.9\nVersion=349\n[RAW Bayer]\nMethod=none\nBorder=0\n")
    images = []
    for folder in ("darks", "none"):
        settings = tmp_path / f"settings-{folder}"
        settings.mkdir()
        (settings / "options").write_text(f"[General]\nDarkFramesPath={tmp_path / folder}\n")
        command = [
            "rawtherapee-cli",
            "-q",
            "-o",
            tmp_path / f"{folder}.tif",
            "-t",
            "-b16",
            "-Y",
            "-p",
            tmp_path / "p.pp3",
        ]
        call(tmp_path, *command, "-c", frame, RT_SETTINGS=str(settings), RT_CACHE=str(tmp_path / "cache"))
        images.append(tifffile.imread(tmp_path / f"{folder}.tif"))
    changed = (images[0] != images[1]).any(axis=2)
    mosaic = files.load(frame).mosaics[0]
    bad = maps.read_mask(truth).planes[0].bad[mosaic.active.slices]
    assert changed.shape == bad.shape and bad.sum() > 5000
    inner = (slice(4, -4), slice(4, -4))
    assert not (changed & ~bad).any() and changed[inner][bad[inner]].mean() > 0.99


@pytest.mark.data
def test_rawpy_repairs_the_listed_pixels(tmp_path, data):
    """LibRaw's own reading of dcraw's list."""
    import rawpy

    frame, truth = damaged(tmp_path, "dng/canon_550d_packed14.dng", data)
    export(truth, "dcraw", frame, tmp_path / "b.badpixels")
    export(truth, "rawpy", frame, tmp_path / "b.npy")
    settings = {
        "output_color": rawpy.ColorSpace.raw,
        "half_size": True,
        "user_wb": [1, 1, 1, 1],
        "no_auto_bright": True,
    }
    settings |= {"gamma": (1, 1), "output_bps": 16, "no_auto_scale": True, "user_flip": 0}
    images = []
    for listed in (tmp_path / "b.badpixels", None):
        options = rawpy.Params(**settings)
        if listed is not None:
            options.bad_pixels = os.fsencode(listed)  # by its own argument rawpy 0.28 raises a TypeError
        with rawpy.imread(str(frame)) as raw:
            images.append(raw.postprocess(options))
    changed = (images[0] != images[1]).any(axis=2)
    mosaic = files.load(frame).mosaics[0]
    bad = maps.read_mask(truth).planes[0].bad[mosaic.active.slices]
    pooled = bad.reshape(bad.shape[0] // 2, 2, bad.shape[1] // 2, 2).any(axis=(1, 3))
    assert np.array_equal(changed, pooled)
    assert np.array_equal(np.load(tmp_path / "b.npy"), np.argwhere(bad))


def test_names_that_rawtherapee_looks_for():
    name = foreign.keeper("rawtherapee").default_name
    assert name(foreign.Sensor(make="Canon", model="Canon EOS 100D", serial="1")) == "Canon EOS 100D.badpixels"
    assert name(foreign.Sensor(make="NIKON CORPORATION", model="NIKON D700")) == "NIKON D700.badpixels"
    assert name(foreign.Sensor(model="D700")) == ""
