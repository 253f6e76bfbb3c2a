"""The spot detector: candidates judged by the net and the rules, crowds peeled, and when it is not asked."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import scene

from fixpix_cli import score
from fixpix_cli.cfa import BAYER, MONO, QUAD_RGGB, XTRANS, Cfa
from fixpix_cli.crowds import crowded_pixels, crowds
from fixpix_cli.errors import ModelError
from fixpix_cli.inject import Injection, inject
from fixpix_cli.levels import Statistics
from fixpix_cli.mosaic import Area, Mosaic
from fixpix_cli.nets import registry
from fixpix_cli.nets.detectors import detect
from fixpix_cli.nets.spots import SpotDetector, fill, shipped_spot, together
from fixpix_cli.normalise import spots
from fixpix_cli.simulate import Sensor, stars
from fixpix_cli.stars import share_their_light

PATTERNS = [MONO, *BAYER, XTRANS, XTRANS.shifted(3, 1), QUAD_RGGB]


def serving(**numbers):
    """The shipped detector with other numbers on its card."""
    session = shipped_spot().session
    card = replace(session.card, serving=session.card.serving | numbers)
    return SpotDetector(replace(session, card=card))


def hurt(cfa, shape=(240, 320), rate=0.003, pattern="scattered"):
    clean = scene(cfa, shape=shape)
    damage = inject(clean, Injection(rate, 0.7, pattern=pattern, seed=4))
    return clean.with_samples(damage.samples), damage.dq != 0


@pytest.mark.parametrize("cfa", PATTERNS, ids=lambda cfa: cfa.name[:8])
def test_every_pattern_has_weights(cfa):
    """X-Trans and Quad-Bayer, too, in any phase."""
    mosaic, bad = hurt(cfa)
    found = detect(mosaic)
    ratios = score.detection(found.probability > 0.3, bad).ratios()
    assert found.method.startswith("spot")
    assert ratios["recall"] > 0.9 and ratios["precision"] > 0.97


def test_an_unknown_pattern_is_left_to_the_rules():
    mosaic, _ = hurt(Cfa(("RC", "MY")))
    assert not shipped_spot().supports(mosaic.cfa)
    assert detect(mosaic).method == "rules"


@pytest.mark.parametrize("cfa", [MONO, BAYER[3], XTRANS], ids=lambda cfa: cfa.name)
def test_a_cluster_is_peeled(cfa):
    """Of a 5 x 5 cluster hardly a pixel stands out of its neighbours, since they are bad as well."""
    clean = scene(cfa, shape=(400, 480))
    rng, samples = np.random.default_rng(3), clean.samples.copy()
    bad = np.zeros(clean.shape, bool)
    for row, col in ((40, 60), (120, 100), (150, 190)):
        part = (slice(row, row + 5), slice(col, col + 5))
        factor = np.where(rng.random((5, 5)) < 0.5, rng.uniform(0, 0.3, (5, 5)), rng.uniform(1.7, 3, (5, 5)))
        samples[part], bad[part] = clean.samples[part] * factor, True
    found = detect(clean.with_samples(samples))
    ratios = score.detection(found.probability > 0.3, bad).ratios()
    assert found.method == ("spot" if cfa is XTRANS else "spot+verdict") + ", crowds peeled"
    assert ratios["recall"] > 0.75 and ratios["precision"] > 0.95


@pytest.mark.parametrize("rate", [0.4, 0.7])
def test_dense_damage_is_not_left_to_candidates(rate):
    """Lost otherwise: at 70 % damage nothing stands out of its neighbours, and the frame seems to be whole."""
    mosaic, bad = hurt(BAYER[0], rate=rate)
    found = detect(mosaic)
    ratios = score.detection(found.probability > 0.3, bad).ratios()
    assert found.method.startswith("unet") and ratios["recall"] > 0.85 and ratios["precision"] > 0.85


def test_weak_hot_pixels_of_long_exposures_are_found():
    """As many as the rules say; in a short exposure they are the frame's own."""
    sensor = Sensor(shape=(300, 400), cfa=BAYER[0], seed=5, defects=0.0)
    sky = sensor.expose(stars((300, 400), 6, 20, 2.6), 60.0)
    rows, cols = np.random.default_rng(2).integers(10, 290, (2, 120))
    samples = sky.samples.copy()
    noise = float(np.std(sky.samples[::2, ::2].astype(float)[:20, :20]))
    samples[rows, cols] += np.uint16(12 * noise)
    bad = np.zeros(sky.shape, bool)
    bad[rows, cols] = True
    found = detect(sky.with_samples(samples), exposure=60.0)
    ratios = score.detection(found.probability > 0.3, bad).ratios()
    assert ratios["recall"] > 0.8 and ratios["precision"] > 0.9


@pytest.mark.parametrize("cfa", [MONO, BAYER[0], XTRANS], ids=lambda cfa: cfa.name)
def test_a_bad_pixel_among_bad_neighbours_is_uncovered(cfa):
    """Two brighter neighbours hide a pixel; without them it stands out."""
    clean = scene(cfa, shape=(300, 360))
    samples = inject(clean, Injection(0.004, 0.7, seed=9)).samples.copy()
    row, col = 150, 150
    beside = [o for o in cfa.nearest(row % cfa.period[0], col % cfa.period[1], 8) if o[0] == 0]
    offsets = [(0, 0), *beside[:2]]
    for r, c in offsets:
        samples[row + r, col + c] = clean.white * (0.7 if (r, c) == (0, 0) else 0.95)
    found = detect(clean.with_samples(samples))
    assert found.method.startswith("spot")
    assert all(found.probability[row + r, col + c] > 0.3 for r, c in offsets)


def test_light_beside_a_bad_pixel_makes_no_star_of_it():
    """A star's light falls on all sides; two bright corners are something else."""
    clean = scene(MONO, shape=(300, 360))
    middle, base = (150, 180), float(np.median(clean.samples))
    samples = clean.samples.astype(float)
    for r, c in ((0, 0), (-1, 1), (1, 1)):
        samples[middle[0] + r, middle[1] + c] = base + (0.5 if (r, c) == (0, 0) else 0.2) * clean.white
    mosaic = clean.with_samples(np.minimum(samples, clean.white).astype(clean.samples.dtype))
    pixel, seen = np.array([middle[0] * 360 + middle[1]]), Statistics.of(mosaic)
    assert not share_their_light(mosaic, seen, pixel)
    for r, c in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        samples[middle[0] + r, middle[1] + c] = base + 0.2 * clean.white
    star = clean.with_samples(np.minimum(samples, clean.white).astype(clean.samples.dtype))
    assert share_their_light(star, seen, pixel)


def test_maps_are_made_from_every_pixel():
    """Lost otherwise: weak pixels that are candidates in no frame never add up."""
    mosaic, _ = hurt(BAYER[0])
    found = detect(mosaic, thorough=True)
    assert found.method.startswith("rules+unet") and found.image is not None
    assert detect(hurt(XTRANS)[0], thorough=True).method.startswith("rules+unet")


def test_too_much_of_anything_is_left_to_the_unets():
    mosaic, _ = hurt(BAYER[0])
    seen = Statistics.of(mosaic)
    assert shipped_spot()(mosaic, seen) is not None
    for limit in ("most_share", "most_rate"):
        assert serving(**{limit: 1e-6})(mosaic, seen) is None
    mosaic, _ = hurt(BAYER[0], pattern="cluster:5")
    seen = Statistics.of(mosaic)
    assert shipped_spot()(mosaic, seen) is None
    assert serving(most_crowded=1)(mosaic, seen).peeled and shipped_spot()(mosaic, seen, alone=True).peeled


def test_threads_and_masked_borders_change_nothing():
    mosaic, _ = hurt(BAYER[1], (700, 900))
    one, two = (detect(mosaic, threads=threads) for threads in (1, 3))
    assert np.array_equal(one.pixels, two.pixels) and np.array_equal(one.values, two.values)
    wide = np.full((712, 920), 7, np.uint16)
    wide[4:704, 8:908] = mosaic.samples
    bordered = Mosaic(wide, mosaic.cfa, mosaic.black, mosaic.white, Area(4, 8, 704, 908))
    found = detect(bordered).probability
    assert np.array_equal(found[4:704, 8:908], one.probability) and np.count_nonzero(found) == len(one.pixels)


def test_floats_are_judged_like_integers():
    mosaic, bad = hurt(MONO)
    floats = Mosaic(
        (mosaic.samples * 1e-9).astype(np.float32), MONO, ((mosaic.black[0][0] * 1e-9,),), mosaic.white * 1e-9
    )
    found = detect(floats)
    ratios = score.detection(found.probability > 0.3, bad).ratios()
    assert found.method.startswith("spot") and ratios["recall"] > 0.9 and ratios["precision"] > 0.95


def test_a_suspect_is_replaced_by_its_trusted_neighbours():
    mosaic, _ = hurt(BAYER[0], rate=0.0001)
    samples, good = mosaic.samples.copy(), np.ones(mosaic.shape, bool)
    samples[50:53, 60:63] = 16_000
    dirty, out = mosaic.with_samples(samples), samples.copy()
    suspects = np.array([r * 320 + c for r in range(50, 53) for c in range(60, 63)])
    fill(dirty, good, suspects, out)
    assert good.all() and np.array_equal(out == samples, ~np.isin(np.arange(out.size), suspects).reshape(out.shape))
    around = mosaic.samples[44:59, 54:69]
    assert (around.min() <= out[50:53, 60:63]).all() and (out[50:53, 60:63] <= around.max()).all()


def test_crowds_as_pixels_are_those_of_the_mask():
    rng = np.random.default_rng(1)
    suspects = np.flatnonzero(rng.random(300 * 401) < 0.01)
    below = rng.random(len(suspects)) < 0.5
    mask = crowds((300, 401), suspects, below, 0.002)
    pixels = crowded_pixels((300, 401), suspects, below, 0.002)
    assert mask.any() and np.array_equal(np.flatnonzero(mask), pixels)
    assert not len(crowded_pixels((300, 401), suspects[:1], below[:1], 0.002))


def test_both_must_speak_but_for_a_little():
    assert together(np.float32([10, -3]), np.float32([2, 9]), 1.5).tolist() == [3.5, -1.5]


def test_models_for_something_else_are_refused():
    with pytest.raises(ModelError, match="family 'mlp'"):
        SpotDetector.open("mlp")
    with pytest.raises(ModelError, match="doubt"):
        serving(doubt=None).serving("doubt")


def test_the_card_says_what_the_net_is():
    card = registry.show("spot").card
    assert card.normalisation == spots.NORMALISATION and card.data and len(card.code) == 64
    assert tuple(card.inputs["window"]) == (spots.LENGTH, "n") and "XTRANS" in card.cfa
