"""A network and labeled images -> scores, at the labels' own resolution."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.utils.data import Dataset

from uda.data.files import no_memory_to_read, read_image
from uda.data.label_files import read_train_ids
from uda.data.samples import Sample
from uda.data.transforms import resize_image, resize_train_ids
from uda.evaluation.ensembles import Network, members_of
from uda.evaluation.inference import Prediction, predict
from uda.evaluation.measures import Measured, Tally
from uda.evaluation.named_measures import MeasureName
from uda.evaluation.protocols import (
    Protocol,
    Size,
    input_line,
    input_size_of,
    labels_line,
    protocol_fields,
    protocol_name,
    protocol_named,
)
from uda.labels.class_sets import ClassSet, class_set_named
from uda.labels.spaces import LabelSpace
from uda.utilities.distributed import own_share
from uda.utilities.errors import InputError, require, shown
from uda.utilities.host_memory import is_out_of_memory, saying_what_to_lower
from uda.utilities.loading import read_ahead


@dataclass(kw_only=True, slots=True)
class EvaluationConfig(Protocol):
    """What a network is scored on, when, and by which protocol; any field of it can be set."""

    dataset: str
    split: str = "val"
    # Steps between evaluations; the last step is always evaluated. 0: nothing is scored, and no
    # label of the data set is opened.
    every: int = 5000
    # Of uda/evaluation/named_measures.py, in addition to IoU and accuracy.
    measures: tuple[MeasureName, ...] = ()
    # Of classes, by the names in uda/labels/class_sets.py: averaged over besides, each published
    # with its definition. mIoU itself is over the classes that the labels trained on and the
    # labels scored on both have.
    sets: tuple[str, ...] = ()

    @classmethod
    def following(cls, name: str, *, dataset: str) -> Self:
        """Settings with the protocol called `name`; InputError when there is none."""
        return cls(dataset=dataset, **protocol_fields(protocol_named(name)))

    def follow(self, name: str) -> None:
        """Takes the settings of the protocol called `name`; InputError when there is none."""
        for field, value in protocol_fields(protocol_named(name)).items():
            setattr(self, field, value)

    def check(self, path: str) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range."""
        require(
            self.every >= 0,
            f"{path}.every is {self.every}; allowed: steps between evaluations, or 0 to score "
            "nothing",
        )
        require(
            len(set(self.measures)) == len(self.measures),
            f"{path}.measures is {self.measures}: name each measure once",
        )
        require(
            len(set(self.sets)) == len(self.sets),
            f"{path}.sets is {self.sets}: name each set of classes once",
        )
        Protocol.check(self, path)

    def idle(self) -> dict[str, str]:
        """The fields that change nothing, each with the reason."""
        found = Protocol.idle(self)
        if not self.every:
            found |= dict.fromkeys(
                ("split", "measures", "sets"), "nothing is scored, as every is 0"
            )
        return found

    def class_sets(self, space: LabelSpace) -> list[ClassSet]:
        """The sets of classes of `space` to average over; InputError when it has no such set."""
        return [class_set_named(name, space=space) for name in self.sets]


def protocol_line(config: EvaluationConfig) -> str:
    """The protocol in one line, to be printed with every score."""
    return (
        f"{protocol_name(config)} on {config.dataset} {config.split}: {input_line(config)}; "
        f"{labels_line(config)}"
    )


class Views(NamedTuple):
    """One image as the network reads it, and its labels."""

    stem: str
    images: list[Tensor]  # (3, h, w) uint8, one per scale
    labels: Tensor | None  # (H, W) uint8 train ids
    size: Size  # (H, W) of the labels: the stored image's, unless the protocol says otherwise

    def too_large(self) -> str:
        """What is said when the network finds no room for this image."""
        seen = ", ".join(f"{image.shape[2]}x{image.shape[1]}" for image in self.images)
        return (
            f"image {shown(self.stem)}, which the network reads at {seen}, does not fit into "
            "memory; use one of these: --window 512x512, a smaller --input-size, fewer --scales; "
            "in training --set evaluation.window=512,512"
        )


def view_sizes(stored: Size, config: EvaluationConfig) -> list[Size]:
    """What the network sees an image of size `stored` at: one (height, width) per scale.

    Raises InputError when a scale leaves no pixel of it.
    """
    base = input_size_of(stored, config)
    sizes = [(round(base[0] * s), round(base[1] * s)) for s in config.scales]
    require(
        min(map(min, sizes)) > 0,
        f"evaluation.scales {config.scales}: {base[1]}x{base[0]} times the lowest leaves no pixel; "
        "use larger scales",
    )
    return sizes


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
            image = read_image(
                sample.image, upright=bool(sample.upright), image_range=sample.image_range
            )
            size = (image.height, image.width)
            sizes = view_sizes(size, self.config)
            how = self.config.interpolation
            images = [torch.from_numpy(resize_image(image, scaled, how)) for scaled in sizes]
            labels = None
            if sample.labels is not None:
                train_ids = read_train_ids(sample.labels, size, sample.space or self.label_space)
                if self.config.label_size is not None:
                    train_ids = resize_train_ids(train_ids, self.config.label_size)
                labels = torch.from_numpy(train_ids)
        except InputError as error:
            return error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return no_memory_to_read(sample.image)
        return Views(sample.stem, images, labels, self.config.label_size or size)


def _only(items: list[Views | InputError]) -> Views | InputError:
    """The one item of a batch, unchanged: the loader's own conversion would make lists of it."""
    (item,) = items
    return item


def read_views(
    samples: Sequence[Sample],
    config: EvaluationConfig,
    label_space: LabelSpace,
    *,
    workers: int,
    unreadable: dict[str, str] | None = None,
    pinned: bool = False,
) -> Iterator[Views]:
    """Each image of `samples`, at the protocol's sizes; `pinned`: in memory that a GPU copies from
    while others compute.

    A file that cannot be used raises its InputError or, if there is a dict of `unreadable` files,
    is left out and added to it: the message by the sample's stem.
    """
    dataset = EvaluationDataset(samples, config=config, label_space=label_space)
    found = read_ahead(dataset, workers=workers, collate=_only, pin_memory=pinned)
    for sample, views in zip(samples, found, strict=True):
        if not isinstance(views, InputError):
            height, width = views.size  # some versions of torch make a list of it where they pin
            yield views._replace(size=(height, width))
        elif unreadable is None:
            raise views
        else:
            unreadable[sample.stem] = str(views)


def predictions(
    network: Network,
    samples: Sequence[Sample],
    *,
    config: EvaluationConfig,
    label_space: LabelSpace,
    workers: int,
    confidence: bool = False,
    among: Sequence[Sequence[int]] = (),
    soft: bool = False,
    divisors: Tensor | None = None,
) -> Iterator[tuple[Views, Prediction]]:
    """Each image of `samples` with its prediction (see inference.py) at the labels' size.

    `soft`: with the sums of probabilities by the labels, which all samples must have; `divisors`:
    see `predict`. The network is put into evaluation mode. Raises the InputError of a file that
    cannot be used.
    """
    for segmenter in members_of(network):
        segmenter.eval()
    pinned = next(network.parameters()).device.type == "cuda"
    for views in read_views(samples, config, label_space, workers=workers, pinned=pinned):
        with saying_what_to_lower(views.too_large):
            found = predict(
                network,
                views.images,
                size=views.size,
                protocol=config,
                confidence=confidence,
                among=among,
                mirrored=label_space.mirrored,
                soft_labels=views.labels if soft else None,
                num_classes=label_space.num_classes,
                divisors=divisors,
            )
        yield views, found


Progress = Callable[[Iterable[tuple[Views, Prediction]]], Iterable[tuple[Views, Prediction]]]


def _scored_space(space: LabelSpace, samples: Sequence[Sample]) -> LabelSpace:
    """The network's label space, in which classes that these label files cannot have are not
    scored, either."""
    theirs = samples[0].space if samples else None
    lacking = theirs.not_scored if theirs is not None else ()
    return replace(space, unscored=tuple(sorted({*space.unscored, *lacking})))


def _lacking_fact(space: LabelSpace) -> dict[str, object]:
    """The classes that no label which the network was trained on can have, as a fact; {} if it has
    all."""
    lacking = [n for i, n in enumerate(space.report_names) if i not in space.labeled]
    return {"absent_from_training_labels": ", ".join(lacking)} if lacking else {}


def evaluate(
    network: Network,
    samples: Sequence[Sample],
    *,
    config: EvaluationConfig,
    label_space: LabelSpace,
    boundary_ratio: float | None = None,
    workers: int = 0,
    progress: Progress = iter,
) -> Measured:
    """Scores of a network, or of an ensemble, on labeled samples (see `open_labeled_split`), and
    the measures and means over sets of classes that `config` names. It stays on its device and is
    left in evaluation mode.

    `boundary_ratio`: of the image's diagonal, for boundary scores (see boundaries.py); `progress`
    may wrap the iteration over images to draw a bar. With several processes each evaluates its
    share of the samples, and all return the scores of all. Raises InputError when a file cannot be
    used, or the network does not fit the labels or the protocol.
    """
    facts = _lacking_fact(label_space)
    label_space = _scored_space(label_space, samples)
    tally = Tally(
        label_space,
        sets=config.class_sets(label_space),
        boundary_ratio=boundary_ratio,
        measures=config.measures,
    )
    found = predictions(
        network,
        own_share(samples),
        config=config,
        label_space=label_space,
        workers=workers,
        among=tally.groups,
        soft=tally.needs_probabilities,
    )
    for views, prediction in progress(found):
        assert views.labels is not None, "evaluation samples are listed with their labels"
        tally.add(prediction.labels, views.labels, prediction.among, prediction.soft_sums)
    tally.gather()
    scores, measured = tally.measured()
    return Measured(scores, facts | measured)
