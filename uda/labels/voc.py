"""The classes of PASCAL VOC 2012, for networks of other projects; no data set here has them.

Source: Everingham et al., IJCV 2015; the palette sets the bits of a class's number, lowest first,
in turn into red, green and blue, from the highest bit on.
"""

from uda.labels.spaces import IGNORE_INDEX, LabelSpace


def _color(number: int) -> tuple[int, int, int]:
    red, green, blue = (
        sum((number >> (3 * place + channel) & 1) << (7 - place) for place in range(8))
        for channel in range(3)
    )
    return red, green, blue


_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip

VOC = LabelSpace(
    name="voc21",
    classes=_CLASSES,
    report_names=_CLASSES,
    palette=tuple(map(_color, range(len(_CLASSES)))),
    raw_to_train={**{number: number for number in range(len(_CLASSES))}, 255: IGNORE_INDEX},
)
