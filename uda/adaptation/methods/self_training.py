"""Self-training: a mean teacher labels the images, each class by a threshold of its own, and the
student learns these labels on mixed and recolored images.

Sources: Tarvainen and Valpola, NeurIPS 2017, arXiv 1703.01780 (mean teacher); Zou et al., "CBST",
ECCV 2018, arXiv 1810.07911 (thresholds); Olsson et al., "ClassMix", WACV 2021, arXiv 2007.07936.
"""

from uda.adaptation.method import Method, Subject
from uda.objectives.base import ObjectiveConfig
from uda.objectives.target_mix import TargetMixConfig

FEWEST = 8  # images
PORTION = 0.5  # of the pixels of each class, the most confident ones


def unfit(subject: Subject) -> str:
    """Why nothing can be learned from so few images, if so."""
    if subject.images >= FEWEST:
        return ""
    return (
        f"{subject.images} of the images can be read, and it learns from {FEWEST} or more; for "
        "single images there is uda predict --adapt"
    )


def _objectives(subject: Subject) -> dict[str, ObjectiveConfig]:
    return {"target_mix": TargetMixConfig(confidence="class_balanced", portion=PORTION)}


METHOD = Method(
    name="self-training",
    about="A moving average of the network labels the images; the network learns the most "
    "confident half of each class's pixels on images that are mixed with each other.",
    unfit=unfit,
    objectives=_objectives,
)
