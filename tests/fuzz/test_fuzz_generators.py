"""Files of generators, ours and CycleGAN's: damaged bytes and values of every shape."""

import io
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from fuzz_guard import Tally, attempt, both_runs, drive
from fuzz_mutations import mutated_archive, mutated_bytes
from fuzz_values import VALUES, places
from hypothesis import strategies as st
from torch import Tensor

from uda.experiments.translations import TRANSLATIONS
from uda.translation.generator_files import GeneratorFile
from uda.translation.generators import GeneratorConfig
from uda.translation.trained import open_generator
from uda.utilities.config_tree import to_plain

_TENSORS = (
    torch.zeros(()), torch.full((3,), float("nan")), torch.zeros(2, 3, dtype=torch.complex64),
    torch.zeros(3).to_sparse(), torch.zeros(4, dtype=torch.bool), torch.zeros(3, device="meta"),
    torch.zeros(64, 3, 7, 7), torch.zeros(0, 3, 7, 7),
)  # fmt: skip


def whole_files() -> dict[str, dict[str, Any]]:
    """What torch.save is given, by the project."""
    config = GeneratorConfig(blocks=1, width=16)
    network = config.build()
    ours = GeneratorFile(
        preset="toy_cut", translation=to_plain(TRANSLATIONS["toy_cut"]()), generator=config,
        supervision="none", step=6, versions={"uda": "1"}, weights=network.state_dict(),
    )  # fmt: skip
    values = {name: getattr(ours, name) for name in GeneratorFile.__dataclass_fields__}
    values |= {"format": "uda translation", "generator": to_plain(config)}
    return {"ours": values, "cyclegan": dict(network.state_dict())}


def saved(values: object) -> bytes:
    target = io.BytesIO()
    torch.save(values, target)
    return target.getvalue()


def use(path: Path) -> None:
    translator = open_generator(path, torch.device("cpu"))
    translator(torch.zeros(3, 16, 16), None)
    translator.facts()


@both_runs
@pytest.mark.parametrize("kind", ["ours", "cyclegan"])
def test_damaged_generators(kind: str, total: int, tmp_path: Path) -> None:
    tally, path = Tally(f"generators of {kind}, bytes"), tmp_path / "odd.pth"
    whole = saved(whole_files()[kind])
    for number in range(total // 20):
        random = Random(number)
        mutate = mutated_archive if random.random() < 0.7 else mutated_bytes
        path.write_bytes(mutate(whole, random))
        attempt(tally, tmp_path, lambda: use(path))
    print(tally)


@both_runs
@pytest.mark.parametrize("kind", ["ours", "cyclegan"])
def test_generators_of_every_shape(kind: str, total: int, tmp_path: Path) -> None:
    tally, path = Tally(f"generators of {kind}, values"), tmp_path / "odd.pth"
    ways = places(whole_files()[kind])

    def check(drawn: tuple[int, object, int]) -> None:
        number, value, tensor = drawn
        found = whole_files()[kind]
        *way, last = ways[number % len(ways)]
        at: Any = found
        for step in way:
            at = at[step]
        if isinstance(at, dict):
            old = at[last]
            at[last] = _TENSORS[tensor] if isinstance(old, Tensor) and tensor >= 0 else value
        torch.save(found, path)
        attempt(tally, tmp_path, lambda: use(path))

    drive(
        st.tuples(st.integers(0, 10**4), VALUES, st.integers(-2, len(_TENSORS) - 1)), check,
        total // 20,
    )  # fmt: skip
    print(tally)
