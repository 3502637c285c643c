"""Snapshots: what is saved comes back, and what is not ours is refused without running it."""

import hashlib
import os
import pickle
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch

import uda
from factories import file_of, tiny_snapshot
from tiny_runs import CROP, assert_different, assert_same, tiny_model
from uda.checkpoints.foreign import ForeignOptions
from uda.checkpoints.formats.adaptsegnet import ADAPTSEGNET_SINGLE
from uda.checkpoints.formats.segmentron import SEGMENTRON
from uda.checkpoints.snapshots import (
    Snapshot,
    load,
    read,
    save,
    snapshot_values,
)
from uda.checkpoints.stored import FORMAT, load_weights
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiments import load_preset
from uda.labels.spaces import CITYSCAPES
from uda.models.deeplabv2 import DeepLabV2Config
from uda.models.segmentron import SegmenTron
from uda.utilities.config_tree import differences, to_plain
from uda.utilities.errors import InputError, WriteError
from uda.utilities.weight_files import sha256


@pytest.fixture
def snapshot() -> Snapshot:
    return tiny_snapshot(load_preset("gc_640x360_b2_class_mix"))


@pytest.fixture
def path(tmp_path: Path, snapshot: Snapshot) -> Path:
    save(snapshot_values(snapshot), tmp_path / "GTA5_7.pth")
    return tmp_path / "GTA5_7.pth"


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_saved_comes_back(path: Path, snapshot: Snapshot) -> None:
    found = load(path)
    for field in fields(Snapshot):
        ours, theirs = getattr(snapshot, field.name), getattr(found, field.name)
        if field.name in ("student", "teacher"):
            assert_same(ours, theirs)
        else:
            assert ours == theirs, field.name
    assert found.label_space is CITYSCAPES
    assert list(path.parent.iterdir()) == [path]


def test_the_experiment_comes_back_as_it_was(path: Path) -> None:
    original = load_preset("gc_640x360_b2_class_mix")
    original.model = tiny_model()
    original.evaluation.input_size = CROP
    found = load(path)
    assert differences(found.experiment, to_plain(original)) == []
    assert found.model == original.model
    assert found.data == original.data
    assert found.evaluation == original.evaluation


def test_a_file_holds_tensors_and_plain_values_only(path: Path) -> None:
    values = torch.load(path, weights_only=True)
    assert values["format"] == FORMAT
    assert values["label_space"] == {
        part.name: getattr(CITYSCAPES, part.name) for part in fields(CITYSCAPES) if part.init
    }


def test_the_network_of_a_file_predicts_the_same(path: Path, snapshot: Snapshot) -> None:
    images = torch.rand(2, 3, *CROP, generator=torch.Generator().manual_seed(0))
    student, teacher = load(path).build(), load(path).build("teacher")
    assert not student.training
    assert_same(student.state_dict(), snapshot.student)
    assert_same(teacher.state_dict(), snapshot.teacher)
    assert_different(student.state_dict(), teacher.state_dict())
    network = tiny_model().build(19).to(memory_format=torch.channels_last).eval()
    network.load_state_dict(snapshot.student)
    with torch.no_grad():
        assert torch.equal(student(images).logits, network(images).logits)


def test_pretrained_weights_are_not_fetched_again(snapshot: Snapshot) -> None:
    snapshot.experiment["model"]["backbone_weights"] = "imagenet"
    assert_same(snapshot.build().state_dict(), snapshot.student)


def test_a_run_without_a_teacher_has_none_to_build() -> None:
    found = tiny_snapshot(load_preset("gc_640x360_b2_source_only"))
    found.build()
    assert "this snapshot has no teacher" in refusal(lambda: found.build("teacher"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    message = refusal(lambda: load(tmp_path / "GTA5_1.pth"))
    assert f"{tmp_path / 'GTA5_1.pth'} does not exist; expected a snapshot such as" in message


@pytest.mark.parametrize("content", [b"", b"hello", b"\n" * 50, b"PK\x03\x04", b"\x80\x02}q\x00."])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    odd = tmp_path / "odd.pth"
    odd.write_bytes(content)
    assert str(odd) in refusal(lambda: load(odd))


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert f"{tmp_path} cannot be read as weights (" in refusal(lambda: load(tmp_path))


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert str(path) in refusal(lambda: load(path))


@pytest.mark.parametrize("values", [{"weight": torch.zeros(2)}, {"format": "other"}, [1, 2], 3])
def test_a_file_of_torch_that_is_not_ours_is_refused(tmp_path: Path, values: object) -> None:
    odd = tmp_path / "resnet.pth"
    torch.save(values, odd)
    for call in (lambda: load(odd), lambda: read(odd)):
        assert "resnet.pth is not a snapshot of this library: it has no 'uda-snap" in refusal(call)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.open, (str(self.file), os.O_CREAT)


@pytest.mark.parametrize("with_torch", [False, True])
def test_code_in_a_file_does_not_run(tmp_path: Path, snapshot: Snapshot, with_torch: bool) -> None:
    odd, sprung = tmp_path / "odd.pth", tmp_path / "sprung"
    values = snapshot_values(snapshot) | {"scores": Trap(sprung)}
    if with_torch:
        torch.save(values, odd)
    else:
        odd.write_bytes(pickle.dumps({"format": FORMAT, "scores": Trap(sprung)}))
    for call in (lambda: load(odd), lambda: read(odd)):
        message = refusal(call)
        assert "could run code" in message
        assert f"python scripts/convert_checkpoint.py {odd} OUT" in message
        assert ("holds posix.open, which could run" in message) == with_torch
    assert not sprung.exists()


def test_missing_fields_are_named(path: Path) -> None:
    values = read(path)
    del values["supervision"], values["student"]
    save(values, path)
    message = f"{path} is damaged: it has no supervision, student; give another snapshot of that"
    assert refusal(lambda: load(path)).startswith(message)


@pytest.mark.parametrize("change", [{"name": "synthia16"}, {"classes": CITYSCAPES.classes[:16]}])
def test_another_label_space_is_refused(path: Path, change: dict[str, object]) -> None:
    """In snapshots of before, which held no more of it."""
    values = read(path)
    values["label_space"] = {"name": "cityscapes19", "classes": CITYSCAPES.classes} | change
    save(values, path)
    message = refusal(lambda: load(path))
    assert f"{path}: its label space is " in message
    assert "; known: cityscapes19 with 19" in message


def test_a_snapshot_brings_the_label_space_that_nobody_else_knows(path: Path) -> None:
    values = read(path)
    values["label_space"] |= {"name": "mine", "mirror_swaps": ((0, 1),), "unscored": (18,)}
    save(values, path)
    own = replace(CITYSCAPES, name="mine", mirror_swaps=((0, 1),), unscored=(18,))
    assert load(path).label_space == own


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"palette": ((0, 0),) * 19}, "its label space has odd colors or pairs"),
        ({"palette": ((0, 0, 256),) * 19}, "not a color of levels 0 to 255 for each class"),
        ({"mirror_swaps": ((0, 1, 2),)}, "its label space has odd colors or pairs"),
        ({"mirror_swaps": ((0, 19),)}, "classes in mirror_swaps that are none"),
        ({"mirror_swaps": ((0, 1), (1, 2))}, "classes in mirror_swaps that are none, or stand"),
        ({"unscored": tuple(range(19))}, "classes in unscored that are none, or none that is"),
        ({"classes": ("road",) * 19}, "two classes of one name"),
        ({"raw_to_train": {7: 255}}, "raw ids outside 0 to 255, or that mean no class"),
        ({"raw_to_train": {7: 19}}, "raw ids outside 0 to 255, or that mean no class"),
        ({"raw_to_train": {300: 0}}, "raw ids outside 0 to 255, or that mean no class"),
        ({"raw_channel": "alpha"}, "a channel of label files that is not one of red, green, blue"),
        ({"palette": 3}, "label_space.palette is 3; allowed: a tuple"),
    ],
)
def test_a_label_space_that_contradicts_itself_is_refused(
    path: Path, change: dict[str, object], message: str
) -> None:
    values = read(path)
    values["label_space"] |= {"name": "mine"} | change
    save(values, path)
    found = refusal(lambda: load(path))
    assert found.startswith(f"{path} is damaged: ")
    assert message in found


def test_a_snapshot_of_ours_may_lack_nothing(path: Path) -> None:
    for options, names in (
        (ForeignOptions(partial=["decoder."]), "--partial"),
        (ForeignOptions(project="advent", output_stride=8), "--project, --output-stride"),
    ):
        message = refusal(partial(load, path, foreign=options))
        assert message == f"{names}: {path} is a snapshot of ours, which is complete: omit it"


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("foreign") / "foreign.pth"
    torch.save({"state_dict": file_of(SEGMENTRON)}, path)
    return path


def test_a_foreign_file_is_a_snapshot_of_step_0(foreign: Path) -> None:
    found = load(foreign)
    assert found.is_foreign
    assert found.report == {
        "tensors": "592 of 592 matched, 0 missing, 0 unexpected",
        "quirks": f"output stride 16; {SEGMENTRON.quirks}",
    }
    assert (found.preset, found.step, found.teacher) == (
        "SegmenTron DeepLabV3+ ResNet-101",
        0,
        None,
    )
    assert found.supervision == "ground truth (2975 images)"
    assert found.initial_weights == f"foreign.pth sha256:{sha256(foreign)[:12]}"
    assert found.evaluation == EvaluationConfig.following("segmentron", dataset="cityscapes")
    assert found.label_space is CITYSCAPES


def test_a_snapshot_of_ours_has_nothing_to_report(path: Path) -> None:
    assert load(path).report == {}
    assert not load(path).is_foreign


@pytest.mark.slow
def test_what_a_foreign_file_lacks_is_drawn_and_said(tmp_path: Path) -> None:
    state = file_of(SEGMENTRON)
    del state["head.block.2.weight"]
    torch.save(state, tmp_path / "part.pth")
    message = refusal(lambda: load(tmp_path / "part.pth"))
    assert "591 of 592 tensors match, 1 (head.block.2.weight, ...) missing" in message
    found = load(tmp_path / "part.pth", foreign=ForeignOptions(partial=["head.block.2"]))
    assert found.report["tensors"].endswith("randomly initialized: head.block.2.weight")
    assert found.initial_weights.endswith("; 1 tensors randomly initialized")
    network = uda.load(tmp_path / "part.pth", partial="head.block.2")
    assert_same(network.state_dict(), found.student)
    assert found.student["decoder.2.weight"].any()


def test_an_unknown_file_is_told_what_is_near(tmp_path: Path) -> None:
    names = [name for name in file_of(SEGMENTRON) if name.startswith("encoder.layer1.0.conv")]
    torch.save({name: file_of(SEGMENTRON)[name] for name in names}, tmp_path / "odd.pth")
    message = refusal(lambda: load(tmp_path / "odd.pth"))
    assert (
        "odd.pth is not a snapshot of this library: it has no 'uda-snapshot-1'; nearest of"
        in message
    )
    assert "projects: SegmenTron DeepLabV3+ ResNet-101, 3 of 592 tensors match, 589 (" in message


def test_a_foreign_file_for_other_classes_is_told_what_it_serves_as(tmp_path: Path) -> None:
    """AdaptSegNet's initial weights hold a head for the 21 classes of another data set."""
    state = file_of(ADAPTSEGNET_SINGLE)
    for name, tensor in state.items():
        if name.startswith("layer5."):
            state[name] = torch.zeros(()).expand(21, *tensor.shape[1:])
    path = tmp_path / "init.pth"
    torch.save({f"Scale.{name}": tensor for name, tensor in state.items()}, path)
    message = refusal(lambda: load(path))
    assert f"{path}: AdaptSegNet single-level DeepLab-v2 with 21 classes; known: city" in message
    assert f"initial weights: --set model.backbone_weights={path}" in message
    config = DeepLabV2Config(backbone_weights=str(path), levels=1)
    assert config.build(19).provenance.startswith("file init.pth sha256:")
    found = load(path, foreign=ForeignOptions(partial=["layer5."], project="adaptsegnet"))
    assert "8 tensors randomly" in found.initial_weights


def test_tensors_are_taken_out_of_a_file_that_could_run_code(tmp_path: Path) -> None:
    odd, sprung = tmp_path / "odd.pth", tmp_path / "sprung"
    content = {"state_dict": file_of(SEGMENTRON), "best": np.float64(0.5), "trap": Trap(sprung)}
    torch.save(content, odd)
    assert "holds " in refusal(lambda: load(odd))
    found = load(odd, recover=True)
    dropped = found.report["dropped"].replace("numpy.core", "numpy._core")  # numpy 1's name
    assert dropped == "numpy._core.multiarray.scalar, posix.open"
    assert_same(found.student, load_without_trap(content, tmp_path).student)
    assert not sprung.exists()


def load_without_trap(content: dict[str, Any], folder: Path) -> Snapshot:
    torch.save(content["state_dict"], folder / "plain.pth")
    return load(folder / "plain.pth")


def test_tensors_that_do_not_fit_are_refused(snapshot: Snapshot) -> None:
    name = "decoder.2.weight"
    missing = {key: tensor for key, tensor in snapshot.student.items() if key != name}
    extra = snapshot.student | {"decoder.9.weight": torch.zeros(1)}
    resized = snapshot.student | {name: snapshot.student[name][:5]}
    for student, odd in ((missing, name), (extra, "decoder.9.weight"), (resized, name)):
        message = refusal(replace(snapshot, student=student).build)
        assert f"1 tensors do not fit the network of this preset, e.g. {odd}" in message


def test_weights_are_loaded_whole_or_not_at_all(snapshot: Snapshot) -> None:
    segmenter = tiny_model().build(19)
    before = {name: tensor.clone() for name, tensor in segmenter.state_dict().items()}
    with pytest.raises(InputError, match=r"^some\.pth: "):
        load_weights(segmenter, snapshot.student | {"more": torch.zeros(1)}, origin="some.pth")
    assert_same(segmenter.state_dict(), before)
    load_weights(segmenter, snapshot.student, origin="some.pth")
    assert_same(segmenter.state_dict(), snapshot.student)


def test_an_experiment_of_a_later_version_is_refused(snapshot: Snapshot) -> None:
    snapshot.experiment["model"]["attention"] = True
    assert "snapshot: DeepLabV3PlusConfig has fields" in refusal(snapshot.build)


def test_a_network_of_unknown_kind_is_refused(snapshot: Snapshot) -> None:
    snapshot.experiment["model"]["type"] = "DeepLabV9Config"
    assert (
        "unknown network 'DeepLabV9Config'; known: DeepLabV2Config, DeepLabV3PlusConfig"
        in refusal(snapshot.build)
    )


def test_a_network_whose_kind_is_no_name_is_refused(snapshot: Snapshot) -> None:
    snapshot.experiment["model"]["type"] = []  # cannot be looked up in a dict
    assert "unknown network []; known: " in refusal(snapshot.build)


def test_a_snapshot_from_before_networks_were_named_opens(snapshot: Snapshot) -> None:
    del snapshot.experiment["model"]["type"]
    assert_same(snapshot.build().state_dict(), snapshot.student)


def test_a_save_that_fails_leaves_the_old_file(
    path: Path, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def write_half(values: object, file: IO[bytes]) -> None:
        file.write(before[:1000])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", write_half)
    with pytest.raises(
        WriteError, match=r"GTA5_7\.pth cannot be written \(No space left.* MiB free"
    ):
        save(snapshot_values(replace(snapshot, step=8)), path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_save_that_is_killed_leaves_the_old_file(
    path: Path, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        save(snapshot_values(replace(snapshot, step=8)), path)
    assert load(path).step == 7
    monkeypatch.undo()
    save(snapshot_values(replace(snapshot, step=8)), path)
    assert load(path).step == 8


def test_sha256_is_that_of_the_file(path: Path) -> None:
    assert sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_uda_load_gives_the_network_of_any_known_file(
    path: Path, snapshot: Snapshot, tmp_path: Path
) -> None:
    network = uda.load(str(path))
    assert not network.training
    assert_same(network.state_dict(), snapshot.student)
    torch.save({"state_dict": file_of(SEGMENTRON)}, tmp_path / "foreign.pth")
    assert isinstance(uda.load(tmp_path / "foreign.pth"), SegmenTron)
    with pytest.raises(InputError, match=r"missing\.pth does not exist"):
        uda.load(tmp_path / "missing.pth")
