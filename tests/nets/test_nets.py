"""Nets: a damaged model must never repair a frame, and a good one must repair it better than the median."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import textured as scene

from fixpix_cli.cfa import BAYER, MONO, QUAD_RGGB, XTRANS
from fixpix_cli.errors import FrameError, ModelError
from fixpix_cli.mosaic import Area, Mosaic
from fixpix_cli.nets import cards, registry, sessions
from fixpix_cli.nets.correctors import MlpCorrector, shipped_mlp
from fixpix_cli.nets.references import PaperMlp
from fixpix_cli.normalise import paper, windows
from fixpix_cli.repair import least_squares, median, repair

PATTERNS = [MONO, *BAYER]
NAMES = [cfa.name for cfa in PATTERNS]


def damage(mosaic, rate=0.02, seed=1):
    rng = np.random.default_rng(seed)
    bad = rng.random(mosaic.shape) < rate
    samples = mosaic.samples.copy()
    samples[bad] = rng.integers(0, 16383, np.count_nonzero(bad))
    return mosaic.with_samples(samples), bad


def error(clean, bad, corrector, damaged):
    repaired = repair(damaged, bad, corrector).astype(float)
    assert np.array_equal(repaired[~bad], damaged.samples[~bad])
    return float(np.mean((repaired - clean.samples)[bad] ** 2))


# ------------------------------------------------------------- what the net answers


@pytest.mark.parametrize("cfa", PATTERNS, ids=NAMES)
@pytest.mark.parametrize("rate", [0.002, 0.02, 0.2, 0.6])
def test_better_than_the_median_on_every_pattern(cfa, rate):
    clean = scene(cfa, (160, 160))
    damaged, bad = damage(clean, rate)
    assert error(clean, bad, shipped_mlp(), damaged) < 0.8 * error(clean, bad, median, damaged)


def test_no_worse_than_least_squares_in_clusters():
    clean = scene(MONO, (160, 160))
    bad = np.zeros(clean.shape, bool)
    for row, col in ((20, 30), (70, 91), (120, 44)):
        bad[row : row + 4, col : col + 4] = True
    damaged = clean.with_samples(np.where(bad, 16383, clean.samples).astype(np.uint16))
    assert error(clean, bad, shipped_mlp(), damaged) < error(clean, bad, least_squares, damaged)


@pytest.mark.parametrize("cfa", PATTERNS, ids=NAMES)
@pytest.mark.parametrize("rate", [0.01, 0.2, 0.6])
def test_gain_offset_and_header_do_not_matter(cfa, rate):
    clean = scene(cfa)
    damaged, bad = damage(clean, rate)
    base = dataclasses.replace(damaged, samples=damaged.samples.astype(np.float64))
    other = Mosaic(damaged.samples * 3.5 + 20000.0, cfa, ((0.0,),), 1.0)
    a, b = shipped_mlp()(base, bad), shipped_mlp()(other, bad)
    assert np.allclose((b - 20000.0) / 3.5, a, rtol=0, atol=2.0)


@pytest.mark.parametrize("rate", [0.01, 0.2, 0.6])
def test_what_bad_pixels_hold_is_never_looked_at(rate):
    damaged, bad = damage(scene(BAYER[0]), rate)
    other = damaged.samples.copy()
    other[bad] = 65535 - other[bad]
    answers = [shipped_mlp()(m, bad) for m in (damaged, damaged.with_samples(other))]
    assert np.array_equal(*answers)


def test_nan_and_masked_borders_are_left_alone_and_not_used():
    clean = scene(BAYER[1])
    samples = clean.samples.astype(np.float32)
    samples[40:44, 50:60] = np.nan
    samples[:, :6] = 60000
    mosaic = Mosaic(samples, BAYER[1], ((500.0,),), 16383.0, Area(0, 6, *samples.shape))
    bad = np.zeros(mosaic.shape, bool)
    bad[42, 45:65] = bad[10, 0:10] = True
    answer = np.full(mosaic.shape, np.nan)
    answer[bad] = shipped_mlp()(mosaic, bad)
    assert np.isnan(answer[10, :6]).all() and np.isnan(answer[42, 50:60]).all()
    assert np.abs(answer[10, 6:10] - clean.samples[10, 6:10]).max() < 400
    repaired = repair(mosaic, bad, shipped_mlp())
    assert np.array_equal(np.isnan(repaired), np.isnan(samples))
    assert np.array_equal(repaired[:, :6], samples[:, :6])


@pytest.mark.parametrize("cfa", PATTERNS, ids=NAMES)
@pytest.mark.parametrize("height", range(1, 6))
@pytest.mark.parametrize("width", range(1, 6))
def test_tiny_frames(cfa, height, width):
    mosaic = scene(cfa, (height, width))
    bad = np.zeros(mosaic.shape, bool)
    bad[height // 2, width // 2] = True
    if mosaic.samples.size == 1:
        assert np.isnan(shipped_mlp()(mosaic, bad)).all()
        with pytest.raises(FrameError):
            repair(mosaic, bad, shipped_mlp())
        return
    value = repair(mosaic, bad, shipped_mlp())[height // 2, width // 2]
    good = mosaic.samples[~bad]
    span = max(float(np.ptp(good)), 300.0)
    assert good.min() - span <= value <= good.max() + span


def test_flat_frames_stay_flat():
    for dtype, level in ((np.uint16, 700), (np.float32, 0.0)):
        mosaic = Mosaic(np.full((40, 40), level, dtype))
        bad = np.zeros(mosaic.shape, bool)
        bad[5:8, 5:8] = bad[30, 30] = True
        assert (repair(mosaic, bad, shipped_mlp()) == level).all()


def test_a_hole_wider_than_the_window_falls_back_to_widening():
    clean = scene(MONO)
    bad = np.zeros(clean.shape, bool)
    bad[30:50, 30:50] = True
    answer = np.zeros(clean.shape)
    answer[bad] = shipped_mlp()(clean, bad)
    assert np.isnan(answer[40, 40]) and np.isfinite(answer[30, 30])
    assert repair(clean, bad, shipped_mlp())[40, 40] > 500


def test_no_bad_pixels():
    mosaic = scene(MONO)
    assert shipped_mlp()(mosaic, np.zeros(mosaic.shape, bool)).shape == (0,)


@pytest.mark.parametrize("cfa", [XTRANS, QUAD_RGGB], ids=["XTRANS", "QUAD"])
def test_unknown_patterns_are_refused(cfa):
    mosaic = Mosaic(np.ones((24, 24), np.uint16), cfa)
    assert not shipped_mlp().supports(cfa)
    with pytest.raises(FrameError, match="least-squares"):
        shipped_mlp()(mosaic, np.eye(24, dtype=bool))


@pytest.mark.parametrize("radius", windows.RADII)
@pytest.mark.parametrize("cfa", [MONO, BAYER[2]], ids=["MONO", BAYER[2].name])
def test_windows_hold_the_pixels_around_a_hole(cfa, radius):
    clean = scene(cfa, (64, 64))
    rows, cols = np.array([20]), np.array([31])
    bad = np.zeros(clean.shape, bool)
    bad[20, 31] = True
    filled = windows.fill(clean, bad)
    features, unit = windows.encode(filled, rows, cols, radius)
    side = 2 * radius + 1
    cells = side * side
    assert features.shape == (1, windows.length(radius)) and unit[0] > 0
    flags = features[0, cells : 2 * cells]
    assert flags[cells // 2] == 0 and flags.sum() == cells - 1
    seen = features[0, :cells].reshape(side, side) * unit[0]
    around = filled.samples[20 - radius : 21 + radius, 31 - radius : 32 + radius]
    step = cfa.period[0]
    start = radius % step  # the pixels of the centre's own tile position differ by one constant only
    offset = (around - seen)[start::step, start::step]
    assert np.ptp(offset) < 0.01 * np.ptp(around)
    values, sigma = windows.decode(filled, rows, cols, np.zeros(1, np.float32), np.full(1, 0.5, np.float32), unit)
    assert values == pytest.approx(filled.at(rows, cols)) and sigma == pytest.approx(unit / 2)


@pytest.mark.parametrize("radius", windows.RADII)
def test_a_window_without_a_good_pixel_has_no_answer(radius):
    clean = scene(MONO)
    bad = np.zeros(clean.shape, bool)
    bad[30:50, 30:50] = True
    _, unit = windows.encode(windows.fill(clean, bad), np.array([40, 30]), np.array([40, 30]), radius)
    assert np.isnan(unit[0]) and unit[1] > 0


# ------------------------------------------------------------- how sure it is


@pytest.mark.parametrize("cfa", PATTERNS, ids=NAMES)
@pytest.mark.parametrize("rate", [0.002, 0.02, 0.2])
def test_sigma_covers_the_errors(cfa, rate):
    clean = scene(cfa, (200, 200))
    damaged, bad = damage(clean, rate)
    values, sigma = shipped_mlp().answers(damaged, bad)
    off = np.abs(values - clean.samples[bad])
    assert np.array_equal(values, shipped_mlp()(damaged, bad))
    assert (sigma > 0).all() and np.mean(off <= 2 * sigma) > 0.85


@pytest.mark.parametrize("cfa", PATTERNS, ids=NAMES)
@pytest.mark.parametrize("rate", [0.01, 0.3])
def test_sigma_of_a_flat_frame_is_its_noise(cfa, rate):
    rng = np.random.default_rng(5)
    clean = Mosaic(np.rint(rng.normal(3000, 40, (160, 160))).astype(np.uint16), cfa)
    _, sigma = shipped_mlp().answers(clean, rng.random(clean.shape) < rate)
    assert 0.75 * 40 < np.median(sigma) < 1.5 * 40


def test_sigma_is_larger_where_less_is_known():
    clean = scene(MONO, (160, 160))
    bad = np.zeros(clean.shape, bool)
    bad[20:25, 20:25] = bad[100, 100] = True
    sigma = np.zeros(clean.shape)
    sigma[bad] = shipped_mlp().answers(clean, bad)[1]
    assert sigma[22, 22] > 1.5 * sigma[100, 100]


def test_sigma_scales_with_the_samples():
    damaged, bad = damage(scene(BAYER[0]), 0.02)
    base = dataclasses.replace(damaged, samples=damaged.samples.astype(np.float64))
    other = dataclasses.replace(base, samples=base.samples * 5 + 1000)
    a, b = (shipped_mlp().answers(m, bad)[1] for m in (base, other))
    assert np.allclose(b, 5 * a, rtol=0.01)


def test_no_sigma_where_there_is_no_answer():
    clean = scene(MONO)
    bad = np.zeros(clean.shape, bool)
    bad[30:50, 30:50] = True
    values, sigma = shipped_mlp().answers(clean, bad)
    assert np.isnan(values).any() and np.array_equal(np.isnan(values), np.isnan(sigma))


# ------------------------------------------------------------- the paper's net, to compare with


def test_the_papers_net_answers_from_stored_neighbours():
    clean = scene(MONO, (160, 160))
    damaged, bad = damage(clean, 0.01)
    net = PaperMlp.open()
    assert set(net.sessions) == {0.01, 0.2, 0.7}
    repaired = repair(damaged, bad, net).astype(float)
    assert np.mean((repaired - clean.samples)[bad] ** 2) < 0.2 * np.var(clean.samples.astype(float))
    window = paper.encode(clean, np.array([10]), np.array([12]))
    assert window[0, :12] * clean.white == pytest.approx(clean.samples[8:13, 10:15].ravel()[:12])


def test_the_papers_net_is_verified(tmp_path):
    shutil.copytree(registry.folder() / "reference", tmp_path / "reference")
    path = next((tmp_path / "reference").glob("paper-*.onnx"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match=path.name):
        PaperMlp.open(tmp_path / "reference")
    with pytest.raises(ModelError, match="holds no"):
        PaperMlp.open(tmp_path)


# ------------------------------------------------------------- what may be loaded


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A writable copy of the shipped models that the registry takes for the shipped ones."""
    where = tmp_path / "models"
    where.mkdir()
    for name in (registry.SUMS, *registry.SHIPPED.values()):
        shutil.copy(registry.folder() / name, where)
    monkeypatch.setattr(registry, "folder", lambda: where)
    return where


def test_shipped_models_verify():
    checks = registry.verify()
    assert [c.name for c in checks] == list(registry.SHIPPED) and all(c.ok for c in checks), checks
    shown = registry.show("mlp")
    assert shown.shipped and shown.card.normalisation == f"filled-{windows.NORMALISATION}"
    assert shown.card.data and shown.card.metrics and len(shown.card.code) == 64
    assert shown.path.stat().st_size < 2_000_000
    json.dumps(dataclasses.asdict(registry.list_models()[0]))
    assert shipped_mlp().default_up_to == shown.card.serving["best_below_rate"]


@pytest.mark.parametrize("how", ["bit", "truncated", "empty", "gone"])
def test_a_tampered_shipped_model_is_refused(copy, how):
    path = copy / registry.SHIPPED["mlp"]
    data = bytearray(path.read_bytes())
    if how == "bit":
        data[len(data) // 2] ^= 1
    elif how == "truncated":
        del data[len(data) // 2 :]
    path.write_bytes(b"" if how == "empty" else data)
    if how == "gone":
        path.unlink()
    with pytest.raises(ModelError, match=path.name):
        MlpCorrector.open("mlp")
    assert {c.name: c.ok for c in registry.verify()} == {name: name != "mlp" for name in registry.SHIPPED}


def test_a_shipped_model_without_its_sum_is_refused(copy):
    (copy / registry.SUMS).write_text("")
    with pytest.raises(ModelError, match=registry.SUMS):
        registry.read("mlp")


@pytest.mark.parametrize("keep", [0, 10, 1000, 60_000])
def test_a_users_broken_file_is_a_model_error(tmp_path, keep):
    data = registry.read("mlp").data[:keep]
    path = tmp_path / "mine.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"mine\.onnx"):
        MlpCorrector.open(path)


def test_a_users_own_model_is_taken_and_its_hash_told(tmp_path):
    path = tmp_path / "mine.onnx"
    shutil.copy(registry.read("mlp").path, path)
    shown = registry.show(str(path))
    assert not shown.shipped and shown.sha256 == registry.read("mlp").sha256
    assert MlpCorrector.open(path).session.sha256 == shown.sha256


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ModelError, match="mlp"):
        registry.read("nonesuch")


def _edited(**changes):
    card = json.loads(registry.show("mlp").card.to_json())
    card.update(changes)
    return json.dumps({k: v for k, v in card.items() if v != "missing"})


@pytest.mark.parametrize(
    "text, words",
    [
        (None, "card"),
        ("{", "JSON"),
        ("[]", "object"),
        (lambda: _edited(card=99), "card version"),
        (lambda: _edited(limits="missing"), "lacks limits"),
        (lambda: _edited(normalisation=3), "normalisation"),
        (lambda: _edited(serving=[]), "serving"),
        (lambda: _edited(program=["99.0", ""]), "from 99.0"),
        (lambda: _edited(program=["0.0.1", "0.1.0"]), "before 0.1.0"),
    ],
)
def test_a_wrong_card_says_what_is_wrong(text, words):
    with pytest.raises(ModelError, match=words) as caught:
        cards.Card.parse(text() if callable(text) else text, "mine.onnx")
    assert str(caught.value).startswith("mine.onnx")


def _with_card(path, **changes):
    """A shipped mlp as a user's own, its card changed within its length in bytes."""
    data = registry.read("mlp").data
    old = registry.show("mlp").card.to_json()
    new = json.dumps(json.loads(old) | changes, ensure_ascii=False, sort_keys=True)
    room = len(old.encode()) - len(new.encode())
    assert room >= 0
    path.write_bytes(data.replace(old.encode(), new.encode() + b" " * room))
    return path


@pytest.mark.parametrize(
    "serving, words", [({"radius": 99}, "radius is 99"), ({}, "not a number"), ({"radius": 2}, "inputs are")]
)
def test_a_card_with_another_radius_is_refused(tmp_path, serving, words):
    if registry.show("mlp").card.serving["radius"] == serving.get("radius"):
        serving = {"radius": 3}
    path = _with_card(tmp_path / "mine.onnx", serving=serving)
    with pytest.raises(ModelError, match=words):
        MlpCorrector.open(path)


def test_a_model_whose_card_names_other_inputs_is_refused():
    blob = registry.read("mlp")
    data = blob.data.replace(b'"inputs": {"window"', b'"inputs": {"widnow"')
    assert data != blob.data
    with pytest.raises(ModelError, match="widnow"):
        sessions.open_session(data, "mine.onnx", "")


@pytest.mark.parametrize(
    "wanted, words",
    [(("detect", "unet", ["filled-1"]), "family 'mlp'"), (("correct", "mlp", ["filled-99"]), "filled-99")],
)
def test_a_model_for_something_else_is_refused(wanted, words):
    with pytest.raises(ModelError, match=words):
        registry.show("mlp").card.require("mine.onnx", *wanted)


def test_importing_nets_does_not_load_onnxruntime():
    code = "import sys, fixpix_cli.nets.correctors; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
