"""What a map says of a pixel's kind: its owner decides by it whether to cool, to expose shorter, or to send it back."""

import numpy as np
import pytest

from fixpix_cli import classical, kinds
from fixpix_cli.cfa import MONO
from fixpix_cli.defects import DQ
from fixpix_cli.detection import Detection
from fixpix_cli.inject import SENSOR_TYPES, Injection, inject
from fixpix_cli.mosaic import Mosaic
from fixpix_cli.noise import NoiseModel
from fixpix_cli.simulate import Sensor, landscape
from fixpix_cli.suspects import FIELDS, shows_picture, zeros
from fixpix_cli.tally import Tally

SHAPE = (200, 240)


def total_of(frames, kind=None):
    total = None
    for mosaic in frames:
        found = classical.detect(mosaic, kind)
        tally = Tally.of(mosaic, found)
        total = tally if total is None else total + tally
    return total


@pytest.fixture(scope="module")
def planted_darks():
    """The map of sixteen darks with defects of every kind, and the truth."""
    sensor, truth, frames = Sensor(SHAPE, seed=3, defects=0.0), 0, []
    for n in range(16):
        dark = sensor.expose(None, 60, 0, n)
        damage = inject(dark, Injection(0.005, kind="sensor", seed=4), frame_key=str(n))
        frames.append(dark.with_samples(damage.samples))
        truth = truth | damage.dq
    return total_of(frames, "dark").view(), truth


@pytest.mark.parametrize("kind", [DQ.WARM, DQ.SATURATED, DQ.OTHER_BAD_PIXEL, DQ.TELEGRAPH])
def test_what_darks_show_is_named(planted_darks, kind):
    view, truth = planted_darks
    mine = view.bad & ((truth & int(kind)) != 0)
    assert np.count_nonzero(mine) >= 5
    assert np.mean((view.dq[mine] & int(kind)) != 0) >= 0.9


def test_a_pixel_has_one_kind_under_one_condition(planted_darks):
    view, _ = planted_darks
    others = view.dq[view.bad] & ~int(DQ.DO_NOT_USE)
    assert ((others & (others - 1)) == 0).all() and (others != 0).all()


def test_dead_and_weak_pixels_show_in_lights():
    sensor, truth, frames = Sensor(SHAPE, seed=3, defects=0.0), 0, []
    for n in range(6):
        light = sensor.expose(landscape(SHAPE, n), 1.0, 0, n)
        damage = inject(light, Injection(0.004, kind="sensor", seed=4), frame_key=str(n))
        frames.append(light.with_samples(damage.samples))
        truth = truth | damage.dq
    view = total_of(frames).view()
    for kind in (DQ.DEAD, DQ.LOW_QE, DQ.SATURATED):
        mine = view.bad & ((truth & int(kind)) != 0)
        assert np.count_nonzero(mine) >= 5
        assert np.mean((view.dq[mine] & int(kind)) != 0) >= 0.9


def test_the_truth_knows_the_same_kinds():
    assert {flag for _, _, flag in SENSOR_TYPES} == {
        DQ.HOT, DQ.WARM, DQ.DEAD, DQ.OTHER_BAD_PIXEL, DQ.SATURATED, DQ.LOW_QE, DQ.TELEGRAPH
    }  # fmt: skip


def flat_frames(values, noise=3.0, black=100.0):
    """Frames around 400 DN in which pixel (5, 6) has the given values."""
    rng = np.random.default_rng(0)
    for value in values:
        samples = np.rint(400 + noise * rng.standard_normal((40, 40)))
        samples[5, 6] = value
        yield Mosaic(samples.astype(np.uint16), MONO, ((black,),), 4095.0)


def entry_of(values, **settings):
    total = None
    for mosaic in flat_frames(values, **settings):
        probability = np.zeros(mosaic.shape, np.float32)
        probability[5, 6] = 0.99
        tally = Tally.of(mosaic, Detection.of(probability, 0.001))
        total = tally if total is None else total + tally
    assert total.entries["pixel"].tolist() == [5 * 40 + 6]
    return total


def test_level_and_fluctuation_are_in_dn():
    values = [600, 640, 620, 660]
    entries = entry_of(values).entries
    assert kinds.level(entries)[0] == pytest.approx(np.mean(values) - 400, abs=3)
    assert kinds.fluctuation(entries)[0] == pytest.approx(np.std(values, ddof=1), abs=5)
    assert kinds.response(entries)[0] == pytest.approx((np.mean(values) - 100) / 300, abs=0.01)


def test_normalised_floats_have_the_levels_of_sixteen_bits():
    (mosaic,) = flat_frames([600])
    scaled = Mosaic((mosaic.samples / 65536).astype(np.float32), MONO, ((100 / 65536,),), 1.0)
    probability = np.zeros(mosaic.shape, np.float32)
    probability[5, 6] = 0.99
    one, two = (kinds.level(Tally.of(m, Detection.of(probability, 0.001)).entries)[0] for m in (mosaic, scaled))
    assert one == pytest.approx(two, abs=0.25)


def test_extremes_do_not_overflow():
    samples = np.full((20, 20), 1e30)
    samples[3, 3], samples[9, 9] = -1e30, np.inf
    probability = np.zeros((20, 20), np.float32)
    probability[3, 3] = probability[9, 9] = 0.9
    with np.errstate(all="ignore"):
        total = Tally.of(Mosaic(samples, MONO, white=1e31), Detection.of(probability, 0.01))
    for _ in range(18):
        total = total + total  # a quarter of a million frames
    assert (total.entries["level2"] > 0).all() and (total.entries["value2"] >= 0).all()
    assert total.entries["level"].tolist()[0] < 0


def test_a_stuck_value_is_told_from_a_steady_one():
    assert kinds.flags(entry_of([700] * 5).entries, 5, 0)[0] == int(DQ.OTHER_BAD_PIXEL | DQ.DO_NOT_USE)
    steady = entry_of([700, 704, 697, 701, 698]).entries
    assert kinds.flags(steady, 5, 0)[0] == int(DQ.HOT | DQ.DO_NOT_USE)


def test_a_pixel_that_is_often_missing_though_bright_switches():
    seen = entry_of([700, 703, 698]).entries
    assert kinds.flags(seen, 6, 0)[0] == int(DQ.TELEGRAPH | DQ.DO_NOT_USE)
    assert kinds.flags(seen, 3, 0)[0] == int(DQ.HOT | DQ.DO_NOT_USE)


def test_entries_without_levels_are_typed_by_their_excess():
    old = zeros(3)
    old["suspected"], old["excess"], old["squares"] = 4, (4 * 4 * 30, 4 * 4 * 5, -4 * 4 * 9), 1
    old["low"] = (0, 0, 4)
    got = kinds.flags(old, 4, 0) & ~int(DQ.DO_NOT_USE)
    assert got.tolist() == [int(DQ.HOT), int(DQ.WARM), int(DQ.DEAD)]
    assert np.isnan(kinds.level(old)).all() and FIELDS[0] == "pixel"


def test_pictures_are_told_from_darks():
    sensor = Sensor(SHAPE, seed=1, defects=0.01)
    dark, picture = sensor.expose(None, 60, 0, 1), sensor.expose(landscape(SHAPE, 1), 1, 0, 1)
    assert not shows_picture(dark, NoiseModel.of(dark))
    assert shows_picture(picture, NoiseModel.of(picture))
