"""What objectives keep of the student before the first step, and what they see of the data then."""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tiny_runs import CPU, assert_same, tiny_preset
from uda.checkpoints.snapshots import read
from uda.data.batch import Batch, View
from uda.experiment import Experiment
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.objectives.base import Objective, ObjectiveConfig, StepContext
from uda.objectives.masked_image import MaskedImage, MaskedImageConfig
from uda.optim.settings import RestartConfig
from uda.training.loop import train
from uda.training.run import Run, StepResult, start_run
from uda.training.step import train_step
from uda.utilities.errors import InputError


@dataclass(kw_only=True, slots=True)
class ToFirstConfig(ObjectiveConfig):
    seen: int = 2  # batches

    def reads(self) -> frozenset[str]:
        return frozenset({"source"})

    def first_batches(self) -> int:
        return self.seen

    def build(self, num_classes: int) -> "ToFirst":
        return ToFirst(self)


class ToFirst(Objective):
    """Pulls the student's features to those of the initial network and to a mean color."""

    config: ToFirstConfig
    color: Tensor

    def __init__(self, config: ToFirstConfig) -> None:
        super().__init__(config)
        self.frozen: nn.Module = nn.Identity()
        self.register_buffer("color", torch.zeros(3))

    def attach(self, student: Segmenter) -> None:
        self.frozen = deepcopy(student).requires_grad_(False)

    def before_first_step(self, student: Segmenter, batches: Iterable[Batch]) -> None:
        colors = [batch.source_images.mean(dim=(0, 2, 3)) for batch in batches]
        assert len(colors) == self.config.seen
        self.color.copy_(torch.stack(colors).mean(dim=0))

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        self.frozen.eval()
        with torch.no_grad():
            first = self.frozen(view.images)
        return {"to_first": (output.logits - first.logits * self.color.sum()).square().mean()}


def preset(root: Path, *, steps: int = 4) -> Experiment:
    experiment = tiny_preset("gc_640x360_b2_source_only", root, steps=steps)
    experiment.objectives["to_first"] = ToFirstConfig()
    experiment.train.resume_every = 1
    return experiment


def test_the_copy_is_of_the_initial_weights_and_stays(toy_root: Path) -> None:
    run = start_run(preset(toy_root), num_classes=19, device=CPU)
    (copied,) = (o for o in run.objectives.values() if isinstance(o, ToFirst))
    first = {name: value.clone() for name, value in run.student.state_dict().items()}
    with torch.no_grad():
        for parameter in run.student.parameters():
            parameter.add_(1)
    assert_same(copied.frozen.state_dict(), first)
    assert not any(p.requires_grad for p in copied.frozen.parameters())
    assert list(run.optimizers) == ["student"], "nothing of it is trained"


def test_a_restart_is_refused_where_a_copy_of_the_first_weights_is_kept(toy_root: Path) -> None:
    experiment = preset(toy_root)
    experiment.train.restart = RestartConfig(at_step=2, schedule_steps=8)
    with pytest.raises(
        InputError, match=r"objectives\.to_first keeps a copy .* train.restart=none"
    ):
        start_run(experiment, num_classes=19, device=CPU)


def test_a_restart_forgets_thresholds_and_not_the_networks_mean_color(toy_root: Path) -> None:
    experiment = tiny_preset("gc_640x360_b2_class_mix", toy_root, steps=4)
    experiment.objectives["masked_image"] = MaskedImageConfig(confidence="instance_adaptive")
    experiment.train.restart = RestartConfig(at_step=2, schedule_steps=8)
    run = start_run(experiment, num_classes=19, device=CPU)
    masked = run.objectives["masked_image"]
    assert isinstance(masked, MaskedImage)
    first = {name: value.clone() for name, value in masked.state_dict().items()}
    assert masked.thresholds is not None
    masked.thresholds.mul_(0.5)
    run.forget()
    assert float(first["color"].min()) > 0.3, "ImageNet's"
    assert_same(run.objectives["masked_image"].state_dict(), first)


def test_an_interrupted_run_keeps_what_it_has_seen_first(
    toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(preset(toy_root), whole, preset="mine", device=CPU)

    def stops(run: Run, batch: Batch) -> StepResult:
        if run.step == 3:
            raise KeyboardInterrupt
        return train_step(run, batch)

    monkeypatch.setattr("uda.training.loop.train_step", stops)
    with pytest.raises(KeyboardInterrupt):
        train(preset(toy_root), cut, preset="mine", device=CPU)
    monkeypatch.undo()
    seen: list[str] = []
    monkeypatch.setattr(ToFirst, "before_first_step", lambda *_: seen.append("again"))
    train(preset(toy_root), cut, preset="mine", device=CPU, resume=True)
    assert not seen
    ours, theirs = (read(folder / "GTA5_4.pth") for folder in (cut, whole))
    assert_same(ours["student"], theirs["student"])


def test_the_copy_of_a_run_that_starts_from_a_snapshot_is_of_that(
    toy_root: Path, tmp_path: Path
) -> None:
    train(preset(toy_root), tmp_path / "first", preset="mine", device=CPU)
    snapshot = tmp_path / "first" / "GTA5_4.pth"
    second = preset(toy_root)
    second.train.initial_snapshot = str(snapshot)
    train(second, tmp_path / "second", preset="mine", device=CPU)
    kept = read(tmp_path / "second" / "resume.pth")["training"]["objectives"]["to_first"]
    frozen = {n.removeprefix("frozen."): v for n, v in kept.items() if n.startswith("frozen.")}
    assert_same(frozen, read(snapshot)["student"])
