"""A network and unlabeled images -> a folder of pseudo-labels."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from uda.data.config import DomainConfig
from uda.data.files import read_train_ids
from uda.data.labels import IGNORE_INDEX, LabelSpace
from uda.data.pseudo_label_folder import ID_SPACE, Manifest, PseudoLabelWriter
from uda.data.registry import check_raw_ids, list_domain
from uda.data.samples import Sample
from uda.distributed import any_of, own_share, sum_over_ranks
from uda.errors import InputError, require
from uda.evaluation import EvaluationConfig, Progress, predictions
from uda.metrics import ConfusionMatrix, Scores, scores
from uda.models.segmenter import Segmenter
from uda.protocols import input_line, protocol_name
from uda.reports import absent_line, iou_lines
from uda.snapshots import Snapshot, sha256


class LabelingResult(NamedTuple):
    """What was written, and how good it is where that can be known."""

    manifest: Manifest
    scores: Scores | None  # of the pixels that kept a label; None where labels could not be read
    why_unscored: str = ""


def list_target(
    snapshot: Snapshot, root: Path, *, splits: Sequence[str] | None, first: int | None
) -> tuple[list[Sample], str]:
    """The target images of a snapshot's run, or other splits of the data set it is scored on.

    They come with their label files where all of them are there; if not, the second value says
    why, and no label is read.
    """
    data = replace(snapshot.data, root=str(root))
    domain = data.target or DomainConfig(datasets=(snapshot.evaluation.dataset,))
    if splits is not None:
        domain = replace(domain, splits=tuple(splits), first=None)
    if first is not None:
        domain = replace(domain, first=first)
    unlabeled = list_domain(data, domain, labeled=False)
    try:
        labeled = list_domain(data, domain, labeled=True)
        check_raw_ids(labeled, snapshot.label_space)
        return labeled, ""
    except InputError as error:
        return unlabeled, str(error)


def label_images(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    folder: Path,
    *,
    threshold: float,
    config: EvaluationConfig,
    label_space: LabelSpace,
    snapshot: Path,
    supervision: str,
    workers: int = 0,
    progress: Progress = iter,
) -> LabelingResult:
    """Writes `folder` (see uda/data/pseudo_label_folder.py) with the most probable class of each
    pixel at stored resolution, 255 where its softmax probability is below `threshold`.

    Of several processes each labels its share of the images. If all samples come with readable
    labels, they are scored, too; what is written does not depend on that. Raises InputError,
    leaving no folder behind, when an image cannot be read, the folder exists, or the protocol
    scores labels of another size.
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"--threshold {threshold:g}: a softmax probability, between 0 and 1")
    require(
        config.label_size is None,
        f"this protocol compares at {config.label_size}, but pseudo-labels are written at the "
        "images' stored size: use --protocol native or another",
    )
    count = label_space.num_classes
    predicted, kept = torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.int64)
    matrix, why_unscored = ConfusionMatrix(count), ""
    with PseudoLabelWriter(folder) as writer:
        own = own_share(samples)
        unlabeled = [sample._replace(labels=None) for sample in own]
        found = predictions(
            segmenter,
            unlabeled,
            config=config,
            label_space=label_space,
            workers=workers,
            confidence=True,
        )
        for sample, (views, (labels, confidence, _)) in zip(own, progress(found), strict=True):
            assert confidence is not None, "it was asked for"
            sure = confidence >= threshold
            predicted += torch.bincount(labels.flatten(), minlength=count).cpu()
            kept += torch.bincount(labels[sure], minlength=count).cpu()
            if not why_unscored:
                try:
                    truth = _truth(sample, views.size, label_space).to(labels.device)
                    matrix.update(labels[None], torch.where(sure, truth, IGNORE_INDEX)[None])
                except InputError as error:
                    why_unscored = str(error)
            labels[~sure] = IGNORE_INDEX
            writer.write(views.stem, labels.to(torch.uint8).cpu().numpy())
        predicted, kept = sum_over_ranks(predicted), sum_over_ranks(kept)
        matrix.counts = sum_over_ranks(matrix.counts)
        why_unscored = any_of(why_unscored)
        manifest = Manifest(
            id_space=ID_SPACE,
            label_space=label_space.name,
            classes=label_space.classes,
            rule="most probable class where its softmax probability reaches the threshold",
            threshold=float(threshold),
            protocol=f"{protocol_name(config)}: {input_line(config)}",
            snapshot=snapshot.name,
            snapshot_sha256=sha256(snapshot),
            supervision=supervision,
            image_count=len(samples),
            images=tuple(sorted(sample.stem for sample in samples)),
            share_kept=int(kept.sum()) / int(predicted.sum()),
            share_kept_per_class={
                name: keep / of if of else None
                for name, keep, of in zip(
                    label_space.classes, kept.tolist(), predicted.tolist(), strict=True
                )
            },
        )
        writer.finish(manifest)
    if why_unscored:
        return LabelingResult(manifest, None, why_unscored)
    return LabelingResult(manifest, scores(matrix, label_space.report_names))


def _truth(sample: Sample, size: tuple[int, int], label_space: LabelSpace) -> Tensor:
    """Train ids (H, W) int64 of a sample; InputError when it has none that can be read."""
    if sample.labels is None:
        raise InputError(f"{sample.name} has no labels")
    return torch.from_numpy(read_train_ids(sample.labels, size, label_space)).long()


def labeling_report(result: LabelingResult, names: Sequence[str], *, why_unscored: str = "") -> str:
    """The share of the pixels that kept their label, in all and by class, called `names`, and the
    scores of those pixels or the reason why there are none."""
    lines = [f"share kept: {result.manifest.share_kept:.1%}"]
    for name, share in zip(names, result.manifest.share_kept_per_class.values(), strict=True):
        lines.append(f"  {name}: {'never predicted' if share is None else f'{share:.1%}'}")
    if result.scores is None:
        return "\n".join([*lines, f"not scored: {why_unscored or result.why_unscored}"])
    lines.append("against ground truth, pixels with a label:")
    if result.scores.absent:
        lines.append(absent_line(result.scores))
    return "\n".join([*lines, iou_lines(result.scores, names)])
