"""Files of polygons: keys missing, values of other kinds, points anywhere, lists in lists."""

import json
from pathlib import Path
from random import Random
from typing import Any

from fuzz_guard import Tally, attempt, both_runs, drive
from fuzz_mutations import mutated_bytes
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from uda.data.datasets.idd import IDD
from uda.data.label_files import label_header, read_train_ids

_ANY: SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.recursive(st.just(0), lambda inner: st.lists(inner, max_size=2), max_leaves=20),
    st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
)  # fmt: skip


def mostly(good: SearchStrategy[Any], odd: SearchStrategy[Any] = _ANY) -> SearchStrategy[Any]:
    """One odd value in twelve, so that much of what is drawn is read to its end."""
    return st.integers(0, 11).flatmap(lambda draw: odd if draw == 7 else good)


_PLACE = mostly(st.floats(-20, 40), st.floats() | st.integers())
_POINT = mostly(st.lists(_PLACE, min_size=2, max_size=2))
_OBJECT = st.fixed_dictionaries(
    {
        "label": mostly(st.sampled_from(("road", "car", "polegroup", "cargroup", "sky"))),
        "polygon": mostly(st.lists(_POINT, max_size=8)),
    },
    optional={"deleted": _ANY},
)
_SIDE = mostly(st.integers(1, 30), st.integers(-3, 10**9) | _ANY)
_CONTENT = mostly(
    st.fixed_dictionaries(
        {
            "imgHeight": _SIDE,
            "imgWidth": _SIDE,
            "objects": mostly(st.lists(mostly(_OBJECT), max_size=5)),
        }
    )
)


@both_runs
def test_polygons(total: int, tmp_path: Path) -> None:
    tally, file, numbers = Tally("polygons"), tmp_path / "a_polygons.json", iter(range(10**9))

    def check(content: object) -> None:
        text = json.dumps(content).encode()
        number = next(numbers)
        file.write_bytes(mutated_bytes(text, Random(number)) if number % 5 == 0 else text)
        attempt(
            tally,
            tmp_path,
            lambda: read_train_ids(file, label_header(file).size, IDD.label_space),
        )

    drive(_CONTENT, check, total // 4)
    print(tally)
