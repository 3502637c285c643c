"""The 46 classes of Fashionpedia and iMaterialist, and the five groups of clothing made of them.

Source of ids, names and super-categories: Jia et al., ECCV 2020, arXiv 2004.12276 (the first 46
of its ontology are those of the iMaterialist Fashion challenges). Source of the groups: the
notebook of mberkay0/clothing-segmentation@1fb0c6e, as facts.
"""

from typing import NamedTuple

GROUPS = ("background", "upperbody", "lowerbody", "wholebody", "feet", "accessories")


class FashionClass(NamedTuple):
    """A class of instances and the group that its pixels belong to."""

    id: int
    name: str
    supercategory: str
    group: int  # position in GROUPS; 0: the garment below it stays visible


FASHION_CLASSES = tuple(
    FashionClass(*row)
    for row in (
        (0, "shirt, blouse", "upperbody", 1),
        (1, "top, t-shirt, sweatshirt", "upperbody", 1),
        (2, "sweater", "upperbody", 1),
        (3, "cardigan", "upperbody", 1),
        (4, "jacket", "upperbody", 1),
        (5, "vest", "upperbody", 1),
        (6, "pants", "lowerbody", 2),
        (7, "shorts", "lowerbody", 2),
        (8, "skirt", "lowerbody", 2),
        (9, "coat", "wholebody", 3),
        (10, "dress", "wholebody", 3),
        (11, "jumpsuit", "wholebody", 3),
        (12, "cape", "wholebody", 0),
        (13, "glasses", "head", 5),
        (14, "hat", "head", 5),
        (15, "headband, head covering, hair accessory", "head", 5),
        (16, "tie", "neck", 5),
        (17, "glove", "arms and hands", 5),
        (18, "watch", "arms and hands", 5),
        (19, "belt", "waist", 5),
        (20, "leg warmer", "legs and feet", 4),
        (21, "tights, stockings", "legs and feet", 0),
        (22, "sock", "legs and feet", 4),
        (23, "shoe", "legs and feet", 4),
        (24, "bag, wallet", "others", 5),
        (25, "scarf", "others", 5),
        (26, "umbrella", "others", 5),
        (27, "hood", "garment parts", 0),
        (28, "collar", "garment parts", 0),
        (29, "lapel", "garment parts", 0),
        (30, "epaulette", "garment parts", 0),
        (31, "sleeve", "garment parts", 0),
        (32, "pocket", "garment parts", 0),
        (33, "neckline", "garment parts", 0),
        (34, "buckle", "closures", 5),
        (35, "zipper", "closures", 0),
        (36, "applique", "decorations", 0),
        (37, "bead", "decorations", 5),
        (38, "bow", "decorations", 0),
        (39, "flower", "decorations", 0),
        (40, "fringe", "decorations", 0),
        (41, "ribbon", "decorations", 0),
        (42, "rivet", "decorations", 0),
        (43, "ruffle", "decorations", 0),
        (44, "sequin", "decorations", 0),
        (45, "tassel", "decorations", 0),
    )
)
