"""Many frames: as many processes as there is room for, memory that does not grow, progress that knows the end."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import json_lines, scene, write_fits

from fixpix_cli import jobs, machine, workers
from fixpix_cli.defects import DQ, DefectMap
from fixpix_cli.jobs import calibrating, looking

SHAPE = (120, 160)


@pytest.fixture
def frames(tmp_path):
    """Five frames of one camera."""
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(5):
        samples = scene(shape=SHAPE, seed=n).samples
        samples[5::33, 7::39] = 16000
        write_fits(folder / f"a{n}.fits", samples, BAYERPAT="RGGB", INSTRUME="Cam")
    return folder


def sized(folder, size, count):
    """`count` files of some size that take no room."""
    paths = [folder / f"{size}-{n}" for n in range(count)]
    for path in paths:
        path.touch()
        os.truncate(path, size)
    return paths


def test_processes_as_the_machine_has(tmp_path, monkeypatch):
    """Lost otherwise: idle processors, or processes that starve beside each other."""
    monkeypatch.setattr(machine, "available", lambda: 8)
    small, large = sized(tmp_path, 600_000, 20), sized(tmp_path, 100_000_000, 20)
    roomy, tight = workers.Budget(memory=64_000_000_000), workers.Budget(memory=4_000_000_000)
    assert roomy.crew(0, small) == 8 and roomy.crew(3, small) == 3
    assert roomy.crew(0, small[:2]) == 2  # no more than frames
    assert tight.crew(0, small) == 8 and tight.crew(0, large) == 2 and tight.crew(0, small + large) == 2
    assert tight.crew(20, large) == 10  # asked for: as many as can start at all
    assert workers.Budget(memory=300_000_000).crew(0, large) == 1
    assert roomy.crew(0, [tmp_path / "none"]) == 1


def test_the_leaders_memory_counts():
    """Lost otherwise: --max-memory kept by the workers alone. The least that can be asked for still starts a worker."""
    budget = workers.Budget(memory=1_000_000_000, reserve=80_000_000)
    assert budget.total == 920_000_000
    assert replace(budget, memory=200_000_000).total == 150_000_000


def greedy(path, number):
    """Take 300 MB."""
    taken = np.ones(300_000_000, np.uint8)
    return number, int(taken[-1])


@pytest.mark.skipif(workers.resource is None, reason="no resource limits")
def test_frames_that_need_more_than_their_share_go_on_with_fewer_workers(tmp_path, monkeypatch):
    """Each is done; after the second one they are no longer tried beside three others."""
    sizes = []
    team = workers._Team
    monkeypatch.setattr(
        workers, "_Team", lambda function, size, budget: sizes.append(size) or team(function, size, budget)
    )
    items = [(tmp_path / f"{n}", n) for n in range(6)]
    budget = workers.Budget(memory=1_200_000_000)
    found = list(workers.run(greedy, items, 4, budget, lambda item, why: why))
    assert found == [(n, 1) for n in range(6)]
    assert sizes[:4] == [4, 1, 4, 1] and 2 in sizes and 4 not in sizes[4:]


def test_flags_are_kept_in_little_room():
    """What the second pass of --auto gets is what the first one saw."""
    rng = np.random.default_rng(0)
    for shape, rate in (((50, 70), 0.3), ((50, 70), 0.0), ((3000, 2000), 1e-3), ((1, 1), 1.0)):
        flags = DefectMap(
            np.where(rng.random(shape) < rate, rng.choice([3, 17, int(DQ.HOT) | 1, 1 << 30 | 1], shape), 0).astype(
                np.int32
            )
        )
        packed = looking.Packed.of(flags)
        assert np.array_equal(packed.view().dq, flags.dq) and packed.view().dq.dtype == np.int32
        assert len(packed.data) < 8 * len(flags) + 100


def test_what_is_not_remembered_is_found_again(frames, tmp_path, monkeypatch):
    """The same repairs, whether the first pass's finds had room or not."""
    outputs = []
    for room in (looking.REMEMBERED, 150, 0):
        monkeypatch.setattr(looking, "REMEMBERED", room)
        out = tmp_path / str(room)
        how = jobs.Repair(auto=True, out=out)
        outcomes = list(jobs.correct([frames], jobs.Common(), how, store=tmp_path / "store"))
        assert [o.status for o in outcomes] == [jobs.DONE] * 5
        outputs.append(({p.name: p.read_bytes() for p in out.iterdir()}, [o.defects for o in outcomes]))
    assert outputs[0] == outputs[1] == outputs[2] and sum(outputs[0][1]) > 0


def test_few_suspects_are_held_at_a_time(frames, tmp_path, monkeypatch):
    """Frames full of suspects are written before many of them are together; the map is the same."""
    written, maps = [], []
    add = calibrating.maps.add
    monkeypatch.setattr(calibrating.maps, "add", lambda *a, **k: written.append(len(a[2])) or add(*a, **k))
    for most in (1_000_000, 1):
        monkeypatch.setattr(calibrating, "_SUSPECTS", most)
        fed = jobs.Calibrated()
        outcomes = list(jobs.calibrate([frames], jobs.Common(), store=tmp_path / str(most), result=fed))
        assert [o.status for o in outcomes] == [jobs.DONE] * 5
        maps += [camera.evidence for camera in fed.maps.values()]
    assert written == [5, 1, 1, 1, 1, 1] and len(maps) == 2 and maps[0] == maps[1]


def test_one_frame_takes_all_processors_and_changes_no_bit(run, frames):
    """A single frame's nets run in threads where processors are left over."""
    masks = []
    for number in (0, 1):
        _, out, _ = run("detect", frames / "a0.fits", "--json", "-j", number)
        (record,), _ = json_lines(out)
        masks.append((frames.parent / record["output"]).read_bytes())
    assert masks[0] == masks[1]


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_progress_knows_the_end(frames, tmp_path):
    """On a terminal: how many of how many, and the time left."""
    import pty

    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "fixpix_cli", "detect", "in"], cwd=tmp_path, stderr=follower, stdout=subprocess.DEVNULL
    )
    os.close(follower)
    text = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # the terminal's other end has closed
            break
        if not part:
            break
        text += part
    os.close(leader)
    assert process.wait() == 0
    assert b"/5" in text and b"frames/s" in text and Path(tmp_path / "masks/a4.mask.fits").exists()
