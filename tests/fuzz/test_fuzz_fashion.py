"""Fashionpedia's JSON and iMaterialist's tables, flipped and cut."""

import json
from pathlib import Path
from random import Random

from fuzz_guard import Tally, attempt, both_runs
from fuzz_mutations import mutated_bytes

from fashion_files import coco, drawn_boxes, write_kaggle
from uda.data.preparation.fashion_annotations import read_annotations
from uda.data.preparation.fashion_labels import label_map

SIZE = (20, 16)  # pixels (height, width)


def rasterize(path: Path) -> None:
    annotations = read_annotations(path)
    for image in annotations.images:
        label_map(annotations.instances(image), image.size)


@both_runs
def test_annotation_files(total: int, tmp_path: Path) -> None:
    drawn = {f"{index}": drawn_boxes(index, SIZE) for index in range(2)}
    write_kaggle(tmp_path / "whole.csv", drawn, SIZE)
    wholes = {
        ".csv": (tmp_path / "whole.csv").read_bytes(),
        ".json": json.dumps(coco(drawn, SIZE)).encode(),
    }
    tally = Tally("annotations of clothes")
    for number in range(total // 4):
        random = Random(number)
        suffix = random.choice(list(wholes))
        path = tmp_path / f"changed{suffix}"
        path.write_bytes(mutated_bytes(wholes[suffix], random))
        attempt(tally, tmp_path, lambda path=path: rasterize(path))  # type: ignore[misc]
    print(tally)
