"""A map as an image and as a list of pixels. Lost otherwise: a map says other pixels than it was told."""

import numpy as np
import pytest

from fixpix_cli.defects import DQ, DefectMap, ListedMap

SHAPE = (31, 17)
KINDS = [1, int(DQ.HOT) | 1, int(DQ.DEAD | DQ.WARM) | 1, 16, 1 << 30 | 1]


def both(rate, seed=0):
    """The same flags as an image and as a list; 16 is no bad pixel."""
    rng = np.random.default_rng(seed)
    dq = np.where(rng.random(SHAPE) < rate, rng.choice(KINDS, SHAPE), 0).astype(np.int32)
    pixels = np.flatnonzero(dq)
    return DefectMap(dq), DefectMap.listed(SHAPE, pixels, dq.reshape(-1)[pixels])


@pytest.mark.parametrize("rate", [0.0, 0.02, 0.5, 1.0])
def test_a_list_says_what_the_image_says(rate):
    image, listed = both(rate)
    assert isinstance(listed, ListedMap) and listed.shape == image.shape and len(listed) == len(image)
    for one, two in ((image, listed), (image.upside_down(), listed.upside_down())):
        assert np.array_equal(one.dq, two.dq) and two.dq.dtype == np.int32 and np.array_equal(one.bad, two.bad)
        for name in ("pixels", "flags", "bad_pixels"):
            assert np.array_equal(getattr(one, name), getattr(two, name)), name
        assert one.counts() == two.counts()
    every = np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE)
    assert np.array_equal(listed.at(every), image.dq) and np.array_equal(image.at(every), image.dq)


@pytest.mark.parametrize("rate", [0.0, 0.02, 0.5])
def test_two_maps_join_in_any_form(rate):
    wanted = both(rate)[0].dq | both(0.1, 1)[0].dq
    for one in both(rate):
        for two in both(0.1, 1):
            assert np.array_equal((one | two).dq, wanted)


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.9])
def test_a_mask_becomes_a_map(rate):
    bad = np.random.default_rng(3).random(SHAPE) < rate
    found = DefectMap.of(bad, DQ.HOT)
    assert np.array_equal(found.bad, bad) and found.counts() == ({"HOT": bad.sum()} if bad.any() else {})
    assert isinstance(found, ListedMap) == (rate < 0.5)


def test_the_image_of_a_list_cannot_be_changed_in_vain():
    with pytest.raises(ValueError):
        DefectMap.empty(SHAPE).dq[0, 0] = 1
