"""The classifier of every network of the library is found without its name."""

import pytest

from networks import small_network
from uda.models.classifier import classifier_parameters
from uda.models.config import ModelConfig
from uda.models.decoders.base import DecoderConfig, decoder_configs
from uda.models.decoders.daformer import DAFormerConfig
from uda.models.decoders.segformer import SegFormerConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig
from uda.models.hrda import HrdaConfig
from uda.models.mask2former import Mask2FormerConfig
from uda.models.registry import model_configs
from uda.models.segmenter import Segmenter

CLASSES = 23  # the width of no layer but the last


def names(segmenter: Segmenter) -> set[str]:
    found = {id(p) for p in classifier_parameters(segmenter)}
    return {name for name, p in segmenter.named_parameters() if id(p) in found}


def of_classes(segmenter: Segmenter) -> set[str]:
    """The trained parameters with one row for each class."""
    return {n for n, p in segmenter.named_parameters() if len(p) == CLASSES and p.requires_grad}


def composed(decoder: DecoderConfig, encoder: str = "resnet18", **others: object) -> ModelConfig:
    settings = EncoderConfig(name=encoder, weights="none")
    settings.width = settings.width if "mit" in encoder else 8
    return EncoderDecoderConfig(encoder=settings, decoder=decoder, **others)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", model_configs().values(), ids=lambda kind: kind.__name__)
def test_every_networks_classifier_is_found(kind: type[ModelConfig]) -> None:
    if kind.__module__.endswith("smp"):
        pytest.importorskip("segmentation_models_pytorch")
    if kind is Mask2FormerConfig:
        pytest.importorskip("transformers")
    segmenter = small_network(kind).build(CLASSES)
    found = names(segmenter)
    if kind is Mask2FormerConfig:  # scores are products of classes and masks
        assert {n.rsplit(".", 1)[0].rpartition("heads.")[2] for n in found} >= {"classifier"}
        assert not any(name.startswith("backbone.") for name in found)
        return
    assert found == of_classes(segmenter)
    assert found
    assert segmenter.training
    assert not segmenter.levels_seen


@pytest.mark.parametrize("kind", decoder_configs().values(), ids=lambda kind: kind.__name__)
def test_every_decoders_classifier_is_found(kind: type[DecoderConfig]) -> None:
    segmenter = composed(kind()).build(CLASSES)
    assert names(segmenter) == of_classes(segmenter) != set()


def test_the_classifier_of_a_network_with_details_is_found() -> None:
    head = DAFormerConfig(channels=4, fusion="conv1")
    hrda = HrdaConfig(crop=32, attention=head)
    segmenter = composed(SegFormerConfig(channels=4), "mit_b0", hrda=hrda).build(CLASSES)
    assert names(segmenter) == of_classes(segmenter)
    assert any(name.startswith("hrda.attention.") for name in names(segmenter))
