"""What comes from outside does nothing: files that would run code, names that lead elsewhere,
presets by path, which are run on purpose."""

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from factories import raw_labels
from shells import Shell
from tiny_runs import tiny_options
from uda.commands.endings import clear_errors
from uda.commands.options import folder_of_run
from uda.data.files import read_image
from uda.data.label_files import read_raw_labels
from uda.data.pseudo_label_folder import MANIFEST, read_manifest
from uda.experiments import PRESETS, load_preset
from uda.models.discriminators import FullyConvolutionalDiscriminator
from uda.utilities.config_tree import to_plain
from uda.utilities.errors import InputError


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.open, (str(self.file), os.O_CREAT)


@pytest.fixture
def sprung(tmp_path: Path) -> Path:
    return tmp_path / "sprung"


def set_trap(path: Path, sprung: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"format": "uda-snapshot-1", "state_dict": {"weight": Trap(sprung)}}, path)
    return path


def test_the_trap_is_one(tmp_path: Path, sprung: Path) -> None:
    torch.load(set_trap(tmp_path / "x.pth", sprung), weights_only=False)
    assert sprung.exists()


ENTRIES: dict[str, tuple[str, list[str]]] = {
    "evaluation": ("eval_single.py", ["--restore-from", "x.pth"]),
    "pseudo-labels": ("pseudo_label.py", ["--restore-from", "x.pth", "--threshold", "0"]),
    "first weights": ("train_uda.py", ["--restore-from", "x.pth"]),
    "initial snapshot": ("train_uda.py", ["--set", "train.initial_snapshot=x.pth"]),
    "backbone": ("train_uda.py", ["--set", "model.backbone_weights=x.pth"]),
    "resume": ("train_uda.py", ["--resume"]),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_no_command_runs_the_code_of_a_file(
    entry: str, shell: Shell, toy_root: Path, sprung: Path
) -> None:
    set_trap(shell.cwd / "x.pth", sprung)
    set_trap(shell.snapshots / "toy_source_only" / "resume.pth", sprung)
    name, arguments = ENTRIES[entry]
    options = ["--data-root", str(toy_root), "--device", "cpu"]
    if name == "train_uda.py":
        sets = [part for part in tiny_options(toy_root) if not part.startswith("data.target")]
        options = [*_pairs(sets), "--preset", "toy_source_only"]
        options += [] if entry == "resume" else ["--run", "new"]
    error = shell.refused(name, *options, *arguments)
    assert "holds posix.open, which could run code when loaded" in error
    assert not sprung.exists()


def _pairs(options: list[str]) -> list[str]:
    """Without a --set whose value was left out."""
    return [
        part
        for part, following in zip(options, [*options[1:], "--set"], strict=True)
        if part != "--set" or following != "--set"
    ]


def test_no_discriminator_runs_code(tmp_path: Path, sprung: Path) -> None:
    objective = load_preset("gc_640x360_b2_adversarial").objectives["adversarial"].build(19)
    set_trap(tmp_path / "X_D1.pth", sprung)
    with pytest.raises(InputError, match=r"X_D1\.pth holds posix\.open, which could run code"):
        objective.restore_beside(tmp_path / "X.pth", auxiliary_head=False)
    assert not sprung.exists()
    torch.save(FullyConvolutionalDiscriminator(19).state_dict(), tmp_path / "X_D1.pth")
    assert "X_D1.pth sha256:" in objective.restore_beside(tmp_path / "X.pth", auxiliary_head=False)


def test_a_manifest_is_text_alone(tmp_path: Path, sprung: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(InputError, match=r"manifest\.json cannot be read"):
        read_manifest(tmp_path)
    assert not sprung.exists()


@pytest.mark.parametrize("kind", ["EPS", "GIF", "PPM"])
def test_pictures_that_other_programs_would_draw_are_not_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "labels.png"
    Image.fromarray(raw_labels(0)).save(path, kind)
    for read in (read_raw_labels, read_image):
        with pytest.raises(InputError, match="cannot be decoded"):
            read(path)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path, "JPEG")
    assert read_image(path).size == (4, 4)


# --- names of runs


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/tmp/x", "", ".", "a//b", "a/", ".hidden", "a\\b", "x" * 300,
             "a\nb", "a\x1b[2J", "~/../x/.."]
)  # fmt: skip
def test_a_run_stays_below_snapshots(name: str) -> None:
    with pytest.raises(InputError, match="a run is a folder below snapshots/; give a name such as"):
        folder_of_run(name, "toy_aagc")


def test_a_run_is_called_as_asked_or_after_its_preset() -> None:
    assert folder_of_run("study/seed1", "toy_aagc") == Path("snapshots/study/seed1")
    assert folder_of_run(None, "toy_aagc") == Path("snapshots/toy_aagc")
    assert folder_of_run(None, "../mine/study.py") == Path("snapshots/study")
    assert folder_of_run(None, "/home/me/study.py:wide") == Path("snapshots/wide")


# --- presets by path

STUDY = '''
"""A study."""
from dataclasses import dataclass
from uda.experiments import toy_city
from uda.objectives.entropy import EntropyConfig

def toy_longer():
    """The toy city for longer."""
    experiment = toy_city.toy_source_only()
    experiment.train.steps = 1234
    return experiment

def _hidden():
    return 3

def with_parameter(steps):
    return toy_longer()
'''


def study(folder: Path, more: str = "", *, text: str = STUDY) -> str:
    (folder / "study.py").write_text(text + more)
    return str(folder / "study.py")


def test_a_preset_of_a_file(tmp_path: Path) -> None:
    path = study(tmp_path)
    for preset in (path, f"{path}:toy_longer"):
        found = load_preset(preset)
        assert found.train.steps == 1234
    expected = load_preset("toy_source_only")
    expected.train.steps = 1234
    assert to_plain(found) == to_plain(expected)
    assert [p.name for p in tmp_path.iterdir()] == ["study.py"]  # no bytecode beside it


SECOND = "\ndef toy_other():\n    return toy_longer()\n"


@pytest.mark.parametrize(
    ("text", "name", "complaint"),
    [
        (
            STUDY + SECOND,
            "",
            r"study\.py has 2 .* parameters: toy_longer, toy_other; write .*:NAM",
        ),
        (
            STUDY,
            ":toy_longr",
            r"study\.py has no preset 'toy_longr'; did you mean \"toy_longer\"\?",
        ),
        (STUDY, ":_hidden", r"has no preset '_hidden'; known: toy_longer"),
        ("x = 1\n", "", r"study\.py has 0 functions without parameters; write .*study\.py:NAME"),
        ("x = 1\n", ":a", r"has no preset 'a'; it has no function without parameters"),
        ("def a():\n    return 3\n", "", r"a\(\) returned a int; allowed: an Experiment"),
        ("def a(:\n", "", r"study\.py, line 1: .*: fix it"),
        ("x = 1\ny = z\n", "", r"study\.py, line 2: NameError: name 'z' is not defined: fix it"),
        ("def a():\n    return 1 / 0\n", "", r"study\.py, line 2: ZeroDivisionError: division by"),
        ("import nowhere_to_be_found\n", "", r"line 1: ModuleNotFoundError: No module named"),
        ("raise SystemExit(0)\n", "", r"study\.py, line 1: SystemExit: 0: fix it"),
        ("a = '\x00'\n", "", r"study\.py"),
    ],
)
def test_what_is_wrong_with_a_file_of_presets_is_said(
    text: str, name: str, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as refusal:
        load_preset(study(tmp_path, text=text) + name)
    assert "\n" not in str(refusal.value)
    assert re.search(complaint, str(refusal.value)), refusal.value


def test_a_missing_file_of_presets(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.py is not a file; write FILE\.py:NAME"):
        load_preset(f"{tmp_path}/nothing.py:a")
    assert not any(".py" in name for name in PRESETS)


def test_a_preset_by_path_is_trained_under_its_name(shell: Shell, toy_root: Path) -> None:
    options = _pairs([p for p in tiny_options(toy_root) if not p.startswith("data.target")])
    shell.run("train_uda.py", "--preset", study(shell.cwd) + ":toy_longer", *options)
    assert (shell.snapshots / "toy_longer" / "GTA5_3.pth").exists()


# --- what a terminal is shown


def test_errors_hold_nothing_that_a_terminal_would_obey(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), clear_errors():
        raise InputError("a file\x1b[2J of\nmany \udcff lines")
    assert capsys.readouterr().err == "error: a file\\x1b[2J of many \\udcff lines\n"


def test_control_c_ends_a_command_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, clear_errors():
        raise KeyboardInterrupt
    assert end.value.code == 130
    assert capsys.readouterr().err == "error: interrupted\n"
