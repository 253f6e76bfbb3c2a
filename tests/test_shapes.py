"""What a map's owner reads of its geometry: clusters with their sizes, lines with their ends."""

import numpy as np
import pytest

from fixpix_cli import shapes
from fixpix_cli.shapes import Cluster, Line


def empty(height=60, width=80):
    return np.zeros((height, width), bool)


def test_nothing_is_found_in_an_empty_map():
    assert shapes.found(empty()) == shapes.Shapes()
    assert shapes.found(empty()).counts() == {}


def test_pixels_clusters_and_lines_are_told_apart():
    bad = empty()
    bad[5, 7] = True
    bad[10:12, 20:22] = True
    bad[13, 40], bad[14, 41] = True, True  # they touch at a corner
    bad[30] = True
    bad[40:58, 60] = True
    bad[45, 60] = False
    found = shapes.found(bad)
    assert found.singles == 1
    assert found.clusters == (Cluster(10, 20, 4), Cluster(13, 40, 2))
    assert found.rows == (Line(30, 0, 80, 80, True),)
    assert found.columns == (Line(60, 40, 58, 17, False),)
    assert found.counts() == {"single": 1, "cluster": 2, "row": 1, "partial column": 1}
    assert found.sizes() == {2: 1, 4: 1}


def test_a_line_with_good_pixels_is_still_whole():
    bad = empty()
    bad[:, 11] = True
    bad[3::13, 11] = False
    (line,) = shapes.found(bad).columns
    assert line.whole and (line.start, line.stop) == (0, 60) and line.bad == 55


def test_a_line_of_which_half_is_found_is_a_line_and_half_a_line_is_partial():
    bad = empty(200, 200)
    bad[np.random.default_rng(0).random(200) < 0.5, 11] = True
    bad[:100, 50] = True
    found = shapes.found(bad)
    assert [(line.number, line.whole) for line in found.columns] == [(11, True), (50, False)]
    assert (found.columns[1].start, found.columns[1].stop) == (0, 100) and not found.rows


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.19])
def test_scattered_pixels_make_no_lines(rate):
    found = shapes.found(np.random.default_rng(1).random((600, 800)) < rate)
    assert not found.rows and not found.columns


def test_crossing_lines_are_two_lines():
    bad = empty()
    bad[30], bad[:, 40] = True, True
    found = shapes.found(bad)
    assert len(found.rows) == len(found.columns) == 1 and not found.clusters


def test_a_blob_is_a_cluster_and_not_a_bundle_of_lines():
    bad = empty(200, 200)
    bad[100:120, 50:74] = True
    assert shapes.found(bad) == shapes.Shapes(clusters=(Cluster(100, 50, 480),))


def test_the_frame_has_no_neighbours_across_its_edge():
    bad = empty()
    bad[4, 79], bad[5, 0] = True, True
    assert shapes.found(bad).singles == 2


@pytest.mark.parametrize("seed", range(8))
def test_clusters_are_those_of_a_flood_fill(seed):
    rng = np.random.default_rng(seed)
    bad = rng.random((40, 50)) < 0.15
    todo, sizes = {(int(r), int(c)) for r, c in np.argwhere(bad)}, []
    while todo:
        stack, size = [todo.pop()], 0
        while stack:
            r, c = stack.pop()
            size += 1
            near = {(r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & todo
            todo -= near
            stack += near
        sizes.append(size)
    found = shapes.found(bad)
    assert not found.rows and not found.columns
    assert sorted([c.size for c in found.clusters] + [1] * found.singles) == sorted(sizes)


def test_a_crowded_map_is_called_that():
    assert shapes.found(np.random.default_rng(0).random((40, 40)) < 0.4) == shapes.Shapes(crowded=True)
