"""The 19 kinds of TIFF that must come back exact: a repair changes its segments and the tags that find them."""

import numpy as np
import pytest
import tifffile

from fixpix_cli import files
from fixpix_cli.mosaic import Edit

MONO = {"photometric": "minisblack", "metadata": None}
CFA = [(33421, "H", 2, (2, 2), True), (33422, "B", 4, b"\0\1\1\2", True), (50717, "H", 1, 4095, True)]
PRIVATE = [(65000, "s", 0, "mine alone", True), (65001, "d", 3, (1.5, 2.5, 3.5), True)]
STACK = (6, 70, 90)
VARIANTS = {
    "uncompressed strips": ("u2", (150, 200), {**MONO, "rowsperstrip": 20}),
    "uncompressed tiles": ("u2", (150, 200), {**MONO, "tile": (64, 48)}),
    "LZW": ("u2", (150, 200), {**MONO, "compression": "lzw", "rowsperstrip": 20}),
    "LZW, predictor 2": ("u1", (150, 200), {**MONO, "compression": "lzw", "predictor": 2, "rowsperstrip": 20}),
    "Deflate": ("u2", (150, 200), {**MONO, "compression": "zlib", "rowsperstrip": 20}),
    "Deflate, predictor 2": ("i2", (150, 200), {**MONO, "compression": "zlib", "predictor": 2, "tile": (64, 48)}),
    "zstd": ("u4", (150, 200), {**MONO, "compression": "zstd", "tile": (64, 48)}),
    "zstd, predictor 2": ("u2", (150, 200), {**MONO, "compression": "zstd", "predictor": 2, "rowsperstrip": 20}),
    "LZMA": ("u2", (150, 200), {**MONO, "compression": "lzma", "rowsperstrip": 20}),
    "PackBits": ("u1", (150, 200), {**MONO, "compression": "packbits", "rowsperstrip": 20}),
    "float": ("f8", (150, 200), {**MONO, "compression": "zlib", "rowsperstrip": 20}),
    "float, predictor 3": ("f4", (150, 200), {**MONO, "compression": "zlib", "predictor": 3, "tile": (64, 48)}),
    "big endian": ("u2", (150, 200), {**MONO, "byteorder": ">", "rowsperstrip": 20}),
    "big endian, predictors": ("f4", (150, 200), {**MONO, "byteorder": ">", "compression": "lzw", "predictor": 3,
                                                  "rowsperstrip": 20}),
    "BigTIFF": ("u2", (150, 200), {**MONO, "bigtiff": True, "compression": "lzw", "tile": (64, 48)}),
    "ImageJ hyperstack": ("u2", (2, 3, *STACK[1:]), {"imagej": True, "metadata": {"axes": "TZYX", "Info": "mine"}}),
    "OME": ("u2", STACK, {"ome": True, "metadata": {"axes": "TYX"}, "compression": "zlib", "rowsperstrip": 20}),
    "ICC and private tags": ("u2", (150, 200), {**MONO, "compression": "zlib", "rowsperstrip": 20,
                                                "iccprofile": bytes(range(256)) * 2, "extratags": PRIVATE}),
    "CFA tags": ("u2", (150, 200), {**MONO, "photometric": "cfa", "compression": "zlib", "rowsperstrip": 20,
                                        "extratags": CFA}),
}  # fmt: skip
FINDING = (273, 279, 324, 325)


def pages_of(tiff):
    return [page.aspage() for page in tiff.pages]


@pytest.mark.parametrize("name", VARIANTS)
def test_a_repair_changes_its_segments_and_nothing_else(tmp_path, name):
    """Lost otherwise: good pixels, another page, a profile or a private tag of a file that was promised to stay."""
    code, shape, options = VARIANTS[name]
    source, target = tmp_path / "a.tif", tmp_path / "o.tif"
    rng = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(shape[-2]) * 0.3, np.arange(shape[-1]) * 0.2)
    before = (40 + ramp + rng.integers(0, 20, shape)).astype(code)
    tifffile.imwrite(source, before, **options)
    frame = files.load(source)
    flat = before.reshape(-1, *shape[-2:])
    assert frame.moments == len(flat) and np.array_equal([m.samples for m in frame.mosaics], flat)
    after = flat.copy()
    touched = {0, len(flat) - 1}  # the first page and the last one
    for page in touched:
        after[page, 4:8, 5:9] = rng.integers(1, 120, (4, 4)).astype(code)  # the first segment alone
    files.save(frame, [Edit.between(a, b) for a, b in zip(flat, after, strict=True)], target)

    assert np.array_equal([m.samples for m in files.load(target).mosaics], after)
    old, new = (np.frombuffer(path.read_bytes(), np.uint8) for path in (source, target))
    allowed = np.zeros(len(old), bool)
    with tifffile.TiffFile(source) as one, tifffile.TiffFile(target) as two:
        assert np.array_equal(two.asarray().reshape(after.shape), after)
        assert one.byteorder == two.byteorder and one.is_bigtiff == two.is_bigtiff
        for number, (a, b) in enumerate(zip(pages_of(one), pages_of(two), strict=True)):
            kept = [{t.code: t.value for t in page.tags if t.code not in FINDING} for page in (a, b)]
            assert kept[0] == kept[1]
            if number in touched:
                segments = [(a.dataoffsets[0], a.databytecounts[0])]
                segments += [(t.valueoffset, t.valuebytecount) for t in a.tags if t.code in FINDING]
                for start, size in segments:
                    allowed[start : start + size] = True
            else:
                assert a.dataoffsets == b.dataoffsets and a.databytecounts == b.databytecounts
    assert allowed[np.flatnonzero(old != new[: len(old)])].all()
    assert len(new) - len(old) <= 20_000 and (options.get("compression") or len(new) == len(old))
