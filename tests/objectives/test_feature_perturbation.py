"""A view may perturb the encoder's features: UniMatch is one file, and its gradients are right.

Source: Yang et al., "UniMatch V2", 2024, arXiv 2410.10777, section 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tiny_runs import CPU, random_batch, tiny_preset, tiny_run, without_dropout
from uda.augmentation.jitter import JitterConfig, jitter
from uda.data.batch import Batch, View
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import Need, Objective, ObjectiveConfig, StepContext
from uda.objectives.functional.losses import cross_entropy
from uda.objectives.functional.pseudo_labels import confidence_weights
from uda.optim.teacher import TeacherConfig
from uda.training.run import Run
from uda.training.step import train_step


@dataclass(kw_only=True, slots=True)
class UniMatchConfig(ObjectiveConfig):
    threshold: float = 0.01  # of a network from noise; the paper's is 0.95

    def needs(self) -> frozenset[Need]:
        return frozenset({"target", "teacher"})

    def adds(self) -> frozenset[str]:
        return frozenset({"strong"})

    reads = adds

    def build(self, num_classes: int) -> "UniMatch":
        return UniMatch(self)


class UniMatch(Objective):
    """Two strong copies of an image in one view; each loses the channels that the other keeps."""

    config: UniMatchConfig

    def views(self, batch: Batch, context: StepContext) -> tuple[View, ...]:
        pseudo = context.teacher_labels(batch.target_images)
        weights = confidence_weights(pseudo.confidence, self.config.threshold, "pixel")
        copies = [
            jitter(batch.target_images, JitterConfig(), context.generators(f"strong/{number}"))
            for number in range(2)
        ]
        generators = context.generators("channels")
        view = View(
            "strong",
            torch.cat(copies),
            pseudo.labels.repeat(2, 1, 1),
            weights.repeat(2, 1, 1),
            perturb=lambda features: tuple(complementary(maps, generators) for maps in features),
        )
        return (view,)

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        assert view.labels is not None
        return {"main": cross_entropy(output.logits, view.labels, weights=view.weights)}


def complementary(maps: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Maps (2 N, D, h, w): in the first N, half of the channels are dropped and the others doubled;
    in the last N, the other half."""
    kept = torch.stack([torch.rand(maps.shape[1], generator=g) < 0.5 for g in generators])
    factors = 2 * torch.cat([kept, ~kept]).to(maps)
    return maps * factors[:, :, None, None]


@pytest.fixture
def run(toy_root: Path) -> Run:
    experiment = without_dropout(tiny_preset("toy_entropy", toy_root))
    experiment.objectives = {"unimatch": UniMatchConfig()}
    experiment.teacher = TeacherConfig()
    experiment.train.precision = "float32"
    return tiny_run(experiment)


def test_the_two_copies_keep_complementary_channels() -> None:
    maps = torch.rand(4, 32, 2, 2) + 1
    dropped = complementary(maps, [torch.Generator().manual_seed(n) for n in range(2)])
    assert torch.equal(
        (dropped[:2] / maps[:2]) + (dropped[2:] / maps[2:]), torch.full_like(maps[:2], 2)
    )
    assert ((dropped == 0).float().mean() - 0.5).abs() < 0.2


def test_gradients_are_those_of_a_forward_by_hand(run: Run) -> None:
    objective = run.objectives["unimatch"]
    batch = random_batch()
    moved = batch.to_device(CPU)

    def context() -> StepContext:
        return StepContext(0, run.experiment.train.seed, batch.indices, run.teacher)

    (view,) = objective.views(moved, context())
    assert view.labels is not None
    assert view.perturb is not None
    run.student.train()
    statistics = {name: buffer.clone() for name, buffer in run.student.named_buffers()}
    features = run.student.encode(run.student.normalize(view.images))
    generators = context().generators("channels")
    output = run.student.decode(tuple(complementary(maps, generators) for maps in features))
    logits = torch.nn.functional.interpolate(
        output.logits, view.images.shape[-2:], mode="bilinear",
        align_corners=run.student.align_corners,
    )  # fmt: skip
    weights = list(run.student.parameters())
    loss = cross_entropy(logits, view.labels, weights=view.weights)
    expected = torch.autograd.grad(loss, weights, allow_unused=True)
    for name, buffer in run.student.named_buffers():
        buffer.copy_(statistics[name])

    result = train_step(run, batch)
    assert result.losses["loss/unimatch/main"] == pytest.approx(loss.item())
    reached = 0
    for weight, gradient in zip(weights, expected, strict=True):
        if gradient is None:
            assert weight.grad is None
            continue
        assert weight.grad is not None
        assert torch.allclose(weight.grad, gradient, rtol=1e-4, atol=1e-7)
        reached += 1
    assert reached > 20


def test_only_the_student_is_perturbed_and_only_on_that_view(run: Run) -> None:
    """The teacher labels whole features, and a logged step looks at the plain images."""
    calls = []
    objective = run.objectives["unimatch"]
    views = objective.views

    def counted(batch: Batch, context: StepContext) -> tuple[View, ...]:
        (view,) = views(batch, context)
        perturb = view.perturb
        assert perturb is not None

        def noted(features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            calls.append(len(features[0]))
            return perturb(features)

        return (View(view.name, view.images, view.labels, view.weights, noted),)

    objective.views = counted  # type: ignore[method-assign]
    run.experiment.train.log_every = 1
    train_step(run, random_batch())
    assert calls == [4]
