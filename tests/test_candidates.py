"""Candidates of a whole frame, and the windows around them."""

import numpy as np
import pytest
from conftest import scene

from fixpix_cli import classical
from fixpix_cli.candidates import SHARE, SIGMAS, beside, candidates, seconds
from fixpix_cli.cfa import BAYER, MONO, QUAD_RGGB, XTRANS
from fixpix_cli.inject import Injection, inject
from fixpix_cli.levels import Statistics, comparable, levels
from fixpix_cli.mosaic import Area, Mosaic
from fixpix_cli.normalise import spots

PATTERNS = [MONO, *BAYER, XTRANS, XTRANS.shifted(2, 5), QUAD_RGGB]


def damaged(cfa, shape=(90, 121), rate=0.01):
    clean = scene(cfa, shape=shape)
    return clean.with_samples(inject(clean, Injection(rate, 0.6, seed=4)).samples)


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_second_least_and_second_greatest_of_eight(step, kind):
    wide = np.random.default_rng(1).integers(0, 40, (50, 61)).astype(kind)
    low, high = seconds(wide, step)
    height, width = low.shape
    near = [
        wide[step + r : step + r + height, step + c : step + c + width]
        for r in (-step, 0, step)
        for c in (-step, 0, step)
        if r or c
    ]
    ordered = np.sort(near, axis=0)
    assert np.array_equal(low, ordered[1]) and np.array_equal(high, ordered[-2])


@pytest.mark.parametrize("cfa", PATTERNS, ids=lambda cfa: cfa.name[:8])
def test_candidates_lie_outside_by_noise_and_level(cfa):
    """As the definition says, pixel by pixel, away from the edge."""
    light = damaged(cfa)
    seen = Statistics.of(light)
    found = set(candidates(light, seen).tolist())
    x = light.samples.astype(float)
    for row in range(12, 40):
        for col in range(12, 60):
            step = cfa.period[0]
            near = [(r, c) for r in (-step, 0, step) for c in (-step, 0, step) if r or c]
            near = near if step <= 2 else cfa.nearest(row, col, 8)
            around = sorted(x[row + r, col + c] for r, c in near)
            level = max((around[1] + around[-2]) / 2 - light.black[0][0], 0)
            margin = SIGMAS * float(seen.noise.sigma(np.array([level]))[0]) + SHARE * level
            outside = max(around[1] - x[row, col], x[row, col] - around[-2])
            if abs(outside - margin) > 0.01:  # single precision decides the others
                assert (row * light.shape[1] + col in found) == (outside > margin)


@pytest.mark.parametrize("cfa", PATTERNS, ids=lambda cfa: cfa.name[:8])
def test_nothing_is_lost_but_what_hides(cfa):
    clean = scene(cfa, shape=(200, 240))
    damage = inject(clean, Injection(0.003, 0.7, seed=4))
    light = clean.with_samples(damage.samples)
    found = np.zeros(light.samples.size, bool)
    found[candidates(light, Statistics.of(light))] = True
    bad = damage.dq.reshape(-1) != 0
    assert found[bad].mean() > 0.97 and found.mean() < 0.05


def test_threads_and_gaps_change_no_candidate():
    light = damaged(BAYER[1], (700, 900))
    seen = Statistics.of(light)
    assert np.array_equal(candidates(light, seen), candidates(light, seen, threads=3))
    holes = light.samples.astype(np.float32)
    holes[5:9, 7:11] = np.nan
    light = comparable(Mosaic(holes, light.cfa, light.black, light.white))
    found = candidates(light, Statistics.of(light))
    assert np.isfinite(light.samples.reshape(-1)[found]).all()


@pytest.mark.parametrize("cfa", PATTERNS, ids=lambda cfa: cfa.name[:8])
def test_rules_of_single_pixels_are_those_of_the_frame(cfa):
    light = damaged(cfa)
    whole, pixels = levels(light), np.arange(light.samples.size)
    for stage in ("extreme", "light"):
        found = classical.ratios_at(light, Statistics.of(light), pixels, stage)
        assert np.array_equal(found, classical._ratios(whole, stage).reshape(-1))


def test_each_cfa_has_its_patterns():
    """Mono one, Bayer two (green; red and blue), X-Trans three, Quad-Bayer two."""
    count = [len({view.pattern for view in spots.views(cfa).values()}) for cfa in PATTERNS]
    assert count == [1, 2, 2, 2, 2, 3, 3, 2] and len(spots.patterns()) == 8
    assert spots.views(BAYER[0].__class__(("RC", "MY"))) is None


@pytest.mark.parametrize("cfa", PATTERNS, ids=lambda cfa: cfa.name[:8])
def test_the_window_is_read_by_colour_nearest_first(cfa):
    """The candidate first, then each colour's samples, of which the nearest come first; mirrored at the edge."""
    for position, view in spots.views(cfa).items():
        own = cfa.colour(*position)
        colours = [cfa.colour(position[0] + r, position[1] + c) for r, c in view.offsets.tolist()]
        assert colours[0] == own and tuple(view.offsets[0]) == (0, 0)
        assert len({tuple(o) for o in view.offsets.tolist()}) == spots.WINDOW
        for start, stop in view.groups:
            assert len(set(colours[start:stop])) == 1
            distance = (view.offsets[start:stop] ** 2).sum(axis=1)
            assert (np.diff(distance) >= 0).all()


@pytest.mark.parametrize("cfa", PATTERNS, ids=lambda cfa: cfa.name[:8])
def test_features_do_not_depend_on_where_the_window_lies(cfa):
    """The same scene, one CFA period further: the same features, at the frame's edge as inside it."""
    light = damaged(cfa, (96, 132))
    seen = Statistics.of(light)
    (pr, pc), width = cfa.period, light.shape[1]
    rows, cols = (a.reshape(-1) for a in np.mgrid[30 : 30 + pr, 40 : 40 + pc])
    crop = light.cropped(Area(12, 12, 96, 132))
    ours, theirs = {}, {}
    for pattern, index, features in spots.encode(light, seen, rows * width + cols):
        ours |= {int(i): (pattern, features[:, n]) for n, i in enumerate(index)}
    for pattern, index, features in spots.encode(crop, seen, (rows - 12) * (width - 12) + cols - 12):
        theirs |= {int(i): (pattern, features[:, n]) for n, i in enumerate(index)}
    assert ours.keys() == theirs.keys() == set(range(len(rows)))
    for place, (pattern, features) in ours.items():
        assert theirs[place][0] == pattern and np.array_equal(theirs[place][1], features)


def test_features_are_as_described():
    light = damaged(BAYER[2])
    seen = Statistics.of(light)
    row, col = 41, 50
    view = spots.views(light.cfa)[row % 2, col % 2]
    ((_, _, features),) = spots.encode(light, seen, np.array([row * light.shape[1] + col]))
    rows, cols = row + view.offsets[:, 0], col + view.offsets[:, 1]
    floor = np.array([seen.floor[r % 2, c % 2] for r, c in zip(rows, cols, strict=True)])
    v = light.samples[rows, cols].astype(float) - light.black[0][0] - floor
    (start, stop), near = view.groups[0], view.near[0]
    around = np.sort(v[start : start + near])
    reference = around[1:-1].mean()
    sigma = float(seen.noise.sigma(np.array([reference + floor[0]]))[0])
    u = (v[:stop] - reference) / sigma
    assert features[:stop, 0] == pytest.approx(u / (4 + np.abs(u)), abs=1e-4)


def test_what_a_pixel_holds_itself_may_be_told_apart_from_the_frame():
    light = damaged(MONO)
    seen, pixels = Statistics.of(light), np.array([41 * 121 + 50, 3])
    own = light.samples.reshape(-1)[pixels]
    other = light.samples.copy()
    other.reshape(-1)[pixels] = 9
    plain = np.concatenate([f for *_, f in spots.encode(light, seen, pixels)], axis=1)
    told = np.concatenate([f for *_, f in spots.encode(light.with_samples(other), seen, pixels, own)], axis=1)
    assert np.array_equal(plain[0], told[0])
    assert np.array_equal(
        classical.ratios_at(light, seen, pixels, "extreme"),
        classical.ratios_at(light.with_samples(other), seen, pixels, "extreme", own),
    )


def test_what_suspects_may_hide():
    """A pixel between two suspects of its own position; all that touch one are doubtful, none beyond the frame."""
    mosaic = scene(BAYER[0], shape=(20, 30))
    suspects = np.array([4, 8])  # in the top row, two steps of the tile to both sides of column 6
    hidden, touching = beside(mosaic, suspects)
    assert hidden.tolist() == [6, 2 * 30 + 6]
    rows, cols = np.divmod(touching, 30)
    assert set(zip(rows.tolist(), cols.tolist(), strict=True)) == {
        (r, c)
        for r in range(4)
        for c in range(30)
        if any(max(r, abs(c - s)) == 1 or (r in (0, 2) and abs(c - s) in (0, 2) and (r, c) != (0, s)) for s in (4, 8))
    }
