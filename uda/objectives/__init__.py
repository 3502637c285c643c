"""What is minimized: one file per idea."""

from uda.objectives.adversarial import AdversarialConfig
from uda.objectives.base import Objective, ObjectiveConfig, StepContext
from uda.objectives.class_mix import ClassMixConfig
from uda.objectives.cross_view import CrossViewConfig
from uda.objectives.cut_mix import CutMixConfig
from uda.objectives.entropy import EntropyConfig
from uda.objectives.fix_match import FixMatchConfig
from uda.objectives.mask_classification import MaskClassificationConfig
from uda.objectives.memory_regularization import MemoryRegularizationConfig
from uda.objectives.pseudo_label import PseudoLabelConfig
from uda.objectives.rectified_pseudo_label import RectifiedPseudoLabelConfig
from uda.objectives.supervised import SupervisedConfig

__all__ = [
    "AdversarialConfig",
    "ClassMixConfig",
    "CrossViewConfig",
    "CutMixConfig",
    "EntropyConfig",
    "FixMatchConfig",
    "MaskClassificationConfig",
    "MemoryRegularizationConfig",
    "Objective",
    "ObjectiveConfig",
    "PseudoLabelConfig",
    "RectifiedPseudoLabelConfig",
    "StepContext",
    "SupervisedConfig",
]
