"""labels.csv of people clothing: damaged, and of every other shape."""

from functools import partial
from pathlib import Path
from random import Random

from fuzz_guard import Tally, attempt, both_runs
from fuzz_mutations import mutated_bytes

from uda.data.datasets.clothes import CLOTHES59_CLASSES, check_names

_NAMES = ("null", *CLOTHES59_CLASSES.classes[1:])
WHOLE = (
    "".join(f"{index},{name}\n" for index, name in enumerate(_NAMES)),
    ",label_list\n" + "".join(f'{index},"{name}"\r\n' for index, name in enumerate(_NAMES)),
    "\n".join(_NAMES),
)


@both_runs
def test_class_names(total: int, tmp_path: Path) -> None:
    tally, path = Tally("class names"), tmp_path / "labels.csv"
    for number in range(total // 10):
        random = Random(number)
        path.write_bytes(mutated_bytes(random.choice(WHOLE).encode(), random))
        attempt(tally, tmp_path, partial(check_names, path))
    print(tally)
