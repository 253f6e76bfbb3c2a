import numpy as np
import pytest

from fixpix_cli.cfa import MONO
from fixpix_cli.detection import Detection
from fixpix_cli.evidence import Tally
from fixpix_cli.mosaic import Mosaic

SHAPE = (37, 53)


def both(rate=0.01):
    """The same few pixels as an image and by their places."""
    rng = np.random.default_rng(5)
    pixels = np.sort(rng.choice(SHAPE[0] * SHAPE[1], 60, replace=False))
    values = rng.random(60, np.float32)
    image = np.zeros(SHAPE, np.float32)
    image.reshape(-1)[pixels] = values
    return Detection.of(image, rate), Detection(SHAPE, rate, "rules", pixels, values)


@pytest.mark.parametrize("least", [0.001, 0.3, 1.0])
def test_few_pixels_and_a_whole_image_tell_the_same_suspects(least):
    (pixels, values), (again, same) = (found.suspects(least) for found in both())
    assert np.array_equal(pixels, again) and np.array_equal(values, same) and (values >= least).all()
    assert len(pixels) == np.count_nonzero(both()[0].probability >= least)


def test_a_limit_between_two_single_precision_numbers_lets_the_lower_one_out():
    low = np.float32(0.3)
    high = np.nextafter(low, np.float32(1))
    limit = (float(low) + float(high)) / 2 - 1e-12  # rounds to the lower one
    found = Detection.of(np.array([[low, high]], np.float32))
    assert found.suspects(limit)[0].tolist() == [1] and found.suspects(float(low))[0].tolist() == [0, 1]


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.4])
def test_a_tally_does_not_tell_few_pixels_from_a_whole_image(rate):
    mosaic = Mosaic(np.random.default_rng(1).integers(100, 900, SHAPE, np.uint16), MONO)
    one, two = (Tally.of(mosaic, found) for found in both(rate))
    assert one == two and len(one.entries)


def test_the_part_of_a_frame_finds_its_place_in_it():
    shape = (60, 80)
    for found in both():
        whole = found.shifted(shape, 7, 11)
        image = whole.probability
        assert image.shape == shape and np.array_equal(image[7:44, 11:64], found.probability)
        assert np.count_nonzero(image) == np.count_nonzero(found.probability)
    assert found.shifted(SHAPE, 0, 0) is found
