"""The house: imports go down a floor or stay beside (DESIGN), and foreign libraries have keepers."""

import ast
import subprocess
import sys
from pathlib import Path

import fixpix_cli

PACKAGE = Path(fixpix_cli.__file__).parent
FLOORS = {
    0: {"errors"},
    1: {"cfa", "mosaic", "planes", "tiles", "defects", "evidence", "normalise", "noise", "inject", "classical",
        "tables", "repair", "score", "simulate", "background", "suspects", "tally", "kinds", "starlight", "shapes",
        "darkcurrent", "detection", "darks", "choosing", "checking", "levels", "candidates", "stars", "crowds"},
    2: {"safe", "fitsheader", "files", "maps", "nets"},
    3: {"jobs", "workers", "strategy", "machine", "cluster"},
    4: {"cli", "report", "plots", "__main__", "api"},
}  # fmt: skip
KEEPERS = {
    "rawpy": {"files/raw.py"},
    "tifffile": {"files/raw.py", "maps/foreign/tiff.py"},
    "imagecodecs": {"files/segments.py", "files/raw.py", "files/png.py", "maps/foreign/png.py"},
    "astropy": {
        "files/fits_io.py", "maps/fitsmap.py", "maps/evidencetables.py", "maps/foreign/fits_mask.py",
        "maps/foreign/lsst_fits.py",
    },
    "h5py": {"maps/foreign/nexus.py"},
    "onnxruntime": {"nets/sessions.py"},
    "dask": {"cluster.py"},
    "distributed": {"cluster.py"},
    "platformdirs": {"cli/options.py"},
}  # fmt: skip


def floor_of(name):
    return next((floor for floor, rooms in FLOORS.items() if name in rooms), None)


def imports(path):
    """(package-relative top module or None, foreign top module or None) of every import, lazy ones too."""
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield None, alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                yield None, (node.module or "").split(".")[0]
            elif node.level == depth:
                names = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
                for name in names:
                    yield name, None


def sources():
    return [p for p in sorted(PACKAGE.rglob("*.py")) if p != PACKAGE / "__init__.py" and "models" not in p.parts]


def test_every_file_has_a_floor():
    for path in sources():
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        assert floor_of(room) is not None, f"{path} stands on no floor"


def test_imports_never_go_up():
    for path in sources():
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for inner, _ in imports(path):
            if inner and not inner.startswith("__"):
                assert floor_of(inner) <= floor_of(room), f"{path} imports {inner} from a higher floor"


def test_the_three_edges_do_not_know_each_other():
    edges = {"files", "maps", "nets"}
    for path in sources():
        room = path.relative_to(PACKAGE).parts[0]
        if room in edges:
            for inner, _ in imports(path):
                assert inner not in edges - {room}, f"{path} imports {inner}"


def test_foreign_libraries_have_keepers():
    for path in sources():
        for _, foreign in imports(path):
            if foreign in KEEPERS:
                assert path.relative_to(PACKAGE).as_posix() in KEEPERS[foreign], f"{path} imports {foreign}"


def test_nothing_prints_or_reads_the_environment_below_the_faces():
    for path in sources():
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if floor_of(room) > 3:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert name not in ("print", "sys.exit", "os.getenv", "os.environ.get", "input"), f"{path}: {name}"


def test_help_loads_no_heavy_library():
    code = (
        "import sys; from fixpix_cli.cli.app import app; "
        "heavy = ('numpy', 'astropy', 'rawpy', 'tifffile', 'onnxruntime', 'rich.console', 'distributed'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
