"""Folders of transformers' save_pretrained: the library's logits, our classes, and no way out."""

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import uda
from tiny_runs import assert_same
from uda.checkpoints.label_names import label_space_named
from uda.checkpoints.snapshots import load, save, snapshot_values
from uda.commands import convert
from uda.labels.spaces import CITYSCAPES
from uda.utilities.errors import InputError

transformers: Any = pytest.importorskip("transformers")

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
STAGES = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
VIT = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 64,
       "intermediate_size": 32, "patch_size": 16}  # fmt: skip


def swin() -> Any:  # noqa: ANN401 - transformers has no types for us
    return transformers.SwinConfig(
        embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2], window_size=4, **STAGES
    )


def upernet(**names: Any) -> Any:  # noqa: ANN401
    own = transformers.UperNetConfig(
        backbone_config=swin(), hidden_size=16, auxiliary_channels=16, auxiliary_in_channels=64,
        **names,
    )  # fmt: skip
    return transformers.UperNetForSemanticSegmentation(own)


def beit(**names: Any) -> Any:  # noqa: ANN401
    own = transformers.BeitConfig(
        **VIT, out_indices=[1, 2, 3, 4], use_relative_position_bias=True, auxiliary_channels=16,
        **names,
    )  # fmt: skip
    return transformers.BeitForSemanticSegmentation(own)


def dpt(**names: Any) -> Any:  # noqa: ANN401
    own = transformers.DPTConfig(
        **VIT, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[16] * 4, fusion_hidden_size=16,
        **names,
    )  # fmt: skip
    return transformers.DPTForSemanticSegmentation(own)


def mask2former(**names: Any) -> Any:  # noqa: ANN401
    own = transformers.Mask2FormerConfig(
        backbone_config=swin(), feature_size=64, mask_feature_size=64, hidden_dim=64,
        num_attention_heads=4, encoder_layers=1, decoder_layers=2, encoder_feedforward_dim=32,
        dim_feedforward=32, num_queries=5, **names,
    )  # fmt: skip
    return transformers.Mask2FormerForUniversalSegmentation(own)


def written(
    folder: Path, make: Callable[..., Any], classes: tuple[str, ...] = CITYSCAPES.classes
) -> Any:  # noqa: ANN401
    """The network, in evaluation mode, saved with its processor's settings."""
    torch.manual_seed(0)
    names = dict(enumerate(classes))
    network = make(id2label=names, label2id={n: i for i, n in names.items()}).eval()
    network.save_pretrained(folder)
    processor = {"image_mean": MEAN, "image_std": STD, "do_normalize": True, "do_rescale": True,
                 "rescale_factor": 1 / 255, "size": {"height": 64, "width": 64}}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hub") / "upernet"
    written(path, upernet)
    return path


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", connect)


def segformer(**names: Any) -> Any:  # noqa: ANN401
    own = transformers.SegformerConfig(decoder_hidden_size=32, **names)
    return transformers.SegformerForSemanticSegmentation(own)


def logits_of(network: Any, images: Tensor) -> Tensor:  # noqa: ANN401
    """Those of transformers; of Mask2Former the logarithm of the paper's scores."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        output = network(pixel_values=(images - mean) / std)
    if "logits" in output:
        return output.logits
    classes = output.class_queries_logits.softmax(-1)[..., :-1]
    scores = torch.einsum("nqc,nqhw->nchw", classes, output.masks_queries_logits.sigmoid())
    return scores.log()


@pytest.mark.parametrize("make", [upernet, beit, dpt, mask2former])
def test_the_logits_are_those_of_transformers(make: Callable[..., Any], tmp_path: Path) -> None:
    theirs = written(tmp_path / "folder", make)
    snapshot = load(tmp_path / "folder")
    assert snapshot.label_space is CITYSCAPES
    assert snapshot.is_foreign
    assert snapshot.supervision.startswith("unknown")
    network = snapshot.build()
    images = torch.rand(2, 3, 64, 64)
    expected = logits_of(theirs, images)
    with torch.no_grad():
        found = network.coarse(images).logits
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
        assert network(torch.rand(1, 3, 50, 70)).logits.shape == (1, 19, 50, 70)


def test_what_was_read_is_a_snapshot_like_others(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert.main([str(folder), str(tmp_path / "ours.pth")])
    shown = capsys.readouterr().out
    assert "network: upernet of transformers\n" in shown
    assert "classes: those of cityscapes19\n" in shown
    assert "resizes images to {'height': 64, 'width': 64}, the protocol does not" in shown
    before, after = load(folder), load(tmp_path / "ours.pth")
    assert_same(after.student, before.student)
    assert after.initial_weights.startswith("upernet sha256:")
    image = torch.rand(3, 40, 60)
    (ours,), (again,) = (uda.predict(path, image) for path in (folder, tmp_path / "ours.pth"))
    assert torch.equal(ours.labels, again.labels)


def test_older_files_of_weights_and_parts(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    expected = load(folder).student
    for name in ("binary", "parts"):
        shutil.copytree(folder, tmp_path / name)
        (tmp_path / name / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "binary/pytorch_model.bin")
    assert_same(load(tmp_path / "binary").student, expected)
    names, parts = sorted(tensors), tmp_path / "parts"
    files = {n: f"model-0000{1 + (n > names[50])}-of-00002.safetensors" for n in names}
    for file in set(files.values()):
        save_file({n: tensors[n] for n in names if files[n] == file}, parts / file)
    index = parts / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    assert_same(load(parts).student, expected)
    index.write_text(json.dumps({"weight_map": files | {names[0]: "../upernet/model.safetensors"}}))
    with pytest.raises(InputError, match=r"names \['../upernet/model.safetensors'\]; allowed"):
        load(parts)


def changed(folder: Path, copy: Path, file: str = "config.json", **values: Any) -> Path:  # noqa: ANN401
    """A copy of the folder with other settings; `...` takes one out."""
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    found = json.loads((folder / file).read_text()) | values
    found = {name: value for name, value in found.items() if value is not ...}
    (copy / file).write_text(json.dumps(found))
    return copy


HOSTILE: tuple[tuple[dict[str, Any], str], ...] = (
    ({"auto_map": {"AutoConfig": "code.Own"}}, "'auto_map' is .* may make transformers run"),
    ({"backbone": "hf-hub:someone/backbone"}, "'backbone' is .* download or open"),
    ({"backbone": "/etc/passwd"}, "'backbone' is"),
    ({"use_timm_backbone": True}, "'use_timm_backbone' is True"),
    ({"use_pretrained_backbone": True}, "'use_pretrained_backbone' is True"),
    ({"backbone_kwargs": {"pretrained": True}}, "'backbone_kwargs' is"),
    ({"quantization_config": {"quant_method": "gptq"}}, "'quantization_config' is"),
    ({"backbone_config": {"model_type": "timm_backbone", "backbone": "resnet18"}},
     "'backbone_config' is of a 'timm_backbone'; allowed: swin"),
    ({"backbone_config": {"model_type": "swin", "backbone": "a/b"}}, "'backbone' is 'a/b'"),
    ({"hidden_act": "/tmp/activation.py"}, "'hidden_act' is .*; allowed: numbers and words"),
    ({"hidden_size": 10**9}, "'hidden_size' is 1000000000; allowed: up to"),
    ({"num_layers": 10**4}, "allowed: up to 256"),
    ({"hidden_size": 8192}, "asks for .* numbers, but the weights are"),
    ({"pool_scales": ["a"]}, "transformers cannot build"),
    ({"model_type": "llama"}, "is of a 'llama' .*; allowed: Segformer"),
    ({"model_type": ["a"]}, "allowed: Segformer"),
    ({"architectures": ["UperNetForSomethingElse"]}, "allowed: Segformer"),
    ({"hidden_size": 32}, "in its weights|cannot build|the weights are"),
)  # fmt: skip


@pytest.mark.parametrize(("values", "complaint"), HOSTILE, ids=lambda v: str(v)[:40])
def test_settings_lead_nowhere(
    values: dict[str, Any], complaint: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=complaint) as refusal:
        load(changed(folder, tmp_path / "odd", **values))
    assert str(tmp_path / "odd") in str(refusal.value)


def test_a_snapshot_with_such_settings_leads_nowhere_either(folder: Path, tmp_path: Path) -> None:
    values = snapshot_values(load(folder))
    own = values["experiment"]["model"]
    whole = json.loads(own["settings"])
    for settings, complaint in (
        ("[" * 100_000, "config.json is damaged"),
        ("[]", "holds no settings"),
        ("{}", "allowed: Segformer"),
        (json.dumps(whole | {"backbone": "a/b"}), "'backbone' is 'a/b'"),
        (json.dumps(whole | {"pool_scales": ["a"]}), "transformers cannot build|do not fit"),
    ):
        own["settings"] = settings
        save(values, tmp_path / "odd.pth")
        with pytest.raises(InputError, match=complaint):
            load(tmp_path / "odd.pth").build()


def test_names_of_places_and_private_settings_are_not_read(folder: Path, tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "_name_or_path": "/etc", "name_or_path": "someone/else", "_commit_hash": "1",
        "_attn_implementation": "kernels-community/flash", "attn_implementation": "a/b",
        "torch_dtype": "float16", "num_labels": 7,
    }  # fmt: skip
    found = load(changed(folder, tmp_path / "odd", **values))
    assert_same(found.student, load(folder).student)


def test_classes_are_compared_with_ours(folder: Path, tmp_path: Path) -> None:
    names = list(CITYSCAPES.classes)
    space, said = label_space_named([n.title().replace(" ", "_") for n in names], file="f")
    assert (space, said) == (CITYSCAPES, "those of cityscapes19")
    odd = [*names[:11], "pedestrian", *names[12:]]
    with pytest.raises(InputError, match="11 is 'pedestrian' instead of 'person': if it is only"):
        load(changed(folder, tmp_path / "odd", id2label=dict(enumerate(odd))))
    swapped = [names[1], names[0], *names[2:]]
    with pytest.raises(InputError, match="0 is 'sidewalk' instead of 'road', 1 is 'road'"):
        load(changed(folder, tmp_path / "odd", id2label=dict(enumerate(swapped))))
    for id2label, complaint in (
        ({str(i): f"LABEL_{i}" for i in range(19)}, "transformers' placeholders, LABEL_0"),
        ({"0": "road", "2": "sky"}, "does not name the classes 0 to 1"),
        ({}, "names no classes"),
        (["road"], "names no classes"),
        ({"0": "road", "1": 3}, "does not name"),
        ({"0": "road", "1": "\x1b[31msky"}, "does not name the classes 0 to 1 in letters"),
        ({"0": "road", "1": "road"}, "two classes of one name"),
    ):
        with pytest.raises(InputError, match=complaint):
            load(changed(folder, tmp_path / "odd", id2label=id2label))


def test_classes_of_its_own_are_predicted(tmp_path: Path) -> None:
    written(tmp_path / "folder", beit, ("cat", "dog", "nothing"))
    found = load(tmp_path / "folder")
    assert found.label_space.classes == ("cat", "dog", "nothing")
    (labels,) = uda.predict(tmp_path / "folder", torch.rand(3, 40, 60))
    assert labels.labels.max() <= 2
    with pytest.raises(InputError, match="there is no data set 'classes_of_the_file'"):
        uda.evaluate(tmp_path / "folder", data_root=tmp_path)


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ({"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.0, 1.0]}, (0.5, 0.1)),
        ({"do_rescale": False, "image_mean": [127.5] * 3}, (0.5, 0.2 / 255)),
        ({"do_normalize": False}, (0.0, 1.0)),
    ],
)
def test_images_are_normalized_as_the_processor_does(
    processor: dict[str, object], expected: tuple[float, float], folder: Path, tmp_path: Path
) -> None:
    network = load(changed(folder, tmp_path / "odd", "preprocessor_config.json", **processor))
    state = network.student
    assert state["mean"][0, 0].item() == pytest.approx(expected[0])
    assert state["std"][0, 0].item() == pytest.approx(expected[1])


def test_a_folder_that_lacks_something_says_what(folder: Path, tmp_path: Path) -> None:
    for file in ("preprocessor_config.json", "model.safetensors"):
        shutil.copytree(folder, tmp_path / "odd", dirs_exist_ok=True)
        (tmp_path / "odd" / file).unlink()
        with pytest.raises(InputError, match=r"odd.*: give a folder as save_pretrained wrote it"):
            load(tmp_path / "odd")
        shutil.rmtree(tmp_path / "odd")
    for values in ({"image_std": [0, 1, 1]}, {"image_std": [1e-300, 1, 1]},
                   {"rescale_factor": 1e-300}):  # fmt: skip
        copy = changed(folder, tmp_path / "odd", "preprocessor_config.json", **values)
        with pytest.raises(InputError, match="image_std"):
            load(copy)
    (copy / "config.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"config\.json is damaged"):
        load(copy)
    with pytest.raises(InputError, match=r"--code: .* is a folder, which says it all: omit it"):
        uda.load(folder, code="some.py")


def test_weights_that_are_not_finite_are_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, tmp_path / "odd")
    tensors = load_file(folder / "model.safetensors")
    tensors["decode_head.classifier.bias"][0] = float("nan")
    save_file(tensors, tmp_path / "odd/model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"odd: 1 \(decode_head.classifier.bias.*not finite"):
        load(tmp_path / "odd")


def test_a_segformer_of_another_depth_is_left_to_transformers(tmp_path: Path) -> None:
    def shallow(**names: Any) -> Any:  # noqa: ANN401
        own = transformers.SegformerConfig(depths=[1] * 4, decoder_hidden_size=16, **names)
        return transformers.SegformerForSemanticSegmentation(own)

    theirs = written(tmp_path / "folder", shallow)
    snapshot = load(tmp_path / "folder")
    assert snapshot.preset == "segformer of transformers"
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        found = snapshot.build().coarse(images).logits
    assert torch.allclose(found, logits_of(theirs, images), atol=1e-5)


def test_the_hub_is_asked_only_by_name(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def snapshot_download(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, "config.json" in allow_patterns))
        if name == "a/away":
            raise OSError("no route")
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    assert load(Path("hf://owner/upernet-1.0")).preset == "upernet of transformers"
    assert asked == [("owner/upernet-1.0", True)]
    with pytest.raises(
        InputError, match=r"hf://a/away could not be .*hf download a/away --local-dir"
    ):
        uda.load("hf://a/away")
    for name in ("hf://a", "hf://a/b/c", "hf://../b", "hf://a/.b"):
        with pytest.raises(InputError, match="give hf://OWNER/NAME"):
            uda.load(name)
    assert len(asked) == 2


def test_segformer_is_our_mit_and_head(tmp_path: Path) -> None:
    """Also from its file alone; with settings of its own, it is left to transformers."""
    folder = tmp_path / "folder"
    theirs = written(folder, segformer)
    with torch.no_grad():  # as if trained: the order of maps and every norm count
        for parameter in theirs.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    theirs.save_pretrained(folder)
    snapshot = load(folder)
    assert snapshot.preset == "transformers SegFormer on MiT-B0"
    assert type(snapshot.model).__name__ == "EncoderDecoderConfig"
    images = torch.rand(2, 3, 64, 96)
    expected = logits_of(theirs, images)
    with torch.no_grad():
        found = snapshot.build().coarse(images).logits
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    alone = load(folder / "model.safetensors")
    assert alone.preset == snapshot.preset
    names = [name for name in alone.student if name not in ("mean", "std")]
    assert_same({n: alone.student[n] for n in names}, {n: snapshot.student[n] for n in names})
    other = changed(folder, tmp_path / "other", strides=[2, 2, 2, 2])
    assert load(other).preset == "segformer of transformers"
