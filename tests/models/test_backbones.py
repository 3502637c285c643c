"""Trunks: sizes, dilation against torchvision's own, and weights that fit or are refused."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import Tensor, nn

from uda.models.encoders.resnet import (
    BackboneName,
    ResNetBackbone,
    caffe_resnet_backbone,
    resnet_backbone,
)
from uda.utilities.errors import InputError

Wrap = Callable[[dict[str, Tensor]], object]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def small(output_stride: Literal[8, 16] = 16, weights: str = "none") -> ResNetBackbone:
    return resnet_backbone("resnet18", width=4, output_stride=output_stride, weights=weights)


def classifier_state(width: int = 4) -> dict[str, Tensor]:
    """What a torchvision file of a narrow ResNet-18 would hold."""
    trunk = resnet_backbone("resnet18", width=width, weights="none")
    state = {
        name: torch.randn(tensor.shape) if tensor.is_floating_point() else tensor
        for name, tensor in trunk.state_dict().items()
    }
    return state | {"fc.weight": torch.zeros(5, 8 * width), "fc.bias": torch.zeros(5)}


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_maps_have_the_promised_strides_and_channels(
    name: BackboneName, output_stride: Literal[8, 16]
) -> None:
    backbone = resnet_backbone(name, width=8, output_stride=output_stride, weights="none")
    features = backbone(torch.rand(2, 3, 65, 97))
    expansion = 1 if name == "resnet18" else 4
    deep = {8: (9, 13), 16: (5, 7)}[output_stride]  # 65 x 97, rounded up
    sizes = [(17, 25), (9, 13), deep, deep]
    channels = tuple(8 * factor * expansion for factor in (1, 2, 4, 8))
    assert [f.shape for f in features] == [(2, c, *s) for c, s in zip(channels, sizes, strict=True)]
    assert backbone.channels == channels
    assert backbone.strides == (4, 8, output_stride, output_stride)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "output_stride", "replaced"),
    [
        ("resnet50", 16, [False, False, True]),
        ("resnet50", 8, [False, True, True]),
        ("resnet101", 8, [False, True, True]),
    ],
)
def test_dilation_is_torchvisions(
    name: BackboneName, output_stride: Literal[8, 16], replaced: list[bool]
) -> None:
    ours = resnet_backbone(name, output_stride=output_stride, weights="none")
    theirs: nn.Module = getattr(torchvision.models, name)(replace_stride_with_dilation=replaced)
    missing = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert missing.missing_keys == ["fc.weight", "fc.bias"]
    assert missing.unexpected_keys == []
    seen: dict[str, Tensor] = {}
    for layer in ("layer1", "layer2", "layer3", "layer4"):

        def keep(_module: nn.Module, _inputs: object, output: Tensor, layer: str = layer) -> None:
            seen[layer] = output

        theirs.get_submodule(layer).register_forward_hook(keep)
    images = torch.rand(2, 3, 49, 65)
    with torch.no_grad():
        features = ours(images)
        theirs(images)
    torch.testing.assert_close(list(features), list(seen.values()))


@pytest.mark.parametrize(("output_stride", "step"), [(16, 2), (8, 4)])
def test_dilated_resnet18_computes_what_the_strided_one_does_and_more(
    output_stride: Literal[8, 16], step: int
) -> None:
    strided: nn.Module = torchvision.models.resnet18().double().eval()
    dilated = resnet_backbone("resnet18", output_stride=output_stride, weights="none")
    dilated.load_state_dict(strided.state_dict(), strict=False)
    deepest = nn.Sequential(*list(strided.children())[:-2])
    images = torch.rand(1, 3, 75, 97, dtype=torch.float64)
    with torch.no_grad():
        *_, deep = dilated.double().eval()(images)
        torch.testing.assert_close(deep[:, :, ::step, ::step], deepest(images))


def test_toy_trunk_is_a_narrow_resnet18() -> None:
    state = resnet_backbone("resnet18", width=24, weights="none").state_dict()
    channels = [state[f"layer{stage}.1.conv2.weight"].shape[0] for stage in (1, 2, 3, 4)]
    assert channels == [24, 48, 96, 192]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {"model_state": {"state_dict": state}},
        lambda state: {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")},
    ],
    ids=["bare", "state_dict", "model, module.", "nested", "without counters"],
)
def test_weights_of_a_file(tmp_path: Path, wrap: Wrap, legacy: bool) -> None:
    path = tmp_path / "trunk.pth"
    state = classifier_state()
    torch.save(wrap(state), path, _use_new_zipfile_serialization=not legacy)
    backbone = small(weights=str(path))
    for name, parameter in backbone.named_parameters():
        assert torch.equal(parameter, state[name]), name
    assert torch.equal(backbone.state_dict()["bn1.running_var"], state["bn1.running_var"])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert backbone.provenance == f"file trunk.pth sha256:{digest}"


def test_weights_of_another_network_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    state = classifier_state()
    del state["layer4.1.bn2.weight"]
    state["bn1.bias"] = torch.zeros(7)
    state["head.weight"] = torch.zeros(1)
    torch.save(state, path)
    with pytest.raises(InputError, match=r"100 tensors match, 1 \(layer4.1.bn2.weight, ...\)") as e:
        small(weights=str(path))
    message = str(e.value)
    assert "other.pth does not hold the weights of a resnet18 of width 4: 98 of 100" in message
    assert "1 (head.weight, ...) unexpected, 1 (bn1.bias, ...) of another shape" in message


def under_other_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As another project might call the layers, with the counters that it need not have."""
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in state))
    return {
        f"_layers.{layers.index(layer)}.{end}": tensor
        for name, tensor in state.items()
        for layer, _, end in [name.rpartition(".")]
        if end != "num_batches_tracked"
    }


def test_the_tensors_of_other_names_are_offered_and_taken_by_their_order(tmp_path: Path) -> None:
    path = tmp_path / "theirs.pth"
    state = classifier_state()
    torch.save(under_other_names(state), path)
    with pytest.raises(InputError, match="all its 100 tensors, with the same shapes in the") as e:
        small(weights=str(path))
    message = str(e.value)
    assert "conv1.weight is _layers.0.weight; ...; layer4.1.bn2.running_var is _layers" in message
    assert f"use --set model.backbone_weights=in-order:{path}" in message
    backbone = small(weights=f"in-order:{path}")
    for name, parameter in backbone.named_parameters():
        assert torch.equal(parameter, state[name]), name
    assert torch.equal(backbone.state_dict()["bn1.running_var"], state["bn1.running_var"])
    assert backbone.provenance.endswith(", by the order of its tensors")


@pytest.mark.parametrize(
    ("first", "second"), [("bn1.weight", "bn1.bias"), ("conv1.weight", "bn1.bias")]
)
def test_another_order_is_not_offered(first: str, second: str, tmp_path: Path) -> None:
    """Nor are weights taken for biases of the same shape."""
    state = classifier_state()
    names = list(state)
    at, other = names.index(first), names.index(second)
    names[at], names[other] = names[other], names[at]
    path = tmp_path / "theirs.pth"
    torch.save(under_other_names({name: state[name] for name in names}), path)
    with pytest.raises(InputError, match="0 of 100 tensors match") as e:
        small(weights=str(path))
    assert "in-order" not in str(e.value)
    with pytest.raises(InputError, match="do not have the order and the shapes of a resnet18"):
        small(weights=f"in-order:{path}")


def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "wide.pth"
    torch.save(classifier_state(width=8), path)
    with pytest.raises(InputError, match=r"0 missing, 0 unexpected, 100 .* of another shape"):
        small(weights=str(path))


@pytest.mark.parametrize("content", [b"", b"no weights", b"half a file", b"PK\x03\x04 cut short"])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged\.pth (cannot be read as weights|is dam)") as e:
        small(weights=str(path))
    assert "\n" not in str(e.value)


def test_whole_networks_and_other_contents_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "network.pth"
    torch.save(nn.Linear(1, 1), path)
    with pytest.raises(
        InputError,
        match=r"Linear, .*: python scripts/convert_checkpoint.py --t",
    ):
        small(weights=str(path))
    torch.save([torch.zeros(1)], path)
    with pytest.raises(InputError, match="holds a list; allowed: a torchvision"):
        small(weights=str(path))


@pytest.mark.parametrize("weights", ["imagnet", "/no/such/file.pth", ""])
def test_a_path_to_nothing_is_refused(weights: str) -> None:
    with pytest.raises(
        InputError, match="which is not a file; allowed: none, imagenet, or the path"
    ):
        small(weights=weights)


def test_imagenet_weights_without_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*_args: object, **_kwargs: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    with pytest.raises(InputError, match="could not be downloaded") as e:
        resnet_backbone("resnet18", weights="imagenet")
    message = str(e.value)
    assert "https://download.pytorch.org/models/resnet18" in message
    assert "Name or service not known" in message
    assert f"put it into {tmp_path / 'hub/checkpoints'}; or use " in message
    assert "--set model.backbone_weights=none, or the path of a file" in message
    assert "\n" not in message


def test_imagenet_weights_from_torchvisions_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    url = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url
    state = classifier_state(width=64)
    torch.save(state, cache / Path(url).name)
    backbone = resnet_backbone("resnet18", weights="imagenet")
    assert torch.equal(backbone.conv1.weight, state["conv1.weight"])
    assert backbone.provenance == "torchvision ResNet18_Weights.IMAGENET1K_V1"
    (cache / Path(url).name).write_bytes(b"half a file")
    with pytest.raises(InputError, match=r"damaged .*: delete .*resnet18-\w+.pth and try again"):
        resnet_backbone("resnet18", weights="imagenet")


def test_imagenet_weights_exist_at_width_64_only() -> None:
    with pytest.raises(InputError, match="backbone_width is 24, but ImageNet weights exist for 64"):
        resnet_backbone("resnet18", width=24, weights="imagenet")


def test_unknown_names_and_strides_are_refused() -> None:
    with pytest.raises(InputError, match="'resnet35'; allowed: resnet18, resnet34, resnet50"):
        resnet_backbone("resnet35", weights="none")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="output_stride is 4; allowed: 8, 16, 32"):
        resnet_backbone("resnet18", output_stride=4, weights="none")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="backbone_width is 0; allowed: 1 or more"):
        resnet_backbone("resnet18", width=0, weights="none")


def caffe(name: BackboneName = "resnet18", weights: str = "none") -> ResNetBackbone:
    return caffe_resnet_backbone(name, width=4, weights=weights)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_caffe_trunk_strides_first_and_dilates_whole_stages(name: BackboneName) -> None:
    backbone = caffe(name)
    convolutions = {n: m for n, m in backbone.named_modules() if isinstance(m, nn.Conv2d)}
    strided = {n for n, m in convolutions.items() if m.stride == (2, 2)}
    assert strided == {"conv1", "layer2.0.conv1", "layer2.0.downsample.0"}
    dilations = {"layer1": (1, 1), "layer2": (1, 1), "layer3": (2, 2), "layer4": (4, 4)}
    for stage, dilation in dilations.items():
        large = [
            m for n, m in convolutions.items() if n.startswith(stage) and m.kernel_size == (3, 3)
        ]
        assert large
        assert all(m.dilation == m.padding == dilation for m in large)
    torchvisions = resnet_backbone(name, width=4, weights="none").state_dict()
    assert {n: t.shape for n, t in backbone.state_dict().items()} == {
        n: t.shape for n, t in torchvisions.items()
    }


def test_caffe_bottleneck_reads_every_second_pixel() -> None:
    block = caffe("resnet50").layer2[0].eval()
    features = torch.rand(1, 16, 9, 11)
    thinned = torch.zeros_like(features)
    thinned[..., ::2, ::2] = features[..., ::2, ::2]
    with torch.no_grad():
        torch.testing.assert_close(block(features), block(thinned))
        torchvisions = resnet_backbone("resnet50", width=4, weights="none").layer2[0].eval()
        assert not torch.allclose(torchvisions(features), torchvisions(thinned), rtol=1e-2)


@pytest.mark.parametrize(
    ("pixels", "ceil_mode", "features"),
    [
        ((360, 640), True, (46, 81)),
        ((512, 1024), True, (65, 129)),
        ((360, 640), False, (45, 80)),
        ((65, 97), True, (9, 13)),
    ],
)
def test_caffe_trunks_sizes(
    pixels: tuple[int, int], ceil_mode: bool, features: tuple[int, int]
) -> None:
    backbone = caffe_resnet_backbone("resnet18", width=1, weights="none", ceil_mode=ceil_mode)
    with torch.no_grad():
        maps = backbone.eval()(torch.rand(1, 3, *pixels))
    assert [m.shape for m in maps[2:]] == [(1, 4, *features), (1, 8, *features)]


@pytest.mark.parametrize("prefix", ["", "Scale.", "module.", "module.Scale."])
def test_caffe_weights_of_a_file(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "init.pth"
    state = classifier_state()
    state |= {"layer5.conv2d_list.0.weight": torch.zeros(21, 32, 3, 3)}
    state |= {"layer6.head.1.weight": torch.zeros(1)}
    torch.save(
        {
            f"{prefix}{name}": tensor
            for name, tensor in state.items()
            if not name.endswith("num_batches_tracked")
        },
        path,
    )
    backbone = caffe(weights=str(path))
    for name, parameter in backbone.named_parameters():
        assert torch.equal(parameter, state[name]), name
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert backbone.provenance == f"file init.pth sha256:{digest}"


def test_a_torchvision_trunk_takes_no_caffe_file(tmp_path: Path) -> None:
    path = tmp_path / "init.pth"
    torch.save({f"Scale.{name}": t for name, t in classifier_state().items()}, path)
    with pytest.raises(InputError, match="give a torchvision classification state dict"):
        small(weights=str(path))


def test_caffe_weights_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'imagenet', but torchvision's weights are for other"):
        caffe(weights="imagenet")
    with pytest.raises(InputError, match="is not a file; allowed: none, or the path of a Caffe"):
        caffe(weights="/no/such/file.pth")
    path = tmp_path / "init.pth"
    torch.save({"Scale.conv1.weight": torch.zeros(4, 3, 7, 7)}, path)
    with pytest.raises(InputError, match=r"1 of 100 tensors match, 99 \(bn1.weight, ...\) missing"):
        caffe(weights=str(path))
