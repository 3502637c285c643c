"""What is minimized: one file per idea."""

from uda.objectives.adversarial import AdversarialConfig
from uda.objectives.base import Objective, ObjectiveConfig, StepContext
from uda.objectives.class_mix import ClassMixConfig
from uda.objectives.cut_mix import CutMixConfig
from uda.objectives.memory_regularization import MemoryRegularizationConfig
from uda.objectives.pseudo_label import PseudoLabelConfig
from uda.objectives.supervised import SupervisedConfig

__all__ = [
    "AdversarialConfig",
    "ClassMixConfig",
    "CutMixConfig",
    "MemoryRegularizationConfig",
    "Objective",
    "ObjectiveConfig",
    "PseudoLabelConfig",
    "StepContext",
    "SupervisedConfig",
]
