"""Training steps as one writes them first: float32, full-size maps, autograd for everything.

`plain_step` does so for the objectives of any preset. AdaptSegNet's and DAFormer's steps are
written out, from what their papers and code compute; of the library they use only the networks, the
optimizers, and the random numbers of a mixed image, so that both ways see the same.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

import uda.objectives.functional.adversarial as game
from uda.data.batch import Batch, View
from uda.labels.spaces import IGNORE_INDEX
from uda.models.discriminators import Discriminator, Scores
from uda.models.segmenter import SegmentationOutput
from uda.objectives.adversarial import Adversarial
from uda.objectives.base import StepContext
from uda.objectives.class_mix import ClassMix
from uda.objectives.feature_distance import FeatureDistance
from uda.training.run import Run

Losses = dict[str, Tensor]


def plain_step(run: Run, batch: Batch) -> Losses:
    """An update as one writes it first: every view forward, then one backward for their sum, losses
    of whole maps, and the gradient penalty as a gradient of a gradient.

    Returns the losses by name, as `train_step` does. For presets without a teacher.
    """
    batch, context = _start(run, batch)
    views = [
        View("source", batch.source_images, batch.source_labels),
        View("target", batch.target_images),
    ]
    for objective in run.objectives.values():
        views += objective.views(batch, context)
    terms: Losses = {}
    for view in views:
        output = whole(run.student(view.images))
        for name, objective in run.objectives.items():
            if view.name in objective.reads:
                _add(terms, name, objective.terms(view, output, context), objective.config.weight)
    _backward(terms)
    own: Losses = {}
    with patch.object(game, "gradient_penalty", _gradient_of_a_gradient):
        for name, objective in run.objectives.items():
            _add(own, name, objective.after_backward(context), 1.0)
    _backward(own)
    return _end(run, context, terms | own)


def adaptsegnet_step(run: Run, batch: Batch) -> Losses:
    """AdaptSegNet on two levels (Tsai et al., CVPR 2018, arXiv 1802.10349, section 4), with the
    preset's weights and its kind of adversarial loss."""
    batch, context = _start(run, batch)
    supervised, adversarial = run.objectives["supervised"], run.objectives["adversarial"]
    assert isinstance(adversarial, Adversarial)
    discriminators, config = adversarial.discriminators, adversarial.config
    labels = batch.source_labels

    def distance(maps: Sequence[Tensor], label: float) -> Tensor:
        (scores,) = maps
        aim = torch.full_like(scores, label)
        if config.loss == "vanilla":
            return F.binary_cross_entropy_with_logits(scores, aim)
        return F.mse_loss(scores, aim)

    # The segmentation network: labels of the source, and fooled discriminators on the target.
    for network in discriminators.values():
        network.requires_grad_(False)
    source = run.student(batch.source_images)
    main = F.cross_entropy(source.logits, labels, ignore_index=IGNORE_INDEX)
    auxiliary = F.cross_entropy(source.auxiliary_logits, labels, ignore_index=IGNORE_INDEX)
    weight = supervised.config.auxiliary_weight  # type: ignore[attr-defined]
    losses = {"loss/supervised/main": main, "loss/supervised/auxiliary": weight * auxiliary}
    (main + weight * auxiliary).backward()
    target = run.student(batch.target_images)
    seen = {"main": target.logits, "auxiliary": target.auxiliary_logits}
    fooled = torch.zeros(())
    for head, share in adversarial.weights.items():
        maps = discriminators[head](F.softmax(seen[head], dim=1))
        losses[f"loss/adversarial/{head}"] = share * distance(maps, 0)
        fooled = fooled + losses[f"loss/adversarial/{head}"]
    fooled.backward()
    # The discriminators: source is 0, target is 1, half of the loss each.
    for network in discriminators.values():
        network.requires_grad_(True)
    known = {"main": source.logits, "auxiliary": source.auxiliary_logits}
    for head in adversarial.weights:
        total = torch.zeros(())
        for logits, label in ((known[head], 0), (seen[head], 1)):
            maps = discriminators[head](F.softmax(logits.detach(), dim=1))
            half = distance(maps, label) / 2
            half.backward()
            total = total + half.detach()
        losses[f"loss/adversarial/discriminator_{head}"] = total
    return _end(run, context, losses)


def daformer_step(run: Run, batch: Batch) -> Losses:
    """DAFormer (Hoyer et al., CVPR 2022, arXiv 2111.14887, section 3): source labels, feature
    distance to the first weights, and images mixed by the teacher's labels; the teacher first."""
    batch, context = _start(run, batch)
    mix, distance = run.objectives["class_mix"], run.objectives["feature_distance"]
    assert isinstance(mix, ClassMix)
    assert isinstance(distance, FeatureDistance)
    teacher = run.teacher
    assert teacher is not None
    if run.step == 0:
        teacher.restart(run.student)
    labels = batch.source_labels
    output = run.student(batch.source_images)
    pixel_losses = F.cross_entropy(
        output.logits, labels, ignore_index=IGNORE_INDEX, reduction="none"
    )
    losses = {"loss/supervised/main": pixel_losses.mean()}
    losses["loss/supervised/main"].backward(retain_graph=True)

    assert distance.initial is not None
    with torch.no_grad():
        first = distance.initial.eval()(batch.source_images).features
    cells = first.shape[-2:]
    side = labels.shape[1] // cells[0]
    known = torch.where(labels == IGNORE_INDEX, output.logits.shape[1], labels)
    shares = F.avg_pool2d(F.one_hot(known).permute(0, 3, 1, 2).float(), side)
    share, winner = shares.max(dim=1)
    counts = (share >= distance.config.share) & torch.isin(winner, torch.tensor(distance.classes))
    far = (output.features - first).norm(dim=1)
    mean = (far * counts).sum() / counts.sum().clamp(min=1)
    losses["loss/feature_distance/main"] = distance.config.weight * mean
    losses["loss/feature_distance/main"].backward()

    (view,) = mix.views(batch, context)  # the teacher's labels, and what is mixed by them
    assert view.labels is not None
    assert view.weights is not None
    logits = run.student(view.images).logits
    pixel_losses = F.cross_entropy(logits, view.labels, ignore_index=IGNORE_INDEX, reduction="none")
    losses["loss/class_mix/main"] = (pixel_losses * view.weights).mean()
    losses["loss/class_mix/main"].backward()
    found = _end(run, context, losses)
    kept = min(1 - 1 / (run.step + 1), teacher.config.momentum)
    with torch.no_grad():
        for mine, theirs in zip(
            teacher.network.parameters(), run.student.parameters(), strict=True
        ):
            mine.mul_(kept).add_(theirs, alpha=1 - kept)
    return found


STEPS: dict[str, Callable[[Run, Batch], Losses]] = {
    "aagc_640x360_b2": plain_step,
    "multi_640x360_lsgan_b2": adaptsegnet_step,
    "daformer_gta5": daformer_step,
}


def whole(output: SegmentationOutput) -> SegmentationOutput:
    """The output with all its logits at input size, in memory."""
    return SegmentationOutput(output.logits, output.auxiliary_logits, output.features)


def _start(run: Run, batch: Batch) -> tuple[Batch, StepContext]:
    batch = batch.to_device(run.device)
    batch = replace(
        batch,
        source_images=batch.source_images.contiguous(),
        target_images=batch.target_images.contiguous(),
    )
    run.student.train()
    for optimizer in run.optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    seed = run.experiment.train.seed
    return batch, StepContext(run.step, seed, batch.indices, run.teacher)


def _end(run: Run, context: StepContext, losses: Losses) -> Losses:
    for optimizer in run.optimizers.values():
        optimizer.step()
    for objective in run.objectives.values():
        objective.after_step(context)
    run.step += 1
    return {name: value.detach() for name, value in losses.items()}


def _add(terms: Losses, name: str, new: Mapping[str, Tensor], weight: float) -> None:
    terms.update({f"loss/{name}/{term}": weight * value for term, value in new.items()})


def _backward(terms: Mapping[str, Tensor]) -> None:
    if terms:
        torch.stack(list(terms.values())).sum().backward()


def _gradient_of_a_gradient(_: Discriminator, scores: Scores, inputs: Tensor) -> Tensor:
    """The gradient penalty as it is defined (Mescheder et al., arXiv 1801.04406)."""
    total = torch.zeros((), device=inputs.device)
    for scores_of_scale in scores.maps:
        (gradient,) = torch.autograd.grad(scores_of_scale.sum(), inputs, create_graph=True)
        total = total + gradient.square().sum(dim=(1, 2, 3)).mean()
    return total
