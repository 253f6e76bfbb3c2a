"""First estimates where holes are few: from neighbourhoods alone, and the fit that they rest on."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import scene

from fixpix_cli.cfa import BAYER, MONO, XTRANS
from fixpix_cli.mosaic import Area, Mosaic, Stored
from fixpix_cli.nets.correctors import shipped_mlp
from fixpix_cli.normalise import near, prediction, windows
from fixpix_cli.repair import edit, places

PATTERNS = (MONO, BAYER[0], BAYER[3], XTRANS)
NAMES = [cfa.name for cfa in PATTERNS]


def holes(shape, rate=0.01, seed=3):
    """(H, W) bool: scattered holes, a cluster, and holes in the corners and on the edges."""
    bad = np.random.default_rng(seed).random(shape) < rate
    bad[20:23, 30:33] = bad[0, 0] = bad[-1, -1] = bad[0, 17] = bad[29, -1] = True
    return bad


@pytest.mark.parametrize("cfa", PATTERNS, ids=NAMES)
def test_neighbourhoods_hold_what_the_filled_plane_holds(cfa):
    """Lost otherwise: a repair depends on whether its holes are few enough to be looked at alone."""
    clean = scene(cfa, (90, 132))
    bad = holes(clean.shape)
    filled, alone = windows.fill(clean, bad), windows.first(clean, bad, 4)
    assert isinstance(alone, near.Near)
    rows, cols = places(bad)
    some = np.random.default_rng(0).permutation(len(rows))[:50]
    assert np.array_equal(alone.at(rows[some], cols[some]), filled.at(rows[some], cols[some]))
    for radius in (2, 4):
        value, good, inside = alone.windows(rows[some], cols[some], radius)
        whole, usable, within = filled.windows(rows[some], cols[some], radius)
        assert np.array_equal(good, usable) and np.array_equal(inside, within)
        assert np.array_equal(value[inside], whole[inside])
        mine, theirs = (windows.encode(of, rows, cols, radius) for of in (alone, filled))
        assert np.array_equal(mine[0], theirs[0]) and np.array_equal(mine[1], theirs[1])


@pytest.mark.parametrize("cfa", PATTERNS, ids=NAMES)
def test_weights_are_those_of_least_squares(cfa):
    """Against the plain way: all windows without a hole of the rows that are looked at, one by one."""
    clean = scene(cfa, (60, 84))
    bad = holes(clean.shape, 0.002)
    found = prediction.fit(clean, bad)
    (pr, pc), r = cfa.period, prediction.RADIUS
    above = clean.samples - near.level_at(found.level, cfa, *np.indices(clean.shape))
    for position in ((0, 0), (pr - 1, pc - 1)):
        x, y = [], []
        rows = range(-(-r // pr) * pr + position[0], (60 - r) // pr * pr, pr)
        for row in rows:
            for col in range(position[1], 84, pc):
                if r <= col < 84 - r and not bad[row - r : row + r + 1, col - r : col + r + 1].any():
                    window = above[row - r : row + r + 1, col - r : col + r + 1].reshape(-1)
                    x.append(np.delete(window, len(window) // 2))
                    y.append(window[len(window) // 2])
        if len(x) < 4 * (len(x[0]) + 1):
            assert found.weights[position] is None
            continue
        x, y = np.array(x), np.array(y)
        ridge = prediction.RIDGE * np.trace(x.T @ x) / x.shape[1]
        weights = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y)
        assert found.weights[position] == pytest.approx(weights, abs=1e-8)
        assert prediction.fit(clean, bad, 3).error == found.error
        assert found.error[position] == pytest.approx(np.sqrt(np.mean((x @ weights - y) ** 2)), rel=1e-6)


def test_only_bands_of_a_stored_plane_are_read():
    """Lost otherwise: a repair of a few pixels reads and converts every pixel of a large frame."""
    samples = scene(BAYER[0], (4000, 700)).samples
    read = []

    def decode(part):
        read.append(part.size)
        return np.array(part)

    stored = Stored(samples, decode, BAYER[0])
    bad = np.zeros(samples.shape, bool)
    bad[2000, 300:303] = True
    of_file = windows.first(stored, bad, 4)
    assert sum(read) < samples.size
    of_memory = windows.first(Mosaic(samples, BAYER[0]), bad, 4)
    assert np.array_equal(of_file.values, of_memory.values) and of_file.fit.error == of_memory.fit.error


def test_missing_data_are_holes_that_nobody_asked_for():
    clean = scene(BAYER[1], (64, 64))
    samples = clean.samples.astype(np.float32)
    bad = np.zeros(clean.shape, bool)
    bad[30, 30] = bad[0, 5] = True
    want = windows.first(clean.with_samples(samples), bad | np.isnan(samples), 4)
    samples[31, 30] = samples[0, 4] = samples[0, 0] = np.nan
    found = windows.first(clean.with_samples(samples), bad, 4)
    assert np.isfinite(found.values).all()
    rows, cols = np.array([30, 0]), np.array([30, 5])
    assert found.at(rows, cols) == pytest.approx(want.at(rows, cols), rel=0.1)
    assert not found.windows(rows[:1], cols[:1], 2)[1][0, 3, 2]


def test_a_plane_too_small_for_a_fit_is_filled_with_means():
    flat = Mosaic(np.full((9, 9), 700, np.uint16), MONO)
    bad = np.zeros((9, 9), bool)
    bad[4, 4] = True
    found = windows.first(flat, bad, 4)
    assert found.at(np.array([4]), np.array([4])) == pytest.approx(700)
    assert prediction.fit(flat, bad).weights == {(0, 0): None}


def test_a_masked_border_changes_nothing():
    clean = scene(BAYER[2], (300, 340))
    bad = holes(clean.shape)
    whole = edit(clean, bad, shipped_mlp())
    framed = Mosaic(np.pad(clean.samples, ((0, 0), (6, 0))), BAYER[2], active=Area(0, 6, 300, 346))
    moved = edit(framed, np.pad(bad, ((0, 0), (6, 0))), shipped_mlp())
    assert np.array_equal(moved.values, whole.values) and np.array_equal(moved.cols, whole.cols + 6)


def test_regions_of_a_plane_have_weights_of_their_own():
    """Lost otherwise: where a lens is soft, a repair takes the picture for as sharp as it is elsewhere."""
    rng = np.random.default_rng(0)
    light = rng.normal(0, 300, (1040, 1040))
    soft = sum(np.roll(light, shift, (0, 1)) for shift in [(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1)]) / 3
    light[:, 520:] = soft[:, 520:]
    samples = np.rint(3000 + light).astype(np.uint16)
    mosaic = Mosaic(samples, MONO)
    bad = rng.random(samples.shape) < 0.002
    found = prediction.fit(mosaic, bad)
    assert found.regions == (2, 2) == prediction.regions_of(samples.shape)
    assert np.array_equal(prediction.fit(mosaic, bad, 2).local[0, 0], found.local[0, 0])
    rows, cols = places(bad)
    own = near.estimate(mosaic, near.missing(mosaic, bad), found, 4)
    shared = replace(found, regions=(1, 1), local={(0, 0): found.weights[0, 0][None]})
    common = near.estimate(mosaic, near.missing(mosaic, bad), shared, 4)
    errors = [np.mean((e.at(rows, cols) - samples[bad]) ** 2) for e in (own, common)]
    assert errors[0] < 0.95 * errors[1]
