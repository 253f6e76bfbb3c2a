"""TIFF and DNG: only touched strips and tiles are written anew; what cannot be exact is refused."""

import struct
import zlib

import numpy as np
import pytest
import tifffile

from fixpix_cli import files
from fixpix_cli.errors import FixpixError, RefusedError, UnreadableError
from fixpix_cli.files import segments
from fixpix_cli.files.tiff import opened
from fixpix_cli.mosaic import Edit


def image(dtype=np.uint16, shape=(150, 200)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    rng = np.random.default_rng(0)
    values = 40 + y * 0.3 + x * 0.2 + rng.integers(0, 20, shape)
    return values.astype(dtype)


def check(source, target, before, count=80):
    """Edit some pixels, save, reload: exact, and foreign segments untouched; returns bytes of both."""
    frame = files.load(source)
    assert np.array_equal(frame.mosaics[0].samples, before)
    rng = np.random.default_rng(5)
    after = before.copy()
    where = rng.choice(before.size, count, replace=False)
    after.reshape(-1)[where] = rng.integers(1, 100, count).astype(before.dtype)
    files.save(frame, [Edit.between(before, after)], target)
    assert np.array_equal(files.load(target).mosaics[0].samples, after)
    return frame


VARIANTS = [
    {"compression": None},
    {"compression": None, "tile": (64, 64)},
    {"compression": None, "rowsperstrip": 7},
    {"compression": "lzw", "tile": (64, 64)},
    {"compression": "lzw", "predictor": 2},
    {"compression": "zlib", "predictor": 2, "tile": (32, 48)},
    {"compression": "zstd", "predictor": 2},
    {"compression": "packbits"},
    {"compression": "lzma", "predictor": True},
    {"bigtiff": True, "compression": "zlib"},
    {"byteorder": ">", "compression": None},
    {"byteorder": ">", "compression": "zlib", "predictor": 2, "rowsperstrip": 13},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_tiff_variants(tmp_path, options, dtype):
    source, target = tmp_path / "a.tif", tmp_path / "o.tif"
    tifffile.imwrite(source, image(dtype), photometric="minisblack", metadata=None, **options)
    check(source, target, image(dtype))
    with tifffile.TiffFile(source) as one, tifffile.TiffFile(target) as two:
        moved = {273, 279, 324, 325}
        assert {t.code: t.value for t in one.pages[0].tags if t.code not in moved} == {
            t.code: t.value for t in two.pages[0].tags if t.code not in moved
        }
        assert np.array_equal(files.load(target).mosaics[0].samples, two.asarray())


def test_uncompressed_pixels_are_patched_alone(tmp_path):
    source, target = tmp_path / "a.tif", tmp_path / "o.tif"
    tifffile.imwrite(source, image(), metadata=None, rowsperstrip=10)
    check(source, target, image(), 5)
    old, new = (np.frombuffer(p.read_bytes(), np.uint8) for p in (source, target))
    assert len(old) == len(new) and np.count_nonzero(old != new) <= 10


@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "predictor": 3, "tile": (64, 64)}], ids=str)
def test_float_tiffs(tmp_path, options):
    values = (image() / 7.0).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values, metadata=None, **options)
    check(tmp_path / "a.tif", tmp_path / "o.tif", values)


def test_lossy_tiffs_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "j.tif", np.zeros((64, 64), np.uint8), compression="jpeg")
    with pytest.raises(FixpixError, match="JPEG"):
        files.load(tmp_path / "j.tif")


def dng(path, samples, bits=16, order="<", compression=1, tile=None, extra=(), active=None):
    """A DNG as cameras write it, byte by byte; `tile` cuts into encoded tiles."""
    height, width = samples.shape
    if compression == 1 and bits not in (8, 16):
        packed = [segments._pack_bits(samples, bits)]
    elif compression == 1:
        packed = [samples.astype(samples.dtype.newbyteorder(order)).tobytes()]
    else:
        packed = []
        for top in range(0, height, tile[0]):
            for left in range(0, width, tile[1]):
                block = np.zeros(tile, samples.dtype)
                part = samples[top : top + tile[0], left : left + tile[1]]
                block[: part.shape[0], : part.shape[1]] = part
                packed.append(compress(block, compression))
    data = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 0)
    offsets = []
    for segment in packed:
        offsets.append(len(data))
        data += segment + b"\0" * (len(segment) % 2)
    tags = [
        (254, 4, [0]), (256, 4, [width]), (257, 4, [height]), (258, 3, [bits]), (259, 3, [compression]),
        (262, 3, [32803]),
        (271, 2, b"Maker\0"), (272, 2, b"Model\0"), (277, 3, [1]), (33421, 3, [2, 2]), (33422, 1, b"\0\1\1\2"),
        (50706, 1, b"\1\4\0\0"), (50708, 2, b"Maker Model\0"), (50714, 3, [30]), (50717, 4, [(1 << bits) - 1]),
        (50781, 1, bytes(range(16))), *extra,
    ]  # fmt: skip
    if active:
        tags.append((50829, 4, list(active)))
    sizes = [len(s) for s in packed]
    if tile:
        tags += [(324, 4, offsets), (325, 4, sizes), (322, 4, [tile[1]]), (323, 4, [tile[0]])]
    else:
        tags += [(273, 4, offsets), (278, 4, [height]), (279, 4, sizes)]
    entries, place = b"", len(data)
    values = b""
    start = place + 2 + 12 * len(tags) + 4
    for tag, kind, value in sorted(tags):
        raw = (
            value
            if isinstance(value, bytes)
            else struct.pack(f"{order}{len(value)}{'H' if kind == 3 else 'I'}", *value)
        )
        entry = struct.pack(order + "HHI", tag, kind, len(value))
        if len(raw) <= 4:
            entry += raw.ljust(4, b"\0")
        else:
            entry += struct.pack(order + "I", start + len(values))
            values += raw + b"\0" * (len(raw) % 2)
        entries += entry
    data += struct.pack(order + "H", len(tags)) + entries + struct.pack(order + "I", 0) + values
    path.write_bytes(data[:4] + struct.pack(order + "I", place) + data[8:])
    return path


def compress(block, compression, predictor=1, components=2, precision=16):
    import imagecodecs

    if compression == 8:
        return zlib.compress(block.tobytes())
    height, width = block.shape
    shaped = block.reshape(height, width // components, components)
    shaped = shaped[..., 0] if components == 1 else shaped
    return imagecodecs.jpeg8_encode(shaped, lossless=True, predictor=predictor, bitspersample=precision)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_uncompressed_and_packed_dng(tmp_path, bits, order):
    dtype = np.uint8 if bits == 8 else np.uint16
    source, target = tmp_path / "a.dng", tmp_path / "o.dng"
    dng(source, image(dtype), bits, order)
    check(source, target, image(dtype), 30)
    old, new = (np.frombuffer(p.read_bytes(), np.uint8) for p in (source, target))
    assert len(old) == len(new)
    assert np.count_nonzero(old != new) <= 30 * 3 + 16  # the pixels' bytes and RawDataUniqueID


@pytest.mark.parametrize("compression", [7, 8])
def test_compressed_dng_touches_only_the_tiles_with_edits(tmp_path, compression):
    source, target = tmp_path / "a.dng", tmp_path / "o.dng"
    dng(source, image(), compression=compression, tile=(64, 64))
    frame = files.load(source)
    after = image()
    after[5, 7] = 3
    files.save(frame, [Edit.between(image(), after)], target)
    one, two = opened(source), opened(target)
    a, b = (segments.raster_of(t, t.chain[0]) for t in (one, two))
    for n in range(1, len(a.offsets)):
        old, new = (slice(r.offsets[n], r.offsets[n] + r.counts[n]) for r in (a, b))
        assert bytes(one.data[old]) == bytes(two.data[new])
    assert np.array_equal(files.load(target).mosaics[0].samples, after)


def test_rawpy_sees_the_same_pixels(tmp_path):
    import rawpy

    source, target = tmp_path / "a.dng", tmp_path / "o.dng"
    dng(source, image(shape=(256, 320)), compression=7, tile=(64, 64))
    check(source, target, image(shape=(256, 320)), 200)
    with rawpy.imread(str(target)) as raw:
        assert np.array_equal(raw.raw_image, files.load(target).mosaics[0].samples)


def test_margins_shift_pattern_and_black(tmp_path):
    frame = files.load(dng(tmp_path / "a.dng", image(), active=(3, 5, 147, 195)))
    mosaic = frame.mosaics[0]
    assert mosaic.cfa.colour(3, 5) == "R" and mosaic.active.top == 3 and mosaic.black == ((30.0,),)
    assert frame.identity.camera == "Maker Model"


def test_the_unique_id_is_renewed_and_a_wrong_digest_is_damage(tmp_path):
    source, target = tmp_path / "a.dng", tmp_path / "o.dng"
    dng(source, image())
    check(source, target, image(), 3)
    ids = [opened(p).raw(opened(p).chain[0], 50781) for p in (source, target)]
    assert ids[0] == bytes(range(16)) and ids[0] != ids[1]
    with pytest.raises(UnreadableError, match="damaged"):
        files.load(dng(tmp_path / "d.dng", image(), extra=[(51111, 1, b"\1" * 16)]))


def test_a_linearisation_table_is_undone_and_restored(tmp_path):
    table = (np.arange(256, dtype=np.uint32) ** 2 // 16).astype(np.uint16)
    source, target = tmp_path / "a.dng", tmp_path / "o.dng"
    codes = image(np.uint8)
    dng(source, codes, 8, extra=[(50712, 3, table.tolist())])
    frame = files.load(source)
    assert np.array_equal(frame.mosaics[0].samples, table[codes])
    after = table[codes].copy()
    after[4, 4] = table[77] + 1
    files.save(frame, [Edit.between(table[codes], after)], target)
    again = files.load(target).mosaics[0].samples
    assert again[4, 4] == table[77] and np.count_nonzero(again != table[codes]) == 1


def test_damage_is_an_error_never_a_wrong_picture(tmp_path):
    whole = dng(tmp_path / "a.dng", image(), compression=7, tile=(64, 64)).read_bytes()
    raster = segments.raster_of(opened(tmp_path / "a.dng"), opened(tmp_path / "a.dng").chain[0])
    for share in (0.3, 0.7, 0.99):
        cut = bytearray(whole)
        start, size = raster.offsets[2], raster.counts[2]
        cut[start + int(size * share) : start + size] = b"\0" * (size - int(size * share))
        (tmp_path / "cut.dng").write_bytes(cut)
        with pytest.raises(UnreadableError, match=r"cut\.dng"):
            files.load(tmp_path / "cut.dng")
    for length in (4, 100, len(whole) // 2, len(whole) - 200):
        (tmp_path / "short.dng").write_bytes(whole[:length])
        with pytest.raises(FixpixError, match=r"short\.dng"):
            files.load(tmp_path / "short.dng")


def test_circular_directories_and_boasting_sizes(tmp_path):
    data = bytearray(dng(tmp_path / "a.dng", image()).read_bytes())
    first = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, first)[0]
    circle = data.copy()
    struct.pack_into("<I", circle, first + 2 + 12 * count, first)
    (tmp_path / "circle.dng").write_bytes(circle)
    with pytest.raises(UnreadableError, match="circle"):
        files.load(tmp_path / "circle.dng")
    for n in range(count):
        if struct.unpack_from("<H", data, first + 2 + 12 * n)[0] in (256, 257):
            struct.pack_into("<I", data, first + 2 + 12 * n + 8, 2_000_000)
    (tmp_path / "boast.dng").write_bytes(data)
    with pytest.raises(UnreadableError, match="too many"):
        files.load(tmp_path / "boast.dng")


@pytest.mark.data
def test_real_dngs(tmp_path, data):
    import rawpy

    done = 0
    for path in sorted(
        [*(data / "dng").glob("*.dng"), *(data / "lab").glob("*.tif"), *(data / "mosaic").glob("nikon*.tif")]
    ):
        try:
            frame = files.load(path)
        except RefusedError:
            assert "lossy" in path.name or "jxl" in path.name
            continue
        rng = np.random.default_rng(0)
        edits, wanted = [], []
        for mosaic in frame.mosaics:
            after = mosaic.samples.copy()
            where = rng.choice(after.size, 200, replace=False)
            after.reshape(-1)[where] = rng.permutation(after.reshape(-1)[where])
            edits.append(Edit.between(mosaic.samples, after))
            wanted.append(after)
        target = tmp_path / path.name
        files.save(frame, edits, target)
        assert all(np.array_equal(m.samples, w) for m, w in zip(files.load(target).mosaics, wanted, strict=True))
        if path.name in ("canon_550d_packed14.dng", "gopro_hero6_adobe_ljpeg.dng"):
            with rawpy.imread(str(target)) as raw:
                assert np.array_equal(raw.raw_image, wanted[0])
        done += 1
    assert done >= 16


@pytest.mark.data
def test_camera_raws_become_dngs_with_the_same_pixels_and_colours(tmp_path, data):
    import rawpy

    for path in (data / "raw/canon_s40_CRW_0101.CRW", data / "raw/kodak_dc120_P003909.KDC"):
        frame = files.load(path)
        before = frame.mosaics[0].samples
        after = before.copy()
        after[40, 50] ^= 1
        target = tmp_path / f"{path.stem}.dng"
        files.save(frame, [Edit.between(before, after)], target)
        again = files.load(target)
        assert np.array_equal(again.mosaics[0].samples, after)
        assert again.mosaics[0].cfa == frame.mosaics[0].cfa and again.identity.camera == frame.identity.camera
        assert again.mosaics[0].active == frame.mosaics[0].active
        with rawpy.imread(str(target)) as new, rawpy.imread(str(path)) as old:
            assert np.array_equal(new.raw_image, after)
            assert np.array_equal(new.raw_colors_visible, old.raw_colors_visible)
            assert new.black_level_per_channel == old.black_level_per_channel and new.white_level == old.white_level
        with pytest.raises(RefusedError):
            files.save(frame, [Edit.between(before, after)], tmp_path / path.name)
        (tmp_path / f"cut{path.suffix}").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(FixpixError, match="cut"):
            files.load(tmp_path / f"cut{path.suffix}")
