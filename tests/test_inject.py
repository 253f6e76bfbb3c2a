"""A truth that is wrong makes every figure wrong."""

import numpy as np
import pytest
from conftest import scene

from fixpix_cli.cfa import BAYER, MONO, RGGB, XTRANS
from fixpix_cli.defects import DQ
from fixpix_cli.errors import UsageError
from fixpix_cli.inject import Injection, inject, positions
from fixpix_cli.mosaic import Area, Mosaic


@pytest.mark.parametrize("kind", ["relative", "fixed", "sensor"])
@pytest.mark.parametrize("cfa", [*BAYER, MONO, XTRANS], ids=lambda c: c.name)
def test_the_truth_marks_exactly_what_changed(kind, cfa):
    mosaic = scene(cfa)
    damage = inject(mosaic, Injection(0.05, 0.5, kind, seed=3), frame_key="a")
    assert np.array_equal(damage.samples != mosaic.samples, damage.dq != 0)
    assert np.all((damage.dq == 0) | (damage.dq & int(DQ.DO_NOT_USE) != 0))
    assert damage.count > 0.04 * mosaic.samples.size
    assert damage.samples.max() <= mosaic.white


@pytest.mark.parametrize("delta", [0.1, 0.3, 0.7, 0.9])
def test_relative_values_keep_their_distance(delta):
    mosaic = scene()
    damage = inject(mosaic, Injection(0.3, delta, seed=1))
    bad = damage.dq != 0
    v, new = mosaic.samples[bad].astype(float), damage.samples[bad].astype(float)
    low, high = new <= (1 - delta) * v, new >= (1 + delta) * v
    assert np.all(low | high)
    fits = (1 + delta) * v <= mosaic.white
    assert 0.45 < high[fits].mean() < 0.55
    assert not high[~fits].any()


def test_fixed_factors_stay_from_frame_to_frame():
    one, two = scene(seed=1, noise=0), scene(seed=2, noise=0)
    spec = Injection(0.02, 0.4, "fixed", seed=5)
    a, b = inject(one, spec, frame_key="a"), inject(two, spec, frame_key="b")
    both = (a.dq != 0) & (b.dq != 0) & (a.samples < one.white) & (b.samples < one.white)
    assert both.sum() > 300
    assert np.allclose(a.samples[both] / one.samples[both], b.samples[both] / two.samples[both], atol=0.02)


def test_positions_repeat_for_a_seed_and_change_with_it():
    mosaic = scene()
    a, b = positions(mosaic, Injection(0.01, seed=1)), positions(mosaic, Injection(0.01, seed=1))
    c = positions(mosaic, Injection(0.01, seed=2))
    assert np.array_equal(a, b) and not np.array_equal(a[0], c[0])


@pytest.mark.parametrize("pattern", ["scattered", "cluster:3", "columns", "rows"])
def test_rates_are_met_and_masked_borders_stay_clean(pattern):
    mosaic = scene(shape=(200, 300))
    framed = Mosaic(mosaic.samples, RGGB, mosaic.black, mosaic.white, Area(10, 20, 190, 290))
    rows, cols = positions(framed, Injection(0.03, pattern=pattern, seed=2))
    assert rows.min() >= 10 and rows.max() < 190 and cols.min() >= 20 and cols.max() < 290
    assert len(set(zip(rows, cols, strict=True))) == len(rows)
    assert 0.5 < len(rows) / (0.03 * 180 * 270) < 1.6


def test_what_cannot_change_is_left_out():
    flat = Mosaic(np.full((8, 8), np.nan, np.float32), MONO, white=1.0)
    assert inject(flat, Injection(1.0)).count == 0
    single = Mosaic(np.array([[7]], np.uint16), MONO)
    assert inject(single, Injection(1.0)).count == 1


def test_integer_types_of_all_kinds():
    for dtype in (np.uint8, np.uint16, np.int16, np.int32, np.float32):
        top = 250 if dtype == np.uint8 else 30000
        values = np.linspace(20, top, 900).reshape(30, 30).astype(dtype)
        damage = inject(Mosaic(values, MONO, white=float(top)), Injection(0.2, 0.3, seed=1))
        assert damage.samples.dtype == dtype
        assert damage.count > 150


@pytest.mark.parametrize("wrong", [{"rate": 1.5}, {"delta": 0}, {"kind": "odd"}, {"pattern": "cluster:x"}])
def test_nonsense_is_refused(wrong):
    with pytest.raises(UsageError):
        Injection(**wrong)
