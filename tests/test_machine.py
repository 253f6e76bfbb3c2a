"""What a container or a batch job may use: lost otherwise, throttled workers and runs that the kernel kills."""

import os

import pytest

from fixpix_cli import machine

HOST = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def tree(folder, lines):
    """A list of groups, and where they are mounted."""
    mine = folder / "cgroup"
    mine.write_text("".join(f"{line}\n" for line in lines))
    return {"mine": mine, "mount": folder / "mount"}


def write(folder, path, text):
    place = folder / "mount" / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


@pytest.mark.parametrize(
    ("text", "count"), [("max 100000", HOST), ("100000 100000", 1), ("50000 100000", 1), ("9900000 100000", HOST)]
)
def test_processors_by_version_2(tmp_path, text, count):
    """Half a processor is one worker; a quota above the machine's changes nothing."""
    groups = tree(tmp_path, ["0::/system/job"])
    write(tmp_path, "system/cpu.max", text)
    write(tmp_path, "system/job/cpu.max", "max 100000")
    assert machine.available(**groups) == count


@pytest.mark.parametrize(("quota", "count"), [("-1", HOST), ("100000", 1), ("20000", 1)])
def test_processors_by_version_1(tmp_path, quota, count):
    groups = tree(tmp_path, ["4:cpu,cpuacct:/job", "3:memory:/"])
    write(tmp_path, "cpu,cpuacct/job/cpu.cfs_quota_us", quota)
    write(tmp_path, "cpu,cpuacct/job/cpu.cfs_period_us", "100000")
    assert machine.available(**groups) == count


@pytest.mark.parametrize(
    ("lines", "path"),
    [
        (["0::/a/b"], "a/b/memory.max"),
        (["0::/a/b"], "a/memory.max"),  # a group above
        (["0::/"], "memory.max"),  # a container's own view
        (["0::/as/the/host/sees/it"], "memory.max"),
        (["0::/a/b"], "a/b/memory.high"),
        (["7:memory:/a/b"], "memory/a/b/memory.limit_in_bytes"),
        (["7:memory:/a/b"], "memory/memory.limit_in_bytes"),
        (["7:cpu:/", "0::/a"], "unified/a/memory.max"),
    ],
)
def test_memory(tmp_path, lines, path):
    """The least of all limits on the way up."""
    groups = tree(tmp_path, lines)
    assert machine.memory(**groups) > 50_000_000
    write(tmp_path, path, "50000000\n")
    assert machine.memory(**groups) == 50_000_000
    write(tmp_path, path, "max\n")
    assert machine.memory(**groups) > 50_000_000


def test_no_groups(tmp_path):
    """A system without them, and one whose list cannot be read."""
    assert machine.available(tmp_path / "none", tmp_path / "none") == HOST
    assert machine.memory(tmp_path / "none", tmp_path / "none") > 100_000_000
