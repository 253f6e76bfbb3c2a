"""All of a file or nothing of it; originals are never hurt."""

import os
import signal
import subprocess
import sys
import time

import pytest

from fixpix_cli import safe
from fixpix_cli.errors import OutputExistsError, OutputFolderError, RefusedError


def leftovers(folder):
    return [p.name for p in folder.iterdir() if p.name.startswith(safe.TEMPORARY_PREFIX)]


def test_a_failed_write_leaves_nothing(tmp_path):
    target = tmp_path / "a.bin"
    with pytest.raises(KeyboardInterrupt), safe.replacing(target) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert not target.exists() and not leftovers(tmp_path)


def test_an_existing_target_is_kept_or_replaced_whole(tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(OutputExistsError), safe.replacing(target):
        raise AssertionError("must not get here")
    with safe.replacing(target, overwrite=True) as temporary:
        temporary.write_bytes(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new" and not leftovers(tmp_path)


def test_a_target_that_appears_meanwhile_is_not_overwritten(tmp_path):
    target = tmp_path / "a.bin"
    with pytest.raises(OutputExistsError), safe.replacing(target) as temporary:
        temporary.write_bytes(b"mine")
        target.write_bytes(b"theirs")
    assert target.read_bytes() == b"theirs"


def test_hard_links_are_refused_and_symlinks_followed(tmp_path):
    one, two, link = tmp_path / "one", tmp_path / "two", tmp_path / "link"
    one.write_bytes(b"x")
    os.link(one, two)
    with pytest.raises(RefusedError, match="hard links"), safe.replacing(one, overwrite=True):
        raise AssertionError("must not get here")
    two.unlink()
    link.symlink_to(one)
    with safe.replacing(link, overwrite=True) as temporary:
        temporary.write_bytes(b"y")
    assert link.is_symlink() and one.read_bytes() == b"y"


def test_times_and_permissions_follow_the_original(tmp_path):
    source, target = tmp_path / "s", tmp_path / "t"
    source.write_bytes(b"x")
    source.chmod(0o640)
    os.utime(source, (1_500_000_000, 1_500_000_000))
    with safe.replacing(target, like=source) as temporary:
        temporary.write_bytes(b"y")
    assert target.stat().st_mtime == 1_500_000_000 and target.stat().st_mode & 0o777 == 0o640


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(OutputFolderError, match="out"):
        safe.ensure_folder(tmp_path / "out")


def test_kill_in_mid_write_leaves_no_target(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from fixpix_cli import safe\n"
        "with safe.replacing(Path(sys.argv[1])) as t:\n"
        "    t.write_bytes(b'half'); print('in', flush=True); time.sleep(60)"
    )
    target = tmp_path / "a.bin"
    child = subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE)
    assert child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait()
    time.sleep(0)
    assert not target.exists()


def test_the_lock_of_a_map_is_not_swept(tmp_path):
    lock = tmp_path / ".fixpix-camera.map.fits.lock"
    stale = tmp_path / ".fixpix-abc.fits"
    lock.touch()
    stale.touch()
    safe.sweep(tmp_path)
    assert lock.exists() and not stale.exists()
