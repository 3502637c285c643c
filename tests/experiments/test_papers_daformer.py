"""The presets of DACS, DAFormer, HRDA and MIC: their papers' numbers, a step by hand."""

import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tiny_runs import CPU, random_batch, tiny_preset
from uda.augmentation.color_jitter import ColorJitterConfig
from uda.data.batch import Batch
from uda.data.transforms import fitted_size
from uda.evaluation.protocols import protocol_name
from uda.experiments import load_preset
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig
from uda.objectives.base import StepContext
from uda.objectives.class_mix import ClassMixConfig
from uda.objectives.feature_distance import CITYSCAPES_THINGS, FeatureDistance
from uda.objectives.functional.pseudo_labels import pseudo_label
from uda.objectives.masked_image import MaskedImageConfig
from uda.optim.groups import student_groups
from uda.optim.schedules import learning_rate_factor, momentum_ramp
from uda.training.run import Run, start_run
from uda.training.step import _start_teacher, _step_seed, train_step

FAMILY = ("daformer_gta5", "hrda_gta5", "mic_daformer_gta5", "mic_hrda_gta5",
          "mic_deeplabv3plus_gta5")  # fmt: skip
PROTOCOLS = {"dacs_gta5": "dacs", "daformer_gta5": "daformer", "hrda_gta5": "hrda",
             "mic_daformer_gta5": "daformer", "mic_hrda_gta5": "hrda",
             "mic_deeplabv3plus_gta5": "daformer"}  # fmt: skip


@pytest.mark.parametrize(("preset", "protocol"), PROTOCOLS.items())
def test_protocol(preset: str, protocol: str) -> None:
    assert protocol_name(load_preset(preset).evaluation) == protocol


@pytest.mark.parametrize(
    ("preset", "source", "target"),
    [("daformer_gta5", (704, 1280), (512, 1024)), ("mic_hrda_gta5", (1407, 2560), (1024, 2048))],
)
def test_sizes_of_images(preset: str, source: tuple[int, int], target: tuple[int, int]) -> None:
    data = load_preset(preset).data
    assert data.source is not None
    assert data.target is not None
    assert fitted_size((1052, 1914), data.source.size) == source
    assert fitted_size((1024, 2048), data.target.size) == target


@pytest.mark.parametrize("preset", FAMILY)
def test_learning_rates_by_hand(preset: str) -> None:
    train = load_preset(preset).train
    expected = {0: 6.0e-11, 1: 4.00590e-8, 750: 2.943753e-5, 1499: 5.771300e-5, 1500: 5.775e-5,
                20000: 3e-5, 39999: 1.5e-9}  # fmt: skip
    for step, rate in expected.items():
        factor = learning_rate_factor(
            step, steps=train.steps, warmup_steps=train.warmup_steps,
            warmup_start=train.warmup_start, warmup=train.warmup, power=train.power,
        )  # fmt: skip
        assert train.optimizer.lr * factor == pytest.approx(rate, rel=1e-5)


def test_the_teacher_reaches_its_momentum_at_the_999th_update() -> None:
    teacher = load_preset("daformer_gta5").teacher
    assert teacher is not None
    ramp = [momentum_ramp(updates, momentum=teacher.momentum) for updates in range(1000)]
    assert ramp[:3] == pytest.approx([1 / 2, 2 / 3, 3 / 4])
    assert ramp[997] < 0.999
    assert ramp[998] == ramp[999] == pytest.approx(0.999)


def test_what_differs_between_the_papers() -> None:
    mixed = {name: load_preset(name).objectives["class_mix"] for name in PROTOCOLS}
    strengths = {}
    for name, config in mixed.items():
        assert isinstance(config, ClassMixConfig)
        assert isinstance(config.jitter, ColorJitterConfig)
        assert (config.threshold, config.confidence, config.over) == (0.968, "batch_share", "all")
        dacs = name == "dacs_gta5"
        assert config.candidates == ("image_and_void" if dacs else "batch_and_void")
        strengths[name] = config.jitter.hue
    assert strengths == {name: 0.25 if name == "dacs_gta5" else 0.2 for name in PROTOCOLS}
    rows = {name: config.ignored_rows for name, config in mixed.items()}  # type: ignore[attr-defined]
    assert rows["daformer_gta5"] == rows["mic_daformer_gta5"] == (15, 120)
    assert rows["dacs_gta5"] == rows["hrda_gta5"] == rows["mic_hrda_gta5"] == (0, 0)
    for name, block, crop in (("mic_daformer_gta5", 32, 512), ("mic_hrda_gta5", 64, 1024)):
        experiment = load_preset(name)
        masked = experiment.objectives["masked_image"]
        assert isinstance(masked, MaskedImageConfig)
        assert (masked.block, masked.hidden, masked.ignored_rows) == (block, 0.7, rows[name])
        assert experiment.data.crop == (crop, crop)
    for name in FAMILY:
        rules, crop = load_preset(name).data.rare_classes, load_preset(name).data.crop[0]
        assert rules is not None
        assert (rules.temperature, rules.min_pixels) == (0.01, 3000)
        assert rules.min_crop_pixels == {512: 1500, 1024: 6000}[crop]
    target = load_preset("hrda_gta5").data.target
    assert target is not None
    assert target.ignored_borders == (30, 240, 30, 30)


def test_only_the_encoders_norms_do_not_decay(toy_root: Path) -> None:
    """DAFormer's rule by names: "head" learns at ten times the rate, "norm" does not decay."""
    experiment = tiny_preset("mic_hrda_gta5", toy_root)
    student = experiment.model.build(19)
    rules = {}
    for group in student_groups(student, experiment.train):
        for parameter in group["params"]:
            rules[id(parameter)] = (group["lr_factor"], group.get("weight_decay"))
    norms = (nn.LayerNorm, _BatchNorm)
    of_norms = {id(p) for m in student.modules() if isinstance(m, norms) for p in m.parameters()}
    encoder = {id(p) for p in student.backbone.parameters()}
    for name, parameter in student.named_parameters():
        undecayed = 0.0 if id(parameter) in of_norms & encoder else None
        expected = (1.0 if id(parameter) in encoder else 10.0, undecayed)
        assert rules[id(parameter)] == expected, name
    assert of_norms - encoder
    assert any(name.startswith("hrda.attention") for name, _ in student.named_parameters())


# --- one step


def float64_run(preset: str, root: Path) -> tuple[Run, Batch]:
    """A small network without noise, and a threshold that it reaches in half of the pixels."""
    experiment, batch = tiny_preset(preset, root), random_batch()
    # Blocks of 32 pixels, of classes 10 to 15: of all but 10, the sky, features are kept.
    blocks = batch.source_labels[:, ::32, ::32]
    blocks = torch.where(blocks == 255, 255, blocks + 10).to(torch.uint8)
    labels = blocks.repeat_interleave(32, dim=1).repeat_interleave(32, dim=2)
    batch = replace(batch, source_labels=labels)
    experiment.model.dropout = 0.0
    if isinstance(experiment.model, EncoderDecoderConfig):
        experiment.model.encoder = EncoderConfig(name="resnet18", weights="none", width=8)
        experiment.train.decay_norms, experiment.train.undecayed = True, "norms"
    experiment.train.warmup_steps = 0
    run = start_run(experiment, num_classes=19, device=CPU)
    for network in run.networks():
        network.double()
    assert run.teacher is not None
    confidence = pseudo_label(run.teacher(batch.to_device(CPU).target_images)).confidence
    run.teacher.restart(run.student)
    for config in experiment.objectives.values():
        if isinstance(config, ClassMixConfig | MaskedImageConfig):
            config.threshold = float(confidence.median())
            config.ignored_rows = (3, 10)
        if isinstance(config, MaskedImageConfig):
            config.block = 16
    return run, batch


def plain_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Of all pixels, ignored ones included."""
    found = F.cross_entropy(logits, labels, ignore_index=255, reduction="none")
    return (weights * found).sum() / labels.numel()


def learned(run: Run, images: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of one view, with HRDA's detail, and the deepest features."""
    output = run.student(images)
    whole = plain_cross_entropy(output.logits, labels, weights)
    if output.detail_box is None:
        return whole, output.features
    top, bottom, left, right = output.detail_box.tolist()
    part = (slice(None), slice(top, bottom), slice(left, right))
    detail = plain_cross_entropy(output.detail_logits, labels[part], weights[part])
    return 0.9 * whole + 0.1 * detail, output.features


@pytest.mark.parametrize("preset", ["dacs_gta5", "mic_daformer_gta5", "mic_hrda_gta5"])
def test_a_step_has_the_gradient_of_one_plain_loss(preset: str, toy_root: Path) -> None:
    """In float64: view by view, as the trainer goes, or one sum and one backward."""
    run, batch = float64_run(preset, toy_root)
    other, _ = float64_run(preset, toy_root)
    rate = run.experiment.train.optimizer.lr
    run.experiment.train.optimizer.lr = rate * 1e-12  # the gradients stay to be read
    train_step(run, batch)
    gradients = {n: p.grad for n, p in run.student.named_parameters() if p.requires_grad}

    torch.manual_seed(_step_seed(other.experiment.train.seed, 0))
    assert other.teacher is not None
    _start_teacher(other)
    other.student.train()
    given = batch.to_device(CPU)
    context = StepContext(0, other.experiment.train.seed, batch.indices, other.teacher)
    ones = torch.ones_like(given.source_labels, dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    labeled = ones
    if preset == "dacs_gta5":  # its source loss is averaged over the labeled pixels
        labeled = ones * given.source_labels.numel() / (given.source_labels != 255).sum()
    loss, features = learned(other, given.source_images.double(), given.source_labels, labeled)
    total = total + loss
    views = {}
    for name in ("class_mix", "masked_image"):
        if name in other.objectives:
            (views[name],) = other.objectives[name].views(given, context)
    if "feature_distance" in other.objectives:
        side = given.source_images.shape[-1] // features.shape[-1]
        objective = other.objectives["feature_distance"]
        assert isinstance(objective, FeatureDistance)
        assert objective.initial is not None
        initial = objective.initial.eval()
        with torch.no_grad():
            target = initial.deepest_features(given.source_images.double())
        distances = []
        samples, _, rows, columns = features.shape
        for n, row, column in product(range(samples), range(rows), range(columns)):
            cell = given.source_labels[n, row * side :, column * side :][:side, :side]
            classes, counts = cell.unique(return_counts=True)
            place = int(counts.argmax())
            if counts[place] >= 0.75 * side**2 and int(classes[place]) in CITYSCAPES_THINGS:
                difference = features[n, :, row, column] - target[n, :, row, column]
                distances.append(difference.square().sum().sqrt())
        assert 0 < len(distances) < samples * rows * columns
        total = total + 0.005 * sum(distances) / len(distances)
    for view in views.values():
        assert view.labels is not None
        assert view.weights is not None
        assert 0 < view.weights.mean() < 1
        weights = view.weights.double().expand_as(view.labels)
        loss, _ = learned(other, view.images.double(), view.labels, weights)
        total = total + loss
    assert math.isfinite(total.item())
    total.backward()
    for name, parameter in other.student.named_parameters():
        if parameter.grad is None:
            assert gradients.get(name) is None, name
            continue
        found = gradients[name]
        assert found is not None, name
        torch.testing.assert_close(found, parameter.grad, rtol=1e-5, atol=1e-7, msg=name)


def test_the_teacher_is_not_moved_by_gradients(toy_root: Path) -> None:
    run, batch = float64_run("mic_hrda_gta5", toy_root)
    assert run.teacher is not None
    before = {name: weight.clone() for name, weight in run.student.named_parameters()}
    train_step(run, batch)
    for name, weight in run.teacher.network.named_parameters():
        now = dict(run.student.named_parameters())[name]
        torch.testing.assert_close(weight, (before[name] + now) / 2, msg=name)
        assert weight.grad is None
