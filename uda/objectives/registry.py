"""The objectives by name, one per file of this folder."""

from functools import cache

import uda.objectives
from uda.objectives.base import ObjectiveConfig
from uda.utilities.discovery import classes_of


@cache
def objective_configs() -> dict[str, type[ObjectiveConfig]]:
    """The settings of each objective by the name of its file, such as "class_mix"."""
    return classes_of(uda.objectives, ObjectiveConfig)
