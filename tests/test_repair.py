"""Repair changes bad pixels, nothing else, and uses no bad pixel for it."""

import mmap
from pathlib import Path

import numpy as np
import pytest
from conftest import scene

from fixpix_cli import classical, repair, score, tiles
from fixpix_cli.cfa import BAYER, MONO, QUAD_RGGB, RGGB, XTRANS
from fixpix_cli.errors import FrameError
from fixpix_cli.inject import Injection, inject
from fixpix_cli.mosaic import Area, Edit, Mosaic, Stored
from fixpix_cli.normalise import windows

ALL = [*BAYER, MONO, XTRANS, QUAD_RGGB]
METHODS = {**repair.CLASSICAL, "linear": repair.linear, "prediction": windows.predicted}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("cfa", ALL, ids=lambda c: c.name)
def test_only_bad_pixels_change_and_come_close(cfa, name):
    clean = scene(cfa)
    damage = inject(clean, Injection(0.05, seed=1))
    bad = damage.dq != 0
    fixed = repair.repair(clean.with_samples(damage.samples), bad, METHODS[name])
    assert np.array_equal(fixed[~bad], clean.samples[~bad])
    before = score.correction(clean, damage.samples, bad).ratios()["nmse_stored"]
    after = score.correction(clean, fixed, bad).ratios()["nmse_stored"]
    assert after < 0.02 * before


@pytest.mark.parametrize("name", METHODS)
def test_values_of_bad_pixels_have_no_influence(name):
    clean = scene()
    bad = inject(clean, Injection(0.2, seed=2)).dq != 0
    rng = np.random.default_rng(0)
    answers = []
    for _ in range(2):
        samples = clean.samples.copy()
        samples[bad] = rng.integers(0, 16000, bad.sum())
        answers.append(repair.repair(clean.with_samples(samples), bad, METHODS[name]))
    assert np.array_equal(*answers)


@pytest.mark.parametrize("shape", [(1, 2), (2, 2), (3, 3), (5, 4), (9, 1)])
@pytest.mark.parametrize("cfa", [RGGB, MONO, XTRANS], ids=lambda c: c.name)
def test_tiny_frames(shape, cfa):
    samples = np.full(shape, 500, np.uint16)
    bad = np.zeros(shape, bool)
    bad[0, 0] = True
    samples[0, 0] = 60000
    for method in METHODS.values():
        assert repair.repair(Mosaic(samples, cfa), bad, method)[0, 0] == 500


def test_a_hole_without_good_neighbours_is_filled_from_afar():
    clean = scene(shape=(200, 200), noise=0)
    bad = np.zeros(clean.shape, bool)
    bad[60:110, 60:110] = True
    fixed = repair.repair(clean, bad, repair.least_squares)
    assert np.abs(fixed[bad].astype(float) - clean.samples[bad].astype(float)).mean() < 600


def test_an_all_bad_frame_says_so():
    clean = scene()
    with pytest.raises(FrameError, match="nothing to repair from"):
        repair.repair(clean, np.ones(clean.shape, bool), repair.median)


def test_nan_and_masked_borders_stay():
    samples = scene().samples.astype(np.float32)
    samples[30, 30] = np.nan
    framed = Mosaic(samples, RGGB, ((200.0,),), 16383.0, Area(4, 4, 116, 156))
    bad = np.zeros(samples.shape, bool)
    bad[0, 0] = bad[30, 30] = bad[50, 50] = bad[30, 32] = True
    fixed = repair.repair(framed, bad, repair.least_squares)
    assert np.isnan(fixed[30, 30]) and fixed[0, 0] == samples[0, 0]
    assert fixed[50, 50] != samples[50, 50] and np.isfinite(fixed[30, 32])


def test_least_squares_beats_the_median_where_colours_agree():
    clean = scene(noise=2)
    damage = inject(clean, Injection(0.01, seed=4))
    bad = damage.dq != 0
    errors = {
        name: score.correction(clean, repair.repair(clean.with_samples(damage.samples), bad, m), bad).error
        for name, m in METHODS.items()
    }
    assert errors["least-squares"] < errors["median"]


@pytest.mark.parametrize("cfa", ALL, ids=lambda c: c.name)
def test_inject_repair_detect_again_finds_nothing(cfa):
    clean = scene(cfa, shape=(240, 320))
    damage = inject(clean, Injection(0.002, seed=6))
    damaged = clean.with_samples(damage.samples)
    found = classical.detect(damaged).probability >= 0.5
    fixed = repair.repair(damaged, found, repair.least_squares)
    again = classical.detect(clean.with_samples(fixed)).probability >= 0.5
    assert again.sum() <= 0.05 * found.sum() + 2


@pytest.mark.parametrize("active", [None, Area(2, 3, 190, 250)], ids=["whole", "masked border"])
def test_tile_by_tile_is_the_same_as_whole(active):
    clean = scene(BAYER[1], shape=(200, 260))
    mosaic = Mosaic(clean.samples, clean.cfa, clean.black, clean.white, active) if active else clean
    bad = np.random.default_rng(3).random(clean.shape) < 0.02
    bad[40:43, 60:63] = True
    assert np.array_equal(
        repair.repair(mosaic, bad, repair.in_tiles(repair.median, 64, 32)), repair.repair(mosaic, bad, repair.median)
    )


def test_tiles_without_a_bad_pixel_are_not_asked():
    asked = []

    def counting(mosaic, bad):
        asked.append(mosaic.shape)
        return repair.median(mosaic, bad)

    clean = scene(BAYER[1], shape=(200, 260))
    bad = np.zeros(clean.shape, bool)
    bad[70, 70] = True
    repair.repair(clean, bad, repair.in_tiles(counting, 64, 8))
    assert asked == [(80, 80)]


def test_parts_that_are_repaired_at_a_time_come_out_as_one_after_the_other():
    clean = scene(RGGB, (300, 260), seed=4)
    bad = np.random.default_rng(4).random(clean.shape) < 0.01
    one, many = (repair.in_tiles(repair.least_squares, 64, 16, threads)(clean, bad) for threads in (1, 3))
    assert np.array_equal(one, many)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_an_edit_holds_what_changes_and_nothing_else(dtype):
    samples = np.arange(12, dtype=dtype).reshape(3, 4)
    if dtype == np.float32:
        samples[2, 3] = np.nan
    rows, cols = np.array([0, 1, 2]), np.array([1, 2, 3])
    values = samples[rows, cols].copy()
    values[1] = 99
    edit = Edit.of(Mosaic(samples), rows, cols, values)
    assert (edit.rows.tolist(), edit.cols.tolist(), edit.values.tolist()) == ([1], [2], [99])
    after = edit.applied(samples)
    assert after[1, 2] == 99 and np.array_equal(after != samples, (after == 99) | np.isnan(samples))
    between = Edit.between(samples, after)
    assert len(between) == 1 and between.values[0] == 99


@pytest.mark.parametrize("rate", [0, 1e-4, 0.01, 0.5, 1])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (64, 64), (101, 203)])
def test_few_marked_pixels_are_found_as_by_numpy(shape, rate):
    mask = np.random.default_rng(0).random(shape) < rate
    assert np.array_equal(tiles.marked(mask), np.flatnonzero(mask))
    assert [a.tolist() for a in repair.places(mask)] == [a.tolist() for a in np.nonzero(mask)]


def test_whole_windows_are_windows():
    samples = np.random.default_rng(0).random((20, 31)).astype(np.float32)
    rows, cols = np.array([3, 10, 16]), np.array([3, 15, 27])
    found, inside = tiles.windows(samples, None, rows, cols, 3)
    assert inside.all() and np.array_equal(tiles.whole_windows(samples, rows, cols, 3), found.reshape(3, 49))


def test_samples_that_stay_in_their_file_are_those_that_are_read(tmp_path):
    """A crop, single pixels and all of them; what is not asked for is not touched."""
    truth = scene(RGGB, (40, 50), black=64.0)
    stored = (truth.samples ^ 0x8000).astype(">u2")
    asked = []

    def decode(values):
        asked.append(values.size)
        return values.astype(np.uint16) ^ np.uint16(0x8000)

    mosaic = Stored(stored, decode, truth.cfa, truth.black, truth.white, Area(2, 3, 38, 47))
    assert (
        mosaic.shape == truth.shape
        and mosaic.dtype == np.uint16
        and mosaic.is_integer
        and mosaic.legal_range[1] == 65535
    )
    part, same = mosaic.light().cropped(Area(1, 2, 9, 12)), truth.cropped(Area(3, 5, 11, 15))
    assert max(asked) <= 1
    assert np.array_equal(part.samples, same.samples) and (part.cfa, part.black) == (same.cfa, same.black)
    assert np.array_equal(mosaic.at(np.array([5, 7]), np.array([6, 1])), truth.samples[[5, 7], [6, 1]])
    assert max(asked) == 80
    assert np.array_equal(mosaic.samples, truth.samples) and mosaic.samples is mosaic.samples
    assert mosaic.with_samples(truth.samples).white == truth.white
    seen = len(asked)
    assert np.array_equal(mosaic.cropped(Area(3, 5, 11, 15)).samples, same.samples) and len(asked) == seen


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED") or not Path("/proc/self/statm").exists(), reason="Linux")
def test_a_mapped_file_does_not_stay_in_memory_beside_its_samples(tmp_path):
    """Lost otherwise: a frame takes twice its size."""
    path = tmp_path / "samples"
    np.arange(20_000_000, dtype=">u2").tofile(path)

    def mapped_pages():
        return int(Path("/proc/self/statm").read_text().split()[2])

    before = mapped_pages()
    mosaic = Stored(np.memmap(path, ">u2", "r").reshape(4000, 5000), lambda v: v.astype(np.uint16))
    assert mosaic.samples[3, 7] == 15_007
    assert (mapped_pages() - before) * mmap.PAGESIZE < 10_000_000
    assert mosaic.at(np.array([3]), np.array([8])) == 15_008
