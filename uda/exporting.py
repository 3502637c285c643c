"""Predictions for a test server, whose labels nobody has."""

import argparse
from functools import partial
from pathlib import Path

import torch

from uda.data.cityscapes_server import ServerZip
from uda.data.files import image_size
from uda.data.registry import list_dataset
from uda.distributed import world_size
from uda.errors import require
from uda.evaluation import predictions
from uda.network_options import OpenedNetwork
from uda.tracking import progress_bar

EXPORTS = ("cityscapes",)


def export_predictions(network: OpenedNetwork, options: argparse.Namespace) -> dict[str, object]:
    """Writes the classes of every image of the split into a zip beside the snapshot. No label file
    is opened.

    Returns what was written, as facts. Raises InputError when an option would be ignored, the zip
    is there already, or an image cannot be read or sent.
    """
    config, space = network.config, network.snapshot.label_space
    unused = [name for name in ("sets", "boundary", "measures", "json") if getattr(options, name)]
    require(
        not unused and options.format == "log",
        f"--export writes predictions and scores nothing: leave --{(unused or ['format'])[0]}",
    )
    require(
        config.label_size is None,
        f"this protocol compares at {config.label_size}, but the server wants the images' stored "
        "size: use --protocol native or another",
    )
    require(world_size() == 1, "--export runs in one process: leave torchrun")
    samples = list_dataset(network.root, config.dataset, config.split, labeled=False)
    snapshot: Path = options.restore_from
    with ServerZip(
        snapshot.with_name(f"{snapshot.stem}_{config.split}_{options.export}.zip"),
        stems=[sample.stem for sample in samples],
        label_space=space,
        size=image_size(samples[0].image),
    ) as target:
        bar = partial(progress_bar, total=len(samples), description="export")
        found = predictions(
            network.segmenter, samples, config=config, label_space=space, workers=options.workers
        )
        for views, prediction in bar(found):
            target.write(views.stem, prediction.labels.to(torch.uint8).cpu().numpy())
        written = target.finish()
    return {"images": len(samples), "export": written}
