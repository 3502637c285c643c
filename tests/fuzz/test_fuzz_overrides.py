"""`--set` strings and the values of fields: a preset is refused in one line, or it is valid."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from fuzz_guard import Tally, attempt, both_runs, drive
from hypothesis import strategies as st

from uda.experiment import Experiment, validate
from uda.experiments import load_preset
from uda.utilities.config_tree import apply_override

BASES = ("toy_class_mix_student", "toy_adversarial_multi", "toy_fix_match")


def fields_of(config: Any, path: str = "") -> list[str]:  # noqa: ANN401
    """Dotted names of all that can be set."""
    found = []
    members = config if isinstance(config, dict) else {}
    if dataclasses.is_dataclass(config):
        members = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    for name, value in members.items():
        where = f"{path}.{name}" if path else name
        found += [where, *fields_of(value, where)]
    return found


def is_number(config: Any, path: str) -> bool:  # noqa: ANN401
    for name in path.split("."):
        config = config[name] if isinstance(config, dict) else getattr(config, name)
    return isinstance(config, int | float)


NAMES = {base: fields_of(load_preset(base)) for base in BASES}
NUMBERS = {b: [n for n in NAMES[b] if is_number(load_preset(b), n)] for b in BASES}
LIKELY = st.one_of(st.integers(0, 64), st.floats(0, 1), st.just("true")).map(str)
WORDS = st.one_of(
    st.sampled_from(
        ["1e999", "-1e999", "nan", "inf", "none", "true", "", "0", "-1", "1", "2", "1e308",
         "10" * 20, "9" * 5000, str(2**63 - 1), str(2**64), "(" * 5000, "1," * 2000, "360,640",
         "0,0", "99999999,1", "1,1", "1e308,1e308", "0.5,2", "\u0661\u0662", "\ud800", "a\0b",
         "gta5", "cityscapes", "../..", "sgd", "adam", "fused", "probabilities", "train", "1_000"]
    ),
    st.integers().map(str),
    st.floats().map(str),
    st.lists(st.integers(-5, 10**6), max_size=4).map(lambda found: ",".join(map(str, found))),
    st.text(),
)  # fmt: skip


@st.composite
def assignments(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A preset and up to three strings for --set."""
    base = draw(st.sampled_from(BASES))
    names = st.one_of(*9 * [st.sampled_from(NAMES[base])], st.text())
    texts = st.builds(lambda name, text: f"{name}={text}", names, WORDS)
    likely = st.builds(lambda name, text: f"{name}={text}", st.sampled_from(NUMBERS[base]), LIKELY)
    return base, draw(st.lists(st.one_of(texts, likely, likely, st.text()), max_size=3))


def use(experiment: Experiment) -> None:
    """What is done with a valid preset before data are read; networks are built without memory."""
    validate(experiment)
    torch.manual_seed(experiment.train.seed)
    model = experiment.model.without_weights()
    with torch.device("meta"):
        model.build(19)


@both_runs
def test_set_strings(total: int, tmp_path: Path) -> None:
    tally = Tally("--set strings")

    def check(drawn: tuple[str, list[str]]) -> None:
        base, texts = drawn
        experiment = load_preset(base)

        def run() -> None:
            for text in texts:
                apply_override(experiment, text)
            use(experiment)

        attempt(tally, tmp_path, run)

    drive(assignments(), check, total * 20 // 100)
    print(tally)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
              st.sampled_from([10**400, 2**63 - 1, 1e308, 5e-324])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple), st.dictionaries(st.text(), inner, max_size=2)
    ),
    max_leaves=4,
)  # fmt: skip


@both_runs
def test_values_of_fields(total: int, tmp_path: Path) -> None:
    """As a preset of somebody's own assigns them."""
    tally = Tally("values of fields")

    def check(drawn: tuple[str, int, object]) -> None:
        base, index, value = drawn
        experiment: Any = load_preset(base)
        *parents, last = NAMES[base][index % len(NAMES[base])].split(".")
        owner = experiment
        for name in parents:
            owner = owner[name] if isinstance(owner, dict) else getattr(owner, name)
        if isinstance(owner, dict):
            owner[last] = value
        else:
            setattr(owner, last, value)
        attempt(tally, tmp_path, lambda: use(experiment))

    drive(st.tuples(st.sampled_from(BASES), st.integers(0, 10**4), VALUES), check, total // 20)
    print(tally)
