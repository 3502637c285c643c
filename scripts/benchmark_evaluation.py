"""Evaluation and pseudo-labeling, compared with the network's forward pass alone."""

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmark_data import PRESET, Size, write_scene
from benchmark_report import Figure, Row
from benchmark_step import shrunk
from uda.data.config import DataConfig
from uda.data.files import read_image
from uda.data.registry import list_dataset
from uda.data.samples import Sample
from uda.data.toy_city.city import toy_image
from uda.data.transforms import resize_image
from uda.evaluation.evaluate import EvaluationConfig, evaluate
from uda.experiments import load_preset
from uda.labels.spaces import CITYSCAPES
from uda.models.segmenter import Segmenter
from uda.prediction.labeling_rules import FixedThreshold
from uda.prediction.pseudo_labeling import label_images
from uda.utilities.host_memory import keep_freed_memory

IMAGES = 50
_TURN = 10  # images that are scored, say, before the forward pass alone is measured again
_TARGET = 0.95
_WORKERS = DataConfig().workers  # what the commands take, too, unless told otherwise
_SIZE = {"cpu": (512, 1024), "cuda": (1024, 2048)}
_QUICK = (128, 256)


class Taken(NamedTuple):
    """What some work has taken."""

    seconds: float  # of the clock
    cpu: float  # seconds of all cores, those of ended child processes among them


def write_streets(root: Path, count: int, size: Size) -> None:
    """Toy scenes in the layout of Cityscapes, enlarged to `size`."""
    for index in range(count):
        stem = f"aachen_{index:06d}_000019"
        write_scene(
            toy_image("target", index, seed=0),
            root / "Cityscapes/leftImg8bit/train/aachen" / f"{stem}_leftImg8bit.png",
            root / "Cityscapes/gtFine/train/aachen" / f"{stem}_gtFine_labelIds.png",
            size,
            index,
        )


def measure_evaluation(
    root: Path,
    *,
    device: torch.device,
    images: int,
    rounds: int,
    quick: bool,
    say: Callable[[str], None],
) -> list[Row | Figure]:
    """Scoring and labeling whole images, compared with the network alone on the same images."""
    if device.type == "cpu":
        keep_freed_memory()  # as the commands do; it serves the network alone as well
    size = _QUICK if quick else _SIZE.get(device.type, _QUICK)
    write_streets(root, images, size)
    samples = list_dataset(root, "cityscapes", "train", labeled=True)
    segmenter = _segmenter(device, quick=quick)
    pixels = [_pixels(sample, device) for sample in samples]
    _forward(segmenter, pixels[:1])
    alone, scored, labeled = list[Taken](), list[Taken](), list[Taken]()
    for number in range(rounds):
        say(f"evaluation, round {number + 1}")
        # In short turns: within minutes, the same forward pass may take half as long again.
        turns = [
            (slice(first, first + _TURN), root / f"pseudo_labels_{number}_{first}")
            for first in range(0, images, _TURN)
        ]
        found = [
            (
                _taken(partial(_forward, segmenter, pixels[own]), device),
                _taken(partial(_score, segmenter, samples[own]), device),
                _taken(partial(_label, segmenter, samples[own], folder), device),
            )
            for own, folder in turns
        ]
        for total, parts in zip((alone, scored, labeled), zip(*found, strict=True), strict=True):
            total.append(Taken(sum(p.seconds for p in parts), sum(p.cpu for p in parts)))
    seen = f"{images} images of {size[1]}x{size[0]}"
    rows = list[Row | Figure]()
    for name, ours, meaning in (
        ("evaluation", scored,
         f"`uda.evaluation.evaluate.evaluate` on {seen} by the protocol native, {_WORKERS} loader "
         f"processes, {_TURN} images in turn: files in, scores out; and the network's forward "
         "alone, to its own stride, on the same images in memory"),
        ("pseudo-labeling", labeled,
         "`uda.prediction.pseudo_labeling.label_images` on the same images, labels written and "
         "scored, and the same forward"),
    ):  # fmt: skip
        rows.append(
            Row(
                name=name,
                unit="images/s",
                reference=[images / taken.seconds for taken in alone],
                ours=[images / taken.seconds for taken in ours],
                target=_TARGET,
                meaning=f"{meaning}.",
            )
        )
        rows.append(
            Row(
                name=f"{name}, work",
                unit="images per CPU second",
                reference=[images / taken.cpu for taken in alone],
                ours=[images / taken.cpu for taken in ours],
                meaning="the same, by the time of all cores, loader processes among them: what "
                "other programs do at the same time matters less.",
            )
        )
    return rows


def _segmenter(device: torch.device, *, quick: bool) -> Segmenter:
    model = load_preset(PRESET).model.without_weights()
    torch.manual_seed(0)
    segmenter = (shrunk(model) if quick else model).build(CITYSCAPES.num_classes)
    return segmenter.to(device).to(memory_format=torch.channels_last).eval()


def _pixels(sample: Sample, device: torch.device) -> Tensor:
    """The image (1, 3, H, W) as `uda.evaluation.inference.predict` shows it to the network."""
    image = torch.from_numpy(resize_image(read_image(sample.image), None))
    pixels = image.to(device).float().div_(255)[None]
    return pixels.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def _forward(segmenter: Segmenter, images: Sequence[Tensor]) -> None:
    for image in images:
        segmenter.coarse(image)


def _score(segmenter: Segmenter, samples: Sequence[Sample]) -> None:
    config = EvaluationConfig(dataset="cityscapes")
    evaluate(segmenter, samples, config=config, label_space=CITYSCAPES, workers=_WORKERS)


def _label(segmenter: Segmenter, samples: Sequence[Sample], folder: Path) -> None:
    label_images(
        segmenter,
        samples,
        folder,
        rule=FixedThreshold(
            threshold=0.1
        ),  # twice the chance of 19 classes: networks that know nothing pass it
        config=EvaluationConfig(dataset="cityscapes"),
        label_space=CITYSCAPES,
        snapshot=samples[0].image,  # it is only read for its checksum
        supervision="none",
        workers=_WORKERS,
    )


def _taken(work: Callable[[], object], device: torch.device) -> Taken:
    begin, before = time.monotonic(), os.times()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    after = os.times()
    return Taken(time.monotonic() - begin, sum(after[:4]) - sum(before[:4]))
