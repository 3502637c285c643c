"""ViT-Adapter and deformable attention: against loops, at the start, sizes, rates."""

import pytest
import torch
from torch import Tensor, nn

from uda.models.decoders.vfm_uda_plusplus import VfmUdaPlusPlusConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig, FeatureShapes
from uda.models.encoders.deformable import DeformableAttention, centers
from uda.models.encoders.registry import build_encoder
from uda.models.encoders.vit_adapter import VitAdapter
from uda.optim.groups import student_groups
from uda.optim.settings import TrainConfig
from uda.utilities.errors import InputError

NAME = "dinov2_vits14_adapter"


def adapter(**changes: object) -> VitAdapter:
    torch.manual_seed(0)
    config = EncoderConfig(name=NAME, weights="none", width=4, **changes)  # type: ignore[arg-type]
    built = build_encoder(config)
    assert isinstance(built, VitAdapter)
    return built


def model() -> EncoderDecoderConfig:
    return EncoderDecoderConfig(
        encoder=EncoderConfig(name=NAME, weights="none", width=8),
        decoder=VfmUdaPlusPlusConfig(),
        dropout=0.0,
    )


def bilinear(values: Tensor, x: float, y: float) -> Tensor:
    """Values (rows, columns, C) at a place in cells, whose centers are whole numbers; 0 outside."""
    rows, columns, channels = values.shape
    total = torch.zeros(channels, dtype=values.dtype)
    left, top = int(torch.tensor(x).floor()), int(torch.tensor(y).floor())
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < rows and 0 <= column < columns:
                total += (1 - abs(y - row)) * (1 - abs(x - column)) * values[row, column]
    return total


def looped(
    layer: DeformableAttention,
    queries: Tensor,
    places: Tensor,
    tokens: Tensor,
    sizes: list[tuple[int, int]],
) -> Tensor:
    """The attention of Deformable DETR, one sum after the other."""
    values = layer.values(tokens)
    width = values.shape[2] // layer.heads
    results = torch.zeros(*queries.shape[:2], values.shape[2], dtype=queries.dtype)
    for image, these in enumerate(queries):
        for number, query in enumerate(these):
            offsets = layer.offsets(query).view(layer.heads, layer.levels, layer.points, 2)
            weights = layer.weights(query).view(layer.heads, -1).softmax(1)
            weights = weights.view(layer.heads, layer.levels, layer.points)
            for head in range(layer.heads):
                part = slice(head * width, (head + 1) * width)
                first = 0
                for level, (rows, columns) in enumerate(sizes):
                    cells = values[image, first : first + rows * columns, part]
                    first += rows * columns
                    for point in range(layer.points):
                        x = places[number, 0] + offsets[head, level, point, 0] / columns
                        y = places[number, 1] + offsets[head, level, point, 1] / rows
                        found = bilinear(
                            cells.view(rows, columns, width),
                            float(x * columns - 0.5),
                            float(y * rows - 0.5),
                        )
                        results[image, number, part] += weights[head, level, point] * found
    return layer.out(results)


def test_deformable_attention_is_its_sums() -> None:
    torch.manual_seed(0)
    layer = DeformableAttention(8, 2, levels=3, points=2).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    sizes = [(4, 5), (2, 3), (1, 2)]
    queries = torch.randn(2, 6, 8, dtype=torch.float64)
    tokens = torch.randn(2, 28, 8, dtype=torch.float64)
    places = centers((2, 3), queries)
    with torch.no_grad():
        wanted = looped(layer, queries, places, tokens, sizes)
        found = layer(queries, places, tokens, sizes)
    assert torch.allclose(found, wanted, atol=1e-12)


def test_centers_are_in_the_order_of_tokens() -> None:
    wanted = [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    assert centers((2, 2), torch.zeros(())).tolist() == wanted
    assert centers((1, 2), torch.zeros(())).tolist() == [[0.25, 0.5], [0.75, 0.5]]


def test_heads_begin_in_directions_of_their_own() -> None:
    layer = DeformableAttention(16, 4, levels=1)
    bias = layer.offsets.bias.detach().view(4, 4, 2)
    for head, (x, y) in enumerate([(1, 0), (0, 1), (-1, 0), (0, -1)]):
        wanted = torch.tensor([[x * n, y * n] for n in (1, 2, 3, 4)], dtype=torch.float32)
        assert torch.allclose(bias[head], wanted, atol=1e-6)
    assert layer.offsets.weight.abs().max() == layer.weights.weight.abs().max() == 0


def test_the_transformer_is_the_plain_one_at_first() -> None:
    """gamma is 0, so nothing is injected; each map is the prior's plus the tokens of a quarter."""
    network = adapter().eval()
    for name, parameter in network.vit.named_parameters():
        if "gamma" in name:
            nn.init.ones_(parameter)
    images = torch.randn(1, 3, 112, 224)
    seen: list[Tensor] = []
    last = network.vit.blocks[-1]
    last.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        plain = network.vit.hidden(images)[-1]
        network(images)
        assert torch.equal(seen[0], seen[1])
        assert torch.allclose(seen[0], plain)
        for interaction in network.interactions:
            nn.init.ones_(interaction.get_parameter("injector.gamma"))
        network(images)
    assert not torch.allclose(seen[2], plain, atol=1e-3)


def test_sizes_and_what_learns() -> None:
    network = adapter().train()
    images = torch.randn(2, 3, 224, 224)
    maps = network(images)
    assert [m.shape for m in maps] == [(2, 24, side, side) for side in (56, 28, 14, 7)]
    assert network.shapes == FeatureShapes((24,) * 4, (4, 8, 16, 32))
    torch.stack([m.square().mean() for m in maps]).sum().backward()
    without = {n for n, p in network.named_parameters() if p.grad is None}
    assert without == {"vit.mask_token", "vit.norm.weight", "vit.norm.bias"}
    assert not network.vit.norm.weight.requires_grad
    assert [norm.momentum for norm in network.norms] == [0.01] * 4
    hidden = network.eval().hiding(images, lambda h, w: torch.ones(2, h, w, dtype=torch.bool))
    assert not torch.equal(hidden[-1], network(images)[-1])


@pytest.mark.parametrize("side", [56, 168])
def test_coarse_cells_are_rounded_up(side: int) -> None:
    network = model().build(5)
    maps = network.encode(torch.randn(2, 3, side, 112))
    assert [m.shape[2] for m in maps] == [-(-side // stride) for stride in (4, 8, 16, 32)]
    assert network(torch.rand(2, 3, side - 5, 100)).logits.shape == (2, 5, side - 5, 100)


def test_the_backward_pass_computes_the_same_again() -> None:
    gradients = []
    for checkpointing in (False, True):
        network = adapter(checkpointing=checkpointing).train()
        torch.manual_seed(1)
        images = torch.randn(2, 3, 224, 224)
        torch.stack([m.square().mean() for m in network(images)]).sum().backward()
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    for once, again in zip(*gradients, strict=True):
        assert torch.equal(once, again)


def test_rates_fall_with_depth_and_the_adapter_learns_as_the_head() -> None:
    """ViT-S with decay 0.9: block 11 0.1, block 10 0.09, block 0 0.0313811, stem 0.0282430."""
    student = model().build(5)
    train = TrainConfig(
        steps=1, batch_size=1, backbone_lr_factor=0.1, head_lr_factor=1.0, layer_decay=0.9
    )
    groups = student_groups(student, train)
    assert len(groups) == 1 + 12 + 1
    assert groups[12]["lr_factor"] == pytest.approx(0.1)
    assert groups[11]["lr_factor"] == pytest.approx(0.09)
    assert groups[1]["lr_factor"] == pytest.approx(0.0313811, rel=1e-5)
    assert groups[0]["lr_factor"] == pytest.approx(0.0282430, rel=1e-5)
    assert groups[-1]["lr_factor"] == 1
    names = {id(p): name for name, p in student.named_parameters()}
    own = {names[id(p)].split(".")[0:2][-1] for p in groups[-1]["params"]}
    assert {"prior", "levels", "interactions", "up", "norms"} < own
    assert "vit" not in own
    trained = [p for p in student.parameters() if p.requires_grad]
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(map(id, trained))


@pytest.mark.parametrize(
    ("letter", "adapter_size", "decoder_size"),
    [("s", 4_353_680, 974_928), ("l", 23_236_800, 6_921_088)],
)
def test_parameters(letter: str, adapter_size: int, decoder_size: int) -> None:
    """Of ViT-L: four injectors of 1645632, six extractors of 1781184, a prior of 1760576, the
    transposed convolution's 4195328, embeddings and norms 11264."""
    config = model()
    config.encoder = EncoderConfig(name=f"dinov2_vit{letter}14_adapter", weights="none")
    with torch.device("meta"):
        network = config.build(19)
    assert isinstance(network.backbone, VitAdapter)
    counts = (
        sum(p.numel() for p in network.backbone.added_parameters()),
        sum(p.numel() for p in network.decoder.parameters()),
    )
    assert counts == (adapter_size, decoder_size)


def test_the_pyramid_head_doubles_and_halves() -> None:
    maps = FeatureShapes((16,) * 4, (4, 8, 16, 32))
    decoder = VfmUdaPlusPlusConfig().build(maps, num_classes=3, dropout=0)
    features = tuple(torch.randn(2, 16, side, 2 * side) for side in (16, 8, 4, 2))
    assert decoder(features).shape == (2, 3, 16, 32)
    widths = [step.get_parameter("mix.weight").shape[0] for step in decoder.steps]
    assert widths == [8, 4, 2]
    assert decoder.out.bias is None
    assert all(not step.get_parameter("up.bias").any() for step in decoder.steps)
    with pytest.raises(InputError, match=r"halves the channels 3 times, .* has 12; allowed"):
        VfmUdaPlusPlusConfig().check(FeatureShapes((12,) * 4, (4, 8, 16, 32)))


def test_only_dinov2s_files_fill_it() -> None:
    with pytest.raises(InputError, match=r"such as dinov2_vits14_pretrain.pth"):
        build_encoder(EncoderConfig(name=NAME, weights="imagenet"))
    with pytest.raises(InputError, match="not a file; allowed: none, or the path of a DINOv2"):
        build_encoder(EncoderConfig(name=NAME, weights="nowhere", width=4))
