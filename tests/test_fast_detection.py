"""The fast ways of the detector answer, bit for bit, what the plain ones do."""

import numpy as np
import plain_detection as plain
import pytest
from conftest import scene

from fixpix_cli import classical
from fixpix_cli.cfa import BAYER, MONO, QUAD_RGGB, XTRANS
from fixpix_cli.inject import Injection, inject
from fixpix_cli.levels import levels
from fixpix_cli.mosaic import Mosaic
from fixpix_cli.nets import detectors, spots, unets
from fixpix_cli.normalise import features, second

PATTERNS = [MONO, *BAYER, XTRANS, QUAD_RGGB]


def damaged(cfa, shape, rate, gaps=0.0):
    clean = scene(cfa, shape=shape)
    mosaic = clean.with_samples(inject(clean, Injection(rate, 0.6, seed=4)).samples)
    if not gaps:
        return mosaic
    samples = mosaic.samples.astype(np.float32)
    samples[np.random.default_rng(1).random(shape) < gaps] = np.nan
    samples[3:12, 5:19] = np.nan
    return Mosaic(samples, cfa, mosaic.black, mosaic.white)


@pytest.mark.parametrize("cfa", PATTERNS, ids=lambda cfa: cfa.name[:8])
@pytest.mark.parametrize("gaps", [0.0, 0.05])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (9, 14), (333, 471)], ids=str)
def test_rules_equal_the_plain_ones_at_every_stage(cfa, gaps, shape):
    seen = levels(damaged(cfa, shape, 0.02, gaps).light())
    ratios = classical._ratios(seen, "extreme")
    assert np.array_equal(ratios, plain.ratios(seen, "extreme"))
    for stage in ("light", "third", "trimmed", "second"):
        others = classical.trusted(seen.samples, ratios)
        fast = classical._ratios(seen, stage, others, fallback=ratios, threads=2)
        assert np.array_equal(fast, plain.ratios(seen, stage, others, ratios))
        ratios = fast


@pytest.mark.parametrize("cfa", [MONO, *BAYER], ids=lambda cfa: cfa.name)
@pytest.mark.parametrize("gaps", [0.0, 0.01])
def test_features_equal_the_plain_ones_inside_and_beyond_the_frame(cfa, gaps):
    seen = features.Seen.of(damaged(cfa, (301, 418), 0.01, gaps).light())
    for rows, cols in (
        ((0, 304), (0, 424)),
        ((-48, 368), (-48, 480)),
        ((96, 200), (120, 360)),
        ((256, 352), (370, 470)),
    ):
        assert np.array_equal(seen.features(rows, cols), plain.features(seen, rows, cols))


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 2), (5, 40)], ids=str)
def test_features_of_tiny_frames(shape):
    for cfa in (MONO, *BAYER):
        seen = features.Seen.of(damaged(cfa, shape, 0.1).light())
        assert np.array_equal(seen.features((-48, 56), (-48, 96)), plain.features(seen, (-48, 56), (-48, 96)))


@pytest.mark.parametrize("cfa", [MONO, BAYER[1], XTRANS], ids=lambda cfa: cfa.name)
def test_threads_change_nothing(cfa):
    mosaic = damaged(cfa, (700, 1100), 0.01)
    one, two = (detectors.detect(mosaic, threads=threads) for threads in (1, 2))
    assert np.array_equal(one.probability, two.probability) and one.rate == two.rate


def test_the_answers_of_tiles_meet_without_a_seam(monkeypatch):
    mosaic = damaged(BAYER[3], (333, 471), 0.01)
    net = detectors.shipped_unet()
    whole = net.ratios(mosaic)
    monkeypatch.setattr(unets, "TILE", 128)
    assert np.allclose(net.ratios(mosaic), whole, atol=1e-3)


def test_what_rules_and_net_say_together_is_decided_block_by_block(monkeypatch):
    """As `together`, caution and `alone` say on whole arrays."""
    mosaic = damaged(BAYER[0], (300, 400), 0.001)
    net = detectors.shipped_unet()
    seen = features.Seen.of(mosaic.light())
    first = net.ratios_of(seen)
    both = detectors.together(seen.rules, first, net.serving("agreement")) - np.float32(net.serving("caution"))
    both = np.maximum(both, first - np.float32(net.serving("alone")))
    rate = classical.rate_of(first, clear=-np.inf)
    closer = detectors.looked_closer(mosaic.light(), first, rate, None, 1)
    assert closer is not None and np.isfinite(closer).any()
    both = np.where(np.isfinite(closer), closer, both)
    rate = max(classical.rate_of(seen.rules), classical.rate_of(both, clear=-np.inf))
    monkeypatch.setattr(spots.SpotDetector, "supports", lambda self, cfa: False)
    found = detectors.detect(mosaic)
    assert np.array_equal(found.probability, classical.probability_of(both, rate))


@pytest.mark.parametrize("clear", [3.0, -np.inf])
def test_the_rate_is_that_of_a_plain_histogram(clear):
    rng = np.random.default_rng(2)
    ratios = np.where(rng.random(200_000) < 0.02, rng.normal(8, 3, 200_000), rng.normal(-7, 2, 200_000))
    ratios = ratios.astype(np.float32)
    ratios[:50] = -np.inf
    assert classical.rate_of(ratios, clear) == pytest.approx(plain.rate(ratios, clear), rel=1e-6)


@pytest.mark.parametrize("step", [1, 2])
def test_trusted_neighbours_are_summed_up_as_one_by_one(step):
    rng = np.random.default_rng(8)
    p = rng.normal(100, 30, (61, 83)).astype(np.float32)
    ok = rng.random(p.shape) < 0.4
    ok[20:40, 30:60] = False
    near, far, count, greatest, least = second._around(p, ok, step)
    one, two = (plain.around(p, ok, step, reach) for reach in (1, 2))
    for fast, slow in ((near, one[0]), (far, two[0]), (count, two[1]), (greatest, two[2]), (least, two[3])):
        assert np.array_equal(fast, slow, equal_nan=True)
