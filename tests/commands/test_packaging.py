"""What pip installs: one package, one command, and all that both need. Nothing is downloaded."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import uda
from shells import CLASS_MIX
from tiny_runs import REPOSITORY, tiny_options

pytestmark = pytest.mark.slow
TEMPLATES = REPOSITORY / "uda/reports/templates"
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")


def python(cwd: Path, *arguments: str, path: Path | None = None) -> str:
    """What Python prints when it runs `arguments`, with packages from `path` first."""
    environment = {name: value for name, value in os.environ.items() if name != "UDA_DATA"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": "" if path is None else str(path)}
    ran = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


def wheel_from(source: Path, folder: Path) -> Path:
    python(
        folder, "-m", "pip", "wheel", str(source), "--no-deps", "--no-index",
        "--no-build-isolation", "--quiet", "--wheel-dir", str(folder),
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the tree by way of its source distribution, so both are whole."""
    folder = tmp_path_factory.mktemp("build")
    tree = folder / "tree"
    for name in ("uda", "experiments"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, tree / name, symlinks=True, ignore=ignored)
    for name in FILES:
        shutil.copy(REPOSITORY / name, tree / name)
    build = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    python(tree, "-c", build, str(folder))
    (sdist,) = folder.glob("*.tar.gz")
    for name in ("direct", "by_sdist"):
        (folder / name).mkdir()
    direct = wheel_from(tree, folder / "direct")
    by_sdist = wheel_from(sdist, folder / "by_sdist")
    assert members(direct) == members(by_sdist)
    return by_sdist


def members(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed wheel and nothing else."""
    folder = tmp_path_factory.mktemp("installed") / "site"
    python(
        folder.parent, "-m", "pip", "install", str(wheel), "--no-deps", "--no-index", "--quiet",
        "--target", str(folder),
    )  # fmt: skip
    return folder


def test_the_wheel_holds_the_whole_package_and_its_license(wheel: Path) -> None:
    found = members(wheel)
    modules = {
        f"uda/{path.relative_to(REPOSITORY / 'uda').as_posix()}"
        for path in (REPOSITORY / "uda").rglob("*.py")
    } | {f"uda/experiments/{path.name}" for path in (REPOSITORY / "experiments").glob("*.py")}
    assert modules <= found
    data = {"uda/py.typed", "uda/experiments/published.json", "uda/experiments/documents.json"}
    data |= {f"uda/reports/templates/{path.name}" for path in TEMPLATES.iterdir()}
    assert data <= found
    assert any(name.endswith("licenses/LICENSE") for name in found)
    metadata = next(name for name in found if name.endswith("METADATA"))
    with zipfile.ZipFile(wheel) as archive:
        assert "License-Expression: Apache-2.0" in archive.read(metadata).decode()


def test_no_other_package_comes_along(site: Path) -> None:
    packages = {path.name for path in site.iterdir() if not path.name.endswith(".dist-info")}
    assert packages == {"uda", "bin"}
    assert [path.name for path in (site / "bin").iterdir()] == ["uda"]


def test_all_commands_run_elsewhere(site: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        return python(tmp_path, str(site / "bin/uda"), *arguments, path=site)

    where = python(tmp_path, "-c", "import uda; print(uda.__file__)", path=site)
    assert Path(where.strip()) == site / "uda/__init__.py"
    run("data", "toy-city", "--output", "city", "--size", "128x64", "--source", "6",
        "--target", "6", "--validation", "3")  # fmt: skip
    assert "0 problems" in run("data", "check", "--data-root", "city")
    shown = run("train", "--list")
    assert all(f"  {name} " in shown for name in ("toy_class_mix", "aagc_640x360_b2_student"))
    options = tiny_options(tmp_path / "city")
    run("train", *CLASS_MIX, *options, "--run", "first")
    network = ("--restore-from", "snapshots/first/GTA5_3.pth", "--workers", "0")
    assert "===> mIoU: " in run("eval", *network)
    assert "share kept: 100.0%" in run("label", *network, "--threshold", "0")
    images = "city/Cityscapes/leftImg8bit/val"
    assert "images: 3" in run("predict", *network, "--images", images, "--output", "predicted")
    assert "selections of first" in run("report", "snapshots/first")
    assert "written: " in run("convert", "snapshots/first/GTA5_3.pth", "again.pth")


def test_the_citation_names_this_version() -> None:
    lines = (REPOSITORY / "CITATION.cff").read_text("utf-8").splitlines()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"version: {project['version']}" in lines
    assert f"license: {project['license']}" in lines
    assert project["version"] == uda.__version__
