"""Information maximization: predictions become sure without becoming one class, while the last
layer, which knows the classes, stays.

Source: Liang et al., "SHOT", ICML 2020, arXiv 2002.08546; that classes are not of equal size, as
they are not in images, is allowed for as in `uda/objectives/information_maximization.py`.
"""

from uda.adaptation.method import Method, Subject
from uda.adaptation.methods.self_training import unfit
from uda.objectives.base import ObjectiveConfig
from uda.objectives.information_maximization import InformationMaximizationConfig


def _objectives(subject: Subject) -> dict[str, ObjectiveConfig]:
    return {"information_maximization": InformationMaximizationConfig(prior_batches=10)}


METHOD = Method(
    name="information-maximization",
    about="Predictions become sure, and the classes keep the shares that the network saw before; "
    "the layer that names the classes stays as it is.",
    unfit=unfit,
    objectives=_objectives,
    learned="all_but_classifier",
)
