"""What the detector sees: the same for every phase, gain and black level; every pixel in its place."""

import numpy as np
import pytest

from fixpix_cli.cfa import BAYER, MONO
from fixpix_cli.mosaic import Mosaic
from fixpix_cli.normalise import features, second


def frame(cfa, shape=(48, 64), gain=1.0, black=500.0):
    rng = np.random.default_rng(3)
    y, x = np.mgrid[: shape[0], : shape[1]]
    return Mosaic(
        gain * (900 + 40 * np.sin(x / 4 + y / 7) + rng.normal(0, 5, shape)) + black, cfa, ((black,),), 16383.0
    )


def whole(mosaic):
    seen = features.Seen.of(mosaic)
    size = [n + shift + (n + shift) % 2 for n, shift in zip(mosaic.shape, seen.phase, strict=True)]
    return seen, features.unpack(seen.features((0, size[0]), (0, size[1]))[:4])


@pytest.mark.parametrize("cfa", [MONO, *BAYER], ids=lambda cfa: cfa.name)
def test_an_outlier_stands_out_at_its_own_place(cfa):
    mosaic = frame(cfa)
    mosaic.samples[21, 34] += 400
    seen = features.Seen.of(mosaic)
    size = [n + shift + (n + shift) % 2 for n, shift in zip(mosaic.shape, seen.phase, strict=True)]
    packed = seen.features((0, size[0]), (0, size[1]))
    assert packed.shape == (features.CHANNELS, size[0] // 2, size[1] // 2) and packed.dtype == np.float32
    above = features.unpack(packed[8:12])
    assert np.unravel_index(above.argmax(), above.shape) == (21 + seen.phase[0], 34 + seen.phase[1])


@pytest.mark.parametrize("cfa", [MONO, *BAYER], ids=lambda cfa: cfa.name)
def test_gain_and_black_do_not_matter(cfa):
    (_, one), (_, two) = whole(frame(cfa)), whole(frame(cfa, gain=3.0, black=2000.0))
    assert np.allclose(one, two, atol=2e-3)


def test_a_part_is_what_the_whole_says_there():
    seen, _ = whole(frame(BAYER[1]))
    everything, part = seen.features((0, 48), (0, 64)), seen.features((8, 24), (16, 48))
    assert np.array_equal(part, everything[:, 4:12, 8:24])


def test_beyond_the_frame_all_is_finite_and_nan_is_no_news():
    mosaic = frame(MONO)
    mosaic.samples[5, 5] = np.nan
    assert np.isfinite(features.Seen.of(mosaic).features((-16, 80), (-16, 96))).all()


@pytest.mark.parametrize("cfa", [MONO, *BAYER], ids=lambda cfa: cfa.name)
def test_how_unlike_its_neighbours_a_pixel_is(cfa):
    """Ranked distances to the neighbours of its own tile position, trusted or not: of 8, and of 24."""
    mosaic, row, col = frame(cfa), 21, 34
    step = 1 if cfa.is_mono else 2
    look = second.Second.of(mosaic, np.full(mosaic.shape, -5, np.float32), 0.01)
    samples, floor = look.levels.samples, look.levels.middle[row % cfa.period[0], col % cfa.period[1]] / 512
    size = [n + shift + (n + shift) % 2 for n, shift in zip(mosaic.shape, look.phase, strict=True)]
    packed = look.features((0, size[0]), (0, size[1]))
    for place, reach, rank in ((7, 1, 2), (8, 2, 4)):
        span = range(-reach * step, reach * step + 1, step)
        away = sorted(abs(samples[row + r, col + c] - samples[row, col]) for r in span for c in span if r or c)
        share = np.log((away[rank - 1] + floor) / (max(0.0, samples[row, col]) + floor))
        found = features.unpack(packed[4 * place : 4 * place + 4])[row + look.phase[0], col + look.phase[1]]
        assert found == pytest.approx(np.clip(share, -7, 1) / 4, abs=1e-3)
