"""A small run of the fuzz bench: damaged files of every format through the real command line."""

import subprocess
import sys

from conftest import ROOT


def test_forty_damaged_files(tmp_path):
    """Lost otherwise: a batch, to one bad file; or good pixels, to a file that is not what it says."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests/bench/fuzz.py", "--files", "40", "--seed", "2", "--keep", tmp_path / "fuzz"],
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "40 files" in done.stdout and "acceptance: 0" in done.stdout
