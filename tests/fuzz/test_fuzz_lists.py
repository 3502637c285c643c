"""Lists of images and files of mappings: damaged, and of every other shape."""

from functools import partial
from pathlib import Path
from random import Random

from fuzz_guard import Tally, attempt, both_runs
from fuzz_mutations import mutated_bytes

from uda.data.described.mapping import read_mapping
from uda.data.list_files import listed_names

_PATHS = {f"a/{number}": f"images/a/{number}.jpg" for number in range(6)}
_LISTS = (
    "a/0\na/1\n",
    "\ufeffimages/a/0.jpg labels/a/0.png\r\n/old/images/a/1.jpg labels/a/1.png\r\n",
    "image,label,split\n0.jpg,0.png,train\n1.jpg,1.png,val\n",
    '# x\n"2.jpg"\t"2.png"\n',
)
_MAPPINGS = (
    ("ids.json", '{"7": "road", "8": null, "car": [9, 10]}'),
    ("ids.json", '[{"id": 7, "name": "road"}, {"id": 8, "trainId": 255}]'),
    ("ids.csv", "id,class\n7,road\n1,2,3,car\n"),
)


@both_runs
def test_lists_and_mappings(total: int, tmp_path: Path) -> None:
    tally = Tally("lists and mappings")
    for number in range(total // 10):
        random = Random(number)
        path = tmp_path / "train.txt"
        path.write_bytes(mutated_bytes(random.choice(_LISTS).encode(), random))
        attempt(tally, tmp_path, partial(listed_names, path, "train", _PATHS))
        name, text = random.choice(_MAPPINGS)
        path = tmp_path / name
        path.write_bytes(mutated_bytes(text.encode(), random))
        attempt(tally, tmp_path, partial(read_mapping, path, ("road", "car")))
    print(tally)
