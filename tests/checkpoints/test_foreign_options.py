"""What tensors of other projects' files do not say: output strides, teachers, classes; and files
that are known, but not built."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import uda
from factories import file_of
from uda.checkpoints.foreign import ForeignCheckpoint, ForeignOptions, read_foreign
from uda.checkpoints.formats.adaptsegnet import ADAPTSEGNET_SINGLE
from uda.checkpoints.formats.daformer import DAFORMER
from uda.checkpoints.formats.mmsegmentation import DEEPLABV3PLUS
from uda.checkpoints.formats.segmentron import SEGMENTRON
from uda.checkpoints.formats.torchvision import TORCHVISION
from uda.checkpoints.formats.vainf import VAINF
from uda.checkpoints.matching import describe_unknown, stride_of
from uda.checkpoints.snapshots import load, save, snapshot_values
from uda.labels.voc import VOC
from uda.models.encoders.resnet_v1c import ResNetV1c
from uda.models.vainf import VainF, VainFConfig
from uda.utilities.errors import InputError

State = dict[str, Tensor]


def opened(content: object, name: str = "x.pth", **options: object) -> ForeignCheckpoint:
    found = read_foreign(content, origin=name, options=ForeignOptions(**options))  # type: ignore[arg-type]
    assert found is not None
    return found


# --- output stride


@pytest.fixture(scope="module")
def vainf() -> State:
    return file_of(VAINF)


@pytest.mark.parametrize(
    ("name", "stride", "said"),
    [
        ("best_deeplabv3plus_resnet101_cityscapes_os8.pth", 8, "output stride 8 (by the file's n"),
        ("some/os8/best_deeplabv3plus_voc_os16.pth", 16, "output stride 16 (by the file's name);"),
        ("os8/photos8.pth", 16, "output stride 16; "),
        ("os80.pth", 16, "output stride 16; "),
    ],
)
def test_the_name_of_a_file_tells_its_output_stride(
    vainf: State, name: str, stride: int, said: str
) -> None:
    """audit B.5"""
    found = opened(vainf, name)
    assert isinstance(found.model, VainFConfig)
    assert found.model.output_stride == stride
    assert found.quirks.startswith(said)


def test_the_user_knows_the_output_stride_better(vainf: State) -> None:
    found = opened(vainf, "os16.pth", output_stride=8)
    assert stride_of(found.model) == 8
    assert found.quirks.startswith("output stride 8; corners not aligned")
    with torch.device("meta"):
        network = found.model.build(19)
    assert isinstance(network, VainF)
    dilations = [branch[0].dilation for branch in list(network.aspp.convs)[1:4]]
    assert dilations == [(12, 12), (24, 24), (36, 36)]
    assert network.backbone.strides == (4, 8, 8, 8)


@pytest.mark.slow
def test_other_networks_with_and_without_an_output_stride() -> None:
    assert stride_of(opened(file_of(SEGMENTRON), output_stride=8).model) == 8
    mmseg = file_of(DEEPLABV3PLUS)
    assert stride_of(opened(mmseg, "deeplabv3plus_r101-d16-mg124_512x1024.pth").model) == 16
    assert stride_of(opened(mmseg, "deeplabv3plus_r101_512x1024.pth").model) == 8
    with pytest.raises(InputError, match=r"--output-stride 16: torchvision .* one output stride"):
        opened(file_of(TORCHVISION), output_stride=16)
    with pytest.raises(InputError, match=r"--output-stride 16: DAFormer .* one output stride"):
        opened(file_of(DAFORMER), output_stride=16)


# --- teachers


def test_a_teacher_beside_the_student() -> None:
    """As DACS writes it."""
    student, teacher = file_of(ADAPTSEGNET_SINGLE), file_of(ADAPTSEGNET_SINGLE)
    teacher["conv1.weight"] = torch.ones(()).expand(64, 3, 7, 7)
    content = {"model": student, "ema_model": {f"module.{n}": t for n, t in teacher.items()}}
    found = opened(content, project="adaptsegnet")
    assert found.teacher is not None
    assert found.teacher.keys() == found.state.keys()
    assert found.teacher["backbone.conv1.weight"].all()
    assert not found.state["backbone.conv1.weight"].any()
    assert found.networks == "student and teacher"
    del teacher["conv1.weight"]
    other = opened({"model": student, "ema_model": teacher}, project="adaptsegnet")
    assert other.teacher is None
    assert other.networks.startswith("student; not read: what is under 'ema_model', which does not")
    assert opened({"model": student, "ema": 0.99}, project="adaptsegnet").networks == ""


@pytest.mark.slow
def test_weights_of_the_teacher(tmp_path: Path) -> None:
    student, teacher = file_of(TORCHVISION), file_of(TORCHVISION)
    teacher["classifier.4.bias"] = torch.ones(19)
    torch.save({"model": student, "teacher": teacher}, tmp_path / "x.pth")
    assert uda.load(tmp_path / "x.pth", weights="teacher").main[4].bias.all()  # type: ignore[index, union-attr]
    snapshot = load(tmp_path / "x.pth")
    assert snapshot.report["networks"] == "student and teacher"
    torch.save(student, tmp_path / "y.pth")
    with pytest.raises(InputError, match="this snapshot has no teacher"):
        uda.load(tmp_path / "y.pth", weights="teacher")


# --- classes


@pytest.mark.slow
def test_voc_files_open_for_prediction(tmp_path: Path) -> None:
    """audit B.11"""
    state = file_of(TORCHVISION, num_classes=21)
    torch.save(state, tmp_path / "deeplabv3_resnet101_coco.pth")
    snapshot = load(tmp_path / "deeplabv3_resnet101_coco.pth")
    assert snapshot.label_space is VOC
    picture = torch.rand(3, 33, 49)
    (labels,) = uda.predict(tmp_path / "deeplabv3_resnet101_coco.pth", [picture], device="cpu")
    assert labels.labels.shape == (33, 49)
    with pytest.raises(InputError, match="there is no data set 'voc21'"):
        uda.evaluate(tmp_path / "deeplabv3_resnet101_coco.pth", data_root=tmp_path, device="cpu")
    save(snapshot_values(snapshot), tmp_path / "ours.pth")
    assert load(tmp_path / "ours.pth").label_space == VOC


def test_colors_of_voc() -> None:
    assert VOC.palette[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert (VOC.palette[15], VOC.palette[20]) == ((192, 128, 128), (0, 64, 128))


# --- known, but not built


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["classifier.classifier.0.weight", "backbone.high_level_features.4.conv.0.0.weight"],
            "VainF's DeepLabV3+ on MobileNet-v2, which this library does not build",
        ),
        (["classifier.0.weight", "classifier.4.weight"], "torchvision's FCN, which"),
        (["classifier.cbr.0.weight"], "torchvision's LR-ASPP on MobileNet-v3, which"),
    ],
)
def test_networks_that_are_not_built_are_called_by_name(names: list[str], said: str) -> None:
    assert said in describe_unknown(dict.fromkeys(names, torch.zeros(1)), "x.pth")


def test_a_network_that_almost_fits_is_called_by_name() -> None:
    """torchvision's FCN has DeepLabV3's backbone and classifier."""
    state = {n: t for n, t in file_of(TORCHVISION).items() if not n.startswith("classifier.0.")}
    state["classifier.0.weight"] = torch.zeros(512, 2048, 3, 3)
    with pytest.raises(
        InputError, match=r"looks like torchvision.* but it holds torchvision's FCN"
    ):
        opened(state)


def test_a_resnet_v1c_alone_is_for_initial_weights() -> None:
    with torch.device("meta"):
        encoder = ResNetV1c("resnet50", width=64, output_stride=16)
    state = {
        n: torch.zeros((), dtype=t.dtype).expand(t.shape) for n, t in encoder.state_dict().items()
    }
    said = describe_unknown(state | {"fc.weight": torch.zeros(1)}, "resnet50_v1c-2cccc1ad.pth")
    assert said == (
        "it holds the backbone of a resnet50_v1c, which can be used as initial weights: --set "
        "model.encoder.name=resnet50_v1c --set model.encoder.weights=resnet50_v1c-2cccc1ad.pth"
    )
