"""PNG frames: samples in and out exactly, and every chunk but the pixels' as it was."""

import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from conftest import json_lines

from fixpix_cli import files
from fixpix_cli.cfa import RGGB
from fixpix_cli.errors import FixpixError, RefusedError, UnreadableError
from fixpix_cli.mosaic import Assume, Edit

SHAPE = (61, 83)
BEFORE = [(b"gAMA", struct.pack(">I", 45455)), (b"sBIT", b"\x0c"), (b"prVt", b"mine")]
AFTER = [(b"tEXt", b"Comment\0dark 12"), (b"zzZz", bytes(range(40)))]


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(path, samples, colour=0, before=BEFORE, after=AFTER, piece=700, interlace=0, stream=None):
    """A PNG written chunk by chunk, with filter 0 in every row."""
    bits = samples.dtype.itemsize * 8
    head = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], bits, colour, 0, 0, interlace)
    rows = samples.astype(samples.dtype.newbyteorder(">")).reshape(samples.shape[0], -1)
    if stream is None:
        stream = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    pieces = [(b"IDAT", stream[n : n + piece]) for n in range(0, len(stream), piece)]
    chunks = [(b"IHDR", head), *before, *pieces, *after, (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks))
    return path


def chunks(path):
    data, place, found = path.read_bytes(), 8, []
    while place < len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        found.append(data[place : place + 12 + size])
        place += 12 + size
    return found


def image(dtype, channels=1):
    rng = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(SHAPE[0]), np.arange(SHAPE[1]))[..., None] * (1 if dtype == np.uint8 else 40)
    return (ramp + rng.integers(0, 20, (*SHAPE, channels))).astype(dtype)


KINDS = [(0, 1, 1), (2, 3, 3), (4, 2, 1), (6, 4, 3)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16], ids=lambda t: t.__name__)
@pytest.mark.parametrize("colour, channels, planes", KINDS)
def test_samples_are_exact_and_other_chunks_stay(tmp_path, dtype, colour, channels, planes):
    """Lost otherwise: alpha, a comment, a private chunk or the bits of a sample."""
    source, target = tmp_path / "a.png", tmp_path / "o.png"
    before = image(dtype, channels)
    png(source, before, colour)
    frame = files.load(source)
    assert len(frame.mosaics) == planes and frame.mosaics[0].white == np.iinfo(dtype).max
    assert all(np.array_equal(m.samples, before[..., n]) for n, m in enumerate(frame.mosaics))
    after = before.copy()
    after[3, 4, 0], after[60, 82, planes - 1], after[20, 1, 0] = 1, 200, 3
    files.save(frame, [Edit.between(before[..., n], after[..., n]) for n in range(planes)], target)
    assert np.array_equal(imagecodecs.png_decode(target.read_bytes()).reshape(after.shape), after)
    old, new = ([c for c in chunks(p) if c[4:8] != b"IDAT"] for p in (source, target))
    assert old == new
    names = [c[4:8] for c in chunks(target)]
    assert names[: 1 + len(BEFORE)] == [c[4:8] for c in chunks(source)][: 1 + len(BEFORE)]


def test_what_viewers_are_told_changes_no_sample(tmp_path):
    """Lost otherwise: a transparent gray or a gamma makes other values, or a second channel, of the samples."""
    before = image(np.uint16)
    extra = [(b"gAMA", struct.pack(">I", 100000)), (b"tRNS", struct.pack(">H", int(before[5, 5, 0])))]
    assert np.array_equal(files.load(png(tmp_path / "a.png", before, before=extra)).mosaics[0].samples, before[..., 0])


def test_the_user_says_what_a_png_does_not(tmp_path):
    """Lost otherwise: Bayer PNGs of machine-vision cameras are repaired as gray."""
    path = png(tmp_path / "a.png", image(np.uint16))
    assert files.load(path).assumed == ("cfa MONO", "black 0", "white 65535")
    frame = files.load(path, Assume(RGGB, (64.0,), 4095.0, "Lab"))
    assert frame.assumed == () and frame.mosaics[0].cfa == RGGB and frame.mosaics[0].white == 4095
    assert frame.mosaics[0].black == ((64.0,),) and frame.identity.camera == "Lab"
    with pytest.raises(RefusedError, match="RGB"):
        files.load(png(tmp_path / "c.png", image(np.uint8, 3), 2), Assume(RGGB))


def test_other_pngs_are_refused_by_name(tmp_path):
    """Lost otherwise: a palette or an animation is taken for a sensor's samples."""
    path = tmp_path / "a.png"
    samples = image(np.uint8)
    png(path, samples, 3, before=[(b"PLTE", bytes(768))])
    with pytest.raises(RefusedError, match="palette"):
        files.load(path)
    png(path, samples, before=[(b"acTL", bytes(8))])
    with pytest.raises(RefusedError, match="animated"):
        files.load(path)


def test_interlaced_pngs_are_read_not_written(tmp_path):
    """Lost otherwise: a file changes how it is stored without a word."""
    samples = image(np.uint8)
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [samples[r::dr, c::dc, 0] for r, c, dr, dc in passes]
    stream = zlib.compress(b"".join(b"\0" + row.tobytes() for part in parts for row in part))
    path = png(tmp_path / "a.png", samples, interlace=1, stream=stream)
    frame = files.load(path)
    assert np.array_equal(frame.mosaics[0].samples, samples[..., 0])
    after = samples[..., 0].copy()
    after[0, 0] += 1
    with pytest.raises(RefusedError, match="interlaced"):
        files.save(frame, [Edit.between(samples[..., 0], after)], tmp_path / "o.png")


def test_damage_is_named(tmp_path):
    """Lost otherwise: a cut file is repaired from pixels that are not there, or a bomb fills the memory."""
    path = png(tmp_path / "a.png", image(np.uint16))
    whole = path.read_bytes()
    cases = [whole[:n] for n in (0, 5, 20, 60, len(whole) // 2, len(whole) - 5)]
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for data in [*cases, bytes(flipped), b"\xff\xd8\xff" + bytes(300)]:
        path.write_bytes(data)
        with pytest.raises(UnreadableError, match=r"a\.png"):
            files.load(path)
    rows = b"\0" + bytes(2 * SHAPE[1])
    for stream in (zlib.compress(rows * 60), zlib.compress(rows * 61)[:-8], zlib.compress(rows * 5000)):
        png(path, image(np.uint16), stream=stream)
        with pytest.raises(UnreadableError):
            files.load(path)
    head = struct.pack(">IIBBBBB", 60000, 60000, 16, 0, 0, 0, 0)
    path.write_bytes(whole[:8] + chunk(b"IHDR", head) + whole[33:])
    with pytest.raises(UnreadableError, match="claims"):
        files.load(path)
    rng = np.random.default_rng(0)
    for _ in range(60):
        bad = bytearray(whole)
        for place in rng.integers(0, len(bad), 4):
            bad[place] = int(rng.integers(0, 256))
        path.write_bytes(bad)
        with pytest.raises(FixpixError):  # every chunk has a CRC
            files.load(path)


def test_folders_take_gray_pngs_only(tmp_path):
    """Lost otherwise: previews and plots beside the frames fail every run."""
    assert files.is_supported(png(tmp_path / "a.png", image(np.uint16)))
    assert not files.is_supported(png(tmp_path / "b.png", image(np.uint8, 3), 2))
    (tmp_path / "c.png").write_bytes(b"")
    assert not files.is_supported(tmp_path / "c.png")


def test_provenance_goes_into_a_text_chunk(run, tmp_path):
    """Lost otherwise: nobody can see later that a PNG was repaired."""
    rng = np.random.default_rng(0)
    dark = rng.normal(100, 3, (60, 80, 1)).astype(np.uint16)
    dark[20, 30] = 4000
    path = png(tmp_path / "a.png", dark)
    code, out, err = run("correct", path, "--auto", "--provenance", "--json", "--white", 4095)
    assert code == 0 and json_lines(out)[1]["defects"] >= 1, err
    fixed = chunks(tmp_path / "repaired/a.png")
    assert fixed[-2][4:21] == b"tEXtSoftware\0fixp" and fixed[-1][4:8] == b"IEND"
    assert [c for c in fixed if c[4:8] != b"IDAT"][:-2] == [c for c in chunks(path) if c[4:8] != b"IDAT"][:-1]
    assert files.load(tmp_path / "repaired/a.png").mosaics[0].samples[20, 30] < 200


@pytest.mark.data
def test_real_lab_frames(tmp_path, data):
    """Lost otherwise: what real 12-bit PNGs say of themselves."""
    for path in sorted((data / "lab").glob("*.png"))[::8]:
        frame = files.load(path)
        before = frame.mosaics[0].samples
        after = before.copy()
        after.reshape(-1)[[0, 999, before.size - 1]] += 5
        target = tmp_path / path.name
        files.save(frame, [Edit.between(before, after)], target)
        assert np.array_equal(imagecodecs.png_decode(target.read_bytes()), after)
        assert [c for c in chunks(path) if c[4:8] != b"IDAT"] == [c for c in chunks(target) if c[4:8] != b"IDAT"]
