"""Small data sets in the real layouts, and a network whose predictions are known."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from tiny_runs import CROP, tiny_model
from uda.checkpoints.formats.base import ForeignFormat, known_formats
from uda.checkpoints.snapshots import Snapshot, versions
from uda.data.registry import list_dataset
from uda.data.samples import Sample
from uda.evaluation.ensembles import Network
from uda.evaluation.inference import probability_strips
from uda.evaluation.protocols import Protocol
from uda.experiment import Experiment
from uda.labels.spaces import CITYSCAPES
from uda.models.config import ModelConfig
from uda.models.discriminators import FullyConvolutionalDiscriminator
from uda.models.encoders.base import FeatureMaps, Normalization
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.optim.optimizers import ParameterGroup, build_optimizer
from uda.training.run import Run
from uda.utilities.config_tree import to_plain

Bytes = npt.NDArray[np.uint8]

SIZE = (8, 16)  # pixels (height, width) of the images below


def write_png(path: Path, pixels: Bytes) -> Path:
    """Writes (H, W) as gray and (H, W, 3) as RGB, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def noise(seed: int, size: tuple[int, int] = SIZE) -> Bytes:
    """(H, W, 3) RGB."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def raw_labels(seed: int, size: tuple[int, int] = SIZE) -> Bytes:
    """(H, W) raw ids, all that there are."""
    return np.random.default_rng(seed).integers(0, 35, size, dtype=np.uint8)


def write_gta5(root: Path, count: int = 4, *, folder: str = "GTA5") -> Path:
    """`count` images with palette labels, written in no sorted order; the data set's folder."""
    for index in range(count, 0, -1):
        write_png(root / folder / "images" / f"{index:05d}.png", noise(index))
        labels = Image.fromarray(raw_labels(index))
        labels.putpalette([value % 256 for value in range(3 * 35)])
        path = root / folder / "labels" / f"{index:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        labels.save(path)
    return root / folder


CITYSCAPES_STEMS = (
    "aachen_000000_000019",
    "aachen_000001_000019",
    "bremen_000000_000019",
    "ulm_000005_000019",
)


def cityscapes_image(root: Path, stem: str, split: str = "train") -> Path:
    city = stem.split("_")[0]
    return root / "Cityscapes" / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png"


def cityscapes_labels(root: Path, stem: str, split: str = "train") -> Path:
    city = stem.split("_")[0]
    return root / "Cityscapes" / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png"


def write_cityscapes(
    root: Path, *, split: str = "train", labeled: bool = True, stems: tuple[str, ...] = ()
) -> Path:
    """Images, and labels if asked for, written in no sorted order; the data set's folder."""
    for index, stem in reversed(list(enumerate(stems or CITYSCAPES_STEMS))):
        write_png(cityscapes_image(root, stem, split), noise(index))
        if labeled:
            write_png(cityscapes_labels(root, stem, split), raw_labels(index))
    return root / "Cityscapes"


def describe_city(folder: Path, root: Path) -> tuple[Path, Path]:
    """Files that describe the toy city at `root`: its source by colors, its target by values."""
    ids = [raw for raw, train_id in CITYSCAPES.raw_to_train.items() if train_id == 255]
    raws = sorted((t, raw) for raw, t in CITYSCAPES.raw_to_train.items() if t != 255)
    for sample in list_dataset(root, "gta5", "train", labeled=True):
        assert sample.labels is not None
        train_ids = CITYSCAPES.to_train_ids(np.asarray(Image.open(sample.labels)), "drawn")
        path = folder / f"colors/{sample.stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(CITYSCAPES.colorize(train_ids)).save(path)
    (folder / "images").symlink_to(root / "GTA5/images")
    source = ['images = "images/{name}.png"', 'labels = "colors/{name}.png"',
              "ignore_colors = [[0, 0, 0]]", 'splits = ["train"]']  # fmt: skip
    target = [f"root = {json.dumps(str(root / 'Cityscapes'))}", f"ignore = {ids}",
              'images = "leftImg8bit/{split}/{name}_leftImg8bit.png"',
              'labels = "gtFine/{split}/{name}_gtFine_labelIds.png"',
              'splits = ["train", "val"]']  # fmt: skip
    for (_, raw), name, color in zip(raws, CITYSCAPES.classes, CITYSCAPES.palette, strict=True):
        source += ["[[classes]]", f"name = '{name}'", f"color = {list(color)}"]
        target += ["[[classes]]", f"name = '{name}'", f"value = {raw}", f"color = {list(color)}"]
    (folder / "source.toml").write_text("\n".join(source))
    (folder / "target.toml").write_text("\n".join(target))
    return folder / "source.toml", folder / "target.toml"


class ColorSegmenter(Segmenter):
    """Red says the class (10 gray levels each), green how sure it is: a logit of green / 16.

    `slope` is added to class 0 from column to column, so that mirrored images are judged otherwise.
    """

    def __init__(self, num_classes: int = 19, *, slope: float = 0.0) -> None:
        nothing = Normalization(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        super().__init__(nn.Conv2d(1, 1, 1), provenance="none", normalization=nothing)
        self.num_classes = num_classes
        self.slope = slope

    @property
    def has_auxiliary_head(self) -> bool:
        return False

    def encode(self, normalized: Tensor) -> FeatureMaps:
        return (normalized,)

    def decode(self, features: FeatureMaps) -> SegmentationOutput:
        (normalized,) = features
        red, green = (255 * normalized[:, :2]).unbind(1)
        classes = (red / 10).round().long().clamp(0, self.num_classes - 1)
        logits = nn.functional.one_hot(classes, self.num_classes).permute(0, 3, 1, 2)
        logits = logits * (green / 16)[:, None]
        logits[:, 0] += self.slope * torch.arange(normalized.shape[3])
        return SegmentationOutput(logits, None, normalized)


def colors_of(train_ids: Bytes, green: int | Bytes = 240) -> Bytes:
    """The picture (H, W, 3) in which `ColorSegmenter` sees `train_ids` (H, W)."""
    image = np.zeros((*train_ids.shape, 3), np.uint8)
    image[..., 0] = 10 * train_ids
    image[..., 1] = green
    return image


def written_sample(folder: Path, stem: str, image: Bytes, train_ids: Bytes | None = None) -> Sample:
    """A sample with `image` (H, W, 3) and the labels `train_ids` (H, W), if given."""
    labels = None
    if train_ids is not None:
        raw = CITYSCAPES.to_raw_ids(train_ids, ignored=0)
        labels = write_png(folder / f"{stem}_labels.png", raw)
    return Sample("drawn", stem, write_png(folder / f"{stem}.png", image), labels)


def tiny_snapshot(experiment: Experiment) -> Snapshot:
    """A snapshot of `experiment` whose networks are new ones of `tiny_model`, each its own."""
    experiment.model = tiny_model()
    experiment.evaluation.input_size = CROP
    torch.manual_seed(0)
    student, teacher = (experiment.model.build(19).state_dict() for _ in range(2))
    return Snapshot(
        preset="tiny",
        experiment=to_plain(experiment),
        label_space=CITYSCAPES,
        supervision="none",
        initial_weights="drawn at random",
        step=7,
        scores={"miou": 12.5, "per_class": {"road": 50.0, "train": None}},
        versions=versions(),
        student=student,
        teacher=None if experiment.teacher is None else teacher,
    )


def with_small_discriminators(run: Run) -> Run:
    """Another discriminator for the main head, and an optimizer for it: a hundredth in size."""
    objective = run.objectives["adversarial"]
    assert objective.optimizer is not None
    objective.discriminators = nn.ModuleDict({"main": FullyConvolutionalDiscriminator(19, width=2)})
    group: ParameterGroup = {"params": list(objective.parameters()), "lr_factor": 1.0}
    run.optimizers["adversarial"] = build_optimizer(objective.optimizer, [group])
    return run


def title_of(foreign: ForeignFormat) -> str:
    """The format in words, for its usual network."""
    return foreign.title(foreign.network({}))


def format_titled(title: str) -> ForeignFormat:
    """The format whose usual network has that title."""
    (found,) = (foreign for foreign in known_formats() if title_of(foreign) == title)
    return found


_SHAPES: dict[tuple[str, int], dict[str, tuple[torch.dtype, torch.Size]]] = {}


def file_of(
    foreign: ForeignFormat, model: ModelConfig | None = None, num_classes: int = 19
) -> dict[str, Tensor]:
    """Every entry of a file but those that its network never reads; its usual network unless
    `model` is given. Each is one zero, seen as often as the tensor has numbers: a file that takes
    no memory."""
    model = model or foreign.network({})
    key = repr(model), num_classes
    if key not in _SHAPES:
        with torch.device("meta"):
            own = model.build(num_classes).state_dict()
        _SHAPES[key] = {name: (tensor.dtype, tensor.shape) for name, tensor in own.items()}
    return {
        name: torch.zeros((), dtype=dtype).expand(shape)
        for own_name, (dtype, shape) in _SHAPES[key].items()
        if (name := foreign.their_name(own_name)) is not None
    }


def shown(seed: int = 6, size: tuple[int, int] = (22, 38)) -> Tensor:
    """An image (3, H, W) uint8 that ColorSegmenter can read."""
    image = noise(seed, size)
    image[..., 0] %= 190
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()


def probabilities(
    segmenter: Network,
    images: Sequence[Tensor],
    size: tuple[int, int],
    protocol: Protocol | None = None,
) -> Tensor:
    """(C, H, W) of one image, by the protocol `native` unless another is given."""
    protocol = protocol or Protocol()
    return torch.cat(list(probability_strips(segmenter, images, size=size, protocol=protocol)), 1)
