"""Tile-compressed FITS: the tiles that hold repaired pixels are encoded again, exactly, and no other byte moves."""

import numpy as np
import pytest

from fixpix_cli import files
from fixpix_cli.errors import RefusedError, UnreadableError
from fixpix_cli.files import fits_cards, fits_io, fits_tiles
from fixpix_cli.mosaic import Assume, Edit

EXACT = [
    *(("RICE_1", dtype) for dtype in ("u1", "i2", "u2", "i4", "u4")),
    *(("GZIP_1", dtype) for dtype in ("u1", "i2", "u2", "i4", "u4", "i8", "f4", "f8")),
    *(("GZIP_2", dtype) for dtype in ("u1", "i2", "u2", "i4", "u4", "i8", "f4", "f8")),
    *(("PLIO_1", dtype) for dtype in ("u1", "i2", "i4")),
    *(("HCOMPRESS_1", dtype) for dtype in ("u1", "i2", "u2", "i4")),
]


def image(dtype, shape=(61, 83), seed=1):
    """A slope with noise, of a type's own range."""
    rng = np.random.default_rng(seed)
    rows, cols = np.indices(shape[-2:])
    slope = 40 + rows + cols + rng.integers(0, 20, shape)
    return (slope if np.dtype(dtype).itemsize == 1 else slope * 60).astype(dtype)


def damaged(samples, count=9, seed=0):
    rng = np.random.default_rng(seed)
    out = samples.copy()
    where = rng.choice(samples.size, count, replace=False)
    out.reshape(-1)[where] = rng.integers(1, 120, count).astype(samples.dtype)
    return out


def compressed(path, samples, kind, checksum=True, **settings):
    """An fpacked file as astropy writes it, with an image before and one behind."""
    from astropy.io import fits

    tile = (8, 83) if kind == "HCOMPRESS_1" else (1, samples.shape[-1])
    settings = {"tile_shape": tile if samples.ndim == 2 else (1, *tile), "quantize_level": 0, **settings}
    hdu = fits.CompImageHDU(samples, compression_type=kind, **settings)
    hdu.header["OBSERVER"] = ("Ada", "who")
    behind = fits.ImageHDU(image("i2", (5, 7)), name="BEHIND")
    fits.HDUList([fits.PrimaryHDU(), hdu, behind]).writeto(path, checksum=checksum)
    return path


def tile_bytes(path, index=1):
    """The bytes of every tile of a compressed image, and its header without what follows from them."""
    place = fits_io.places(path)[index]
    data = path.read_bytes()
    table = fits_tiles.table_of(place.header)
    rows = fits_tiles._Rows(table, bytearray(data[place.data : place.data + place.span]))
    found = []
    for tile in range(table.rows):
        column = fits_tiles._home(table, rows, tile, path)
        count, offset = rows.get(column, tile)
        found.append(bytes(rows.data[table.heap + offset : table.heap + offset + count * column.item]))
    cards = [data[c : c + 80] for c in range(place.head, place.data, 80)]
    follow = (b"PCOUNT", b"TFORM", b"CHECKSUM", b"DATASUM", b"ZHECKSUM", b"ZDATASUM")
    return table, found, [card for card in cards if not card.startswith(follow)]


@pytest.mark.parametrize(("kind", "dtype"), EXACT)
def test_lossless_tiles_are_rewritten_exactly(tmp_path, kind, dtype):
    """Lost otherwise: fpacked nights cannot be repaired, or come back with other pixels."""
    from astropy.io import fits

    source, target = compressed(tmp_path / "a.fits.fz", image(dtype), kind), tmp_path / "o.fits.fz"
    frame = files.load(source)
    before = frame.mosaics[0].samples
    assert before.dtype == dtype and np.array_equal(before, image(dtype))
    after = damaged(before)
    edits = [Edit.between(before, after), Edit.between(*[frame.mosaics[1].samples] * 2)]
    assert files.save(frame, edits, target) == ()
    with fits.open(target, checksum=True) as hdus:
        assert np.array_equal(hdus[1].data, after) and np.array_equal(hdus[2].data, image("i2", (5, 7)))
        hdus.verify("exception")
    table, old, cards = tile_bytes(source)
    _, new, new_cards = tile_bytes(target)
    touched = {int(np.ravel_multi_index((r // table.tile[0], c // table.tile[1]), table.grid))
               for r, c in np.argwhere(before != after)}  # fmt: skip
    assert {n for n, (a, b) in enumerate(zip(old, new, strict=True)) if a != b} == touched
    assert cards == new_cards
    sums(target)


def sums(path):
    """Every HDU that states a CHECKSUM adds up to all ones (FITS standard 4.0, 4.4.2.7)."""
    data, some = path.read_bytes(), 0
    for place in fits_io.places(path):
        if "CHECKSUM" in place.header:
            some += 1
            assert fits_cards.ones_complement(data[place.head : place.data + place.span]) == 0xFFFFFFFF
    assert some


def test_a_tile_that_grew_moves_and_one_that_shrank_stays(tmp_path):
    """Lost otherwise: a repaired tile overwrites its neighbour's bytes."""
    from astropy.io import fits

    flat = np.full((300, 83), 1000, np.int16)
    source, target = compressed(tmp_path / "a.fits.fz", flat, "RICE_1"), tmp_path / "o.fits.fz"
    frame = files.load(source)
    after = flat.copy()
    rng = np.random.default_rng(0)
    after[40:200] = rng.integers(-30000, 30000, (160, 83))
    edits = [Edit.between(flat, after), Edit.between(*[frame.mosaics[1].samples] * 2)]
    files.save(frame, edits, target)
    assert target.stat().st_size > source.stat().st_size
    with fits.open(target, checksum=True) as hdus:
        assert np.array_equal(hdus[1].data, after) and np.array_equal(hdus[2].data, image("i2", (5, 7)))
    sums(target)
    again = files.load(target)
    back = tmp_path / "back.fits.fz"
    files.save(again, [Edit.between(after, flat), edits[1]], back)
    with fits.open(back) as hdus:
        assert np.array_equal(hdus[1].data, flat)
    assert back.stat().st_size == target.stat().st_size


def test_tiles_that_share_bytes_are_not_written_over(tmp_path):
    """Lost otherwise: a writer that stores equal tiles once loses the others to a repair of one."""
    from astropy.io import fits

    flat = np.full((30, 83), 1000, np.int16)
    source, target = compressed(tmp_path / "a.fits.fz", flat, "GZIP_1", checksum=False), tmp_path / "o.fits.fz"
    place = fits_io.places(source)[1]
    data = bytearray(source.read_bytes())
    data[place.data : place.data + 30 * 8] = bytes(data[place.data : place.data + 8]) * 30
    source.write_bytes(data)
    frame = files.load(source)
    after = flat.copy()
    after[7, 7] = 900
    files.save(frame, [Edit.between(flat, after), Edit.between(*[frame.mosaics[1].samples] * 2)], target)
    assert np.array_equal(fits.getdata(target, 1), after)


@pytest.mark.parametrize("was", ["extension", "primary"])
@pytest.mark.parametrize("kind", ["RICE_1", "GZIP_2", "HCOMPRESS_1"])
def test_quantised_floats_become_plain_floats_and_a_note(tmp_path, kind, was):
    """Lost otherwise: every rewrite changes every pixel a little, and nobody says so."""
    from astropy.io import fits

    source, target = tmp_path / "a.fits.fz", tmp_path / "o.fits.fz"
    compressed(source, image("f4") + np.float32(0.37), kind, quantize_level=16, quantize_method=1, dither_seed=7)
    if was == "primary":
        whole = source.read_bytes()
        card = next(whole[c : c + 80] for c in range(0, len(whole), 80) if whole[c : c + 9] == b"ZTENSION=")
        source.write_bytes(whole.replace(card, b"ZSIMPLE =                    T".ljust(80)))
    frame = files.load(source)
    before = frame.mosaics[0].samples
    after = damaged(before)
    notes = files.save(frame, [Edit.between(before, after), Edit.between(*[frame.mosaics[1].samples] * 2)], target)
    assert len(notes) == 1 and "without compression" in notes[0]
    with fits.open(target, checksum=True) as hdus:
        assert type(hdus[1]) is fits.ImageHDU and np.array_equal(hdus[1].data, after)
        assert hdus[1].header["OBSERVER"] == "Ada" and hdus[1].header["BITPIX"] == -32
        assert not [key for key in hdus[1].header if key.startswith(("Z", "TFORM", "TTYPE"))]
        assert np.array_equal(hdus[2].data, image("i2", (5, 7)))
        hdus.verify("exception")
    sums(target)


def test_lossy_hcompress_becomes_plain(tmp_path):
    from astropy.io import fits

    source, target = tmp_path / "a.fits.fz", tmp_path / "o.fits.fz"
    compressed(source, image("u2"), "HCOMPRESS_1", hcomp_scale=5)
    frame = files.load(source)
    before = frame.mosaics[0].samples
    after = damaged(before)
    notes = files.save(frame, [Edit.between(before, after), Edit.between(*[frame.mosaics[1].samples] * 2)], target)
    assert "HCOMPRESS" in notes[0]
    with fits.open(target) as hdus:
        assert type(hdus[1]) is fits.ImageHDU and hdus[1].data.dtype == np.uint16
        assert np.array_equal(hdus[1].data, after)


def test_a_lossless_tile_among_quantised_ones_is_exact(tmp_path):
    """Lost otherwise: a file is unpacked although the one tile that changes is kept without loss."""
    from astropy.io import fits

    samples = image("f4") + np.float32(0.37)
    samples[10] = 5.25  # no noise: cannot be quantised, so it is kept by gzip
    source, target = tmp_path / "a.fits.fz", tmp_path / "o.fits.fz"
    compressed(source, samples, "RICE_1", quantize_level=16)
    frame = files.load(source)
    before = frame.mosaics[0].samples
    assert np.array_equal(before[10], samples[10]) and not np.array_equal(before, samples)
    after = before.copy()
    after[10, 3] = 7.5
    assert files.save(frame, [Edit.between(before, after), Edit.between(*[frame.mosaics[1].samples] * 2)], target) == ()
    with fits.open(target) as hdus:
        assert np.array_equal(hdus[1].data, after)


def test_negative_values_in_plio_are_refused(tmp_path):
    source = compressed(tmp_path / "a.fits.fz", image("i2"), "PLIO_1")
    frame = files.load(source)
    after = image("i2")
    after[3, 3] = -4
    with pytest.raises(RefusedError, match="PLIO_1 holds no negative"):
        files.save(
            frame, [Edit.between(image("i2"), after), Edit.between(*[frame.mosaics[1].samples] * 2)], tmp_path / "o.fz"
        )
    assert not (tmp_path / "o.fz").exists()


def test_compressed_cubes_are_exposures(tmp_path):
    from astropy.io import fits

    cube = image("u2", (3, 61, 83))
    source, target = compressed(tmp_path / "a.fits.fz", cube, "RICE_1"), tmp_path / "o.fits.fz"
    frame = files.load(source, Assume(hdu=(1,)))
    assert len(frame.mosaics) == frame.moments == 3 and frame.keys == (1,)
    after = cube.copy()
    after[1, 5, 5] = 17
    files.save(frame, [Edit.between(m.samples, a) for m, a in zip(frame.mosaics, after, strict=True)], target)
    assert np.array_equal(fits.getdata(target, 1), after)


def test_the_unpacked_files_checksums_follow(tmp_path):
    """Lost otherwise: funpack restores a DATASUM and a CHECKSUM that no longer fit, and archives reject the file."""
    from astropy.io import fits

    plain, source, target = tmp_path / "p.fits", tmp_path / "a.fits.fz", tmp_path / "o.fits.fz"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(image("u2"))]).writeto(plain, checksum=True)
    header = fits.getheader(plain, 1)
    whole = plain.read_bytes()
    place = fits_io.places(plain)[1]
    compressed(source, image("u2"), "RICE_1", checksum=False)
    with fits.open(source, disable_image_compression=True) as hdus:
        hdus[1].header["ZHECKSUM"] = (header["CHECKSUM"], header.comments["CHECKSUM"])
        hdus[1].header["ZDATASUM"] = (header["DATASUM"], header.comments["DATASUM"])
        hdus.writeto(source, overwrite=True)
    frame = files.load(source)
    after = damaged(image("u2"))
    files.save(frame, [Edit.between(image("u2"), after), Edit.between(*[frame.mosaics[1].samples] * 2)], target)
    stated = fits_io.places(target)[1].header
    unpacked = bytearray(whole)
    stored = (after ^ np.uint16(0x8000)).astype(">u2").tobytes()
    unpacked[place.data : place.data + len(stored)] = stored
    head = unpacked[place.head : place.data]
    fits_cards.replace_string(head, fits_cards.find(head, "DATASUM"), stated["ZDATASUM"])
    fits_cards.replace_string(head, fits_cards.find(head, "CHECKSUM"), stated["ZHECKSUM"])
    assert fits_cards.ones_complement(head + unpacked[place.data : place.data + place.span]) == 0xFFFFFFFF


@pytest.mark.parametrize("total", [0, 1, 0xFFFFFFFF, 0x80000000, 123456789, 0xDEADBEEF])
def test_checksum_letters_come_back(total):
    assert fits_cards.decode_checksum(fits_cards.encode_checksum(total)) == total


def test_a_descriptor_beyond_the_heap_is_named(tmp_path):
    source = compressed(tmp_path / "a.fits.fz", image("i2"), "GZIP_1", checksum=False)
    frame = files.load(source)
    place = fits_io.places(source)[1]
    data = bytearray(source.read_bytes())
    data[place.data : place.data + 8] = np.array([50, 1 << 30], ">i4").tobytes()
    source.write_bytes(data)
    after = image("i2")
    after[0, 0] = 3
    with pytest.raises(UnreadableError, match=r"a\.fits\.fz.*heap"):
        files.save(
            frame, [Edit.between(image("i2"), after), Edit.between(*[frame.mosaics[1].samples] * 2)], tmp_path / "o.fz"
        )


@pytest.mark.data
def test_a_real_fpacked_frame_is_rewritten(tmp_path, data):
    source, target = data / "fits/canon_100d_solved.fits.fz", tmp_path / "o.fits.fz"
    frame = files.load(source)
    before = frame.mosaics[0].samples
    after = damaged(before, 40)
    assert files.save(frame, [Edit.between(before, after)], target) == ()
    assert np.array_equal(files.load(target).mosaics[0].samples, after)
    _, old, cards = tile_bytes(source)
    _, new, new_cards = tile_bytes(target)
    rows = {int(r) for r, _ in np.argwhere(before != after)}
    assert {n for n, (a, b) in enumerate(zip(old, new, strict=True)) if a != b} == rows and cards == new_cards
    sums(target)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *(
            (kind, dtype)
            for kind in ("RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1")
            for dtype in ("u1", "i2", "u2", "i4")
        ),
        *(("PLIO_1", dtype) for dtype in ("u1", "i2", "u2", "i4")),
        ("GZIP_2", "f4"),
        ("GZIP_1", "f8"),
    ],
)
def test_cfitsio_writes_them_and_reads_them_back(tmp_path, kind, dtype):
    """Lost otherwise: what fpack made is misread (PLIO of unsigned values), or funpack misreads what fixpix made."""
    fitsio = pytest.importorskip("fitsio")
    samples = image(dtype)
    if kind == "PLIO_1":
        samples = (np.indices((61, 83))[0] // 3 * 9 + (200 if dtype != "u1" else 0)).astype(dtype)
    source, target = tmp_path / "a.fits.fz", tmp_path / "o.fits.fz"
    settings = {"hcomp_scale": 0, "tile_dims": [8, 83]} if kind == "HCOMPRESS_1" else {}
    with fitsio.FITS(str(source), "rw") as out:
        out.write(samples, compress=kind, qlevel=0, **settings)
        out[1].write_checksum()
    frame = files.load(source)
    assert frame.mosaics[0].samples.dtype == dtype and np.array_equal(frame.mosaics[0].samples, samples)
    after = damaged(samples)
    assert files.save(frame, [Edit.between(samples, after)], target) == ()
    with fitsio.FITS(str(target)) as back:
        assert np.array_equal(back[1].read(), after)
        assert back[1].verify_checksum() is None
    sums(target)
