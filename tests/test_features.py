"""What the detector sees: the same for every phase, gain and black level; every pixel in its place."""

import numpy as np
import pytest

from fixpix_cli.cfa import BAYER, MONO
from fixpix_cli.mosaic import Mosaic
from fixpix_cli.normalise import features


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
