"""docs/methods.md: every switch in its tables exists in a preset of its method and can be set."""

import re
from pathlib import Path

import pytest

from uda.experiment import validate
from uda.experiments import PRESETS, load_preset
from uda.experiments.overrides import change
from uda.utilities.config_tree import to_plain
from uda.utilities.errors import InputError

PAGE = Path(__file__).resolve().parents[2] / "docs/methods.md"


def sections() -> dict[str, str]:
    titled = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    return {text.partition("\n")[0]: text for text in titled}


def presets_of(text: str) -> list[str]:
    """Those it names, and those of which it has the ending: `proda_gta5_warmup`, `_denoise`."""
    found, before = list[str](), ""
    for name in re.findall(r"`(\w+)`", text):
        full = before.rpartition("_")[0] + name if name.startswith("_") else name
        if full in PRESETS:
            found.append(full)
            before = full
    return list(dict.fromkeys(found))


def switches_of(text: str) -> list[str]:
    """Those in the last column, in full: `.portion` has the beginning of the one before it."""
    found, before = [], ""
    for line in text.splitlines():
        if not line.startswith("|"):
            continue
        for switch in re.findall(r"`([^`]+)`", line.rstrip(" |").rpartition(" | ")[2]):
            full = (before + switch if switch.startswith(".") else switch).removesuffix("...")
            if re.fullmatch(
                r"(?:model|data|train|teacher|evaluation|objectives)\.[\w.]+(=\S+)?", full
            ):
                before = full.partition("=")[0].rpartition(".")[0]
                found.append(full)
    return found


CASES = [
    pytest.param(title, switch, id=f"{title}: {switch}")
    for title, text in sections().items()
    for switch in switches_of(text)
    if presets_of(text)
]


def problem_of(preset: str, switch: str) -> str:
    """Why a preset does not take a switch; "" if it does."""
    path, _, value = switch.partition("=")
    if not value or value.isupper():  # such as FILE: only the place can be checked
        plain = to_plain(load_preset(preset))
        for part in path.split("."):
            if not isinstance(plain, dict) or part not in plain:
                return f"no {part} in {path}"
            plain = plain[part]
        return ""
    try:
        experiment = load_preset(preset)
        validate(experiment, typed=change(experiment, [switch]).typed)
    except InputError as error:
        return str(error)
    return ""


def test_the_page_has_switches() -> None:
    assert len(CASES) > 80
    assert len({case.values[0] for case in CASES}) > 10


@pytest.mark.parametrize(("title", "switch"), CASES)
def test_a_switch_is_one_of_the_methods_presets(title: str, switch: str) -> None:
    problems = {preset: problem_of(preset, switch) for preset in presets_of(sections()[title])}
    assert "" in problems.values(), problems
