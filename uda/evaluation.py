"""A network and labeled images -> scores, at the labels' own resolution."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from uda.batch_norm import reestimate_batch_norm
from uda.data.files import read_image, read_train_ids
from uda.data.labels import LabelSpace
from uda.data.samples import Sample
from uda.data.transforms import resize_image
from uda.errors import InputError, require
from uda.metrics import ConfusionMatrix, Scores, scores
from uda.models.segmenter import SegmentationOutput, Segmenter

BATCH_NORM_IMAGES = 160  # enough for statistics: 20 batches of 8
_BATCH_NORM_BATCH = 8


@dataclass(kw_only=True, slots=True)
class EvaluationConfig:
    """How a network is scored: always against labels at their own resolution."""

    dataset: str
    split: str = "val"
    input_size: tuple[int, int] | None = (512, 1024)  # images are resized to this; none: as stored
    scales: tuple[float, ...] = (1.0,)  # of the input size; probabilities are averaged over them
    flip: bool = False  # average over each image and its mirror image, too
    # "fused": main + 0.5 * auxiliary logits, as in Seg-Uncertainty.
    heads: Literal["main", "fused"] = "main"
    # What reaches the stored size, and how: logits by way of the input's size, as in training; or,
    # straight from the network's own stride, logits (AdaptSegNet) or probabilities
    # (Seg-Uncertainty).
    upsample: Literal["via_input", "logits", "probabilities"] = "via_input"
    every: int = 5000  # steps between evaluations; the last step is always evaluated

    def check(self, path: str) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range."""
        require(self.every > 0, f"{path}.every is {self.every}; it must be above 0")
        require(
            min(self.scales, default=0) > 0, f"{path}.scales is {self.scales}; one or more, above 0"
        )
        require(
            min(self.input_size or (1,)) > 0,
            f"{path}.input_size is {self.input_size}; allowed: none, or height, width above 0",
        )
        side = min(self.input_size or (1,)) * min(self.scales)
        require(
            self.input_size is None or round(side) > 0,
            f"{path}.scales {self.scales} of {self.input_size} leave no pixel; use larger scales",
        )


def input_protocol(config: EvaluationConfig) -> str:
    """What a network sees of an image, in one line."""
    size = config.input_size
    return "; ".join(
        [
            f"input {'as stored' if size is None else f'{size[1]}x{size[0]}'}",
            "scale " + ", ".join(f"{scale:g}" for scale in config.scales),
            "flip" if config.flip else "no flip",
            *(["both heads"] if config.heads == "fused" else []),
            *([] if config.upsample == "via_input" else [f"{config.upsample} upsampled"]),
        ]
    )


def protocol(config: EvaluationConfig) -> str:
    """The way of scoring in one line, to stand beside every number."""
    return f"{config.dataset} {config.split}; {input_protocol(config)}; labels at stored resolution"


class Views(NamedTuple):
    """One image as the network will see it, and its labels."""

    stem: str
    images: list[Tensor]  # (3, h, w) uint8, one per scale
    labels: Tensor | None  # (H, W) uint8 train ids
    size: tuple[int, int]  # of the stored image, (H, W)


class EvaluationDataset(Dataset[Views | InputError]):
    """Images at every scale of the protocol, in the order of `samples`."""

    def __init__(
        self, samples: Sequence[Sample], *, config: EvaluationConfig, label_space: LabelSpace
    ) -> None:
        self.samples = samples
        self.config = config
        self.label_space = label_space

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Views | InputError:
        """Image `index`, or the error that it caused (see TrainingDataset)."""
        sample = self.samples[index]
        try:
            image = read_image(sample.image)
            size = (image.height, image.width)
            base = self.config.input_size or size
            sizes = [(round(base[0] * s), round(base[1] * s)) for s in self.config.scales]
            if min(map(min, sizes)) < 1:
                raise InputError(
                    f"evaluation.scales {self.config.scales}: {base[1]}x{base[0]} times the lowest "
                    "leaves no pixel; use larger scales"
                )
            images = [torch.from_numpy(resize_image(image, scaled)) for scaled in sizes]
            labels = None
            if sample.labels is not None:
                labels = torch.from_numpy(read_train_ids(sample.labels, size, self.label_space))
        except InputError as error:
            return error
        return Views(sample.stem, images, labels, size)


def _only(items: list[Views | InputError]) -> Views | InputError:
    """The one item of a batch, untouched: the loader's own conversion makes a list of its size."""
    (item,) = items
    return item


@torch.no_grad()
def predict(
    segmenter: Segmenter,
    images: Sequence[Tensor],
    *,
    size: tuple[int, int],
    config: EvaluationConfig,
) -> Tensor:
    """Class probabilities (C, H, W) float32 at `size` (H, W) of one image.

    images: (3, h, w) uint8 RGB, the image at each scale. Probabilities are averaged over scales
    and, if `config` says so, over each scale's mirror image.
    """
    device = next(segmenter.parameters()).device
    total: Tensor | None = None
    for image in images:
        pixels = image.to(device).float().div_(255)[None]
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        for mirrored in (False, True) if config.flip else (False,):
            probabilities = _probabilities(
                segmenter, pixels.flip(3) if mirrored else pixels, size, config, mirrored=mirrored
            )
            total = probabilities if total is None else total.add_(probabilities)
    assert total is not None, "a protocol has at least one scale"
    return total.div_(len(images) * (2 if config.flip else 1))


def _probabilities(
    segmenter: Segmenter,
    pixels: Tensor,
    size: tuple[int, int],
    config: EvaluationConfig,
    *,
    mirrored: bool,
) -> Tensor:
    """Class probabilities (C, H, W) at `size` of one view (1, 3, h, w), mirrored back if it was."""

    def logits_of(output: SegmentationOutput) -> Tensor:
        logits = output.logits.float()
        if config.heads == "fused":
            assert output.auxiliary_logits is not None, "validate() has seen to it"
            auxiliary = output.auxiliary_logits.float()
            if auxiliary.shape != logits.shape:
                auxiliary = F.interpolate(auxiliary, logits.shape[2:], mode="bilinear")
            logits = logits + 0.5 * auxiliary
        return logits.flip(3) if mirrored else logits

    if config.upsample == "via_input":
        logits = logits_of(segmenter(pixels))
        if logits.shape[2:] != size:
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
        return logits[0].softmax(0)
    coarse = logits_of(segmenter.coarse(pixels))
    if config.upsample == "probabilities":
        coarse = coarse.softmax(1)
    # The network's own way of resizing, which is the one that those evaluations took.
    align = segmenter.align_corners
    found = F.interpolate(coarse, size, mode="bilinear", align_corners=align)[0]
    return found if config.upsample == "probabilities" else found.softmax(0)


def predictions(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    *,
    config: EvaluationConfig,
    label_space: LabelSpace,
    workers: int,
) -> Iterator[tuple[Views, Tensor]]:
    """Each image of `samples` with its class probabilities (C, H, W) at stored resolution.

    The network is put into evaluation mode. Raises the InputError of a file that cannot be used.
    """
    segmenter.eval()
    dataset = EvaluationDataset(samples, config=config, label_space=label_space)
    loader = DataLoader(
        dataset,
        num_workers=workers,
        collate_fn=_only,
        generator=torch.Generator(),  # the loader would draw from the global one otherwise
    )
    for views in loader:
        if isinstance(views, InputError):
            raise views
        yield views, predict(segmenter, views.images, size=views.size, config=config)


def evaluate(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    *,
    config: EvaluationConfig,
    label_space: LabelSpace,
    workers: int = 0,
    progress: Callable[[Iterable[tuple[Views, Tensor]]], Iterable[tuple[Views, Tensor]]] = iter,
) -> Scores:
    """Scores of the network on labeled samples; it is left in evaluation mode.

    `progress` may wrap the iteration over images to draw a bar.
    """
    matrix = ConfusionMatrix(label_space.num_classes)
    found = predictions(segmenter, samples, config=config, label_space=label_space, workers=workers)
    for views, probabilities in progress(found):
        assert views.labels is not None, "evaluation samples are listed with their labels"
        labels = views.labels.to(probabilities.device).long()
        matrix.update(probabilities.argmax(0)[None], labels[None])
    return scores(matrix, label_space.report_names)


def adapt_batch_norm(segmenter: Segmenter, folder: Path, config: EvaluationConfig) -> str:
    """Re-estimates batch norm on images found below `folder` and says so in one line.

    At most BATCH_NORM_IMAGES of them are used, evenly spaced over the sorted list. Raises
    InputError when there are none or they cannot be batched.
    """
    files = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg")
    )
    if not files:
        raise InputError(f"--adapt-bn {folder}: there are no .png or .jpg images below this folder")
    count = min(len(files), BATCH_NORM_IMAGES)
    if count > _BATCH_NORM_BATCH:
        count -= count % _BATCH_NORM_BATCH  # a small last batch would weigh as much as a full one
    chosen = [files[i] for i in np.linspace(0, len(files) - 1, count).round().astype(int)]
    device = next(segmenter.parameters()).device

    def batches() -> Iterator[Tensor]:
        for start in range(0, count, _BATCH_NORM_BATCH):
            group = [
                torch.from_numpy(resize_image(read_image(path), config.input_size))
                for path in chosen[start : start + _BATCH_NORM_BATCH]
            ]
            if any(image.shape != group[0].shape for image in group):
                raise InputError(
                    f"--adapt-bn {folder}: images of different sizes cannot share a batch; give "
                    "--input-size WxH"
                )
            yield torch.stack(group).to(device).float().div_(255)

    reestimate_batch_norm(segmenter, batches())
    return f"re-estimated on {count} of {len(files)} unlabeled images of {folder}"
