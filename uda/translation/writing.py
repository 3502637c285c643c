"""A data set's images, translated, in a folder that its layout reads; see
`uda/data/translated_folder.py`."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from uda.data.listing import on_disk
from uda.data.registry import layout_named, list_dataset
from uda.data.samples import Layout, Sample
from uda.data.translated_folder import (
    MANIFEST,
    SUFFIXES,
    PictureFormat,
    TranslationManifest,
    encoded,
    find_manifest,
    images_digest,
)
from uda.translation.originals import Originals, read_originals
from uda.translation.translators import Translator
from uda.utilities.atomic_files import clear_write_errors, remove_partial, replacing
from uda.utilities.distributed import any_of, is_main, own_share, sum_over_ranks, wait_for_all
from uda.utilities.errors import InputError, require, require_size
from uda.utilities.locks import holds_nothing, sole_writer
from uda.utilities.reading import real
from uda.utilities.version import __version__

_THREADS = 4  # that compress pictures while the next ones are translated
_ANOTHER = "choose another folder with --output DIR"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Which images are translated, and how they are stored."""

    dataset: str  # a name of `uda/data/registry.py`, or the path of a TOML file
    splits: tuple[str, ...] = ("train",)
    first: int | None = None  # only the first N images
    width: int | None = None  # images are resized to it, their ratio kept; None: as stored
    labels: bool = True  # whether the labels are linked; without it, they are not looked for
    picture_format: PictureFormat = "png"
    quality: int = 95  # of JPEG, 1 to 100

    def check(self) -> None:
        """Raises InputError for a value out of its range."""
        require(1 <= self.quality <= 100, f"--quality {self.quality}: allowed are 1 to 100")
        if self.width is not None:
            require_size("--width", (1, self.width))


class Written(NamedTuple):
    """What a translation has done, in all processes."""

    manifest: TranslationManifest
    images: int  # that were translated now
    kept: int  # that were there already


def translate_dataset(
    translator: Translator,
    wanted: Wanted,
    output: Path,
    *,
    root: Path,
    device: torch.device,
    workers: int = 0,
    progress: Callable[..., Iterable[Any]] = lambda items, total: items,
) -> Written:
    """Writes the images of a data set below `root`, translated, into the folder `output`, under the
    paths that they have in their data set's folder, links to their labels, and a manifest.

    `workers`: processes that read images; they change no byte. Of several processes (torchrun) each
    translates its share. An interrupted translation is continued by the same call. Raises
    InputError when an image cannot be read, when `output` holds anything but images of the same
    translator, settings and originals, or is being written by another process.
    """
    wanted.check()
    folder = root / layout_named(wanted.dataset).folder
    samples = _samples(wanted, root)
    _check_format(wanted, root)
    require(
        not real(output).is_relative_to(real(folder)),
        f"{output} is in the folder of the originals: {_ANOTHER}",
    )
    places = _places(samples, folder, output, wanted)
    manifest = TranslationManifest(
        method=translator.method,
        translator=translator.facts(),
        dataset=wanted.dataset,
        splits=wanted.splits,
        image_count=len(samples),
        images_sha256=images_digest(samples),
        width=wanted.width,
        picture_format=wanted.picture_format,
        quality=wanted.quality if wanted.picture_format == "jpeg" else None,
        library_version=__version__,
    )
    with _opened(output, manifest, places):
        own = own_share(list(zip(samples, places, strict=True)))
        missing = [(sample, place) for sample, place in own if not place.is_file()]
        _link_labels([sample for sample, _ in own], folder, output)
        found = _translated(translator, missing, wanted.width, device, workers)
        save = _Saving(wanted)
        with ThreadPoolExecutor(_THREADS) as threads:
            for place, image in progress(found, total=len(missing)):
                save.begin(threads, place, image)
            save.finish()
        wait_for_all()
        if is_main():
            manifest = replace(manifest, finished=True)
            manifest.write(output)
        counts = sum_over_ranks(torch.tensor([len(missing), len(own) - len(missing)]))
    return Written(manifest, *map(int, counts))


def _samples(wanted: Wanted, root: Path) -> list[Sample]:
    samples = [
        sample
        for split in wanted.splits
        for sample in list_dataset(root, wanted.dataset, split, labeled=wanted.labels)
    ]
    require(
        wanted.first is None or wanted.first <= len(samples),
        f"--first {wanted.first}: {wanted.dataset} has {len(samples)} images",
    )
    return samples[: wanted.first]


def read_as(dataset: str) -> Layout:
    """The data set that the translated images of `dataset` are read as."""
    layout = layout_named(dataset)
    return layout_named(layout.translated_as) if layout.translated_as else layout


def _check_format(wanted: Wanted, root: Path) -> None:
    """Raises InputError unless pictures of this format are read as images of the data set."""
    layout, reader, suffix = layout_named(wanted.dataset), read_as(wanted.dataset), SUFFIXES
    if reader is layout:
        folder = root / layout.folder
        reader = on_disk(layout, folder, wanted.splits[0], labeled=False)
    texts = [pattern.text for split in wanted.splits for pattern in reader.part(split).images]
    require(
        any(text.endswith(suffix[wanted.picture_format]) for text in texts),
        f"--format {wanted.picture_format}: images of {reader.name} are called "
        f"{', '.join(texts)}, so the pictures would not be found: give another --format",
    )


def _places(samples: Sequence[Sample], folder: Path, output: Path, wanted: Wanted) -> list[Path]:
    """Where each translated image belongs; InputError when two would be one file."""
    suffix = SUFFIXES[wanted.picture_format]
    places: dict[Path, Path] = {}
    for sample in samples:
        place = output / sample.image.relative_to(folder).with_suffix(suffix)
        other = places.setdefault(place, sample.image)
        require(
            other == sample.image,
            f"{other} and {sample.image} would both become {place}: rename one of them",
        )
    return list(places)


@contextmanager
def _opened(output: Path, manifest: TranslationManifest, places: Sequence[Path]) -> Iterator[None]:
    """Locks `output` and leaves the manifest of an unfinished translation in it, unless it has
    that of a finished one; InputError on every rank when it is of something else, or in use."""
    with ExitStack() as held:
        refusal = ""
        if is_main():
            try:
                held.enter_context(sole_writer(output, another="--output DIR"))
                if not _is_same(output, manifest):
                    manifest.write(output)
                for folder in {output, *(place.parent for place in places)}:
                    remove_partial(folder)  # what a killed process had begun
            except InputError as error:
                refusal = str(error)
        refusal = any_of(refusal)
        require(not refusal, refusal)
        yield


def _is_same(output: Path, manifest: TranslationManifest) -> bool:
    """Whether a finished or unfinished translation like this one is there, or nothing (False);
    InputError when there is something else."""
    found = find_manifest(output)
    if found is None:
        require(
            holds_nothing(output),
            f"{output} holds files, but no {MANIFEST} of this command: {_ANOTHER}",
        )
        return False
    ours, theirs = manifest.settings(), found.settings()
    changed = [name for name in ours if ours[name] != theirs[name] and name != "translator"]
    names = sorted({*manifest.translator, *found.translator})
    changed += [n for n in names if manifest.translator.get(n) != found.translator.get(n)]
    require(
        not changed,
        f"{output} holds images that were translated with other values of {', '.join(changed)}: "
        f"give the same command to continue, or {_ANOTHER}",
    )
    return True


def _link_labels(samples: Sequence[Sample], folder: Path, output: Path) -> None:
    """Relative links to the label files of `samples`, under their paths in the data set."""
    for sample in samples:
        if sample.labels is None:
            continue
        link = output / sample.labels.relative_to(folder)
        # Parts of either path may be links themselves: what `..` means is known of real ones only.
        labels = real(sample.labels.parent) / sample.labels.name
        if link.is_symlink() and link.exists() and link.samefile(labels):
            continue
        with clear_write_errors(link):
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            target = os.path.relpath(labels, real(link.parent))
        try:
            link.symlink_to(target)
        except OSError as error:
            raise InputError(
                f"{link} cannot be made a link to {labels} ({error.strerror}): choose an --output "
                "DIR on a disk that has symbolic links, or give --labels none and copy the labels "
                f"to {link.parent} yourself"
            ) from None


@torch.inference_mode()
def _translated(
    translator: Translator,
    missing: Sequence[tuple[Sample, Path]],
    width: int | None,
    device: torch.device,
    workers: int,
) -> Iterator[tuple[Path, Tensor]]:
    """Where each image belongs, and it, translated: (3, H, W) uint8 on the CPU."""
    originals = Originals([sample for sample, _ in missing], width, translator.partners)
    read = read_originals(originals, workers)
    for (_, place), (image, partner) in zip(missing, read, strict=True):
        other = None if partner is None else partner.to(device).float() / 255
        result = translator(image.to(device).float() / 255, other)
        assert result.shape == image.shape, "a translator keeps the size"
        yield place, (result.clamp(0, 1) * 255).round().to(torch.uint8).cpu()


class _Saving:
    """Compresses and writes pictures in threads, a bounded number of them ahead."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.begun: deque[Future[None]] = deque()

    def begin(self, threads: ThreadPoolExecutor, place: Path, image: Tensor) -> None:
        """Raises WriteError when an earlier picture could not be written."""
        self.begun.append(threads.submit(self._save, place, image))
        while len(self.begun) > 2 * _THREADS:
            self.begun.popleft().result()

    def finish(self) -> None:
        """Returns when all pictures are on disk; raises WriteError when one is not."""
        while self.begun:
            self.begun.popleft().result()

    def _save(self, place: Path, image: Tensor) -> None:
        with clear_write_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True)
        content = encoded(image, self.wanted.picture_format, self.wanted.quality)
        with replacing(place) as file:
            file.write(content)
