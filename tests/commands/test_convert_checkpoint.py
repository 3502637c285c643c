"""scripts/convert_checkpoint.py: what it writes is the same network, to be opened anywhere."""

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import uda
from factories import file_of, tiny_snapshot
from tiny_runs import assert_same, start_process
from uda.checkpoints.foreign import ForeignOptions
from uda.checkpoints.formats.segmentron import SEGMENTRON
from uda.checkpoints.snapshots import load, save, snapshot_values
from uda.commands import convert
from uda.experiments import load_preset
from uda.utilities.errors import InputError


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"touch {self.file}",)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Of a network whose classifier alone has numbers: all of them would take a while."""
    random = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(tensor.shape, generator=random) if "head.block.2." in name else tensor
        for name, tensor in file_of(SEGMENTRON).items()
    }


def converted(folder: Path, content: object, *options: str) -> Path:
    torch.save(content, folder / "in.pth")
    convert.main([str(folder / "in.pth"), str(folder / "out.pth"), *options])
    return folder / "out.pth"


@pytest.mark.slow
def test_the_converted_network_computes_the_same_bits(
    weights: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = converted(tmp_path, {"state_dict": weights})
    assert capsys.readouterr().out.splitlines() == [
        f"written: {path}",
        "network: SegmenTron DeepLabV3+ ResNet-101",
        "tensors: 592 of 592 matched, 0 missing, 0 unexpected",
        f"quirks: output stride 16; {SEGMENTRON.quirks}",
        "supervision: ground truth (2975 images)",
    ]
    before, after = load(tmp_path / "in.pth"), load(path)
    assert_same(after.student, before.student)
    for field in ("preset", "experiment", "label_space", "supervision", "initial_weights", "step"):
        assert getattr(after, field) == getattr(before, field), field
    assert after.initial_weights.startswith("in.pth sha256:")
    assert after.evaluation == before.evaluation
    assert after.is_foreign, "discriminators may lie beside it"
    images = torch.rand(1, 3, 33, 49)
    with torch.no_grad():
        ours, theirs = uda.load(path)(images).logits, uda.load(tmp_path / "in.pth")(images).logits
    assert theirs.std() > 0
    assert torch.equal(ours, theirs)


def test_a_file_that_could_run_code_is_converted_and_runs_none(
    weights: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sprung = tmp_path / "sprung"
    content = {
        "model": weights,
        "args": argparse.Namespace(lr=0.1),
        "best": np.float64(0.78),
        "trap": Trap(sprung),
    }
    path = converted(tmp_path, content)
    assert not sprung.exists()
    shown = capsys.readouterr().out
    assert "tensors: 592 of 592 matched, 0 missing, 0 unexpected\n" in shown
    assert re.search(r"^dropped: argparse.Namespace, numpy\S+scalar, posix.system$", shown, re.M)
    state = load(path).student
    assert torch.equal(state["decoder.2.weight"], weights["head.block.2.weight"])
    with pytest.raises(InputError, match=r"in\.pth holds .*: python scripts/convert_checkpoint.py"):
        load(tmp_path / "in.pth")


def test_what_may_be_missing_is_drawn_once_and_for_all(
    weights: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = {name: t for name, t in weights.items() if not name.startswith("head.block.2.")}
    path = converted(tmp_path, part, "--partial", "head.block.2.weight", "head.block.2.bias")
    assert (
        "; randomly initialized: head.block.2.weight, head.block.2.bias\n"
        in capsys.readouterr().out
    )
    found = load(path)
    assert found.initial_weights.endswith("; 2 tensors randomly initialized")
    lacking = ForeignOptions(partial=["head.block.2"])
    assert_same(found.student, load(tmp_path / "in.pth", foreign=lacking).student)


def test_a_snapshot_of_ours_stays_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = snapshot_values(tiny_snapshot(load_preset("gc_640x360_b2_class_mix")))
    save(values, tmp_path / "ours.pth")
    convert.main([str(tmp_path / "ours.pth"), str(tmp_path / "out.pth")])
    assert "network: tiny\n" in capsys.readouterr().out
    assert_same(snapshot_values(load(tmp_path / "out.pth")), values)


def test_what_cannot_be_converted_writes_nothing(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    source, taken = tmp_path / "in.pth", tmp_path / "taken.pth"
    torch.save({name: t for name, t in weights.items() if name != "head.block.2.bias"}, source)
    taken.write_text("something")
    for output, complaint in {
        taken: "taken.pth exists already: give another name for OUT",
        tmp_path / "nowhere" / "out.pth": "nowhere is not a folder",
        tmp_path / "out.pth": r"591 of 592 .* 1 \(head.block.2.bias, ...\) missing",
    }.items():
        with pytest.raises(InputError, match=complaint):
            convert.main([str(source), str(output)])
    assert taken.read_text() == "something"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.pth", "taken.pth"]


@pytest.mark.slow
def test_a_failure_is_one_line_of_a_process(tmp_path: Path) -> None:
    failed = start_process(tmp_path, "scripts/convert_checkpoint.py", "none.pth", "out.pth")
    out, error = failed.communicate(timeout=60)
    assert (failed.returncode, out) == (2, "")
    assert error.startswith("error: none.pth does not exist; expected a snapshot such as")
    assert error.count("\n") == 1


def test_tensors_alone_are_taken_out_of_whatever_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A discriminator beside numbers of numpy, which torch refuses: names stay as they are."""
    tensors = {"Scale.conv1.weight": torch.ones(2, 3), "Scale.conv1.bias": torch.zeros(2)}
    content = {"model": tensors, "best": np.float64(0.5), "trap": Trap(tmp_path / "sprung")}
    path = converted(tmp_path, content, "--tensors")
    assert_same(torch.load(path, weights_only=True), tensors)
    assert not (tmp_path / "sprung").exists()
    assert "tensors: 2" in capsys.readouterr().out.splitlines()
    path.unlink()
    with pytest.raises(InputError, match="has no state dict: there is no tensor to write"):
        converted(tmp_path, {"best": 0.5}, "--tensors")
    assert not path.exists()
    with pytest.raises(SystemExit):
        converted(tmp_path, content, "--tensors", "--partial", "conv1")
