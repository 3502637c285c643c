"""What it takes to try any objective: a small experiment that meets its needs.

`torture.py` and the tests find objectives in their registry and try each one, so that a new one is
tried without an entry anywhere.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from uda.data.config import DomainConfig, SecondViewConfig
from uda.data.files import image_size
from uda.data.pseudo_label_folder import ID_SPACE, Manifest, PseudoLabelWriter
from uda.data.samples import Sample
from uda.experiment import Experiment
from uda.labels.spaces import IGNORE_INDEX, LabelSpace
from uda.models.decoders.fcn import FcnConfig
from uda.models.decoders.linear import LinearConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig
from uda.models.mask2former import Mask2FormerConfig
from uda.objectives.base import Need, ObjectiveConfig
from uda.objectives.registry import objective_configs
from uda.optim.teacher import TeacherConfig

_BLOCK = 8  # pixels: side of a block of random labels


def kinds() -> dict[str, type[ObjectiveConfig]]:
    """The settings of every objective of the library by its name, such as "ClassMix"."""
    return {cls.__name__.removesuffix("Config"): cls for cls in objective_configs().values()}


def small_mask2former() -> Mask2FormerConfig:
    return Mask2FormerConfig(
        backbone="resnet18", backbone_weights="none", backbone_width=8, queries=8, channels=64,
        attention_heads=4, encoder_layers=1, encoder_width=32, decoder_layers=2, decoder_width=32,
    )  # fmt: skip


def small_vit() -> EncoderDecoderConfig:
    """A plain vision transformer, which has a mask token, with an auxiliary head."""
    return EncoderDecoderConfig(
        encoder=EncoderConfig(name="dinov2_vits14", weights="none", width=4),
        decoder=LinearConfig(),
        auxiliary=FcnConfig(channels=8),
    )


def equip(
    experiment: Experiment,
    objectives: Mapping[str, ObjectiveConfig],
    *,
    target: DomainConfig,
    pseudo_labels: Path,
) -> None:
    """Gives `experiment` these objectives and what they need, and takes away what none needs.

    target: the target images, should they be needed; `pseudo_labels`: a folder of labels for them.
    A view that an objective reads and none adds is added by the first objective of the library that
    adds it.
    """
    chosen = dict(objectives)
    read = {view for config in objectives.values() for view in config.reads() | config.joint()}
    for view in read - {"source", "target"}:
        if not any(view in config.adds() for config in chosen.values()):
            chosen[view] = next(c() for c in kinds().values() if view in c().adds())
    needs = frozenset[Need]().union(*(config.needs() for config in chosen.values()))
    data = experiment.data
    data.source = data.source if "source" in needs else None
    of_target = frozenset[Need](
        ["target", "pseudo_labels", "target_ground_truth", "second_target_view"]
    )
    data.target = target if needs & of_target else None
    data.pseudo_labels = str(pseudo_labels) if "pseudo_labels" in needs else None
    data.target_ground_truth = "target_ground_truth" in needs
    data.second_target_view = SecondViewConfig() if "second_target_view" in needs else None
    experiment.teacher = TeacherConfig() if "teacher" in needs else None
    if "queries" in needs:
        experiment.model = small_mask2former()
    if "mask_token" in needs:
        experiment.model = small_vit()
    experiment.objectives = chosen


def any_manifest(
    stems: Sequence[str], space: LabelSpace, *, supervision: str = "none", share: float = 0.75
) -> Manifest:
    """The manifest of pseudo-labels for the images `stems` that no network made."""
    return Manifest(
        id_space=ID_SPACE, label_space=space.name, classes=space.classes,
        rule="sampled at random", threshold=0.5, protocol="none", snapshot="GTA5_10.pth",
        snapshot_sha256="0" * 64, supervision=supervision, image_count=len(stems),
        images=tuple(sorted(stems)), share_kept=share,
        share_kept_per_class=dict.fromkeys(space.classes, share),
    )  # fmt: skip


def write_random_pseudo_labels(
    folder: Path,
    samples: Sequence[Sample],
    space: LabelSpace,
    *,
    ids: Sequence[int] = (),
    supervision: str = "none",
) -> None:
    """Pseudo-labels for `samples` in blocks of 8x8 pixels, sampled from `ids`; by default from all
    classes of `space` and 255."""
    rng = np.random.default_rng(0)
    values = np.array(ids or [*range(space.num_classes), IGNORE_INDEX], np.uint8)
    with PseudoLabelWriter(folder) as writer:
        for sample in samples:
            height, width = image_size(sample.image)
            blocks = rng.choice(values, size=(-(-height // _BLOCK), -(-width // _BLOCK)))
            labels = np.kron(blocks, np.ones((_BLOCK, _BLOCK), np.uint8))[:height, :width]
            writer.write(sample.stem, np.ascontiguousarray(labels))
        stems = [sample.stem for sample in samples]
        writer.finish(any_manifest(stems, space, supervision=supervision))
