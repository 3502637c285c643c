"""Every option changes what a run does, or is refused: none is accepted and ignored."""

import json
import shutil
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tiny_runs import CPU, flat, metrics, tiny_model, write_pseudo_labels
from trials import small_mask2former
from uda.augmentation.jitter import JitterConfig
from uda.augmentation.policies import PolicyName
from uda.checkpoints import snapshots
from uda.data.config import DataConfig, DomainConfig, SecondViewConfig
from uda.data.samples import Sample
from uda.data.sampling import batches
from uda.data.training import open_training_data
from uda.evaluation.evaluate import EvaluationConfig, evaluate
from uda.evaluation.measures import Measured
from uda.experiment import Experiment, RestartConfig, TrainConfig, validate
from uda.labels.spaces import LabelSpace
from uda.models.decoders.aspp import AsppConfig
from uda.models.deeplabv2 import DeepLabV2Config
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.resnet import ResNetConfig
from uda.models.mask2former import Mask2FormerConfig
from uda.models.segmenter import ModelConfig, Segmenter
from uda.models.segmentron import SegmenTronConfig
from uda.models.smp import SmpConfig
from uda.models.torchvision_deeplabv3 import TorchvisionDeepLabV3Config
from uda.models.vainf import VainFConfig
from uda.objectives.adversarial import AdversarialConfig
from uda.objectives.class_mix import ClassMixConfig
from uda.objectives.cross_view import CrossViewConfig
from uda.objectives.cut_mix import CutMixConfig
from uda.objectives.entropy import EntropyConfig
from uda.objectives.fix_match import FixMatchConfig
from uda.objectives.mask_classification import MaskClassificationConfig
from uda.objectives.memory_regularization import MemoryRegularizationConfig
from uda.objectives.pseudo_label import PseudoLabelConfig
from uda.objectives.rectified_pseudo_label import RectifiedPseudoLabelConfig
from uda.objectives.supervised import SupervisedConfig
from uda.optim.optimizers import OptimizerConfig
from uda.optim.plateau import PlateauConfig
from uda.optim.schedules import CosineRestartsConfig
from uda.optim.teacher import TeacherConfig
from uda.training.loop import train
from uda.training.run import start_run
from uda.training.step import train_step
from uda.utilities.errors import InputError

CROP = (32, 64)  # pixels (height, width)
BOX = (32, 60)  # not of the shape of the images, 64x128
# Some of an untrained network's pixels are as sure as this, some are not; 1 / 19 is the least.
THRESHOLD = 0.056


# --- experiments that hold every option, each as small as it can be


def small(root: Path, *, steps: int = 3) -> Experiment:
    """Source images, one objective, one network: what the others add to."""
    return Experiment(
        data=DataConfig(
            root=str(root),
            source=DomainConfig(datasets=("gta5",), size=(80, 150), scale=(0.8, 1.2), mirror=True),
            crop=CROP,
            workers=0,
        ),
        model=tiny_model(),
        objectives={"supervised": SupervisedConfig()},
        train=TrainConfig(
            steps=steps,
            batch_size=2,
            precision="float32",
            optimizer=OptimizerConfig(lr=0.01, nesterov=True, weight_decay=0.01),
            log_every=1,
            snapshot_every=2,
            resume_every=2,
        ),
        evaluation=EvaluationConfig(dataset="cityscapes", input_size=BOX, every=2),
    )


def trained_before(root: Path) -> Experiment:
    """Begins with a network that has learned enough to say other things of other pictures."""
    experiment = small(root)
    experiment.train.initial_snapshot = str(root.parent / SNAPSHOT)
    experiment.train.optimizer.lr = 1e-6
    return experiment


def in_windows(root: Path) -> Experiment:
    experiment = trained_before(root)
    experiment.evaluation.window = (24, 48)
    return experiment


def adapting(root: Path) -> Experiment:
    experiment = small(root)
    experiment.data.target = target(policy="autoaugment")
    experiment.objectives = {
        "supervised": SupervisedConfig(class_balance=True, hardest=0.2),
        "memory": MemoryRegularizationConfig(),
        "entropy": EntropyConfig(weight=0.1),
    }
    experiment.train.restart = RestartConfig(at_step=2, schedule_steps=5)
    experiment.train.schedule_steps = 4
    return experiment


def adversarial(root: Path) -> Experiment:
    experiment = small(root, steps=2)
    experiment.data.target = target()
    experiment.objectives["adversarial"] = AdversarialConfig(
        auxiliary_weight=0.001,
        loss="least_squares",
        discriminator="multi_scale",
        gradient_penalty=0.01,
        optimizer=OptimizerConfig(name="adam", lr=1e-4, betas=(0.9, 0.99), weight_decay=0.01),
    )
    return experiment


def sgd_discriminator(root: Path) -> Experiment:
    experiment = adversarial(root)
    experiment.objectives["adversarial"] = AdversarialConfig(
        optimizer=OptimizerConfig(nesterov=True, weight_decay=0.01)
    )
    return experiment


def fixed_discriminator(root: Path) -> Experiment:
    experiment = adversarial(root)
    experiment.objectives["adversarial"] = AdversarialConfig(optimizer=None)
    return experiment


def class_mix(root: Path) -> Experiment:
    experiment = under_teacher(root)
    experiment.objectives["class_mix"] = ClassMixConfig(threshold=THRESHOLD, jitter=strong_jitter())
    experiment.train.optimizer = OptimizerConfig(name="adamw", lr=0.01, weight_decay=0.01)
    return experiment


def cut_mix(root: Path) -> Experiment:
    experiment = under_teacher(root)
    experiment.objectives["cut_mix"] = CutMixConfig(threshold=THRESHOLD, jitter=strong_jitter())
    return experiment


def cut_mix_ground_truth(root: Path) -> Experiment:
    experiment = small(root, steps=2)
    experiment.data.target = target()
    experiment.data.target_ground_truth = True
    experiment.objectives = {"cut_mix": CutMixConfig(labels="ground_truth")}
    experiment.model = tiny_model(auxiliary_head=False)
    return experiment


def fix_match(root: Path) -> Experiment:
    experiment = under_teacher(root)
    experiment.objectives["fix_match"] = FixMatchConfig(
        threshold=THRESHOLD, policy="autoaugment_log", jitter=strong_jitter()
    )
    return experiment


def cross_view(root: Path) -> Experiment:
    experiment = under_teacher(root)
    experiment.data.second_target_view = SecondViewConfig()
    experiment.objectives["cross_view"] = CrossViewConfig()
    return experiment


def student(root: Path) -> Experiment:
    experiment = small(root, steps=2)
    experiment.data.source = None
    experiment.data.target = target()
    experiment.data.pseudo_labels = str(root.parent / LABELS)
    experiment.objectives = {
        "pseudo_label": PseudoLabelConfig(jitter=strong_jitter()),
        "rectified": RectifiedPseudoLabelConfig(jitter=strong_jitter()),
    }
    return experiment


def supervised_by_target(root: Path) -> Experiment:
    experiment = small(root, steps=2)
    experiment.data.target = target()
    experiment.data.target_ground_truth = True
    experiment.objectives["supervised_target"] = SupervisedConfig(view="target")
    return experiment


def deeplab_v2(root: Path) -> Experiment:
    experiment = small(root, steps=2)
    experiment.model = DeepLabV2Config(
        backbone="resnet18", backbone_weights="none", backbone_width=8, aspp_rates=(1, 2, 3, 4)
    )
    return experiment


def deeplab_v2_sum(root: Path) -> Experiment:
    experiment = deeplab_v2(root)
    assert isinstance(experiment.model, DeepLabV2Config)
    experiment.model = replace(
        experiment.model,
        levels=1,
        head="sum",
        aspp_rates=(1, 2, 18, 24),
        aspp_branches=2,
        dropout=0.0,
    )
    experiment.objectives["supervised"] = SupervisedConfig(auxiliary_weight=0.0)
    return experiment


def segmentron(root: Path) -> Experiment:
    experiment = small(root, steps=2)
    experiment.model = SegmenTronConfig(
        backbone="resnet18", backbone_weights="none", backbone_width=8
    )
    experiment.objectives["supervised"] = SupervisedConfig(auxiliary_weight=0.0)
    return experiment


def vainf(root: Path) -> Experiment:
    experiment = segmentron(root)
    experiment.model = VainFConfig(backbone="resnet18", backbone_weights="none", backbone_width=8)
    return experiment


def encoder_decoder(root: Path) -> Experiment:
    experiment = segmentron(root)
    experiment.model = EncoderDecoderConfig(
        backbone="resnet18",
        backbone_weights="none",
        backbone_width=8,
        output_stride=8,
        decoder=AsppConfig(channels=8, rates=(1, 2)),
    )
    return experiment


def of_smp(root: Path) -> Experiment:
    experiment = segmentron(root)
    experiment.model = SmpConfig(backbone="mobilenet_v2", backbone_weights="none")
    return experiment


def scheduled(root: Path) -> Experiment:
    """A plateau where nothing is so much better than the best, then cosines of two steps."""
    experiment = small(root, steps=9)
    experiment.evaluation.every = 1
    experiment.train.plateau = PlateauConfig(patience=0, factor=0.5, threshold=0.9)
    experiment.train.cosine_restarts = CosineRestartsConfig(period=2, floor=0.2, from_step=4)
    experiment.train.resume_every = experiment.train.snapshot_every = 9
    return experiment


def torchvision_deeplabv3(root: Path) -> Experiment:
    experiment = small(root, steps=2)
    experiment.model = TorchvisionDeepLabV3Config(
        backbone="resnet18", backbone_weights="none", backbone_width=8
    )
    return experiment


def mask2former(root: Path) -> Experiment:
    experiment = small(root, steps=2)
    experiment.model = small_mask2former()
    experiment.objectives = {"masks": MaskClassificationConfig(points=64)}
    return experiment


def under_teacher(root: Path) -> Experiment:
    experiment = small(root, steps=2)
    experiment.data.target = target()
    experiment.teacher = TeacherConfig()
    return experiment


def target(policy: PolicyName | None = None) -> DomainConfig:
    return DomainConfig(datasets=("cityscapes",), size=(48, 90), policy=policy)


def strong_jitter() -> JitterConfig:
    """Nearly every image is blurred and noisy."""
    return JitterConfig(blur_probability=0.9, noise_probability=0.9)


# --- files that options may name, beside the data root


LABELS, OTHER_LABELS = "labels", "other_labels"
SNAPSHOT, WEIGHTS, ENCODER = "trained/GTA5_10.pth", "backbone.pth", "encoder.pth"


class Beside(str):
    """The name of a file or folder beside the data root."""


@pytest.fixture(scope="module")
def root(toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with all those files beside it."""
    root = tmp_path_factory.mktemp("every_option") / "toy_city"
    root.symlink_to(toy_root)
    write_pseudo_labels(root.parent / LABELS, root)
    shutil.copytree(root.parent / LABELS, root.parent / OTHER_LABELS)
    for path in (root.parent / OTHER_LABELS).glob("*.png"):
        with Image.open(path) as image:
            labels = np.asarray(image)
        Image.fromarray(np.roll(labels, 8, axis=1)).save(path)
    trained = small(root)
    trained.train.optimizer = OptimizerConfig(name="adamw", lr=0.003)
    trained.train.head_lr_factor = 1.0
    trained.train.steps = trained.evaluation.every = 10  # until it tells some classes apart
    train(trained, root.parent / Path(SNAPSHOT).parent, preset="trained", device=CPU)
    torch.manual_seed(1)
    torch.save(tiny_model().build(19).backbone.state_dict(), root.parent / WEIGHTS)
    if find_spec("segmentation_models_pytorch"):
        torch.save(of_smp(root).model.build(19).backbone.state_dict(), root.parent / ENCODER)
    return root


# --- every option, and other values for it


class Case(NamedTuple):
    build: Callable[[Path], Experiment]
    walked: tuple[str, ...]  # options below these are changed


CASES = {
    "small": Case(small, ("train",)),
    "trained_before": Case(trained_before, ("evaluation", "train.initial_snapshot")),
    "in_windows": Case(in_windows, ("evaluation.overlap",)),
    "adapting": Case(
        adapting,
        (
            "data",
            "model",
            "objectives",
            "teacher",
            "train.restart",
            "train.schedule_steps",
            "train.unlabeled_images",
        ),
    ),
    "adversarial": Case(adversarial, ("objectives.adversarial",)),
    "sgd_discriminator": Case(sgd_discriminator, ("objectives.adversarial.optimizer",)),
    "fixed_discriminator": Case(fixed_discriminator, ("objectives.adversarial",)),
    "class_mix": Case(class_mix, ("objectives.class_mix", "teacher", "train.optimizer")),
    "cut_mix": Case(cut_mix, ("objectives.cut_mix",)),
    "cut_mix_ground_truth": Case(
        cut_mix_ground_truth, ("data.target", "data.target_ground_truth", "objectives.cut_mix")
    ),
    "fix_match": Case(fix_match, ("objectives.fix_match",)),
    "cross_view": Case(cross_view, ("data.second_target_view", "objectives.cross_view", "teacher")),
    "student": Case(
        student,
        (
            "data.target.crop_label_values",
            "data.pseudo_labels",
            "data.pseudo_labels_mapped_twice",
            "objectives",
        ),
    ),
    "supervised_by_target": Case(supervised_by_target, ("objectives.supervised_target",)),
    "deeplab_v2": Case(deeplab_v2, ("model",)),
    "deeplab_v2_sum": Case(deeplab_v2_sum, ("model",)),
    "segmentron": Case(segmentron, ("model",)),
    "vainf": Case(vainf, ("model",)),
    "encoder_decoder": Case(encoder_decoder, ("model",)),
    "mask2former": Case(mask2former, ("model", "objectives")),
    "torchvision_deeplabv3": Case(torchvision_deeplabv3, ("model",)),
    "of_smp": Case(of_smp, ("model",)),
    "scheduled": Case(scheduled, ("train.cosine_restarts", "train.plateau")),
}

# Where a value next to the present one makes no sense, or shows nothing in three steps.
OTHERS: dict[tuple[type, str], tuple[Any, ...]] = {
    (DataConfig, "root"): ("nowhere",),
    (DataConfig, "source"): (None, DomainConfig(datasets=("gta5",))),
    (DataConfig, "target"): (None, DomainConfig(datasets=("cityscapes",))),
    (DataConfig, "pseudo_labels"): (None, Beside(OTHER_LABELS), "nowhere"),
    (DataConfig, "exclude"): (("gta5/00001",), ("cityscapes/nobody",)),
    (DomainConfig, "datasets"): (("cyclegta5",), ("gta5", "cyclegta5"), ("nothing",), ()),
    (DomainConfig, "splits"): (("val",), ("train", "train"), ()),
    (DomainConfig, "first"): (4, 7, 0),
    (DomainConfig, "crop_label_values"): (30, -1),
    (DomainConfig, "crop_max_share"): (0.1, 1.5),
    (ModelConfig, "backbone_weights"): (Beside(WEIGHTS), "imagenet", "nowhere"),
    (ResNetConfig, "backbone_width"): (12, 10, 0),
    (DeepLabV3PlusConfig, "backbone"): ("resnet50", "resnet34", "timm/resnet10t"),
    (DeepLabV3PlusConfig, "backbone_width"): (12, 10, 0),
    (EncoderDecoderConfig, "backbone"): ("resnet50", "resnet34", "timm/resnet10t"),
    (EncoderDecoderConfig, "backbone_width"): (12, 10, 0),
    (AsppConfig, "channels"): (4, 1),
    (AsppConfig, "rates"): ((), (1, 3), (0,)),
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
    (EvaluationConfig, "pad_to"): ((65, 129), (0, 1)),
    (EvaluationConfig, "window"): ((32, 32), (32, 0)),
    (EvaluationConfig, "label_size"): ((32, 64), (0, 64)),
    (EvaluationConfig, "overlap"): (0.75, 1.0),
    (JitterConfig, "blur_probability"): (0.1,),
    (JitterConfig, "noise_probability"): (0.1,),
    (AdversarialConfig, "source_view"): ("target", "nowhere"),
    (AdversarialConfig, "target_view"): ("source", "nowhere"),
}
REMOVED = object()

# Options that leave every bit as it is.
SAME_BITS = {
    "data.workers": "promise 2: the number of loader processes changes nothing",
    "train.skip_nonfinite": "all is finite here; what it does otherwise: test_survival.py",
}

# Accepted and ignored: to be refused.
# Options that no update reads: they are seen in the scores and files of a whole run.
SEEN_IN_WHOLE_RUNS = ("evaluation.", "train.initial_snapshot", "train.log_every",
                      "train.snapshot_every", "train.resume_every",
                      "train.unlabeled_images", "train.plateau",
                      "train.cosine_restarts.")  # fmt: skip


class Option(NamedTuple):
    """An option of a case by its dotted path, and the values to give it instead of its own."""

    case: str
    owner: str  # the class it is written in
    path: str
    others: tuple[Any, ...]


def other_values(value: object, annotation: object) -> list[object]:
    """Values of an option's type beside `value`: all there are, or the nearest."""
    if get_origin(annotation) in (Union, types.UnionType):
        (kind,) = (option for option in get_args(annotation) if option is not type(None))
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
    raise AssertionError(f"OTHERS has to name other values than {value!r}")


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


OPTIONS = [option for name, case in CASES.items() for option in options_of(name, case)]


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


# --- what a run does


def updates(experiment: Experiment) -> dict[str, object]:
    """Every weight that training moves, and what the run says of its labels."""
    validate(experiment)
    settings = experiment.train
    data = open_training_data(
        experiment.data, seed=settings.seed, evaluated=experiment.evaluation.dataset
    )
    run = start_run(experiment, num_classes=data.label_space.num_classes, device=CPU)
    stream = batches(
        data.dataset,
        batch_size=settings.batch_size,
        first_step=0,
        steps=settings.steps,
        workers=experiment.data.workers,
    )
    for batch in stream:
        train_step(run, batch)
    state = run.state()
    state.pop("optimizers")  # they hold their options, used or not
    return state | {"supervision": data.supervision}


def whole_run(experiment: Experiment, folder: Path) -> dict[str, object]:
    """Scores, records, the student, and which files were written when."""
    saved = []
    save = snapshots.save

    def watched(values: dict[str, Any], path: Path, *, keep: Path | None = None) -> None:
        saved.append((path.name, values["step"]))
        save(values, path, keep=keep)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "save", watched)
        scores = train(experiment, folder, preset="tiny", device=CPU)
    lines = metrics(folder)
    for line in lines:
        line.pop("protocol", None)  # it repeats the options: no proof that they do anything
    return {
        "confusion": scores.confusion,
        "metrics": lines,
        "saved": saved,
        "student": snapshots.read(folder / "resume.pth")["student"],
    }


def same(ours: object, theirs: object) -> bool:
    left, right = flat(ours), flat(theirs)

    def equal(one: object, other: object) -> bool:
        if isinstance(one, Tensor) and isinstance(other, Tensor):
            return one.shape == other.shape and torch.equal(one, other)
        return one == other

    return left.keys() == right.keys() and all(equal(left[name], right[name]) for name in left)


@cache
def unchanged(case: str, root: Path) -> dict[str, object]:
    return updates(CASES[case].build(root))


@cache
def unchanged_whole_run(case: str, root: Path) -> dict[str, object]:
    return whole_run(CASES[case].build(root), root.parent / f"{case}_unchanged")


def ignored(option: Option, root: Path, folder: Path) -> list[object]:
    """The values of an option that are accepted and change nothing."""
    found, refusals = [], []
    for index, value in enumerate(option.others):
        experiment = changed(CASES[option.case], option.path, value, root)
        try:
            validate(experiment, typed=[option.path])
            if option.path.startswith(SEEN_IN_WHOLE_RUNS):
                before = unchanged_whole_run(option.case, root)
                after = whole_run(experiment, folder / f"{index}")
            else:
                before, after = unchanged(option.case, root), updates(experiment)
        except InputError as error:
            refusals.append(str(error))
            continue
        if same(before, after):
            found.append(value)
    assert not any("\n" in refusal for refusal in refusals)
    return found


# --- the guarantee


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: f"{option.case}-{option.path}")
def test_every_option_matters_or_is_refused(option: Option, root: Path, tmp_path: Path) -> None:
    if option.path in SAME_BITS:
        assert ignored(option, root, tmp_path), "it may change nothing"
        return
    assert ignored(option, root, tmp_path) == []


def settings_classes() -> dict[str, type]:
    """Every dataclass of which an Experiment can consist, by name."""
    found: dict[str, type] = {}
    waiting: list[object] = [Experiment]
    while waiting:
        annotation = waiting.pop()
        waiting += get_args(annotation)
        if isinstance(annotation, type) and is_dataclass(annotation):
            # Not those of a file that another test has put into the package.
            ours = {name for name in sys.modules if name.startswith("uda.")}
            below = (cls for cls in annotation.__subclasses__() if cls.__module__ in ours)
            waiting += [cls for cls in below if cls.__name__ not in found]
            if annotation.__name__ not in found:
                found[annotation.__name__] = annotation
                waiting += get_type_hints(annotation).values()
    return found


def test_no_option_is_left_out() -> None:
    """A new one has to be put into a case above."""
    walked = {(option.owner, option.path.rpartition(".")[2]) for option in OPTIONS}
    classes = settings_classes()
    assert {"TeacherConfig", "RestartConfig", "SegmenTronConfig", "JitterConfig"} <= set(classes)
    # Their options are walked in those below them.
    for base in ("ObjectiveConfig", "ModelConfig", "ResNetConfig", "DecoderConfig"):
        del classes[base]
    missing = [
        f"{name}.{field}"
        for name, cls in classes.items()
        for field, annotation in get_type_hints(cls).items()
        # A part that cannot be none has no other value: its own options are walked.
        if not is_dataclass(annotation) and get_origin(annotation) is not dict
        if (name, field) not in walked
    ]
    assert missing == []


@pytest.mark.parametrize("case", ["adapting", "class_mix"])
def test_the_same_options_give_the_same_bits(case: str, root: Path) -> None:
    """So that a difference above comes from the option."""
    assert same(updates(CASES[case].build(root)), unchanged(case, root))


def test_the_same_whole_run_leaves_the_same(root: Path, tmp_path: Path) -> None:
    again = whole_run(CASES["small"].build(root), tmp_path / "again")
    assert same(again, unchanged_whole_run("small", root))


@dataclass(kw_only=True, slots=True)
class ForgetfulConfig(SupervisedConfig):
    """Supervised, with an option that nobody reads."""

    smoothing: float = 0.1


def forgetful(root: Path) -> Experiment:
    experiment = small(root)
    experiment.objectives["supervised"] = ForgetfulConfig()
    return experiment


def test_an_option_that_nobody_reads_is_noticed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(forgetful, ("objectives.supervised",))
    monkeypatch.setitem(CASES, "forgetful", case)
    options = {option.path: option for option in options_of("forgetful", case)}
    assert ignored(options["objectives.supervised.smoothing"], root, tmp_path) == [0.05]
    assert ignored(options["objectives.supervised.weight"], root, tmp_path) == []


def test_an_option_that_gets_lost_on_its_way_is_noticed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_jitter(images: Tensor, *_: object) -> Tensor:
        return images

    case = Case(class_mix, ("objectives.class_mix.jitter.gamma",))
    monkeypatch.setitem(CASES, "without_jitter", case)
    monkeypatch.setattr("uda.objectives.class_mix.jitter", without_jitter)
    (option,) = options_of("without_jitter", case)
    assert ignored(option, root, tmp_path) == [0.2]


def test_an_option_of_the_evaluation_that_gets_lost_is_noticed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_flip(
        segmenter: Segmenter,
        samples: Sequence[Sample],
        *,
        config: EvaluationConfig,
        label_space: LabelSpace,
        **_: object,
    ) -> Measured:
        config = replace(config, flip=False)
        return evaluate(segmenter, samples, config=config, label_space=label_space)

    case = Case(trained_before, ("evaluation.flip",))
    monkeypatch.setitem(CASES, "without_flip", case)
    monkeypatch.setattr("uda.training.records.evaluate", without_flip)
    (option,) = options_of("without_flip", case)
    assert ignored(option, root, tmp_path) == [True]


# --- a preset that trains nothing


def evaluation_only(root: Path) -> Experiment:
    return Experiment(
        data=DataConfig(root=str(root), workers=0),
        model=small(root).model,
        train=TrainConfig(steps=0, batch_size=1, initial_snapshot=str(root.parent / SNAPSHOT)),
        evaluation=EvaluationConfig(dataset="cityscapes", input_size=BOX),
    )


# How a network was begun and trained: true of the one in a file, and nothing that scoring reads.
OF_THE_NETWORK = {"model.backbone_weights", "model.batch_norm", "model.dropout"}


def test_a_preset_that_trains_nothing_uses_or_refuses_every_option(
    root: Path, tmp_path: Path
) -> None:
    case = Case(evaluation_only, ("data", "model", "teacher", "train", "evaluation"))

    def scores(experiment: Experiment) -> tuple[object, ...]:
        found = train(experiment, tmp_path / "none", preset="tiny", device=CPU)
        measured = json.loads((tmp_path / "none" / "scores.json").read_text())
        return found.confusion, measured.keys()

    before = scores(case.build(root))
    idle = set()
    for option in options_of("evaluation_only", case):
        for value in option.others:
            try:
                experiment = changed(case, option.path, value, root)
                validate(experiment, typed=[option.path])
                after = scores(experiment)
            except InputError:
                continue
            if after == before:
                idle.add(option.path)
    assert sorted(idle - OF_THE_NETWORK - set(SAME_BITS)) == []
