"""What holds for every network of the registry."""

from dataclasses import replace

import pytest
import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from networks import small_network
from tiny_runs import tiny_model
from uda.models.config import ModelConfig
from uda.models.encoders.base import FeatureMaps
from uda.models.registry import model_configs
from uda.models.segmenter import Perturbation, SegmentationOutput
from uda.models.smp import SmpConfig
from uda.optim.teacher import disable_dropout

CLASSES = 5
TINY: dict[str, ModelConfig] = {
    **{name: small_network(kind) for name, kind in model_configs().items()},
    "deeplabv3plus/timm": replace(tiny_model(), backbone="timm/resnet18", backbone_width=64),
    "smp/deeplabv3": SmpConfig(
        backbone="mobilenet_v2", backbone_weights="none", architecture="deeplabv3"
    ),
}


@pytest.mark.parametrize("config", TINY.values(), ids=TINY)
class TestEveryNetwork:
    @pytest.fixture(autouse=True)
    def _seeded(self) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(0)

    @pytest.mark.parametrize("size", [(64, 96), (61, 90)], ids=["64x96", "61x90"])
    def test_the_deepest_features_without_decoding(
        self, config: ModelConfig, size: tuple[int, int]
    ) -> None:
        network = config.build(CLASSES).eval()
        images = torch.rand(2, 3, *size)
        with torch.no_grad():
            assert torch.equal(network.deepest_features(images), network(images).features)

    @pytest.mark.parametrize("size", [(64, 96), (61, 90)], ids=["64x96", "61x90"])
    def test_the_decoder_reads_what_perturb_makes_of_the_features(
        self, config: ModelConfig, size: tuple[int, int]
    ) -> None:
        network = config.build(CLASSES)
        images = torch.rand(2, 3, *size)
        shapes = []

        def output(perturb: Perturbation | None = None) -> SegmentationOutput:
            torch.manual_seed(1)  # for dropout
            return network(images, perturb=perturb)

        def unchanged(features: FeatureMaps) -> FeatureMaps:
            shapes.append([feature.shape for feature in features])
            return features

        def zeroed(features: FeatureMaps) -> FeatureMaps:
            return tuple(torch.zeros_like(feature) for feature in features)

        with torch.no_grad():
            plain, same = output(), output(unchanged)
            assert _equal(plain, same)
            assert not torch.equal(plain.logits, output(zeroed).logits)
        assert len(shapes[0]) >= 2
        assert all(len(shape) == 4 and shape[0] == 2 for shape in shapes[0])

    @pytest.mark.parametrize("size", [(65, 97), (17, 33)], ids=["65x97", "17x33"])
    def test_logits_of_any_size_and_a_state_dict_that_restores_them(
        self, config: ModelConfig, size: tuple[int, int]
    ) -> None:
        network, other = config.build(CLASSES).eval(), config.build(CLASSES).eval()
        other.load_state_dict(network.state_dict())
        images = torch.rand(1, 3, *size)
        with torch.no_grad():
            output = network(images)
            assert _equal(output, other(images))
        assert output.logits.shape == (1, CLASSES, *size)
        assert (output.auxiliary_logits is not None) == config.has_auxiliary_head
        assert network.has_auxiliary_head == config.has_auxiliary_head

    def test_gradients_reach_the_encoder_through_perturbed_features(
        self, config: ModelConfig
    ) -> None:
        network = config.build(CLASSES)

        def halved(features: FeatureMaps) -> FeatureMaps:
            return tuple(0.5 * feature for feature in features)

        network(torch.rand(2, 3, 64, 64), perturb=halved).logits.square().mean().backward()
        first = network.backbone_parameters()[0]
        assert first.grad is not None
        assert first.grad.any()


def _equal(one: SegmentationOutput, other: SegmentationOutput) -> bool:
    ours, theirs = one.tensors(), other.tensors()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def test_without_dropout_no_value_and_no_branch_is_dropped() -> None:
    network = nn.Sequential(
        nn.Dropout(0.5), nn.Dropout2d(0.5), DropPath(0.5), StochasticDepth(0.5, mode="row")
    )
    images = torch.rand(8, 4, 2, 2)
    disable_dropout(network.train())
    assert torch.equal(network(images), images)


def test_without_dropout_normalization_keeps_its_mode() -> None:
    kept, frozen, dropped = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.Dropout(0.5)
    network = nn.Sequential(kept, nn.Sequential(frozen, dropped)).train()
    frozen.eval()
    disable_dropout(network)
    assert (kept.training, frozen.training, dropped.training) == (True, False, False)


class Noisy(nn.Module):
    """A layer of nobody's list."""

    def forward(self, values: Tensor) -> Tensor:
        attended = nn.functional.scaled_dot_product_attention(
            values, values, values, dropout_p=0.5 if self.training else 0.0
        )
        return attended + torch.rand_like(attended) if self.training else attended


def test_without_dropout_no_layer_of_any_kind_is_random() -> None:
    network = nn.Sequential(nn.BatchNorm2d(4), Noisy())
    disable_dropout(network.train())
    values = torch.rand(2, 4, 3, 5)
    assert torch.equal(network(values), network(values))
