"""People clothing: `png_images/IMAGES/img_0001.png` and `png_masks/MASKS/seg_0001.png`.

The Kaggle set rajkumarl/people-clothing-segmentation as its archive unpacks: 1000 photographs of
825x550 pixels (height x width) and 8-bit label maps of 59 classes. `jpeg_images/` and
`jpeg_masks/` are next to them and not read: labels do not survive JPEG. Or the set that it was made
of, Clothing Co-Parsing (Yang et al., CVPR 2014), 1004 photographs: `photos/0001.jpg` and
`labels/0001.png`. Neither has splits; here 4 of 5 images are sampled by a seed, 800 and 200 as in
the reports that these presets repeat (whose seed is not known). `labels.csv` or `classes.txt`, if
it is there, has to name the classes as they are named here.
"""

from pathlib import Path

from uda.data.samples import Form, KnownSplit, Layout
from uda.labels.spaces import LabelSpace
from uda.labels.zero_label import reduce_zero_label
from uda.utilities.errors import InputError, require, shown
from uda.utilities.reading import SMALL, csv_rows, read_text, why

_SHARES = {"train": 0.8, "val": 0.2}
_SPLIT_SEED = 0
_NAMES = ("labels.csv", "classes.txt")

_CLASSES = (
    "background", "accessories", "bag", "belt", "blazer", "blouse", "bodysuit", "boots", "bra",
    "bracelet", "cape", "cardigan", "clogs", "coat", "dress", "earrings", "flats", "glasses",
    "gloves", "hair", "hat", "heels", "hoodie", "intimate", "jacket", "jeans", "jumper", "leggings",
    "loafers", "necklace", "panties", "pants", "pumps", "purse", "ring", "romper", "sandals",
    "scarf", "shirt", "shoes", "shorts", "skin", "skirt", "sneakers", "socks", "stockings", "suit",
    "sunglasses", "sweater", "sweatshirt", "swimwear", "t-shirt", "tie", "tights", "top", "vest",
    "wallet", "watch", "wedges",
)  # fmt: skip


def voc_color(index: int) -> tuple[int, int, int]:
    """The color (RGB) of class `index` in PASCAL VOC: its bits, from the lowest, go to red,
    green and blue in turn, as their highest bits. The 256 colors are distinct; 0 is black."""
    color = [0, 0, 0]
    for place in range(8):
        color[place % 3] |= (index >> place & 1) << (7 - place // 3)
    return color[0], color[1], color[2]


CLOTHES59_CLASSES = LabelSpace(
    name="clothes59",
    classes=_CLASSES,
    report_names=_CLASSES,
    palette=tuple(voc_color(index) for index in range(len(_CLASSES))),
    raw_to_train={index: index for index in range(len(_CLASSES))},
)
# Background is ignored, and no name is left without its class.
CLOTHES58_CLASSES = reduce_zero_label(CLOTHES59_CLASSES, name="clothes58")


def _check(root: Path, labeled: bool) -> None:
    if labeled:
        for name in _NAMES:
            check_names(root / name)


def check_names(path: Path) -> None:
    """Raises InputError when the list `path` is there and names other classes, or in another order.

    Its last column has the names. There may be a header, and ids before the names; class 0 is
    called null, or nothing, there.
    """
    try:
        rows = [row for row in csv_rows(read_text(path, SMALL).splitlines()) if row]
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({why(error)}): unpack the archive again"
        ) from None
    numbered = [row[0].isdigit() for row in rows]
    has_header = len(rows) == len(_CLASSES) + 1 or (any(numbered) and not numbered[0])
    names = [row[-1] for row in rows[1 if has_header else 0 :]]
    require(
        len(names) == len(_CLASSES),
        f"{path} names {len(names)} classes; {CLOTHES59_CLASSES.name} has {len(_CLASSES)}, from "
        f"{_CLASSES[0]} to {_CLASSES[-1]}: unpack the archive's own {path.name}",
    )
    for index, (theirs, ours) in enumerate(zip(names, _CLASSES, strict=True)):
        nothing = index == 0 and theirs.lower() in ("null", "")
        require(
            nothing or theirs.lower() == ours,
            f"{path}: class {index} is called {shown(theirs)}, in {CLOTHES59_CLASSES.name} it is "
            f"{ours!r}, so names and label ids would not fit: unpack the archive's own {path.name} "
            "and label files",
        )


def _layout(label_space: LabelSpace, *, part_of: str = "") -> Layout:
    return Layout(
        name=label_space.name,
        short_name=label_space.name.upper(),
        folder="PeopleClothing",
        splits=tuple(_SHARES),
        label_space=label_space,
        part_of=part_of,
        images="png_images/IMAGES/img_*.png",
        labels="png_masks/MASKS/seg_*.png",
        other_forms=(Form("photos/*.jpg", "labels/*.png"),),
        shares=_SHARES,
        seed=_SPLIT_SEED,
        note="as rajkumarl/people-clothing-segmentation or Clothing Co-Parsing unpacks",
        check=_check,
        known={"train": KnownSplit((800, 803)), "val": KnownSplit((200, 201))},
    )


CLOTHES59 = _layout(CLOTHES59_CLASSES)
CLOTHES58 = _layout(CLOTHES58_CLASSES, part_of=CLOTHES59.name)
