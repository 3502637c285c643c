"""Masks of objects from COCO's run lengths and polygons, and from Kaggle's pairs."""

from typing import Any

import numpy as np
import pytest

from uda.data.preparation.coco_masks import (
    decode_kaggle,
    decode_rle,
    polygons_to_mask,
    segmentation_mask,
)
from uda.utilities.errors import InputError

# Down the columns: 1 pixel of background, 2 of the object, 4 of background, 1 of the object, 1.
RUNS = [1, 2, 4, 1, 1]
MASK = [[0, 0, 0], [1, 0, 1], [1, 0, 0]]


def encode_rle(runs: list[int]) -> str:
    """COCO's compressed text of run lengths, written from the format's description."""
    text = ""
    for index, run in enumerate(runs):
        number = run - (runs[index - 2] if index > 2 else 0)
        while True:
            bits, number = number & 31, number >> 5  # an arithmetic shift: negative ones end at -1
            more = number != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
            if not more:
                break
    return text


def test_run_lengths_go_down_the_columns() -> None:
    mask = decode_rle(RUNS, (3, 3))
    assert mask.dtype == np.bool_
    assert mask.astype(int).tolist() == MASK


def test_compressed_text() -> None:
    # 1, 2, 4 as they are; then 1 - 2 = -1 (all five bits: 31) and 1 - 4 = -3 (29).
    text = "124" + chr(48 + 31) + chr(48 + 29)
    assert text == "124OM" == encode_rle(RUNS)
    assert decode_rle(text, (3, 3)).astype(int).tolist() == MASK
    assert decode_rle(text.encode(), (3, 3)).astype(int).tolist() == MASK


def test_a_number_of_two_characters() -> None:
    # 100 = 3 * 32 + 4: first the low bits with "more" (4 + 32), then 3. 16 needs two, lest it be
    # negative.
    assert encode_rle([100]) == chr(48 + 36) + "3"
    assert encode_rle([16]) == chr(48 + 48) + "0"
    assert not decode_rle("T3", (10, 10)).any()


def test_any_mask_comes_back_from_its_text() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        height, width = rng.integers(1, 60, 2)
        mask = rng.random((height, width)) < rng.choice([0.02, 0.5, 0.98])
        flat = np.concatenate([[False], mask.T.ravel()])
        places = [0, *np.flatnonzero(flat[1:] != flat[:-1]).tolist(), mask.size]
        runs = np.diff(places).tolist()
        size = (int(height), int(width))
        assert np.array_equal(decode_rle(runs, size), mask)
        assert np.array_equal(decode_rle(encode_rle(runs), size), mask)
        pairs = " ".join(
            f"{start + 1} {length}"
            for start, length in zip(places[1::2], runs[1::2], strict=False)
            if length
        )
        assert np.array_equal(decode_kaggle(pairs, size), mask)


def test_pairs_of_kaggle_count_from_one() -> None:
    assert decode_kaggle("2 2 8 1", (3, 3)).astype(int).tolist() == MASK
    assert not decode_kaggle("", (3, 3)).any()
    assert decode_kaggle("1 4 5 5", (3, 3)).all()  # pairs may touch


def test_a_polygon_holds_the_pixels_whose_centers_it_holds() -> None:
    rectangle = polygons_to_mask([[1, 1, 4, 1, 4, 3, 1, 3]], (4, 5))
    assert rectangle.astype(int).tolist() == [
        [0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0],
    ]
    # Centers (0.5, 0.5), (1.5, 0.5), (0.5, 1.5) are left of the line x + y = 2.5.
    triangle = polygons_to_mask([[0, 0, 2.5, 0, 0, 2.5]], (3, 3))
    assert triangle.astype(int).tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 0]]
    # Sides between centers: only (1.5, 1.5) lies within.
    small = polygons_to_mask([[0.6, 0.6, 2.4, 0.6, 2.4, 2.4, 0.6, 2.4]], (3, 3))
    assert small.astype(int).tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_polygons_of_one_object_are_joined_and_cut_at_the_image() -> None:
    both = polygons_to_mask([[0, 0, 2, 0, 2, 2, 0, 2], [1, 1, 5, 1, 5, 2, 1, 2]], (3, 4))
    assert both.astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]


def test_neighbors_share_no_pixel_whatever_the_line_between_them() -> None:
    left, right = [0, 0, 3.5, 0, 6.5, 9, 0, 9], [3.5, 0, 9, 0, 9, 9, 6.5, 9]
    masks = [polygons_to_mask([part], (9, 9)).astype(int) for part in (left, right)]
    assert (masks[0] + masks[1] == 1).all()


@pytest.mark.parametrize(
    "counts",
    [
        [1, 2, 3],  # too few
        [9, 1],  # too many
        [10, -1],
        [9.0],
        [2**70],
        "1",
        "124O",
        "124OMM",
        "12é",
        "P" * 50,  # a number without an end
        "PPPPPPPP0",
        b"\xff\x00",
        None,
        {"counts": 3},
    ],
)
def test_run_lengths_that_cannot_be(counts: Any) -> None:  # noqa: ANN401
    with pytest.raises(InputError, match="run lengths"):
        decode_rle(counts, (3, 3))


@pytest.mark.parametrize(
    "text",
    ["1", "0 3", "1 0", "1 10", "9 2", "3 3 5 1", "4 1 1 1", "-1 2", "a b", "1.5 2", "9" * 5000],
)
def test_pairs_that_cannot_be(text: str) -> None:
    with pytest.raises(InputError, match="EncodedPixels"):
        decode_kaggle(text, (3, 3))


@pytest.mark.parametrize(
    "polygons",
    [
        [],
        [[]],
        [[0, 0, 1, 1]],
        [[0, 0, 1, 1, 2]],
        [[0, 0, 1, 1, float("nan"), 2]],
        [[0, 0, 1, 1, 1e300, 2]],
        [[0, 0, 1, 1, 10**400, 2]],
        [["0", 0, 1, 1, 2, 2]],
        [3],
        [[True, 0, 1, 1, 2, 2]],
    ],
)
def test_polygons_that_cannot_be(polygons: Any) -> None:  # noqa: ANN401
    with pytest.raises(InputError, match="polygon"):
        polygons_to_mask(polygons, (3, 3))


@pytest.mark.parametrize("size", [(0, 3), (3, -1), (10**6, 3), (20_000, 20_000)])
def test_sizes_that_nothing_has(size: tuple[int, int]) -> None:
    for decode in (lambda: decode_rle("1", size), lambda: decode_kaggle("1 1", size)):
        with pytest.raises(InputError, match="size of a mask"):
            decode()


def test_the_field_segmentation_is_either() -> None:
    runs = {"counts": "124OM", "size": [3, 3]}
    assert segmentation_mask(runs, (3, 3)).astype(int).tolist() == MASK
    assert segmentation_mask([[0, 0, 3, 0, 3, 3, 0, 3]], (3, 3)).all()
    for wrong in (None, "124OM", {"counts": "9"}, {"counts": "9", "size": [1, 9]}, {"size": 3}):
        with pytest.raises(InputError, match="segmentation"):
            segmentation_mask(wrong, (3, 3))
