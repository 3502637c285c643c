"""Annotations of objects as COCO and Kaggle write them: cut, exchanged, of impossible numbers."""

from pathlib import Path
from typing import Any

from fuzz_guard import Tally, attempt, both_runs, drive
from hypothesis import strategies as st

from uda.data.preparation.coco_masks import decode_kaggle, segmentation_mask

_NUMBER = st.one_of(st.integers(-2, 40), st.integers(), st.floats(-5, 30), st.floats())
_TEXT = st.one_of(st.text(st.characters(codec="ascii"), max_size=12), st.text(max_size=9))
_COUNTS = st.one_of(_TEXT, st.binary(max_size=9), st.lists(_NUMBER, max_size=6), st.none())
_SIDE = st.one_of(st.integers(1, 24), st.sampled_from((0, -1, 2**15, 2**40)))
_POINTS = st.lists(st.tuples(st.floats(0, 15), st.integers(0, 15)), min_size=3, max_size=6)
_POLYGON = _POINTS.map(lambda points: [value for point in points for value in point])
_RUNS = st.integers(0, 9).map(lambda runs: {"counts": [runs, 200 - runs], "size": [10, 20]})
_SEGMENTATION = st.one_of(
    st.lists(_POLYGON, min_size=1, max_size=3),
    _RUNS,
    st.lists(st.lists(_NUMBER, max_size=10), max_size=3),
    st.fixed_dictionaries({"counts": _COUNTS, "size": st.lists(_SIDE, max_size=3)}),
    st.recursive(_NUMBER, lambda inner: st.lists(inner, max_size=3), max_leaves=5),
)
_PAIRS = st.lists(st.integers(-1, 60), max_size=6).map(lambda numbers: " ".join(map(str, numbers)))


@both_runs
def test_masks(total: int, tmp_path: Path) -> None:
    tally = Tally("masks")

    def check(drawn: tuple[Any, str, tuple[int, int]]) -> None:
        segmentation, pairs, size = drawn
        attempt(tally, tmp_path, lambda: segmentation_mask(segmentation, size))
        attempt(Tally("pairs"), tmp_path, lambda: decode_kaggle(pairs, size))

    size = (
        st.just((10, 20))
        | st.tuples(st.integers(9, 24), st.integers(9, 24))
        | st.tuples(_SIDE, _SIDE)
    )
    drive(st.tuples(_SEGMENTATION, _PAIRS | _TEXT, size), check, total // 4)
    print(tally)
