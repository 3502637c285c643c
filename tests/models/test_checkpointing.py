"""Stages that are computed again in the backward pass: the same bits for less memory."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tiny_runs import CPU, assert_same, batch_for, tiny_preset
from uda.models.decoders.segformer import SegFormerConfig
from uda.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig
from uda.models.encoders.mit import MixTransformer
from uda.models.encoders.resnet import ResNetBackbone
from uda.models.encoders.vit import VisionTransformer
from uda.models.segmenter import BatchNormMode
from uda.objectives.supervised import SupervisedConfig
from uda.training.run import Run, start_run
from uda.training.step import train_step

IMAGES = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))  # of two views
ENCODERS = {
    "resnet": EncoderConfig(name="resnet18", weights="none", width=16),
    "mit": EncoderConfig(name="mit_b0", weights="none", drop_path=0.5),
    "vit": EncoderConfig(name="dinov2_vits14", weights="none", drop_path=0.5),
}


def network_of(name: str, mode: BatchNormMode = "train") -> EncoderDecoder:
    torch.manual_seed(3)
    decoder = SegFormerConfig(channels=16)
    network = EncoderDecoderConfig(encoder=ENCODERS[name], decoder=decoder, batch_norm=mode)
    return network.build(5)


def learned(network: EncoderDecoder, *, checkpointing: bool, bfloat16: bool = False) -> object:
    """Loss, gradients and buffers after the graphs of two views were there at once."""
    network.backbone.checkpointing = checkpointing  # type: ignore[assignment]
    network.zero_grad()
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        outputs = [network(images).logits for images in IMAGES]
    loss = sum(logits.square().mean() for logits in outputs) - (outputs[0] * outputs[1]).mean()
    loss.backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    drawn = torch.rand(3)  # what comes after is as random as without
    return [loss.detach(), gradients, dict(network.named_buffers()), drawn]


@pytest.mark.parametrize(
    ("name", "mode", "bfloat16"),
    [
        ("resnet", "train", False),
        ("resnet", "train", True),
        ("resnet", "frozen_affine", False),
        ("resnet", "frozen", False),
        ("mit", "train", False),
        ("mit", "train", True),
        ("vit", "train", False),
    ],
)
def test_no_bit_changes(name: str, mode: BatchNormMode, bfloat16: bool) -> None:
    """Gradients, batch norm's statistics and counts, and the masks of drop path and dropout."""
    plain = learned(network_of(name, mode), checkpointing=False, bfloat16=bfloat16)
    again = learned(network_of(name, mode), checkpointing=True, bfloat16=bfloat16)
    assert_same(plain, again)


def test_running_statistics_move_once() -> None:
    network = network_of("resnet")
    buffers = dict(network.named_buffers())
    learned(network, checkpointing=True)
    counts = [b for name, b in network.named_buffers() if name.endswith("num_batches_tracked")]
    assert {int(count) for count in counts} == {2}, "one for each view"
    assert all(buffer is buffers[name] for name, buffer in network.named_buffers())


@contextmanager
def calls_of(module: nn.Module) -> Iterator[list[bool]]:
    """For each call of a module, whether gradients were wanted."""
    calls: list[bool] = []

    def note(*_: Any) -> None:  # noqa: ANN401
        calls.append(torch.is_grad_enabled())

    handle = module.register_forward_pre_hook(note)
    yield calls
    handle.remove()


def stages_of(network: EncoderDecoder) -> list[nn.Module]:
    backbone = network.backbone
    if isinstance(backbone, ResNetBackbone):
        return [backbone.get_submodule(f"layer{stage}.0") for stage in (1, 2, 3, 4)]
    if isinstance(backbone, VisionTransformer):
        return [backbone.get_submodule(f"blocks.{number}") for number in (0, 3, 6, 9)]
    assert isinstance(backbone, MixTransformer)
    return [backbone.get_submodule(f"block{stage}.0") for stage in (1, 2, 3, 4)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_every_stage_is_computed_twice_and_only_for_gradients(name: str) -> None:
    network = network_of(name)
    with ExitStack() as stack:
        calls = [stack.enter_context(calls_of(stage)) for stage in stages_of(network)]
        learned(network, checkpointing=True)
        assert calls == [[True] * 4] * 4, "two views, forward and backward"
        with torch.no_grad():
            network(IMAGES[0])
        assert calls == [[True] * 4 + [False]] * 4
        network.eval()(IMAGES[0]).logits.mean().backward()
        assert calls == [[True] * 4 + [False, True]] * 4, "evaluation is not checkpointed"


def kept_bytes(network: EncoderDecoder, *, checkpointing: bool) -> int:
    """Of the tensors that a forward pass keeps for the backward pass."""
    network.backbone.checkpointing = checkpointing  # type: ignore[assignment]
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        features = network.backbone(IMAGES[0, ..., :56, :56])
    assert features[0].requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("name", ENCODERS)
def test_little_is_kept(name: str) -> None:
    network = network_of(name)
    weights = sum(p.numel() * p.element_size() for p in network.backbone.parameters())
    plain = kept_bytes(network, checkpointing=False)
    assert plain > weights
    assert kept_bytes(network, checkpointing=True) < 0.2 * plain


def updated(toy_root: Path, *, checkpointing: bool) -> Run:
    """Two updates of a student and its teacher, with dropout and drop path."""
    experiment = tiny_preset("toy_class_mix", toy_root)
    experiment.model = EncoderDecoderConfig(
        encoder=ENCODERS["mit"], decoder=SegFormerConfig(channels=16), dropout=0.2
    )
    experiment.objectives["supervised"] = SupervisedConfig(auxiliary_weight=0.0)
    for objective in experiment.objectives.values():
        objective.start_step = 0
    experiment.model.encoder.checkpointing = checkpointing
    run = start_run(experiment, num_classes=19, device=CPU)
    batch = batch_for(experiment)
    for _ in range(2):
        train_step(run, batch)
    return run


@pytest.mark.slow
def test_a_student_and_its_teacher_learn_the_same(toy_root: Path) -> None:
    plain, again = (updated(toy_root, checkpointing=on) for on in (False, True))
    assert plain.teacher is not None
    assert_same(plain.state(), again.state())
