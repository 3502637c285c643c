"""Networks of segmentation-models-pytorch behind the contract of all networks."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from uda.models.smp import Architecture, SmpConfig, SmpNetwork
from uda.utilities.errors import InputError

smp = pytest.importorskip("segmentation_models_pytorch")

UNET = SmpConfig(backbone="mobilenet_v2", backbone_weights="none", dropout=0.0)
DEEPLAB = replace(UNET, architecture="deeplabv3")


def built(config: SmpConfig, num_classes: int = 3) -> SmpNetwork:
    torch.manual_seed(0)
    return config.build(num_classes)


def images(height: int = 64, width: int = 96, count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("config", [UNET, DEEPLAB])
def test_logits_are_those_of_the_package(config: SmpConfig) -> None:
    network = built(config).eval()
    name = {"unet": "Unet", "deeplabv3": "DeepLabV3"}[config.architecture]
    theirs = getattr(smp, name)("mobilenet_v2", encoder_weights=None, classes=3).eval()
    theirs.encoder.load_state_dict(network.backbone.state_dict())
    theirs.decoder.load_state_dict(network.decoder.state_dict())
    theirs.segmentation_head[0].load_state_dict(network.classifier.state_dict())
    with torch.no_grad():
        output = network(images())
        expected = theirs(network.normalize(images()))
    torch.testing.assert_close(output.logits, expected, rtol=1e-4, atol=1e-5)
    assert output.auxiliary_logits is None
    stride = 32 if config is UNET else 8
    assert output.features.shape == (2, 1280, 64 // stride, 96 // stride)


@pytest.mark.parametrize("config", [UNET, DEEPLAB])
def test_images_of_any_size_are_padded_and_cut_back(config: SmpConfig) -> None:
    network = built(config).eval()
    odd = images(33, 70)
    mean = network.mean.expand(2, 3, 64 if config is UNET else 40, 96 if config is UNET else 72)
    whole = mean.clone()
    whole[..., :33, :70] = odd
    with torch.no_grad():
        logits = network(odd).logits
        assert logits.shape == (2, 3, 33, 70)
        torch.testing.assert_close(logits, network(whole).logits[..., :33, :70])


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("timm-mobilenetv3_large_100", 2_971_952),
        ("timm-tf_efficientnet_lite4", 11_725_568),
        ("timm-efficientnet-b3", 10_696_232),
        ("efficientnet-b3", 10_696_232),
        ("resnet34", 21_284_672),
        # The package draws the 138 million weights of its classifier, too.
        pytest.param("vgg16_bn", 14_723_136, marks=pytest.mark.slow),
    ],
)
def test_encoders_of_the_training_records(name: str, parameters: int) -> None:
    network = replace(UNET, backbone=name).build(15)
    assert sum(p.numel() for p in network.backbone.parameters()) == parameters
    with torch.no_grad():
        assert network(images(32, 64)).logits.shape == (2, 15, 32, 64)
    renamed = name == "timm-mobilenetv3_large_100"
    expected = f"random ({name}, which the package has as tu-tf_mobilenetv3_large_100)"
    assert network.provenance == (expected if renamed else "random")
    half = "mobilenetv3" in name or "lite" in name
    assert network.mean.flatten().tolist() == pytest.approx(
        [0.5, 0.5, 0.5] if half else [0.485, 0.456, 0.406]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "timm-regnetx_002"}, "no longer has; it would build another one"),
        ({"backbone": "mobilenet_v9"}, "there is no encoder 'mobilenet_v9'.*mobilenet_v2"),
        ({"backbone": "tu-nothing_at_all"}, "timm has no network of that name; did you mean"),
        ({"backbone": "tu-vit_tiny_patch16_224"}, "cannot be the encoder of a unet: .*choose anot"),
        pytest.param(
            {"backbone": "vgg16_bn", "architecture": "deeplabv3"},
            "cannot be the encoder of a deepl",
            marks=pytest.mark.slow,
        ),
        ({"architecture": "fpn"}, "model.architecture is 'fpn'; allowed: unet, deeplabv3"),
        (
            {"backbone_weights": "nowhere.pth"},
            "'nowhere.pth', which is not a file; allowed: none",
        ),
        ({"dropout": 1.0}, "model.dropout is 1.0"),
        (
            {"backbone": "mit_b0", "batch_norm": "frozen"},
            "this backbone has no batch normalization",
        ),
    ],
)
def test_what_cannot_be_built_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        replace(UNET, **changes).build(3)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)


def test_weights_that_cannot_be_downloaded_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*arguments: object, **settings: object) -> nn.Module:
        raise OSError("no\nnetwork")

    monkeypatch.setattr(smp.encoders, "get_encoder", offline)
    with pytest.raises(InputError, match=r"ImageNet weights of mobilenet_v2 .*weights=none") as it:
        replace(UNET, backbone_weights="imagenet").build(3)
    assert "\n" not in str(it.value)


def test_downloaded_weights_come_with_their_colors(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = built(UNET).backbone
    colors = {"input_space": "BGR", "input_range": [0, 255], "mean": [51.0, 102.0, 153.0],
              "std": [255.0, 51.0, 25.5]}  # fmt: skip
    monkeypatch.setattr(smp.encoders, "get_encoder", lambda *_, **__: trained)
    monkeypatch.setattr(smp.encoders, "get_preprocessing_params", lambda name: colors)
    network = replace(UNET, backbone_weights="imagenet").build(3)
    assert network.provenance == "segmentation-models-pytorch mobilenet_v2 imagenet"
    for name, tensor in network.backbone.state_dict().items():
        assert torch.equal(tensor, trained.state_dict()[name])
    # Written in the order of the channels that come: blue first.
    image = torch.tensor([0.6, 0.4, 0.2]).view(1, 3, 1, 1) + torch.tensor([0.1, 0.2, 1.0]).view(
        1, 3, 1, 1
    )
    assert network.normalize(image).flatten().tolist() == pytest.approx([1.0, 1.0, 1.0])


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "encoder.", "module.encoder."])
def test_weights_from_a_file(prefix: str, tmp_path: Path) -> None:
    trained = built(UNET).backbone
    state = {prefix + name: tensor for name, tensor in trained.state_dict().items()}
    if prefix:
        state[prefix.replace("encoder", "decoder") + "weight"] = torch.zeros(3)
    torch.save(state, tmp_path / "weights.pth")
    torch.manual_seed(7)
    network = replace(UNET, backbone_weights=str(tmp_path / "weights.pth")).build(3)
    for name, tensor in network.backbone.state_dict().items():
        assert torch.equal(tensor, trained.state_dict()[name])
    assert network.provenance.startswith("file weights.pth sha256:")
    with pytest.raises(InputError, match=r"does not hold the weights of a resnet34: .*0 of"):
        replace(network_config(tmp_path), backbone="resnet34").build(3)


def network_config(folder: Path) -> SmpConfig:
    return replace(UNET, backbone_weights=str(folder / "weights.pth"))


@pytest.mark.parametrize("architecture", ["unet", "deeplabv3"])
def test_dropout_drops_in_training(architecture: Architecture) -> None:
    for dropout in (0.0, 0.5):
        network = built(replace(UNET, architecture=architecture, dropout=dropout))
        network.backbone.eval()
        with torch.no_grad():
            features = network.backbone(images())
            for layer in network.decoder.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval()
            two = [network.dropout(network.decoder(features)) for _ in range(2)]
        assert torch.equal(*two) == (dropout == 0.0)


def test_batch_norm_of_the_encoder_alone_is_frozen() -> None:
    frozen = built(replace(UNET, batch_norm="frozen"))
    layers = [m for m in frozen.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert layers
    assert not any(layer.training for layer in layers)
    assert not any(p.requires_grad for layer in layers for p in layer.parameters())
    heads = [m for m in frozen.decoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(layer.training for layer in heads)
    count = len(frozen.backbone_parameters()) + len(frozen.head_parameters())
    assert count == sum(p.requires_grad for p in frozen.parameters())


def test_one_image_cannot_train_the_pyramid() -> None:
    with pytest.raises(InputError, match="a batch of 1 image cannot train DeepLabV3 of segm"):
        built(DEEPLAB)(images(count=1))
    built(DEEPLAB).eval()(images(count=1))


def test_a_network_of_no_memory_has_the_same_tensors() -> None:
    """Snapshots are checked against one before they are loaded."""
    with torch.device("meta"):
        shapes = {n: t.shape for n, t in UNET.build(3).state_dict().items()}
        assert replace(UNET, backbone="efficientnet-b3").build(3).mean.is_meta
    assert shapes == {n: t.shape for n, t in built(UNET).state_dict().items()}
