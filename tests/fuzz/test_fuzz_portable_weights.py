"""Files of safetensors, and folders of transformers: damaged bytes, and settings of every kind."""

import json
from pathlib import Path
from random import Random

import pytest
from fuzz_guard import Tally, attempt, both_runs
from fuzz_mutations import mutated_bytes

from factories import tiny_snapshot
from uda.checkpoints.recovery import recover_tensors
from uda.checkpoints.snapshots import load, snapshot_values
from uda.experiments import load_preset
from uda.utilities.safetensors_files import write_safetensors

_LEAVES: tuple[object, ...] = (
    None, True, -1, 0, 2, 10**400, 1e308, float("nan"), "gelu", "a/b", "\x1b[2J", [], [[]],
    [1, "a"], {}, {"a": {"a": {"a": {"a": {"a": 1}}}}}, "x" * 10_000,
)  # fmt: skip


@both_runs
def test_damaged_safetensors(total: int, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    snapshot, path = tiny_snapshot(load_preset("toy_source_only")), tmp_path / "odd.safetensors"
    with path.open("wb") as file:
        write_safetensors(file, snapshot.student, snapshot_values(snapshot))
    whole, tally = path.read_bytes(), Tally("safetensors")
    header = whole[: 8 + int.from_bytes(whole[:8], "little")]
    for number in range(total * 10 // 100):
        random = Random(number)
        # Mostly where the text is: tensors are bytes of which nothing is known.
        damaged = mutated_bytes(header, random) + whole[len(header) :]
        path.write_bytes(damaged if random.random() < 0.8 else mutated_bytes(whole, random))
        attempt(tally, tmp_path, lambda: load(path).build(), lambda: recover_tensors(path))
    print(tally)


@pytest.mark.slow
@both_runs
def test_odd_settings_of_transformers(total: int, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    names = {0: "cat", 1: "dog"}
    own = transformers.SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 32, 32], num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16, id2label=names, label2id={"cat": 0, "dog": 1},
    )  # fmt: skip
    transformers.SegformerForSemanticSegmentation(own).save_pretrained(tmp_path)
    processor = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": True,
                 "do_rescale": True, "rescale_factor": 1 / 255, "size": None}  # fmt: skip
    settings = json.loads((tmp_path / "config.json").read_text())
    tally = Tally("folders of transformers")
    for number in range(total * 5 // 100):
        random = Random(number)
        files = {"config.json": dict(settings), "preprocessor_config.json": dict(processor)}
        for _ in range(random.randint(1, 3)):
            values = random.choice([*files.values(), files["config.json"]])
            values[random.choice([*values, "auto_map", "backbone"])] = random.choice(_LEAVES)
        for name, values in files.items():
            (tmp_path / name).write_text(json.dumps(values))
        attempt(tally, tmp_path, lambda: load(tmp_path).build())
    print(tally)
