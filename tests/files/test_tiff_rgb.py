"""RGB TIFFs: three mono planes in, and only the repaired samples changed on the way out."""

import numpy as np
import pytest
import tifffile
from conftest import json_lines

from fixpix_cli import files
from fixpix_cli.cfa import MONO, RGGB
from fixpix_cli.errors import FixpixError, RefusedError
from fixpix_cli.mosaic import Assume, Edit
from fixpix_cli.repair import least_squares, repair

SHAPE = (83, 117)  # odd, and no multiple of a strip or tile
LAYOUTS = [
    {},
    {"rowsperstrip": 10},
    {"tile": (32, 48)},
    {"compression": "lzw", "rowsperstrip": 10},
    {"compression": "zlib", "predictor": 2, "tile": (32, 48)},
    {"compression": "lzw", "predictor": 2},
    {"compression": "zstd", "predictor": 2, "rowsperstrip": 7},
    {"compression": "packbits", "rowsperstrip": 13},
    {"bigtiff": True, "tile": (32, 48)},
    {"bigtiff": True, "compression": "zlib", "rowsperstrip": 16},
    {"byteorder": ">", "rowsperstrip": 10},
    {"byteorder": ">", "compression": "zlib", "predictor": 2},
]


def picture(dtype=np.uint16, samples=3, shape=SHAPE):
    """(H, W, S): smooth, each channel with a level of its own; alpha is noise."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    rng = np.random.default_rng(3)
    ramp = 60 + 0.4 * y + 0.3 * x + 20 * np.sin(x / 9)
    planes = [ramp * (n + 2) / 4 + rng.normal(0, 1, shape) for n in range(3)]
    planes += [rng.uniform(0, 255, shape)] * (samples - 3)
    values = np.stack(planes, axis=-1)
    return values.astype(dtype) if np.issubdtype(dtype, np.floating) else np.clip(np.rint(values), 0, 255).astype(dtype)


def write(path, image, planar=False, **options):
    stored = np.moveaxis(image, -1, 0) if planar else image
    kind = "separate" if planar else "contig"
    alpha = {"extrasamples": ["unassalpha"]} if image.shape[2] == 4 else {}
    tifffile.imwrite(path, stored, photometric="rgb", planarconfig=kind, metadata=None, **alpha, **options)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        assert page.photometric == 2 and page.planarconfig == (2 if planar else 1)
        assert page.samplesperpixel == image.shape[2]


def stored(path, planar):
    """(H, W, S) by another reader."""
    with tifffile.TiffFile(path) as tiff:
        image = tiff.pages[0].asarray()
    return np.moveaxis(image, 0, -1) if planar else image


def edited(image, count, seed=1):
    """The image with some samples of the first three channels set to other values."""
    rng = np.random.default_rng(seed)
    out = image.copy()
    for n in range(3):
        where = rng.choice(image[..., 0].size, count + n, replace=False)
        out.reshape(-1, image.shape[2])[where, n] = rng.integers(1, 30, len(where)).astype(image.dtype)
    return out


def save(source, target, after):
    frame = files.load(source)
    edits = [Edit.between(m.samples, after[..., n]) for n, m in enumerate(frame.mosaics)]
    files.save(frame, edits, target)


@pytest.mark.parametrize("planar", [False, True], ids=["contig", "planar"])
@pytest.mark.parametrize("samples", [3, 4])
@pytest.mark.parametrize("options", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16], ids=lambda t: t.__name__)
def test_every_layout_reads_and_writes_back_exactly(tmp_path, dtype, options, samples, planar):
    """Lost otherwise: a channel lands in another's place, alpha is touched, or a tag is gone."""
    source, target = tmp_path / "a.tif", tmp_path / "o.tif"
    before = picture(dtype, samples)
    write(source, before, planar, **options)
    frame = files.load(source)
    assert len(frame.mosaics) == 3 and frame.keys == (0, 1, 2) and frame.identity.planes == 3
    for n, mosaic in enumerate(frame.mosaics):
        assert mosaic.cfa == MONO and np.array_equal(mosaic.samples, before[..., n])
    after = edited(before, 40)
    save(source, target, after)
    assert np.array_equal(stored(target, planar), after)
    with tifffile.TiffFile(source) as one, tifffile.TiffFile(target) as two:
        old, new = (
            {t.code: t.value for t in f.pages[0].tags if t.code not in (273, 279, 324, 325)} for f in (one, two)
        )
        assert old == new


@pytest.mark.parametrize("planar", [False, True], ids=["contig", "planar"])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "predictor": 3, "tile": (32, 48)}], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: t.__name__)
def test_float_pictures(tmp_path, dtype, options, planar):
    """Lost otherwise: linear float pictures, and the places without data in them."""
    source, target = tmp_path / "a.tif", tmp_path / "o.tif"
    before = picture(dtype)
    before[5, 7, 1] = np.nan
    write(source, before, planar, **options)
    after = edited(before, 30)
    save(source, target, after)
    assert np.array_equal(stored(target, planar), after, equal_nan=True)


@pytest.mark.parametrize("planar", [False, True], ids=["contig", "planar"])
@pytest.mark.parametrize("options", [{"rowsperstrip": 10}, {"tile": (32, 48)}, {"bigtiff": True}], ids=str)
def test_uncompressed_bytes_outside_the_repaired_samples_stay(tmp_path, options, planar):
    """Lost otherwise: the promise that nothing but the bad pixels changes."""
    source, target = tmp_path / "a.tif", tmp_path / "o.tif"
    before = picture(np.uint16, 4)
    write(source, before, planar, **options)
    after = edited(before, 25)
    save(source, target, after)
    old, new = (np.frombuffer(p.read_bytes(), np.uint8) for p in (source, target))
    assert len(old) == len(new)
    differing = np.count_nonzero(before.view(np.uint8) != after.view(np.uint8))
    assert np.count_nonzero(old != new) == differing > 50


def test_an_untouched_picture_is_copied_byte_for_byte(tmp_path):
    """Lost otherwise: files without a bad pixel come back repacked."""
    write(tmp_path / "a.tif", picture(), compression="zlib")
    save(tmp_path / "a.tif", tmp_path / "o.tif", picture())
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "o.tif").read_bytes()


def test_a_hole_in_all_three_channels_is_repaired(tmp_path):
    """Lost otherwise: a speck in a picture, which is bad in every channel at once."""
    clean = picture()
    hurt = clean.copy()
    hurt[40:44, 60:64] = 0
    write(tmp_path / "a.tif", hurt)
    frame = files.load(tmp_path / "a.tif")
    bad = np.zeros(SHAPE, bool)
    bad[40:44, 60:64] = True
    fixed = [repair(m, bad, least_squares) for m in frame.mosaics]
    for n, plane in enumerate(fixed):
        assert np.array_equal(plane[~bad], clean[..., n][~bad])
        error = plane[bad].astype(float) - clean[..., n][bad]
        assert np.sqrt(np.mean(error**2)) < 3


def test_the_commands_take_a_picture_all_the_way(tmp_path, run):
    """Lost otherwise: inject, detect, correct and evaluate disagree on which plane a mask belongs to."""
    for n in range(2):
        write(tmp_path / f"in{n}.tif", picture(shape=(160, 200)).astype(np.uint16) * 200, planar=bool(n))
    code, out, _ = run("inject", "in0.tif", "in1.tif", "--out", "hurt", "--rate", "0.5%", "--seed", "3", "--json")
    assert code == 0 and all(r["defects"] > 400 for r in json_lines(out)[0])
    code, out, _ = run("correct", "hurt", "--map", "hurt", "--out", "fixed", "--json")
    assert code == 0, out
    code, out, _ = run("evaluate", "--truth", "hurt", "--clean", ".", "--repaired", "fixed", "--json")
    assert code == 0, out
    for n in range(2):
        before, hurt, after = (
            stored(tmp_path / p / f"in{n}.tif", bool(n)).astype(float) for p in (".", "hurt", "fixed")
        )
        bad = hurt != before
        assert bad.any(axis=(0, 1)).all() and np.array_equal(after[~bad], before[~bad])
        assert np.mean((after - before)[bad] ** 2) < 0.01 * np.mean((hurt - before)[bad] ** 2)
    code, out, _ = run("detect", "hurt", "--out", "masks", "--json")
    assert code == 0 and all(r["defects"] > 300 for r in json_lines(out)[0])
    code, out, _ = run("correct", "hurt", "--auto", "--out", "auto", "--json")
    assert code == 0, out
    code, out, _ = run("calibrate", "hurt", "--map", "map.fits", "--json")
    assert code == 0 and [r["status"] for r in json_lines(out)[0]] == ["done", "done"], out


def test_a_colour_filter_array_makes_no_sense_here(tmp_path):
    """Lost otherwise: --cfa meant for the raws of a folder makes mosaics of its pictures."""
    write(tmp_path / "a.tif", picture())
    with pytest.raises(RefusedError, match=r"a\.tif.*RGB image.*--cfa"):
        files.load(tmp_path / "a.tif", Assume(RGGB))


@pytest.mark.parametrize(
    ("name", "image", "options", "words"),
    [
        ("jpeg", (64, 64, 3), {"photometric": "rgb", "compression": "jpeg"}, "JPEG|YCbCr"),
        ("ycbcr", (64, 64, 3), {"photometric": "ycbcr"}, "3 channels.*YCbCr"),
        ("cmyk", (20, 30, 4), {"photometric": "separated"}, "4 channels.*CMYK"),
        ("lab", (20, 30, 3), {"photometric": "cielab"}, "3 channels.*CIELab"),
        ("gray alpha", (20, 30, 2), {"photometric": "minisblack", "extrasamples": ["unassalpha"]}, "2 channels"),
        ("many", (20, 30, 6), {"photometric": "rgb"}, "6 channels"),
    ],
)
def test_other_pictures_are_refused_by_name(tmp_path, name, image, options, words):
    """Lost otherwise: a picture whose samples are no light is repaired as if they were."""
    tifffile.imwrite(tmp_path / f"{name}.tif", np.zeros(image, np.uint8), **options)
    with pytest.raises(RefusedError, match=rf"{name}\.tif.*({words})"):
        files.load(tmp_path / f"{name}.tif")


def test_a_palette_is_refused_by_name(tmp_path):
    """Lost otherwise: numbers of colours are averaged."""
    colours = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 30), np.uint8), photometric="palette", colormap=colours)
    with pytest.raises(RefusedError, match=r"a\.tif.*palette"):
        files.load(tmp_path / "a.tif")


@pytest.mark.parametrize("planar", [False, True], ids=["contig", "planar"])
def test_truncated_and_fuzzed_pictures_raise_our_errors_only(tmp_path, planar):
    """Lost otherwise: a damaged picture of a batch stops the others, or decodes into nonsense beyond its end."""
    write(tmp_path / "a.tif", picture(np.uint8, shape=(40, 60)), planar, compression="zlib", rowsperstrip=9)
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "t.tif").write_bytes(whole[: len(whole) - 1])
    with pytest.raises(FixpixError, match=r"t\.tif"):
        files.load(tmp_path / "t.tif")
    rng = np.random.default_rng(4)
    for n in range(100):
        bad = bytearray(whole)
        for place in rng.integers(0, 400 if n % 2 else len(bad), int(rng.choice([1, 4, 20]))):
            bad[place] = int(rng.integers(0, 256))
        (tmp_path / "fuzz.tif").write_bytes(bad)
        try:
            frame = files.load(tmp_path / "fuzz.tif")
        except FixpixError as error:
            assert "fuzz.tif" in str(error)
        else:
            assert frame.pixels > 0
