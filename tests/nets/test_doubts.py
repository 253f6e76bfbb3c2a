"""Doubtful pixels judged by their repair: which are asked about, what the net sees, and what changes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import scene

from fixpix_cli import score
from fixpix_cli.cfa import BAYER, MONO, QUAD_RGGB, XTRANS
from fixpix_cli.errors import ModelError
from fixpix_cli.inject import Injection, inject
from fixpix_cli.mosaic import Mosaic
from fixpix_cli.nets import registry
from fixpix_cli.nets.cards import Card
from fixpix_cli.nets.correctors import shipped_mlp
from fixpix_cli.nets.detectors import detect
from fixpix_cli.nets.doubts import DoubtDetector, features_of, shipped_doubt
from fixpix_cli.nets.sessions import Session
from fixpix_cli.normalise import doubts


class Sure:
    """A net that calls every doubtful pixel bad."""

    def run(self, names, inputs):
        return [np.full(len(inputs["features"]), 9.0, np.float32)]


def sure():
    card = shipped_doubt().session.card
    return DoubtDetector(Session(card, "sure", "", Sure()), shipped_mlp())


def damaged(cfa=MONO, shape=(240, 320), rate=0.2, pattern="scattered"):
    clean = scene(cfa, shape=shape)
    hurt = inject(clean, Injection(rate, 0.7, pattern=pattern, seed=4))
    return clean, clean.with_samples(hurt.samples), hurt.dq != 0


def odds_of(bad, doubtful=0.0, seed=1):
    """Log-odds that are right, but for a tenth of the pixels, which are doubtful."""
    odds = np.where(bad, 8.0, -8.0).astype(np.float32)
    odds[np.random.default_rng(seed).random(bad.shape) < 0.1] = doubtful
    return odds


@pytest.mark.parametrize("rate, left", [(0.08, 0.7), (0.3, 0.2), (0.6, 0.2)])
def test_fewer_mistakes(rate, left):
    """Of mono and all Bayer phases together; most mistakes of rules and nets are gone, missed and false alike."""
    before, after = score.Detection(), score.Detection()
    for cfa in (MONO, *BAYER):
        _, mosaic, bad = damaged(cfa, rate=rate)
        for judged in (False, True):
            found = detect(mosaic, judged=judged)
            assert found.method.endswith("judged by repair") is judged
            mine = score.detection(found.probability > 0.5, bad)
            before, after = (before, after + mine) if judged else (before + mine, after)
    assert after.misses <= left * before.misses and after.false <= before.false


@pytest.mark.parametrize("pattern", ["cluster:2", "cluster:4"])
def test_what_is_missed_in_clusters_and_beside_them(pattern):
    wrong = [0, 0]
    for cfa in (MONO, BAYER[1]):
        _, mosaic, bad = damaged(cfa, (400, 480), 0.01, pattern)
        for judged in (False, True):
            wrong[judged] += np.count_nonzero((detect(mosaic, judged=judged).probability > 0.3) != bad)
    assert wrong[True] < 0.7 * wrong[False]


@pytest.mark.parametrize("cfa", [XTRANS, QUAD_RGGB], ids=lambda cfa: cfa.name[:8])
def test_without_a_repair_there_is_no_judgement(cfa):
    _, mosaic, _ = damaged(cfa)
    assert not shipped_doubt().supports(cfa)
    assert "judged" not in detect(mosaic).method


def test_what_is_rare_is_not_judged():
    """At a tenth of a percent candidates alone are looked at, and nothing is judged even where every pixel is."""
    _, mosaic, _ = damaged(rate=0.001)
    for thorough in (False, True):
        assert "judged" not in detect(mosaic, thorough=thorough).method


def test_weak_outliers_of_long_exposures_are_left_alone():
    _, mosaic, _ = damaged(rate=0.01)
    assert "judged" in detect(mosaic, thorough=True, exposure=1.0).method
    assert "judged" not in detect(mosaic, thorough=True, exposure=120.0).method


def test_only_doubtful_pixels_change():
    _, mosaic, bad = damaged(BAYER[2], (150, 170))
    before = odds_of(bad)
    after = before.copy()
    sure().judge(mosaic, after, 0.2)
    doubtful = np.abs(before) < doubts.DOUBT
    assert np.array_equal(after[~doubtful], before[~doubtful])
    assert np.allclose(after[doubtful], 9.0 - 0.8**6 * sure().serving("caution"))


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_do_not_matter(threads, monkeypatch):
    monkeypatch.setattr("fixpix_cli.nets.doubts.TILE", 64)
    _, mosaic, bad = damaged(BAYER[0], (200, 180))
    odds = [odds_of(bad), odds_of(bad)]
    for n, mine in zip((1, threads), odds, strict=True):
        shipped_doubt().judge(mosaic, mine, 0.2, n)
    assert np.array_equal(*odds)


def test_parts_judge_nearly_as_the_whole(monkeypatch):
    """They differ in what is usual around them, not in where they begin."""
    _, mosaic, bad = damaged(BAYER[3], (256, 256))
    whole, parts = odds_of(bad), odds_of(bad)
    shipped_doubt().judge(mosaic, whole, 0.2)
    monkeypatch.setattr("fixpix_cli.nets.doubts.TILE", 128)
    shipped_doubt().judge(mosaic, parts, 0.2)
    assert np.mean((whole > 0) == (parts > 0)) > 0.998


def test_what_outlies_the_good_is_doubtful():
    """Where most of a dim scene is bad, what is left of the damage shines among the good pixels."""
    rng = np.random.default_rng(2)
    light = Mosaic(np.rint(1100 + rng.normal(0, 5, (80, 80))).astype(np.uint16), BAYER[0], ((1000.0,),), 16383.0)
    odds = np.full(light.shape, -8.0, np.float32)
    light.samples[30, 41], light.samples[50, 21] = 9000, 1000
    for rate, found in ((0.05, []), (0.7, [30 * 80 + 41, 50 * 80 + 21])):
        seen = doubts.Doubts(light, odds, rate)
        assert seen.doubtful.tolist() == found
        assert not np.isin(seen.held, seen.doubtful).any()
        holes = np.flatnonzero(seen.holes)
        assert np.array_equal(holes, np.union1d(seen.doubtful, seen.held))


@pytest.mark.parametrize("side", [2, 3, 4, 5])
@pytest.mark.parametrize("factors", [(1.8, 2.2), (0.1, 0.4)], ids=["bright", "dark"])
@pytest.mark.parametrize("cfa", [MONO, *BAYER], ids=lambda cfa: cfa.name)
def test_a_cluster_that_hides_itself_is_doubtful(cfa, factors, side):
    """All of its pixels are off to the same side, so that each has neighbours like itself, and none is a suspect."""
    light, odds, cluster = wall(cfa, side, factors)
    doubtful = doubts.Doubts(light, odds, 0.01).doubtful
    assert np.isin(np.flatnonzero(cluster), doubtful).all() and len(doubtful) < (side + 4) ** 2
    # Where damage is dense, and where bad pixels do not stand together elsewhere, touching ones are not sought.
    assert len(doubts.Doubts(light, odds, 0.3).doubtful) < side * side or side == 2
    assert not doubts.Doubts(light, np.where(odds > 0, np.float32(-8), odds), 0.01).doubtful.size


def wall(cfa, side, factors):
    """A noisy grey wall with two clusters: one of bad pixels that are known, one of which nothing is; their odds."""
    rng = np.random.default_rng(side)
    gains = np.ones((2, 2)) if cfa is MONO else np.array([[1.0, 0.7], [0.6, 0.8]])
    samples = 600 * np.tile(gains, (40, 45)) + rng.normal(0, 5, (80, 90))
    cluster, known = np.zeros((2, 80, 90), bool)
    cluster[31 : 31 + side, 40 : 40 + side] = known[60:63, 10:13] = True
    samples[cluster] *= rng.uniform(*factors, side * side)
    samples[known] = 3000
    light = Mosaic(np.rint(samples + 64).astype(np.uint16), cfa, ((64.0,),), 4095.0)
    return light, np.where(known, np.float32(8), np.float32(-8)), cluster


def test_features_tell_clusters_from_stars():
    """Neighbours that are off, how little the least of them is, and whether bad pixels stand together."""
    light, odds, cluster = wall(MONO, 2, (4.0, 5.0))
    rows, cols = np.mgrid[:80, :90]
    star = 600 * 5 * np.exp(-((rows - 20) ** 2 + (cols - 70) ** 2) / 4)
    seen = doubts.Doubts(light.with_samples((light.samples + star).astype(np.uint16)), odds, 0.01)
    found = dict(zip(seen.doubtful.tolist(), features_of(seen, seen.doubtful, shipped_mlp()), strict=True))
    bad, core = found[np.flatnonzero(cluster)[0]], found[20 * 90 + 70]
    assert bad[19] == pytest.approx(3 / 8) and core[19] == 1.0 and bad[20] == core[20] == 0
    assert core[21] < 0.6 * bad[21]
    assert bad[18] == core[18] > 0.5 and abs(doubts.Doubts(light, odds - 16, 0.01).crowd) < 0.01


def test_features_say_how_far_off_a_pixel_is():
    _, mosaic, bad = damaged(BAYER[0], (200, 220))
    good = np.flatnonzero(~bad)[::97]
    odds = np.where(bad, 8.0, -8.0).astype(np.float32)
    odds.reshape(-1)[good] = 0.5
    samples = mosaic.samples.copy()
    samples.reshape(-1)[good[::2]] = 4000
    seen = doubts.Doubts(mosaic.with_samples(samples), odds, 0.2)
    found = features_of(seen, good, shipped_mlp())
    assert found.shape == (len(good), doubts.LENGTH) and found.dtype == np.float32 and np.isfinite(found).all()
    off, right = found[::2], found[1::2]
    assert np.quantile(off[:, 2], 0.05) > np.quantile(right[:, 2], 0.95)  # unlikely
    assert off[:, 12].mean() < right[:, 12].mean() - 0.3  # hardly a good pixel of the frame is
    assert off[:, 15].mean() > right[:, 15].mean()  # bad ones are
    assert np.allclose(found[:, 0], 0.5 / 8) and not found[:, 8].any()
    assert np.ptp(found[:, 13:15], axis=0).max() == 0 and np.ptp(found[:, 16:19], axis=0).max() == 0  # of the frame


@pytest.mark.parametrize("odds", [-8.0, 0.0, 8.0])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (9, 40)], ids=str)
def test_no_frame_is_too_odd(odds, shape):
    """All good, all doubtful, all bad, in frames of few pixels: an answer, and no complaint."""
    rng = np.random.default_rng(3)
    mosaic = Mosaic(rng.integers(100, 900, shape).astype(np.uint16), BAYER[1], ((64.0,),), 1023.0)
    found = np.full(shape, odds, np.float32)
    with np.errstate(all="raise"):
        shipped_doubt().judge(mosaic, found, 0.5)
    assert np.isfinite(found).all()


def test_missing_samples_stay_missing():
    _, mosaic, bad = damaged(MONO, (160, 200), 0.25)
    samples = mosaic.samples.astype(np.float32)
    gaps = np.zeros(bad.shape, bool)
    gaps[40:42, 50:60] = True
    samples[gaps] = np.nan
    found = detect(replace(mosaic, samples=samples))
    assert found.method.endswith("judged by repair")
    assert not found.probability[gaps].any() and np.isfinite(found.probability).all()


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"serving": {"caution": 1.0}}, "least_rate"),
        ({"serving": {"least_rate": 0.1}}, "caution"),
        ({"normalisation": "doubts0"}, "doubts0"),
        ({"inputs": {"features": ["n", 5]}}, "the card says"),
        ({"family": "unet"}, "unet"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(tmp_path, changes, words):
    blob, old = registry.read("doubt"), registry.show("doubt").card.to_json().encode()
    new = json.dumps(json.loads(old) | changes, ensure_ascii=False, sort_keys=True).encode()
    path = tmp_path / "mine.onnx"
    path.write_bytes(blob.data.replace(old, new.ljust(len(old))))
    assert len(new) <= len(old)
    with pytest.raises(ModelError, match=words):
        DoubtDetector.open(path)


def test_the_card_says_whose_repairs_it_learnt_from():
    card = Card.parse(registry.show("doubt").card.to_json(), "doubt")
    assert card.training["mlp"] == registry.read("mlp").sha256
    assert json.loads(card.to_json())["metrics"]
