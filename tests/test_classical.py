"""The detector finds what was damaged, on every colour and phase, and little else."""

import numpy as np
import pytest
from conftest import scene

from fixpix_cli import classical, score
from fixpix_cli.cfa import BAYER, MONO, RGGB, XTRANS
from fixpix_cli.evidence import DEFAULT_THRESHOLD
from fixpix_cli.inject import Injection, inject
from fixpix_cli.mosaic import Area, Mosaic
from fixpix_cli.simulate import Sensor


@pytest.mark.parametrize("rate", [0.002, 0.02, 0.2])
@pytest.mark.parametrize("cfa", [*BAYER, MONO, XTRANS], ids=lambda c: c.name)
def test_every_position_of_the_tile(cfa, rate):
    clean = scene(cfa, shape=(360, 480))
    damage = inject(clean, Injection(rate, 0.7, seed=9))
    truth = damage.dq != 0
    found = classical.detect(clean.with_samples(damage.samples))
    flagged = found.probability >= DEFAULT_THRESHOLD
    ratios = score.detection(flagged, truth).ratios()
    assert ratios["precision"] > 0.95
    for r, c in cfa.positions:
        mine = (slice(r, None, cfa.period[0]), slice(c, None, cfa.period[1]))
        if truth[mine].sum() >= 20:
            assert score.detection(flagged[mine], truth[mine]).ratios()["recall"] > 0.93, (r, c)
    assert found.rate == pytest.approx(rate, rel=0.3)


def test_a_dark_frame_with_unknown_black_shows_its_hot_pixels():
    sensor = Sensor(shape=(300, 400), cfa=MONO, seed=3)
    dark = sensor.expose(None, 30)
    hidden = Mosaic(dark.samples, MONO)  # a header that states neither black nor white
    found = classical.detect(hidden).probability >= 0.5
    strong = (sensor.truth != 0) & (dark.samples > 512 + 150)
    assert found[strong].mean() > 0.98
    assert (found & (sensor.truth == 0)).sum() < 20


def test_pure_noise_is_not_taken_for_damage():
    rng = np.random.default_rng(0)
    noise = Mosaic(np.rint(1000 + 9 * rng.standard_normal((500, 500))).astype(np.uint16), MONO)
    found = classical.detect(noise)
    assert (found.probability >= 0.5).sum() <= 5
    assert found.rate < 0.001


def test_nan_saturated_and_empty_frames():
    for samples in (
        np.full((40, 40), np.nan, np.float32),
        np.zeros((40, 40), np.uint16),
        np.full((40, 40), 65535, np.uint16),
        np.ones((1, 1), np.uint16),
    ):
        found = classical.detect(Mosaic(samples, RGGB))
        assert np.isfinite(found.probability).all()
        assert (found.probability >= 0.5).sum() == 0


def test_masked_borders_are_never_flagged():
    clean = scene()
    samples = clean.samples.copy()
    samples[0, ::3] = 16000
    found = classical.detect(Mosaic(samples, RGGB, clean.black, clean.white, Area(2, 0, 120, 160)))
    assert found.probability[:2].max() == 0


@pytest.mark.data
@pytest.mark.parametrize(("rate", "recall", "precision"), [(1e-4, 0.98, 0.95), (0.2, 0.99, 0.97)])
def test_real_cameras(data, rate, recall, precision):
    from fixpix_cli import files

    paths = [data / "dng/canon_550d_packed14.dng", *sorted((data / "raw").glob("canon_s40*.CRW"))[::3]]
    total = []
    for path in paths:
        clean = files.load(path).mosaics[0].light()
        damage = inject(clean, Injection(rate, 0.7, seed=2))
        flagged = classical.detect(clean.with_samples(damage.samples)).probability >= DEFAULT_THRESHOLD
        ratios = score.detection(flagged, damage.dq != 0, score.native_outliers(clean)).ratios()
        total.append((ratios["recall"], ratios["precision"]))
    mean = np.mean(total, axis=0)
    assert mean[0] >= recall and mean[1] >= precision


@pytest.mark.parametrize("cfa", [RGGB, MONO], ids=lambda c: c.name)
def test_sharp_stars_are_spared_and_hot_pixels_among_them_found(cfa):
    from fixpix_cli.simulate import stars

    sky = stars((320, 480), 4, count=250, fwhm=2.0)
    clean = Sensor(shape=sky.shape, cfa=cfa, seed=9, defects=0).expose(sky, 30)
    found = classical.detect(clean).probability >= DEFAULT_THRESHOLD
    assert found.sum() <= 8
    sensor = Sensor(shape=sky.shape, cfa=cfa, seed=9)
    flagged = classical.detect(sensor.expose(sky, 30)).probability >= DEFAULT_THRESHOLD
    hot = (sensor.truth & (1 << 11)) != 0
    assert flagged[hot].mean() > 0.9


@pytest.mark.parametrize("cfa", [MONO, *BAYER], ids=lambda cfa: cfa.name)
def test_hot_pixels_at_the_edge_and_in_the_corners_are_found(cfa):
    rng = np.random.default_rng(8)
    samples = np.rint(3000 + rng.normal(0, 8, (120, 160))).astype(np.uint16)
    places = [(0, 0), (0, 77), (1, 159), (119, 0), (118, 80), (60, 1), (61, 158)]
    for place in places:
        samples[place] = 9000
    found = classical.detect(Mosaic(samples, cfa, ((512.0,),), 16383.0)).probability > 0.3
    assert sorted(zip(*np.nonzero(found), strict=True)) == sorted(places)


@pytest.mark.parametrize("kind, found", [("dark", True), ("bias", True), ("flat", False)])
@pytest.mark.parametrize("cfa", [MONO, RGGB], ids=lambda cfa: cfa.name)
def test_hot_pixels_that_hide_each_other_are_found_where_there_is_no_picture(kind, found, cfa):
    rng = np.random.default_rng(3)
    samples = rng.normal(512, 8, (160, 200))
    samples[::, :] += np.linspace(0, 300, 200)  # the glow of an amplifier
    bad = np.zeros(samples.shape, bool)
    bad[40:45, 60:65] = bad[:, 120] = bad[100:102, 30:32] = True
    samples[bad] = 3000
    seen = (
        classical.detect(Mosaic(np.rint(samples).astype(np.uint16), cfa, ((500.0,),), 16383.0), kind).probability > 0.3
    )
    assert not seen[~bad].any()
    assert bool(seen[bad].all()) == found


def test_a_dark_without_defects_stays_clean():
    rng = np.random.default_rng(4)
    samples = np.rint(rng.normal(100, 0.4, (300, 300))).astype(np.uint16)  # most of its blocks hold one value only
    assert (classical.detect(Mosaic(samples, MONO), "dark").probability > 0.3).mean() < 1e-4
