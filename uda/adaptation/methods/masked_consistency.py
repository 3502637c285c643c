"""Masked consistency: what is hidden of an image has to be told by its surroundings.

Source: Hoyer et al., "MIC", CVPR 2023, arXiv 2212.01322; here without a source.
"""

from uda.adaptation.method import Method, Subject
from uda.adaptation.methods.self_training import PORTION, unfit
from uda.objectives.base import ObjectiveConfig
from uda.objectives.masked_image import MaskedImageConfig


def _objectives(subject: Subject) -> dict[str, ObjectiveConfig]:
    # Less is hidden than in MIC, whose images are larger and whose source has labels.
    masked = MaskedImageConfig(confidence="class_balanced", portion=PORTION, hidden=0.5, block=32)
    return {"masked_image": masked}


METHOD = Method(
    name="masked-consistency",
    about="The network learns its teacher's labels of whole images from images with hidden blocks.",
    unfit=unfit,
    objectives=_objectives,
)
