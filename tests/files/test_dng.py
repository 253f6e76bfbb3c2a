"""DNG to the byte: every compression, trees of directories, digests, opcodes, colours, and other programs' view."""

import hashlib
import io
import json
import shutil
import struct
import subprocess
import zlib
from dataclasses import replace

import numpy as np
import pytest
from conftest import json_lines, scene

from fixpix_cli import files
from fixpix_cli.cfa import BAYER, MONO, QUAD_RGGB, RGGB, XTRANS, Cfa
from fixpix_cli.errors import RefusedError, UnreadableError
from fixpix_cli.files import dng, exiftool, jpegs, opcodes, raw, segments
from fixpix_cli.files.tiff import opened
from fixpix_cli.mosaic import Area, Edit, Frame, Identity

NOTE = b"MAKER NOTE with its own offsets"
CODES = {letter: code for code, letter in enumerate("RGBCMYW")}


def image(shape=(150, 200), samples=1, dtype=np.uint16, top=40):
    """(H, W, S) of a smooth picture with noise."""
    y, x, s = np.mgrid[: shape[0], : shape[1], :samples]
    noise = np.random.default_rng(0).integers(0, 20, x.shape)
    return (top + y * 0.3 + x * 0.2 + 11 * s + noise).astype(dtype)


def directory(order, entries, place):
    """A directory and its values, to lie at a place of the file."""
    kinds = {1: "B", 3: "H", 4: "I", 7: "B"}
    head, values = b"", b""
    start = place + 2 + 12 * len(entries) + 4
    for tag, kind, value in sorted(entries):
        data = value if isinstance(value, bytes) else struct.pack(f"{order}{len(value)}{kinds[kind]}", *value)
        head += struct.pack(order + "HHI", tag, kind, len(value))
        if len(data) > 4:
            head += struct.pack(order + "I", start + len(values))
            values += data + b"\0" * (len(data) % 2)
        else:
            head += data.ljust(4, b"\0")
    return struct.pack(order + "H", len(entries)) + head + bytes(4) + values


def write(path, codes, packed, compression, *, tile=None, order="<", bits=16, raw_tags=(), digest=b""):
    """A DNG as Adobe writes it: preview in IFD 0, the raw image in a SubIFD, EXIF with a maker note."""
    height, width, samples = codes.shape
    data, offsets = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 0), []
    for segment in packed:
        offsets.append(len(data))
        data += segment + b"\0" * (len(segment) % 2)
    exif = len(data)
    data += directory(order, [(37500, 7, NOTE)], exif)
    preview = len(data)
    data += bytes(range(12)) * 4
    where = (324, 325) if tile else (273, 279)
    entries = [
        (254, 4, [0]), (256, 4, [width]), (257, 4, [height]), (258, 3, [bits] * samples), (259, 3, [compression]),
        (262, 3, [32803 if samples == 1 else 34892]), (277, 3, [samples]), (284, 3, [1]),
        (where[0], 4, offsets), (where[1], 4, [len(s) for s in packed]), (50717, 4, [(1 << bits) - 1] * samples),
    ]  # fmt: skip
    entries += [(322, 4, [tile[1]]), (323, 4, [tile[0]])] if tile else [(278, 4, [height])]
    entries += [(33421, 3, [2, 2]), (33422, 1, b"\0\1\1\2")] if samples == 1 else []
    given = {tag for tag, _, _ in raw_tags}
    sub = len(data)
    data += directory(order, [e for e in entries if e[0] not in given] + list(raw_tags), sub)
    data += b"\0" * (len(data) % 2)
    first = [
        (254, 4, [1]), (256, 4, [4]), (257, 4, [4]), (258, 3, [8] * 3), (259, 3, [1]), (262, 3, [2]),
        (273, 4, [preview]),

        (277, 3, [3]), (278, 4, [4]), (279, 4, [48]), (271, 2, b"Maker\0"), (272, 2, b"Model\0"), (330, 4, [sub]),
        (34665, 4, [exif]), (50706, 1, b"\1\4\0\0"), (50708, 2, b"Maker Model\0"), (50781, 1, bytes(range(16))),
    ]  # fmt: skip
    if digest:
        first.append((51111, 1, digest))
    place = len(data)
    data += directory(order, first, place)
    path.write_bytes(data[:4] + struct.pack(order + "I", place) + data[8:])
    return path


def tiled(codes, tile, encode):
    """The encoded tiles of an image, padded at its right and lower edge."""
    height, width, _ = codes.shape
    padded = np.pad(codes, ((0, -height % tile[0]), (0, -width % tile[1]), (0, 0)), mode="edge")
    return [
        encode(np.ascontiguousarray(padded[top : top + tile[0], left : left + tile[1]]))
        for top in range(0, height, tile[0])
        for left in range(0, width, tile[1])
    ]


def ljpeg(components, predictor, precision=16):
    """An encoder of tiles as lossless JPEG; three components are those of a LinearRaw pixel."""
    import imagecodecs

    def encode(tile):
        block = tile.reshape(tile.shape[0], -1, components) if components > 1 else tile[..., 0]
        colours = {"colorspace": "RGB", "outcolorspace": "RGB"} if components == 3 else {}
        return bytes(
            imagecodecs.jpeg8_encode(block, lossless=True, predictor=predictor, bitspersample=precision, **colours)
        )

    return encode


def jxl(tile):
    """A tile as lossless JPEG XL."""
    import imagecodecs

    options = {"photometric": "rgb"} if tile.shape[2] == 3 else {}
    block = tile if tile.shape[2] == 3 else tile[..., 0]
    return bytes(imagecodecs.jpegxl_encode(block, lossless=True, bitspersample=16, effort=3, **options))


def predicted(reach, order="<", floats=False):
    """An encoder of tiles as Deflate with a predictor that looks `reach` pixels back (DNG 1.4)."""

    def encode(tile):
        rows, cols, depth = tile.shape
        if floats:
            size = tile.dtype.itemsize
            parts = tile.astype(f">f{size}").view(np.uint8).reshape(rows, cols * depth, size)
            plane = np.ascontiguousarray(parts.transpose(0, 2, 1)).reshape(rows, -1, depth * reach)
        else:
            plane = tile.reshape(rows, -1, depth * reach)
        out = np.concatenate([plane[:, :1], plane[:, 1:] - plane[:, :-1]], axis=1)
        return zlib.compress(np.ascontiguousarray(out.astype(out.dtype.newbyteorder(order))).tobytes())

    return encode


def edited(path, target, codes, count=60):
    """Write other values into some pixels, check them and every byte that may not change; returns the frame read."""
    frame = files.load(path)
    assert np.array_equal(np.stack([m.samples for m in frame.mosaics], -1), codes)
    rng = np.random.default_rng(5)
    after = codes.copy()
    where = rng.choice(codes.size, count, replace=False)
    after.reshape(-1)[where] = rng.integers(1, 200, count).astype(codes.dtype)
    planes = range(codes.shape[2])
    files.save(frame, [Edit.between(codes[..., n], after[..., n]) for n in planes], target)
    again = files.load(target)
    assert np.array_equal(np.stack([m.samples for m in again.mosaics], -1), after)
    stray = strays(path, target)
    assert not len(stray), f"{len(stray)} bytes outside of segments and their tags, from {stray[:5]}"
    return again


def strays(path, target):
    """Places where two DNGs differ outside of raw segments, their offsets and counts, and the two identities."""
    allowed = np.zeros(max(path.stat().st_size, target.stat().st_size), bool)
    for one in (path, target):
        tree = opened(one)
        raster = segments.raster_of(tree, dng._raw_ifd(tree))
        for start, size in zip(raster.offsets, raster.counts, strict=True):
            allowed[start : start + size + size % 2] = True
        first = tree.chain[0].entries
        for entry in (raster.offsets_entry, raster.counts_entry, first.get(50781), first.get(51111)):
            if entry:
                allowed[entry.place : entry.place + entry.size] = True
    old, new = (np.frombuffer(one.read_bytes(), np.uint8) for one in (path, target))
    assert len(new) >= len(old)
    return np.flatnonzero((old != new[: len(old)]) & ~allowed[: len(old)])


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("components", [1, 2, 3])
def test_lossless_jpeg_of_every_predictor(tmp_path, components, predictor):
    codes = image(samples=3 if components == 3 else 1)
    path = write(tmp_path / "a.dng", codes, tiled(codes, (64, 64), ljpeg(components, predictor)), 7, tile=(64, 64))
    edited(path, tmp_path / "o.dng", codes)
    tree = opened(tmp_path / "o.dng")
    raster = segments.raster_of(tree, dng._raw_ifd(tree))
    for start, size in zip(raster.offsets, raster.counts, strict=True):
        header = jpegs.ljpeg_header(bytes(tree.data[start : start + size]))
        assert (header.predictor, header.components, header.precision) == (predictor, components, 16)


def test_a_repair_above_a_tiles_precision_raises_the_precision(tmp_path):
    codes = image()
    path = write(tmp_path / "a.dng", codes, tiled(codes, (64, 64), ljpeg(2, 1, 12)), 7, tile=(64, 64))
    frame = files.load(path)
    files.save(frame, [Edit(np.array([3]), np.array([4]), np.array([5000], np.uint16))], tmp_path / "o.dng")
    assert files.load(tmp_path / "o.dng").mosaics[0].samples[3, 4] == 5000


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("predictor", "reach"), [(2, 1), (34892, 2), (34893, 4)])
def test_deflate_with_every_predictor(tmp_path, order, predictor, reach):
    codes = image()
    packed = tiled(codes, (64, 64), predicted(reach, order))
    path = write(tmp_path / "a.dng", codes, packed, 8, tile=(64, 64), order=order, raw_tags=[(317, 3, [predictor])])
    edited(path, tmp_path / "o.dng", codes)


@pytest.mark.parametrize(("predictor", "reach"), [(3, 1), (34894, 2), (34895, 4)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_floats_with_every_predictor(tmp_path, predictor, reach, dtype):
    codes = image(dtype=dtype)
    bits = 8 * codes.dtype.itemsize
    tags = [(317, 3, [predictor]), (339, 3, [3]), (258, 3, [bits]), (50717, 4, [1000])]
    packed = tiled(codes, (64, 64), predicted(reach, floats=True))
    path = write(tmp_path / "a.dng", codes, packed, 8, tile=(64, 64), raw_tags=tags)
    edited(path, tmp_path / "o.dng", codes)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("fields", [(1, 1), (2, 2), (3, 2)])
def test_jpeg_xl_and_interleaved_fields(tmp_path, samples, fields):
    codes = image(samples=samples)
    rows = np.concatenate([np.arange(f, codes.shape[0], fields[0]) for f in range(fields[0])])
    cols = np.concatenate([np.arange(f, codes.shape[1], fields[1]) for f in range(fields[1])])
    packed = tiled(codes[rows][:, cols], (64, 80), jxl)
    tags = [(50975, 3, [fields[0]]), (52547, 3, [fields[1]])]
    whole = hashlib.md5(b"".join(hashlib.md5(p).digest() for p in packed)).digest()
    path = write(tmp_path / "a.dng", codes, packed, 52546, tile=(64, 80), raw_tags=tags, digest=whole)
    edited(path, tmp_path / "o.dng", codes)


def test_interleaved_fields_without_compression(tmp_path):
    codes = image()
    rows = np.concatenate([np.arange(f, codes.shape[0], 2) for f in range(2)])
    path = write(tmp_path / "a.dng", codes, [codes[rows].tobytes()], 1, raw_tags=[(50975, 3, [2])])
    edited(path, tmp_path / "o.dng", codes)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("order", ["<", ">"])
def test_packed_depths_clip_a_repair_to_what_they_hold(tmp_path, bits, order):
    codes = image()
    path = write(tmp_path / "a.dng", codes, [segments._pack_bits(codes[..., 0], bits)], 1, bits=bits, order=order)
    frame = edited(path, tmp_path / "o.dng", codes)
    assert frame.mosaics[0].legal_range == (0, (1 << bits) - 1)


def test_maker_note_preview_and_tree_stay_where_they_are(tmp_path):
    codes = image()
    path = write(tmp_path / "a.dng", codes, tiled(codes, (64, 64), ljpeg(2, 1)), 7, tile=(64, 64))
    edited(path, tmp_path / "o.dng", codes, 3000)
    one, two = opened(path), opened(tmp_path / "o.dng")
    for tree in (one, two):
        assert tree.raw(tree.chain[0].exif, 37500) == NOTE
    assert one.chain[0].exif.entries[37500].place == two.chain[0].exif.entries[37500].place
    assert one.chain[0].offset == two.chain[0].offset


def test_tiles_that_grow_are_packed_into_the_old_extents_before_the_file_grows(tmp_path):
    codes = image((128, 256))
    path = write(tmp_path / "a.dng", codes, tiled(codes, (64, 64), ljpeg(2, 1)), 7, tile=(64, 64))
    frame, after = files.load(path), codes[..., 0].copy()
    after[:64, 64:128] = 100  # this tile shrinks, another one grows by less
    after[70:100:3, 140:160] = np.random.default_rng(1).integers(0, 60000, (10, 20))
    files.save(frame, [Edit.between(codes[..., 0], after)], tmp_path / "o.dng")
    assert np.array_equal(files.load(tmp_path / "o.dng").mosaics[0].samples, after)
    assert (tmp_path / "o.dng").stat().st_size == path.stat().st_size
    assert not len(strays(path, tmp_path / "o.dng"))


@pytest.mark.parametrize("kind", ["none", "ljpeg", "float", "half"])
def test_the_digest_is_checked_and_renewed(tmp_path, kind):
    codes = image(dtype={"float": np.float32, "half": np.float16}.get(kind, np.uint16))
    tags = [] if codes.dtype.kind == "u" else [(339, 3, [3]), (258, 3, [8 * codes.dtype.itemsize]), (50717, 4, [999])]

    def made(name, digest):
        if kind == "ljpeg":
            packed = tiled(codes, (64, 64), ljpeg(2, 1))
            return write(tmp_path / name, codes, packed, 7, tile=(64, 64), digest=digest)
        return write(tmp_path / name, codes, [codes.tobytes()], 1, raw_tags=tags, digest=digest)

    wide = codes.astype(np.float32) if kind == "half" else codes
    tiles = [wide[r : r + 256, c : c + 256].tobytes() for r in range(0, 150, 256) for c in range(0, 200, 256)]
    right = hashlib.md5(b"".join(hashlib.md5(t).digest() for t in tiles)).digest()
    edited(made("a.dng", right), tmp_path / "o.dng", codes)  # loading it again checks the new digest
    ids = [opened(tmp_path / n) for n in ("a.dng", "o.dng")]
    for tag in (51111, 50781):
        old, new = (tree.raw(tree.chain[0], tag) for tree in ids)
        assert old != new and len(new) == 16
    with pytest.raises(UnreadableError, match="NewRawImageDigest"):
        files.load(made("wrong.dng", b"\1" * 16))
    edited(made("absent.dng", bytes(16)), tmp_path / "p.dng", codes)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
@pytest.mark.parametrize("repaired_end", [False, True])
@pytest.mark.parametrize(("compression", "encode"), [(7, ljpeg(2, 1)), (7, ljpeg(1, 6)), (52546, jxl)])
def test_a_cut_tile_is_an_error(tmp_path, compression, encode, share, repaired_end):
    """Even one with an end marker and a right count: libjpeg-turbo would fill it with wrong pixels."""
    codes = image()
    packed = tiled(codes, (64, 64), encode)
    packed[2] = packed[2][: int(len(packed[2]) * share)] + (b"\xff\xd9" if repaired_end else b"")
    path = write(tmp_path / "cut.dng", codes, packed, compression, tile=(64, 64))
    with pytest.raises(UnreadableError, match=r"cut\.dng"):
        files.load(path)


def test_the_bits_of_a_tile_are_counted_exactly():
    """Every predictor and depth: what the encoder wrote is what the pixels need, and a cut stream has less."""
    import imagecodecs

    rng = np.random.default_rng(2)
    for predictor in range(1, 8):
        for precision, top in ((8, 256), (12, 4096), (16, 65536)):
            block = rng.integers(0, top, (40, 30, 2)).astype(np.uint8 if precision == 8 else np.uint16)
            data = bytes(imagecodecs.jpeg8_encode(block, lossless=True, predictor=predictor, bitspersample=precision))
            header = jpegs.ljpeg_header(data)
            jpegs.check_ljpeg(data, header, block)
            cut = data[: len(data) - 40] + b"\xff\xd9"
            with pytest.raises(ValueError):
                jpegs.check_ljpeg(cut, header, np.asarray(imagecodecs.jpeg8_decode(cut)))


def test_what_would_change_every_pixel_is_refused_by_name(tmp_path):
    import imagecodecs

    codes = image((64, 64))
    lossy = [bytes(imagecodecs.jpegxl_encode(codes[..., 0], distance=1.0))]
    eight = [bytes(imagecodecs.jpeg8_encode(codes[..., 0].astype(np.uint8)))]
    for name, packed, compression, tags, word in (
        ("x", lossy, 52546, [], "lossy JPEG XL"),
        ("d", [jxl(codes)], 52546, [(52553, 4, [1])], "lossy JPEG XL"),
        ("j", eight, 7, [(258, 3, [8])], "lossy JPEG"),
        ("l", eight, 34892, [(258, 3, [8])], "lossy JPEG"),
        ("v", [b"anything"], 9, [], "VC-5"),
        ("s", [codes.tobytes()], 1, [(50711, 3, [2])], "staggered"),
    ):
        path = write(tmp_path / f"{name}.dng", codes, packed, compression, tile=(64, 64), raw_tags=tags)
        with pytest.raises(RefusedError, match=word):
            files.load(path)
        if name == "v":
            shutil.copy(path, tmp_path / "v.gpr")
            with pytest.raises(RefusedError, match="VC-5"):
                files.load(tmp_path / "v.gpr")


def test_a_jpeg_xl_header_says_size_and_depth():
    import imagecodecs

    for shape in ((8, 8), (64, 256), (592, 640), (750, 31)):
        for bits in (8, 10, 12, 16):
            block = np.zeros(shape, np.uint8 if bits == 8 else np.uint16)
            header = jpegs.jxl_header(bytes(imagecodecs.jpegxl_encode(block, lossless=True, bitspersample=bits)))
            assert (header.height, header.width, header.bits, header.xyb) == (*shape, bits, False)
    assert jpegs.jxl_header(bytes(imagecodecs.jpegxl_encode(np.zeros((9, 9), np.uint8), distance=2.0))).xyb
    with pytest.raises(ValueError):
        jpegs.jxl_header(b"no stream")


# ---------------------------------------------------------------- bad-pixel opcodes


def listed(points=(), areas=(), constant=None):
    """An OpcodeList1 with opcodes 5 and 4, and one (9, GainMap) that is not ours."""
    body = struct.pack(">3I", 1, len(points), len(areas))
    body += b"".join(struct.pack(f">{len(p)}i", *p) for p in (*points, *areas))
    parts = [struct.pack(">4I", 5, 0x01030000, 0, len(body)) + body, struct.pack(">4I", 9, 0x01030000, 1, 3) + b"abc"]
    if constant is not None:
        parts.append(struct.pack(">6I", 4, 0x01030000, 0, 8, constant, 1))
    return struct.pack(">I", len(parts)) + b"".join(parts)


@pytest.mark.parametrize("order", ["<", ">"])
def test_opcodes_are_a_prior_mask(tmp_path, order):
    codes = image()
    codes[7, 9] = codes[70, 90] = 3
    data = listed([(5, 6), (149, 199), (150, 0)], [(20, 30, 22, 33)], constant=3)
    swapped = codes.astype(codes.dtype.newbyteorder(order)).tobytes()
    frame = files.load(write(tmp_path / "a.dng", codes, [swapped], 1, order=order, raw_tags=[(51008, 7, data)]))
    wanted = np.zeros((150, 200), bool)
    wanted[[5, 149, 7, 70], [6, 199, 9, 90]] = True
    wanted[20:22, 30:33] = True
    assert np.array_equal(frame.prior, wanted)
    assert any("1 entries" in note for note in frame.notes)
    broken = files.load(write(tmp_path / "b.dng", codes, [codes.tobytes()], 1, raw_tags=[(51008, 7, data[:-1])]))
    assert broken.prior is None and "damaged" in broken.notes[0]


@pytest.mark.parametrize("before", [b"", listed([(5, 6)], [(1, 2, 3, 4)], constant=9)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_annotation_lists_pixels_and_changes_none(tmp_path, before, order):
    codes = image()
    tags = [(51008, 7, before)] if before else []
    swapped = codes.astype(codes.dtype.newbyteorder(order)).tobytes()
    path = write(tmp_path / "a.dng", codes, [swapped], 1, order=order, raw_tags=tags)
    frame = files.load(path)
    bad = np.zeros((150, 200), bool)
    bad[[3, 3, 100], [8, 2, 50]] = True
    files.annotate(frame, [bad], tmp_path / "o.dng")
    again = files.load(tmp_path / "o.dng")
    assert np.array_equal(again.mosaics[0].samples, codes[..., 0])
    assert np.array_equal(again.prior, bad if frame.prior is None else bad | frame.prior)
    one, two = opened(path), opened(tmp_path / "o.dng")
    assert two.raw(two.chain[0].exif, 37500) == NOTE
    old, new = dng._raw_ifd(one), dng._raw_ifd(two)
    assert {t: one.raw(old, t) for t in old.entries if t != 51008} == {
        t: two.raw(new, t) for t in new.entries if t != 51008
    }
    data = two.raw(new, 51008)
    count, first = struct.unpack_from(">2I", data)
    assert count == (3 if before else 1) and first == (9 if before else 5)
    assert struct.unpack_from(">4I", data, len(data) - 12 - 8 * (4 if before else 3) - 16 * bool(before))[0] == 1
    assert one.data[8 : one.chain[0].offset - 200] == two.data[8 : one.chain[0].offset - 200] or before


def test_annotation_of_a_big_tiff(tmp_path):
    import tifffile

    codes = image()[..., 0]
    tags = [(33421, 3, 2, (2, 2), True), (33422, 1, 4, b"\0\1\1\2", True), (50706, 1, 4, b"\1\4\0\0", True)]
    options = {"photometric": 32803, "bigtiff": True, "metadata": None, "extratags": tags}
    tifffile.imwrite(tmp_path / "a.dng", codes, **options)
    bad = codes == codes.max()
    files.annotate(files.load(tmp_path / "a.dng"), [bad], tmp_path / "o.dng")
    again = files.load(tmp_path / "o.dng")
    assert np.array_equal(again.prior, bad) and np.array_equal(again.mosaics[0].samples, codes)


def test_bayer_phase_follows_the_sdk():
    bad = np.zeros((4, 4), bool)
    bad[1, 2] = True
    for cfa, phase in zip(BAYER, (1, 0, 3, 2), strict=True):
        assert struct.unpack_from(">I", opcodes.with_list(b"", bad, cfa), 20)[0] == phase
    with pytest.raises(ValueError, match="Bayer"):
        opcodes.with_list(b"", bad, XTRANS)


def test_correct_counts_and_writes_opcodes(run, tmp_path):
    from fixpix_cli.maps import read_mask

    codes = scene(shape=(150, 200)).samples[..., None].copy()
    codes[50, 60] = 16000
    path = write(tmp_path / "a.dng", codes, [codes.tobytes()], 1, raw_tags=[(51008, 7, listed([(5, 6)]))])
    code, out, _ = run("correct", path, "--auto", "--dng", "opcode", "--out", "listed", "--json")
    (record,), _ = json_lines(out)
    assert code == 0 and record["method"] == "opcode" and any("RawTherapee" in note for note in record["notes"])
    after = files.load(tmp_path / "listed/a.dng")
    assert np.array_equal(after.mosaics[0].samples, codes[..., 0]) and after.prior[50, 60] and after.prior[5, 6]
    code, out, _ = run("correct", "listed/a.dng", "--auto", "--out", "fixed", "--json")
    (record,), _ = json_lines(out)
    assert code == 0 and any("OpcodeList1" in note for note in record["notes"])
    fixed = files.load(tmp_path / "fixed/a.dng").mosaics[0].samples
    assert fixed[50, 60] != 16000 and np.count_nonzero(fixed != codes[..., 0]) <= record["defects"]
    assert run("detect", "listed/a.dng", "--out", "masks")[0] == 0
    mask = read_mask(tmp_path / "masks/a.mask.fits").planes[0].bad
    assert mask[5, 6] and mask[50, 60]
    assert run("correct", path, "--auto", "--dng", "magic")[0] == 2


# ---------------------------------------------------------------- fresh DNGs and colour filter arrays

GMYC = Cfa(("GM", "YC"))
PATTERNS = {"xtrans": XTRANS, "quad": QUAD_RGGB, "gmyc": GMYC, "mono": MONO, "rggb": RGGB}
RGBW = Cfa(("WBWG", "BWGW", "WGWR", "GWRW"))


def fresh(path, cfa, margins=(0, 0), shape=(240, 312)):
    """A fresh DNG of a scene whose visible corner, at `margins`, sees the pattern; returns the stored mosaic."""
    mosaic = scene(cfa.shifted(-margins[0], -margins[1]), shape)
    mosaic = replace(mosaic, active=Area(*margins, shape[0] - 6, shape[1] - 6))
    planes = "GMCY" if cfa == GMYC else "RGB"
    frame = Frame((mosaic,), path, identity=Identity("Make", "Model"))
    raw.write_dng(path, frame, mosaic.samples, np.zeros((3, 3)), np.ones(len(planes)), 1, planes)
    return mosaic


@pytest.mark.parametrize("margins", [(0, 0), (12, 12), (4, 7), (5, 3)])
@pytest.mark.parametrize("name", PATTERNS)
def test_colours_are_right_behind_any_margins(tmp_path, name, margins):
    """By our reader, and by LibRaw's when the same file comes as a camera raw."""
    mosaic = fresh(tmp_path / "a.dng", PATTERNS[name], margins)
    shutil.copy(tmp_path / "a.dng", tmp_path / "a.raf")
    for path in (tmp_path / "a.dng", tmp_path / "a.raf"):
        seen = files.load(path).mosaics[0]
        assert np.array_equal(seen.samples, mosaic.samples)
        assert all(seen.cfa.colour(r, c) == mosaic.cfa.colour(r, c) for r in range(24) for c in range(24)), (
            f"{path.suffix}: {seen.cfa.name}"
        )


def test_a_pattern_that_libraw_folds_is_refused_by_name(tmp_path):
    with pytest.raises(RefusedError, match="RGBW"):
        fresh(tmp_path / "a.dng", Cfa(("RG", "BW")))
    with pytest.raises(RefusedError, match="--cfa"):
        raw._known(tmp_path / "a.raf", QUAD_RGGB)


@pytest.mark.parametrize("name", [*PATTERNS, "rgbw"])
def test_any_pattern_is_detected_and_repaired(run, tmp_path, name):
    cfa = PATTERNS.get(name, RGBW)
    mosaic = scene(cfa, (180, 240))
    codes = mosaic.samples[..., None]
    side = cfa.period
    letters = bytes(CODES.get(ch, 1) for row in cfa.tile for ch in row)
    tags = [(33421, 3, list(side)), (33422, 1, letters), (50714, 4, [200]), (50717, 4, [16383])]
    write(tmp_path / "a.dng", codes, tiled(codes, (64, 64), ljpeg(2, 1)), 7, tile=(64, 64), raw_tags=tags)
    assert run("inject", "a.dng", "--out", "hurt", "--rate", "0.5%", "--seed", "1")[0] == 0
    code, out, _ = run("correct", "hurt/a.dng", "--auto", "--json")
    (record,), _ = json_lines(out)
    assert code == 0 and record["defects"] > 100
    clean, hurt, fixed = (
        files.load(tmp_path / p / "a.dng").mosaics[0].samples.astype(float) for p in (".", "hurt", "repaired")
    )
    assert np.square(fixed - clean).mean() < 0.05 * np.square(hurt - clean).mean()


def test_metadata_comes_by_exiftool_or_its_lack_is_named(tmp_path, monkeypatch):
    mosaic = fresh(tmp_path / "a.raf", RGGB)
    frame = files.load(tmp_path / "a.raf")
    none = [Edit.between(mosaic.samples, mosaic.samples)]
    monkeypatch.setattr(exiftool.shutil, "which", lambda name: None)
    notes = files.save(frame, none, tmp_path / "plain.dng")
    assert len(notes) == 1 and "exiftool is not installed" in notes[0] and "GPS" in notes[0]
    assert np.array_equal(files.load(tmp_path / "plain.dng").mosaics[0].samples, mosaic.samples)


# ---------------------------------------------------------------- other programs


def needs(program):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


@pytest.fixture(scope="session")
def from_raw(tmp_path_factory):
    """The Canon raw and its fresh DNG with one pixel changed."""
    from conftest import DATA

    source = DATA / "raw/canon_s40_CRW_0101.CRW"
    frame = files.load(source)
    before = frame.mosaics[0].samples
    after = before.copy()
    after[40, 50] ^= 1
    target = tmp_path_factory.mktemp("raw") / "fresh.dng"
    files.save(frame, [Edit.between(before, after)], target)
    return source, target, after


@pytest.mark.data
@needs("exiftool")
def test_exiftool_carries_the_metadata(from_raw):
    source, target, _ = from_raw
    old, new = (tags_of(path) for path in (source, target))
    assert new["ExifIFD:DateTimeOriginal"] == old["CanonRaw:DateTimeOriginal"]
    assert any(key.startswith("Canon:") for key in new), "maker notes"
    assert new["IFD0:Orientation"] and "IFD1:Compression" not in new


@pytest.mark.data
@needs("dcraw")
def test_dcraw_reads_the_fresh_dng(from_raw):
    _, target, after = from_raw
    assert np.array_equal(by_dcraw(target), after)


@pytest.mark.data
@needs("darktable-cli")
def test_darktable_develops_the_fresh_dng(from_raw, tmp_path):
    out = tmp_path / "o.tif"
    config = ["--core", "--configdir", tmp_path / "config", "--cachedir", tmp_path / "cache", "--library", ":memory:"]
    subprocess.run(["darktable-cli", from_raw[1], out, "--width", "600", *config], check=True, capture_output=True)
    check_picture(out)


@pytest.mark.data
@needs("rawtherapee-cli")
def test_rawtherapee_develops_the_fresh_dng(from_raw, tmp_path):
    out = tmp_path / "o.tif"
    subprocess.run(["rawtherapee-cli", "-o", out, "-t", "-Y", "-c", from_raw[1]], check=True, capture_output=True)
    check_picture(out)


@pytest.mark.data
@needs("darktable-cli")
def test_darktable_honours_the_annotation(data, tmp_path):
    import tifffile

    frame = files.load(data / "dng/canon_550d_packed14.dng")
    mosaic = frame.mosaics[0]
    rows, cols = np.random.default_rng(0).integers((100, 300), (1000, 1700), (200, 2)).T
    bad = np.zeros(mosaic.shape, bool)
    bad[rows, cols] = True
    hot = np.where(bad, 15000, mosaic.samples).astype(np.uint16)
    files.save(frame, [Edit.between(mosaic.samples, hot)], tmp_path / "hot.dng")
    files.annotate(files.load(tmp_path / "hot.dng"), [bad], tmp_path / "listed.dng")
    pictures = []
    for name in ("hot", "listed"):
        config = ["--core", "--configdir", tmp_path / "config", "--cachedir", tmp_path / "cache"]
        command = [
            "darktable-cli",
            tmp_path / f"{name}.dng",
            tmp_path / f"{name}.tif",
            *config,
            "--library",
            ":memory:",
        ]
        subprocess.run(command, check=True, capture_output=True)
        pictures.append(tifffile.imread(tmp_path / f"{name}.tif").astype(int))
    changed = np.abs(pictures[0] - pictures[1]).max(axis=2) > 5
    area = mosaic.active
    assert changed[rows - area.top, cols - area.left].mean() > 0.5
    assert changed.mean() < 0.01


def check_picture(path):
    """A developed picture: neither black nor one-coloured."""
    import tifffile

    picture = tifffile.imread(path)
    picture = picture / np.iinfo(picture.dtype).max
    assert picture.shape[2] == 3 and 0.02 < picture.mean() < 0.98 and picture.std() > 0.02


@pytest.mark.data
@pytest.mark.parametrize("name", ["canon_s40_CRW_0101.CRW", "kodak_dc120_P003909.KDC"])
def test_a_fresh_dng_is_rendered_as_its_raw(tmp_path, data, name):
    import rawpy

    frame = files.load(data / "raw" / name)
    samples = frame.mosaics[0].samples
    files.save(frame, [Edit.between(samples, samples)], tmp_path / "o.dng")
    pictures = []
    for path in (data / "raw" / name, tmp_path / "o.dng"):
        with rawpy.imread(str(path)) as one:
            pictures.append(one.postprocess(use_camera_wb=True, half_size=True, no_auto_bright=True).astype(float))
    assert pictures[0].shape == pictures[1].shape
    assert np.abs(pictures[0] - pictures[1]).mean() < 0.05


def tags_of(path):
    """What exiftool says of a file, without the file system."""
    out = subprocess.run(["exiftool", "-a", "-u", "-G1:4", "-j", path], capture_output=True, check=True).stdout
    return {k: v for k, v in json.loads(out)[0].items() if not k.startswith("System:") and k != "SourceFile"}


def by_dcraw(path):
    """The stored mosaic as dcraw unpacks it."""
    import tifffile

    out = subprocess.run(["dcraw", "-E", "-4", "-T", "-t", "0", "-c", path], capture_output=True, check=True).stdout
    return tifffile.imread(io.BytesIO(out))


REAL = (
    *("adobe_sdk_05_PGTM2_unsigned8", "adobe_sdk_14_hdr_sdr_profiles", "canon_550d_packed14", "cfa_defl_p2"),
    *("cfaflt32_p3", "colorchart_adobe_lj", "colorchart_jxl", "flt16_defl_p3", "lin_lj3", "lut", "pack10", "pack12"),
    *("pack12be", "pack14", "u16be", "u8"),
)
#: Those of which rawpy and dcraw give the stored codes.
PLAIN = ("canon_550d_packed14", "colorchart_adobe_lj", "pack10", "pack12", "pack12be", "pack14", "u16be", "u8")


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_real_files_as_other_programs_see_them(tmp_path, data, name):
    import rawpy

    source, target = data / "dng" / f"{name}.dng", tmp_path / "o.dng"
    frame = files.load(source)
    edits, wanted = [], []
    for mosaic in frame.mosaics:
        after = mosaic.samples.copy()
        where = np.random.default_rng(0).choice(after.size, 100, replace=False)
        after.reshape(-1)[where] = np.random.default_rng(1).permutation(after.reshape(-1)[where])
        edits.append(Edit.between(mosaic.samples, after))
        wanted.append(after)
    files.save(frame, edits, target)
    assert not len(strays(source, target))
    if name in PLAIN:
        with rawpy.imread(str(target)) as one:
            assert np.array_equal(one.raw_image, wanted[0])
        if shutil.which("dcraw"):
            assert np.array_equal(by_dcraw(target), wanted[0])
    if shutil.which("exiftool"):
        old, new = tags_of(source), tags_of(target)
        changed = {key.split(":")[-1] for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
        ours = {"TileOffsets", "TileByteCounts", "StripOffsets", "StripByteCounts"}
        assert changed <= ours | {"NewRawImageDigest", "RawDataUniqueID"}


@pytest.mark.data
def test_stored_digests_of_adobes_files_are_ours(data):
    checked = 0
    for path in sorted((data / "dng").glob("*.dng")):
        tree = opened(path)
        if not dng._stored_digest(tree):
            continue
        try:
            files.load(path)  # raises where the digest is another
        except RefusedError:
            continue
        checked += 1
    assert checked >= 6


@pytest.mark.data
def test_jpeg_xl_holds_the_same_mosaic_as_lossless_jpeg(data):
    one, two = (files.load(data / f"dng/colorchart_{kind}.dng").mosaics[0] for kind in ("adobe_lj", "jxl"))
    assert np.array_equal(one.samples, two.samples) and one.cfa == two.cfa
