"""Snapshots and files of others as safetensors: the same bits, and no less checked."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import uda
from factories import file_of, tiny_snapshot
from tiny_runs import assert_same
from uda.checkpoints.formats.segmentron import SEGMENTRON
from uda.checkpoints.snapshots import load, save, snapshot_values
from uda.commands import convert
from uda.experiments import load_preset
from uda.utilities.errors import InputError
from uda.utilities.safetensors_files import read_safetensors, write_safetensors
from uda.utilities.weight_files import fill_from_file

pytest.importorskip("safetensors")


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("snapshot") / "GTA5_7.pth"
    save(snapshot_values(tiny_snapshot(load_preset("gc_640x360_b2_class_mix"))), path)
    return path


@pytest.mark.parametrize("weights", ["student", "teacher"])
def test_a_snapshot_comes_back_as_it_was(weights: str, snapshot: Path, tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    which = ("--weights", weights) if weights == "teacher" else ()
    convert.main([str(snapshot), str(path), *which])
    before, after = snapshot_values(load(snapshot)), snapshot_values(load(path))
    assert_same(after.pop("student"), before[weights])
    assert (before.pop("student") is None, after.pop("teacher"), before.pop("teacher") is None) == (
        False, None, False,
    )  # fmt: skip
    assert after == before
    assert load(path).report == {"only network": weights}
    images = torch.rand(1, 3, 33, 49)
    with torch.no_grad():
        ours = uda.load(snapshot, weights=weights)(images).logits  # type: ignore[arg-type]
        theirs = uda.load(path)(images).logits
    assert torch.equal(ours, theirs)
    with pytest.raises(InputError, match="has no teacher"):
        uda.load(path, weights="teacher")


def test_others_read_tensors_and_facts(snapshot: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    path = tmp_path / "network.safetensors"
    convert.main([str(snapshot), str(path)])
    with safe_open(path, framework="np") as file:
        assert file.get_tensor("backbone.conv1.weight").shape[1:] == (3, 7, 7)
        facts = file.metadata()
    assert facts["format"] == "pt"
    assert json.loads(facts["supervision"]) == "none"
    assert json.loads(facts["label_space"])["classes"][18] == "bicycle"
    assert json.loads(facts["experiment"])["evaluation"]["input_size"] == [64, 128]


def test_plain_values_come_back_as_they_were(tmp_path: Path) -> None:
    value = {"a": (1, [2.5, (None,)], "x"), "b": {1: 2, (3, 4): "c"}, "list": [], "pairs": 1}
    odd: object = {"list": [1]}, {"pairs": [(1, 2)]}, {"pairs": {"list": (1,)}}, {}
    with (tmp_path / "a.safetensors").open("wb") as file:
        write_safetensors(file, {"t": torch.ones(2)}, {"format": "f", "value": value, "odd": odd})
    found = read_safetensors(tmp_path / "a.safetensors")
    assert (found["format"], found["value"], found["odd"]) == ("f", value, odd)


def test_files_of_others_in_safetensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A known network, recognized whatever the file is called; and initial weights."""
    path, state = tmp_path / "segmentron.bin", file_of(SEGMENTRON)
    with path.open("wb") as file:
        write_safetensors(file, state)
    assert load(path).preset == "SegmenTron DeepLabV3+ ResNet-101"
    network = torch.nn.Linear(2, 3)
    tensors: dict[str, Tensor] = {"weight": torch.rand(3, 2), "bias": torch.rand(3)}
    torch.save({"model": tensors}, tmp_path / "some.pth")
    convert.main([str(tmp_path / "some.pth"), str(tmp_path / "some.safetensors"), "--tensors"])
    capsys.readouterr()
    fill_from_file(
        network, tmp_path / "some.safetensors", title="layer", kind="file", instead="give another"
    )
    assert_same(network.state_dict(), tensors)
    convert.main([str(tmp_path / "some.safetensors"), str(tmp_path / "back.pth"), "--tensors"])
    assert_same(torch.load(tmp_path / "back.pth"), tensors)


def test_what_is_damaged_or_not_ours_is_refused(snapshot: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    convert.main([str(snapshot), str(whole)])
    data, broken = whole.read_bytes(), tmp_path / "broken.safetensors"
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])

    def written(**metadata: str) -> Path:
        stored = {n: text for n, text in header["__metadata__"].items() if n != "uda_digest"}
        changed = json.dumps(header | {"__metadata__": stored | metadata}).encode()
        broken.write_bytes(len(changed).to_bytes(8, "little") + changed + data[8 + length :])
        return broken

    assert load(written()).step == 7
    broken.write_bytes(data[:-1])
    with pytest.raises(InputError, match="cannot be read as weights"):
        load(broken)
    for metadata, complaint in (
        ({"step": "[" * 100_000}, "cannot be read as weights"),
        ({"step": '"many"'}, "is damaged: "),
        ({"experiment": '{"pairs": [[1]]}'}, "cannot be read as weights"),
        ({"experiment": '{"pairs": [[[], 1]]}'}, "is damaged"),
        ({"experiment": '{"pairs": [[{}, 1]]}'}, "cannot be read as weights"),
        ({"label_space": "{}"}, "is damaged: "),
        ({"uda_format": "another"}, "is not a snapshot of this library"),
    ):
        with pytest.raises(InputError, match=complaint):
            load(written(**metadata))


def test_without_the_package_a_line_says_what_to_install(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "network.safetensors"
    convert.main([str(snapshot), str(path)])
    for package in ("safetensors", "safetensors.torch"):
        monkeypatch.setitem(sys.modules, package, None)
    for reads in (load, convert_again):
        with pytest.raises(
            InputError, match=r"needs the package .*pip install 'uda\[safetensors\]"
        ):
            reads(path)
    assert list(tmp_path.iterdir()) == [path]


def convert_again(path: Path) -> None:
    convert.main([str(path), str(path.with_suffix(".pth")), "--tensors"])


def test_a_choice_of_weights_is_for_one_network(snapshot: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        convert.main([str(snapshot), str(tmp_path / "a.pth"), "--weights", "teacher"])
