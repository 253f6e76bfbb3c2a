"""A star that stays on its pixels must stay in the picture; a bad pixel that stays there must go."""

import numpy as np
import pytest

from fixpix_cli import starlight
from fixpix_cli.cfa import MONO, RGGB
from fixpix_cli.defects import DQ, DefectMap
from fixpix_cli.detection import Detection
from fixpix_cli.jobs import looking
from fixpix_cli.jobs.outcomes import Common
from fixpix_cli.mosaic import Mosaic
from fixpix_cli.nets.detectors import detect
from fixpix_cli.simulate import Sensor, stars
from fixpix_cli.tally import Tally

SHAPE = (260, 260)


def together(frames):
    total = None
    for mosaic in frames:
        found = detect(mosaic, None, 30.0)
        tally = Tally.of(mosaic, found)
        total = tally if total is None else total + tally
    return total


@pytest.mark.parametrize("cfa", [MONO, RGGB], ids=["mono", "bayer"])
@pytest.mark.parametrize("step", [0.0, 3.0, 2.4], ids=["tracked", "whole pixels", "fractions"])
def test_no_star_becomes_a_defect_and_hot_pixels_do(cfa, step):
    sensor = Sensor(SHAPE, cfa, seed=2, defects=0.001)
    frames = [sensor.expose(stars(SHAPE, 5, 150, 1.8, (step * n, -step * n)), 30.0, 0.0, n) for n in range(6)]
    bad, hot = together(frames).view().bad, (sensor.truth & int(DQ.HOT)) != 0
    assert not (bad & (sensor.truth == 0)).any()
    assert bad[hot].mean() > 0.95


def suspects(bright, shape=(100, 100), frames=4):
    """Tallies of frames of noise in which a detector has found the given pixels; {(row, col): DN}."""
    total = None
    for n in range(frames):
        samples = 500 + 5 * np.random.default_rng(n).standard_normal(shape)
        for place, dn in bright.items():
            samples[place] += dn
        probability = np.zeros(shape, np.float32)
        for place, dn in bright.items():
            probability[place] = 0.9 if abs(dn) > 300 else 0
        mosaic = Mosaic(np.rint(samples).astype(np.uint16), MONO, ((400.0,),), 16383.0)
        tally = Tally.of(mosaic, Detection.of(probability, 0.01))
        total = tally if total is None else total + tally
    return total


def spared(total):
    return starlight.of_stars(total.entries, np.ones(len(total.entries), bool), total.shape)


def test_a_sharp_star_is_known_by_its_neighbours():
    around = dict.fromkeys(((14, 15), (16, 15), (15, 14), (15, 16)), 250)
    assert spared(suspects({(15, 15): 1000, **around})).all()
    assert not spared(suspects({(15, 15): 1000})).any()


@pytest.mark.parametrize("height, width", [(2, 2), (3, 2), (3, 3), (5, 5), (1, 6)])
def test_clusters_of_bad_pixels_are_no_stars(height, width):
    rng = np.random.default_rng(height)
    cluster = {(10 + r, 12 + c): float(rng.uniform(600, 3000)) for r in range(height) for c in range(width)}
    assert not spared(suspects(cluster)).any()


@pytest.mark.parametrize("row, col", [(0, 50), (98, 50), (50, 0), (50, 98), (0, 0), (98, 98)])
def test_nor_are_those_at_the_edge(row, col):
    cluster = {(row + r, col + c): 900.0 + 300 * r + 500 * c for r in range(2) for c in range(2)}
    assert not spared(suspects(cluster)).any()


def test_a_star_at_the_edge_is_one():
    around = dict.fromkeys(((0, 14), (1, 15), (0, 16)), 250)
    assert spared(suspects({(0, 15): 1000, **around})).all()


def test_light_comes_from_the_brightest():
    beside_texture = {(15, 15): 3000, (15, 16): 700, (14, 16): 100, (16, 16): 100}
    assert not spared(suspects(beside_texture)).any()


def test_a_cluster_of_bright_and_dark_pixels_in_texture_is_no_star():
    texture = dict.fromkeys(((14, 15), (13, 16), (14, 17), (15, 18), (17, 15), (16, 18)), 150)
    cluster = {(15, 16): 900, (15, 17): -400, (16, 16): 700, (16, 17): 1500}
    total = suspects({**texture, **cluster})
    assert total.entries["pixel"].tolist() == [1516, 1517, 1616, 1617] and not spared(total).any()


def test_a_dead_pixel_beside_a_star_is_no_part_of_it():
    around = dict.fromkeys(((14, 15), (16, 15), (15, 14), (15, 16)), 250)
    total = suspects({(15, 15): 1000, **around, (16, 16): -400})
    assert total.entries["pixel"].tolist() == [1515, 1616]
    assert spared(total).tolist() == [True, False]


def test_darks_are_not_asked_for_stars():
    around = dict.fromkeys(((14, 15), (16, 15), (15, 14), (15, 16)), 250)
    total = suspects({(15, 15): 1000, **around})
    assert total.pictures == 0 and total.view().bad[15, 15]


def sky(shape=(120, 120), frames=5, calm=True):
    """Tallies of frames with hot pixels that stay and one blob of light that wanders; its tip is suspected once."""
    rng = np.random.default_rng(0)
    hot = rng.choice(shape[0] * shape[1], 120, replace=False)
    total, tips = None, []
    for n in range(frames):
        samples = 500 + 5 * np.random.default_rng(n).standard_normal(shape)
        if not calm:
            samples += 40 * np.arange(shape[1])
        row = 20 + 15 * n
        samples[row : row + 5, 40:45] += 2000
        samples[row + 2, 42] += 3000
        samples.reshape(-1)[hot] += 800
        probability = np.zeros(shape, np.float32)
        probability.reshape(-1)[hot] = 0.95
        probability[row + 2, 42] = 0.9
        tips.append((row + 2, 42))
        tally = Tally.of(
            Mosaic(np.rint(samples).astype(np.uint16), MONO, ((400.0,),), 16383.0), Detection.of(probability, 0.01)
        )
        total = tally if total is None else total + tally
    return total, tips


def lit(total):
    mask = np.zeros(total.shape, bool)
    mask.reshape(-1)[total.light()] = True
    return mask


def test_what_one_frame_suspects_on_light_is_light_to_the_sequence():
    total, tips = sky()
    light, bad = lit(total), total.view().bad
    assert all(light[tip] for tip in tips) and not any(bad[tip] for tip in tips)
    assert np.count_nonzero(bad) >= 115 and not (light & bad).any()


def test_where_there_is_no_calm_sky_nothing_is_called_light():
    total, tips = sky(calm=False)
    assert not any(lit(total)[tip] for tip in tips)


def test_a_frame_keeps_what_its_sequence_calls_light():
    total, tips = sky()
    common = Common()
    (together,) = looking.agreed([total], common)
    single = DefectMap.of(lit(total) | total.view().bad, DQ.HOT)
    kept = looking.spare(single, together).bad
    assert not any(kept[tip] for tip in tips) and np.array_equal(kept, total.view().bad)
    assert np.array_equal(looking.bad_of(together).dq, total.view().dq)
