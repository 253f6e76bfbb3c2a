"""More than one machine: the same results as on one, whatever happens to the workers (real processes)."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import json_lines, scene, write_fits

from fixpix_cli import cluster as clusters
from fixpix_cli import files, jobs, maps, safe
from fixpix_cli.defects import DefectMap
from fixpix_cli.errors import ClusterError, OutputFolderError, UsageError

SHAPE = (200, 240)


@contextmanager
def started():
    """A cluster of two processes of one frame each."""
    distributed = pytest.importorskip("distributed", reason="the extra 'cluster' is not installed")
    import dask

    settings = {
        "logging.distributed": "critical",
        "distributed.scheduler.worker-saturation": 1.0,
        "distributed.scheduler.allowed-failures": 2,
    }
    with (
        dask.config.set(settings),
        distributed.LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
    ):
        yield cluster


@pytest.fixture(scope="module")
def dask():
    """A cluster for all tests that leave its workers alive."""
    with started() as cluster:
        yield cluster


@pytest.fixture
def mortal():
    """A cluster of its own: one whose worker was killed twice in a row does not always get it back."""
    with started() as cluster:
        yield cluster


@pytest.fixture
def frames(tmp_path):
    """Eight frames of one camera, the last one cut short, with truths beside."""
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(8):
        samples = scene(shape=SHAPE, seed=n).samples
        samples[5::33, 7::39] = 16000
        write_fits(folder / f"a{n}.fits", samples, BAYERPAT="RGGB", INSTRUME="Cam")
    last = folder / "a7.fits"
    last.write_bytes(last.read_bytes()[:20000])
    bad = np.zeros(SHAPE, bool)
    bad[5::33, 7::39] = True
    (tmp_path / "truth").mkdir()
    for n in range(7):
        maps.write_mask(tmp_path / "truth" / f"a{n}.truth.fits", [DefectMap.of(bad)])
    return folder


def told(text):
    """The records of a --json run without what depends on the clock, and the summary's exit code."""
    records, summary = json_lines(text)
    return [{k: v for k, v in r.items() if k != "seconds"} for r in records], summary["exit"], summary["maps"]


def contents(folder):
    """What lies in a folder, byte for byte; of maps the evidence and its view, since gzip notes the time."""

    def content(path):
        if not path.name.endswith(".map.fits"):
            return path.read_bytes()
        camera = maps.read_map(path)
        return camera.evidence, camera.defects

    return {p.name: content(p) for p in sorted(Path(folder).rglob("*")) if p.is_file() and p.suffix != ".lock"}


VERBS = {
    "detect": ("detect", "in", "--out", "out"),
    "correct": ("correct", "in", "--map", "truth", "--out", "out"),
    "correct-auto": ("correct", "in", "--auto", "--out", "out"),
    "calibrate": ("calibrate", "in", "--store", "out"),
    "evaluate": ("evaluate", "--truth", "truth", "--clean", "in", "--repaired", "in"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_the_same_as_on_one_machine(run, frames, dask, tmp_path, verb):
    """Lost otherwise: bit-identical results, input order, failures by name, exit codes."""
    both = []
    for place in ((), ("--cluster", dask.scheduler_address)):
        code, out, _ = run(*VERBS[verb], "--json", *place)
        both.append((code, *told(out), contents(tmp_path / "out")))
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
    (_, here, *_, outputs), (_, there, *_) = both
    for one, two in zip(here, there, strict=True):
        assert one == two
    assert both[0] == both[1]
    assert len(here) >= 7 and (outputs or verb == "evaluate")
    if verb != "evaluate":
        here.sort(key=lambda r: r["path"])  # calibrate tells of frames when their map is written
        assert [r["status"] for r in here] == ["done"] * 7 + ["failed"] and "a7.fits" in here[7]["error"]


def test_evidence_is_summed_there(run, frames, dask, tmp_path):
    """A second run finds all frames counted; a frame given twice counts once; the map is that of a serial run."""
    shutil.copy(frames / "a0.fits", frames / "b0.fits")
    for folder, place in (("one", ()), ("two", ("--cluster", "local:1"))):
        _, out, err = run("calibrate", frames, "--store", folder, "--json", *place)
        statuses = [r["status"] for r in sorted(json_lines(out)[0], key=lambda r: r["path"])]
        assert statuses == ["done"] * 7 + ["failed", "skipped"], err
    (one,), (two,) = (list((tmp_path / name).glob("*.map.fits")) for name in ("one", "two"))
    assert maps.read_map(one).evidence == maps.read_map(two).evidence
    _, out, _ = run("calibrate", frames, "--store", "two", "--json", "--cluster", dask.scheduler_address)
    assert json_lines(out)[1]["skipped"] == 8


def test_the_library_does_not_talk_on_stderr(dask):
    """Lost otherwise: scripts that take any line there for trouble stop at a result that was lost and made again."""
    code = (
        "import logging\n"
        "from fixpix_cli import cluster\n"
        "from fixpix_cli.jobs.outcomes import Common\n"
        f"with cluster.connected(Common(cluster={dask.scheduler_address!r}), [], [], []):\n"
        "    for name in ('', '.client', '.gc', '.core', '.scheduler', '.worker', '.nanny'):\n"
        "        logging.getLogger('distributed' + name).error('trouble')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("verb", ["correct", "calibrate"])
def test_frames_of_killed_workers_are_done_again(run, frames, mortal, tmp_path, verb):
    """Lost otherwise: the frames that a dead machine had in hand, or a frame's evidence, counted twice or never."""
    (frames / "a7.fits").unlink()
    for n in range(8, 16):
        shutil.copy(frames / "a1.fits", frames / f"a{n}.fits") if verb == "correct" else write_fits(
            frames / f"a{n}.fits", scene(shape=SHAPE, seed=n).samples, BAYERPAT="RGGB", INSTRUME="Cam"
        )
    for n in range(7, 16):
        shutil.copy(tmp_path / "truth" / "a0.truth.fits", tmp_path / "truth" / f"a{n}.truth.fits")
    assert run(*VERBS[verb])[0] == 0
    right = contents(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    process = subprocess.Popen(
        [sys.executable, "-m", "fixpix_cli", *VERBS[verb], "--json", "--cluster", mortal.scheduler_address],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    killed = set()
    while process.poll() is None and len(killed) < 2:
        for state in list(mortal.scheduler.workers.values()):
            pid = next((n.pid for n in mortal.workers.values() if n.worker_address == state.address), None)
            if state.processing and pid is not None and state.address not in killed and len(killed) < 2:
                time.sleep(0.3 * len(killed))  # at another moment of a frame's life
                os.kill(pid, signal.SIGKILL)
                killed.add(state.address)
        time.sleep(0.05)
    out, err = process.communicate(timeout=200)
    _, summary = json_lines(out)
    assert killed and process.returncode == 0, err
    assert summary["done"] == 15 and not err.strip()
    assert contents(tmp_path / "out") == right


def deadly(path, name):
    """Kill the Dask worker that this frame's process belongs to, if the frame is that bad."""
    if name == "bad":
        server = os.getppid()
        worker = int(Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[1])
        assert worker > 1
        time.sleep(3)  # its nanny gives up on a worker that dies while it starts
        os.kill(worker, signal.SIGKILL)
        time.sleep(3)
    return f"{name} done"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_a_frame_that_kills_its_workers_fails_alone(mortal, tmp_path, monkeypatch):
    """Lost otherwise: the whole run."""
    monkeypatch.chdir(tmp_path)
    common = jobs.Common(cluster=mortal.scheduler_address)
    items = [(tmp_path / "x", name) for name in ("a", "b", "bad", "c")]
    with clusters.connected(common, [], [], []) as place:
        found = list(place.each(deadly, items, lambda item, why: f"{item[1]}: {why}"))
    assert found[:2] == ["a done", "b done"] and found[3] == "c done"
    assert found[2].startswith("bad: 3 workers of the cluster died")


def test_other_versions_and_unshared_storage_are_refused(dask, frames, tmp_path, monkeypatch):
    """Lost otherwise: results that differ from worker to worker, or outputs on another machine's disk."""
    monkeypatch.chdir(tmp_path)
    common = jobs.Common(cluster=dask.scheduler_address)
    inputs = [frames / "a0.fits"]

    def refused(error):
        with pytest.raises(error) as caught, clusters.connected(common, inputs, [tmp_path], []):
            pass
        return str(caught.value)

    with clusters.connected(common, inputs, [tmp_path], [tmp_path / "truth"]) as place:
        assert place.slots == 2
    assert not list(tmp_path.glob(f"{safe.TEMPORARY_PREFIX}*"))
    with monkeypatch.context() as patch:
        patch.setattr(clusters, "__version__", "9.9")
        message = refused(ClusterError)
        assert "worker tcp://127.0.0.1" in message and "has fixpix 0." in message and "9.9" in message
    with monkeypatch.context() as patch:
        patch.setattr(clusters, "_seen", lambda path: ("file", 12345))
        assert "does not see" in refused(ClusterError) and "a0.fits" in refused(ClusterError)
    with monkeypatch.context() as patch:
        patch.setattr(clusters, "_probe", lambda folder: contextlib.nullcontext((folder / "not there", "text")))
        assert f"cannot write into the client's {tmp_path}" in refused(ClusterError)
    with pytest.raises(OutputFolderError), clusters.connected(common, inputs, [tmp_path / "none"], []):
        pass


def test_no_cluster(run, frames, monkeypatch, tmp_path):
    """Lost otherwise: a clear word and exit code 3 when there is nobody to do the work."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(ClusterError, match=r"fixpix\[cluster\]"),
        clusters.connected(jobs.Common(cluster="local:1"), [], [], []),
    ):
        pass
    for address in ("nonsense", "local:0", "local:", "local:x"):
        code, _, err = run("detect", frames, "--cluster", address)
        assert code == 2 and "tcp://HOST:PORT" in err
    code, _, err = run("correct", frames, "--auto", "--in-place", "--cluster", "local:1")
    assert code == 2 and "--in-place" in err


def test_an_unreachable_scheduler(run, frames, dask, tmp_path):
    code, _, err = run("detect", frames, "--cluster", "tcp://127.0.0.1:9")
    assert code == 3 and "cannot be reached within 10 s" in err
    code, _, err = run("detect", frames, "--cluster", "gone.json")
    assert code == 3 and "gone.json" in err


def test_a_scheduler_without_workers(run, frames):
    distributed = pytest.importorskip("distributed", reason="the extra 'cluster' is not installed")
    with distributed.LocalCluster(1, processes=True, dashboard_address=None) as cluster:
        cluster.scale(0)
        while cluster.scheduler.workers:
            time.sleep(0.1)
        code, _, err = run("detect", frames, "--cluster", cluster.scheduler_address)
    assert code == 3 and "has no workers" in err


def test_relative_paths_and_no_leftovers(run, frames, dask, tmp_path):
    """Outcomes name paths as they were given; --resume skips what a cluster did."""
    place = ("--cluster", dask.scheduler_address)
    code, out, _ = run("correct", "in", "--map", "truth", "--json", *place)
    records, summary = json_lines(out)
    assert code == 1 and records[0]["path"] == "in/a0.fits" and records[0]["output"] == "repaired/a0.fits"
    assert np.array_equal(files.load(tmp_path / "repaired/a0.fits").mosaics[0].samples.shape, SHAPE)
    again = json_lines(run("correct", "in", "--map", "truth", "--resume", "--json", *place)[1])[1]
    assert summary["done"] == 7 and again["skipped"] == 7
    code, out, _ = run("correct", "in", "--map", "truth", "--json", *place)
    assert all("exists already" in r["error"] for r in json_lines(out)[0][:7])
    assert not list(tmp_path.rglob(f"{safe.TEMPORARY_PREFIX}*"))


def test_usage_errors_are_those_of_one_machine(run, frames, tmp_path):
    with pytest.raises(UsageError):
        next(jobs.detect([tmp_path / "none"], jobs.Common(cluster="local:1")))
