"""Maps of several machines: merged exactly, again and again, or refused; told apart by month; pruned, recovered."""

import random
import shutil

import numpy as np
import pytest
from conftest import scene

from fixpix_cli import maps
from fixpix_cli.detection import Detection
from fixpix_cli.errors import MismatchError, StoreError, UsageError
from fixpix_cli.evidence import Bin, Counted, Evidence, Tally
from fixpix_cli.maps.parts import flipped, joined, month_of
from fixpix_cli.mosaic import Conditions, Identity

SHAPE = (16, 20)
IDENTITY = Identity("", "Cam", "7", SHAPE, "RGGB")
BASE = scene(shape=SHAPE)


def frame(n, level=None):
    """What frame number n says: two frames a month, three exposures."""
    rng = np.random.default_rng(n)
    probability = np.where(rng.random(SHAPE) < 0.1, rng.random(SHAPE), 0).astype(np.float32)
    probability[3, 4] = 0.9
    mosaic = BASE
    if level is not None:
        mosaic = BASE.with_samples(BASE.samples.copy())
        mosaic.samples[3, 4] = level
    conditions = Conditions((1.0, 60.0, 300.0)[n % 3], 100.0, -5.0, f"2026-{1 + n // 2 % 12:02d}-03T01:02:03", "dark")
    bin_, digest = Bin.of(conditions), f"{n:064d}"
    return Evidence(
        {(0, bin_): Tally.of(mosaic, Detection.of(probability, 0.01))},
        {digest: Counted(digest, f"f{n}", bin_, conditions)},
    )


def whole(numbers):
    total = Evidence()
    for n in sorted(numbers):
        total = total + frame(n)
    return total


def calibrated(path, numbers, **settings):
    maps.add(path, IDENTITY, [frame(n) for n in numbers], **settings)
    return path


def read(path):
    return maps.read_map(path, parts=True)


@pytest.mark.parametrize("seed", range(3))
def test_any_split_and_order_through_files_gives_the_map_of_all_frames(tmp_path, seed):
    """The promise of merge: frames split at random over machines, counted in random order, merged as a random tree."""
    rng = random.Random(seed)
    numbers = list(range(12))
    rng.shuffle(numbers)
    machines = rng.randint(2, 4)
    shares = [numbers[k::machines] for k in range(machines)]
    paths = []
    for k, share in enumerate(shares):
        path = tmp_path / f"{k}.map.fits"
        while share:
            size = rng.randint(1, len(share))
            calibrated(path, share[:size])
            share = share[size:]
        paths.append(path)
    while len(paths) > 1:
        rng.shuffle(paths)
        size = rng.randint(2, len(paths))
        out = tmp_path / f"merged{len(paths)}.map.fits"
        maps.merge(paths[:size], out)
        paths = [out, *paths[size:]]
    assert read(paths[0]).evidence == whole(range(12))
    once = calibrated(tmp_path / "once.map.fits", range(12))
    assert read(once).evidence == read(paths[0]).evidence
    assert np.array_equal(maps.read_mask(once).planes[0].dq, maps.read_mask(paths[0]).planes[0].dq)


@pytest.mark.parametrize("seed", range(2))
def test_maps_that_grow_are_merged_again_and_again(tmp_path, seed):
    """Several machines' daily life: each counts new frames and now and then merges with another one, either way."""
    rng = random.Random(seed)
    paths = [tmp_path / f"{k}.map.fits" for k in range(3)]
    counted = [set(), set(), set()]
    fresh = iter(range(100))
    for k in range(3):
        new = [next(fresh)]
        calibrated(paths[k], new)
        counted[k] |= set(new)
    for _ in range(10):
        k, other = rng.sample(range(3), 2)
        if rng.random() < 0.5:
            new = [next(fresh) for _ in range(rng.randint(1, 3))]
            calibrated(paths[k], new)
            counted[k] |= set(new)
        else:
            maps.merge([paths[k], paths[other]], paths[k])
            counted[k] |= counted[other]
        assert read(paths[k]).evidence == whole(counted[k])
    maps.merge(paths, tmp_path / "all.map.fits")
    assert read(tmp_path / "all.map.fits").evidence == whole(counted[0] | counted[1] | counted[2])


def test_counting_twice_changes_nothing(tmp_path):
    path = calibrated(tmp_path / "a.map.fits", range(4))
    before = path.read_bytes()
    _, known = maps.add(path, IDENTITY, [frame(n) for n in (3, 1)])
    assert known == {f"{n:064d}" for n in (1, 3)} and path.read_bytes() == before
    merged = maps.merge([path, path], tmp_path / "b.map.fits")
    assert merged.camera.evidence == whole(range(4))


def test_two_machines_with_the_same_darks(tmp_path):
    """What one has counted with more frames of that month covers the other; what crosses is refused by name."""
    a, b = calibrated(tmp_path / "a.map.fits", [0, 1]), calibrated(tmp_path / "b.map.fits", [1])
    assert maps.merge([a, b], tmp_path / "ab.map.fits").camera.evidence == whole([0, 1])
    c, d = calibrated(tmp_path / "c.map.fits", [0, 1, 24]), calibrated(tmp_path / "d.map.fits", [1, 25])
    out = tmp_path / "cd.map.fits"
    with pytest.raises(MismatchError, match=r"1 frames \(f1\).*c\.map|c\.map.*1 frames \(f1\).*--leave-out"):
        maps.merge([c, d], out)
    assert not out.exists()
    merged = maps.merge([d, c], out, leave_out=True)
    assert merged.camera.evidence == whole([0, 1, 24])
    assert [part.digests for part in merged.left_out] == [frozenset(f"{n:064d}" for n in (1, 25))]
    maps.add(out, IDENTITY, [frame(25)])
    assert read(out).evidence == whole([0, 1, 24, 25])


def test_a_copied_map_that_grows_apart_is_merged(tmp_path):
    """Copying a map, with or without its hidden files, must not make two writers of one mark."""
    (tmp_path / "one").mkdir()
    path = calibrated(tmp_path / "one/a.map.fits", [0])
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    calibrated(path, [1])
    calibrated(tmp_path / "two/a.map.fits", [24])
    merged = maps.merge([path, tmp_path / "two/a.map.fits"], tmp_path / "all.map.fits")
    assert merged.camera.evidence == whole([0, 1, 24])


def test_the_parts_do_not_depend_on_the_order_of_the_maps(tmp_path):
    paths = [calibrated(tmp_path / f"{k}.map.fits", numbers) for k, numbers in enumerate(([0, 1, 4], [0], [5, 7]))]
    parts = [part for path in paths for part in read(path).apart]
    told = []
    for seed in range(5):
        random.Random(seed).shuffle(parts)
        kept, _ = joined(parts)
        told.append([(part.writer, part.month, part.digests) for part in kept])
    assert all(one == told[0] for one in told)


def test_maps_of_two_cameras_and_an_existing_file_are_refused(tmp_path):
    a, b = calibrated(tmp_path / "a.map.fits", [0]), calibrated(tmp_path / "b.map.fits", [1])
    other = tmp_path / "o.map.fits"
    binned = Identity("", "Cam", "8", SHAPE, "RGGB", (2, 2))
    maps.add(other, binned, [frame(2)])
    with pytest.raises(UsageError, match=r"o\.map\.fits.*camera Cam #8 instead of Cam #7, binning 2 x 2"):
        maps.merge([a, other], tmp_path / "x.map.fits")
    with pytest.raises(UsageError, match="exists already"):
        maps.merge([a, b], other)
    maps.merge([a, b], other, overwrite=True)
    assert maps.read_map(maps.previous_of(other)).identity == binned
    maps.merge([a, b], a)
    assert read(a).evidence == whole([0, 1])


def test_opposite_row_orders_are_flipped(tmp_path):
    top = calibrated(tmp_path / "t.map.fits", [0, 1], row_order="TOP-DOWN")
    bottom = tmp_path / "b.map.fits"
    maps.add(bottom, IDENTITY, [flipped(frame(2))], row_order="BOTTOM-UP")
    merged = maps.merge([top, bottom], tmp_path / "m.map.fits")
    assert merged.camera.evidence == whole([0, 1, 2]) and "flipped" in merged.notes[0]
    camera, _ = maps.add(top, IDENTITY, [flipped(frame(2))], row_order="BOTTOM-UP")
    assert camera.evidence == whole([0, 1, 2]) and camera.row_order == "TOP-DOWN"


def test_a_map_from_before_there_were_parts(tmp_path):
    """Its evidence is one part; it merges with others and grows."""
    from fixpix_cli.maps.fitsmap import CameraMap, write_map

    old = tmp_path / "old.map.fits"
    write_map(old, CameraMap(IDENTITY, whole([0, 1, 2])))
    assert [part.writer for part in read(old).apart] == [""]
    calibrated(old, [3])
    new = calibrated(tmp_path / "new.map.fits", [4])
    assert maps.merge([old, new], old).camera.evidence == whole(range(5))


@pytest.mark.parametrize(
    "time, month",
    [
        ("2026-03-01T00:00:00", "2026-03"), ("2017:10:19 20:40:39", "2017-10"), ("31/12/99", "1999-12"),
        ("2026-13-01", ""), ("0000:00:00 00:00:00", ""), ("", ""), (None, ""), ("yesterday", ""),
        ("2026-03", "2026-03"),
    ],
)  # fmt: skip
def test_months(time, month):
    assert month_of(Conditions(time=time)) == month


# ---------------------------------------------------------------- trend


def dated(n, month, bad, excess=400):
    """A dark of a month in which the pixels `bad` are hot."""
    probability = np.zeros(SHAPE, np.float32)
    mosaic = BASE.with_samples(BASE.samples.copy())
    for place in bad:
        probability[place], mosaic.samples[place] = 0.95, int(BASE.samples[place]) + excess
    conditions = Conditions(60.0, None, None, month and f"{month}-10", "dark")
    bin_, digest = Bin.of(conditions), f"{n:064d}"
    return Evidence(
        {(0, bin_): Tally.of(mosaic, Detection.of(probability, 0.01))}, {digest: Counted(digest, "", bin_, conditions)}
    )


def test_new_gone_and_worse_since_a_month(tmp_path):
    path = tmp_path / "a.map.fits"
    old = [dated(n, "2026-01", [(2, 3), (5, 6), (9, 9)]) for n in range(3)]
    new = [dated(10 + n, "2026-03", [(2, 3), (9, 9), (12, 1)]) for n in range(3)]
    worse = [dated(20 + n, "2026-04", [(2, 3)], 4000) for n in range(3)]
    undated = [dated(30, "", [(0, 0)])]
    maps.add(path, IDENTITY, old + new + worse + undated)
    found = maps.trend(read(path), "2026-03")
    assert (found.frames_before, found.frames_since, found.undated) == (3, 6, 1)
    assert found.new.tolist() == [[0, 12, 1]] and found.gone.tolist() == [[0, 5, 6]] and found.apart == ()
    assert maps.trend(read(path), "2026-04").worse.tolist() == [[0, 2, 3]]
    assert maps.trend(read(path), "2025-01").frames_before == 0
    assert maps.months(read(path)) == {"": 1, "2026-01": 3, "2026-03": 3, "2026-04": 3}


def test_new_conditions_make_no_new_defects(tmp_path):
    path = calibrated(tmp_path / "a.map.fits", [0, 3])  # 1 s in January and February
    calibrated(path, [8])  # 300 s in May
    found = maps.trend(read(path), "2026-05")
    assert len(found.new) == len(found.gone) == 0 and len(found.apart) == 2


# ---------------------------------------------------------------- prune, recover, remove


def test_prune_drops_conditions_months_and_suspects(tmp_path):
    path = calibrated(tmp_path / "a.map.fits", range(6))
    with pytest.raises(UsageError, match="has no conditions"):
        maps.prune(path, conditions=["flat"])
    _, new = maps.prune(path, conditions=["dark, 1 s"])
    assert new.evidence == read(path).evidence == whole([1, 2, 4, 5])
    _, new = maps.prune(path, before="2026-02")
    assert read(path).evidence == whole([2, 4, 5])
    _, new = maps.prune(path, below=0.5)
    (kept, *_) = read(path).evidence.tallies.values()
    assert kept.confidence.min() >= 0.5 and len(read(path).evidence.frames) == 3
    maps.add(path, IDENTITY, [frame(0)])
    assert len(read(path).evidence.frames) == 4


def test_damage_is_found_and_the_previous_version_comes_back(tmp_path):
    path = calibrated(tmp_path / "a.map.fits", [0])
    calibrated(path, [1])
    rng = random.Random(0)
    whole_file, found = path.read_bytes(), 0
    for _ in range(20):  # a flipped bit anywhere, or a cut
        data = bytearray(whole_file)
        place = rng.randrange(len(data))
        data[place] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(data) if rng.random() < 0.7 else whole_file[:place])
        try:
            assert read(path).evidence == whole([0, 1])  # in the padding of a header it does no harm
        except StoreError as error:
            found += 1
            assert "a.map.fits" in str(error) and "fixpix maps recover" in str(error)
            with pytest.raises(StoreError, match="fixpix maps recover"):
                maps.add(path, IDENTITY, [frame(2)])
    assert found > 10
    path.write_bytes(whole_file[:20000])
    camera = maps.recover(path)
    assert camera.evidence == read(path).evidence == whole([0])
    assert (tmp_path / "a.map.fits.damaged").exists() and not maps.previous_of(path).exists()
    calibrated(path, [1, 2])
    assert read(path).evidence == whole([0, 1, 2])
    with pytest.raises(UsageError, match="is whole"):
        maps.recover(path)
    assert maps.recover(path, back=True).evidence == whole([0])
    assert maps.recover(path, back=True).evidence == whole([0, 1, 2])


def test_a_run_killed_between_keeping_the_old_map_and_writing_the_new(tmp_path):
    """Both names are then one file; the next change must neither refuse the hard link nor lose the old version."""
    import os

    path = calibrated(tmp_path / "a.map.fits", [0])
    os.link(path, maps.previous_of(path))
    calibrated(path, [1])
    assert read(path).evidence == whole([0, 1])
    assert maps.read_map(maps.previous_of(path)).evidence == whole([0])


def test_remove_takes_everything_along(tmp_path):
    path = calibrated(tmp_path / "a.map.fits", [0])
    calibrated(path, [1])
    maps.remove(path)
    assert not list(tmp_path.iterdir())
    calibrated(path, [2])
    assert read(path).evidence == whole([2])
