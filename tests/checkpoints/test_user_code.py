"""A network and an objective of a user's file, from training to prediction."""

import os
import shutil
import subprocess
import sys
import time
import typing
from pathlib import Path

import pytest

import uda
from processes import finished, torchrun
from shells import Shell, Trained
from tiny_runs import REPOSITORY, start_process
from uda.adaptation.methods import self_training
from uda.checkpoints.snapshots import read
from uda.commands import adapt
from uda.experiments import load_preset
from uda.utilities.errors import InputError
from uda.utilities.user_code import run_file
from uda.utilities.weight_files import sha256

LAYERS = '''
"""A neighbor of the preset's file."""
from torch import nn

def block(width):
    return nn.Sequential(nn.Conv2d(3, width, 3, 4, 1), nn.BatchNorm2d(width), nn.ReLU())
'''

STUDY = '''
"""A network, an objective with an optimizer of its own, and a preset of both."""
from dataclasses import dataclass, field

from layers import block
from torch import nn

from uda.experiments.toy_city import toy_entropy
from uda.models.config import ModelConfig
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.objectives.base import Objective, ObjectiveConfig
from uda.optim.optimizers import OptimizerConfig

@dataclass(kw_only=True, slots=True)
class PlainConfig(ModelConfig):
    backbone: str = "own"
    backbone_weights: str = "none"
    width: int = 16

    def build(self, num_classes):
        return PlainNetwork(self, num_classes)

class PlainNetwork(Segmenter):
    has_auxiliary_head = False

    def __init__(self, config, num_classes):
        super().__init__(block(config.width), provenance="random")
        self.head = nn.Conv2d(config.width, num_classes, 1)

    def encode(self, normalized):
        return (self.backbone(normalized),)

    def decode(self, features):
        return SegmentationOutput(self.head(features[-1]), None, features[-1])

@dataclass(kw_only=True, slots=True)
class CriticConfig(ObjectiveConfig):
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=0.1))

    def needs(self):
        return frozenset({"target"})

    def reads(self):
        return frozenset({"target"})

    def build(self, num_classes):
        return Critic(self, num_classes)

class Critic(Objective):
    """Learns the mean logits of the target, and pulls them together."""

    def __init__(self, config, num_classes):
        super().__init__(config)
        self.optimizer = config.optimizer
        self.center = nn.Conv2d(1, num_classes, 1)

    def _distance(self, logits):
        return (logits - self.center(logits.new_ones(1, 1, 1, 1))).square().mean()

    def terms(self, view, output, context):
        self.seen = output.logits.detach()
        self.requires_grad_(False)
        pull = 0.01 * self._distance(output.logits)
        self.requires_grad_(True)
        return {"pull": pull}

    def after_backward(self, context):
        return {"center": self._distance(self.seen)}

def small():
    """On the toy city."""
    experiment = toy_entropy()
    experiment.model = PlainConfig()
    experiment.objectives["critic"] = CriticConfig()
    del experiment.objectives["entropy"]
    experiment.objectives["supervised"].auxiliary_weight = 0.0
    data, train = experiment.data, experiment.train
    data.crop, data.workers = (64, 128), 1
    data.source.size = data.target.size = (64, 128)
    train.steps, train.batch_size, train.warmup_steps, train.precision = 40, 2, 1, "float32"
    train.log_every = train.resume_every = 2
    experiment.evaluation.input_size = (64, 128)
    return experiment
'''
PRESET = ("--preset", "code/study.py:small", "--device", "cpu")


def write_code(folder: Path) -> Path:
    folder.mkdir()
    (folder / "study.py").write_text(STUDY)
    (folder / "layers.py").write_text(LAYERS)
    return folder


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """The user's folder with both files, below the current one of a `shell`."""
    return write_code(tmp_path / "code")


def run_process(cwd: Path, name: str, *arguments: str) -> str:
    process = start_process(cwd, name, *arguments)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return out


@pytest.mark.slow
def test_from_a_killed_run_to_predictions(code: Path, toy_root: Path, tmp_path: Path) -> None:
    train_options = (*PRESET, "--data-root", str(toy_root))
    folder = tmp_path / "snapshots/small"
    process = start_process(tmp_path, "train_uda.py", *train_options)
    while not (folder / "resume.pth").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.kill()
    process.communicate()
    run_process(tmp_path, "train_uda.py", *train_options, "--resume")
    snapshot = folder / "GTA5_40.pth"
    stored = read(snapshot)
    assert stored["experiment"]["model"]["type"] == "study.py:PlainConfig"
    assert stored["experiment"]["objectives"]["critic"]["type"] == "study.py:CriticConfig"
    assert stored["code"] == {
        "path": "code/study.py",
        "files": {name: sha256(code / name) for name in ("study.py", "layers.py")},
    }
    assert set(read(folder / "resume.pth")["training"]["optimizers"]) == {"student", "critic"}

    moved = code.rename(tmp_path / "elsewhere") / "study.py"
    options = ("--restore-from", str(snapshot), "--code", str(moved), "--device", "cpu")
    scores = run_process(tmp_path, "eval_single.py", *options)
    assert f"code: {moved} as trained" in scores
    assert f"mIoU: {stored['scores']['miou']:.2f}" in scores
    run_process(tmp_path, "pseudo_label.py", *options, "--threshold", "0")
    assert len(list((folder / "pseudo_labels").glob("**/*.png"))) == 6
    images = str(toy_root / "Cityscapes/leftImg8bit/val")
    assert "images: 3" in run_process(tmp_path, "predict.py", *options, "--images", images)
    assert type(uda.load(snapshot, code=moved)).__name__ == "PlainNetwork"
    assert not list(moved.parent.rglob("*.pyc"))


@pytest.mark.slow
def test_two_processes_train_it(code: Path, toy_root: Path, tmp_path: Path) -> None:
    finished(torchrun(str(REPOSITORY / "train_uda.py"), *PRESET, "--data-root", str(toy_root),
                      "--set", "train.steps=2", cwd=tmp_path))  # fmt: skip
    assert (tmp_path / "snapshots/small/GTA5_2.pth").exists()


@pytest.fixture(scope="module")
def two_steps(toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the user's code and a run of two steps. Only copy it."""
    folder = tmp_path_factory.mktemp("two_steps")
    write_code(folder / "code")
    run_process(folder, "train_uda.py", *PRESET, "--data-root", str(toy_root), "--set",
                "train.steps=2")  # fmt: skip
    return folder


@pytest.fixture
def trained_by(two_steps: Path, shell: Shell) -> Path:
    """The snapshot of that run, with its code in the shell's folder."""
    shutil.copytree(two_steps, shell.cwd, dirs_exist_ok=True)
    return shell.snapshots / "small/GTA5_2.pth"


def test_a_snapshot_that_needs_code_names_the_option(trained_by: Path, shell: Shell) -> None:
    options = ("--restore-from", str(trained_by), "--device", "cpu")
    for command in ("eval_single.py", "predict.py", "pseudo_label.py"):
        more = {"predict.py": ("--images", "."), "pseudo_label.py": ("--threshold", "0")}
        error = shell.refused(command, *options, *more.get(command, ()))
        assert "network of a user's file, study.py:PlainConfig" in error
        assert "--code FILE.py" in error
        assert "it was code/study.py in training" in error
    with pytest.raises(InputError, match=r"uda\.load\(\.\.\., code=FILE\)"):
        uda.load(trained_by)


def test_a_run_starts_from_such_a_snapshot(trained_by: Path, shell: Shell, toy_root: Path) -> None:
    out = shell.run("train_uda.py", *PRESET, "--data-root", str(toy_root), "--set", "train.steps=2",
                    "--restore-from", str(trained_by), "--run", "again")  # fmt: skip
    assert "initial weights  GTA5_2.pth sha256:" in out


def test_such_a_network_is_adapted(
    trained_by: Path, shell: Shell, toy_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_training, "FEWEST", 4)  # images
    images = toy_root / "Cityscapes/leftImg8bit/train"
    adapt.main(
        ["--restore-from", str(trained_by), "--code", "code/study.py", "--images", str(images),
         "--method", "batch-norm", "tent", "--steps", "2", "--even-if-worse", "--workers", "0",
         "--output", "adapted", "--device", "cpu"]
    )  # fmt: skip
    assert uda.load(shell.cwd / "adapted/adapted.pth", code=shell.cwd / "code/study.py")


def test_code_that_is_not_needed_or_does_not_fit_is_refused(
    trained_by: Path, trained: Trained, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"of a preset without classes of its own: omit it"):
        uda.load(trained.snapshot, code=tmp_path / "code/study.py")
    (tmp_path / "other.py").write_text("x = 1")
    with pytest.raises(InputError, match="has no ModelConfig of the na"):
        uda.load(trained_by, code=tmp_path / "other.py")
    with pytest.raises(InputError, match=r"nowhere\.py cannot be read"):
        uda.load(trained_by, code=tmp_path / "nowhere.py")


def test_changed_code_is_a_warning_where_it_is_evaluated(trained_by: Path, shell: Shell) -> None:
    code = shell.cwd / "code"
    old = sha256(code / "layers.py")[:12]
    (code / "layers.py").write_text(LAYERS + "x = 1")
    changed = f"layers.py (sha256 before {old}, now {sha256(code / 'layers.py')[:12]})"
    out = shell.run("eval_single.py", "--restore-from", str(trained_by), "--code",
                    "code/study.py", "--device", "cpu")  # fmt: skip
    assert f"code: warning: changed since training: {changed}" in out.replace("'", "")
    with pytest.warns(UserWarning, match="changed since training"):
        uda.load(trained_by, code=code / "study.py")


def test_changed_code_is_said_at_resume(trained_by: Path, shell: Shell, toy_root: Path) -> None:
    code = shell.cwd / "code"
    options = (*PRESET, "--data-root", str(toy_root), "--set", "train.steps=2", "--resume")
    old = sha256(code / "study.py")[:12]
    (code / "study.py").write_text(STUDY.replace("0.01 * self", "0.02 * self"))
    change = f"study.py (sha256 before {old}, now {sha256(code / 'study.py')[:12]})"
    error = shell.refused("train_uda.py", *options).replace("'", "")
    assert f"resume.pth was written with other code: {change}" in error
    assert "add --code-changed" in error
    out = shell.run("train_uda.py", *options, "--code-changed").replace("'", "")
    lines = [line for line in out.splitlines() if "code has changed" in line]
    assert lines == [f"the code has changed since snapshots/small/resume.pth was written: {change}"]


def test_classes_are_the_same_each_time(code: Path) -> None:
    first, second = (type(load_preset(f"{code}/study.py:small").model) for _ in range(2))
    assert first is second
    (code / "layers.py").write_text(LAYERS + "x = 1")
    assert type(load_preset(f"{code}/study.py:small").model) is not first


def write_pair(folder: Path, value: int) -> Path:
    """A file in a folder of its own, and its neighbor of a name that both folders have."""
    folder.mkdir()
    (folder / "shared_name.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        f"Number = int\n@dataclass\nclass Part:\n    value: Number = {value}\n"
    )
    (folder / "main.py").write_text(
        "from shared_name import Part\ndef part():\n    return Part()\n"
        "def later():\n    import shared_late\n    return shared_late.value\n"
    )
    (folder / "shared_late.py").write_text(f"value = {value}\n")
    return folder / "main.py"


def test_files_of_two_folders_have_each_their_own_neighbors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, before = list(sys.path), Path.cwd()
    (first, second) = (run_file(write_pair(tmp_path / str(n), n)) for n in (1, 2))
    monkeypatch.chdir(tmp_path)
    for code, value in ((first, 1), (second, 2), (first, 1)):
        part = code.module.part()
        assert (part.value, type(part).__name__) == (value, "Part")
        assert typing.get_type_hints(type(part)) == {"value": int}
        assert code.call(code.module.later) == value  # imported after chdir, when it is needed
        assert set(code.files) == {"main.py", "shared_name.py", "shared_late.py"}
    assert sys.path == paths
    assert before != Path.cwd()
    assert not list(tmp_path.rglob("*.pyc"))


def test_an_error_in_a_neighbor_names_its_line(code: Path) -> None:
    (code / "layers.py").write_text("x = 1\ny = z\n")
    with pytest.raises(InputError, match=r"code/layers\.py, line 2: NameError: name 'z'"):
        load_preset(f"{code}/study.py:small")


def test_a_package_next_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/one.py").write_text("from . import two\nvalue = two.value\n")
    (tmp_path / "parts/two.py").write_text("value = 2\n")
    for init in (False, True):  # with __init__.py and without
        if init:
            (tmp_path / "parts/__init__.py").write_text("")
        (tmp_path / "main.py").write_text(f"import parts.one\nvalue = parts.one.value + {init}\n")
        assert run_file(tmp_path / "main.py").module.value == 2 + init


@pytest.mark.slow
def test_a_class_of_a_script_is_stored_with_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        STUDY + "\nif __name__ == '__main__':\n"
        "    from uda.utilities.config_tree import to_plain\n"
        "    from uda.utilities.user_code import stored_code\n"
        "    print(to_plain(small())['model']['type'], stored_code(small())['files'])\n"
    )
    (tmp_path / "layers.py").write_text(LAYERS)
    out = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"},
    ).stdout  # fmt: skip
    assert out == f"script.py:PlainConfig {{'script.py': '{sha256(script)}'}}\n"
