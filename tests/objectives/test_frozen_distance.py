"""Features near a frozen network's: values, what is frozen, what learns, a second attach."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tiny_runs import random_batch, tiny_model, tiny_run
from uda.augmentation.jitter import JitterConfig
from uda.data.config import DataConfig, DomainConfig
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiment import Experiment, TrainConfig, validate
from uda.models.encoders.base import EncoderConfig
from uda.models.encoders.registry import build_encoder
from uda.objectives.base import StepContext
from uda.objectives.frozen_distance import FrozenDistance, FrozenDistanceConfig
from uda.objectives.functional.frozen_features import distance, projector
from uda.objectives.supervised import SupervisedConfig
from uda.optim.optimizers import OptimizerConfig
from uda.training.step import train_step
from uda.utilities.errors import InputError


def experiment(config: FrozenDistanceConfig) -> Experiment:
    domain = DomainConfig(datasets=("gta5",), size=(88, 176))
    return Experiment(
        data=DataConfig(source=domain, target=replace(domain, datasets=("cityscapes",)),
                        crop=(64, 128)),
        model=tiny_model(),
        objectives={"supervised": SupervisedConfig(), "distance": config},
        train=TrainConfig(steps=4, batch_size=2, precision="float32",
                          optimizer=OptimizerConfig(lr=0.01)),
        evaluation=EvaluationConfig(dataset="cityscapes"),
    )  # fmt: skip


def test_the_distance_is_that_of_the_paper() -> None:
    """f = (1, 0), g = (0, 2): smooth L1 0.5 and 1.5, cosine 0: 0.1 * 1 + 0.9 * 1."""
    found, wanted = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    shape = (1, 2, 1, 1)
    loss = distance(found.view(shape), wanted.view(shape), cosine=0.9)
    assert loss.item() == pytest.approx(1.0)
    assert distance(found.view(shape), wanted.view(shape), cosine=0).item() == pytest.approx(1.0)
    same = torch.rand(2, 8, 3, 4)
    assert distance(same, same, cosine=0.9).item() == pytest.approx(0, abs=1e-6)
    assert [tensor.shape[0] for tensor in projector(6, 5).parameters()] == [24, 24, 24, 24, 5, 5]


def test_the_projector_learns_and_the_copy_does_not() -> None:
    run = tiny_run(experiment(FrozenDistanceConfig()))
    objective = run.objectives["distance"]
    assert isinstance(objective, FrozenDistance)
    assert objective.frozen is not None
    assert objective.projector is not None
    before = {n: t.clone() for n, t in objective.state_dict().items()}
    initial = {n: t.clone() for n, t in run.student.state_dict().items()}
    copied = objective.frozen.state_dict()
    assert all(torch.equal(tensor, copied[name]) for name, tensor in initial.items())
    result = train_step(run, random_batch())
    assert {"loss/distance/source", "loss/distance/target"} < result.losses.keys()
    assert {v.name for v in result.views} == {"source", "distance_source", "distance_target"}
    for name, tensor in objective.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith("frozen."), name
    assert all(p.grad is None and not p.requires_grad for p in objective.frozen.parameters())
    assert not objective.frozen.training
    assert "distance" in run.optimizers
    # Called again, with other weights: the copy follows, the projector stays.
    layers = objective.projector
    objective.attach(run.student)
    assert objective.projector is layers
    assert all(
        torch.equal(t, run.student.state_dict()[n])
        for n, t in objective.frozen.state_dict().items()
    )
    assert run.student.training


def test_a_named_encoder_sees_resized_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = build_encoder(EncoderConfig(name="resnet18", weights="none"))
    torch.save(encoder.state_dict(), tmp_path / "resnet18.pth")
    config = FrozenDistanceConfig(
        encoder="resnet18", weights=str(tmp_path / "resnet18.pth"), size=(64, 64)
    )
    validate(experiment(config))
    run = tiny_run(experiment(config))
    objective = run.objectives["distance"]
    assert isinstance(objective, FrozenDistance)
    assert objective.frozen is not None
    own = objective.frozen.state_dict()
    assert all(torch.equal(t, own[f"backbone.{n}"]) for n, t in encoder.state_dict().items())
    seen: list[torch.Size] = []

    def normalize(images: Tensor) -> Tensor:
        seen.append(images.shape)
        return images

    monkeypatch.setattr(objective.frozen, "normalize", normalize)
    train_step(run, random_batch())
    assert seen == [(2, 3, 64, 64)] * 2


def test_both_networks_see_the_same_jittered_images() -> None:
    batch = random_batch().to_device(torch.device("cpu"))
    context = StepContext(step=0, seed=0, indices=batch.indices)
    source, target = FrozenDistanceConfig(jitter=JitterConfig()).build(3).views(batch, context)
    assert not torch.equal(source.images, batch.source_images)
    assert not torch.equal(target.images, batch.target_images)
    (only,) = FrozenDistanceConfig(domains="target").build(3).views(batch, context)
    assert only.name == "distance_target"
    assert only.images is batch.target_images


def test_what_cannot_be_frozen_is_refused() -> None:
    with pytest.raises(InputError, match=r"weights is none, but .*\.weights=FILE"):
        validate(experiment(FrozenDistanceConfig(encoder="dinov2_vitl14_reg")))
    with pytest.raises(InputError, match=r"an objective's frozen features: .* is not a file"):
        tiny_run(experiment(FrozenDistanceConfig(encoder="resnet18", weights="nowhere")))
