"""Damaged files of every readable format through the real command line: what breaks, hangs, lies or eats memory.

    python tests/bench/fuzz.py [--files 500] [--seed 1] [--keep FOLDER]

Small samples of every container that `fixpix_cli.files` accepts are made here (camera-native raws are taken from
FIXPIX_DATA where that is set, and are a DNG by another name where not), damaged in a way that the seed decides, and
given to `detect`, `correct --auto`, `correct --map` and `calibrate`. Counted, and wanted to be zero:

crash       a traceback, a signal, an internal error, a file without an outcome, an error without the file's name
hang        a command or a frame that takes longer than it may
acceptance  a frame that is done though its output differs, outside the repaired pixels, from what an independent
            decoder (astropy, tifffile, LibRaw) reads in the input, or though its pixels were cut off
memory      a process that takes more than the limit

The exit code is 1 if one of them is not zero.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from fixpix_cli import files, maps, workers
from fixpix_cli.cfa import RGGB
from fixpix_cli.defects import DefectMap
from fixpix_cli.mosaic import Frame, Identity, Mosaic

#: 256 columns at least: LibRaw misreads DNG tiles that are wider than their frame.
SHAPE = (96, 256)
#: Limit of a process's memory, bytes, as resident pages; the commands get it as --max-memory.
MEMORY = 1_200_000_000
#: Seconds that one frame and one command may take.
FRAME_SECONDS, COMMAND_SECONDS = 120, 3000


def scene(dtype: type = np.uint16) -> np.ndarray:
    """(H, W) DN: a slope with noise, all values good."""
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[: SHAPE[0], : SHAPE[1]]
    values = 60 + 0.4 * rows + 0.3 * cols + rng.normal(0, 3, SHAPE)
    return np.rint(values).clip(1, 250).astype(dtype)


def mask() -> np.ndarray:
    """(H, W) bool: the pixels that `correct --map` repairs."""
    bad = np.zeros(SHAPE, bool)
    bad[5::17, 7::19] = True
    return bad


def fits_bytes(samples: np.ndarray, *, tiles: str = "", more: bool = False) -> bytes:
    from astropy.io import fits

    cards = {"BAYERPAT": "RGGB", "INSTRUME": "fuzz", "EXPTIME": 1.0}
    header = fits.Header(cards)
    hdus = [fits.PrimaryHDU(None if tiles else samples, header)]
    if tiles:
        hdus.append(fits.CompImageHDU(samples, compression_type=tiles))
    if more:
        hdus += [
            fits.ImageHDU(samples[:50]),
            fits.BinTableHDU.from_columns([fits.Column("a", "J", array=np.arange(9))]),
        ]
    stream = io.BytesIO()
    fits.HDUList(hdus).writeto(stream, checksum=more)
    return stream.getvalue()


def tiff_bytes(samples: np.ndarray, **options: object) -> bytes:
    import tifffile

    stream = io.BytesIO()
    tifffile.imwrite(stream, samples, metadata=None, **{"photometric": "minisblack", **options})
    return stream.getvalue()


def dng_bytes(samples: np.ndarray, **options: object) -> bytes:
    tags = [
        (50706, 1, 4, b"\1\4\0\0", True),
        (50708, 2, 0, "fuzz", True),
        (33421, 3, 2, (2, 2), True),
        (33422, 1, 4, b"\0\1\1\2", True),
        (50717, 4, 1, 255 if samples.dtype == np.uint8 else 16383, True),
        (50721, 10, 9, (1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1), True),
    ]
    return tiff_bytes(samples, photometric=32803, extratags=tags, subfiletype=0, **options)


def fresh_dng() -> bytes:
    """The DNG that fixpix writes itself: lossless JPEG."""
    from fixpix_cli.files.raw import write_dng

    mosaic = Mosaic(scene(), RGGB, ((0.0,),), 16383.0)
    frame = Frame((mosaic,), Path("a.nef"), (0,), Identity("Fuzz", "One", "", SHAPE, "RGGB"), container="raw")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dng"
        write_dng(path, frame, mosaic.samples, np.eye(3), np.ones(3))
        return path.read_bytes()


def ser_bytes() -> bytes:
    head = struct.pack("<14s7i40s40s40s2q", b"LUCAM-RECORDER", 0, 8, 0, SHAPE[1], SHAPE[0], 16, 3, b"", b"", b"", 0, 0)
    return head + scene().astype("<u2").tobytes() * 3


def png_bytes() -> bytes:
    import imagecodecs

    return bytes(imagecodecs.png_encode(scene()))


def made(keeper: str) -> dict[str, bytes]:
    """Samples of a keeper's containers, by file name."""
    plain, floats = scene(), scene(np.float32) / 7
    if keeper == "fits":
        return {
            "u16.fits": fits_bytes(plain),
            "f32.fit": fits_bytes(floats),
            "many.fts": fits_bytes(plain.astype(np.int16), more=True),
            "packed.fits.gz": gzip.compress(fits_bytes(plain), mtime=0),
            "rice.fits.fz": fits_bytes(plain, tiles="RICE_1"),
            "gzip2.fits.fz": fits_bytes(plain, tiles="GZIP_2"),
            "hcompress.fits.fz": fits_bytes(plain.astype(np.int16), tiles="HCOMPRESS_1"),
        }
    if keeper == "tiff":
        return {
            "plain.tif": tiff_bytes(plain),
            "lzw.tif": tiff_bytes(plain, compression="lzw", rowsperstrip=16),
            "deflate.tif": tiff_bytes(plain, compression="zlib", predictor=2, tile=(32, 48)),
            "zstd.tiff": tiff_bytes(plain, compression="zstd", tile=(64, 64)),
            "lzma.tif": tiff_bytes(plain, compression="lzma", rowsperstrip=40),
            "packbits.tif": tiff_bytes(plain.astype(np.uint8), compression="packbits", byteorder=">"),
            "float.tif": tiff_bytes(floats, compression="zlib", predictor=3),
            "big.tif": tiff_bytes(plain, bigtiff=True, rowsperstrip=11),
            "stack.tif": tiff_bytes(np.stack([plain] * 3), compression="zlib", predictor=2, rowsperstrip=40),
            "imagej.tif": tiff_bytes(np.stack([plain] * 3), imagej=True, truncate=True),
            "rgb.tif": tiff_bytes(np.stack([plain] * 3, axis=-1), photometric="rgb"),
        }
    if keeper == "dng":
        return {
            "ljpeg.dng": fresh_dng(),
            "plain.dng": dng_bytes(plain),
            "deflate.dng": dng_bytes(plain, compression="zlib", predictor=2, tile=(48, 64)),
            "bytes.dng": dng_bytes(plain.astype(np.uint8), rowsperstrip=20),
        }
    if keeper == "raw":
        return {"made.nef": fresh_dng()}
    if keeper == "ser":
        return {"video.ser": ser_bytes()}
    if keeper == "png":
        return {"gray.png": png_bytes()}
    raise SystemExit(f"no samples of the keeper {keeper!r}: add some to {__file__}")


def samples() -> dict[str, bytes]:
    """Every sample by file name; small real files of FIXPIX_DATA come on top."""
    found: dict[str, bytes] = {}
    for keeper in sorted(set(files.KEEPERS.values())):
        found |= made(keeper)
    if data := os.environ.get("FIXPIX_DATA"):
        for path in sorted(Path(data).glob("raw/*"))[:2] + sorted(Path(data).glob("dng/*.dng")):
            if files.is_supported(path) and path.stat().st_size < 3_000_000:
                found[path.name.lower()] = path.read_bytes()
    return found


# ---------------------------------------------------------------- damage


def damaged(data: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """The bytes with one kind of damage, and its name."""
    raw = bytearray(data)
    size = len(raw)
    kind = KINDS[int(rng.integers(len(KINDS)))]
    head = min(size, 3000)
    if kind == "bytes":
        for place in rng.integers(0, size, int(rng.integers(1, 20))):
            raw[place] = int(rng.integers(256))
    elif kind == "header bytes":
        for place in rng.integers(0, head, int(rng.integers(1, 12))):
            raw[place] = int(rng.integers(256))
    elif kind == "tail bytes":
        for place in rng.integers(max(0, size - 1000), size, int(rng.integers(1, 12))):
            raw[place] = int(rng.integers(256))
    elif kind == "bits":
        for place in rng.integers(0, size, int(rng.integers(1, 6))):
            raw[place] ^= 1 << int(rng.integers(8))
    elif kind == "numbers":
        for place in rng.integers(0, max(1, head - 4), int(rng.integers(1, 6))):
            value = (0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000, 65535)[int(rng.integers(6))]
            raw[place : place + 4] = struct.pack("<>"[int(rng.integers(2))] + "I", value)
    elif kind == "digits":  # sizes in text headers
        places = [p for p in range(head) if 0x30 <= raw[p] <= 0x39] or [0]
        for place in rng.choice(places, min(len(places), int(rng.integers(1, 6)))):
            raw[place] = 0x30 + int(rng.integers(10))
    elif kind == "truncated":
        del raw[int(size * float(rng.choice([0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99]))) :]
    elif kind == "run":
        place, length = int(rng.integers(size)), int(rng.integers(1, 2000))
        raw[place : place + length] = bytes([int(rng.choice([0, 255]))]) * len(raw[place : place + length])
    elif kind == "removed":
        place = int(rng.integers(size))
        del raw[place : place + int(rng.integers(1, 5000))]
    elif kind == "inserted":
        place = int(rng.integers(size))
        raw[place:place] = rng.bytes(int(rng.integers(1, 5000)))
    elif kind == "moved":
        a, b, length = (int(v) for v in (rng.integers(size), rng.integers(size), rng.integers(1, 3000)))
        raw[a : a + length] = raw[b : b + len(raw[a : a + length])]
    else:
        raw += rng.bytes(int(rng.integers(1, 5000)))
    return bytes(raw), kind


KINDS = ("bytes", "header bytes", "tail bytes", "bits", "numbers", "digits", "truncated", "run", "removed", "inserted",
         "moved", "appended")  # fmt: skip


# ---------------------------------------------------------------- the independent decoders


def decoded(path: Path) -> list[np.ndarray] | None:
    """The pixels of a file as astropy, tifffile or LibRaw read them; None if they do not."""
    suffix = files.suffix_of(path)
    try:
        if suffix in (".fits", ".fit", ".fts"):
            return _astropy(path)
        if suffix in (".tif", ".tiff"):
            import tifffile

            with tifffile.TiffFile(path) as file:
                return [page.asarray() for page in file.pages]
        if suffix == ".png":
            import imagecodecs

            return [np.asarray(imagecodecs.png_decode(path.read_bytes()))]
        if suffix == ".ser":
            data = path.read_bytes()
            wide = int.from_bytes(data[34:38], "little") > 8
            return [np.frombuffer(data[178 : len(data) - len(data) % 2], "<u2" if wide else np.uint8)]
        import rawpy

        with rawpy.imread(str(path)) as raw:
            return [raw.raw_image.copy()]
    except MemoryError:
        raise
    except Exception:  # whatever a decoder raises means that it does not read the file
        return None


def _astropy(path: Path) -> list[np.ndarray]:
    import warnings

    from astropy.io import fits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(path, memmap=False, do_not_scale_image_data=True) as hdus:
            return [np.asarray(hdu.data) for hdu in hdus if hdu.is_image and hdu.data is not None]


def judged(path: Path, output: Path, original: Path, defects: int, bad: np.ndarray | None, kind: str) -> str:
    """What is wrong with an output, or ''. `bad` is the mask, or None where only the number of defects is known."""
    before, after = decoded(path), decoded(output)
    if before is None:
        return "" if kind != "truncated" else "pixels were cut off, and no other program reads the file"
    if after is None:
        return "no other program reads the output"
    if kind == "truncated":
        whole = decoded(original)
        if whole is None or not all(map(_same, whole, before)):
            return "pixels were cut off"
    if len(before) != len(after) or any(a.shape != b.shape for a, b in zip(before, after, strict=True)):
        return "the output has other images than the input"
    count = 0
    for one, two in zip(before, after, strict=True):
        differs = ~_equal(one, two)
        count += int(differs.sum())
        if bad is not None and differs.any():
            good = ~bad if differs.shape[:2] == bad.shape else None
            if good is not None and differs[good].any():
                return f"{int(differs[good].sum())} good pixels changed"
    return f"{count} pixels changed, {defects} were repaired" if count > defects else ""


def _equal(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    return (one == two) | ((one != one) & (two != two))


def _same(one: np.ndarray, two: np.ndarray) -> bool:
    return one.shape == two.shape and bool(_equal(one, two).all())


# ---------------------------------------------------------------- running the commands


class Watch(threading.Thread):
    """Follows a process and its children and keeps the most memory that one of them had, in bytes."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak, self.over = pid, 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.1):
            family, parents = {self.pid}, {}
            for entry in os.listdir("/proc"):
                if entry.isdigit():
                    try:
                        parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
                    except OSError:
                        continue
            while more := {pid for pid, parent in parents.items() if parent in family} - family:
                family |= more
            for pid in family:
                try:
                    status = Path(f"/proc/{pid}/status").read_text()
                except OSError:
                    continue
                for line in status.splitlines():
                    if line.startswith("VmHWM"):
                        self.peak = max(self.peak, int(line.split()[1]) * 1024)


def command(arguments: list[str], folder: Path) -> tuple[int, str, str, int]:
    """Run the real command line; exit code (-1: hung), stdout, stderr, peak memory of a process in bytes."""
    env = {**os.environ, "FIXPIX_STORE": str(folder / "store")}
    process = subprocess.Popen(
        [sys.executable, "-m", "fixpix_cli", *arguments, "--json", "--max-memory", str(2 * MEMORY), "-j", "2"],
        cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    watch = Watch(process.pid)
    if Path("/proc").is_dir():
        watch.start()
    try:
        out, err = process.communicate(timeout=COMMAND_SECONDS)
        code = process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        code = -1
    watch.over.set()
    return code, out, err, watch.peak


def outcomes_of(out: str) -> dict[str, dict]:
    records = [json.loads(line) for line in out.splitlines()]
    return {Path(record["path"]).name: record for record in records if "path" in record}


def run(count: int, seed: int, folder: Path) -> dict[str, list[str]]:
    """Damage, run, judge; the findings by kind."""
    originals, hurt = folder / "originals", folder / "hurt"
    originals.mkdir(), hurt.mkdir()
    found: dict[str, list[str]] = {"crash": [], "hang": [], "acceptance": [], "memory": []}
    sources = samples()
    for name, data in sources.items():
        (originals / name).write_bytes(data)
    names, kinds, origin = list(sources), {}, {}
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        name = names[number % len(names)]
        data, kind = damaged(sources[name], rng)
        target = f"{number:04d}_{name}"
        (hurt / target).write_bytes(data)
        kinds[target], origin[target] = kind, originals / name
    maps.write_mask(folder / "bad.fits", [DefectMap.of(mask())], keys=[0])
    print(f"{count} files from {len(names)} samples, seed {seed}", flush=True)
    runs = {
        "untouched": ["correct", "originals", "--auto", "--out", "whole"],
        "detect": ["detect", "hurt"],
        "auto": ["correct", "hurt", "--auto", "--out", "auto"],
        "map": ["correct", "hurt", "--map", "bad.fits", "--out", "map"],
        "calibrate": ["calibrate", "hurt"],
    }
    for title, arguments in runs.items():
        start = time.perf_counter()
        code, out, err, peak = command(arguments, folder)
        told = outcomes_of(out)
        expected = set(sources) if title == "untouched" else set(kinds)
        _check_run(title, code, err, peak, told, expected, found)
        tally = collections.Counter(record["status"] for record in told.values())
        seconds = time.perf_counter() - start
        print(f"{title:10} exit {code}, {dict(tally)}, {seconds:.0f} s, peak {peak / 1e6:.0f} MB", flush=True)
        if title in ("auto", "map"):
            done = [record for record in told.values() if record["status"] == "done"]
            items = [
                (
                    folder / record["path"],
                    folder / record["output"],
                    origin[Path(record["path"]).name],
                    record["defects"],
                    mask() if title == "map" else None,
                    kinds[Path(record["path"]).name],
                )
                for record in done
            ]
            budget = workers.Budget(3_000_000_000, 60)
            verdicts = workers.run(judged, items, 1, budget, lambda item, why: "")
            for item, verdict in zip(items, verdicts, strict=True):
                if verdict:
                    found["acceptance"].append(f"{title}: {item[0].name} ({item[5]}): {verdict}")
    left = [str(p) for p in folder.rglob(".fixpix-*") if p.suffix != ".lock"]  # a map's lock stays
    found["crash"] += [f"left behind: {path}" for path in left]
    return found


def _check_run(
    title: str, code: int, err: str, peak: int, told: dict[str, dict], expected: set[str], found: dict[str, list[str]]
) -> None:
    if code == -1:
        found["hang"].append(f"{title}: the command did not end")
    elif code not in (0, 1):
        found["crash"].append(f"{title}: exit {code}: {err[-300:]}")
    if "Traceback" in err:
        found["crash"].append(f"{title}: {err[-600:]}")
    for name in sorted(expected - set(told)):
        found["crash"].append(f"{title}: {name} has no outcome")
    for name, record in told.items():
        error = record["error"] or ""
        if record["status"] == "failed" and (name not in error or "\n" in error or "internal error" in error):
            found["crash"].append(f"{title}: {name}: {error}")
        if "its decoder crashed" in error:
            found["crash"].append(f"{title}: {error}")
        if record["seconds"] > FRAME_SECONDS or "took more than" in error:
            found["hang"].append(f"{title}: {name}: {record['seconds']} s {error}")
        if title == "untouched" and record["status"] == "failed":
            found.setdefault("refused samples", []).append(error)
    if peak > MEMORY:
        found["memory"].append(f"{title}: {peak / 1e6:.0f} MB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="an empty folder for the files, kept for a look at them")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="fuzz"))
    folder.mkdir(exist_ok=True)
    try:
        found = run(options.files, options.seed, folder)
    finally:
        if options.keep is None:
            shutil.rmtree(folder)
    refused = found.pop("refused samples", [])
    for error in refused:
        print(f"undamaged but refused: {error}")
    for kind, lines in found.items():
        print(f"{kind}: {len(lines)}")
        for line in lines:
            print(f"  {line}")
    return 1 if any(found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
