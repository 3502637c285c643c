"""What the presets of several modules share: the log's three data sets, its loss, its networks."""

from dataclasses import replace
from typing import Literal, TypedDict, Unpack

from uda.augmentation.policies import PolicyName
from uda.data.config import DomainConfig
from uda.models.deeplabv2 import DeepLabV2Config
from uda.objectives.supervised import SupervisedConfig

# AdaptSegNet's file, from which the log's networks start.
INITIAL_WEIGHTS = "weights/DeepLab_resnet_pretrained_init-f81d91e8.pth"


class DomainChanges(TypedDict, total=False):
    """Fields of DomainConfig that a preset may change."""

    datasets: tuple[str, ...]
    splits: tuple[str, ...]
    first: int
    size: tuple[int, int]
    scale: tuple[float, float]
    mirror: bool
    policy: PolicyName
    crop_label_values: int


def gta5(**changes: Unpack[DomainChanges]) -> DomainConfig:
    """GTA5 with labels, resized to 1280x720 times a random factor, in crops with many classes."""
    domain = DomainConfig(
        datasets=("gta5",),
        size=(720, 1280),
        scale=(0.8, 1.2),
        mirror=True,
        crop_label_values=10,
    )
    return replace(domain, **changes)


def cyclegta5(**changes: Unpack[DomainChanges]) -> DomainConfig:
    """CycleGTA5 in the same way."""
    return replace(gta5(**changes), datasets=("cyclegta5",))


def cityscapes(**changes: Unpack[DomainChanges]) -> DomainConfig:
    """Cityscapes at half its size, neither scaled nor mirrored."""
    domain = DomainConfig(datasets=("cityscapes",), splits=("train",), size=(512, 1024))
    return replace(domain, **changes)


def balanced_hard(*, auxiliary_weight: float = 0.5) -> SupervisedConfig:
    """The log's cross-entropy: rare classes weigh more, the hardest fifth of the pixels counts."""
    return SupervisedConfig(auxiliary_weight=auxiliary_weight, class_balance=True, hardest=0.2)


def seg_uncertainty(*, batch_norm_parts: int = 1) -> DeepLabV2Config:
    """Two levels, each head with five branches, squeeze and excitation, and group norm."""
    return DeepLabV2Config(
        backbone_weights=INITIAL_WEIGHTS,
        batch_norm="frozen_affine",
        batch_norm_parts=batch_norm_parts,
        levels=2,
        head="se_group_norm",
        aspp_branches=4,
        dropout=0.1,
    )


def deeplab_v2(*, levels: Literal[1, 2], batch_norm_parts: int = 1) -> DeepLabV2Config:
    """Heads that build four dilated branches and sum two, by a return inside a loop."""
    return DeepLabV2Config(
        backbone_weights=INITIAL_WEIGHTS,
        batch_norm="frozen_affine",
        batch_norm_parts=batch_norm_parts,
        levels=levels,
        head="sum",
        aspp_branches=2,
        dropout=0.0,
    )
