"""The cnn corrector: clusters of up to 6 x 6 bad pixels in one answer, on every pattern, and no answer elsewhere."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from conftest import json_lines, scene, write_fits

from fixpix_cli.cfa import BAYER, MONO, QUAD_RGGB, RGGB, XTRANS
from fixpix_cli.errors import FrameError, ModelError
from fixpix_cli.mosaic import Area, Mosaic
from fixpix_cli.nets import registry
from fixpix_cli.nets.correctors import shipped_mlp
from fixpix_cli.nets.holes import BATCH, CnnCorrector, shipped_cnn
from fixpix_cli.normalise import holes, windows
from fixpix_cli.repair import least_squares, median, otherwise, repair

PATTERNS = [MONO, *BAYER]
NAMES = [cfa.name for cfa in PATTERNS]


def textured(cfa, shape=(160, 160), seed=0):
    """A scene with waves of 20 and 27 pixels, weak noise; uint16, black 500, white 16383."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    light = 3000 + 1500 * np.sin(x / 3.1 + y / 9) + 900 * np.cos(y / 4.3) + 8 * x
    gain = {"R": 0.6, "G": 1.0, "B": 0.45, "L": 1.0}
    gains = np.array([[gain[cfa.colour(r, c)] for c in range(shape[1])] for r in range(shape[0])])
    return Mosaic(np.rint(500 + light * gains + rng.normal(0, 8, shape)).astype(np.uint16), cfa, ((500.0,),), 16383.0)


def squares(shape, side, pitch=32):
    """(H, W) bool: square holes that stand alone, at both parities of row and column."""
    bad = np.zeros(shape, bool)
    for n, r in enumerate(range(10, shape[0] - 12, pitch)):
        for m, c in enumerate(range(10, shape[1] - 12, pitch)):
            bad[r + n % 2 : r + n % 2 + side, c + m % 2 : c + m % 2 + side] = True
    return bad


def hurt(mosaic, bad, value=16383):
    samples = mosaic.samples.copy()
    samples[bad] = value
    return mosaic.with_samples(samples)


def error(clean, bad, corrector):
    damaged = hurt(clean, bad)
    repaired = repair(damaged, bad, corrector).astype(float)
    assert np.array_equal(repaired[~bad], damaged.samples[~bad])
    return float(np.mean((repaired - clean.samples)[bad] ** 2))


# ------------------------------------------------------------- what it answers


@pytest.mark.parametrize("cfa", PATTERNS, ids=NAMES)
@pytest.mark.parametrize("side", range(2, 7))
def test_better_than_least_squares_and_median_on_every_pattern(cfa, side):
    """Lost otherwise: --method cnn repairs clusters worse than what it replaces, or only on one phase."""
    clean = textured(cfa)
    bad = squares(clean.shape, side)
    mine = error(clean, bad, shipped_cnn())
    assert mine < 0.8 * error(clean, bad, least_squares)
    assert mine < 0.3 * error(clean, bad, median)


@pytest.mark.parametrize("cfa", PATTERNS, ids=NAMES)
def test_gain_offset_and_header_do_not_matter(cfa):
    """Lost otherwise: what a header claims about black and white breaks the repair."""
    clean = textured(cfa)
    bad = squares(clean.shape, 4)
    base = dataclasses.replace(clean, samples=clean.samples.astype(np.float64))
    other = Mosaic(clean.samples * 3.5 + 20000.0, cfa, ((0.0,),), 1.0)
    a, b = shipped_cnn()(base, bad), shipped_cnn()(other, bad)
    assert np.isfinite(a).all() and np.allclose((b - 20000.0) / 3.5, a, rtol=0, atol=2.0)


def test_what_bad_pixels_hold_is_never_looked_at():
    """Lost otherwise: a saturated cluster is repaired brighter than a dead one."""
    clean = textured(RGGB)
    bad = squares(clean.shape, 5)
    assert np.array_equal(*(shipped_cnn()(hurt(clean, bad, value), bad) for value in (0, 16383)))


@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (1, 1)])
def test_phases_give_the_same_answer_to_the_same_hole(shift):
    """Lost otherwise: one of the four Bayer phases is repaired worse than the others."""
    clean = textured(RGGB, (161, 161))
    bad = squares(clean.shape, 4)
    whole = np.full(clean.shape, np.nan)
    whole[bad] = shipped_cnn()(clean, bad)
    part = clean.cropped(Area(*shift, *clean.shape))
    cropped = np.full(part.shape, np.nan)
    inside = bad[shift[0] :, shift[1] :]
    cropped[inside] = shipped_cnn()(part, inside)
    wanted = whole[shift[0] :, shift[1] :]
    assert part.cfa != clean.cfa and np.isfinite(cropped[inside]).all()
    assert np.abs(cropped - wanted)[inside].max() < 20  # the frame's own fit has a row less to see


def test_answers_come_in_row_order_across_batches():
    """Lost otherwise: with many holes in a frame the values of one land in another."""
    clean = textured(MONO, (700, 700))
    bad = np.zeros(clean.shape, bool)
    for r in range(5, 690, 40):
        for c in range(5 + r % 9, 690, 40):
            bad[r : r + 2, c : c + 3] = True
    assert np.count_nonzero(bad) / 6 > 2 * BATCH
    values = shipped_cnn()(clean, bad)
    assert np.sqrt(np.mean((values - clean.samples[bad]) ** 2)) < 60


# ------------------------------------------------------------- where it has no answer


def test_large_or_crowded_clusters_stay_open_and_the_mlp_takes_them():
    """Lost otherwise: a net answers for what it was never trained on, or pixels stay unrepaired."""
    clean = textured(RGGB)
    bad = np.zeros(clean.shape, bool)
    bad[10:16, 10:16] = True  # 6 x 6
    bad[50:57, 50:53] = True  # 7 rows
    bad[100, 20:40] = True  # a line
    bad[116:156:2, 100:150:2] = bad[117:157:4, 101:151:4] = True  # single pixels and clusters side by side
    answer = np.zeros(clean.shape)
    answer[bad] = shipped_cnn()(clean, bad)
    assert np.isfinite(answer[10:16, 10:16]).all()
    assert np.isnan(answer[50:57, 50:53]).all() and np.isnan(answer[100, 20:40]).all()
    assert np.isnan(answer[130, 120])
    mixed = np.zeros(clean.shape)
    mixed[bad] = otherwise(shipped_cnn(), shipped_mlp())(clean, bad)
    mlp = np.zeros(clean.shape)
    mlp[bad] = shipped_mlp()(clean, bad)
    assert np.array_equal(mixed, np.where(np.isnan(answer), mlp, answer))
    assert not np.array_equal(mixed, mlp)


def test_nan_and_masked_borders_are_left_alone_and_not_used():
    """Lost otherwise: missing data and the sensor's masked columns leak into the picture."""
    clean = textured(BAYER[1])
    samples = clean.samples.astype(np.float32)
    samples[40:43, 50:53] = np.nan
    samples[:, :6] = 60000
    mosaic = Mosaic(samples, BAYER[1], ((500.0,),), 16383.0, Area(0, 6, *samples.shape))
    bad = np.zeros(mosaic.shape, bool)
    bad[40:43, 53:55] = bad[10:13, 3:9] = True
    answer = np.full(mosaic.shape, np.nan)
    answer[bad] = shipped_cnn()(mosaic, bad)
    assert np.isnan(answer[10:13, :6]).all() and np.isfinite(answer[10:13, 6:9]).all()
    assert np.abs(answer[10:13, 6:9] - clean.samples[10:13, 6:9]).max() < 1000
    assert np.isfinite(answer[40:43, 53:55]).all()
    repaired = repair(mosaic, bad, shipped_cnn())
    assert np.array_equal(np.isnan(repaired), np.isnan(samples)) and np.array_equal(repaired[:, :6], samples[:, :6])


@pytest.mark.parametrize("cfa", PATTERNS, ids=NAMES)
def test_edges_corners_and_odd_sizes(cfa):
    """Lost otherwise: clusters at the frame's edge stop the run or get a wild value."""
    clean = textured(cfa, (67, 83))
    bad = np.zeros(clean.shape, bool)
    for r in (0, 31, 63):
        for c in (0, 40, 79):
            bad[r : r + 4, c : c + 4] = True
    answer = shipped_cnn()(hurt(clean, bad, 0), bad)
    assert np.isfinite(answer).all()
    spread = np.ptp(clean.samples.astype(float))
    assert np.abs(answer - clean.samples[bad]).max() < 0.5 * spread


@pytest.mark.parametrize("cfa", PATTERNS, ids=NAMES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 2), (3, 5), (5, 4), (9, 9)])
def test_tiny_frames(cfa, shape):
    """Lost otherwise: a thumbnail in a batch ends it."""
    mosaic = textured(cfa, shape)
    bad = np.zeros(shape, bool)
    bad[shape[0] // 2, shape[1] // 2] = True
    value = shipped_cnn()(mosaic, bad)
    assert value.shape == (1,)
    if mosaic.samples.size == 1:
        assert np.isnan(value).all()
        return
    good = mosaic.samples[~bad]
    span = max(float(np.ptp(good)), 300.0)
    assert good.min() - span <= repair(mosaic, bad, shipped_cnn())[bad][0] <= good.max() + span


def test_flat_frames_stay_flat():
    """Lost otherwise: a bias or a blank frame gets a pattern."""
    for dtype, level in ((np.uint16, 700), (np.float32, 0.0)):
        mosaic = Mosaic(np.full((40, 40), level, dtype))
        bad = np.zeros(mosaic.shape, bool)
        bad[5:8, 5:8] = bad[30, 30] = True
        assert (repair(mosaic, bad, shipped_cnn()) == level).all()


def test_no_bad_pixels_and_all_bad_pixels():
    """Lost otherwise: the frames at both ends of a series stop the run."""
    mosaic = textured(MONO, (40, 40))
    assert shipped_cnn()(mosaic, np.zeros(mosaic.shape, bool)).shape == (0,)
    assert np.isnan(shipped_cnn()(mosaic, np.ones(mosaic.shape, bool))).all()


@pytest.mark.parametrize("cfa", [XTRANS, QUAD_RGGB], ids=["XTRANS", "QUAD"])
def test_unknown_patterns_are_refused(cfa):
    """Lost otherwise: an X-Trans frame is repaired as if it were Bayer."""
    assert not shipped_cnn().supports(cfa)
    with pytest.raises(FrameError, match="least-squares"):
        shipped_cnn()(Mosaic(np.ones((24, 24), np.uint16), cfa), np.eye(24, dtype=bool))


# ------------------------------------------------------------- its input


def labelled(bad):
    """(H, W) labels of the components, the slow way."""
    out = np.zeros(bad.shape, int)
    for seed in zip(*np.nonzero(bad), strict=True):
        if out[seed]:
            continue
        stack, name = [seed], out.max() + 1
        while stack:
            r, c = stack.pop()
            if 0 <= r < bad.shape[0] and 0 <= c < bad.shape[1] and bad[r, c] and not out[r, c]:
                out[r, c] = name
                stack += [(r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return out


@pytest.mark.parametrize("rate", [0.02, 0.2, 0.4, 0.6, 1.0])
def test_components_are_those_of_a_flood_fill(rate):
    """Lost otherwise: a large cluster is taken for several small ones, or two for one across the frame's edge."""
    bad = np.random.default_rng(5).random((37, 41)) < rate
    rows, cols = np.nonzero(bad)
    mine, wanted = holes.components(rows, cols, bad.shape[1]), labelled(bad)[rows, cols]
    pairs = set(zip(mine.tolist(), wanted.tolist(), strict=True))
    assert len(pairs) == len(set(mine.tolist())) == wanted.max()


@pytest.mark.parametrize("cfa", PATTERNS, ids=NAMES)
def test_a_window_holds_its_hole_in_the_middle_and_begins_with_one_phase(cfa):
    """Lost otherwise: the net sees colours where it learnt others."""
    for side in range(1, 7):
        bad = np.zeros((60, 70), bool)
        bad[21 : 21 + side, 30 : 30 + side] = True
        bad[40, 10] = True
        found = holes.find(~bad, cfa)
        assert len(found) == 2 and len(found.rows) == side * side + 1
        for top, left in zip(found.top, found.left, strict=True):
            assert cfa.colour(top, left) == ("L" if cfa.is_mono else "R")
        r, c = found.places()
        assert r.min() >= 6 and c.min() >= 6 and r.max() < holes.SIDE - 6 and c.max() < holes.SIDE - 6


def test_layers_say_what_is_good_and_what_is_asked_for():
    """Lost otherwise: training and serving disagree on which pixels the answer is for."""
    mosaic = textured(RGGB, (60, 70))
    bad = np.zeros(mosaic.shape, bool)
    bad[0:3, 20:23] = bad[6, 20] = True
    filled = windows.fill(mosaic, bad)
    found = holes.find(filled.good, mosaic.cfa)
    window, about, unit = holes.encode(filled, found)
    assert window.shape == (2, holes.LAYERS, holes.SIDE, holes.SIDE) and about.shape == (2, holes.ABOUT)
    assert (unit > 0).all() and about[:, 0].tolist() == [0, 0]
    assert window[:, 2].sum(axis=(1, 2)).tolist() == [9, 1]
    assert not (window[:, 1] * window[:, 2]).any()
    above = -int(found.top[0])
    assert above > 0 and not window[0, :, :above].any()
    assert np.count_nonzero(window[0, 1]) == (holes.SIDE - above) * holes.SIDE - 10
    answer = np.zeros((2, holes.SIDE, holes.SIDE), np.float32)
    back = holes.decode(filled, found, answer, unit)
    assert back == pytest.approx(filled.at(found.rows, found.cols))


# ------------------------------------------------------------- the model


def test_the_card_says_from_which_side_it_wins():
    """Lost otherwise: the strategy picks the net where it was never shown to win."""
    card = registry.show("cnn").card
    assert card.normalisation == holes.NORMALISATION and card.data and len(card.code) == 64
    sides = card.metrics["sides"]
    assert sorted(sides) == [str(n) for n in range(1, holes.LARGEST + 1)]
    first = shipped_cnn().from_side
    assert all(sides[str(n)]["over_mlp"] < 1 for n in range(first, holes.LARGEST + 1))
    json.dumps(dataclasses.asdict(card))


def test_a_model_for_something_else_is_refused():
    """Lost otherwise: a user's own file of another kind is fed windows that it cannot understand."""
    with pytest.raises(ModelError, match="family 'mlp'"):
        CnnCorrector.open("mlp")


def test_the_command_uses_it_and_says_so(tmp_path, run):
    """Lost otherwise: --method cnn repairs by something else, or a cluster stays as it was."""
    clean = scene(RGGB, (120, 160))
    write_fits(tmp_path / "a.fits", clean.samples, BAYERPAT="RGGB")
    assert run("inject", "a.fits", "--out", "hurt", "--rate", "2%", "--pattern", "cluster:4")[0] == 0
    arguments = ("--map", "hurt", "--json", "--method")
    code, out, error_ = run("correct", "hurt", "--out", "fixed", *arguments, "cnn")
    assert code == 0, error_
    assert [r["method"] for r in json_lines(out)[0]] == ["cnn, mlp elsewhere"]
    assert run("correct", "hurt", "--out", "other", *arguments, "mlp")[0] == 0
    assert (tmp_path / "fixed/a.fits").read_bytes() != (tmp_path / "other/a.fits").read_bytes()


def test_x_trans_gets_a_stated_fallback(tmp_path, run):
    """Lost otherwise: nobody sees that the net asked for was not used."""
    write_fits(tmp_path / "a.fits", scene(XTRANS, (120, 132)).samples)
    assert run("inject", "a.fits", "--out", "hurt", "--rate", "1%", "--cfa", "XTRANS")[0] == 0
    code, out, _ = run("correct", "hurt", "--map", "hurt", "--cfa", "XTRANS", "--method", "cnn", "--out", "o", "--json")
    assert code == 0 and "does not know" in json_lines(out)[0][0]["method"]
