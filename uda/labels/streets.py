"""Label spaces of street scenes: the 19 classes of Cityscapes, stored in other ways.

Networks of one list of classes are trained and scored on any of them; which value of a label file
means which class is a data set's own matter.
"""

from collections.abc import Mapping
from dataclasses import replace

from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX, LabelSpace


def street_space(
    name: str,
    raw_to_train: Mapping[int, int],
    *,
    ignored: tuple[int, ...] = (),
    channel: str = "",
    deep: bool = False,
    names: Mapping[str, int] | None = None,
) -> LabelSpace:
    """The 19 classes by other raw ids, some of which are `ignored`; a class without a raw id has no
    pixels. `channel`, `deep` and `names`: see `LabelSpace`."""
    return replace(
        CITYSCAPES,
        name=name,
        raw_to_train=dict.fromkeys(ignored, IGNORE_INDEX) | dict(raw_to_train),
        raw_channel=channel,
        raw_deep=deep,
        raw_names=names or {},
    )


# As *_labelTrainIds.png have them.
TRAIN_IDS = street_space(
    "train_ids19", {i: i for i in range(CITYSCAPES.num_classes)}, ignored=(IGNORE_INDEX,)
)
