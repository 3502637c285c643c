"""The experiment log's mistakes as tests: C1, CutMix wrote into its arguments.

So the loss on the clean image was the loss on the mixed image.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from log_lessons import from_the_start
from tiny_runs import (
    CPU,
    batch_for,
    batch_tensors,
    random_batch,
    tiny_run,
)
from uda.augmentation.jitter import JitterConfig
from uda.data.batch import Batch, View
from uda.objectives.base import Objective, StepContext
from uda.objectives.class_mix import ClassMixConfig
from uda.objectives.cut_mix import CutMixConfig
from uda.objectives.functional.mixing import mix_domains, paste
from uda.training.run import StepResult
from uda.training.step import train_step


def left_half(batch: Batch) -> Tensor:
    columns = torch.arange(batch.source_labels.shape[2])
    return (columns < len(columns) // 2).expand_as(batch.source_labels)


def ground_truth(batch: Batch) -> Tensor:
    assert batch.target_ground_truth is not None
    return batch.target_ground_truth


def class_three(images: Tensor) -> Tensor:
    """A teacher that predicts class 3 everywhere with high confidence."""
    logits = torch.zeros(len(images), 19, *images.shape[2:])
    logits[:, 3] = 20
    return logits


def views_of(objective: Objective) -> Callable[[Batch], object]:
    return lambda batch: objective.views(batch, StepContext(0, 0, batch.indices, class_three))


MIXERS: dict[str, Callable[[Batch], object]] = {
    "paste images": lambda batch: paste(
        batch.source_images, onto=batch.target_images, where=left_half(batch)
    ),
    "paste labels": lambda batch: paste(
        batch.source_labels, onto=ground_truth(batch), where=left_half(batch)
    ),
    "mix_domains": lambda batch: mix_domains(
        batch,
        ground_truth(batch),
        name="mixed",
        from_source=left_half(batch),
        target_weights=torch.ones(len(batch.indices), 1, 1),
    ),
    "CutMix": views_of(CutMixConfig(jitter=JitterConfig()).build(19)),
    "the log's CutMix": views_of(
        CutMixConfig(labels="ground_truth", one_box_per_batch=True).build(19)
    ),
    "ClassMix": views_of(ClassMixConfig().build(19)),
}


def changed_by(mix: Callable[[Batch], object]) -> list[str]:
    """The names of the batch tensors that `mix` changes."""
    batch = random_batch(ground_truth=True).to_device(CPU)
    before = batch_tensors(batch)
    mix(batch)
    after = batch_tensors(batch)
    return [name for name in before if not torch.equal(before[name], after[name])]


@pytest.mark.parametrize("mixer", MIXERS)
def test_c1_mixing_leaves_its_inputs_untouched(mixer: str) -> None:
    assert changed_by(MIXERS[mixer]) == []


def patch_images(batch: Batch) -> tuple[Tensor, Tensor]:
    """The log's paste: writes into its arguments and returns them."""
    box = (..., slice(8, 40), slice(16, 80))
    batch.source_images[box] = batch.target_images[box]
    batch.source_labels[box] = ground_truth(batch)[box]
    return batch.source_images, batch.source_labels


def test_c1_a_paste_in_place_is_caught() -> None:
    assert changed_by(patch_images) == ["source_images", "source_labels"]


def mix_in_place(
    batch: Batch, labels: Tensor, *, name: str, from_source: Tensor, target_weights: Tensor
) -> View:
    """`mix_domains` as the log would have written it."""
    from_target = ~from_source
    source, target = (images.movedim(1, 3) for images in (batch.source_images, batch.target_images))
    source[from_target] = target[from_target]
    batch.source_labels[from_target] = labels[from_target]
    weights = torch.where(from_source, 1.0, target_weights)
    return View(name, batch.source_images, batch.source_labels, weights)


def logits_of_clean_and_mixed(toy_root: Path) -> tuple[dict[str, Tensor], StepResult]:
    """The student's logits by view in a step on clean source images and on mixed ones."""
    run = tiny_run(from_the_start("toy_cut_mix_ground_truth", toy_root))
    run.experiment.train.log_every = 2  # a logged step also runs on the plain target images
    said: list[Tensor] = []
    run.student.register_forward_hook(lambda *found: said.append(found[2].logits.detach().clone()))
    result = train_step(run, batch_for(run.experiment))
    return dict(zip((view.name for view in result.views), said, strict=True)), result


def test_c1_clean_and_mixed_predictions_differ(toy_root: Path) -> None:
    said, result = logits_of_clean_and_mixed(toy_root)
    assert set(said) == {"source", "cut_mix"}
    assert not torch.equal(said["source"], said["cut_mix"])
    clean, mixed = (result.losses[f"loss/{name}/main"] for name in ("supervised", "cut_mix"))
    assert not torch.equal(clean, mixed)


def test_c1_pasted_in_place_they_would_be_equal(
    toy_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit: loss + 0.5 * loss was 1.5 times the loss of the mixed image."""
    monkeypatch.setattr("uda.objectives.cut_mix.mix_domains", mix_in_place)
    said, result = logits_of_clean_and_mixed(toy_root)
    assert torch.equal(said["source"], said["cut_mix"])
    clean, mixed = (result.losses[f"loss/{name}/main"] for name in ("supervised", "cut_mix"))
    assert torch.equal(clean, mixed)
