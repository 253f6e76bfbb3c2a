"""Lossless JPEG with the codes of a few pixels exchanged. Lost otherwise: a repaired DNG shows other pixels."""

import imagecodecs
import numpy as np
import pytest

from fixpix_cli.files import jpegs
from fixpix_cli.files.splicing import spliced


def stream(block, predictor, precision):
    """One component goes to the codec as a plane, three without a change of colours."""
    plain = block.astype(np.uint8) if precision <= 8 else block
    options = {"colorspace": "RGB", "outcolorspace": "RGB"} if block.shape[2] == 3 else {}
    plain = plain[..., 0] if block.shape[2] == 1 else plain
    return bytes(
        imagecodecs.jpeg8_encode(plain, lossless=True, predictor=predictor, bitspersample=precision, **options)
    )


def scene(components, precision, seed=0, noise=0.02):
    rng = np.random.default_rng(seed)
    top = (1 << precision) - 1
    light = top / 2 + noise * top * rng.standard_normal((48, 36, components))
    return np.clip(light, 0, top).astype(np.uint16), rng


def changed(block, rng, count, near=200):
    """The block with other values at some places, the corners among them."""
    after = block.copy()
    flat = after.reshape(-1)
    places = np.concatenate([[0, flat.size - 1], rng.choice(flat.size, count, replace=False)])
    flat[places] = np.clip(flat[places].astype(int) + rng.integers(-near, near, len(places)), 0, block.max())
    return after


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize(("components", "precision"), [(1, 8), (2, 12), (2, 16), (3, 14)])
def test_the_codec_reads_what_was_put_in(components, precision, predictor):
    before, rng = scene(components, precision)
    data = stream(before, predictor, precision)
    after = changed(before, rng, 12, 10)
    found = spliced(data, jpegs.ljpeg_header(data), before, after)
    assert found is not None
    assert np.array_equal(np.asarray(imagecodecs.jpeg8_decode(found)).reshape(after.shape), after)
    header = jpegs.ljpeg_header(found)
    jpegs.check_ljpeg(found, header, after)
    assert abs(len(found) - len(data)) < 12 * 10


def test_the_codes_of_other_pixels_keep_their_bits():
    before, _ = scene(1, 14)
    data = stream(before, 1, 14)
    after = before.copy()
    after[20, 11] = before[20, 10] + 1
    found = spliced(data, jpegs.ljpeg_header(data), before, after)
    header = jpegs.ljpeg_header(data)
    bits = jpegs.costs(jpegs.differences(before, header), header).reshape(-1)
    head = header.start + bits[: 20 * 36 + 11].sum(dtype=int) // 8
    assert found[: head - 8] == data[: head - 8]  # 8: bytes of 255 have a zero behind them, which was not counted


def test_bytes_of_255_in_the_stream():
    for seed in range(40):
        before, rng = scene(2, 16, seed, 0.004)
        data = stream(before, 1, 16)
        after = changed(before, rng, 30, 100)
        found = spliced(data, jpegs.ljpeg_header(data), before, after)
        assert found is not None and b"\xff\0" in found
        assert np.array_equal(np.asarray(imagecodecs.jpeg8_decode(found)).reshape(after.shape), after)


def test_what_cannot_be_exchanged_is_left_to_the_encoder():
    before, _ = scene(1, 12, noise=0.001)
    data = stream(before, 1, 12)
    header = jpegs.ljpeg_header(data)
    far, wide = before.copy(), before.copy()
    far[5, 5] = 0  # no difference in the stream is as large: it has no code
    assert spliced(data, header, before, far) is None
    wide[5, 5] = 4096
    assert spliced(data, header, before, wide) is None
    assert spliced(data, header, before, np.roll(before, 1)) is None
    flat = np.full_like(before, 2048)  # not what the stream holds
    dotted = flat.copy()
    dotted[3, 3] += 1
    assert spliced(data, header, flat, dotted) is None
    assert spliced(data, header, before, before) == data
