"""What is not installed is named in one line, with the command that brings it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tiny_runs import REPOSITORY
from uda.experiments import PRESETS
from uda.utilities.errors import InputError
from uda.utilities.extras import require_extra


@pytest.mark.parametrize(
    ("extra", "package"),
    [
        ("timm", "timm"),
        ("smp", "segmentation_models_pytorch"),
        ("transformers", "transformers"),
    ],
)
def test_a_missing_extra_is_one_line(
    extra: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError) as refusal:
        require_extra(extra, needed_by="this network")  # type: ignore[arg-type]
    assert str(refusal.value) == (
        f"this network needs the package {package}, which is not installed: pip install "
        f"'uda[{extra}]', or pip install --editable '.[{extra}]' in a checkout"
    )


def test_an_extra_that_refuses_its_neighbors_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "timm.py").write_text("raise ImportError('torch>=9 is required,\\nfound 2')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    said = r"timm, which cannot be imported \(torch>=9 is required, found 2\): pip install"
    with pytest.raises(InputError, match=said):
        require_extra("timm", needed_by="a backbone")


def test_an_extra_that_is_there_is_imported() -> None:
    timm = pytest.importorskip("timm")
    assert require_extra("timm", needed_by="a backbone") is timm


# What only an extra brings, itself included.
_BLOCKED = (
    "timm", "segmentation_models_pytorch", "transformers", "huggingface_hub", "safetensors",
    "onnx", "onnxscript", "onnxruntime", "matplotlib", "cv2", "prettytable", "tabulate",
    "cityscapesscripts", "hypothesis",
)  # fmt: skip
_PROGRAM = """
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys(sys.argv[1:]))  # to import one of these now fails
import uda
from uda import experiments
for module in pkgutil.walk_packages(uda.__path__, "uda."):
    importlib.import_module(module.name)
from uda.experiment import validate
for name in experiments.PRESETS:
    validate(experiments.load_preset(name))
print(len(experiments.PRESETS), "presets")
"""


@pytest.mark.slow
def test_the_core_needs_no_extra() -> None:
    """Everything is imported, and every preset made and checked, where no extra can be had."""
    found = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *_BLOCKED],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.stderr == ""
    assert found.stdout == f"{len(PRESETS)} presets\n"
    assert len(PRESETS) > 60
