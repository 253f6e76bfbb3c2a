"""The vit: it rebuilds what is bad, anywhere in any frame, and nothing else decides what it answers."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from conftest import textured

from fixpix_cli import strategy
from fixpix_cli.cfa import BAYER, MONO, QUAD_RGGB, XTRANS
from fixpix_cli.errors import FrameError, ModelError
from fixpix_cli.inject import Injection, inject
from fixpix_cli.mosaic import Area, Mosaic
from fixpix_cli.nets import registry
from fixpix_cli.nets.correctors import shipped_mlp
from fixpix_cli.nets.reconstructors import BlindVit, VitCorrector, shipped_blind, shipped_vit
from fixpix_cli.normalise import patches
from fixpix_cli.repair import least_squares, median, repair

PATTERNS = [MONO, *BAYER]
NAMES = [cfa.name for cfa in PATTERNS]


def scene(cfa, shape=(160, 176), seed=0):
    return textured(cfa, shape, seed)


def damage(mosaic, rate=0.6, pattern="scattered"):
    hurt = inject(mosaic, Injection(rate, pattern=pattern, seed=3))
    return mosaic.with_samples(hurt.samples), hurt.dq != 0


def error(clean, bad, corrector, damaged):
    repaired = repair(damaged, bad, corrector).astype(float)
    assert np.array_equal(repaired[~bad], damaged.samples[~bad])
    return float(np.mean((repaired - clean.samples)[bad] ** 2))


def known(mosaic, bad):
    return patches.Seen.known(mosaic, bad, shipped_mlp().refine)


# ------------------------------------------------------------- the tiles


@pytest.mark.parametrize("cfa", PATTERNS, ids=NAMES)
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (47, 130), (64, 64), (97, 49)])
def test_cores_cover_every_pixel_once_and_tiles_begin_with_red(cfa, shape):
    count = np.zeros(shape, int)
    for top, left in zip(*patches.tiles_of(np.ones(shape, bool), cfa), strict=True):
        core, part = patches.cores(shape, top, left)
        count[core] += 1
        assert [s.stop - s.start for s in core] == [s.stop - s.start for s in part]
        if cfa.is_bayer:
            assert cfa.colour(top, left) == "R"
    assert (count == 1).all()


def test_only_tiles_with_damage_are_cut():
    bad = np.zeros((480, 480), bool)
    bad[100, 200] = True
    tops, lefts = patches.tiles_of(bad, BAYER[2])
    assert len(tops) == 1
    core, _ = patches.cores(bad.shape, tops[0], lefts[0])
    assert bad[core].any()


@pytest.mark.parametrize("cfa", PATTERNS, ids=NAMES)
def test_the_input_does_not_depend_on_gain_and_offset(cfa):
    damaged, bad = damage(scene(cfa))
    other = Mosaic(damaged.samples * 3.5 + 20000.0, cfa, ((0.0,),), 1.0)
    tops, lefts = patches.tiles_of(bad, cfa)
    (a, unit), (b, wider) = (patches.encode(known(m, bad), tops, lefts) for m in (damaged, other))
    assert np.abs(a - b).max() < 0.02 and np.allclose(3.5 * unit, wider, rtol=1e-3)


def test_all_bayer_phases_are_the_same_to_the_net():
    """Cut from one RGGB frame, the other phases have the same tiles, shifted."""
    whole = scene(BAYER[0], (162, 178))
    cut = whole.cropped(Area(1, 1, 161, 177))
    tops, lefts = np.array([10]), np.array([20])
    cuts = []
    for mosaic, first in ((whole, 0), (cut, 1)):
        seen = known(mosaic, np.zeros(mosaic.shape, bool))
        cuts.append(patches.encode(seen, tops - first, lefts - first)[0][:, 4:8])
    assert np.array_equal(*cuts)


def test_it_begins_from_the_mlps_estimates():
    damaged, bad = damage(scene(BAYER[1]))
    seen = known(damaged, bad)
    values, sigma = shipped_mlp().answers(damaged, bad)
    rows, cols = np.nonzero(bad)
    answered = np.isfinite(values)
    assert answered.mean() > 0.9
    assert np.allclose(seen.filled.at(rows, cols)[answered], values[answered], atol=0.01)
    assert np.allclose(seen.sigma[rows, cols][answered], sigma[answered], rtol=1e-5)
    assert not seen.sigma[~bad].any() and np.array_equal(seen.trust == 0, bad)


def test_the_card_names_the_mlps_that_it_was_trained_and_measured_on():
    """Its figures are of what is shipped; the estimates that it learnt from may be an earlier mlp's."""
    card = registry.show("vit").card
    assert card.metrics["mlp"] == registry.read("mlp").sha256
    assert card.training["first estimates"].startswith("mlp, sha256 ")


# ------------------------------------------------------------- what the nets answer


@pytest.mark.parametrize("cfa", PATTERNS, ids=NAMES)
@pytest.mark.parametrize("rate, pattern", [(0.4, "scattered"), (0.7, "scattered"), (0.03, "cluster:4")])
def test_better_than_the_median_and_least_squares(cfa, rate, pattern):
    clean = scene(cfa)
    damaged, bad = damage(clean, rate, pattern)
    ours = error(clean, bad, shipped_vit(), damaged)
    assert ours < 0.5 * error(clean, bad, median, damaged)
    assert ours < error(clean, bad, least_squares, damaged)


@pytest.mark.parametrize("cfa", PATTERNS, ids=NAMES)
@pytest.mark.parametrize("rate", [0.4, 0.7])
def test_blind_good_samples_may_be_suspected(cfa, rate):
    clean = scene(cfa)
    damaged, bad = damage(clean, rate)
    draw = np.random.default_rng(5).random(bad.shape)
    doubt = (bad | (draw < 0.1)).astype(np.float32)
    ours = error(clean, bad, BlindVit(shipped_vit(), lambda light: doubt), damaged)
    assert ours < error(clean, bad, median, damaged)


def test_with_the_mask_what_bad_pixels_hold_is_never_looked_at():
    damaged, bad = damage(scene(BAYER[0]))
    other = damaged.samples.copy()
    other[bad] = 65535 - other[bad]
    assert np.array_equal(*(shipped_vit()(m, bad) for m in (damaged, damaged.with_samples(other))))


def test_blind_the_mask_is_never_looked_at():
    damaged, bad = damage(scene(BAYER[3]))
    more = bad.copy()
    more[30:60, 30:60] = True
    answers = np.full((2, *bad.shape), np.nan)
    answers[0][bad], answers[1][more] = shipped_blind()(damaged, bad), shipped_blind()(damaged, more)
    assert np.allclose(answers[0][bad], answers[1][bad], rtol=1e-5)


@pytest.mark.parametrize("net", [shipped_vit, shipped_blind], ids=["mask", "blind"])
def test_nan_and_masked_borders_are_left_alone_and_not_used(net):
    clean = scene(BAYER[1])
    samples = clean.samples.astype(np.float32)
    samples[40:44, 50:60] = np.nan
    samples[:, :6] = 60000
    mosaic = Mosaic(samples, BAYER[1], ((500.0,),), 16383.0, Area(0, 6, *samples.shape))
    bad = np.zeros(mosaic.shape, bool)
    bad[42, 45:65] = bad[10, 0:10] = True
    answer = np.full(mosaic.shape, np.nan)
    answer[bad] = net()(mosaic, bad)
    assert np.isnan(answer[10, :6]).all() and np.isnan(answer[42, 50:60]).all()
    assert np.abs(answer[10, 6:10] - clean.samples[10, 6:10]).max() < 1000
    repaired = repair(mosaic, bad, net())
    assert np.array_equal(np.isnan(repaired), np.isnan(samples))
    assert np.array_equal(repaired[:, :6], samples[:, :6])


@pytest.mark.parametrize("net", [shipped_vit, shipped_blind], ids=["mask", "blind"])
@pytest.mark.parametrize("cfa", PATTERNS, ids=NAMES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (3, 5), (9, 1), (31, 67)])
def test_small_and_odd_frames(net, cfa, shape):
    mosaic = scene(cfa, shape)
    bad = np.zeros(mosaic.shape, bool)
    bad[shape[0] // 2, shape[1] // 2] = True
    if mosaic.samples.size == 1:
        with pytest.raises(FrameError):
            repair(mosaic, bad, net())
        return
    value = repair(mosaic, bad, net())[shape[0] // 2, shape[1] // 2]
    good = mosaic.samples[~bad]
    span = max(float(np.ptp(good)), 300.0)
    assert good.min() - span <= value <= good.max() + span


@pytest.mark.parametrize("net", [shipped_vit, shipped_blind], ids=["mask", "blind"])
def test_flat_frames_stay_flat(net):
    for dtype, level in ((np.uint16, 700), (np.float32, 0.0)):
        mosaic = Mosaic(np.full((70, 40), level, dtype))
        bad = np.zeros(mosaic.shape, bool)
        bad[5:8, 5:8] = bad[30, 30] = True
        assert (repair(mosaic, bad, net()) == level).all()


@pytest.mark.parametrize("net", [shipped_vit, shipped_blind], ids=["mask", "blind"])
def test_no_bad_pixels(net):
    mosaic = scene(MONO)
    assert net()(mosaic, np.zeros(mosaic.shape, bool)).shape == (0,)


@pytest.mark.parametrize("net", [shipped_vit, shipped_blind], ids=["mask", "blind"])
@pytest.mark.parametrize("cfa", [XTRANS, QUAD_RGGB], ids=["XTRANS", "QUAD"])
def test_unknown_patterns_are_refused(net, cfa):
    mosaic = Mosaic(np.ones((24, 24), np.uint16), cfa)
    assert not net().supports(cfa)
    with pytest.raises(FrameError, match="least-squares"):
        net()(mosaic, np.eye(24, dtype=bool))


# ------------------------------------------------------------- what may be loaded


def test_a_damaged_model_or_card_is_refused(tmp_path):
    data = registry.read("vit").data
    path = tmp_path / "mine.onnx"
    for broken in (
        data[: len(data) // 2],
        data.replace(b'"patches-2"', b'"patches-9"'),
        data.replace(b'"inputs": {"flags"', b'"inputs": {"falgs"'),
    ):
        assert broken != data
        path.write_bytes(broken)
        with pytest.raises(ModelError, match=r"mine\.onnx"):
            VitCorrector.open(path)


def test_another_net_is_refused():
    with pytest.raises(ModelError, match="'mlp'"):
        VitCorrector.open("mlp")


def test_a_users_own_model_is_taken(tmp_path):
    shutil.copy(registry.read("vit").path, tmp_path / "mine.onnx")
    damaged, bad = damage(scene(MONO, (64, 64)))
    assert np.array_equal(VitCorrector.open(tmp_path / "mine.onnx")(damaged, bad), shipped_vit()(damaged, bad))


def test_the_method_can_be_asked_for():
    assert {"vit", "vit-blind"} <= set(strategy.METHODS)
