"""Safe writing, with real processes and real trouble: the original and every finished output stay whole."""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import json_lines, scene, write_fits

from fixpix_cli import files, maps, safe
from fixpix_cli.defects import DefectMap

SHAPE = (300, 400)


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def leftovers(folder):
    return sorted(p.name for p in Path(folder).rglob(f"{safe.TEMPORARY_PREFIX}*"))


def image(number):
    """(H, W) uint16 samples of a frame, with hot pixels where the mask says bad."""
    samples = scene(shape=SHAPE, seed=number).samples
    samples[5::33, 7::39] = 16000
    return samples


@pytest.fixture
def frames(tmp_path):
    """Five frames with a known mask, in a folder whose name has a blank and letters beyond ASCII."""
    folder = tmp_path / "in püt"
    folder.mkdir()
    for n in range(5):
        write_fits(folder / f"a {n} ü.fits", image(n), BAYERPAT="RGGB", INSTRUME="Cam")
    bad = np.zeros(SHAPE, bool)
    bad[5::11, 7::13] = True
    maps.write_mask(tmp_path / "bad.fits", [DefectMap.of(bad)])
    return folder


REPAIR = ("--map", "bad.fits", "--method", "median")


@pytest.fixture
def expected(run, frames, tmp_path):
    """Digests of the right outputs, by name."""
    assert run("correct", frames, *REPAIR, "--out", "right")[0] == 0
    found = {p.name: digest(p) for p in (tmp_path / "right").iterdir()}
    shutil.rmtree(tmp_path / "right")
    assert len(found) == 5
    return found


def whole(folder, expected):
    """Every output that is there under a final name is right, and how many there are."""
    there = [p for p in Path(folder).iterdir() if not p.name.startswith(".")] if Path(folder).exists() else []
    for path in there:
        assert digest(path) == expected[path.name], f"{path} is not whole"
    return len(there)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_kill_in_mid_run_many_times(run, frames, expected, tmp_path):
    """Lost otherwise: half a frame under its final name, or an original; what is left behind goes with the next run."""
    originals = {p: digest(p) for p in frames.iterdir()}
    counts = []
    for n in range(8):
        process = subprocess.Popen(
            [sys.executable, "-m", "fixpix_cli", "correct", str(frames), *REPAIR, "--out", "out", "--overwrite", "-j1"],
            cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        out = tmp_path / "out"
        for _ in range(3000):  # until the n-th output is under way: some rounds early, some late
            names = [p.name for p in out.iterdir()] if out.exists() else []
            if len(names) > n % 5 or process.poll() is not None:
                break
            time.sleep(0.005)
        for pid in family(process.pid):
            with contextlib.suppress(ProcessLookupError):  # a child may end by itself meanwhile
                os.kill(pid, signal.SIGKILL)
        process.wait()
        counts.append(whole(out, expected))
        assert {p: digest(p) for p in frames.iterdir()} == originals
        shutil.rmtree(out) if n < 7 and n % 2 else None
    assert run("correct", frames, *REPAIR, "--out", "out", "--resume")[0] == 0
    assert whole(tmp_path / "out", expected) == 5 and not leftovers(tmp_path)


def family(pid):
    """A process and all below it, the leader first."""
    below = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            below.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += below.get(one, [])
    return found


def test_in_place_survives_kill(run, frames, tmp_path):
    """Each original is the old one or the repaired one, never a mixture."""
    shutil.copytree(frames, tmp_path / "copy")
    assert run("correct", tmp_path / "copy", *REPAIR, "--in-place")[0] == 0
    for n in range(4):
        process = subprocess.Popen(
            [sys.executable, "-m", "fixpix_cli", "correct", str(frames), *REPAIR, "--in-place", "-j", "1"],
            cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        for _ in range(n):
            process.stderr.readline()  # after n outcomes
        before = family(process.pid)
        for pid in before:
            with contextlib.suppress(ProcessLookupError):  # a child may end by itself meanwhile
                os.kill(pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()
        old = {p.name: digest(p) for p in (frames).iterdir() if not p.name.startswith(".")}
        new = {p.name: digest(p) for p in (tmp_path / "copy").iterdir()}
        for name, value in old.items():
            samples = files.load(frames / name).mosaics[0].samples
            assert samples.shape == SHAPE
            assert value == new[name] or np.array_equal(samples, image(int(name[2])))
    assert run("correct", frames, *REPAIR, "--in-place")[0] == 0
    assert not leftovers(frames)


def test_two_processes_on_one_target(frames, expected, tmp_path):
    """Both end; each output is whole; without --overwrite one of the two says that it came too late."""
    for options, codes in ((["--overwrite"], {0}), ([], {0, 1})):
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        both = [
            subprocess.Popen(
                [sys.executable, "-m", "fixpix_cli", "correct", str(frames), *REPAIR, "--out=out", "--json", *options],
                cwd=tmp_path, stdout=subprocess.PIPE, text=True,
            )
            for _ in range(2)
        ]  # fmt: skip
        summaries = [json_lines(p.communicate(timeout=200)[0])[1] for p in both]
        assert {p.returncode for p in both} <= codes
        assert whole(out, expected) == 5 and not leftovers(tmp_path)
        if not options:
            assert sum(s["done"] for s in summaries) == 5  # each frame was written once


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 400 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(run, frames, expected, small_disk, tmp_path):
    """One output of 240 kB fits, the second does not: it fails by its name and leaves nothing."""
    code, out, _ = run("correct", frames, *REPAIR, "--out", small_disk, "--json", "-j", 1)
    records, summary = json_lines(out)
    assert code == 1 and summary["done"] == 1 and summary["failed"] == 4
    assert all("no space left" in r["error"] and Path(r["path"]).name in r["error"] for r in records[1:])
    assert whole(small_disk, expected) == 1 and not leftovers(small_disk)


def test_a_full_disk_in_place(run, frames, small_disk, tmp_path):
    """The original stays when there is no room for its successor beside it."""
    frame = small_disk / "a.fits"
    shutil.copy(next(iter(sorted(frames.iterdir()))), frame)
    before = digest(frame)
    code, _, err = run("correct", frame, *REPAIR, "--in-place")
    assert code == 1 and "a.fits" in err and "no space left" in err
    assert digest(frame) == before and not leftovers(small_disk)


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
def test_a_limit_on_file_sizes(frames, tmp_path):
    """The second way to a failing write, which needs no root."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "from fixpix_cli.cli import main; main(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "correct", str(frames), *REPAIR, "--json"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    records, summary = json_lines(done.stdout)
    assert done.returncode == 1 and summary["failed"] == 5, done.stderr
    assert all("file too large" in r["error"] and "Traceback" not in done.stderr for r in records)
    assert not list((tmp_path / "repaired").iterdir())


def test_hard_links_and_write_protection(run, frames, tmp_path):
    """Lost otherwise: the other name of a file, or a file that its owner has protected."""
    one, two, *_ = sorted(frames.iterdir())
    os.link(one, tmp_path / "second name.fits")
    two.chmod(0o444)
    before = digest(one), digest(two)
    code, out, _ = run("correct", one, two, *REPAIR, "--in-place", "--json")
    records, _ = json_lines(out)
    assert code == 1 and "hard links" in records[0]["error"] and "write-protected" in records[1]["error"]
    assert (digest(one), digest(two)) == before
    assert run("correct", one, two, *REPAIR)[0] == 0


def test_symbolic_links(run, frames, expected, tmp_path):
    """A linked input is repaired behind its link; an output that is a link to an input is refused."""
    name = sorted(expected)[0]
    link = tmp_path / "link.fits"
    shutil.copy(frames / name, tmp_path / "real.fits")
    link.symlink_to("real.fits")
    assert run("correct", link, *REPAIR, "--in-place")[0] == 0
    assert link.is_symlink() and digest(tmp_path / "real.fits") == expected[name]
    (tmp_path / "repaired").mkdir()
    (tmp_path / "repaired" / name).symlink_to(frames / name)
    before = digest(frames / name)
    code, _, err = run("correct", frames / name, *REPAIR, "--overwrite")
    assert code == 2 and "frames to read" in err and digest(frames / name) == before


def test_input_and_output_in_one_folder(run, frames, tmp_path):
    before = {p: digest(p) for p in frames.iterdir()}
    for arguments in ((frames,), sorted(frames.iterdir())):
        code, _, err = run("correct", *arguments, *REPAIR, "--out", frames, "--overwrite")
        assert code == 2 and "--in-place" in err
    assert {p: digest(p) for p in frames.iterdir()} == before


def test_permissions_and_times_are_kept(run, frames, tmp_path):
    one, two, *_ = sorted(frames.iterdir())
    for path, mode in ((one, 0o440), (two, 0o604)):
        path.chmod(mode)
        os.utime(path, ns=(1_500_000_000_123_456_789, 1_400_000_000_987_654_321))
    assert run("correct", one, two, *REPAIR)[0] == 0
    assert run("correct", one, two, *REPAIR, "--overwrite")[0] == 0
    assert run("correct", two, *REPAIR, "--in-place")[0] == 0
    for path, mode in (
        (tmp_path / "repaired" / one.name, 0o440),
        (tmp_path / "repaired" / two.name, 0o604),
        (two, 0o604),
    ):
        status = path.stat()
        assert status.st_mode & 0o777 == mode and status.st_mtime_ns == 1_400_000_000_987_654_321


def test_a_read_only_folder(run, frames, tmp_path):
    """The outputs' folder cannot be written: exit 3, named. Root may write everywhere, so /proc stands in there."""
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    target = "/proc/fixpix" if os.geteuid() == 0 else folder
    code, _, err = run("correct", frames, *REPAIR, "--out", target)
    folder.chmod(0o755)
    assert code == 3 and str(target) in err and "--out" in err


# ---------------------------------------------------------------- --resume


@pytest.mark.parametrize(
    "options", [REPAIR, ("--auto",), (*REPAIR, "--provenance"), (*REPAIR, "--fill", "noise")], ids=str
)
def test_resume_verifies_by_content(run, frames, tmp_path, options):
    """Skipped is what holds this frame's pixels with exactly its bad ones repaired; all else is done again."""
    assert run("correct", frames, *options)[0] == 0
    out = tmp_path / "repaired"
    whole, cut, foreign, plain, gone = sorted(out.iterdir())
    right = {p: digest(p) for p in out.iterdir()}
    times = foreign.stat()
    os.utime(whole, (1_600_000_000, 1_600_000_000))  # a copy without its times is as good
    cut.write_bytes(cut.read_bytes()[:-3000])
    shutil.copy(whole, foreign)
    os.utime(foreign, ns=(times.st_atime_ns, times.st_mtime_ns))
    shutil.copy2(frames / plain.name, plain)  # the input itself
    gone.unlink()
    code, text, _ = run("correct", frames, *options, "--resume", "--json")
    records, _ = json_lines(text)
    status = {Path(r["path"]).name: r["status"] for r in records}
    assert code == 0 and status == {
        p.name: "skipped" if p == whole else "done" for p in (whole, cut, foreign, plain, gone)
    }
    assert {p: digest(p) for p in out.iterdir()} == right
    assert json_lines(run("correct", frames, *options, "--resume", "--json")[1])[1]["skipped"] == 5


def test_resume_with_another_mask_does_the_frame_again(run, frames, tmp_path):
    """Lost otherwise: the pixels that a map has learned since."""
    frame = sorted(frames.iterdir())[0]
    assert run("correct", frame, *REPAIR)[0] == 0
    bad = np.zeros(SHAPE, bool)
    bad[50, 60] = True
    maps.write_mask(tmp_path / "bad.fits", [DefectMap.of(bad)], overwrite=True)
    assert json_lines(run("correct", frame, *REPAIR, "--resume", "--json")[1])[1]["done"] == 1
    bad[70:90:3, 80] = True
    maps.write_mask(tmp_path / "bad.fits", [DefectMap.of(bad)], overwrite=True)
    assert json_lines(run("correct", frame, *REPAIR, "--resume", "--json")[1])[1]["done"] == 1


# ---------------------------------------------------------------- what killed runs leave


def test_sweeping_spares_the_living(tmp_path):
    """A temporary file goes only when its writer is dead, and its companions go with it."""
    for name in ("dead.fits", "dead.fits.plain"):
        (tmp_path / f"{safe.TEMPORARY_PREFIX}{name}").write_bytes(b"half")
    with safe.replacing(tmp_path / "a.fits") as temporary:
        temporary.write_bytes(b"whole")
        beside = temporary.with_name(temporary.name + ".plain")
        beside.write_bytes(b"beside")
        safe.sweep(tmp_path)
        assert temporary.exists() and beside.exists()
        assert not (tmp_path / f"{safe.TEMPORARY_PREFIX}dead.fits").exists()
        assert not (tmp_path / f"{safe.TEMPORARY_PREFIX}dead.fits.plain").exists()
        beside.unlink()
    assert [p.name for p in tmp_path.iterdir()] == ["a.fits"]
