"""The last word on doubtful candidates: which are asked about, what the net sees, and what changes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import scene

from fixpix_cli import score
from fixpix_cli.candidates import candidates
from fixpix_cli.cfa import BAYER, GRBG, MONO, QUAD_RGGB, XTRANS
from fixpix_cli.classical import logit, ratios_at
from fixpix_cli.errors import ModelError
from fixpix_cli.inject import Injection, inject
from fixpix_cli.levels import Statistics
from fixpix_cli.mosaic import Mosaic
from fixpix_cli.nets import registry
from fixpix_cli.nets.cards import Card
from fixpix_cli.nets.correctors import shipped_mlp
from fixpix_cli.nets.detectors import detect
from fixpix_cli.nets.sessions import Session
from fixpix_cli.nets.spots import shipped_spot
from fixpix_cli.nets.verdicts import AGREEMENT, VerdictDetector, repairs, shipped_verdict
from fixpix_cli.normalise.verdicts import LEAST, LENGTH, MOST, Verdicts
from fixpix_cli.simulate import Sensor, stars


class Sure:
    """A net that calls every doubtful candidate bad, or good."""

    def __init__(self, ratio):
        self.ratio = ratio

    def run(self, names, inputs):
        return [np.full(len(inputs["features"]), self.ratio, np.float32)]


def sure(ratio):
    return VerdictDetector(Session(shipped_verdict().session.card, "sure", "", Sure(ratio)), shipped_mlp())


def damaged(cfa=MONO, shape=(240, 320), rate=0.001, delta=0.7, noise=0.0):
    clean = scene(cfa, shape=shape)
    spread = 1 + noise * np.random.default_rng(1).standard_normal(shape)
    clean = clean.with_samples(np.minimum(np.rint(clean.samples * spread), clean.white).astype(clean.samples.dtype))
    hurt = inject(clean, Injection(rate, delta, seed=4))
    return clean.with_samples(hurt.samples), hurt.dq != 0


def asked(mosaic):
    seen = Statistics.of(mosaic)
    pixels = candidates(mosaic, seen)
    return Verdicts(mosaic, seen, pixels, shipped_spot().told(mosaic, seen, pixels, 1))


def features(mine):
    return mine.encode(np.zeros(len(mine.index), np.float32), *repairs(mine, shipped_mlp()))


def test_fewer_mistakes():
    """Of mono and all Bayer phases together, in noise in which damage of a third is hard to see."""
    counts = {}
    for judge in (None, shipped_verdict()):
        sums = score.Detection()
        for cfa in (MONO, *BAYER):
            mosaic, bad = damaged(cfa, (480, 640), 0.001, 0.2)
            found, flags = shipped_spot()(mosaic, Statistics.of(mosaic), judge=judge), np.zeros(bad.size, bool)
            flags[found.pixels[found.ratios + logit(found.rate) > 1]] = True
            sums += score.detection(flags.reshape(bad.shape), bad)
        counts[judge is not None] = sums
    assert counts[True].misses < counts[False].misses and counts[True].false <= counts[False].false + 2


def test_sharp_stars_are_spared():
    """Behind colour filters a star as narrow as a pixel is a hot pixel for the rules; the spot net sees its rim."""
    flagged = stars_of = 0
    for seed in range(2):
        sky = stars((500, 500), seed, 200, 1.3)
        mosaic = Sensor((500, 500), BAYER[0], seed, defects=0.0).expose(sky, 30.0)
        flagged += np.count_nonzero(detect(mosaic).probability >= 0.3)
        stars_of += 200
    assert flagged <= 0.02 * stars_of


@pytest.mark.parametrize("cfa", [MONO, *BAYER], ids=lambda cfa: cfa.name)
def test_the_judge_decides(cfa, monkeypatch):
    """Doubtful candidates alone; the star guard still comes after it. (Crowds it is not asked about.)"""
    monkeypatch.setattr("fixpix_cli.nets.spots.crowded_pixels", lambda *_: np.zeros(0, np.int64))
    mosaic, _ = damaged(cfa, rate=0.0005, delta=0.3, noise=0.05)
    mine = asked(mosaic)
    assert len(mine.index) > 5
    rules = ratios_at(mosaic, mine.seen, mine.doubtful, "extreme")
    found = {r: shipped_spot()(mosaic, mine.seen, judge=sure(r)) for r in (-9.0, 9.0)}
    caution = shipped_verdict().session.card.serving["caution"]
    for ratio, spots in found.items():
        assert np.array_equal(spots.pixels, mine.pixels)
        told, star = spots.ratios[mine.index], spots.ratios[mine.index] == -12
        both = np.minimum(ratio + rules, ratio + mine.told[mine.index] + 2 * AGREEMENT) / 2
        assert np.allclose(told[~star], (both - caution)[~star], atol=1e-5) and np.mean(star) < 0.1
        others = np.setdiff1d(np.arange(len(mine.pixels)), mine.index)
        assert np.array_equal(spots.ratios[others], found[9.0].ratios[others])


@pytest.mark.parametrize("cfa", [XTRANS, QUAD_RGGB], ids=lambda cfa: cfa.name[:8])
def test_without_a_repair_there_is_no_judgement(cfa):
    mosaic, _ = damaged(cfa)
    assert not shipped_verdict().supports(cfa)
    assert detect(mosaic).method.startswith("spot") and "verdict" not in detect(mosaic).method


def test_the_method_says_who_judged():
    """In long exposures weak outliers are what the owner wants repaired: rules and spot net decide."""
    mosaic, _ = damaged()
    assert detect(mosaic).method.startswith("spot+verdict")
    assert "verdict" not in detect(mosaic, exposure=120.0).method


def test_many_doubtful_pixels_are_repaired_in_parts(monkeypatch):
    """Each by what is around it: where the parts begin does not matter."""
    mosaic, _ = damaged(GRBG, (300, 340), 0.01, 0.3, 0.05)
    mine = asked(mosaic)
    whole = repairs(mine, shipped_mlp())
    monkeypatch.setattr("fixpix_cli.nets.verdicts.WHOLE", 10)
    monkeypatch.setattr("fixpix_cli.nets.verdicts.TILE", 128)
    for threads in (1, 3):
        parts = repairs(mine, shipped_mlp(), threads)
        assert np.isfinite(parts).all()
        # The linear prediction is fitted on the part, so that repairs differ by less than their sigma.
        assert np.quantile(np.abs(parts[0] - whole[0]) / whole[1], 0.95) < 0.5


def test_a_doubtful_pixel_speaks_for_none():
    """What it holds changes no repair, neither its own nor that of its neighbour."""
    mosaic, _ = damaged(rate=0.01, delta=0.3, noise=0.05)
    mine = asked(mosaic)
    samples = mosaic.samples.copy()
    samples.reshape(-1)[mine.doubtful] = 4095
    other = replace(mine, light=mosaic.with_samples(samples))
    assert np.array_equal(repairs(mine, shipped_mlp()), repairs(other, shipped_mlp()))


def test_features_say_how_far_off_a_pixel_is():
    mosaic, bad = damaged(BAYER[2], (480, 640), 0.003, 0.3, 0.05)
    mine = asked(mosaic)
    found, truth = features(mine), bad.reshape(-1)[mine.doubtful]
    assert found.shape == (len(mine.index), LENGTH) and found.dtype == np.float32 and np.isfinite(found).all()
    assert np.median(found[truth, 3]) > np.quantile(found[~truth, 3], 0.9)  # unlikely
    assert np.allclose(found[:, 0], np.clip(mine.told[mine.index] / 8, -2, 3))
    rows, cols = np.divmod(mine.doubtful, 640)
    green = [mosaic.cfa.colour(r, c) == "G" for r, c in zip(rows % 2, cols % 2, strict=True)]
    assert not found[:, 11].any() and np.array_equal(found[:, 12], green)
    assert np.ptp(found[:, [13, 14, 19, 20, 26, 27]], axis=0).max() == 0  # of the frame
    assert found[0, 26] > 0.05 and found[0, 27] > 0.05  # damage is off by a factor of 1.2 and more
    assert (found[:, 15:17] > np.log(1e-4) / 8).all()  # each counts itself
    assert np.all((mine.told[mine.index] > LEAST) & (mine.told[mine.index] <= MOST))


def test_features_of_neighbours():
    """What touches a pixel, and what is two steps away, as far as it is a candidate."""
    mosaic, _ = damaged(shape=(60, 70), rate=0.0005)
    seen = Statistics.of(mosaic)
    pixels = np.array([0, 1, 30 * 70 + 30, 30 * 70 + 32, 31 * 70 + 31])
    told = np.array([4.0, -4.0, 6.0, 7.0, 5.0], np.float32)
    found = features(Verdicts(mosaic, seen, pixels, told))
    assert len(found) == 4
    assert np.allclose(found[:, 21], [-0.5, 5 / 8, 5 / 8, 7 / 8])  # the greatest that touches it
    assert np.allclose(found[:, 22], [-1.5, 7 / 8, 6 / 8, -1.5])
    assert np.allclose(found[:, 23], [0, 1 / 8, 1 / 8, 2 / 8]) and np.allclose(found[:, 24], [0, 1 / 8, 1 / 8, 0])


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (9, 40)], ids=str)
def test_no_frame_is_too_odd(shape):
    """All doubtful, or none, in frames of few pixels: an answer, and no complaint."""
    rng = np.random.default_rng(3)
    mosaic = Mosaic(rng.integers(100, 900, shape).astype(np.uint16), BAYER[1], ((64.0,),), 1023.0)
    seen, pixels = Statistics.of(mosaic), np.arange(mosaic.samples.size)
    for told in (5.0, -5.0):
        mine = Verdicts(mosaic, seen, pixels, np.full(len(pixels), told, np.float32))
        with np.errstate(all="raise", under="ignore"):
            ratios = shipped_verdict().ratios(mine, np.zeros(len(mine.index), np.float32))
        assert len(ratios) == (len(pixels) if told > 0 else 0) and np.isfinite(ratios).all()


def test_missing_samples_stay_missing():
    mosaic, _ = damaged(MONO, (160, 200))
    samples = mosaic.samples.astype(np.float32)
    samples[40:42, 50:60] = np.nan
    found = detect(replace(mosaic, samples=samples))
    assert found.method.startswith("spot+verdict")
    assert not found.probability[40:42, 50:60].any() and np.isfinite(found.probability).all()


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"serving": {}}, "caution"),
        ({"normalisation": "verdict"}, "verdict"),
        ({"inputs": {"features": ["n", 5]}}, "the card says"),
        ({"family": "unet"}, "unet"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(tmp_path, changes, words):
    blob, old = registry.read("verdict"), registry.show("verdict").card.to_json().encode()
    new = json.dumps(json.loads(old) | changes, ensure_ascii=False, sort_keys=True).encode()
    path = tmp_path / "mine.onnx"
    path.write_bytes(blob.data.replace(old, new.ljust(len(old))))
    assert len(new) <= len(old)
    with pytest.raises(ModelError, match=words):
        VerdictDetector.open(path)


def test_the_card_says_whose_repairs_it_learnt_from():
    card = Card.parse(registry.show("verdict").card.to_json(), "verdict")
    assert card.training["mlp"] == registry.read("mlp").sha256
    assert json.loads(card.to_json())["metrics"]
