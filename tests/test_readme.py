"""A new user's first minute: the README's commands and samples do what it says."""

import re
import shlex

from conftest import ROOT, json_lines

from fixpix_cli import files, maps

README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_every_fixpix_command_of_the_readme_runs(run, tmp_path):
    """Lines of `console` blocks that begin with `$ fixpix`, run in order in one folder with the samples."""
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    lines = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ fixpix")]
    assert len(lines) >= 6
    for line in lines:
        code, _, err = run(*shlex.split(line)[1:])
        assert code == 0, f"{line}: {err}"


def test_the_python_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for block in blocks("python"):
        exec(compile(block, "README", "exec"), {})


def test_every_command_is_in_the_readme(run):
    _, out, _ = run("--help")
    for command in re.findall(r"^  (\w+)  ", out.split("Commands:")[1], re.M):
        assert f"`fixpix {command}" in README or f"fixpix {command}" in README


def test_the_samples_are_repaired(run, tmp_path):
    """The map made from the sample darks finds the truth, and repairing changes its pixels alone."""
    assert run("calibrate", ROOT / "samples/darks")[0] == 0
    code, out, _ = run("correct", ROOT / "samples/lights", "--json")
    frames, summary = json_lines(out)
    assert code == 0 and summary["done"] == 3 and len(frames) == 3
    found = maps.read_mask(next((tmp_path / "store").glob("*.map.fits"))).planes[0].bad
    truth = maps.read_mask(ROOT / "samples/truth/stars.truth.fits").planes[0]
    hot = (truth.dq & 0b1100000000010) != 0  # HOT, WARM and SATURATED show in darks
    assert found[hot].mean() > 0.95
    assert (found & ~truth.bad).sum() <= 5
    for frame in frames:
        before = files.load(frame["path"]).mosaics[0].samples
        after = files.load(tmp_path / frame["output"]).mosaics[0].samples
        assert not ((before != after) & ~found).any()
