"""A network and a folder of images -> a folder of predictions."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from uda.data.deep_images import Range
from uda.data.files import range_of, read_image
from uda.data.samples import Sample
from uda.evaluation.evaluate import Progress, predictions
from uda.evaluation.inference import Prediction, predict
from uda.evaluation.protocols import input_line, protocol_name
from uda.evaluation.views import Views, read_views
from uda.prediction.inputs import conversions, listed_images
from uda.prediction.opened import OpenedNetwork
from uda.prediction.test_time import TestTimeAdapter
from uda.prediction.writer import Kind, PixelClasses, PredictionWriter
from uda.utilities.behind import Behind
from uda.utilities.distributed import joined, own_share
from uda.utilities.errors import require
from uda.utilities.host_memory import saying_what_to_lower
from uda.utilities.weight_files import sha256

_DATASET = "images"  # what samples that are of no data set are said to be of


class Predicted(NamedTuple):
    """What was written, and what could not be read."""

    images: list[str]
    unreadable: dict[str, str]  # why, by the image's name
    protocol: str
    converted: list[str]  # what is to be said of images that are not 8-bit RGB
    returned: list[str]  # the images at which an adapting network returned to its start


def predict_folder(
    network: OpenedNetwork,
    images: Path | Sequence[Path],
    output: Path,
    *,
    snapshot: Path,
    kinds: tuple[Kind, ...],
    image_range: Range | None = None,
    workers: int = 0,
    adapter: TestTimeAdapter | None = None,
    progress: Callable[[int], Progress] = lambda total: iter,
) -> Predicted:
    """Writes `kinds` of pictures (see uda/prediction/writer.py) of every image that `images` stand
    for (see uda/prediction/inputs.py), each of its own size, turned as its camera has noted.

    image_range: see `Sample`; by default, what the images use. `adapter`: adapts the network to
    each image; if it is continual, the images in one folder are a stream, in the order of their
    names.

    Of several processes each predicts its share, of streams whole ones. An image that cannot be
    read is left out and named. The size that the protocol compares labels at has no part in it.
    Raises InputError, leaving no folder behind, when none can be read, or when `output` holds
    anything but predictions.
    """
    require(
        adapter is None or network.ensemble is None,
        "adaptation at test time is of one network, not of an ensemble: predict with each",
    )
    config, space = network.config, network.snapshot.label_space
    require(
        adapter is None or config.batch == 1,
        f"--adapt adapts to each look at an image, and --batch {config.batch} takes several at "
        "once: use --batch 1",
    )
    protocol = f"{protocol_name(config)}: {input_line(config)}"
    config = replace(config, label_size=None)
    inputs = [images] if isinstance(images, Path) else images
    paths = listed_images(inputs, output)
    names = list(paths)
    image_range = image_range or range_of(tuple(paths.values()))
    converted = conversions(list(paths.values()), image_range)
    samples = [
        Sample(_DATASET, name, path, None, upright=True, image_range=image_range)
        for name, path in paths.items()
    ]
    own = own_share(samples)
    if adapter is not None and adapter.mode == "continual":
        streams = groupby(sorted(samples, key=_stream), _stream)  # sorting keeps their order
        own = [sample for stream in own_share([[*s] for _, s in streams]) for sample in stream]
    by_name = {sample.stem: sample for sample in own}
    unreadable: dict[str, str] = {}
    with PredictionWriter(output, label_space=space, kinds=kinds) as writer:
        sure = "confidence" in kinds
        if adapter is None:
            seen = predictions(
                network.segmenter, own, config=config, label_space=space, workers=workers,
                confidence=sure, unreadable=unreadable,
            )  # fmt: skip
        else:
            look = partial(predict, protocol=config, confidence=sure, mirrored=space.mirrored)
            read = read_views(own, config, space, workers=workers, unreadable=unreadable)
            seen = _adapted(adapter, read, by_name, look)
        with Behind() as behind:
            for views, prediction in progress(len(own))(seen):
                found = _pixel_classes(views, prediction)
                behind(partial(_write, writer, by_name[views.stem], found))
        lost = dict(joined(list(unreadable.items())))
        written = [name for name in names if name not in lost]
        require(
            bool(written),
            f"none of the {len(names)} images can be read; {next(iter(lost.values()), '')}",
        )
        returned = sorted(joined([] if adapter is None else adapter.returned))
        adapted = {} if adapter is None else {"test_time": adapter.title, "returned": returned}
        facts = {**network.facts, **adapted, "snapshot": snapshot.name,
                 "snapshot_sha256": sha256(snapshot), "protocol": protocol,
                 "unreadable": lost, "converted": converted}  # fmt: skip
        writer.finish(facts, written)
    return Predicted(written, lost, protocol, converted, returned)


def _stream(sample: Sample) -> Path:
    """The stream that an image belongs to."""
    return sample.image.parent


def _adapted(
    adapter: TestTimeAdapter,
    read: Iterable[Views],
    samples: Mapping[str, Sample],
    look: Callable[..., Prediction],
) -> Iterator[tuple[Views, Prediction]]:
    """Each image with the prediction of the network that has adapted to it."""
    for views in read:
        with saying_what_to_lower(views.too_large):
            found = adapter.predict(
                views.images[0].float().div(255)[None],
                partial(look, images=views.images, size=views.size),
                name=views.stem,
                stream=_stream(samples[views.stem]),
            )
        yield views, found


def _write(writer: PredictionWriter, sample: Sample, found: PixelClasses) -> None:
    if "overlays" in writer.kinds and found.image is None:  # the network saw it resized only
        image = read_image(sample.image, upright=True, image_range=sample.image_range)
        found = found._replace(image=np.asarray(image))
    writer.write(sample.stem, found)


def _pixel_classes(views: Views, prediction: Prediction) -> PixelClasses:
    probability = prediction.confidence
    stored = next((image for image in views.images if image.shape[1:] == views.size), None)
    return PixelClasses(
        None if stored is None else stored.permute(1, 2, 0).numpy(),
        prediction.labels.to(torch.uint8).cpu().numpy(),
        None if probability is None else probability.float().cpu().numpy(),
    )
