"""A camera's memory: sums that do not depend on order, place or number of parts."""

import functools
import itertools
import operator
import tracemalloc

import numpy as np
import pytest
from conftest import scene

from fixpix_cli import classical
from fixpix_cli.defects import DQ
from fixpix_cli.detection import Detection
from fixpix_cli.evidence import DEFAULT_THRESHOLD, ONE, Bin, Counted, Evidence, Tally
from fixpix_cli.mosaic import Conditions
from fixpix_cli.simulate import Sensor
from fixpix_cli.suspects import FIELDS


def random_tally(seed, shape=(40, 50)):
    rng = np.random.default_rng(seed)
    probability = np.where(rng.random(shape) < 0.1, rng.random(shape), 0).astype(np.float32)
    return Tally.of(scene(shape=shape, seed=seed), Detection.of(probability, 0.01 * seed))


def test_any_split_and_order_gives_the_same_sum():
    parts = [random_tally(n) for n in range(4)]
    whole = parts[0] + parts[1] + parts[2] + parts[3]
    for a, b, c, d in itertools.permutations(parts):
        assert (a + (b + c)) + d == whole
        assert (a + b) + (c + d) == whole
    assert whole.frames == 4


@pytest.mark.parametrize("seed", range(20))
def test_random_splits_added_in_random_orders_are_the_whole(seed):
    """As many machines do: each adds up some of the frames, and someone adds up the machines, in whatever order."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(3, 30, 2))
    parts = []
    for n in range(int(rng.integers(2, 9))):
        probability = np.where(rng.random(shape) < rng.uniform(0, 0.5), rng.random(shape), 0).astype(np.float32)
        parts.append(
            Tally.of(scene(shape=shape, seed=n), Detection.of(probability, 0.0 if rng.random() < 0.2 else rng.random()))
        )
    whole = functools.reduce(operator.add, parts)
    heap = list(parts)
    while len(heap) > 1:
        one, two = (heap.pop(int(rng.integers(len(heap)))) for _ in range(2))
        heap.append(one + two)
    assert heap[0] == whole
    assert all(heap[0].entries[name].tobytes() == whole.entries[name].tobytes() for name in FIELDS)
    assert (whole.frames, whole.pictures) == (len(parts), sum(part.pictures for part in parts))
    assert Tally(shape) + whole == whole == whole + Tally(shape)
    assert (np.diff(whole.entries["pixel"]) > 0).all()


def test_the_mean_is_that_of_the_probabilities_that_are_kept():
    rng = np.random.default_rng(0)
    images = [rng.random((10, 10)).astype(np.float32) for _ in range(7)]
    total = sum(
        (Tally.of(scene(shape=(10, 10)), Detection.of(image)) for image in images[1:]),
        Tally.of(scene(shape=(10, 10)), Detection.of(images[0])),
    )
    mean = np.zeros(100)
    mean[total.entries["pixel"]] = total.mean
    assert np.allclose(
        mean.reshape(10, 10), np.mean([np.where(image < 1 / 32, 0, image) for image in images], axis=0), atol=1e-4
    )


def sequence(frames, still, weak=0.02, shape=(100, 120), rate=1e-3):
    """Tallies of frames in which texture supports some pixels, the same ones (still) or others, and one is bad."""
    total = None
    for n in range(frames):
        rng = np.random.default_rng(0 if still else n)
        ratio = np.where(rng.random(shape) < weak, 2.5, -5.0)
        ratio[50, 60] = 3.0
        probability = (1 / (1 + np.exp(-(ratio + np.log(rate / (1 - rate)))))).astype(np.float32)
        tally = Tally.of(scene(shape=shape, seed=n), Detection.of(probability, rate))
        total = tally if total is None else total + tally
    return total


def test_a_weak_defect_is_found_where_the_scene_moves():
    tally = sequence(9, still=False)
    assert tally.moves
    assert np.flatnonzero(tally.view().bad).tolist() == [50 * 120 + 60]
    assert tally.mean.max() < 0.05 < tally.confidence.max()


def test_texture_that_stands_still_is_no_defect():
    tally = sequence(9, still=True)
    assert not tally.moves
    assert not tally.view().bad.any()


def test_one_frame_tells_nothing_of_movement_and_few_suspects_do_no_harm():
    assert not sequence(1, still=False).moves
    assert sequence(9, still=False, weak=0.0002).moves
    assert sequence(9, still=True, weak=0.0002).moves  # two weak pixels and their neighbours: nothing to add up
    assert not sequence(9, still=True, weak=0.002).moves


def test_log_odds_add_exactly_what_the_frames_say():
    tally = sequence(4, still=False)
    entry = tally.entries[tally.entries["pixel"] == 50 * 120 + 60][0]
    assert entry["supported"] == 4 and entry["support"] == pytest.approx(4 * 3.0 * 256, abs=4)
    chosen = tally.posterior[tally.entries["pixel"] == 50 * 120 + 60][0]
    assert chosen == pytest.approx(1 / (1 + np.exp(-12) * (100 * 120 - 1)), rel=0.02)  # one bad pixel is the prior


def test_suspects_that_every_scene_brings_do_not_raise_the_prior():
    """A sharp scene has hundreds of suspects of its own; two of them on one pixel are no defect yet."""
    shape, total = (200, 200), None
    for n in range(9):
        rng = np.random.default_rng(n)
        probability = np.zeros(shape, np.float32)
        probability.reshape(-1)[rng.choice(40_000, 200, replace=False)] = 0.8
        probability[60, 60] = 0.6
        tally = Tally.of(scene(shape=shape, seed=n), Detection.of(probability, 0.005))
        total = tally if total is None else total + tally
    assert total.posterior[total.entries["pixel"] == 60 * 200 + 60][0] > 0.99
    assert np.count_nonzero(total.entries["supported"] == 2) > 10
    assert np.count_nonzero(total.posterior >= DEFAULT_THRESHOLD) == 1


def test_evidence_refuses_to_count_a_frame_twice():
    part = Evidence({(0, Bin()): random_tally(1)}, {"x": Counted("x")})
    with pytest.raises(ValueError, match="twice"):
        part + part


def test_a_promise_of_false_positives_is_kept():
    probability = np.zeros((40, 50), np.float32)
    probability[0, :20] = 0.9
    probability[1, :20] = 0.5
    tally = Tally.of(scene(shape=(40, 50)), Detection.of(probability))
    assert tally.chosen(max_false=0.95).sum() == 9
    assert tally.chosen(max_false=2.1).sum() == 20
    assert tally.chosen(max_false=0).sum() == 0
    assert tally.chosen(threshold=0.6).sum() == 20
    assert tally.chosen(precision=0.89).sum() == 20
    assert tally.chosen(precision=0.69).sum() == 40
    assert tally.chosen(precision=0.8).sum() == 26
    assert tally.chosen(precision=0.95).sum() == 0
    assert ONE == 32768


def test_conditions_fall_into_stated_bins():
    a = Bin.of(Conditions(60.0, 100, -5.2, None, "dark"))
    assert a == Bin.of(Conditions(60.0, 100, -4.8, None, "dark"))
    assert a != Bin.of(Conditions(30.0, 100, -5.0, None, "dark"))
    assert a.distance(Bin.of(Conditions(30.0, 100, -5.0, None, "dark"))) == pytest.approx(1)
    assert a.distance(a) == 0


def test_types_of_simulated_defects():
    sensor = Sensor(shape=(240, 320), seed=5, defects=0.004)
    tallies = []
    for n in range(8):
        dark = sensor.expose(None, 60, 0, n)
        tallies.append(Tally.of(dark, Detection.of(classical.detect(dark).probability)))
    total = tallies[0]
    for tally in tallies[1:]:
        total = total + tally
    view = total.view(0.5)
    hot = (sensor.truth & int(DQ.HOT)) != 0
    assert (view.dq[hot] & int(DQ.HOT) != 0).mean() > 0.9
    assert (view.bad & (sensor.truth == 0)).sum() < 10


def test_the_view_of_a_dense_tally_takes_less_memory_than_the_tally():
    """Of 24 MP with 70 % of damage it copied all entries: the frame then took more memory than it may."""
    clean = scene(shape=(900, 1000))
    bad = np.random.default_rng(3).random(clean.shape) < 0.7
    tally = Tally.of(clean, Detection.of(np.where(bad, np.float32(0.99), np.float32(0.001)), 0.7))
    tracemalloc.start()
    view = tally.view()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(view) == np.count_nonzero(bad) and np.array_equal(view.dq != 0, bad)
    assert most < 0.75 * tally.entries.nbytes
