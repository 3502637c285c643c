"""ProDA: its values by hand, and what must not move, learn or change."""

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tiny_runs import CPU, batch_for, random_batch, tiny_preset, tiny_run, without_dropout
from uda.objectives.distillation import Distillation, DistillationConfig
from uda.objectives.functional.losses import kl_to_reference
from uda.objectives.functional.noisy_labels import labels_where, spread, symmetric_cross_entropy
from uda.objectives.functional.prototypes import (
    Prototypes,
    denoised_labels,
    distances,
    log_assignments,
)
from uda.objectives.functional.strong_views import strong_view
from uda.objectives.proda import ProDADenoise
from uda.training.loop import train
from uda.training.run import Run
from uda.training.step import train_step
from uda.utilities.errors import InputError


def pixel(*values: float) -> Tensor:
    return torch.tensor(values).view(1, -1, 1, 1)


@pytest.mark.parametrize(
    ("found", "weights", "products", "label"),
    [
        ((1.0, 2.0), (0.731059, 0.268941), (0.146212, 0.215153), 1),
        ((1.0, 3.0), (0.880797, 0.119203), (0.176159, 0.095362), 0),
        ((101.0, 103.0), (0.880797, 0.119203), (0.176159, 0.095362), 0),
    ],
)
def test_weights_and_labels_by_hand(
    found: tuple[float, ...], weights: tuple[float, ...], products: tuple[float, ...], label: int
) -> None:
    before, assigned = pixel(0.2, 0.8), log_assignments(pixel(*found), 1.0)
    assert assigned.exp().flatten().tolist() == pytest.approx(weights, abs=1e-6)
    assert (assigned.exp() * before).flatten().tolist() == pytest.approx(products, abs=1e-6)
    assert denoised_labels(before, assigned).item() == label


@pytest.mark.parametrize(("label", "loss"), [(0, 2.798770), (1, 6.567636), (255, 0.0)])
def test_symmetric_cross_entropy_by_hand(label: int, loss: float) -> None:
    found = symmetric_cross_entropy(pixel(0.7, 0.3).log(), torch.tensor([[[label]]]))
    assert found.item() == pytest.approx(loss, abs=2e-6)


def test_the_reverse_part_is_9_21034_times_what_the_label_lacks() -> None:
    logits = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.arange(24).view(2, 3, 4) % 5
    found = symmetric_cross_entropy(logits, labels, forward=0.0)
    own = logits.softmax(dim=1).clamp(1e-7, 1)
    target = torch.nn.functional.one_hot(labels, 5).movedim(-1, 1).clamp(min=1e-4).log()
    assert found.item() == pytest.approx(-(own * target).sum(dim=1).mean().item(), rel=1e-5)
    assert -math.log(1e-4) == pytest.approx(9.21034, abs=1e-5)
    found.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_spread_by_hand() -> None:
    assert spread(pixel(0.7, 0.2, 0.1).log()).item() == pytest.approx(1.422899, abs=1e-6)


def test_distances_are_euclidean_and_have_a_gradient_at_a_prototype() -> None:
    features = torch.tensor([[3.0, 4.0], [0.0, 0.0]]).T[None, :, None].requires_grad_()
    found = distances(features, torch.tensor([[0.0, 0.0], [3.0, 0.0]]))
    assert found.flatten().tolist() == pytest.approx([5, 0, 4, 3], abs=1e-5)
    found.sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def prototypes(**settings: object) -> Prototypes:
    given = {"temperature": 1.0, "momentum": 0.75, "pixels": 2, "stride": 1}
    made = Prototypes(3, **(given | settings))  # type: ignore[arg-type]
    made.reset(channels=1)
    return made


def image(classes: list[int], features: list[float]) -> tuple[Tensor, Tensor]:
    """Logits and features of one row of pixels."""
    logits = torch.nn.functional.one_hot(torch.tensor(classes), 3).float().T[None, :, None]
    return logits, torch.tensor(features).view(1, 1, 1, -1)


def test_prototypes_by_hand() -> None:
    made = prototypes()
    made.update(*image([0, 0, 1, 2, 2], [1.0, 3.0, 100.0, 5.0, 7.0]), average=True)
    assert made.values.flatten().tolist() == [2, 0, 6], "one pixel of class 1 is too few"
    made.update(*image([0, 0, 1, 1, 2], [4.0, 8.0, 1.0, 3.0, 9.0]), average=True)
    assert made.values.flatten().tolist() == [4, 2, 6], "the plain mean over images"
    made.update(*image([0, 0, 0, 2, 1], [8.0, 8.0, 8.0, 0.0, 0.0]))
    assert made.values.flatten().tolist() == [5, 2, 6], "0.75 * 4 + 0.25 * 8"
    assert made.images.tolist() == [3, 1, 1]


def test_images_of_a_batch_move_prototypes_in_turn() -> None:
    one, other = prototypes(), prototypes()
    images = [image([0, 0, 0, 0, 1], [float(k)] * 5) for k in range(4)]
    for each in images:
        one.update(*each)
    logits, features = (torch.cat(parts) for parts in zip(*images, strict=True))
    other.update(logits, features)
    assert torch.equal(one.values, other.values)


def test_labels_count_where_the_target_is_valid() -> None:
    valid = torch.ones(1, 4, 4, dtype=torch.bool)
    valid[:, 2:] = False
    assert labels_where(valid, torch.zeros(1, 2, 2).long()).tolist() == [[[0, 0], [255, 255]]]


def test_a_strong_view_hides_a_square() -> None:
    images = torch.zeros(2, 3, 20, 30)
    generators = [torch.Generator().manual_seed(k) for k in range(2)]
    shown = strong_view(images, policy=None, hidden=0.5, generators=generators)
    assert set(shown.unique().tolist()) == {0.0, 0.5}
    assert ((shown == 0.5).sum(dim=(1, 2, 3)) <= 3 * 10 * 10).all()
    assert not images.any()
    plain = strong_view(images, policy=None, hidden=0.0, generators=generators)
    assert torch.equal(plain, images)


# --- in a run


@pytest.fixture
def run(toy_root: Path) -> Run:
    experiment = without_dropout(tiny_preset("proda_gta5_denoise", toy_root))
    return tiny_run(experiment)


def denoise_of(run: Run) -> ProDADenoise:
    objective = run.objectives["proda"]
    assert isinstance(objective, ProDADenoise)
    return objective


def test_prototypes_begin_with_the_first_batches_and_follow_the_teacher(run: Run) -> None:
    objective = denoise_of(run)
    batches = (random_batch().to_device(CPU) for _ in range(2))
    training = run.student.training
    objective.before_first_step(run.student, batches)
    assert run.student.training == training
    seen = objective.prototypes.images.clone()
    assert seen.max() == 4
    before = objective.prototypes.values.clone()
    train_step(run, batch_for(run.experiment))
    moved = objective.prototypes.values - before
    present = objective.prototypes.images > seen
    assert present.any()
    known = present & (seen > 0)
    assert 0 < moved[known].norm() < 0.01 * before[known].norm()
    assert not moved[~present].any()


def test_nothing_learns_but_the_student(run: Run) -> None:
    objective = denoise_of(run)
    frozen = {name: value.clone() for name, value in objective.frozen.state_dict().items()}
    result = train_step(run, batch_for(run.experiment))
    own = {name for name in result.losses if "/proda/" in name}
    assert own == {f"loss/proda/{term}" for term in ("symmetric", "regularizer", "structure")}
    assert not [p for p in objective.parameters() if p.requires_grad or p.grad is not None]
    assert not objective.prototypes.values.requires_grad
    for name, value in objective.frozen.state_dict().items():
        assert torch.equal(value, frozen[name]), f"{name} has moved"


def test_embeddings_are_what_the_last_layer_classifies(run: Run) -> None:
    run.student.eval()
    with torch.no_grad():
        output = run.student.coarse(random_batch().to_device(CPU).target_images)
        assert output.embeddings is not None
        assert output.embeddings.shape[1] != output.features.shape[1]
        logits = run.student.main.classify(output.embeddings)  # type: ignore[union-attr, operator]
    assert torch.equal(logits, output.logits)


def test_the_teacher_looks_once(run: Run) -> None:
    assert run.teacher is not None
    calls: list[int] = []
    run.teacher.network.register_forward_hook(lambda *_: calls.append(1))
    train_step(run, batch_for(run.experiment))
    assert len(calls) == 1


def test_a_resumed_run_has_the_same_prototypes_and_frozen_network(run: Run) -> None:
    batch = batch_for(run.experiment)
    train_step(run, batch)
    other = tiny_run(run.experiment)
    other.load_state(copy.deepcopy(run.state()))
    losses = [train_step(each, batch).losses for each in (run, other)]
    for name, value in losses[0].items():
        assert torch.equal(value, losses[1][name]), name


# --- distillation


def distilled(toy_root: Path, **settings: object) -> Run:
    experiment = without_dropout(tiny_preset("proda_gta5_distill", toy_root))
    experiment.objectives["distillation"] = DistillationConfig(**settings)  # type: ignore[arg-type]
    return tiny_run(experiment)


def test_a_student_learns_labels_and_probabilities_of_the_frozen_network(toy_root: Path) -> None:
    logits, reference = torch.randn(2, 1, 4, 3, 3), torch.randn(1, 4, 3, 3).softmax(dim=1)
    divergence = (reference * (reference.log() - logits[0].log_softmax(dim=1))).sum(dim=1).mean()
    assert kl_to_reference(logits[0], reference).item() == pytest.approx(divergence.item())
    values = []
    for kind in ("kl", "softmax_slip"):
        run = distilled(toy_root, divergence=kind, policy=None, hidden=0.0)
        objective = run.objectives["distillation"]
        assert isinstance(objective, Distillation)
        frozen = {name: value.clone() for name, value in objective.frozen.state_dict().items()}
        losses = train_step(run, batch_for(run.experiment)).losses
        values.append(losses["loss/distillation/distillation"].item())
        assert all(torch.equal(v, frozen[n]) for n, v in objective.frozen.state_dict().items())
        assert not any(p.requires_grad for p in objective.parameters())
    assert values[0] >= 0
    assert values[1] < 0, "less than the entropy's part that the slip leaves"


def test_the_frozen_network_of_a_snapshot(toy_root: Path, tmp_path: Path) -> None:
    before = without_dropout(tiny_preset("proda_gta5_denoise", toy_root, steps=1))
    before.objectives["proda"].prototype_batches = 1  # type: ignore[attr-defined]
    train(before, tmp_path / "before", preset="tiny", device=CPU)
    path = tmp_path / "before" / "GTA5_1.pth"
    run = distilled(toy_root, network=str(path))
    objective = run.objectives["distillation"]
    assert isinstance(objective, Distillation)
    stored = torch.load(path, weights_only=True)["student"]
    for name, value in objective.frozen.state_dict().items():
        assert torch.equal(value, stored[name]), name
    with pytest.raises(InputError, match="nowhere"):
        distilled(toy_root, network="nowhere.pth")
