"""Where the time of one repair goes, stage by stage, beside what the machine needs for the same bytes or sums.

CPU time of this process, the median of some rounds: the stages of one frame with a known map, done by the functions
that `fixpix correct` calls, and for each the least that could do it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np

from fixpix_cli import files, maps
from fixpix_cli.files import jpegs, segments
from fixpix_cli.files.tiff import opened
from fixpix_cli.maps import sparse
from fixpix_cli.nets.correctors import shipped_mlp
from fixpix_cli.normalise import prediction, windows
from fixpix_cli.repair import edit


@dataclass(frozen=True)
class Stage:
    """CPU s of a stage, of its limit, and what the limit is."""

    name: str
    seconds: float
    least: float
    limit: str

    @property
    def ratio(self) -> float:
        return self.seconds / self.least


def cpu(work: Callable[[], object], rounds: int) -> float:
    """Median CPU s of some calls, after one that does not count."""
    found = []
    for _ in range(rounds + 1):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return float(np.median(found[1:]))


def plain(place: Path, rounds: int) -> list[Stage]:
    """The stages of ``frame.fits`` with ``known.mask.fits``, both in `place`."""
    path, mask, target = place / "frame.fits", place / "known.mask.fits", place / "staged.fits"
    frame = files.load(path)
    mosaic, bad = frame.mosaics[0], maps.read_mask(mask).planes[0].bad
    mlp = shipped_mlp()
    change = edit(mosaic, bad, mlp)
    first, holes = windows.first(mosaic, bad, mlp.radius), np.nonzero(bad)
    encoded = windows.encode(first, *holes, mlp.radius)[0]
    x = np.ones(((2 * prediction.RADIUS + 1) ** 2, prediction.PIXELS // _BANDS))
    source = np.zeros(mosaic.shape, np.uint16)
    weights = [np.ones(shape, np.float32) for shape in _LAYERS]

    def gram() -> None:
        for _ in range(_BANDS * len(mosaic.cfa.positions)):
            x @ x.T

    def layers() -> None:
        values = encoded
        for weight in weights:
            values = values @ weight

    def copied() -> None:
        shutil.copyfile(path, target)
        with open(target, "rb+") as stream:
            os.fsync(stream.fileno())

    def read_mask() -> None:
        sparse._read.cache_clear()
        maps.read_mask(mask)

    def decode() -> None:
        mosaic.__dict__.pop("samples", None)
        assert mosaic.samples.size

    return [
        Stage("read header", cpu(lambda: files.load(path), rounds), cpu(lambda: path.open("rb").read(2880), rounds),
              "read its first block"),
        Stage("decode samples", cpu(decode, rounds), cpu(source.copy, rounds), "memcpy"),
        Stage("read mask", cpu(read_mask, rounds), cpu(mask.read_bytes, rounds), "read its bytes"),
        Stage("normalise (first estimates)", cpu(lambda: windows.first(mosaic, bad, mlp.radius), rounds),
              cpu(gram, rounds), "the sums of products of its fits"),
        Stage("encode windows", cpu(lambda: windows.encode(first, *holes, mlp.radius), rounds),
              cpu(encoded.copy, rounds), "memcpy"),
        Stage("net", cpu(lambda: mlp.session.run(window=encoded), rounds), cpu(layers, rounds),
              "its three large matrix products in NumPy"),
        Stage("write", cpu(lambda: files.save(frame, [change], target, overwrite=True), rounds), cpu(copied, rounds),
              "copy of the file, synced"),
    ]  # fmt: skip


#: The large matrices of the shipped mlp; `layers` above multiplies by such.
_LAYERS = ((166, 128), (128, 128), (128, 64))
#: The sums are made band by band: about so many.
_BANDS = 20


def ljpeg(place: Path, rounds: int) -> list[Stage]:
    """Reading and writing ``frame.ljpeg.dng`` in `place`, against the codec alone on one thread's CPU time."""
    path, target = place / "frame.ljpeg.dng", place / "staged.dng"
    frame = files.load(path)
    mosaic, bad = frame.mosaics[0], maps.read_mask(place / "known.mask.fits").planes[0].bad
    change = edit(mosaic, bad, shipped_mlp())
    tree = opened(path)
    ifd = next(ifd for top in tree.chain for ifd in top.all() if tree.number(ifd, 262) == 32803)
    raster = segments.raster_of(tree, ifd)
    streams = [bytes(tree.data[o : o + c]) for o, c in zip(raster.offsets, raster.counts, strict=True)]
    blocks = [np.asarray(imagecodecs.jpeg8_decode(stream)) for stream in streams]
    head = jpegs.ljpeg_header(streams[0])

    def decode() -> None:
        for stream in streams:
            imagecodecs.jpeg8_decode(stream)

    def encode() -> None:
        for block in blocks:
            imagecodecs.jpeg8_encode(block, lossless=True, predictor=head.predictor, bitspersample=head.precision)

    read, write = cpu(lambda: files.load(path), rounds), cpu(
        lambda: files.save(frame, [change], target, overwrite=True), rounds)  # fmt: skip
    decoded, encoded = cpu(decode, rounds), cpu(encode, rounds)
    return [
        Stage("LJPEG DNG: read", read, decoded, "decode its tiles"),
        Stage("LJPEG DNG: write", write, encoded, "encode its tiles"),
        Stage("LJPEG DNG: read and write", read + write, decoded + encoded, "decode and encode its tiles"),
    ]
