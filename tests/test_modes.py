"""What most of a pixel's neighbours agree on: counted one by one, and where damage is the majority."""

from itertools import product

import numpy as np
import pytest

from fixpix_cli.cfa import BAYER, MONO
from fixpix_cli.inject import Injection, inject
from fixpix_cli.mosaic import Mosaic
from fixpix_cli.normalise import features, modes, second
from fixpix_cli.normalise.modes import REACH

NEAR = [(r, c) for r, c in product(range(-REACH, REACH + 1), repeat=2) if 0 < r * r + c * c <= REACH * REACH]


def plainly(samples, scale, step, row, col):
    """The six features of one pixel of the inner part, neighbour by neighbour."""
    logs = (np.sign(samples) * np.log1p(np.abs(samples) / scale) * 2048).astype(np.int64)
    at = [n + 2 * REACH * step for n in (row, col)]

    def agree(r, c, tolerance):
        return sum(abs(logs[r + dr * step, c + dc * step] - logs[r, c]) <= tolerance for dr, dc in NEAR)

    out = []
    for tolerance in (int(0.05 * 2048), int(0.15 * 2048)):
        places = [(at[0] + dr * step, at[1] + dc * step) for dr, dc in [(0, 0), *NEAR]]
        counts = [(agree(*place, tolerance), logs[place]) for place in places]
        most, mode = max(counts)
        share, best = (np.log((n + 1) / (len(NEAR) + 1)) / 4 for n in (counts[0][0], most))
        out += [share, np.clip((logs[tuple(at)] - mode) / 2048, -2, 2), share - best]
    return out


@pytest.mark.parametrize("step", [1, 2])
def test_neighbours_are_counted_as_one_by_one(step):
    rng = np.random.default_rng(4)
    edge = 4 * REACH * step
    samples = rng.choice([-60, 0, 3, 90, 100, 104, 130, 900], (11 + edge, 14 + edge)) + rng.normal(
        0, 2, (11 + edge, 14 + edge)
    )
    samples, scale = samples.astype(np.float32), 3.5
    found = modes.modes(samples, scale, step)
    assert len(found) == modes.FEATURES and {f.shape for f in found} == {(11, 14)}
    assert {f.dtype for f in found} == {np.dtype(np.float32)}
    for row, col in ((0, 0), (10, 13), (4, 7), (5, 7), (6, 2)):
        assert [f[row, col] for f in found] == pytest.approx(plainly(samples, scale, step, row, col), abs=2e-3)


@pytest.mark.parametrize("cfa", [MONO, *BAYER], ids=lambda cfa: cfa.name)
@pytest.mark.parametrize(("rate", "share"), [(0.7, 0.99), (0.85, 0.9)])
def test_where_damage_is_the_majority_the_good_pixels_agree(cfa, rate, share):
    """A bright scene: at d = 0.7 nothing can be brighter than it, and three or six of seven pixels are dark."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:160, :160]
    scene = 700 + 40 * np.sin(x / 20 + y / 30) + rng.normal(0, 5, x.shape)
    mosaic = Mosaic(np.round(scene).astype(np.uint16), cfa, ((0.0,),), 1000.0)
    hurt = inject(mosaic, Injection(rate, 0.7, seed=5))
    damaged = mosaic.with_samples(hurt.samples)
    look = second.Second.of(damaged, np.zeros(damaged.shape, np.float32), 0.5)
    size = [n + shift + (n + shift) % 2 for n, shift in zip(damaged.shape, look.phase, strict=True)]
    packed = look.features((0, size[0]), (0, size[1]))
    assert packed.shape[0] == second.CHANNELS
    (top, left), (h, w) = look.phase, damaged.shape
    off = features.unpack(packed[-20:-16])[top : top + h, left : left + w]
    bad = hurt.dq != 0
    assert np.mean(np.abs(off[~bad]) < 0.25) > share
    assert np.mean(np.abs(off[bad]) > 0.25) > share


def test_a_net_of_the_contract_without_them_sees_the_same_as_before():
    rng = np.random.default_rng(9)
    mosaic = Mosaic(rng.integers(400, 900, (64, 80)).astype(np.uint16), BAYER[0], ((64.0,),), 1023.0)
    first = rng.normal(-3, 4, mosaic.shape).astype(np.float32)
    whole, plain = (second.Second.of(mosaic, first, 0.1, c) for c in (second.NORMALISATION, second.PLAIN))
    seen = plain.features((0, 64), (0, 80))
    assert seen.shape[0] == second.PLAIN_CHANNELS
    assert np.array_equal(whole.features((0, 64), (0, 80))[: len(seen)], seen)


@pytest.mark.parametrize("cfa", [MONO, *BAYER], ids=lambda cfa: cfa.name)
def test_of_a_plane_they_are_those_that_the_second_look_sees(cfa):
    rng = np.random.default_rng(11)
    mosaic = Mosaic(rng.integers(300, 900, (46, 52)).astype(np.uint16), cfa, ((64.0,),), 1023.0)
    look = second.Second.of(mosaic, np.zeros(mosaic.shape, np.float32), 0.5)
    size = [n + shift + (n + shift) % 2 for n, shift in zip(mosaic.shape, look.phase, strict=True)]
    packed = look.features((0, size[0]), (0, size[1]))[second.PLAIN_CHANNELS :]
    (top, left), (h, w) = look.phase, mosaic.shape
    for number, feature in enumerate(modes.of_plane(mosaic)):
        seen = features.unpack(packed[4 * number : 4 * number + 4])[top : top + h, left : left + w]
        assert np.mean(np.abs(seen - feature) < 0.06) > 0.9  # the scales differ by what colours differ in their floors


def test_of_a_plane_without_all_values_and_of_a_tiny_one():
    samples = np.full((3, 5), 80.0, np.float32)
    samples[1, 2] = np.nan
    found = modes.of_plane(Mosaic(samples, MONO, ((0.0,),), 100.0))
    assert {f.shape for f in found} == {(3, 5)} and all(np.isfinite(f).all() for f in found)
