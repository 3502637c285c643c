"""The experiment log's mistakes as tests: C3, two views compared pixel by pixel.

They were different crops, so their pixels were not aligned.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from log_lessons import blocks, loaded, of_pictures, write_pictures
from tiny_runs import (
    CPU,
    tiny_run,
)
from uda.augmentation.jitter import JitterConfig
from uda.data.batch import Batch, View
from uda.objectives.base import Objective, StepContext
from uda.objectives.fix_match import FixMatchConfig
from uda.training.step import train_step


@pytest.fixture(scope="module")
def block_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root of `blocks` at training size."""
    return write_pictures(
        tmp_path_factory.mktemp("blocks") / "root",
        source=[blocks(seed) for seed in range(2)],
        target=[blocks(seed) for seed in range(10, 14)],
    )


def inside_blocks(images: Tensor) -> Tensor:
    """(N, H, W) bool: pixels of (N, 3, H, W) whose neighbors within two pixels have their color."""
    padded = F.pad(images, (2, 2, 2, 2), mode="replicate")
    highest = F.max_pool2d(padded, 5, stride=1)
    lowest = -F.max_pool2d(-padded, 5, stride=1)
    return (highest == lowest).all(dim=1)


def spread(weak: Tensor, strong: Tensor) -> list[float]:
    """For each sample of two views (N, 3, H, W), the widest range of values in the strong view over
    the pixels that have one color in the weak view. At 0 the strong view is a function of the weak
    view's colors, so every pixel shows the same place in both."""
    found = []
    for one, other, inside in zip(weak, strong, inside_blocks(weak), strict=True):
        colors, which = one[:, inside].unique(dim=1, return_inverse=True)
        assert colors.shape[1] > 8, "there are enough of them to tell places apart"
        index = which.expand(3, -1)
        empty = torch.zeros_like(colors)
        highest = empty.scatter_reduce(1, index, other[:, inside], "amax", include_self=False)
        lowest = empty.scatter_reduce(1, index, other[:, inside], "amin", include_self=False)
        found.append((highest - lowest).max().item())
    return found


POINTWISE = JitterConfig(blur_probability=0, noise_probability=0)


@pytest.mark.parametrize(
    "config",
    [
        FixMatchConfig(policy="autoaugment_log", jitter=None),
        FixMatchConfig(policy="randaugment", jitter=POINTWISE),
    ],
    ids=["log", "jitter"],
)
def test_c3_both_fix_match_views_are_the_same_crop(
    config: FixMatchConfig, block_root: Path
) -> None:
    """From the files to the student: labels and strong view are made from the loaded crop."""
    experiment = of_pictures("toy_fix_match", block_root, steps=8)
    experiment.objectives["fix_match"] = config
    run = tiny_run(experiment)
    assert run.teacher is not None
    labeled: list[tuple[Tensor, Tensor]] = []
    run.teacher.register_forward_hook(lambda _, images, logits: labeled.append((*images, logits)))
    shown = []
    for batch in loaded(experiment):
        result = train_step(run, batch)
        (view,) = (view for view in result.views if view.name == "fix_match")
        ((images, logits),) = labeled
        labeled.clear()
        weak = batch.to_device(CPU).target_images
        assert torch.equal(images, weak)
        assert view.labels is not None
        of_labels = logits.gather(1, view.labels.unsqueeze(1)).squeeze(1)
        torch.testing.assert_close(of_labels, logits.amax(dim=1))
        assert spread(weak, view.images) == pytest.approx([0, 0], abs=1e-3)
        shown += [len(image.flatten(1).unique(dim=1).T) for image in view.images]
    assert sum(colors > 5 for colors in shown) > 12, "of 16: some operations hide nearly everything"


def test_c3_the_logs_second_view_is_caught(block_root: Path) -> None:
    """Cross view repeats the mistake on purpose: the second view is another crop."""
    experiment = of_pictures("toy_cross_view", block_root, steps=4)
    run = tiny_run(experiment)
    for batch in loaded(experiment):
        views = {view.name: view.images for view in train_step(run, batch).views}
        assert spread(views["target"], views["target"]) == [0, 0]
        assert min(spread(views["target"], views["cross_view"])) > 0.1


def test_c3_fix_match_on_the_second_view_would_be_caught(
    block_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = of_pictures("toy_cross_view", block_root, steps=1)
    experiment.objectives["fix_match"] = FixMatchConfig(jitter=POINTWISE)
    original = type(FixMatchConfig().build(19)).views

    def views(self: Objective, batch: Batch, context: StepContext) -> tuple[View, ...]:
        (view,) = original(self, batch, context)  # type: ignore[arg-type]
        assert batch.target_second_images is not None
        return (replace(view, images=batch.target_second_images),)

    monkeypatch.setattr("uda.objectives.fix_match.FixMatch.views", views)
    run = tiny_run(experiment)
    for batch in loaded(experiment):
        shown = {view.name: view.images for view in train_step(run, batch).views}
        assert min(spread(batch.to_device(CPU).target_images, shown["fix_match"])) > 0.1
