"""What the unets see where the colours are no grid: neighbour by neighbour, and the same as a grid's on one."""

import numpy as np
import pytest

from fixpix_cli.cfa import BAYER, MONO, QUAD_RGGB, XTRANS, Cfa
from fixpix_cli.mosaic import Mosaic
from fixpix_cli.normalise import features, modes, patterns, second

PATTERNS = [XTRANS, XTRANS.shifted(2, 5), QUAD_RGGB.shifted(1, 2)]


def drawn(cfa, count, shape=(24, 30), seed=3):
    """Samples, of which a third is trusted, with the margin in which the nearest `count` lie."""
    rng = np.random.default_rng(seed)
    whole = tuple(n + 2 * patterns.reach(cfa, count) for n in shape)
    return rng.normal(900, 60, whole).astype(np.float32), rng.random(whole) < 1 / 3


def nearest(array, cfa, count, row, col):
    """The pixel and its nearest `count` of the same colour, of a pixel of the inner part."""
    edge = patterns.reach(cfa, count)
    row, col = row + edge, col + edge
    return array[row, col], np.array([array[row + r, col + c] for r, c in cfa.nearest(row, col, count)])


@pytest.mark.parametrize("cfa", PATTERNS, ids=lambda cfa: cfa.name)
def test_neighbours_are_the_nearest_of_the_same_colour(cfa):
    eight, _ = drawn(cfa, 8)
    samples, ok = drawn(cfa, 24)
    many, _ = drawn(cfa, 48)
    extremes, trusted, unlike = (
        patterns.extremes(eight, cfa),
        patterns.trusted(samples, ok, cfa),
        patterns.unlike(samples, cfa),
    )
    agreeing = patterns.agreeing(many.astype(np.int16), cfa, 48, (5, 60))
    best = patterns.greatest(many.astype(np.int32), cfa, 48)
    assert {a.shape for a in (*extremes, *trusted, *unlike, *agreeing, best)} == {(24, 30)}
    for row, col in ((0, 0), (23, 29), (7, 12), (8, 12), (9, 13), (5, 4)):
        _, near = nearest(eight, cfa, 8, row, col)
        assert [a[row, col] for a in extremes] == pytest.approx([np.sort(near)[1:-1].mean(), near.max(), near.min()])
        own, near = nearest(samples, cfa, 24, row, col)
        _, known = nearest(ok, cfa, 24, row, col)
        wide = near[known]
        expected = [near[:8][known[:8]].mean(), wide.mean(), len(wide), wide.max(), wide.min()]
        assert [a[row, col] for a in trusted] == pytest.approx(expected, nan_ok=True)
        apart = np.abs(near - own)
        assert [a[row, col] for a in unlike] == pytest.approx([np.sort(apart[:8])[1], np.sort(apart)[3]])
        own, near = nearest(many.astype(np.int16).astype(int), cfa, 48, row, col)
        assert [a[row, col] for a in agreeing] == [np.sum(abs(near - own) <= limit) for limit in (5, 60)]
        assert best[row, col] == max(own, near.max())


def test_without_a_trusted_neighbour_there_is_no_mean():
    samples, ok = drawn(XTRANS, 24)
    near, far, count, greatest, least = patterns.trusted(samples, np.zeros_like(ok), XTRANS)
    assert np.isnan(near).all() and np.isnan(far).all() and not count.any()
    assert np.isneginf(greatest).all() and np.isposinf(least).all()


def test_on_a_grid_they_are_those_of_the_grid():
    """The nearest 8 and 24 of a mono plane are its squares of three and five."""
    samples, ok = drawn(MONO, 24)
    for found, grid in zip(patterns.trusted(samples, ok, MONO), second._around(samples, ok, 1), strict=True):
        assert np.allclose(found, grid, rtol=1e-5, equal_nan=True)
    own = samples[patterns.reach(MONO, 24) :][: len(grid), patterns.reach(MONO, 24) :][:, : grid.shape[1]]
    assert np.array_equal(patterns.unlike(samples, MONO), second._unlike(samples, own, 1))


@pytest.mark.parametrize("cfa", PATTERNS, ids=lambda cfa: cfa.name)
def test_the_mode_is_that_of_the_nearest_48(cfa):
    edge = 4 * modes.reach(cfa)
    rng = np.random.default_rng(5)
    samples = rng.choice([-60, 0, 3, 90, 100, 104, 130, 900], (16 + edge, 20 + edge)).astype(np.float32)
    logs = (np.sign(samples) * np.log1p(np.abs(samples) / 3.5) * 2048).astype(np.int64)
    found = modes.among(samples, 3.5, cfa)
    assert len(found) == modes.FEATURES and {f.shape for f in found} == {(16, 20)}
    for row, col in ((0, 0), (15, 19), (7, 6), (8, 6)):
        at, expected = (row + edge // 2, col + edge // 2), []
        places = [(at[0] + r, at[1] + c) for r, c in ((0, 0), *cfa.nearest(*at, 48))]
        for tolerance in (102, 307):
            counts = []
            for r, c in places:
                near = [logs[r + dr, c + dc] for dr, dc in cfa.nearest(r, c, 48)]
                counts.append((sum(abs(value - logs[r, c]) <= tolerance for value in near), logs[r, c]))
            most, mode = max(counts)
            share, best = (np.log((n + 1) / 49) / 4 for n in (counts[0][0], most))
            expected += [share, np.clip((logs[at] - mode) / 2048, -2, 2), share - best]
        assert [f[row, col] for f in found] == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("cfa", PATTERNS, ids=lambda cfa: cfa.name)
def test_a_part_is_what_the_whole_says_there(cfa):
    """In any tile, wherever it begins."""
    rng = np.random.default_rng(8)
    mosaic = Mosaic(rng.integers(300, 900, (48, 60)).astype(np.uint16), cfa, ((64.0,),), 1023.0)
    first = rng.normal(-3, 4, mosaic.shape).astype(np.float32)
    for look in (features.Seen.of(mosaic), second.Second.of(mosaic, first, 0.2)):
        whole = look.features((-8, 56), (-8, 68))
        assert np.isfinite(whole).all()
        assert np.array_equal(look.features((10, 24), (16, 48)), whole[:, 9:16, 12:28])


@pytest.mark.parametrize("cfa", PATTERNS, ids=lambda cfa: cfa.name)
def test_an_outlier_stands_out_at_its_own_place(cfa):
    rng = np.random.default_rng(2)
    mosaic = Mosaic((900 + rng.normal(0, 5, (36, 48))).astype(np.float32), cfa, ((500.0,),), 4095.0)
    mosaic.samples[21, 34] += 400
    packed = features.Seen.of(mosaic).features((0, 36), (0, 48))
    assert packed.shape == (features.CHANNELS, 18, 24) and packed.dtype == np.float32
    above = features.unpack(packed[8:12])
    assert np.unravel_index(above.argmax(), above.shape) == (21, 34)


def test_patterns_have_a_family_in_any_phase():
    assert {cfa.family for cfa in BAYER} == {"RGGB"} and MONO.family == "MONO"
    assert {XTRANS.shifted(*p).family for p in XTRANS.positions} == {"XTRANS"}
    assert {QUAD_RGGB.shifted(*p).family for p in QUAD_RGGB.positions} == {"QUAD_RGGB"}
    other = Cfa(("CY", "MG"))
    assert other.family == other.name and not other.is_grid


def test_positions_are_alike_where_the_pattern_around_them_is_the_same():
    assert all(len(group) == 1 for cfa in (MONO, *BAYER, QUAD_RGGB) for group in cfa.alike)
    for cfa in (XTRANS, XTRANS.shifted(4, 1)):
        assert sorted(p for group in cfa.alike for p in group) == list(cfa.positions)
        assert {len(group) for group in cfa.alike} == {2}
        for one, two in cfa.alike:
            assert [abs(a - b) for a, b in zip(one, two, strict=True)] == [3, 3]
