"""Tent: the network's predictions become more certain; weights and biases of its normalization
alone change.

Source: Wang et al., "Tent", ICLR 2021, arXiv 2006.10726, here over passes of the images instead of
a stream of them (`uda predict --adapt tent`).
"""

from uda.adaptation.method import Method, Subject
from uda.adaptation.methods.self_training import unfit
from uda.objectives.base import ObjectiveConfig
from uda.objectives.entropy import EntropyConfig


def _unfit(subject: Subject) -> str:
    if not subject.norms:
        return "this network has no normalization with weights to learn; use self-training"
    return unfit(subject)


def _objectives(subject: Subject) -> dict[str, ObjectiveConfig]:
    return {"entropy": EntropyConfig(weight=1.0)}


METHOD = Method(
    name="tent",
    about="The entropy of the predictions is lowered by the weights of normalization layers alone.",
    unfit=_unfit,
    objectives=_objectives,
    learned="norms",
    lr_factor=0.1,
)
