"""Predictions for a test server, whose labels are not public."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch

from uda.data.files import image_size
from uda.data.registry import list_dataset
from uda.evaluation.evaluate import predictions
from uda.evaluation.inference import Prediction
from uda.evaluation.views import Views
from uda.labels.spaces import CITYSCAPES
from uda.prediction.cityscapes_server import ServerZip
from uda.prediction.opened import OpenedNetwork
from uda.prediction.server_zip import PngZip
from uda.prediction.train_id_servers import SERVERS, TrainIdZip
from uda.utilities.behind import Behind
from uda.utilities.distributed import world_size
from uda.utilities.errors import require

EXPORTS = ("cityscapes", *SERVERS)

Progress = Callable[[Iterable[tuple[Views, Prediction]]], Iterable[tuple[Views, Prediction]]]


def export_predictions(
    network: OpenedNetwork,
    server: str,
    *,
    snapshot: Path,
    workers: int = 0,
    progress: Callable[[int], Progress] = lambda total: iter,
) -> dict[str, object]:
    """Writes the classes of every image of the split into a zip next to the `snapshot`. No label
    file is opened. `progress` makes, of the number of images, what draws a bar over them.

    Returns what was written, as facts. Raises InputError when the zip is there already, or an image
    cannot be read or sent.
    """
    config, space = network.config, network.snapshot.label_space
    require(
        config.label_size is None,
        f"this protocol compares at {config.label_size}, but the server wants the images' stored "
        "size: use --protocol native or another",
    )
    require(world_size() == 1, "--export runs in one process: start it without torchrun")
    require(
        space.classes == CITYSCAPES.classes,
        f"the network knows the classes of {space.name}, the server those of {CITYSCAPES.name}: "
        "export a network with these 19",
    )
    samples = list_dataset(network.root, config.dataset, config.split, labeled=False)
    path = snapshot.with_name(f"{snapshot.stem}_{config.split}_{server}.zip")
    stems, size = [sample.stem for sample in samples], image_size(samples[0].image)
    target: PngZip
    if server in SERVERS:
        target = TrainIdZip(path, SERVERS[server], stems=stems, size=size)
    else:
        target = ServerZip(path, stems=stems, size=size)
    with target:
        found = predictions(
            network.segmenter,
            samples,
            config=config,
            label_space=space,
            workers=workers,
            confidence=server in SERVERS,
        )
        with Behind() as behind:
            for views, prediction in progress(len(samples))(found):
                sure = prediction.confidence
                labels = prediction.labels.to(torch.uint8).cpu().numpy()
                confidence = None if sure is None else sure.cpu().numpy()
                behind(partial(target.write, views.stem, labels, confidence))
        written = target.finish()
    return {"images": len(samples), "export": written}
