"""Annotations of people as DensePose writes them: fields missing, exchanged, of odd values."""

import json
from pathlib import Path
from typing import Any

from fuzz_guard import Tally, attempt, both_runs, drive
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from uda.data.preparation.densepose import label_map, read_people

_ANY = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
)  # fmt: skip


def mostly(good: SearchStrategy[Any], odd: SearchStrategy[Any] = _ANY) -> SearchStrategy[Any]:
    """One odd value in twelve, so that much of what is drawn is read to its end."""
    return st.integers(0, 11).flatmap(lambda draw: odd if draw == 7 else good)


_PLACE = mostly(st.floats(-4, 30), st.one_of(st.floats(), st.integers()))
_BOX = st.tuples(_PLACE, _PLACE, mostly(st.floats(0.5, 30)), mostly(st.floats(0.5, 30)))
_MASK = mostly(
    st.sampled_from(([], {"counts": [4, 4], "size": [2, 4]}, {"counts": "44", "size": [2, 4]})),
    st.fixed_dictionaries({"counts": _ANY, "size": st.lists(_PLACE, max_size=3)}) | _ANY,
)
_POLYGON = st.lists(st.floats(0, 7), min_size=6, max_size=6)
_PERSON = st.fixed_dictionaries(
    {"id": st.integers(), "image_id": mostly(st.just(1)), "bbox": mostly(_BOX)},
    optional={
        "category_id": mostly(st.just(1)),
        "iscrowd": st.sampled_from((0, 1)),
        "dp_masks": mostly(st.lists(_MASK, min_size=14, max_size=14)),
        "segmentation": mostly(st.lists(_POLYGON, max_size=2)),
    },
)
_IMAGES = st.just([{"id": 1, "file_name": "a.jpg"}])
_CONTENT = st.fixed_dictionaries(
    {"images": mostly(_IMAGES), "annotations": mostly(st.lists(_PERSON, max_size=3))}
)


@both_runs
def test_densepose(total: int, tmp_path: Path) -> None:
    tally = Tally("densepose")
    file = tmp_path / "annotations.json"

    def check(content: dict[str, Any]) -> None:
        file.write_text(json.dumps(content))

        def read() -> None:
            for people in read_people(file).values():
                label_map(people, (9, 7))

        attempt(tally, tmp_path, read)

    drive(mostly(_CONTENT), check, total // 4)
    print(tally)
