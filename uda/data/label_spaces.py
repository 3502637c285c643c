"""The label spaces that this library knows, by name."""

from uda.data.body_parts import BODY_PARTS
from uda.data.clothes import CLOTHES58_CLASSES, CLOTHES59_CLASSES
from uda.data.fashion import FASHION5
from uda.data.isprs import ISPRS6
from uda.data.labels import CITYSCAPES

LABEL_SPACES = {
    space.name: space
    for space in (CITYSCAPES, CLOTHES59_CLASSES, CLOTHES58_CLASSES, ISPRS6, FASHION5, BODY_PARTS)
}
