"""Groups of parameters: learning rates by layer, and what does not decay."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from tiny_runs import COVERING_STEPS, batch_for, flat, tiny_preset, tiny_run
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import Encoder, EncoderConfig, FeatureMaps
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.optim.groups import freeze_unlearned, student_groups, without_decay
from uda.optim.optimizers import OptimizerConfig
from uda.optim.settings import Learned, TrainConfig, Undecayed
from uda.training.run import Run
from uda.training.step import train_step
from uda.utilities.config_tree import from_plain, to_plain
from uda.utilities.errors import InputError


def test_backbone_and_heads_are_the_two_groups(toy_root: Path) -> None:
    run = tiny_run(tiny_preset("gc_640x360_b2_source_only", toy_root))
    backbone, heads = run.optimizers["student"].param_groups
    names = {id(weight): name for name, weight in run.student.named_parameters()}
    assert all(names[id(weight)].startswith("backbone.") for weight in backbone["params"])
    assert not any(names[id(weight)].startswith("backbone.") for weight in heads["params"])
    assert heads["lr_factor"] == 10


def test_norms_and_embeddings_do_not_decay_where_it_is_asked_for(toy_root: Path) -> None:
    experiment = tiny_preset("gc_640x360_b2_source_only", toy_root)
    experiment.model.batch_norm = "train"
    experiment.train.decay_norms = False
    run = tiny_run(experiment)
    names = {id(weight): name for name, weight in run.student.named_parameters()}
    norms = {
        f"{name}.{kind}"
        for name, layer in run.student.named_modules()
        if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm)
        for kind in ("weight", "bias")
    }
    groups = run.optimizers["student"].param_groups
    assert [(g["weight_decay"], g["lr_factor"]) for g in groups] == [
        (5e-4, 1.0), (0.0, 1.0), (5e-4, 10.0), (0.0, 10.0)
    ]  # fmt: skip
    left_alone = {names[id(p)] for g in groups if g["weight_decay"] == 0 for p in g["params"]}
    assert left_alone == norms
    assert sum(len(g["params"]) for g in groups) == len(names)


def test_a_network_without_norms_to_spare_is_refused() -> None:
    network = nn.Conv2d(1, 1, 1)
    with pytest.raises(InputError, match="trains no normalization and no embedding"):
        without_decay(network, [{"params": list(network.parameters()), "lr_factor": 1.0}])


class Transformer(Encoder):
    """The parameters of a ViT, and nothing that it does."""

    def __init__(self, depth: int = 12) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 4))
        self.patch_embed = nn.Conv2d(3, 4, 2, stride=2)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(4)

    def forward(self, images: Tensor) -> FeatureMaps:
        raise NotImplementedError

    def layers(self) -> list[list[nn.Parameter]]:
        stem = [self.cls_token, self.pos_embed, *self.patch_embed.parameters()]
        blocks = [list(block.parameters()) for block in self.blocks]
        blocks[-1] += self.norm.parameters()
        return [stem, *blocks]

    def entries(self, state: Mapping[str, object]) -> dict[str, object]:
        raise NotImplementedError


class Network(Segmenter):
    def __init__(self, backbone: nn.Module | None = None) -> None:
        super().__init__(backbone or Transformer(), provenance="none")
        self.head = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))

    @property
    def has_auxiliary_head(self) -> bool:
        return False

    def decode(self, features: FeatureMaps) -> SegmentationOutput:
        raise NotImplementedError


class NoNorms(Network):
    """A classifier of colors."""

    def __init__(self) -> None:
        super().__init__(nn.Identity())
        self.head = nn.Sequential(nn.Conv2d(3, 4, 1))

    def decode(self, features: FeatureMaps) -> SegmentationOutput:
        return SegmentationOutput(self.head(*features), None, features[-1])

    def encode(self, normalized: Tensor) -> FeatureMaps:
        return (normalized,)


def settings(**changes: object) -> TrainConfig:
    plain = {"steps": 1, "batch_size": 1, "backbone_lr_factor": 0.1, "head_lr_factor": 1.0}
    return from_plain(TrainConfig, plain | changes, origin="here")


def test_each_layer_learns_more_slowly_than_the_next_deeper_one() -> None:
    """The values of VFM-UDA++ for a ViT-B."""
    network = Network()
    groups = student_groups(network, settings(layer_decay=0.9))
    names = {id(weight): name for name, weight in network.named_parameters()}
    factors = [group["lr_factor"] for group in groups]
    assert len(groups) == 14
    assert factors[:2] == pytest.approx([0.0282430, 0.0313811], abs=5e-8)
    assert factors[-3:] == pytest.approx([0.09, 0.1, 1.0])
    assert factors[:-1] == sorted(factors[:-1])
    assert [names[id(p)] for p in groups[0]["params"]] == [
        "backbone.cls_token", "backbone.pos_embed",
        "backbone.patch_embed.weight", "backbone.patch_embed.bias",
    ]  # fmt: skip
    assert names[id(groups[12]["params"][-1])] == "backbone.norm.bias"
    assert sorted(names) == sorted(id(p) for group in groups for p in group["params"])


def test_layers_and_decay_are_split_together() -> None:
    network = Network()
    train = settings(layer_decay=0.5, decay_norms=False, undecayed="one_dimensional")
    groups = student_groups(network, train)
    assert [(g["lr_factor"], g.get("weight_decay")) for g in groups[-4:]] == [
        (0.1, None), (0.1, 0.0), (1.0, None), (1.0, 0.0)
    ]  # fmt: skip
    assert sum(len(g["params"]) for g in groups) == len(list(network.parameters()))


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("norms", {"pos_embed", "0.0.weight", "0.0.bias", "norm.weight", "norm.bias",
                   "head.1.weight", "head.1.bias"}),
        ("encoder_norms", {"0.0.weight", "0.0.bias", "norm.weight", "norm.bias"}),
        ("one_dimensional", {"pos_embed", "cls_token", "patch_embed.bias", "0.0.weight", "0.0.bias",
                             "0.1.bias", "norm.weight", "norm.bias", "head.0.bias",
                             "head.1.weight", "head.1.bias"}),
    ],
)  # fmt: skip
def test_what_does_not_decay(kind: Undecayed, found: set[str]) -> None:
    network = Network(Transformer(depth=1))
    groups = student_groups(network, settings(decay_norms=False, undecayed=kind))
    names = {
        id(p): name.removeprefix("backbone.").removeprefix("blocks.")
        for name, p in network.named_parameters()
    }
    kept = [id(p) for g in groups if g.get("weight_decay") == 0 for p in g["params"]]
    assert {names[p] for p in kept} == found
    assert len(kept) == len(found)


def test_daformers_rule_exempts_every_norm_of_a_convolutional_encoder() -> None:
    config = EncoderDecoderConfig(encoder=EncoderConfig(name="resnet18", weights="none", width=16))
    network = config.build(2)
    groups = student_groups(network, settings(decay_norms=False, undecayed="encoder_norms"))
    kept = {id(p) for g in groups if g.get("weight_decay") == 0 for p in g["params"]}
    norms = [m for m in network.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert kept == {id(p) for norm in norms for p in norm.parameters()}


def test_a_file_of_earlier_days_reads_as_it_was_meant() -> None:
    """Without the new fields, decay_norms=false exempts what it always did."""
    old = to_plain(settings(decay_norms=False))
    for name in ("undecayed", "layer_decay", "warmup", "warmup_start"):
        del old[name]
    train = from_plain(TrainConfig, old, origin="file")
    assert train == settings(decay_norms=False)
    assert (train.undecayed, train.layer_decay) == ("norms", 1.0)


def test_what_there_is_nothing_of_is_refused() -> None:
    network = Network(nn.Conv2d(3, 4, 1))
    with pytest.raises(InputError, match=r"does not tell the order of its layers: use --set train"):
        student_groups(network, settings(layer_decay=0.9))
    with pytest.raises(InputError, match="trains no normalization in its encoder: add --set train"):
        student_groups(network, settings(decay_norms=False, undecayed="encoder_norms"))
    for value in (0.0, 1.5):
        with pytest.raises(InputError, match=rf"train\.layer_decay is {value}; allowed: above 0"):
            settings(layer_decay=value).check("train")


def layered(toy_root: Path) -> Run:
    experiment = tiny_preset("gc_640x360_b2_source_only", toy_root)
    experiment.model.batch_norm = "train"
    experiment.train.optimizer = OptimizerConfig(name="adamw", lr=1e-3, weight_decay=0.01)
    experiment.train.layer_decay = 0.9
    experiment.train.decay_norms, experiment.train.undecayed = False, "one_dimensional"
    return tiny_run(experiment)


def test_a_resumed_run_ends_with_the_same_bits(toy_root: Path) -> None:
    run = layered(toy_root)
    batch = batch_for(run.experiment)
    train_step(run, batch)
    again = layered(toy_root)
    again.load_state(deepcopy(run.state()), origin="resume.pth")
    for one in (run, again):
        train_step(one, batch)
    ours, theirs = (flat(one.state()) for one in (run, again))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        other = theirs[name]
        same = (
            torch.equal(value, cast(Tensor, other)) if isinstance(value, Tensor) else value == other
        )
        assert same, name


def test_a_state_of_other_layers_is_refused(toy_root: Path) -> None:
    run = layered(toy_root)
    plain = tiny_run(tiny_preset("gc_640x360_b2_source_only", toy_root))
    with pytest.raises(InputError, match="optimizer are not those of this run"):
        run.load_state(plain.state() | {"student": run.student.state_dict()}, origin="resume.pth")


def test_every_trained_weight_is_in_one_group_of_one_optimizer(toy_root: Path) -> None:
    """In every kind of preset; a weight that is listed twice would learn twice as fast."""
    for name in COVERING_STEPS:
        run = tiny_run(tiny_preset(name, toy_root))
        listed = [
            id(weight)
            for optimizer in run.optimizers.values()
            for group in optimizer.param_groups
            for weight in group["params"]
        ]
        trained = {id(weight) for weight in run.student.parameters() if weight.requires_grad}
        for objective in run.objectives.values():
            if objective.optimizer is not None:
                trained |= {id(w) for w in objective.parameters() if w.requires_grad}
        assert len(listed) == len(set(listed)), f"{name} lists a weight twice"
        assert set(listed) == trained, name


# --- which parameters learn


def learned(network: Segmenter) -> set[str]:
    return {name for name, p in network.named_parameters() if p.requires_grad}


def test_only_weights_and_biases_of_norms_learn(toy_root: Path) -> None:
    experiment = tiny_preset("toy_source_only", toy_root)
    experiment.train.learned = "norms"
    run = tiny_run(experiment)
    before = {name: p.clone() for name, p in run.student.named_parameters()}
    train_step(run, batch_for(experiment))
    norms = (nn.BatchNorm2d, nn.GroupNorm)
    layers = {n for n, layer in run.student.named_modules() if isinstance(layer, norms)}
    changed = {n for n, p in run.student.named_parameters() if not torch.equal(p, before[n])}
    of_norms = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert changed == of_norms == learned(run.student)
    assert all((p.grad is None) == (n not in of_norms) for n, p in run.student.named_parameters())


def test_the_classifier_stays_where_it_is_asked_to(toy_root: Path) -> None:
    experiment = tiny_preset("toy_source_only", toy_root)
    free = learned(tiny_run(experiment).student)
    experiment.train.learned = "all_but_classifier"
    run = tiny_run(experiment)
    stays = {n for n, p in run.student.named_parameters() if len(p) == 19 and n in free}
    assert learned(run.student) == free - stays
    assert len(stays) >= 2
    train_step(run, batch_for(experiment))


@pytest.mark.parametrize(
    ("network", "kind", "said"),
    [
        (NoNorms, "norms", "no normalization layer with a weight or bias that learns; use --set m"),
        (NoNorms, "all_but_classifier", "no layers but its classifier; use --set train.learned=a"),
    ],
)
def test_what_would_learn_nothing_is_refused(
    network: type[NoNorms], kind: Learned, said: str
) -> None:
    with pytest.raises(InputError, match=rf"train\.learned is {kind}, but nothing .* {said}"):
        freeze_unlearned(network(), kind)


def test_norms_that_a_network_keeps_fixed_do_not_learn() -> None:
    fixed = Network(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    fixed.backbone.requires_grad_(False)
    freeze_unlearned(fixed, "norms")
    assert learned(fixed) == {"head.1.weight", "head.1.bias"}
