"""Unsupervised domain adaptation for semantic segmentation, in plain PyTorch.

The functions here are all that most programs need; docs/python.md shows them at work. `import uda`
is light: a function imports what it needs when it is called.
"""

import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from uda.utilities.errors import InputError
from uda.utilities.version import __version__ as __version__

if TYPE_CHECKING:
    import torch

    from uda.checkpoints.foreign import ForeignOptions
    from uda.evaluation.ensembles import Network
    from uda.evaluation.protocols import Precision
    from uda.experiment import Experiment
    from uda.models.segmenter import Segmenter
    from uda.prediction.folder import Predicted
    from uda.prediction.images import Pictures, PixelLabels
    from uda.prediction.portable import Exported
    from uda.prediction.portable_network import OutputName, PixelKind
    from uda.prediction.scoring import Evaluation

__all__ = ["InputError", "evaluate", "export", "load", "predict", "train"]

_Path = str | PathLike[str]


def load(
    path: _Path,
    *,
    partial: str | Sequence[str] = (),
    ignore: str | Sequence[str] = (),
    project: str | None = None,
    output_stride: int | None = None,
    weights: Literal["student", "teacher"] = "student",
    code: _Path | None = None,
) -> "Segmenter":
    """The network in a snapshot, or in a file of a project listed in uda/checkpoints/formats, in
    evaluation mode on the CPU.

    Of a file of another project: `partial` are tensors that it may lack, which are then randomly
    initialized, the same in every call, and `ignore` those that its network has no use for: names,
    or how they begin; `project`: whose it is, where the tensors do not tell ("adaptsegnet",
    "advent"); `output_stride`: 8 or 16, by default what the file's name says, or the usual one.
    `code`: the Python file of a user-defined network; it is run. If it has changed since training,
    a warning says so.
    Raises InputError when the file is missing, damaged, of no known format, or lacks or has tensors
    that these options do not allow.
    """
    from uda.checkpoints.foreign import ForeignOptions
    from uda.checkpoints.snapshots import load as load_snapshot

    foreign = ForeignOptions(
        partial=[partial] if isinstance(partial, str) else partial,
        ignore=[ignore] if isinstance(ignore, str) else ignore,
        project=project,
        output_stride=output_stride,
    )
    snapshot = load_snapshot(Path(path), foreign=foreign, code=_path(code))
    network = snapshot.build(weights)
    if (said := snapshot.report.get("code", "")).startswith("warning: "):
        warnings.warn(f"{code}: {said.removeprefix('warning: ')}", stacklevel=2)
    return network


def evaluate(
    network: "_Path | Network",
    dataset: str | None = None,
    *,
    split: str | None = None,
    protocol: str | None = None,
    precision: "Precision | None" = None,
    data_root: _Path | None = None,
    device: "str | torch.device | None" = None,
    workers: int = 2,
    code: _Path | None = None,
) -> "Evaluation":
    """Scores of a network on a labeled split: `miou`, `iou` by class, `protocol`, `facts`; `print`
    shows what `uda eval` prints.

    network: the path of a snapshot or of a file that `load` opens, whose data set, split and
    protocol are the defaults; or a network or `Ensemble`, which needs a `dataset` and is scored on
    "val" by the protocol "native" unless told otherwise. `dataset`: the name of a data set below
    `data_root` (default: the snapshot's, then the variable UDA_DATA), or the path of a TOML file.
    `precision`: of the network's forward pass, the snapshot's or float32 unless told otherwise.
    `code`: as in `load`.
    Raises InputError when the data or the file cannot be used, or the classes differ.
    """
    from uda.data.registry import layout_named, refuse_unused_root, root_of
    from uda.prediction.opened import config_without_file, network_on, open_network, title_of
    from uda.prediction.scoring import score_network

    root = None if data_root is None else str(data_root)
    if isinstance(network, (str, PathLike)):
        opened = open_network(
            Path(network),
            device=_device(device),
            protocol=protocol,
            changes=_changes(precision),
            data_root=root,
            dataset=dataset,
            code=_path(code),
        )
        opened.config.split = split or opened.config.split
        return score_network(
            opened.segmenter,
            config=opened.config,
            label_space=opened.snapshot.label_space,
            root=opened.root,
            facts=opened.facts,
            workers=workers,
        )
    if dataset is None:
        raise InputError("evaluate(network, dataset): a network alone has no data set: name one")
    refuse_unused_root(root, [dataset])
    return score_network(
        network_on(network, None if device is None else _device(device)),
        config=config_without_file(
            network, dataset, split or "val", protocol=protocol, precision=precision
        ),
        label_space=layout_named(dataset).label_space,
        root=root_of(root or "", [dataset]),
        facts={"network": title_of(network)},
        workers=workers,
    )


@overload
def predict(
    network: "_Path | Network",
    images: "Pictures",
    *,
    output: None = None,
    protocol: str | None = None,
    precision: "Precision | None" = None,
    device: "str | torch.device | None" = None,
    code: _Path | None = None,
) -> "list[PixelLabels]": ...


@overload
def predict(
    network: _Path,
    images: _Path,
    *,
    output: _Path,
    protocol: str | None = None,
    precision: "Precision | None" = None,
    device: "str | torch.device | None" = None,
    code: _Path | None = None,
) -> "Predicted": ...


def predict(
    network: "_Path | Network",
    images: "Pictures",
    *,
    output: _Path | None = None,
    protocol: str | None = None,
    precision: "Precision | None" = None,
    device: "str | torch.device | None" = None,
    code: _Path | None = None,
) -> "list[PixelLabels] | Predicted":
    """The classes of images' pixels: for each image its `name`, `labels` (H, W) and `confidence`
    (H, W), at the image's own size.

    images: one or several pictures of Pillow, arrays (H, W, 3) uint8, tensors (3, H, W), paths; a
    batch (N, 3, H, W); or the path of a folder, whose images are taken in sorted order. Tensors are
    uint8 or float in [0, 1]. `network`, `precision`, `code`: as in `evaluate`; a path brings its
    protocol.

    With `output`, the images of a folder are written there as ids, colors, overlays and confidence,
    as `uda predict` does, and what was written is returned: of a folder that does not fit into
    memory, too. Raises InputError when images or files cannot be used.
    """
    from uda.prediction.folder import predict_folder
    from uda.prediction.images import label_pictures
    from uda.prediction.opened import config_without_file, network_on, open_network
    from uda.prediction.writer import KINDS

    if isinstance(network, (str, PathLike)):
        path = Path(network)
        opened = open_network(
            path,
            device=_device(device),
            protocol=protocol,
            changes=_changes(precision),
            data=False,
            code=_path(code),
        )
        if output is None:
            mirrored = opened.snapshot.label_space.mirrored
            return label_pictures(opened.segmenter, images, config=opened.config, mirrored=mirrored)
        if not isinstance(images, (str, PathLike)):
            raise InputError("predict(..., output=): give images as the path of a folder")
        return predict_folder(opened, Path(images), Path(output), snapshot=path, kinds=tuple(KINDS))
    if output is not None:
        raise InputError(
            "predict(..., output=): give the network as the path of its file, which knows the "
            "names and colors of its classes"
        )
    config = config_without_file(network, "images", "", protocol=protocol, precision=precision)
    network = network_on(network, None if device is None else _device(device))
    return label_pictures(network, images, config=config)


def export(
    network: _Path,
    output: _Path,
    *,
    size: tuple[int, int] | None = None,
    pixels: "PixelKind" = "uint8",
    outputs: "Sequence[OutputName]" = ("labels",),
    weights: Literal["student", "teacher"] = "student",
    foreign: "ForeignOptions | None" = None,
    code: _Path | None = None,
) -> "Exported":
    """Writes the network of a file that `load` opens as a program for others, .onnx or, of
    torch.export, .pt2, after comparing them; what was found is in `checks` and `facts`.

    `size`: (H, W) of all images; by default any. `pixels`: what images are, and `outputs`: what is
    computed of them; see `INPUTS` and `OUTPUTS` in uda/prediction/portable_network.py. `foreign`:
    what `load` is told of another project's file.
    Raises InputError, and leaves no file, when a package is missing or the file disagrees.
    """
    from uda.prediction.opened import open_network
    from uda.prediction.portable import ExportOptions, export_network, format_of

    path = Path(network)
    options = ExportOptions(
        format=format_of(Path(output)), size=size, pixels=pixels, outputs=tuple(outputs)
    )
    opened = open_network(
        path, device=_device("cpu"), weights=weights, foreign=foreign, data=False, code=_path(code)
    )
    return export_network(opened, Path(output), snapshot=path, options=options)


def train(
    experiment: "str | Experiment",
    *,
    run: _Path | None = None,
    overrides: Mapping[str, object] | Sequence[str] = (),
    device: "str | torch.device | None" = None,
    smoke: bool = False,
    resume: bool | _Path = False,
    code_changed: bool = False,
    data_changed: bool = False,
) -> "Evaluation":
    """Trains to the last step and returns its scores, as `evaluate` does; `facts["snapshot"]` is
    the file that `evaluate`, `predict` and `load` open.

    experiment: a preset's name, FILE.py:NAME, or an Experiment, which is not changed. `run`: the
    folder of its snapshots, by default snapshots/<preset>. `overrides`: as `--set` takes them, such
    as {"train.steps": 100} or ["objectives.entropy=entropy"]; `smoke`: 10 steps only. `resume`:
    continue an interrupted run, or continue from the resume.pth given; `code_changed`: even if the
    user's classes have changed; `data_changed`: even if images or labels have. Raises InputError
    before anything is written when the experiment, its data or the folder cannot be used;
    FloatingPointError when a loss is not finite.
    """
    from copy import deepcopy

    from uda.data.registry import datasets_of, layout_named
    from uda.evaluation.evaluate import protocol_line
    from uda.experiment import validate
    from uda.experiments import load_preset
    from uda.experiments.overrides import change
    from uda.prediction.scoring import Evaluation
    from uda.training.loop import train as train_experiment

    if isinstance(experiment, str):
        preset, made = experiment, load_preset(experiment)
    else:
        preset, made = "an Experiment from Python", deepcopy(experiment)
        if run is None:
            raise InputError("train(experiment, run=): an Experiment has no name: give a folder")
    if isinstance(overrides, Mapping):
        overrides = [f"{name}={value}" for name, value in overrides.items()]
    changed = change(made, overrides, smoke=smoke)
    made, remarks = validate(made, typed=changed.typed)
    name = Path(preset.rpartition(":")[2]).stem + "_smoke" * smoke
    folder = Path("snapshots") / name if run is None else Path(run)
    used = [made.evaluation.dataset] if made.evaluation.every else datasets_of(made.data)
    space = layout_named(used[0]).label_space
    scores = train_experiment(
        made,
        folder,
        preset=preset + " (smoke)" * smoke,
        device=_device(device),
        resume=resume if isinstance(resume, bool) else Path(resume),
        remarks=[*changed.remarks, *remarks],
        code_changed=code_changed,
        data_changed=data_changed,
    )
    (last,) = folder.glob(f"*_{made.train.steps}.pth") if made.train.steps else [None]
    facts: dict[str, object] = {
        "snapshot": str(last or made.train.initial_snapshot),
        "preset": preset,
        "step": made.train.steps,
        "protocol": protocol_line(made.evaluation),
    }
    return Evaluation(scores=scores, label_space=space, facts=facts)


def _path(path: _Path | None) -> Path | None:
    return None if path is None else Path(path)


def _changes(precision: "Precision | None") -> dict[str, str]:
    """What is changed of a snapshot's own protocol."""
    return {} if precision is None else {"precision": precision}


def _device(device: "str | torch.device | None") -> "torch.device":
    from uda.utilities.distributed import device_named

    return device_named(None if device is None else str(device))
