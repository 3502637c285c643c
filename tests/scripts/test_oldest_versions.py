"""The versions that `make test-oldest` installs are the lowest ones of pyproject.toml."""

import tomllib
from pathlib import Path

from oldest_versions import PYPROJECT, oldest


def test_every_lower_bound_becomes_the_version() -> None:
    text = """
    [project]
    dependencies = ["torch>=2.9", "numpy>=1.26.1"]
    [project.optional-dependencies]
    plots = ["matplotlib>=3.9"]
    all = ["uda[plots]", "types-tqdm"]
    """
    assert list(oldest(text)) == ["torch==2.9", "numpy==1.26.1", "matplotlib==3.9"]


def test_no_dependency_is_left_out() -> None:
    project = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]
    named = {line.partition("==")[0] for line in oldest(PYPROJECT.read_text("utf-8"))}
    required = {requirement.partition(">")[0] for requirement in project["dependencies"]}
    assert required <= named
    assert {"timm", "transformers", "segmentation-models-pytorch", "matplotlib"} <= named


def test_ci_runs_them() -> None:
    assert "make test-oldest" in (PYPROJECT.parent / ".ci/run").read_text("utf-8")
    assert "scripts/oldest_versions.py" in Path(PYPROJECT.parent / "Makefile").read_text("utf-8")
