"""Files that ask for too much, and things that are no files: named failures, the others are done, nothing runs away."""

import gzip
import os
import resource
import signal
import socket
import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import json_lines, scene, write_fits

from fixpix_cli import files, safe, workers
from fixpix_cli.errors import UnreadableError


@pytest.fixture
def good(tmp_path):
    (tmp_path / "in").mkdir()
    return write_fits(tmp_path / "in/good.fits", scene().samples, BAYERPAT="RGGB", INSTRUME="Cam")


def fails(run, good, *bad, options=(), command=("correct", "--auto")):
    """All of `bad` fail by their names, in one line each; `good` is done. Returns the errors by name."""
    code, out, err = run(command[0], good.parent, *command[1:], "--json", *options)
    records, summary = json_lines(out)
    told = {Path(r["path"]).name: r for r in records}
    assert code == 1 and summary["done"] == 1 and summary["failed"] == len(bad), (out, err)
    assert told[good.name]["status"] == "done"
    for name in bad:
        error = told[name]["error"]
        assert name in error and "\n" not in error and "internal" not in error, error
    assert not list(good.parent.parent.rglob(".fixpix*"))
    return {name: told[name]["error"] for name in bad}


def test_pipes_sockets_devices_and_folders_by_a_frames_name(run, good):
    """Lost otherwise: a batch that waits for ever on a pipe, or a link to nothing that is passed over in silence."""
    folder = good.parent
    os.mkfifo(folder / "pipe.fits")
    (folder / "gone.fits").symlink_to(folder / "nothing.fits")
    (folder / "zero.tif").symlink_to("/dev/zero")
    (folder / "loop.fits").symlink_to(folder / "loop.fits")
    (folder / "folder.dng").mkdir()
    with socket.socket(socket.AF_UNIX) as endpoint:
        here = os.getcwd()
        os.chdir(folder)  # the name of a socket may not be long
        try:
            endpoint.bind("s.fits")
        finally:
            os.chdir(here)
        names = ("pipe.fits", "gone.fits", "zero.tif", "loop.fits", "folder.dng", "s.fits")
        for command in (("detect",), ("correct", "--auto"), ("calibrate",), ("inject", "--out", "q")):
            errors = fails(run, good, *names, command=command)
    assert "folder" in errors["folder.dng"] and "regular" in errors["pipe.fits"]


def gzip_bomb(path, head):
    """A whole small FITS file, followed by 600 MB of zeros, all gzipped (as a chain of members)."""
    path.write_bytes(gzip.compress(head) + 60 * gzip.compress(bytes(10_000_000)))


def header(**cards):
    """A FITS header block."""
    lines = [f"{key:<8}= {value!s:>20}" for key, value in cards.items()] + ["END"]
    return "".join(f"{line:<80}" for line in lines).ljust(2880).encode()


def test_sizes_are_checked_against_the_file(run, good, tmp_path):
    """Lost otherwise: all memory, to a header of 2,880 bytes."""
    import tifffile

    folder = good.parent
    huge = {"SIMPLE": "T", "BITPIX": 16, "NAXIS": 2, "NAXIS1": 2_000_000_000, "NAXIS2": 2_000_000_000}
    (folder / "huge.fits").write_bytes(header(**huge) + bytes(28800))
    (folder / "huge.fits.gz").write_bytes(gzip.compress(header(**huge) + bytes(28800)))
    (folder / "axes.fits").write_bytes(header(**{**huge, "NAXIS": 999}) + bytes(28800))
    tifffile.imwrite(folder / "a.tif", np.zeros((64, 64), np.uint16), compression="zlib", photometric="minisblack")
    data = bytearray((folder / "a.tif").read_bytes())
    (folder / "a.tif").unlink()
    place = struct.unpack_from("<I", data, 4)[0]
    for n in range(struct.unpack_from("<H", data, place)[0]):
        entry = place + 2 + 12 * n
        if struct.unpack_from("<H", data, entry)[0] in (256, 257, 278):
            struct.pack_into("<HII", data, entry + 2, 4, 1, 30_000)
    (folder / "huge.tif").write_bytes(data)
    (folder / "huge.dng").write_bytes(data)
    (folder / "vast.nef").write_bytes(data)
    fails(run, good, "huge.fits", "huge.fits.gz", "axes.fits", "huge.tif", "huge.dng", "vast.nef")


def test_directories_that_run_in_a_circle(run, good):
    """Lost otherwise: a reader that never ends."""
    entries = struct.pack("<HHIIHHII", 256, 4, 1, 64, 330, 4, 1, 8)  # its SubIFD is itself
    (good.parent / "sub.dng").write_bytes(b"II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", 0))
    (good.parent / "next.tif").write_bytes(
        b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 256, 4, 1, 64) + struct.pack("<I", 8)
    )
    errors = fails(run, good, "sub.dng", "next.tif")
    assert all("circle" in error for error in errors.values())


@pytest.mark.parametrize("kind", ["zlib", "lzw", "zstd", "lzma", "packbits"])
def test_segments_that_unpack_to_more_than_they_should(run, good, kind, tmp_path):
    """A strip of a small image that holds up to 200 MB of zeros: never more than the strip's size is unpacked."""
    import imagecodecs
    import tifffile

    encode = {"zlib": imagecodecs.zlib_encode, "lzw": imagecodecs.lzw_encode, "zstd": imagecodecs.zstd_encode}
    encode |= {"lzma": imagecodecs.lzma_encode, "packbits": lambda zeros: b"\x81\0" * (len(zeros) // 128)}
    bomb = bytes(encode[kind](bytes(200_000_000 if kind in ("zlib", "zstd") else 20_000_000)))
    names = []
    for suffix in (".tif", ".dng"):
        path = good.parent / f"bomb_{suffix[1:]}{suffix}"
        tifffile.imwrite(
            path, iter([bomb]), shape=(64, 64), dtype=np.uint16, compression=kind, rowsperstrip=64, metadata=None,
            photometric="minisblack" if suffix == ".tif" else 32803,
            extratags=[(33421, 3, 2, (2, 2), True), (33422, 1, 4, b"\0\1\1\2", True)],
        )  # fmt: skip
        names.append(path)
    done, out, err = run("detect", good.parent, "--json", "--max-memory", "250M", "-j", 1)
    records, _ = json_lines(out)
    assert len(records) == 3 and done in (0, 1), (out, err)
    for record in records:  # a codec that stops at the strip's end reads a good image of zeros; others refuse
        assert record["status"] == "done" or Path(record["path"]).name in record["error"]


def test_a_gzip_bomb(run, good, tmp_path):
    gzip_bomb(good.parent / "bomb.fits.gz", good.read_bytes())
    start = time.perf_counter()
    errors = fails(run, good, "bomb.fits.gz", options=("--max-memory", "300M"))
    assert "bomb.fits.gz" in errors and time.perf_counter() - start < 200


def test_a_frame_that_needs_more_memory_than_allowed_says_so(run, good):
    """Lost otherwise: the machine's memory; a frame that fits is done in spite of its neighbour."""
    write_fits(good.parent / "large.fits", np.tile(scene().samples, (50, 50)))
    errors = fails(run, good, "large.fits", options=("--max-memory", "200M", "-j", 2))
    assert "--max-memory" in errors["large.fits"]


def test_too_little_memory_to_start_is_a_usage_error(run, good):
    code, _, err = run("detect", good, "--max-memory", "10M")
    assert code == 2 and "--max-memory" in err


# ---------------------------------------------------------------- the workers themselves


def act(path, what):
    """An item's work: behaves as `what` says, in a worker."""
    if what == "memory":
        return np.ones(900_000_000, np.uint8).size
    if what == "some":
        return np.ones(300_000_000, np.uint8).size
    if what == "loop":
        while True:
            pass
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "sleep":
        time.sleep(600)
    if what == "write":
        try:
            with open(f"{path}.out", "wb") as stream:
                stream.truncate(10_000_000_000)
        except OSError as error:
            return safe.reason(error)
    if what == "huge answer":
        return "x" * 5_000_000
    return os.getpid()


def results(tmp_path, whats, jobs, **budget):
    path = tmp_path / "frame"
    path.write_bytes(b"")
    items = [(path, what) for what in whats]
    return list(workers.run(act, items, jobs, workers.Budget(**budget), lambda item, why: f"{item[1]}: {why}"))


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_a_dead_worker_costs_only_its_frame(tmp_path, jobs):
    whats = ["", "crash", "", "killed", "", "huge answer", ""]
    found = results(tmp_path, whats, jobs)
    assert [isinstance(r, int) for r in found] == [True, False, True, False, True, False, True]
    assert "SIGSEGV" in found[1] and "memory" in found[3] and len(found[5]) == 5_000_000
    assert os.getpid() not in found  # nothing is decoded in the leading process


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA counts mapped memory on Linux only")
@pytest.mark.parametrize("jobs", [1, 2])
def test_memory_is_limited(tmp_path, jobs):
    found = results(tmp_path, ["memory", "", "some"], jobs, memory=600_000_000)
    assert "600 MB" in found[0] and "--max-memory" in found[0]
    assert isinstance(found[1], int)
    assert found[2] == 300_000_000  # more than its share of two, but not more than all


def test_cpu_time_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_PATIENCE", 300)  # on a busy machine the clock would come first
    found = results(tmp_path, ["loop", ""], 1, seconds=1.0)
    assert "1 s of CPU time" in found[0] and "--max-time" in found[0] and isinstance(found[1], int)


def test_the_clock_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_PATIENCE", 3)
    found = results(tmp_path, ["sleep", ""], 1, seconds=1.0)
    assert "by the clock" in found[0] and isinstance(found[1], int)


def test_output_is_limited(tmp_path):
    assert results(tmp_path, ["write"], 1, memory=300_000_000) == ["file too large"]


def test_workers_are_confined_and_the_leader_is_not(tmp_path):
    results(tmp_path, [""], 1, memory=300_000_000)
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] != 300_000_000


def test_a_raw_that_claims_too_many_pixels(tmp_path):
    from types import SimpleNamespace

    from fixpix_cli.files import raw

    path = tmp_path / "a.nef"
    path.write_bytes(bytes(1000))
    raw._check_size(path, SimpleNamespace(raw_width=80, raw_height=100))
    with pytest.raises(UnreadableError, match="too many"):
        raw._check_size(path, SimpleNamespace(raw_width=30000, raw_height=30000))
    assert files.is_native(path)
