"""Series: stacks of TIFF pages and SER videos are moments of one camera."""

import contextlib
import struct

import numpy as np
import pytest
import tifffile
from conftest import json_lines

from fixpix_cli import files, maps
from fixpix_cli.cfa import MONO, RGGB, Cfa
from fixpix_cli.errors import FixpixError, RefusedError, UnreadableError
from fixpix_cli.mosaic import Assume, Edit, Lazy

T, SHAPE = 5, (60, 80)
HOT = np.array([[7, 9], [30, 41], [59, 79], [44, 3]])


def stack(dtype=np.uint16, shape=(T, *SHAPE), seed=0):
    """Darks with the same four hot pixels."""
    rng = np.random.default_rng(seed)
    values = rng.normal(100, 3, shape)
    values[:, HOT[:, 0], HOT[:, 1]] += 100
    return np.clip(np.rint(values), 0, 255).astype(dtype)


def ser(path, frames, colour=0, flag=0, depth=16, dtype="<u2", stamps=True, instrument=b"Cam", count=None):
    """A SER video (format description version 3) of (T, H, W) or (T, H, W, 3) frames."""
    head = struct.pack(
        "<14s7i40s40s40sqq", b"LUCAM-RECORDER", 7, colour, flag, frames.shape[2], frames.shape[1], depth,
        len(frames) if count is None else count, b"me", instrument, b"scope", 0, 637134336123456789,
    )  # fmt: skip
    times = (637134336000000000 + np.arange(len(frames), dtype="<i8") * 10000).tobytes() if stamps else b""
    path.write_bytes(head + frames.astype(dtype).tobytes() + times)
    return path


def edited(before, seed=2, count=25):
    """(N, H, W) planes, each with other pixels changed."""
    rng = np.random.default_rng(seed)
    after = before.copy()
    for n, plane in enumerate(after):
        where = rng.choice(plane.size, count + n, replace=False)
        plane.reshape(-1)[where] = rng.integers(1, 90, len(where)).astype(plane.dtype)
    return after


def save(source, target, after, assume=Assume()):  # noqa: B008 (frozen value)
    frame = files.load(source, assume)
    files.save(frame, [Edit.between(m.samples, plane) for m, plane in zip(frame.mosaics, after, strict=True)], target)


STACKS = {
    "plain": {"photometric": "minisblack"},
    "big endian": {"photometric": "minisblack", "byteorder": ">"},
    "bigtiff tiles": {"photometric": "minisblack", "bigtiff": True, "tile": (32, 48)},
    "lzw": {"photometric": "minisblack", "compression": "lzw", "rowsperstrip": 13},
    "zlib 2": {"photometric": "minisblack", "compression": "zlib", "predictor": 2, "tile": (32, 32)},
    "zstd": {"photometric": "minisblack", "compression": "zstd"},
    "imagej": {"imagej": True},
    "imagej, one directory": {"imagej": True, "truncate": True},
    "tifffile, one directory": {"photometric": "minisblack", "truncate": True},
    "ome": {"ome": True, "metadata": {"axes": "TYX"}, "photometric": "minisblack", "compression": "zlib"},
}


@pytest.mark.parametrize("name", STACKS)
def test_every_page_of_a_stack_is_read_and_written_back_exactly(tmp_path, name):
    """Lost otherwise: a page lands in another's place, or a hyperstack loses its other pages."""
    source, target = tmp_path / "a.tif", tmp_path / "o.tif"
    before = stack()
    tifffile.imwrite(source, before, **STACKS[name])
    frame = files.load(source)
    assert (frame.moments, frame.planes, frame.identity.planes, frame.pixels) == (T, 1, 1, before.size)
    assert np.array_equal([m.samples for m in frame.mosaics], before)
    after = edited(before)
    save(source, target, after)
    with tifffile.TiffFile(source) as one, tifffile.TiffFile(target) as two:
        assert np.array_equal(two.asarray(), after) and len(one.pages) == len(two.pages)
        for a, b in zip(one.pages, two.pages, strict=True):
            moved = (273, 279, 324, 325)
            old, new = ({t.code: t.value for t in page.aspage().tags if t.code not in moved} for page in (a, b))
            assert old == new


def test_a_hyperstack_is_patched_byte_by_byte(tmp_path):
    """Lost otherwise: ImageJ's own blocks between directories and pixels."""
    source, target = tmp_path / "a.tif", tmp_path / "o.tif"
    before = stack(shape=(6, *SHAPE))
    tifffile.imwrite(source, before.reshape(2, 3, 1, *SHAPE), imagej=True, metadata={"axes": "TZCYX", "fps": 5.0})
    after = before.copy()
    after[4, 10, 11] += 1
    save(source, target, after)
    old, new = source.read_bytes(), target.read_bytes()
    assert len(old) == len(new) and sum(a != b for a, b in zip(old, new, strict=True)) == 1


def test_rgb_pages_have_three_planes_each(tmp_path):
    """Lost otherwise: colours of one page are taken for moments of one sensor."""
    source, target = tmp_path / "a.tif", tmp_path / "o.tif"
    rng = np.random.default_rng(1)
    before = rng.integers(0, 200, (T, *SHAPE, 3)).astype(np.uint8)
    tifffile.imwrite(source, before, photometric="rgb", compression="zlib")
    frame = files.load(source)
    assert (frame.moments, frame.planes, frame.keys) == (T, 3, (0, 1, 2))
    planes = np.moveaxis(before, -1, 1).reshape(-1, *SHAPE)
    after = edited(planes)
    save(source, target, after)
    assert np.array_equal(np.moveaxis(tifffile.imread(target), -1, 1).reshape(-1, *SHAPE), after)


def test_pages_are_detectors_where_the_user_says_so(tmp_path):
    """Lost otherwise: a file with one page per sensor gets one map for all of them."""
    source = tmp_path / "a.tif"
    tifffile.imwrite(source, stack(), photometric="minisblack")
    frame = files.load(source, Assume(planes=True))
    assert (frame.moments, frame.planes, frame.identity.planes, frame.keys) == (1, T, T, (0, 1, 2, 3, 4))
    after = edited(stack())
    save(source, tmp_path / "o.tif", after, Assume(planes=True))
    assert np.array_equal(tifffile.imread(tmp_path / "o.tif"), after)


def test_pages_of_different_kinds_and_missing_ones_are_named(tmp_path):
    """Lost otherwise: a report with figures is repaired as if it were a stack."""
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as out:
        out.write(stack()[0], metadata=None)
        out.write(stack()[1, ::2], metadata=None)
    with pytest.raises(RefusedError, match="2 pages of different"):
        files.load(tmp_path / "mixed.tif")
    tifffile.imwrite(tmp_path / "cut.tif", stack(), imagej=True, truncate=True)
    (tmp_path / "cut.tif").write_bytes((tmp_path / "cut.tif").read_bytes()[: -SHAPE[1]])
    with pytest.raises(UnreadableError, match="truncated"):
        files.load(tmp_path / "cut.tif")


def test_pages_that_share_pixels_are_refused(tmp_path):
    """Lost otherwise: a repair of one page changes another."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack()[:2], photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        first = tiff.pages[0].dataoffsets[0]
        tiff.pages[1].tags[273].overwrite(first)
    with pytest.raises(RefusedError, match="share"):
        save(path, tmp_path / "o.tif", edited(np.stack([stack()[0], stack()[0]])))


def test_strips_that_share_their_bytes_are_moved_apart(tmp_path):
    """Lost otherwise: where a writer stored equal strips once, a repair of one changes the other."""
    path, target = tmp_path / "a.tif", tmp_path / "o.tif"
    before = np.full(SHAPE, 77, np.uint16)
    tifffile.imwrite(path, before, compression="zlib", rowsperstrip=20, metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tags, page = tiff.pages[0].tags, tiff.pages[0]
        tags[273].overwrite([page.dataoffsets[0]] * 3)
        tags[279].overwrite([page.databytecounts[0]] * 3)
    after = before.copy()
    after[25, 30] = 5
    save(path, target, after[None])
    assert np.array_equal(tifffile.imread(target), after)


@pytest.mark.parametrize("flag", [0, 1])
@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_ser_byte_order_is_seen_in_the_pixels(tmp_path, dtype, flag):
    """Lost otherwise: half of the SER programs write the flag the other way round, and every sample is wrong."""
    before = stack()
    path = ser(tmp_path / "a.ser", before, flag=flag, dtype=dtype)
    frame = files.load(path)
    assert (frame.moments, frame.planes, frame.container) == (T, 1, "ser")
    assert np.array_equal([m.samples for m in frame.mosaics], before)
    assert frame.identity.model == "Cam" and frame.conditions.time == "2020-01-01T00:00:12.345"


@pytest.mark.parametrize("depth, dtype", [(8, "u1"), (12, "<u2"), (16, "<u2"), (16, ">u2")])
@pytest.mark.parametrize("colour, cfa", [(0, MONO), (8, RGGB), (11, Cfa(("BG", "GR"))), (16, Cfa(("CY", "YM")))])
def test_ser_is_patched_byte_by_byte(tmp_path, depth, dtype, colour, cfa):
    """Lost otherwise: time stamps, header or good pixels of a night's video."""
    source, target = tmp_path / "a.ser", tmp_path / "o.ser"
    before = stack(np.dtype(dtype).newbyteorder("="))
    ser(source, before, colour, depth=depth, dtype=dtype)
    frame = files.load(source)
    assert frame.mosaics[0].cfa == cfa and frame.mosaics[0].white == (1 << depth) - 1
    after = edited(before)
    save(source, target, after)
    assert np.array_equal([m.samples for m in files.load(target).mosaics], after)
    old, new = (np.frombuffer(p.read_bytes(), np.uint8) for p in (source, target))
    assert np.array_equal(old[:178], new[:178]) and np.array_equal(
        old[178 + before.nbytes :], new[178 + before.nbytes :]
    )


@pytest.mark.parametrize("colour", [100, 101])
def test_ser_colour_videos_have_three_planes(tmp_path, colour):
    """Lost otherwise: colour videos are refused, or their channels mixed."""
    rng = np.random.default_rng(1)
    before = rng.integers(0, 200, (T, *SHAPE, 3)).astype(np.uint8)
    source, target = ser(tmp_path / "a.ser", before, colour, depth=8, dtype="u1"), tmp_path / "o.ser"
    frame = files.load(source)
    assert (frame.moments, frame.planes) == (T, 3)
    after = edited(np.moveaxis(before, -1, 1).reshape(-1, *SHAPE))
    save(source, target, after)
    assert np.array_equal([m.samples for m in files.load(target).mosaics], after)


def test_damaged_videos_are_named(tmp_path):
    """Lost otherwise: a recording that was cut off is half repaired."""
    path = ser(tmp_path / "a.ser", stack())
    whole = path.read_bytes()
    cases = [(b"", "empty|not a SER"), (whole[:100], "not a SER"), (b"X" + whole[1:], "not a SER")]
    cases += [(whole[: 178 + 3 * 2 * 60 * 80], "3 of 5"), (whole[:26] + bytes(4) + whole[30:], "damaged")]
    cases += [(whole[:18] + b"\x63\0\0\0" + whole[22:], "ColorID 99")]
    for data, word in cases:
        path.write_bytes(data)
        with pytest.raises((UnreadableError, RefusedError), match=word):
            files.load(path)
    with pytest.raises(UnreadableError, match="5 would fit"):
        files.load(ser(path, stack(), count=0, stamps=False))


@pytest.mark.parametrize("kind", ["ij.tif", "zip.tif", "ser"])
def test_fuzzed_series_raise_our_errors_only(tmp_path, kind):
    """Lost otherwise: a flipped bit in one video of a batch stops the others, or fills the memory."""
    path = tmp_path / f"a.{kind}"
    if kind == "ser":
        ser(path, stack()[:2])
    elif kind == "ij.tif":
        tifffile.imwrite(path, stack()[:3], imagej=True, truncate=True)
    else:
        tifffile.imwrite(path, stack()[:3], photometric="minisblack", compression="zlib")
    whole = path.read_bytes()
    rng = np.random.default_rng(4)
    for n in range(80):
        bad = bytearray(whole)
        for place in rng.integers(0, 200 if n % 2 else len(bad), int(rng.choice([1, 4, 20]))):
            bad[place] = int(rng.integers(0, 256))
        path.write_bytes(bad[: int(rng.integers(1, len(bad)))] if n % 5 == 0 else bad)
        with contextlib.suppress(FixpixError):
            frame = files.load(path)
            assert sum(m.samples.size for m in frame.mosaics) == frame.pixels


@pytest.mark.parametrize("kind", ["tif", "ser"])
def test_a_series_counts_like_its_frames(run, tmp_path, kind):
    """Lost otherwise: a stack of darks is one frame, or its map does not fit single frames of the camera."""
    path, single = tmp_path / f"a.{kind}", tmp_path / "single.tif"
    tifffile.imwrite(single, stack()[2], metadata=None)
    if kind == "tif":
        tifffile.imwrite(path, stack(), photometric="minisblack")
    else:
        ser(path, stack(), instrument=b"")
    code, out, err = run("calibrate", single, "--kind", "dark", "--camera", "Cam", "--map", "m.fits", "--json")
    assert code == 0, err
    code, out, err = run("calibrate", path, "--kind", "dark", "--camera", "Cam", "--map", "m.fits", "--json")
    assert code == 0 and "1 of its 5 moments" in json_lines(out)[0][0]["notes"][-1], err
    camera = maps.read_map(tmp_path / "m.fits")
    assert camera.identity.planes == 1 and len(camera.evidence.frames) == T
    (tally,) = camera.evidence.tallies.values()
    assert tally.frames == T and set(map(tuple, HOT)) <= set(zip(*np.nonzero(camera.view(0).bad), strict=True))
    code, out, _ = run("calibrate", path, "--kind", "dark", "--camera", "Cam", "--map", "m.fits", "--json")
    assert json_lines(out)[0][0]["status"] == "skipped"
    code, out, err = run("correct", path, single, "--map", "m.fits", "--json")
    assert code == 0, err
    for name, moments in ((path.name, T), (single.name, 1)):
        fixed = files.load(tmp_path / "repaired" / name)
        assert fixed.moments == moments
        for before, after in zip(files.load(tmp_path / name).mosaics, fixed.mosaics, strict=True):
            changed = set(zip(*np.nonzero(before.samples != after.samples), strict=True))
            assert set(map(tuple, HOT)) <= changed <= set(zip(*np.nonzero(camera.view(0).bad), strict=True))


def test_inject_detect_evaluate_and_auto_on_a_series(run, tmp_path):
    """Lost otherwise: a truth that does not say which pixel of which moment was changed."""
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    scene = (rng.normal(1000, 10, (4, *SHAPE)) + np.arange(80) * 5).astype(np.uint16)
    ser(tmp_path / "in" / "a.ser", scene, depth=12)
    assert run("inject", "in", "--out", "hurt", "--rate", "1%", "--delta", "0.8")[0] == 0
    truth = np.stack([plane.bad for plane in maps.read_mask(tmp_path / "hurt/a.truth.fits").planes])
    hurt = np.stack([m.samples for m in files.load(tmp_path / "hurt/a.ser").mosaics])
    assert truth.shape == scene.shape and np.array_equal(truth, scene != hurt)
    assert run("detect", "hurt", "--out", "masks")[0] == 0
    code, out, _ = run("evaluate", "--truth", "hurt", "--masks", "masks", "--json")
    assert code == 0 and json_lines(out)[1]["recall"] > 0.9
    code, out, err = run("correct", "hurt", "--auto", "--out", "fixed", "--json")
    assert code == 0, err
    code, out, _ = run("evaluate", "--truth", "hurt", "--clean", "in", "--repaired", "fixed", "--json")
    assert code == 0 and json_lines(out)[1]["nmse_stored"] < 1e-3


def test_lazy_makes_items_when_asked_and_keeps_the_last():
    """Lost otherwise: a long video lies in memory as a whole."""
    made = []
    items = Lazy(4, lambda n: made.append(n) or n * n)
    assert made == [] and len(items) == 4 and list(items) == [0, 1, 4, 9] and made == [0, 1, 2, 3]
    assert items[-1] == 9 and list(items[1:3]) == [1, 4] and made == [0, 1, 2, 3, 1, 2]
    with pytest.raises(IndexError):
        items[4]


@pytest.mark.data
def test_a_real_stack_and_video(tmp_path, data):
    """Lost otherwise: real darks, 8 bits, as a stack and as a video."""
    lab = sorted((data / "darks").glob("lab8bit*.tif"))[:3]
    before = np.stack([files.load(path).mosaics[0].samples for path in lab])
    tifffile.imwrite(tmp_path / "a.tif", before, imagej=True)
    ser(tmp_path / "a.ser", before, depth=8, dtype="u1")
    after = edited(before)
    for name in ("a.tif", "a.ser"):
        save(tmp_path / name, tmp_path / f"o{name}", after)
        assert np.array_equal([m.samples for m in files.load(tmp_path / f"o{name}").mosaics], after)
        old, new = ((tmp_path / n).read_bytes() for n in (name, f"o{name}"))
        assert len(old) == len(new) and sum(a != b for a, b in zip(old, new, strict=True)) == np.sum(before != after)
