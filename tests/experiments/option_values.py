"""The options of an experiment, and other values for them."""

import types
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from option_cases import ENCODER, OTHER_LABELS, SNAPSHOT, WEIGHTS, Case

from uda.augmentation.color_jitter import ColorJitterConfig
from uda.augmentation.jitter import JitterConfig
from uda.data.config import DataConfig, DomainConfig, RareClassConfig
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiment import Experiment, RestartConfig, TrainConfig
from uda.models.config import BackboneModelConfig
from uda.models.decoders.aspp import AsppConfig
from uda.models.decoders.dpt import DptConfig
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig
from uda.models.encoders.resnet import ResNetConfig
from uda.models.hrda import HrdaConfig
from uda.models.mask2former import Mask2FormerConfig
from uda.models.smp import SmpConfig
from uda.objectives.adversarial import AdversarialConfig
from uda.objectives.entropy import EntropyConfig
from uda.objectives.fourier import FourierConfig
from uda.objectives.functional.hard_pixels import OhemConfig
from uda.objectives.masked_image import MaskedImageConfig
from uda.objectives.supervised import SupervisedConfig
from uda.optim.plateau import PlateauConfig


class Beside(str):
    """The name of a file or folder beside the data root."""


# Where a value next to the present one makes no sense, or shows nothing in three steps.
OTHERS: dict[tuple[type, str], tuple[Any, ...]] = {
    (DataConfig, "root"): ("nowhere",),
    (DataConfig, "source"): (None, DomainConfig(datasets=("gta5",))),
    (DataConfig, "target"): (None, DomainConfig(datasets=("cityscapes",))),
    (DataConfig, "pseudo_labels"): (None, Beside(OTHER_LABELS), "nowhere"),
    (DataConfig, "cache"): (Beside("kept"),),
    (DataConfig, "exclude"): (("gta5/00001",), ("cityscapes/nobody",)),
    (DomainConfig, "datasets"): (("cyclegta5",), ("gta5", "cyclegta5"), ("nothing",), ()),
    (DomainConfig, "weights"): (None, (1.0, 9.0), (1.0, 0.0)),
    (DomainConfig, "splits"): (("val",), ("train", "train"), ()),
    (DomainConfig, "first"): (4, 7, 0),
    (DomainConfig, "crop_label_values"): (30, -1),
    (DomainConfig, "crop_max_share"): (0.1, 1.5),
    (DomainConfig, "crop"): ((24, 40), (0, 9)),
    (DomainConfig, "ignored_borders"): ((0.2, 0.2, 0.2, 0.2), (5, 0, 9, 0), (1.5, 0, 0, 0)),
    (RareClassConfig, "temperature"): (10.0, 0.0),
    (RareClassConfig, "min_pixels"): (10, -1, 10**6),
    (RareClassConfig, "min_crop_pixels"): (100, -1, 2048),
    (RareClassConfig, "statistics"): (Beside("statistics"), ""),
    (BackboneModelConfig, "backbone_weights"): (Beside(WEIGHTS), "imagenet", "nowhere"),
    (ResNetConfig, "backbone_width"): (12, 10, 0),
    (DeepLabV3PlusConfig, "backbone"): ("resnet50", "resnet34", "timm/resnet10t"),
    (DeepLabV3PlusConfig, "backbone_width"): (12, 10, 0),
    (EncoderDecoderConfig, "auxiliary_map"): (0, 4),
    (EncoderDecoderConfig, "input_scale"): (1.5, 0.0),
    (EncoderConfig, "name"): ("resnet50", "timm/resnet10t", "nowhere"),
    (EncoderConfig, "weights"): (Beside(WEIGHTS), "nowhere"),
    (EncoderConfig, "width"): (12, 0),
    (EncoderConfig, "output_stride"): (8, 32, 4),
    (EncoderConfig, "drop_path"): (0.0, 0.5, 1.0),
    (EncoderConfig, "patch_norm_eps"): (0.1, 0.0),
    (HrdaConfig, "crop"): (16, 12),
    (AsppConfig, "channels"): (4, 1),
    (AsppConfig, "rates"): ((), (1, 3), (0,)),
    (SupervisedConfig, "ohem"): (None, OhemConfig(below=0.05, at_least=100)),
    (OhemConfig, "below"): (0.03, 0.9, 2.0),
    (OhemConfig, "at_least"): (3000, 0),
    (DptConfig, "widths"): ((4, 4, 4, 4), (4, 4)),
    (Mask2FormerConfig, "channels"): (128, 80, 32),
    (Mask2FormerConfig, "attention_heads"): (2, 3),
    (TrainConfig, "max_grad_norm"): (0.01, 0.0),
    # Not "imagenet", which a hub is asked for again and again: tests/models/test_smp.py.
    (SmpConfig, "backbone_weights"): (Beside(ENCODER), "nowhere"),
    (SmpConfig, "backbone"): ("resnet18", "nowhere"),
    (PlateauConfig, "threshold"): (0.0, 1.0),
    (TrainConfig, "initial_snapshot"): (Beside(SNAPSHOT), "nowhere"),
    (TrainConfig, "unlabeled_images"): (0, 3, -1),
    (TrainConfig, "restart"): (None, RestartConfig(at_step=1, schedule_steps=9)),
    (TrainConfig, "schedule_steps"): (None, 6, 2),
    (TrainConfig, "extended_from"): ((2,), (9,)),
    (EvaluationConfig, "dataset"): ("gta5", "nothing"),
    (EvaluationConfig, "split"): ("train", "test"),
    (EvaluationConfig, "scales"): ((0.5,), (1.0, 0.5), ()),
    (EvaluationConfig, "measures"): (("f1",), ("soft_batch",), ("f1", "f1")),
    (EvaluationConfig, "sets"): (
        ("miou13_subset",),
        ("miou16_restricted",),
        ("miou16",),
        ("miou19", "miou19"),
    ),
    (EvaluationConfig, "pad_to"): ((65, 129), (0, 1)),
    (EvaluationConfig, "window"): ((32, 32), (32, 0)),
    (EvaluationConfig, "label_size"): ((32, 64), (0, 64)),
    (EvaluationConfig, "overlap"): (0.75, 1.0),
    (MaskedImageConfig, "block"): (16, 0),
    (ColorJitterConfig, "probability"): (0.01,),
    (ColorJitterConfig, "gray_probability"): (0.9,),
    (ColorJitterConfig, "blur_probability"): (0.01,),
    (JitterConfig, "blur_probability"): (0.1,),
    (JitterConfig, "noise_probability"): (0.1,),
    (EntropyConfig, "charbonnier"): (2.0, 0.0),
    (FourierConfig, "band"): (0.1, 0.01, 0.7),
    (AdversarialConfig, "source_view"): ("target", "nowhere"),
    (AdversarialConfig, "target_view"): ("source", "nowhere"),
}
REMOVED = object()


class Option(NamedTuple):
    """An option of a case by its dotted path, and the values to give it instead of its own."""

    case: str
    owner: str  # the class it is written in
    path: str
    others: tuple[Any, ...]


def other_values(value: object, annotation: object) -> list[object]:
    """Other values of an option's type: all there are, or the nearest. None for a type that is not
    known here."""
    if get_origin(annotation) in (Union, types.UnionType):
        members = [option for option in get_args(annotation) if option is not type(None)]
        if is_dataclass(members[0]):
            empty = value is not None and type(None) in get_args(annotation)
            values: list[object] = [None] if empty else []
            for kind in members:
                with suppress(TypeError):  # it has fields without a default
                    values += [kind()] if not isinstance(value, kind) else []
            return values
        (kind,) = members
        if value is not None:
            return [None, *other_values(value, kind)]
        return list(get_args(kind)) if get_origin(kind) is Literal else [kind()]
    if get_origin(annotation) is Literal:
        return [option for option in get_args(annotation) if option != value]
    if isinstance(value, tuple):
        kinds = get_args(annotation)
        kinds = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
        return [
            (*value[:place], other, *value[place + 1 :])
            for place, kind in enumerate(kinds)
            for other in other_values(value[place], kind)
        ]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1]
    if isinstance(value, float):
        return [value / 2 if value else 0.25]
    if is_dataclass(value):
        return []  # its own options are changed instead
    return [f"{value}_other"] if isinstance(value, str) else []


def leaves(config: object, path: str = "") -> Iterator[tuple[object, str, str, object]]:
    """(owner, field, dotted path, annotation) of every field below `config`."""
    if isinstance(config, dict):
        for name, member in config.items():
            yield config, name, f"{path}.{name}", None
            yield from leaves(member, f"{path}.{name}")
        return
    assert is_dataclass(config)
    hints = get_type_hints(type(config))
    for field in fields(config):
        value = getattr(config, field.name)
        where = f"{path}.{field.name}".lstrip(".")
        if isinstance(value, dict):
            yield from leaves(value, where)
            continue
        yield config, field.name, where, hints[field.name]
        if is_dataclass(value):
            yield from leaves(value, where)


def options_of(name: str, case: Case) -> Iterator[Option]:
    """The options of a case that it walks; a member of a dict, too, which can be removed."""
    for owner, field, path, annotation in leaves(case.build(Path("root"))):
        if not any(f"{path}.".startswith(f"{walked}.") for walked in case.walked):
            continue
        if isinstance(owner, dict):
            yield Option(name, "dict", path, (REMOVED,))
            continue
        present = getattr(owner, field)
        listed = [OTHERS[cls, field] for cls in type(owner).__mro__ if (cls, field) in OTHERS]
        others = listed[0] if listed else other_values(present, annotation)
        others = tuple(other for other in others if other != present)
        if others:
            yield Option(name, type(owner).__name__, path, others)


def changed(case: Case, path: str, value: object, root: Path) -> Experiment:
    """The case with another value for one option."""
    experiment = case.build(root)
    *parents, last = path.split(".")
    owner: Any = experiment
    for name in parents:
        owner = owner[name] if isinstance(owner, dict) else getattr(owner, name)
    if value is REMOVED:
        del owner[last]
    else:
        setattr(owner, last, str(root.parent / value) if isinstance(value, Beside) else value)
    return experiment
