"""The loader, compared with the work that it cannot avoid."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmark_report import Figure, Row
from uda.data.config import DataConfig
from uda.data.sampling import TrainingDataset, batches
from uda.data.toy_city.city import ToyImage, toy_image
from uda.data.training import open_training_data
from uda.experiments import load_preset
from uda.labels.spaces import CITYSCAPES

PRESET = "aagc_640x360_b2"
_WORKERS = DataConfig().workers  # what the commands take, too, unless told otherwise
Size = tuple[int, int]  # (height, width)


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """How much is read and labeled."""

    source: Size
    target: Size
    shrink: int  # divides the sizes to which the preset resizes, and its crop
    images: int  # written of each domain
    samples: int  # that the loader delivers, a multiple of the batch size


FULL = Extent(source=(1052, 1914), target=(1024, 2048), shrink=1, images=24, samples=96)
QUICK = Extent(source=(132, 240), target=(128, 256), shrink=8, images=4, samples=8)


def write_city(root: Path, extent: Extent) -> None:
    """Toy scenes in the layouts of CycleGTA5 and Cityscapes, enlarged to the real sizes.

    A little noise makes the PNG files about as hard to decode as photographs: 2 to 3 MB each.
    """
    for index in range(extent.images):
        scene = toy_image("source", index, seed=0)
        folder, name = root / "CycleGTA5", f"{index + 1:05d}.png"
        write_scene(scene, folder / "images" / name, folder / "labels" / name, extent.source, index)
        scene = toy_image("target", index, seed=0)
        folder, stem = root / "Cityscapes", f"aachen_{index:06d}_000019"
        image = folder / "leftImg8bit/train/aachen" / f"{stem}_leftImg8bit.png"
        labels = folder / "gtFine/train/aachen" / f"{stem}_gtFine_labelIds.png"
        write_scene(scene, image, labels, extent.target, index)


def write_scene(scene: ToyImage, image: Path, labels: Path, size: Size, seed: int) -> None:
    """The files of an image and its raw labels, enlarged to `size`."""
    height, width = size
    picture = Image.fromarray(scene.image).resize((width, height), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(seed).normal(0, 1, (height, width, 1))
    pixels = np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8)
    raw = Image.fromarray(CITYSCAPES.to_raw_ids(scene.train_ids, ignored=0))
    for path in (image, labels):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(image, compress_level=3)
    raw.resize((width, height), Image.Resampling.NEAREST).save(labels)
    for path in (image, labels):
        os.utime(path, (0, 0))  # a cache keeps nothing of files that were written just now


def measure_loader(
    root: Path, extent: Extent, *, rounds: int, say: Callable[[str], None]
) -> list[Row | Figure]:
    """Our batches, compared with the same files decoded and resized by as many processes."""
    data = _data(root, extent)
    dataset = open_training_data(data, seed=0, evaluated="cityscapes").dataset
    kept = replace(data, cache=str(root / "cache"))
    from_cache = open_training_data(kept, seed=0, evaluated="cityscapes").dataset
    jobs = _jobs(dataset, data, extent.samples)
    say("loader, the first epoch with a cache")
    _load(from_cache, kept, extent.samples)
    bare, ours, decoded, cached = [], [], [], []
    for number in range(rounds):
        say(f"loader, round {number + 1}")
        decoded.append(3 * extent.samples / _seconds(lambda: _in_processes(_decode, jobs, data)))
        bare.append(extent.samples / _seconds(lambda: _in_processes(_resize, jobs, data)))
        ours.append(extent.samples / _seconds(lambda: _load(dataset, data, extent.samples)))
        cached.append(extent.samples / _seconds(lambda: _load(from_cache, kept, extent.samples)))
    return [
        Row(
            name="loader",
            unit="samples/s",
            reference=bare,
            ours=ours,
            target=0.9,
            meaning=f"samples (an image of each domain, labels of one) per second of the loader of "
            f"{PRESET} with {data.workers} processes, and of as many processes that only decode "
            "the same PNG files and resize them whole with Pillow, the loader's own decoder.",
        ),
        Row(
            name="loader with data.cache",
            unit="samples/s",
            reference=ours,
            ours=cached,
            target=3.0,
            meaning=f"the same loader, which decodes, and one that reads what it has decoded in an "
            f"earlier epoch, of {extent.images} images of each domain.",
        ),
        Figure(
            name="decoding PNG",
            unit="files/s",
            rounds=decoded,
            meaning=f"the same files, two of three images, one of labels, in {data.workers} "
            "processes, Pillow.",
        ),
    ]


def _data(root: Path, extent: Extent) -> DataConfig:
    data = load_preset(PRESET).data
    data.root = str(root)
    for domain in (data.source, data.target):
        assert domain is not None
        domain.size = _divided(domain.size, extent.shrink)
    data.crop = _divided(data.crop, extent.shrink)
    return data


def _divided(size: Size, by: int) -> Size:
    return size[0] // by, size[1] // by


Job = Sequence[tuple[Path, Size, Image.Resampling]]  # the files of a sample, each with its new size


def _jobs(dataset: TrainingDataset, data: DataConfig, count: int) -> list[Job]:
    """The files of `count` samples, each as often as the loader reads it."""
    assert data.source is not None
    assert data.target is not None
    jobs: list[Job] = []
    for k in range(count):
        source = dataset.source[k % len(dataset.source)]
        target = dataset.target[k % len(dataset.target)]
        assert source.labels is not None
        jobs.append([
            (source.image, data.source.size, Image.Resampling.BICUBIC),
            (source.labels, data.source.size, Image.Resampling.NEAREST),
            (target.image, data.target.size, Image.Resampling.BICUBIC),
        ])  # fmt: skip
    return jobs


def _decode(job: Job) -> None:
    for path, _, _ in job:
        with Image.open(path) as image:
            image.load()


def _resize(job: Job) -> None:
    for path, (height, width), resampling in job:
        with Image.open(path) as image:
            image.resize((width, height), resampling)


def _in_processes(work: Callable[[Job], None], jobs: Sequence[Job], data: DataConfig) -> None:
    with Pool(data.workers) as pool:
        for _ in pool.imap_unordered(work, jobs):
            pass
        pool.close()  # else its processes are asked to stop, and say so
        pool.join()


def _load(dataset: TrainingDataset, data: DataConfig, samples: int) -> None:
    steps = samples // 2
    for _ in batches(dataset, batch_size=2, first_step=0, steps=steps, workers=data.workers):
        pass


def _seconds(work: Callable[[], object], device: torch.device | None = None) -> float:
    begin = time.monotonic()
    work()
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic() - begin
