"""The experiment log's mistakes as tests: the network's parameters.

C5j: half of a head was unused. C5k: the backbone moved three times as far in each step.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from log_lessons import (
    from_the_start,
)
from tiny_runs import (
    steps,
    tiny_run,
)
from uda.models.deeplabv2 import DeepLabV2Config


def test_c5j_how_many_branches_are_summed_is_an_option(toy_root: Path) -> None:
    """The log's early return built four branches and summed two."""
    for branches in (2, 4):
        config = DeepLabV2Config(
            backbone="resnet18", backbone_weights="none", backbone_width=8, levels=1, head="sum",
            aspp_rates=(1, 2, 18, 24), aspp_branches=branches, dropout=0.0,
        )  # fmt: skip
        network = config.build(19)
        features = torch.rand(1, 64, 6, 8)
        convolutions = network.get_submodule("main.conv2d_list").children()
        expected = torch.stack([branch(features) for branch in convolutions][:branches]).sum(dim=0)
        torch.testing.assert_close(network.get_submodule("main")(features), expected)
        # The unused branches are not among the trained weights.
        trained = {id(weight) for weight in network.head_parameters()}
        held = [id(branch.weight) in trained
                for branch in network.get_submodule("main.conv2d_list").children()]  # fmt: skip
        assert held == [place < branches for place in range(4)]


def displacements(toy_root: Path, factor: float) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """How far one step of plain SGD moves each trained weight, and the weight's gradient, in a run
    with this factor for its backbone."""
    experiment = from_the_start("gc_640x360_b2_source_only", toy_root)
    train = experiment.train
    train.optimizer = replace(train.optimizer, lr=0.1, momentum=0, nesterov=False, weight_decay=0)
    train.warmup_steps, train.backbone_lr_factor = 0, factor
    run = tiny_run(experiment)
    weights = {name: w for name, w in run.student.named_parameters() if w.requires_grad}
    before = {name: weight.detach().double() for name, weight in weights.items()}
    steps(run, 1)
    moved = {name: weight.detach().double() - before[name] for name, weight in weights.items()}
    return moved, {name: some_tensor(weight.grad).double() for name, weight in weights.items()}


def some_tensor(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


def test_c5k_the_backbones_factor_moves_the_backbone_and_nothing_else(toy_root: Path) -> None:
    """The log's accident: three times the step that its settings asked for."""
    once, gradients = displacements(toy_root, 1.0)
    thrice, _ = displacements(toy_root, 3.0)
    assert sum(name.startswith("backbone.") for name in once) > 10
    for name, moved in once.items():
        ours = name.startswith("backbone.")
        # lr * factor * gradient in the first step of a schedule. Heads have a factor of 10.
        expected = -0.1 * (1 if ours else 10) * gradients[name]
        torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-7)
        torch.testing.assert_close(thrice[name], (3 if ours else 1) * moved, rtol=1e-3, atol=1e-7)


def test_c5k_a_weight_that_is_held_thrice_moves_thrice(toy_root: Path) -> None:
    """The log's generator yields a weight once for each module that contains it; ours only once."""
    backbone = tiny_run(from_the_start("gc_640x360_b2_source_only", toy_root)).student.backbone
    stages = [child for child in backbone.children() if list(child.parameters())]

    def logs_parameters() -> Iterator[nn.Parameter]:
        for stage in stages:
            for module in stage.modules():
                yield from module.parameters()

    for name, times in (("layer4.0.conv1.weight", 3), ("layer4.0.downsample.0.weight", 4)):
        weight = backbone.get_parameter(name)
        assert sum(held is weight for held in logs_parameters()) == times
        assert sum(held is weight for held in backbone.parameters()) == 1
    student = tiny_run(from_the_start("gc_640x360_b2_source_only", toy_root)).student
    ours = [*student.backbone_parameters(), *student.head_parameters()]
    assert len({id(parameter) for parameter in ours}) == len(ours)
