"""The areas of ISPRS Vaihingen and Potsdam, how their files are called, and the official split.

Source: ISPRS WG III/4, 2D Semantic Labeling Contest; the training areas are those whose labels
were published first, as mmsegmentation lists them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

IsprsName = Literal["vaihingen", "potsdam"]
Channels = Literal["IRRG", "RGB"]  # IRRG: near infrared, red, green


class Area(NamedTuple):
    """One large image."""

    name: str  # in its files' names
    tile_name: str  # how the names of its tiles begin
    split: Literal["train", "val"]


@dataclass(frozen=True, slots=True)
class Areas:
    """A data set as its archives unpack; `{area}` and `{channels}` stand in names of files."""

    areas: tuple[Area, ...]
    image: str
    # Where images are; Vaihingen's full ground truth bears the same names in another folder.
    image_folder: str | None
    labels: str  # eroded: pixels near a boundary between classes are black and not scored
    pixel_cm: float  # on the ground
    archives: str  # in words, for messages


def _areas(prefix: str, *, train: str, val: str) -> tuple[Area, ...]:
    """Both splits, their areas separated by spaces."""
    return (
        *(Area(name, prefix + name, "train") for name in train.split()),
        *(Area(name, prefix + name, "val") for name in val.split()),
    )


AREAS: Mapping[IsprsName, Areas] = {
    # 33 areas. There is no image of area 9, though some copies of the ground truth have a file for
    # it: it belongs to neither split, and whatever bears its name is left alone.
    "vaihingen": Areas(
        areas=_areas(
            "area",
            train="1 3 5 7 11 13 15 17 21 23 26 28 30 32 34 37",
            val="2 4 6 8 10 12 14 16 20 22 24 27 29 31 33 35 38",
        ),
        image="top_mosaic_09cm_area{area}.tif",
        image_folder="top",
        labels="top_mosaic_09cm_area{area}_noBoundary.tif",
        pixel_cm=9.0,
        archives="ISPRS_semantic_labeling_Vaihingen/top/top_mosaic_09cm_area1.tif, ... and "
        "ISPRS_semantic_labeling_Vaihingen_ground_truth_eroded_COMPLETE/"
        "top_mosaic_09cm_area1_noBoundary.tif, ...",
    ),
    # 38 areas of 6000x6000 pixels.
    "potsdam": Areas(
        areas=_areas(
            "",
            train=(
                "2_10 2_11 2_12 3_10 3_11 3_12 4_10 4_11 4_12 5_10 5_11 5_12 "
                "6_7 6_8 6_9 6_10 6_11 6_12 7_7 7_8 7_9 7_10 7_11 7_12"
            ),
            val="2_13 2_14 3_13 3_14 4_13 4_14 4_15 5_13 5_14 5_15 6_13 6_14 6_15 7_13",
        ),
        image="top_potsdam_{area}_{channels}.tif",
        image_folder=None,
        labels="top_potsdam_{area}_label_noBoundary.tif",
        pixel_cm=5.0,
        archives="2_Ortho_RGB/top_potsdam_2_10_RGB.tif, ... or "
        "3_Ortho_IRRG/top_potsdam_2_10_IRRG.tif, ..., and "
        "5_Labels_all_noBoundary/top_potsdam_2_10_label_noBoundary.tif, ...",
    ),
}
