"""The label spaces that this library knows, by name."""

from uda.data.labels import CITYSCAPES

LABEL_SPACES = {space.name: space for space in (CITYSCAPES,)}
