"""Feature distance: DAFormer's cells and distances by hand, and a copy that nothing moves."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tiny_runs import CPU, assert_same, random_batch, tiny_model, tiny_preset, tiny_run
from uda.checkpoints.snapshots import read
from uda.data.batch import View
from uda.models.decoders.daformer import DAFormerConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig
from uda.models.hrda import HrdaConfig
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import StepContext
from uda.objectives.feature_distance import (
    CITYSCAPES_THINGS,
    FeatureDistance,
    FeatureDistanceConfig,
    cells_of,
)
from uda.training.loop import train
from uda.training.run import Run
from uda.training.step import train_step
from uda.utilities.errors import InputError

CONTEXT = StepContext(0, 0, (0,))


def labels(rows: list[list[int]]) -> Tensor:
    return torch.tensor([rows])


def test_cells_by_hand() -> None:
    """3 of 4 pixels are enough; a cell of ignored pixels never counts."""
    found = labels([[13, 13, 0, 0], [13, 0, 0, 255], [255, 255, 7, 7], [255, 13, 7, 7]])
    assert cells_of(found, (13, 7), (2, 2), share=0.75).tolist() == [[[True, False], [False, True]]]
    assert cells_of(found, (0,), (2, 2), share=0.75).tolist() == [[[False, True], [False, False]]]
    assert cells_of(found, (13, 7), (2, 2), share=0.76).tolist() == [
        [[False, False], [False, True]]
    ]
    mostly = torch.zeros(1, 4, 4, dtype=torch.int64)
    mostly.flatten()[:10] = 13
    assert not cells_of(mostly, range(19), (1, 1), share=0.75).any()


def test_cells_that_are_not_whole_are_refused() -> None:
    with pytest.raises(InputError, match=r"3x4 features for crops of 10x16 .* multiples"):
        cells_of(torch.zeros(1, 10, 16, dtype=torch.int64), (0,), (3, 4), share=0.75)


class Fixed(torch.nn.Module):
    """A network with these deepest features."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", features)

    def deepest_features(self, images: Tensor) -> Tensor:
        return self.get_buffer("kept")


def loss_of(features: Tensor, target: Tensor, found: Tensor) -> Tensor:
    objective = FeatureDistanceConfig(classes=CITYSCAPES_THINGS).build(19)
    objective.initial = Fixed(target)  # type: ignore[assignment]
    view = View("source", torch.rand(1, 3, 4, 4), found)
    output = SegmentationOutput(features, None, features)
    return objective.terms(view, output, CONTEXT)["main"]


DIFFERENCE = torch.tensor([[[3.0, 0.0], [0.0, 6.0]], [[4.0, 2.0], [0.0, 8.0]]])[None]
THINGS_ABOVE = labels([[13] * 4] * 2 + [[0] * 4] * 2)


def test_the_mean_distance_by_hand() -> None:
    """Distances 5, 2, 0, 10 of four cells, of which the first row are things: 3.5, times 0.005."""
    target = torch.rand(1, 2, 2, 2)
    loss = loss_of(target + DIFFERENCE, target, THINGS_ABOVE)
    assert loss.item() == pytest.approx(3.5, abs=1e-5)
    assert FeatureDistanceConfig().weight * loss.item() == pytest.approx(0.0175, abs=1e-6)


def test_without_a_cell_and_without_a_distance_it_is_exactly_0() -> None:
    target = torch.rand(1, 2, 2, 2)
    for found, difference in ((labels([[0] * 4] * 4), DIFFERENCE), (THINGS_ABOVE, 0 * DIFFERENCE)):
        features = (target + difference).requires_grad_()
        loss = loss_of(features, target, found)
        assert loss.item() == 0
        (gradient,) = torch.autograd.grad(loss, features)
        assert (gradient == 0).all(), "and no NaN"


def test_cells_that_do_not_count_get_no_gradient() -> None:
    target = torch.rand(1, 2, 2, 2)
    features = (target + DIFFERENCE).requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(features, target, THINGS_ABOVE), features)
    assert torch.equal(gradient[0, :, 1], torch.zeros(2, 2))
    torch.testing.assert_close(gradient[0, :, 0, 0], torch.tensor([0.6, 0.8]) / 2)


def test_the_mean_is_over_the_cells_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process has two cells, the other none: the mean of their losses is that of the cells."""
    target = torch.rand(1, 2, 2, 2)
    whole = loss_of(target + DIFFERENCE, target, THINGS_ABOVE)
    monkeypatch.setattr(
        "uda.objectives.feature_distance.mean_over_ranks", lambda _: torch.tensor(1.0)
    )
    first = loss_of(target + DIFFERENCE, target, THINGS_ABOVE)
    second = loss_of(target + DIFFERENCE, target, labels([[0] * 4] * 4))
    assert ((first + second) / 2).item() == pytest.approx(whole.item())


HRDA = EncoderDecoderConfig(
    encoder=EncoderConfig(name="mit_b0", weights="none", drop_path=0.0),
    decoder=DAFormerConfig(channels=8, fusion="conv1"),
    hrda=HrdaConfig(crop=32, attention=DAFormerConfig(channels=8, fusion="conv1")),
)


@pytest.mark.parametrize("model", [tiny_model(), HRDA], ids=["plain", "hrda"])
def test_it_starts_at_0_on_what_the_student_saw(model: object) -> None:
    """With HRDA on the context: cells of 64 pixels with MiT, whose deepest map has stride 32."""
    torch.manual_seed(0)
    student = model.build(19)  # type: ignore[attr-defined]
    objective = FeatureDistanceConfig().build(19)
    objective.attach(student)
    images, found = torch.rand(2, 3, 64, 128), torch.zeros(2, 64, 128, dtype=torch.int64)
    output = student.eval()(images)
    if model is HRDA:
        assert output.features.shape[2:] == (1, 2)
    loss = objective.terms(View("source", images, found), output, CONTEXT)["main"]
    assert loss.item() == 0
    with torch.no_grad():
        for weight in student.parameters():
            weight.mul_(1.1)
    output = student(images)
    loss = objective.terms(View("source", images, found), output, CONTEXT)["main"]
    assert loss.item() > 0
    loss.backward()
    assert all(weight.grad is None for weight in objective.parameters())
    assert any(weight.grad is not None for weight in student.backbone_parameters())


def run_with(toy_root: Path) -> Run:
    experiment = tiny_preset("toy_source_only", toy_root)
    experiment.objectives["feature_distance"] = FeatureDistanceConfig(weight=1.0)
    return tiny_run(experiment)


def test_nothing_moves_the_copy(toy_root: Path) -> None:
    """No gradient, no optimizer, no batch statistics; the student's own run on."""
    run = run_with(toy_root)
    objective = run.objectives["feature_distance"]
    assert isinstance(objective, FeatureDistance)
    before = deepcopy(dict(objective.state_dict()))
    assert objective.initial is not None
    assert_same(dict(objective.initial.state_dict()), dict(run.student.state_dict()))
    objective.train()
    for _ in range(2):
        result = train_step(run, random_batch())
        assert torch.isfinite(result.losses["loss/feature_distance/main"])
        assert [view.name for view in result.views] == ["source"]
    assert_same(dict(objective.state_dict()), before)
    assert not any(weight.requires_grad for weight in objective.parameters())
    assert not any(layer.training for layer in objective.initial.modules())


def test_a_resumed_run_has_the_copy_of_its_first_step(toy_root: Path, tmp_path: Path) -> None:
    experiment = tiny_preset("toy_source_only", toy_root, steps=2)
    experiment.objectives["feature_distance"] = FeatureDistanceConfig()
    train(experiment, tmp_path / "run", preset="tiny", device=CPU)
    stored = read(tmp_path / "run" / "resume.pth")
    run = tiny_run(experiment)
    first = deepcopy(run.objectives["feature_distance"].state_dict())
    run.load_state({name: stored[name] for name in ("step", "student", "teacher")}
                   | stored["training"])  # fmt: skip
    assert_same(dict(run.objectives["feature_distance"].state_dict()), dict(first))
    objective = run.objectives["feature_distance"]
    objective.attach(run.student)
    run.load_state({name: stored[name] for name in ("step", "student", "teacher")}
                   | stored["training"])  # fmt: skip
    assert_same(dict(objective.state_dict()), dict(first))


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match=r"x\.share is 0.5; allowed: above 0.5"):
        FeatureDistanceConfig(share=0.5).check("x")
    with pytest.raises(InputError, match=r"x\.classes is empty"):
        FeatureDistanceConfig(classes=()).check("x")
    with pytest.raises(InputError, match="train ids 0 to 6: name those that count"):
        FeatureDistanceConfig(classes=CITYSCAPES_THINGS).build(7)
    assert FeatureDistanceConfig().build(3).classes == (0, 1, 2)
