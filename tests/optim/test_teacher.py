"""The mean teacher: what it is after each update, and how it looks at images."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tiny_runs import CPU, assert_same, batch_for, tiny_model, tiny_preset, tiny_run
from trials import small_mask2former
from uda.labels.spaces import CITYSCAPES
from uda.models.decoders.aspp import AsppConfig
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig
from uda.models.segmenter import Segmenter
from uda.optim.teacher import MeanTeacher, TeacherConfig
from uda.training.run import Run
from uda.training.step import train_step
from uda.utilities.errors import InputError

IMAGES = torch.rand(2, 3, 64, 128, generator=torch.Generator().manual_seed(3))


def student_of(config: DeepLabV3PlusConfig | None = None, *, seed: int = 0) -> Segmenter:
    torch.manual_seed(seed)
    return (config or tiny_model()).build(5)


def norms(network: nn.Module) -> list[_BatchNorm]:
    return [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]


def weights(network: nn.Module) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in network.parameters()])


def test_moving_average_with_its_ramp_by_hand() -> None:
    """The young teacher keeps 1/2, then 2/3, then the momentum of itself."""
    student = student_of()
    teacher = MeanTeacher(student, TeacherConfig(momentum=0.7))
    expected = weights(student)
    for updates, keep in enumerate((1 / 2, 2 / 3, 0.7, 0.7)):
        with torch.no_grad():
            for weight in student.parameters():
                weight.add_(updates + 1)
        expected = keep * expected + (1 - keep) * weights(student)
        teacher.update(student, updates=updates)
        assert torch.allclose(weights(teacher), expected, atol=1e-5)


def test_a_full_copy_first_and_then_the_ramp_by_hand() -> None:
    """DACS and UniMatch V2: 0, 1/2, 2/3, ... of itself."""
    student = student_of()
    teacher = MeanTeacher(student, TeacherConfig(momentum=0.7, first_update="copy"))
    expected = weights(student)
    for updates, keep in enumerate((0, 1 / 2, 2 / 3, 0.7)):
        with torch.no_grad():
            for weight in student.parameters():
                weight.add_(updates + 1)
        expected = keep * expected + (1 - keep) * weights(student)
        teacher.update(student, updates=updates)
        assert torch.allclose(weights(teacher), expected, atol=1e-5)


def test_the_mean_of_an_image_and_its_mirror_image() -> None:
    student = student_of().eval()
    teacher = MeanTeacher(student, TeacherConfig(mirrored=True, batch_norm="running"))
    found = teacher(IMAGES)
    with torch.no_grad():
        plain = student(IMAGES).logits.softmax(dim=1)
        mirrored = student(IMAGES.flip(3)).logits.softmax(dim=1).flip(3)
    torch.testing.assert_close(found.softmax(dim=1), (plain + mirrored) / 2)
    torch.testing.assert_close(teacher(IMAGES.flip(3)).flip(3), found, rtol=0, atol=1e-5)
    assert not torch.allclose(plain, mirrored, atol=1e-3)


def test_a_sure_teacher_that_looks_twice_stays_finite() -> None:
    student = student_of().eval()
    with torch.no_grad():
        for weight in student.head_parameters():
            weight.mul_(1000)
    teacher = MeanTeacher(student, TeacherConfig(mirrored=True, batch_norm="running"))
    assert torch.isfinite(teacher(IMAGES)).all()


def test_a_mirror_image_of_left_and_right_is_refused() -> None:
    space = replace(CITYSCAPES, mirror_swaps=((0, 1),))
    TeacherConfig().check_classes("teacher", space)
    TeacherConfig(mirrored=True).check_classes("teacher", CITYSCAPES)
    with pytest.raises(InputError, match=r"add --set teacher.mirrored=false"):
        TeacherConfig(mirrored=True).check_classes("teacher", space)


NOISY = {
    "mit": EncoderConfig(name="mit_b0", weights="none", drop_path=0.5),
    "dinov2": EncoderConfig(name="dinov2_vits14", weights="none", drop_path=0.5),
    "dinov3": EncoderConfig(name="dinov3_vits16", weights="none", drop_path=0.5),
    "timm": EncoderConfig(name="timm/convnext_atto", weights="none", drop_path=0.5),
    "resnet": EncoderConfig(name="resnet18", weights="none", width=8),
}  # fmt: skip


@pytest.mark.parametrize("batch_norm", ["batch", "running"])
@pytest.mark.parametrize("encoder", NOISY.values(), ids=NOISY)
def test_no_noise_of_any_encoder(encoder: EncoderConfig, batch_norm: str) -> None:
    """Its labels are a function of the images and of nothing else, even while it is in training."""
    torch.manual_seed(0)
    decoder = AsppConfig(norm="batch", channels=8, rates=(1,))
    student = EncoderDecoderConfig(encoder=encoder, decoder=decoder, dropout=0.5).build(3)
    teacher = MeanTeacher(student, TeacherConfig(batch_norm=batch_norm))  # type: ignore[arg-type]
    images = torch.rand(2, 3, 112, 112)
    state = torch.get_rng_state()
    assert torch.equal(teacher(images), teacher(images))
    assert torch.equal(torch.get_rng_state(), state)
    assert any(layer.training for layer in norms(teacher)) == (batch_norm == "batch")
    student.train()
    with torch.no_grad():
        assert not torch.equal(student(images).logits, student(images).logits)


def test_no_noise_of_a_network_that_classifies_masks() -> None:
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    student = small_mask2former().build(3)
    teacher = MeanTeacher(student, TeacherConfig())
    # Not the generator's state: older versions of transformers draw a number for each layer, too,
    # and use it in training only.
    assert torch.equal(teacher(IMAGES), teacher(IMAGES))


def test_restart_makes_an_exact_copy() -> None:
    student = student_of()
    teacher = MeanTeacher(student, TeacherConfig())
    other = student_of(seed=1)
    other(IMAGES)  # its running statistics are its own, too
    teacher.restart(other)
    assert_same(teacher.network.state_dict(), other.state_dict())
    with torch.no_grad():
        for weight in other.parameters():
            weight.zero_()
    assert weights(teacher).any(), "the copy is the teacher's own"


def test_it_gets_no_gradient() -> None:
    teacher = MeanTeacher(student_of(), TeacherConfig())
    logits = teacher(IMAGES)
    assert not logits.requires_grad
    assert not any(weight.requires_grad for weight in teacher.parameters())
    assert logits.shape == (2, 5, 64, 128)
    assert logits.dtype == torch.float32


def test_batch_statistics_are_those_of_the_images_at_hand() -> None:
    """As a student in training would see them, and the running ones follow the teacher's images."""
    config = tiny_model()
    config.dropout = 0.0
    student = student_of(config)
    teacher = MeanTeacher(student, TeacherConfig(batch_norm="batch"))
    before = teacher.network.backbone.state_dict()["bn1.running_mean"].clone()
    student.train()
    assert torch.equal(teacher(IMAGES), student(IMAGES).logits)
    assert not torch.equal(teacher.network.backbone.state_dict()["bn1.running_mean"], before)


def test_running_statistics_are_averaged_from_the_students() -> None:
    student = student_of()
    teacher = MeanTeacher(student, TeacherConfig(momentum=0.5, batch_norm="running"))
    start = [
        layer.running_mean.clone() for layer in norms(student) if layer.running_mean is not None
    ]
    student.train()
    student(IMAGES)
    before = teacher(IMAGES)
    assert torch.equal(teacher(IMAGES), before), "looking at images changes nothing"
    for layer, mean in zip(norms(teacher), start, strict=True):
        assert layer.running_mean is not None
        assert torch.equal(layer.running_mean, mean)
    teacher.update(student, updates=0)
    for layer, other, mean in zip(norms(teacher), norms(student), start, strict=True):
        assert layer.running_mean is not None
        assert other.running_mean is not None
        assert torch.allclose(layer.running_mean, (mean + other.running_mean) / 2, atol=1e-6)
        assert layer.num_batches_tracked == other.num_batches_tracked


@pytest.mark.parametrize("batch_norm", ["batch", "running"])
def test_no_dropout(batch_norm: str) -> None:
    config = tiny_model()
    config.dropout = 0.9
    student = student_of(config)
    teacher = MeanTeacher(student, TeacherConfig(batch_norm=batch_norm))  # type: ignore[arg-type]
    state = torch.get_rng_state()
    assert torch.equal(teacher(IMAGES), teacher(IMAGES))
    assert torch.equal(torch.get_rng_state(), state)
    student.train()
    assert not torch.equal(student(IMAGES).logits, student(IMAGES).logits)


def test_frozen_batch_norm_stays_frozen() -> None:
    student = student_of(tiny_model(batch_norm="frozen", head_norm="group"))
    teacher = MeanTeacher(student, TeacherConfig(batch_norm="batch"))
    before = {name: buffer.clone() for name, buffer in teacher.named_buffers()}
    teacher(IMAGES)
    assert_same(dict(teacher.named_buffers()), before)
    assert not any(layer.training for layer in norms(teacher))


def run_with_late_teacher(toy_root: Path, start: int) -> Run:
    experiment = tiny_preset("gc_640x360_b2_class_mix", toy_root)
    experiment.objectives["class_mix"].start_step = start
    return tiny_run(experiment)


def test_in_a_run_it_starts_from_the_student_that_first_asks_it(toy_root: Path) -> None:
    """Updates count from there: after the first the teacher is halfway to the new student."""
    run = run_with_late_teacher(toy_root, start=2)
    batch = batch_for(run.experiment)
    assert run.teacher is not None
    untouched = weights(run.teacher)
    for _ in range(2):
        train_step(run, batch)
    assert torch.equal(weights(run.teacher), untouched), "nobody asks yet"
    first = weights(run.student)
    train_step(run, batch)
    second = weights(run.student)
    assert torch.allclose(weights(run.teacher), (first + second) / 2, atol=1e-6)
    train_step(run, batch)
    third = weights(run.student)
    assert torch.allclose(weights(run.teacher), 2 / 3 * (first + second) / 2 + third / 3, atol=1e-6)


def test_a_run_without_a_user_of_it_has_no_teacher(toy_root: Path) -> None:
    assert tiny_run(tiny_preset("gc_640x360_b2_source_only", toy_root)).teacher is None


def test_it_is_where_the_student_is(toy_root: Path) -> None:
    run = run_with_late_teacher(toy_root, start=0)
    assert run.teacher is not None
    assert {weight.device for weight in run.teacher.parameters()} == {CPU}
    kernel = run.teacher.network.backbone.state_dict()["conv1.weight"]
    assert kernel.is_contiguous(memory_format=torch.channels_last)
