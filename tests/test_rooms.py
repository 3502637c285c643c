"""The rooms of uda/, and that imports run downward only."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tiny_runs import REPOSITORY

# From the street to the cellar: a room may import from itself and from those below it.
ROOMS = (
    "commands", "reports", "adaptation", "experiments", "translation", "training", "experiment",
    "prediction",
    "checkpoints", "evaluation", "objectives", "optim", "data", "augmentation", "models", "labels",
    "utilities",
)  # fmt: skip


def modules() -> dict[str, Path]:
    """Every module of uda/ by its dotted name."""
    files = (*(REPOSITORY / "uda").rglob("*.py"), *(REPOSITORY / "experiments").rglob("*.py"))
    found = {}
    for file in files:
        path = file.relative_to(REPOSITORY)
        parts = path.with_suffix("").parts
        parts = ("uda", *parts) if parts[0] == "experiments" else parts
        found[".".join(parts).removesuffix(".__init__")] = file
    return found


MODULES = modules()
# What objectives share beside functional/.
_SHARED = ("agreement", "base", "counts", "registry", "teacher_labels")
IDEAS = {
    name for name in MODULES if name.startswith("uda.objectives.") and name.count(".") == 2
} - {f"uda.objectives.{name}" for name in _SHARED}


def imported(file: Path) -> Iterator[str]:
    """The modules of ours that `file` imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_module_is_in_a_room() -> None:
    outside = {name for name in MODULES if "." in name and room(name) not in ROOMS}
    assert outside <= {"uda.__main__"}


def test_imports_run_downward() -> None:
    upward = [
        f"{module} imports {other}"
        for module, file in MODULES.items()
        if module not in ("uda", "uda.__main__")
        for other in imported(file)
        if not (other == "uda" and room(module) == "commands")
        if other == "uda" or ROOMS.index(room(other)) < ROOMS.index(room(module))
    ]
    assert upward == []


def test_no_module_imports_itself_in_a_circle() -> None:
    below = {module: set(imported(file)) - {module} for module, file in MODULES.items()}
    while free := {module for module, others in below.items() if not others & below.keys()}:
        below = {module: others for module, others in below.items() if module not in free}
    assert not below, f"these import each other: {sorted(below)}"


def test_only_commands_know_the_command_line() -> None:
    users = [
        module
        for module, file in MODULES.items()
        if room(f"{module}.") != "commands" and "argparse" in file.read_text()
    ]
    assert users == []


def test_pillow_is_for_data_and_pictures() -> None:
    allowed = {"data", "augmentation", "prediction", "reports"}
    users = {
        module
        for module, file in MODULES.items()
        if room(f"{module}.") not in allowed and "from PIL" in file.read_text()
    }
    assert users == set()


def test_objectives_do_not_know_each_other() -> None:
    for module in IDEAS:
        assert not set(imported(MODULES[module])) & IDEAS, module


def test_an_idea_is_one_short_file() -> None:
    lengths = {module: len(MODULES[module].read_text().splitlines()) for module in IDEAS}
    assert {module: length for module, length in lengths.items() if length > 120} == {}
