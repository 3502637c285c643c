"""The toy city: synthetic stand-ins for GTA5, CycleGTA5 and Cityscapes, in their layouts.

All 19 classes and a real domain gap, generated in seconds. The demonstration, the tests and the
continuous integration train on it. Every image is a function of (seed, domain, index) alone.
"""

import json
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from uda.data.toy_city.camera import photograph
from uda.data.toy_city.scene import Domain, draw_scene
from uda.labels.spaces import CITYSCAPES
from uda.utilities.atomic_files import clear_write_errors, write_text_whole
from uda.utilities.errors import InputError, require
from uda.utilities.reading import SMALL, read_text
from uda.utilities.unfinished import UnfinishedFolder

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class ColorStatistics(NamedTuple):
    """Of an image's pixels in the l-alpha-beta color space, one value per axis."""

    mean: Floats  # (3,)
    deviation: Floats  # (3,)


# RGB to the cones' responses, and their logarithms to lightness, yellow-blue and red-green.
# Source: Reinhard et al., "Color Transfer between Images", IEEE CG&A 2001, equations 4 to 6.
_RGB_TO_LMS: Floats = np.array(
    ((0.3811, 0.5783, 0.0402), (0.1967, 0.7244, 0.0782), (0.0241, 0.1288, 0.8444)), np.float32
)
_LMS_TO_LAB: Floats = np.array(
    (
        (1 / 3**0.5, 1 / 3**0.5, 1 / 3**0.5),
        (1 / 6**0.5, 1 / 6**0.5, -2 / 6**0.5),
        (1 / 2**0.5, -1 / 2**0.5, 0),
    ),
    np.float32,
)
_LMS_TO_RGB: Floats = np.linalg.inv(_RGB_TO_LMS).astype(np.float32)
_LAB_TO_LMS: Floats = _LMS_TO_LAB.T  # its rows are orthonormal


def color_statistics(image: Bytes) -> ColorStatistics:
    """Mean and standard deviation of an (H, W, 3) RGB image's colors."""
    return _statistics(_to_lab(image))


def match_colors(image: Bytes, statistics: ColorStatistics) -> Bytes:
    """The image with its colors moved to the given mean and standard deviation, (H, W, 3).

    The toy city's stand-in for a CycleGAN translation: the target's colors, the source's shapes.
    """
    lab = _to_lab(image)
    own = _statistics(lab)
    ratio = statistics.deviation / (own.deviation + np.float32(1e-6))  # of one color only: no 0
    moved = (lab - own.mean[:, None]) * ratio[:, None] + statistics.mean[:, None]
    rgb = _apply(_LMS_TO_RGB, np.exp(_apply(_LAB_TO_LMS, moved)))
    return np.clip(rgb.T.reshape(image.shape) + 0.5, 0, 255).astype(np.uint8)


def _to_lab(image: Bytes) -> Floats:
    """(3, H * W) float32."""
    rgb = image.reshape(-1, 3).T.astype(np.float32)
    # Black has no logarithm; a floor of 8 of 255 keeps tires from ruling the deviation.
    return _apply(_LMS_TO_LAB, np.log(_apply(_RGB_TO_LMS, np.maximum(rgb, 8))))


def _apply(matrix: Floats, pixels: Floats) -> Floats:
    # Not `@`: a threaded BLAS may round differently with another number of threads.
    return np.einsum("ij,jn->in", matrix, pixels)


def _statistics(lab: Floats) -> ColorStatistics:
    return ColorStatistics(lab.mean(1), lab.std(1))


VALIDATION_OFFSET = 10**6  # index of the first validation image: far from those of training images
CITIES = {
    "train": ("aachen", "bochum", "bremen", "cologne"),
    "val": ("frankfurt", "lindau", "munster"),
}

_VERSION = 1  # raise it when the same arguments give different pictures
_RECORD = "toy_city.json"
_DOMAIN_CODES: dict[Domain, int] = {"source": 0, "target": 1}
_PARTNER_CODE = 2  # the random stream that picks a target image for every source image
_UNLABELED, _EGO_VEHICLE = 0, 1  # raw ids of void in GTA5 and of the bonnet in Cityscapes


class ToyImage(NamedTuple):
    image: Bytes  # (H, W, 3) RGB
    train_ids: Bytes  # (H, W), 255 = void


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arguments:
    """What determines every byte of a written toy city; recorded next to it."""

    source_images: int
    target_images: int
    validation_images: int
    size: tuple[int, int]
    seed: int
    gap: float

    def record(self) -> str:
        return json.dumps({"version": _VERSION} | asdict(self), indent=2) + "\n"


def toy_image(
    domain: Domain,
    index: int,
    *,
    seed: int,
    size: tuple[int, int] = (128, 256),
    gap: float = 0.5,
) -> ToyImage:
    """Image number `index` of a domain, with its labels; size is (height, width) in pixels.

    gap: strength of the target's camera effects, 0 to 1. Textures and layout differ at any gap.
    Raises InputError when the size, the gap, the seed or the index is out of range.
    """
    _check(seed=seed, size=size, gap=gap)
    if index < 0:
        raise InputError(f"toy city: image number {index}; give a number >= 0")
    rng = np.random.default_rng([seed, _DOMAIN_CODES[domain], index])
    scene = draw_scene(domain, rng, size)
    image = photograph(scene, domain, rng, gap=gap)
    return ToyImage(image, np.asarray(scene.canvas)[..., 3].copy())


def contact_sheet(
    *, rows: int = 6, seed: int = 0, size: tuple[int, int] = (128, 256), gap: float = 0.5
) -> Image.Image:
    """An RGB picture, rows * H high and 6 * W wide, of both domains, one street per cell.

    Columns: source, its labels, target, its labels, another target, the source in the colors of
    that other target.
    """
    sheet = []
    for row in range(rows):
        source = toy_image("source", row, seed=seed, size=size, gap=gap)
        target = toy_image("target", row, seed=seed, size=size, gap=gap)
        other = toy_image("target", rows + row, seed=seed, size=size, gap=gap)
        cells = (
            source.image,
            CITYSCAPES.colorize(source.train_ids),
            target.image,
            CITYSCAPES.colorize(target.train_ids),
            other.image,
            match_colors(source.image, color_statistics(other.image)),
        )
        sheet.append(np.concatenate(cells, axis=1))
    return Image.fromarray(np.concatenate(sheet))


def _check(*, seed: int, size: tuple[int, int], gap: float) -> None:
    if min(size) < 64:
        raise InputError(
            f"toy city: size {size[1]}x{size[0]} (width x height); both must be at least 64 pixels"
        )
    if not 0 <= gap <= 1:
        raise InputError(f"toy city: gap {gap}; give a number from 0 (no camera effects) to 1")
    if seed < 0:
        raise InputError(f"toy city: seed {seed}; give a whole number >= 0")


def write_toy_city(
    root: Path,
    *,
    source_images: int = 400,
    target_images: int = 400,
    validation_images: int = 80,
    size: tuple[int, int] = (128, 256),
    seed: int = 0,
    gap: float = 0.5,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Writes the folders GTA5, CycleGTA5 and Cityscapes under `root`, all or nothing.

    progress: called with 1 after each of the source + target + validation scenes.
    A toy city made with the same arguments is kept. Raises InputError when `root` has other
    content, or when an argument is out of range.
    """
    arguments = _Arguments(
        source_images=source_images,
        target_images=target_images,
        validation_images=validation_images,
        size=size,
        seed=seed,
        gap=gap,
    )
    _check(seed=seed, size=size, gap=gap)
    if min(source_images, target_images, validation_images) < 1:
        raise InputError("toy city: source, target and validation need at least one image each")
    if root.exists():
        _check_same(root, arguments)
        return
    with UnfinishedFolder(root, check=partial(_check_free, root)) as unfinished:
        with clear_write_errors(root):
            _write_city(unfinished.path, arguments, progress or (lambda count: None))
        write_text_whole(unfinished.path / _RECORD, arguments.record())
        unfinished.finish()


def is_toy_city(root: Path) -> bool:
    """Whether the data sets below `root` are synthetic, with any number of images."""
    return (root / _RECORD).is_file()


def _check_free(root: Path) -> None:
    require(
        not root.exists(), f"{root} exists by now: give the command again, or another --output DIR"
    )


def _check_same(root: Path, arguments: _Arguments) -> None:
    record = root / _RECORD
    if not record.is_file():
        raise InputError(
            f"{root} exists and is not a toy city (it has no {_RECORD}): choose another folder"
        )
    try:
        same = read_text(record, SMALL, "utf-8") == arguments.record()
    except (OSError, ValueError):
        same = False
    if not same:
        raise InputError(
            f"{root} has a toy city made with other arguments (see {record}): "
            "delete that folder or choose another one"
        )


def _write_city(root: Path, arguments: _Arguments, progress: Callable[[int], None]) -> None:
    def draw(domain: Domain, index: int) -> ToyImage:
        return toy_image(domain, index, seed=arguments.seed, size=arguments.size, gap=arguments.gap)

    statistics = []
    for index in range(arguments.target_images):
        scene = draw("target", index)
        _write_cityscapes(root, "train", scene, index=index, count=arguments.target_images)
        statistics.append(color_statistics(scene.image))
        progress(1)
    for index in range(arguments.validation_images):
        scene = draw("target", VALIDATION_OFFSET + index)
        _write_cityscapes(root, "val", scene, index=index, count=arguments.validation_images)
        progress(1)
    for index in range(arguments.source_images):
        scene = draw("source", index)
        rng = np.random.default_rng([arguments.seed, _PARTNER_CODE, index])
        partner = statistics[int(rng.integers(len(statistics)))]
        _write_gta(root, scene, match_colors(scene.image, partner), index=index)
        progress(1)


def _write_cityscapes(root: Path, split: str, scene: ToyImage, *, index: int, count: int) -> None:
    cities = CITIES[split]
    # Blocks of images per city: sorted by name, the files are in the order of their indices.
    city = cities[index * len(cities) // count]
    stem = f"{city}_{index:06d}_000019"
    folder = root / "Cityscapes"
    image_path = folder / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png"
    label_path = folder / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png"
    raw = CITYSCAPES.to_raw_ids(scene.train_ids, ignored=_EGO_VEHICLE)
    _save(Image.fromarray(scene.image), image_path)
    _save(Image.fromarray(raw), label_path)


def _write_gta(root: Path, scene: ToyImage, translated: Bytes, *, index: int) -> None:
    labels = Image.fromarray(CITYSCAPES.to_raw_ids(scene.train_ids, ignored=_UNLABELED))
    labels.putpalette(_raw_palette())  # turns the mode from L to P and keeps the values
    name = f"{index + 1:05d}.png"
    for folder, image in (("GTA5", scene.image), ("CycleGTA5", translated)):
        _save(Image.fromarray(image), root / folder / "images" / name)
        _save(labels, root / folder / "labels" / name)


def _raw_palette() -> list[int]:
    colors = CITYSCAPES.colorize(np.array([CITYSCAPES.raw_to_train[i] for i in range(35)]))
    return [int(channel) for channel in colors.ravel()]


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # On noisy images run-length matching is as small as the default search, in half the time.
    image.save(path, compress_level=1, compress_type=zlib.Z_RLE)
